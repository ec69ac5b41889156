//! Certificate authorities, and the certificates that they issue.

use std::{path::PathBuf, sync::Arc};

use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyIdMethod, PublicKeyData, SanType};

use super::{
    AuthorityError, Certificate, ChainError, CommonName, DeviceId, IssueOptions, KeyError, PrivateKey, Profile,
    PublicKeyAlgorithm, ReadError, Timestamp, chain,
    chain::Usage,
    der::{BIT_STRING, der_element, der_frame, der_sequence},
    key::RcgenKey,
    x509::{CLIENT_AUTHENTICATION, SERVER_AUTHENTICATION},
};

/// A new certificate, its private key, and the certificates above it.
#[derive(Debug)]
#[non_exhaustive]
pub struct IssuedCertificate {
    /// The certificate.
    pub certificate: Certificate,
    /// The private key of the certificate.
    pub key: PrivateKey,
    /// The certificates above it, the issuer first; empty if the certificate is self-signed.
    pub issuers: Vec<Certificate>,
    /// The requested end of the validity, if the issuer ends earlier and the validity was shortened to that.
    pub shortened_from: Option<Timestamp>,
}

impl IssuedCertificate {
    /// Returns the certificate, then the certificates above it.
    pub fn fullchain(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.certificate).chain(&self.issuers)
    }

    /// Returns the [full chain](Self::fullchain) in PEM, in the order that TLS clients and servers send it.
    #[must_use]
    pub fn fullchain_pem(&self) -> String {
        self.fullchain().map(Certificate::to_pem).collect()
    }

    /// Turns the certificate and its key into an authority, as [`CertificateAuthority::new`] does.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Unfit`] if the certificate is not a CA's, or not valid at that time.
    pub fn into_authority(self, at: Timestamp) -> Result<CertificateAuthority, AuthorityError> {
        let certificates = std::iter::once(self.certificate).chain(self.issuers).collect();
        CertificateAuthority::new(certificates, self.key, at)
    }
}

/// A CA certificate and its private key, which issues other certificates.
///
/// It issues only certificates that [`chain::verify`] accepts under the topmost certificate of its known chain. For server
/// certificates, the CAs of the chain must allow server authentication, not client authentication.
///
/// ```
/// use iot_enroll::certificate::{CertificateAuthority, CommonName, DeviceId, IssueOptions};
///
/// let options = IssueOptions::new();
/// let root = CertificateAuthority::new_root(&CommonName::new("Lab Root")?, &options)?;
/// let root = root.into_authority(options.issue_time())?;
/// let device = root.issue_device(&DeviceId::new("sensor-1")?, &options)?;
/// assert_eq!(device.certificate.subject().common_name(), Some("sensor-1"));
/// println!("{}", device.fullchain_pem());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CertificateAuthority {
    certificate: Certificate,
    issuers: Vec<Certificate>,
    key: Arc<PrivateKey>,
    files: Vec<PathBuf>,
}

impl CertificateAuthority {
    /// Creates an authority from certificates and a private key.
    ///
    /// The certificate that the key belongs to becomes the CA's. The certificates that lead up from it become its chain.
    /// Any others are ignored.
    ///
    /// # Errors
    /// Returns [`AuthorityError::KeyMismatch`] if the key belongs to none of the certificates, and
    /// [`AuthorityError::Unfit`] if the certificate may not sign or is not valid at that time.
    pub fn new(
        certificates: Vec<Certificate>,
        key: impl Into<Arc<PrivateKey>>,
        at: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let key = key.into();
        let certificate = certificates
            .iter()
            .find(|certificate| key.belongs_to(certificate))
            .ok_or_else(|| mismatch(&certificates))?
            .clone();
        chain::check_signer(&certificate, at).map_err(AuthorityError::Unfit)?;
        let issuers = chain::issuers(&certificate, certificates, at);
        Ok(Self { certificate, issuers, key, files: Vec::new() })
    }

    /// Creates an authority from certificates and an unencrypted private key in PEM, as [`new`](Self::new) does.
    ///
    /// Both may be in one text. An encrypted key is read by [`PrivateKey::read`].
    ///
    /// # Errors
    /// Returns [`AuthorityError::Read`] or [`AuthorityError::Key`] if one of them cannot be read; otherwise the errors of
    /// [`new`](Self::new).
    pub fn from_pem(
        certificates: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        at: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let certificates = Certificate::read_all(certificates.as_ref()).map_err(AuthorityError::Read)?;
        Self::new(certificates, PrivateKey::read(key.as_ref(), None)?, at)
    }

    /// Sets the files that the authority was read from.
    pub(super) fn read_from(mut self, files: impl Into<Vec<PathBuf>>) -> Self {
        self.files = files.into();
        self
    }

    /// Issues a self-signed root certificate.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Lifetime`] if X.509 cannot express the lifetime, and other errors if the cryptographic
    /// library fails.
    pub fn new_root(name: &CommonName, options: &IssueOptions) -> Result<IssuedCertificate, AuthorityError> {
        self_signed(Profile::Root, name, |_| (), options)
    }

    /// Issues a self-signed root certificate for a key, such as one in a PKCS#11 token. The key algorithm of the options is not
    /// used.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Key`] if the key does not sign; otherwise the errors of [`new_root`](Self::new_root).
    pub fn new_root_with_key(
        name: &CommonName,
        key: PrivateKey,
        options: &IssueOptions,
    ) -> Result<IssuedCertificate, AuthorityError> {
        self_signed_with_key(Profile::Root, name, key, |_| (), options)
    }

    /// Issues a self-signed device certificate, for the individual attestation of one device.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Name`] if the ID is longer than a common name may be; otherwise the errors of
    /// [`new_root`](Self::new_root).
    pub fn self_signed_device(id: &DeviceId, options: &IssueOptions) -> Result<IssuedCertificate, AuthorityError> {
        self_signed(Profile::Device, &id.common_name()?, |_| (), options)
    }

    /// Returns the certificate of the CA.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Returns the private key of the CA.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Returns the known certificates above the CA, its issuer first.
    #[must_use]
    pub fn issuers(&self) -> &[Certificate] {
        &self.issuers
    }

    /// Returns the files that the authority was read from. No issued certificate may overwrite them.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Issues an intermediate CA certificate. It inherits the path length limits of this CA and of those above.
    ///
    /// # Errors
    /// Returns [`AuthorityError::PathLength`] if no CA is allowed below this one, [`AuthorityError::Invalid`] if the new
    /// certificate would not be valid; otherwise the errors of [`new_root`](Self::new_root).
    pub fn issue_intermediate(
        &self,
        name: &CommonName,
        options: &IssueOptions,
    ) -> Result<IssuedCertificate, AuthorityError> {
        self.issue(Profile::Intermediate, name, |_| (), options)
    }

    /// Checks that an intermediate CA can be issued, before a key is created for it.
    ///
    /// # Errors
    /// Returns the errors of [`issue_intermediate`](Self::issue_intermediate), except those of the key and of its name.
    pub fn check_intermediate(&self, options: &IssueOptions) -> Result<(), AuthorityError> {
        self.path_length_below(Profile::Intermediate, options.issue_time())?;
        Profile::Intermediate.validity(options, Some(&self.certificate)).map(drop)
    }

    /// Issues an intermediate CA certificate for a key, such as one in a PKCS#11 token. The key algorithm of the options is not
    /// used.
    ///
    /// # Errors
    /// Returns [`AuthorityError::SameKey`] if it is the key of this CA or of one above; otherwise the errors of
    /// [`issue_intermediate`](Self::issue_intermediate).
    pub fn issue_intermediate_with_key(
        &self,
        name: &CommonName,
        key: PrivateKey,
        options: &IssueOptions,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let options = options.with_fixed_time();
        let above = || std::iter::once(&self.certificate).chain(&self.issuers);
        if let Some(owner) = above().find(|authority| key.belongs_to(authority)) {
            return Err(AuthorityError::SameKey(owner.subject().to_string()));
        }
        let issued = self.issue_unchecked(Profile::Intermediate, name, || Ok(key), |_| (), &options)?;
        self.check_issued(&issued.certificate, options.issue_time())?;
        Ok(issued)
    }

    /// Issues a device certificate, with the ID as its common name.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Invalid`] if the certificate would not be valid; otherwise the errors of
    /// [`self_signed_device`](Self::self_signed_device).
    pub fn issue_device(&self, id: &DeviceId, options: &IssueOptions) -> Result<IssuedCertificate, AuthorityError> {
        self.issue(Profile::Device, &id.common_name()?, |_| (), options)
    }

    /// Issues a proof of possession: a certificate whose common name is the verification code.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Invalid`] if [`chain::verify_possession`] would refuse it; otherwise the errors of
    /// [`new_root`](Self::new_root).
    pub fn issue_verification(
        &self,
        code: &CommonName,
        options: &IssueOptions,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let options = options.with_fixed_time();
        let key = || PrivateKey::generate(options.key_algorithm());
        let issued = self.issue_unchecked(Profile::Verification, code, key, |_| (), &options)?;
        chain::verify_possession(&issued.certificate, &self.certificate, code.as_str(), options.issue_time())
            .map_err(|error| invalid(&issued.certificate, error))?;
        Ok(issued)
    }

    /// Issues a TLS server certificate. `alternative_names` are the DNS names and IP addresses by which clients reach the
    /// server; clients compare only these (RFC 9525 section 6.3).
    ///
    /// DNS names are only required to be ASCII, as those that a client asked for. For names that a person chose, parse them
    /// as [`AlternativeName`](super::AlternativeName) and use [`issue_leaf`](Self::issue_leaf).
    ///
    /// # Errors
    /// Returns [`AuthorityError::AlternativeName`] if a name is neither, [`AuthorityError::Invalid`] if the certificate
    /// would not be valid; otherwise the errors of [`new_root`](Self::new_root).
    pub fn issue_server(
        &self,
        name: &CommonName,
        alternative_names: &[&str],
        options: &IssueOptions,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let alternative_name = |name: &&str| match (name.parse(), (*name).try_into()) {
            (Ok(address), _) => Ok(SanType::IpAddress(address)),
            (Err(_), Ok(name)) => Ok(SanType::DnsName(name)),
            (Err(_), Err(_)) => Err(AuthorityError::AlternativeName((*name).to_owned())),
        };
        let names = alternative_names.iter().map(alternative_name).collect::<Result<_, _>>()?;
        self.issue(Profile::Server, name, |params| params.subject_alt_names = names, options)
    }

    /// Issues a certificate. `adjust` changes what differs from the profile.
    pub(super) fn issue(
        &self,
        profile: Profile,
        name: &CommonName,
        adjust: impl FnOnce(&mut CertificateParams),
        options: &IssueOptions,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let options = options.with_fixed_time();
        let key = || PrivateKey::generate(options.key_algorithm());
        let issued = self.issue_unchecked(profile, name, key, adjust, &options)?;
        self.check_issued(&issued.certificate, options.issue_time())?;
        Ok(issued)
    }

    /// Verifies the chain of a new certificate up to the topmost known certificate, as a service would.
    pub(super) fn check_issued(&self, certificate: &Certificate, at: Timestamp) -> Result<(), AuthorityError> {
        let above = std::iter::once(&self.certificate).chain(&self.issuers);
        let presented: Vec<_> = std::iter::once(certificate).chain(above).cloned().collect();
        let top = self.issuers.last().unwrap_or(&self.certificate);
        self.usages(certificate).iter().try_for_each(|&usage| {
            let verified = chain::verify_for(usage, &presented, std::slice::from_ref(top), at);
            verified.map(drop).map_err(|error| invalid(certificate, error))
        })
    }

    /// Returns what a new certificate is used for, which the CAs above it must allow. A CA is used for what they all allow.
    fn usages(&self, certificate: &Certificate) -> &'static [Usage] {
        let is_authority = certificate.basic_constraints().is_some_and(|constraints| constraints.authority);
        if is_authority {
            let mut above = std::iter::once(&self.certificate).chain(&self.issuers);
            let for_clients = above.clone().all(Certificate::allows_client_authentication);
            let for_servers = above.all(Certificate::allows_server_authentication);
            return if for_servers && !for_clients { &[Usage::Server] } else { &[Usage::Client] };
        }
        let has =
            |wanted: &str| certificate.extended_key_usage().unwrap_or_default().iter().any(|usage| usage == wanted);
        match (has(CLIENT_AUTHENTICATION), has(SERVER_AUTHENTICATION)) {
            (true, true) => &[Usage::Client, Usage::Server],
            (false, true) => &[Usage::Server],
            (_, false) => &[Usage::Client],
        }
    }

    /// Returns whether this CA or one above it has name constraints.
    pub(super) fn constrains_names(&self) -> bool {
        std::iter::once(&self.certificate).chain(&self.issuers).any(|authority| authority.name_constraints().is_some())
    }

    /// Returns how many CAs may follow below this one, and the certificate that sets this limit: this CA's or one above.
    fn path_limit(&self) -> Option<(u32, &Certificate)> {
        let mut between: u32 = 0;
        let mut limits = Vec::new();
        for certificate in std::iter::once(&self.certificate).chain(&self.issuers) {
            if let Some(limit) = certificate.basic_constraints().and_then(|constraints| constraints.path_length) {
                limits.push((limit.saturating_sub(between), certificate));
            }
            // Self-issued CA certificates do not count (RFC 5280 section 4.2.1.9).
            between += u32::from(!certificate.is_self_issued());
        }
        limits.into_iter().min_by_key(|&(limit, _)| limit)
    }

    /// Issues a certificate for a key, whose chain is not verified yet.
    pub(super) fn issue_unchecked(
        &self,
        profile: Profile,
        name: &CommonName,
        key: impl FnOnce() -> Result<PrivateKey, KeyError>,
        adjust: impl FnOnce(&mut CertificateParams),
        options: &IssueOptions,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let path_length = self.path_length_below(profile, options.issue_time())?;
        let (validity, shortened_from) = profile.validity(options, Some(&self.certificate))?;
        let key = key()?;
        let mut params = profile.params(name, validity, path_length)?;
        adjust(&mut params);
        let certificate = self.sign(&params, &RcgenKey::new(&key), None)?;
        let issuers = std::iter::once(&self.certificate).chain(&self.issuers).cloned().collect();
        Ok(IssuedCertificate { certificate, key, issuers, shortened_from })
    }

    /// Checks that this CA can sign now, and returns the path length of a new certificate of that kind.
    pub(super) fn path_length_below(&self, profile: Profile, at: Timestamp) -> Result<Option<u8>, AuthorityError> {
        // The CA may have expired since it was loaded.
        chain::check_signer(&self.certificate, at).map_err(AuthorityError::Unfit)?;
        if !profile.is_authority() {
            return Ok(None);
        }
        match self.path_limit() {
            Some((0, limiting)) => Err(AuthorityError::PathLength(limiting.subject().to_string())),
            Some((limit, _)) => {
                // Limits above 255 do not occur in practice; rcgen stores the number in one octet.
                let inherited = u8::try_from(limit - 1).unwrap_or(u8::MAX);
                Ok(Some(profile.path_length().map_or(inherited, |own| own.min(inherited))))
            }
            None => Ok(profile.path_length()),
        }
    }

    /// Signs a certificate for a public key. `subject` is a name in DER that replaces the subject of the parameters.
    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
        subject: Option<&[u8]>,
    ) -> Result<Certificate, AuthorityError> {
        let own_key = RcgenKey::new(&self.key);
        let signed = params
            .signed_by(key, &self.rcgen_issuer(&own_key))
            .map_err(|error| AuthorityError::encoding(error, &own_key))?;
        let certificate = Certificate::from_der(signed.der()).map_err(AuthorityError::Certificate)?;
        let issuer = self.certificate.subject().der();
        let subject = subject.unwrap_or(certificate.subject().der());
        if certificate.issuer().der() == issuer && certificate.subject().der() == subject {
            return Ok(certificate);
        }
        with_names(&certificate, issuer, subject, &self.key)
    }

    fn rcgen_issuer<'a>(&self, key: &'a RcgenKey<'a>) -> Issuer<'static, &'a RcgenKey<'a>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, self.certificate.subject().common_name().unwrap_or_default());
        if let Some(id) = self.certificate.subject_key_identifier() {
            params.key_identifier_method = KeyIdMethod::PreSpecified(id.to_vec());
        }
        Issuer::new(params, key)
    }
}

pub(super) fn self_signed(
    profile: Profile,
    name: &CommonName,
    adjust: impl FnOnce(&mut CertificateParams),
    options: &IssueOptions,
) -> Result<IssuedCertificate, AuthorityError> {
    self_signed_with_key(profile, name, PrivateKey::generate(options.key_algorithm())?, adjust, options)
}

fn self_signed_with_key(
    profile: Profile,
    name: &CommonName,
    key: PrivateKey,
    adjust: impl FnOnce(&mut CertificateParams),
    options: &IssueOptions,
) -> Result<IssuedCertificate, AuthorityError> {
    let (validity, shortened_from) = profile.validity(options, None)?;
    let mut params = profile.params(name, validity, profile.path_length())?;
    adjust(&mut params);
    let own_key = RcgenKey::new(&key);
    let signed = params.self_signed(&own_key).map_err(|error| AuthorityError::encoding(error, &own_key))?;
    let certificate = Certificate::from_der(signed.der()).map_err(AuthorityError::Certificate)?;
    Ok(IssuedCertificate { certificate, key, issuers: Vec::new(), shortened_from })
}

pub(super) fn invalid(certificate: &Certificate, error: ChainError) -> AuthorityError {
    AuthorityError::Invalid { subject: certificate.subject().to_string(), error: Box::new(error) }
}

/// Replaces the names of a certificate and signs it again.
///
/// rcgen encodes names from its own model, which has neither several attributes of one type (`DC=contoso, DC=com`) nor
/// every string type. The issuer name must be the subject of the CA byte for byte, and the subject that of a request.
fn with_names(
    certificate: &Certificate,
    issuer: &[u8],
    subject: &[u8],
    key: &PrivateKey,
) -> Result<Certificate, AuthorityError> {
    let malformed = || AuthorityError::Certificate(ReadError::Certificate("made with a malformed frame".to_owned()));
    let (_, outer, _) = der_element(certificate.der()).ok_or_else(malformed)?;
    let (_, content, rest) = der_element(outer).ok_or_else(malformed)?;
    let (algorithm, ..) = der_element(rest).ok_or_else(malformed)?;
    let mut parts = Vec::new();
    let mut rest = content;
    while !rest.is_empty() {
        let (part, _, after) = der_element(rest).ok_or_else(malformed)?;
        parts.push(part);
        rest = after;
    }
    // Version, serial number and signature algorithm are before the issuer; the validity is between the names.
    *parts.get_mut(ISSUER).ok_or_else(malformed)? = issuer;
    *parts.get_mut(SUBJECT).ok_or_else(malformed)? = subject;
    let tbs = der_sequence(&parts);
    let signature = key.sign(&tbs)?;
    // A bit string begins with the number of unused bits, none.
    let signature = der_frame(BIT_STRING, &[&[0], &signature]);
    Certificate::from_der(&der_sequence(&[&tbs, algorithm, &signature])).map_err(AuthorityError::Certificate)
}

/// The positions of the names among the parts of a version 3 certificate (RFC 5280 section 4.1).
const ISSUER: usize = 3;
const SUBJECT: usize = 5;

fn subjects(certificates: &[Certificate]) -> String {
    certificates.iter().map(|certificate| certificate.subject().to_string()).collect::<Vec<_>>().join(" or ")
}

/// Returns the error for a key that belongs to none of the certificates.
fn mismatch(certificates: &[Certificate]) -> AuthorityError {
    match certificates {
        // Private keys of such kinds cannot be read here, so a mismatch is not certain.
        [only] if matches!(only.public_key_algorithm(), PublicKeyAlgorithm::Other(_)) => {
            let (subject, key) = (only.subject().to_string(), only.public_key_algorithm().clone());
            AuthorityError::UnsupportedPublicKey { subject, key }
        }
        _ => AuthorityError::KeyMismatch(subjects(certificates)),
    }
}
