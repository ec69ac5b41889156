//! `CertificateAuthority`: root, intermediate, device and verification certificates.

use std::path::PathBuf;

use rcgen::{CertificateParams, DnType, Issuer, KeyIdMethod, SanType, SigningKey};
use time::OffsetDateTime;

use super::{
    Certificate, ChainError, CommonName, DeviceId, KeyAlgorithm, KeyError, NameError, PrivateKey, Profile,
    PublicKeyAlgorithm, ReadError, SignatureError, chain,
    der::{der_element, der_frame, der_sequence},
    profile::{Lifetime, Validity},
};

/// What can be chosen about a new certificate.
#[derive(Debug, Clone, Copy)]
pub struct IssueOptions {
    /// The kind of key.
    pub algorithm: KeyAlgorithm,
    /// How long it is valid; each [`Profile`] has a default.
    pub lifetime: Option<Lifetime>,
    /// The moment it is made.
    pub at: OffsetDateTime,
}

impl Default for IssueOptions {
    /// P-256, the profile's lifetime, now.
    fn default() -> Self {
        Self { algorithm: KeyAlgorithm::default(), lifetime: None, at: OffsetDateTime::now_utc() }
    }
}

/// A new certificate with its key and the certificates above it.
#[derive(Debug)]
pub struct IssuedCertificate {
    /// The certificate.
    pub certificate: Certificate,
    /// Its key.
    pub key: PrivateKey,
    /// The certificates above it, the issuer first; empty when it is self-signed.
    pub issuers: Vec<Certificate>,
    /// The end that was asked for, where the issuer ends earlier and the validity was cut to that.
    pub shortened_from: Option<OffsetDateTime>,
}

impl IssuedCertificate {
    /// The certificate and those above it.
    pub fn fullchain(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.certificate).chain(&self.issuers)
    }

    /// Certificate and key as an authority, when it is one.
    ///
    /// # Errors
    /// [`AuthorityError`] when it is not one.
    pub fn into_authority(self, at: OffsetDateTime) -> Result<CertificateAuthority, AuthorityError> {
        let certificates = std::iter::once(self.certificate).chain(self.issuers).collect();
        CertificateAuthority::new(certificates, self.key, at)
    }
}

/// A certificate and the key that signs others in its name.
///
/// It issues only what [`chain::verify`] calls valid under the last of the certificates above it that are known, or under
/// its own certificate if none is.
#[derive(Debug)]
pub struct CertificateAuthority {
    certificate: Certificate,
    issuers: Vec<Certificate>,
    issuer: Issuer<'static, PrivateKey>,
    files: Vec<PathBuf>,
}

impl CertificateAuthority {
    /// Takes certificates and a key as an authority. Its certificate is the one the key belongs to; the certificates
    /// that lead up from it are kept as its chain, any others are passed over.
    ///
    /// # Errors
    /// [`AuthorityError`] tells which check failed: the key belongs to none of the certificates, the certificate may not
    /// sign, or it is not valid at that moment.
    pub fn new(certificates: Vec<Certificate>, key: PrivateKey, at: OffsetDateTime) -> Result<Self, AuthorityError> {
        let certificate = certificates
            .iter()
            .find(|certificate| key.belongs_to(certificate))
            .ok_or_else(|| mismatch(&certificates))?
            .clone();
        chain::check_authority(&certificate, at).map_err(AuthorityError::Unfit)?;
        let issuers = issuers_of(&certificate, certificates, at);
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, certificate.subject().common_name().unwrap_or_default());
        if let Some(id) = certificate.subject_key_identifier() {
            params.key_identifier_method = KeyIdMethod::PreSpecified(id.to_vec());
        }
        Ok(Self { certificate, issuers, issuer: Issuer::new(params, key), files: Vec::new() })
    }

    /// Notes the files it was read from.
    pub(super) fn read_from(mut self, files: impl Into<Vec<PathBuf>>) -> Self {
        self.files = files.into();
        self
    }

    /// Makes a self-signed root.
    ///
    /// # Errors
    /// [`AuthorityError::Lifetime`], or when the cryptographic library fails.
    pub fn new_root(name: &CommonName, options: &IssueOptions) -> Result<IssuedCertificate, AuthorityError> {
        self_signed(Profile::Root, name, options)
    }

    /// Makes a self-signed device certificate, which no authority answers for: for individual attestation.
    ///
    /// # Errors
    /// [`AuthorityError::Name`] when the id is longer than a common name may be; otherwise as
    /// [`new_root`](Self::new_root).
    pub fn self_signed_device(id: &DeviceId, options: &IssueOptions) -> Result<IssuedCertificate, AuthorityError> {
        self_signed(Profile::Device, &id.common_name()?, options)
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        self.issuer.key()
    }

    /// The certificates above it, its issuer first, as far as they are known.
    #[must_use]
    pub fn issuers(&self) -> &[Certificate] {
        &self.issuers
    }

    /// Returns the files it was read from, if it was. Nothing that it issues may overwrite them.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Makes an authority under this one. If this one or one above it limits the length of paths, so does the new one.
    ///
    /// # Errors
    /// [`AuthorityError::PathLength`] if no authority is allowed below this one, [`AuthorityError::Invalid`] if the new
    /// certificate would not be valid; otherwise as [`new_root`](Self::new_root).
    pub fn issue_intermediate(
        &self,
        name: &CommonName,
        options: &IssueOptions,
    ) -> Result<IssuedCertificate, AuthorityError> {
        self.issue(Profile::Intermediate, name, Vec::new(), options)
    }

    /// Makes a device's certificate, its id the common name.
    ///
    /// # Errors
    /// [`AuthorityError::Invalid`] if the certificate would not be valid; otherwise as
    /// [`self_signed_device`](Self::self_signed_device).
    pub fn issue_device(&self, id: &DeviceId, options: &IssueOptions) -> Result<IssuedCertificate, AuthorityError> {
        self.issue(Profile::Device, &id.common_name()?, Vec::new(), options)
    }

    /// Makes a proof of possession: a certificate whose common name is the verification code.
    ///
    /// # Errors
    /// [`AuthorityError::Invalid`] if [`chain::verify_possession`] would refuse it; otherwise as
    /// [`new_root`](Self::new_root).
    pub fn issue_verification(
        &self,
        code: &CommonName,
        options: &IssueOptions,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let issued = self.make(Profile::Verification, code, Vec::new(), options)?;
        chain::verify_possession(&issued.certificate, &self.certificate, code.as_str(), options.at)
            .map_err(|error| invalid(&issued.certificate, error))?;
        Ok(issued)
    }

    /// Makes a TLS server's certificate. The names by which clients reach it, DNS names or IP addresses, are its subject
    /// alternative names, which are what clients compare (RFC 9525 section 6.3).
    ///
    /// # Errors
    /// [`AuthorityError::Rcgen`] when a name is neither, [`AuthorityError::Invalid`] if the certificate would not be valid;
    /// otherwise as [`new_root`](Self::new_root).
    pub fn issue_server(
        &self,
        name: &CommonName,
        alternative_names: &[&str],
        options: &IssueOptions,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let names: Vec<String> = alternative_names.iter().map(ToString::to_string).collect();
        self.issue(Profile::Server, name, CertificateParams::new(names)?.subject_alt_names, options)
    }

    fn issue(
        &self,
        profile: Profile,
        name: &CommonName,
        alternative_names: Vec<SanType>,
        options: &IssueOptions,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let issued = self.make(profile, name, alternative_names, options)?;
        self.check_issued(&issued.certificate, options.at)?;
        Ok(issued)
    }

    /// Checks a certificate that this authority made as everybody else will, up to the last certificate above it.
    pub(super) fn check_issued(&self, certificate: &Certificate, at: OffsetDateTime) -> Result<(), AuthorityError> {
        let above = std::iter::once(&self.certificate).chain(&self.issuers);
        let presented: Vec<_> = std::iter::once(certificate).chain(above).cloned().collect();
        let top = self.issuers.last().unwrap_or(&self.certificate);
        chain::verify(&presented, std::slice::from_ref(top), at).map(drop).map_err(|error| invalid(certificate, error))
    }

    /// Whether it or an authority above it constrains the names of what is issued.
    pub(super) fn constrains_names(&self) -> bool {
        std::iter::once(&self.certificate).chain(&self.issuers).any(|authority| authority.name_constraints().is_some())
    }

    /// Returns how many authorities may follow below this one, by its own limit and by those above it, and the subject of
    /// the certificate that sets the limit.
    fn path_limit(&self) -> Option<(u32, &Certificate)> {
        let mut between: u32 = 0;
        let mut limits = Vec::new();
        for certificate in std::iter::once(&self.certificate).chain(&self.issuers) {
            if let Some(limit) = certificate.basic_constraints().and_then(|constraints| constraints.path_length) {
                limits.push((limit.saturating_sub(between), certificate));
            }
            // Self-issued authorities do not count (RFC 5280 section 4.2.1.9).
            between += u32::from(!certificate.is_self_issued());
        }
        limits.into_iter().min_by_key(|&(limit, _)| limit)
    }

    /// Makes a certificate that is not checked yet.
    pub(super) fn make(
        &self,
        profile: Profile,
        name: &CommonName,
        alternative_names: Vec<SanType>,
        options: &IssueOptions,
    ) -> Result<IssuedCertificate, AuthorityError> {
        // An authority may have expired since it was loaded.
        chain::check_authority(&self.certificate, options.at).map_err(AuthorityError::Unfit)?;
        let path_length = match self.path_limit() {
            Some((0, limiting)) if profile.is_authority() => {
                return Err(AuthorityError::PathLength(limiting.subject().to_string()));
            }
            // Longer limits than 255 occur nowhere; rcgen holds the number in an octet.
            limit => limit.map(|(limit, _)| u8::try_from(limit.saturating_sub(1)).unwrap_or(u8::MAX)),
        };
        let lifetime = options.lifetime.unwrap_or(profile.default_lifetime());
        let (validity, shortened_from) = Validity::new(lifetime, options.at, Some(&self.certificate))?;
        let key = PrivateKey::generate(options.algorithm)?;
        let mut params = profile.params(name, validity, path_length)?;
        params.subject_alt_names = alternative_names;
        let mut certificate = Certificate::from_der(params.signed_by(&key, &self.issuer)?.der())?;
        let issuer_name = self.certificate.subject().der();
        if certificate.issuer().der() != issuer_name {
            certificate = with_issuer_name(&certificate, issuer_name, self.key())?;
        }
        let issuers = std::iter::once(&self.certificate).chain(&self.issuers).cloned().collect();
        Ok(IssuedCertificate { certificate, key, issuers, shortened_from })
    }
}

fn self_signed(
    profile: Profile,
    name: &CommonName,
    options: &IssueOptions,
) -> Result<IssuedCertificate, AuthorityError> {
    let lifetime = options.lifetime.unwrap_or(profile.default_lifetime());
    let (validity, shortened_from) = Validity::new(lifetime, options.at, None)?;
    let key = PrivateKey::generate(options.algorithm)?;
    let params = profile.params(name, validity, None)?;
    let certificate = Certificate::from_der(params.self_signed(&key)?.der())?;
    Ok(IssuedCertificate { certificate, key, issuers: Vec::new(), shortened_from })
}

/// The certificates that lead up from one, as far as they are known. Of several that could follow, one that is valid at
/// that moment is preferred.
fn issuers_of(certificate: &Certificate, mut others: Vec<Certificate>, at: OffsetDateTime) -> Vec<Certificate> {
    let mut issuers: Vec<Certificate> = Vec::new();
    others.retain(|other| other != certificate);
    loop {
        let last = issuers.last().unwrap_or(certificate);
        let rank = |other: &Certificate| match last.verify_signature(other) {
            Ok(()) => Some(u8::from(chain::check_validity(other, at).is_err())),
            Err(SignatureError::Wrong) => None,
            // It stays in the chain, so that the check of what is issued refuses it with the reason.
            Err(_) => Some(2),
        };
        let named = others.iter().enumerate().filter(|(_, other)| last.issuer().matches(other.subject()));
        let next = named.filter_map(|(position, other)| Some((rank(other)?, position))).min();
        match next {
            Some((_, position)) => issuers.push(others.swap_remove(position)),
            None => return issuers,
        }
    }
}

fn invalid(certificate: &Certificate, error: ChainError) -> AuthorityError {
    AuthorityError::Invalid { subject: certificate.subject().to_string(), error: Box::new(error) }
}

/// The certificate with another issuer name, signed anew.
///
/// rcgen writes a name from its own model, which knows neither several attributes of one type (`DC=contoso, DC=com`) nor
/// every string type. The issuer of a certificate has to be its authority's subject byte for byte.
fn with_issuer_name(certificate: &Certificate, issuer: &[u8], key: &PrivateKey) -> Result<Certificate, AuthorityError> {
    let malformed = || AuthorityError::Certificate(ReadError::Certificate("made with a malformed frame".to_owned()));
    let (_, outer, _) = der_element(certificate.der()).ok_or_else(malformed)?;
    let (tbs, content, rest) = der_element(outer).ok_or_else(malformed)?;
    let (algorithm, ..) = der_element(rest).ok_or_else(malformed)?;
    debug_assert_eq!(tbs.len() + rest.len(), outer.len());
    let old = certificate.issuer().der();
    let start = content.windows(old.len()).position(|window| window == old).ok_or_else(malformed)?;
    let tbs = der_sequence(&[&content[..start], issuer, &content[start + old.len()..]]);
    let signature = key.sign(&tbs)?;
    // A bit string begins with the number of unused bits, none.
    let signature = der_frame(0x03, &[&[0], &signature]);
    Ok(Certificate::from_der(&der_sequence(&[&tbs, algorithm, &signature]))?)
}

fn subjects(certificates: &[Certificate]) -> String {
    certificates.iter().map(|certificate| certificate.subject().to_string()).collect::<Vec<_>>().join(", ")
}

/// Why the key belongs to none of the certificates.
fn mismatch(certificates: &[Certificate]) -> AuthorityError {
    match certificates {
        // No key that can be read here is of such a kind, so whether the two belong together is not known.
        [only] if matches!(only.public_key_algorithm(), PublicKeyAlgorithm::Other(_)) => {
            let (subject, key) = (only.subject().to_string(), only.public_key_algorithm().clone());
            AuthorityError::UnsupportedPublicKey { subject, key }
        }
        _ => AuthorityError::KeyMismatch(subjects(certificates)),
    }
}

/// Why an authority cannot be used, or cannot make what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The private key belongs to none of the certificates, whose subjects are given.
    #[error("the private key does not belong to the certificate {0}")]
    KeyMismatch(String),
    /// The public key of the certificate is of a kind that cannot sign here.
    #[error("the public key of the certificate {subject}, {key}, is not supported")]
    UnsupportedPublicKey {
        /// The subject of the certificate.
        subject: String,
        /// Its public key.
        key: PublicKeyAlgorithm,
    },
    /// The certificate may not sign, or is not valid now.
    #[error("{0}")]
    Unfit(#[source] ChainError),
    /// The authority, or the one above it whose subject is given, allows no further authority below it.
    #[error("{0} allows no further CA below it: its path length is used up")]
    PathLength(String),
    /// What was asked for would not be valid under the certificates above it, so it was not issued.
    #[error("no certificate was issued for {subject}, since it would not be valid: {error}")]
    Invalid {
        /// The subject of the certificate.
        subject: String,
        /// Why it would not be valid.
        error: Box<ChainError>,
    },
    /// A lifetime of no time at all, or one that ends after the year 9999.
    #[error("a certificate cannot be valid for {0}: at least one day, and not past the year 9999")]
    Lifetime(Lifetime),
    /// The name does not fit a certificate.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The key cannot be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What was made does not read back.
    #[error("the new certificate is not sound: {0}")]
    Certificate(#[from] ReadError),
    /// The random source failed.
    #[error("the random source of the system failed")]
    Random,
    /// rcgen could not make it.
    #[error("the certificate could not be made: {0}")]
    Rcgen(String),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Rcgen(error.to_string())
    }
}
