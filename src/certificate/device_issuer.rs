//! Issuing of many device certificates, at little more than the cost of their cryptography.

use sha2::{Digest, Sha256};

use super::{
    AuthorityError, Certificate, CertificateAuthority, ChainError, CommonName, DeviceId, IssueOptions,
    IssuedCertificate, KeyAlgorithm, MAX_COMMON_NAME, PrivateKey, Profile, ReadError, Timestamp, Validity,
    der::{BIT_STRING, OBJECT_IDENTIFIER, SEQUENCE, SET, der_element, der_frame, push_header},
    profile::{SERIAL_LENGTH, random_serial},
};

/// Issues device certificates of one CA that differ only in device, key and serial number.
///
/// rcgen encodes a first certificate, which becomes the template of all others: the common parts are copied, and subject,
/// key, key identifier and serial number are inserted. Each certificate is byte for byte the one that
/// [`CertificateAuthority::issue_device`] would issue for the same values at the same time. The encoder of rcgen takes
/// about as long as the cryptography, and does not accept parts that are already encoded.
///
/// The template is verified as [`CertificateAuthority::issue_device`] verifies each certificate. The others are verified
/// only if there are name constraints: nothing else depends on the device.
#[derive(Debug)]
pub struct DeviceIssuer<'a> {
    authority: &'a CertificateAuthority,
    algorithm: KeyAlgorithm,
    issue_time: Timestamp,
    /// Whether the caller chose the time of issue, so that certificates may have expired by the clock of the system.
    is_time_fixed: bool,
    /// Whether each certificate is verified, since name constraints may permit some devices and not others.
    constrained: bool,
    validity: Validity,
    shortened_from: Option<Timestamp>,
    /// The version, and the header of the serial number.
    before_serial: Vec<u8>,
    /// The signature algorithm, issuer and validity.
    before_subject: Vec<u8>,
    /// The public key information before the key.
    before_key: Vec<u8>,
    /// The extensions up to the subject key identifier, and those after it.
    before_identifier: Vec<u8>,
    after_identifier: Vec<u8>,
    signature_algorithm: Vec<u8>,
}

/// A new certificate in DER, and its private key.
#[derive(Debug)]
pub struct DeviceIdentity {
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// The serial number of the certificate.
    pub serial_number: [u8; SERIAL_LENGTH],
    /// The private key of the certificate.
    pub key: PrivateKey,
}

impl<'a> DeviceIssuer<'a> {
    /// Creates an issuer. All its certificates have the same validity, from the time of this call. When that is over, it
    /// issues nothing more.
    ///
    /// # Errors
    /// Returns an [`AuthorityError`] if the CA cannot sign now, its certificates would not be valid, or X.509 cannot express
    /// the lifetime.
    pub fn new(authority: &'a CertificateAuthority, options: &IssueOptions) -> Result<Self, AuthorityError> {
        let is_time_fixed = options.has_fixed_time();
        let options = options.with_fixed_time();
        let name = CommonName::new("template")?;
        let key = || PrivateKey::generate(options.key_algorithm());
        let template = authority.issue_unchecked(Profile::Device, &name, key, |_| (), &options)?;
        // Only the name of the template may be invalid: everything else is the same in all certificates.
        match authority.check_issued(&template.certificate, options.issue_time()) {
            Err(AuthorityError::Invalid { error, .. }) if error.is_about_names() => {}
            checked => checked?,
        }
        let unexpected = || ReadError::Certificate("the template has an unexpected structure".to_owned());
        Self::from_template(authority, &options, &template)
            .map(|issuer| Self { is_time_fixed, ..issuer })
            .ok_or_else(|| unexpected().into())
    }

    /// Checks that a certificate for this device would be valid: name constraints may not permit it.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Invalid`] if it would not, [`AuthorityError::Name`] if the ID is longer than a common name
    /// may be.
    pub fn check(&self, id: &DeviceId) -> Result<(), AuthorityError> {
        if self.constrained {
            self.certificate(id, self.authority.certificate().public_key(), random_serial()?)?;
        }
        Ok(())
    }

    fn from_template(
        authority: &'a CertificateAuthority,
        options: &IssueOptions,
        template: &IssuedCertificate,
    ) -> Option<Self> {
        let certificate = &template.certificate;
        let (_, outer, _) = der_element(certificate.der())?;
        let (_, content, rest) = der_element(outer)?;
        let (signature_algorithm, ..) = der_element(rest)?;
        let (version, _, rest) = der_element(content)?;
        let (serial, serial_content, rest) = der_element(rest)?;
        let (algorithm_element, _, rest) = der_element(rest)?;
        let (issuer, _, rest) = der_element(rest)?;
        let (validity, _, rest) = der_element(rest)?;
        let (_subject, _, rest) = der_element(rest)?;
        let (key_info, _, extensions) = der_element(rest)?;
        let key = template.key.public_key_bits();
        let identifier = certificate.subject_key_identifier()?;
        let at = extensions.windows(identifier.len()).position(|window| window == identifier)?;
        if serial_content.len() != SERIAL_LENGTH || identifier != key_identifier(key_info) || !key_info.ends_with(key) {
            return None;
        }
        Some(Self {
            authority,
            algorithm: options.key_algorithm(),
            issue_time: options.issue_time(),
            is_time_fixed: true,
            constrained: authority.constrains_names(),
            validity: certificate.validity(),
            shortened_from: template.shortened_from,
            before_serial: [version, &serial[..serial.len() - SERIAL_LENGTH]].concat(),
            before_subject: [algorithm_element, issuer, validity].concat(),
            before_key: key_info[..key_info.len() - key.len()].to_vec(),
            before_identifier: extensions[..at].to_vec(),
            after_identifier: extensions[at + identifier.len()..].to_vec(),
            signature_algorithm: signature_algorithm.to_vec(),
        })
    }

    /// Returns the CA that signs.
    #[must_use]
    pub fn authority(&self) -> &'a CertificateAuthority {
        self.authority
    }

    /// Returns the time of issue of all certificates.
    #[must_use]
    pub fn issue_time(&self) -> Timestamp {
        self.issue_time
    }

    /// Returns the validity of all certificates.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Returns the requested end of the validity, if the CA ends earlier and the validity was shortened to that.
    #[must_use]
    pub fn shortened_from(&self) -> Option<Timestamp> {
        self.shortened_from
    }

    /// Generates a key and issues its certificate.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Name`] if the ID is longer than a common name may be, [`AuthorityError::Invalid`] if name
    /// constraints do not permit it or the certificate would have expired already, and other errors if the cryptographic
    /// library fails.
    pub fn issue(&self, id: &DeviceId) -> Result<DeviceIdentity, AuthorityError> {
        self.issue_numbered(id, random_serial()?)
    }

    /// Generates a key and issues its certificate with that serial number, as [`issue`](Self::issue) does.
    pub(super) fn issue_numbered(
        &self,
        id: &DeviceId,
        serial_number: [u8; SERIAL_LENGTH],
    ) -> Result<DeviceIdentity, AuthorityError> {
        let key = PrivateKey::generate(self.algorithm)?;
        let key_info = [&self.before_key, key.public_key_bits()].concat();
        let certificate = self.certificate(id, &key_info, serial_number)?;
        Ok(DeviceIdentity { certificate, serial_number, key })
    }

    /// Issues the certificate of a key that the device keeps, from the DER of its `SubjectPublicKeyInfo`. Returns the
    /// certificate in DER and its serial number.
    ///
    /// # Errors
    /// Returns the errors of [`issue`](Self::issue).
    pub fn issue_for_key(
        &self,
        id: &DeviceId,
        key_info: &[u8],
    ) -> Result<(Vec<u8>, [u8; SERIAL_LENGTH]), AuthorityError> {
        let serial_number = random_serial()?;
        Ok((self.certificate(id, key_info, serial_number)?, serial_number))
    }

    fn certificate(
        &self,
        id: &DeviceId,
        key_info: &[u8],
        serial_number: [u8; SERIAL_LENGTH],
    ) -> Result<Vec<u8>, AuthorityError> {
        let now = Timestamp::now();
        if !self.is_time_fixed && now > self.validity.not_after {
            let (subject, not_after) = (format!("CN={id}"), self.validity.not_after);
            let error = Box::new(ChainError::Expired { subject: subject.clone(), not_after, at: now });
            return Err(AuthorityError::Invalid { subject, error });
        }
        // Every character of an ID is allowed in a common name, so only the length can be wrong.
        if id.as_str().len() > MAX_COMMON_NAME {
            id.common_name()?;
        }
        let subject = subject(id.as_str());
        let parts: [&[u8]; 8] = [
            &self.before_serial,
            &serial_number,
            &self.before_subject,
            &subject,
            key_info,
            &self.before_identifier,
            &key_identifier(key_info),
            &self.after_identifier,
        ];
        let tbs = der_frame(SEQUENCE, &parts);
        let signature = self.authority.key().sign(&tbs)?;
        // A bit string begins with the number of unused bits, none.
        let mut bits = Vec::with_capacity(8);
        push_header(&mut bits, BIT_STRING, signature.len() + 1);
        bits.push(0);
        let der = der_frame(SEQUENCE, &[&tbs, &self.signature_algorithm, &bits, &signature]);
        if self.constrained {
            self.authority.check_issued(&Certificate::from_der(&der)?, self.issue_time)?;
        }
        Ok(der)
    }
}

/// Encodes a name that is one common name in UTF-8 (RFC 5280 section 4.1.2.4).
fn subject(common_name: &str) -> Vec<u8> {
    const COMMON_NAME: &[u8] = &[OBJECT_IDENTIFIER, 0x03, 0x55, 0x04, 0x03];
    const UTF8_STRING: u8 = 0x0c;
    let mut name = Vec::with_capacity(common_name.len() + 16);
    // The text has at most 64 octets, so each header has two.
    for (depth, tag) in [(2, SEQUENCE), (1, SET), (0, SEQUENCE)] {
        push_header(&mut name, tag, common_name.len() + 2 + COMMON_NAME.len() + 2 * depth);
    }
    name.extend_from_slice(COMMON_NAME);
    push_header(&mut name, UTF8_STRING, common_name.len());
    name.extend_from_slice(common_name.as_bytes());
    name
}

/// Returns the leftmost 160 bits of the SHA-256 of the public key information (RFC 7093 section 2, method 4), as rcgen
/// does.
pub(super) fn key_identifier(key_info: &[u8]) -> [u8; 20] {
    let digest = Sha256::digest(key_info);
    let mut identifier = [0; 20];
    identifier.copy_from_slice(&digest[..20]);
    identifier
}
