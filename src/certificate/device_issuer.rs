//! `DeviceIssuer`: device certificates one after the other, at little more than the price of their cryptography.

use rcgen::{PublicKeyData, SigningKey};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::{
    AuthorityError, Certificate, CertificateAuthority, CommonName, DeviceId, IssueOptions, IssuedCertificate,
    KeyAlgorithm, MAX_COMMON_NAME, PrivateKey, Profile, ReadError, Validity,
    der::{der_element, der_frame, push_header},
    profile::{SERIAL_LENGTH, random_serial},
};

/// Makes device certificates under one authority that differ only in device, key and serial number.
///
/// rcgen makes the first, which is then the pattern of all others: what is the same in each is kept as it was encoded,
/// and subject, key, key identifier and serial number are put in between. A certificate is byte for byte what
/// [`CertificateAuthority::issue_device`] would make of the same values at the same moment. rcgen alone takes about as
/// long for the encoding as the cryptography does, and has no place to give it a part that is encoded already.
///
/// The first is checked as [`CertificateAuthority::issue_device`] checks every one, and the others share its outcome. Only
/// under name constraints each is checked.
#[derive(Debug)]
pub struct DeviceIssuer<'a> {
    authority: &'a CertificateAuthority,
    algorithm: KeyAlgorithm,
    at: OffsetDateTime,
    /// Whether certificates are checked one by one, as name constraints may permit some and not others.
    constrained: bool,
    validity: Validity,
    shortened_from: Option<OffsetDateTime>,
    /// From the version to the length of the serial number.
    before_serial: Vec<u8>,
    /// Signature algorithm, issuer and validity.
    before_subject: Vec<u8>,
    /// What the public key information has before the key.
    before_key: Vec<u8>,
    /// The extensions up to the subject key identifier, and those after it.
    before_identifier: Vec<u8>,
    after_identifier: Vec<u8>,
    signature_algorithm: Vec<u8>,
}

/// A new certificate in DER, and its key.
#[derive(Debug)]
pub struct DeviceIdentity {
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// Its serial number.
    pub serial_number: [u8; SERIAL_LENGTH],
    /// Its key.
    pub key: PrivateKey,
}

impl<'a> DeviceIssuer<'a> {
    /// Prepares certificates with these options.
    ///
    /// # Errors
    /// [`AuthorityError`] if the authority cannot sign at that moment, its certificates would not be valid, or the lifetime
    /// is not possible.
    pub fn new(authority: &'a CertificateAuthority, options: &IssueOptions) -> Result<Self, AuthorityError> {
        // The pattern's key is not used again: only what surrounds it is. What makes it invalid does so with all others, but
        // for its name.
        let pattern = authority.make(Profile::Device, &CommonName::new("pattern")?, Vec::new(), options)?;
        match authority.check_issued(&pattern.certificate, options.at) {
            Err(AuthorityError::Invalid { error, .. }) if error.is_about_names() => {}
            checked => checked?,
        }
        let unexpected = || ReadError::Certificate("the pattern of the certificates is not as expected".to_owned());
        Self::from_pattern(authority, options, &pattern).ok_or_else(|| unexpected().into())
    }

    /// Checks that a certificate for this device would be valid: name constraints above the authority may not permit it.
    ///
    /// # Errors
    /// [`AuthorityError::Invalid`], or [`AuthorityError::Name`] when the ID is longer than a common name may be.
    pub fn check(&self, id: &DeviceId) -> Result<(), AuthorityError> {
        if self.constrained {
            self.certificate(id, self.authority.certificate().public_key(), random_serial()?)?;
        }
        Ok(())
    }

    fn from_pattern(
        authority: &'a CertificateAuthority,
        options: &IssueOptions,
        pattern: &IssuedCertificate,
    ) -> Option<Self> {
        let certificate = &pattern.certificate;
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
        let key = pattern.key.der_bytes();
        let identifier = certificate.subject_key_identifier()?;
        let at = extensions.windows(identifier.len()).position(|window| window == identifier)?;
        if serial_content.len() != SERIAL_LENGTH || identifier != key_identifier(key_info) || !key_info.ends_with(key) {
            return None;
        }
        Some(Self {
            authority,
            algorithm: options.algorithm,
            at: options.at,
            constrained: authority.constrains_names(),
            validity: Validity { not_before: certificate.not_before(), not_after: certificate.not_after() },
            shortened_from: pattern.shortened_from,
            before_serial: [version, &serial[..serial.len() - SERIAL_LENGTH]].concat(),
            before_subject: [algorithm_element, issuer, validity].concat(),
            before_key: key_info[..key_info.len() - key.len()].to_vec(),
            before_identifier: extensions[..at].to_vec(),
            after_identifier: extensions[at + identifier.len()..].to_vec(),
            signature_algorithm: signature_algorithm.to_vec(),
        })
    }

    /// The authority that signs.
    #[must_use]
    pub fn authority(&self) -> &'a CertificateAuthority {
        self.authority
    }

    /// The validity of all certificates.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The end that was asked for, where the authority ends earlier and the validity was cut to that.
    #[must_use]
    pub fn shortened_from(&self) -> Option<OffsetDateTime> {
        self.shortened_from
    }

    /// Makes a key and its certificate.
    ///
    /// # Errors
    /// [`AuthorityError::Name`] when the id is longer than a common name may be, or when the cryptographic library
    /// fails.
    pub fn issue(&self, id: &DeviceId) -> Result<DeviceIdentity, AuthorityError> {
        self.issue_numbered(id, random_serial()?)
    }

    /// As [`issue`](Self::issue), with a serial number that was made before.
    pub(super) fn issue_numbered(
        &self,
        id: &DeviceId,
        serial_number: [u8; SERIAL_LENGTH],
    ) -> Result<DeviceIdentity, AuthorityError> {
        let key = PrivateKey::generate(self.algorithm)?;
        let mut key_info = Vec::with_capacity(self.before_key.len() + key.der_bytes().len());
        key_info.extend_from_slice(&self.before_key);
        key_info.extend_from_slice(key.der_bytes());
        let certificate = self.certificate(id, &key_info, serial_number)?;
        Ok(DeviceIdentity { certificate, serial_number, key })
    }

    /// Makes the certificate of a key that is somewhere else, from the DER of its `SubjectPublicKeyInfo`; the
    /// certificate in DER and its serial number.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
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
        // What may be in an id may be in a common name; it can only be too long.
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
        let tbs = der_frame(0x30, &parts);
        let signature = self.authority.key().sign(&tbs)?;
        // A bit string begins with the number of unused bits, none.
        let mut bits = Vec::with_capacity(8);
        push_header(&mut bits, 0x03, signature.len() + 1);
        bits.push(0);
        let der = der_frame(0x30, &[&tbs, &self.signature_algorithm, &bits, &signature]);
        if self.constrained {
            self.authority.check_issued(&Certificate::from_der(&der)?, self.at)?;
        }
        Ok(der)
    }
}

/// A name of one common name, as UTF-8 (RFC 5280 section 4.1.2.4).
fn subject(common_name: &str) -> Vec<u8> {
    const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
    let mut name = Vec::with_capacity(common_name.len() + 16);
    // Sequence, set and sequence again, each around the next; the text has at most 64 octets, so each header has two.
    for (depth, tag) in [(2, 0x30), (1, 0x31), (0, 0x30)] {
        push_header(&mut name, tag, common_name.len() + 2 + COMMON_NAME.len() + 2 * depth);
    }
    name.extend_from_slice(COMMON_NAME);
    push_header(&mut name, 0x0c, common_name.len());
    name.extend_from_slice(common_name.as_bytes());
    name
}

/// The leftmost 160 bits of the SHA-256 of the public key information (RFC 7093 section 2, method 4), as rcgen has it.
fn key_identifier(key_info: &[u8]) -> [u8; 20] {
    let digest = Sha256::digest(key_info);
    let mut identifier = [0; 20];
    identifier.copy_from_slice(&digest[..20]);
    identifier
}
