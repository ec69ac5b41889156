//! Signing of certificate requests of other CAs, such as the issuing CA of an Azure Device Registry namespace.

use std::time::Duration;

use rcgen::{
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PublicKeyData,
    SignatureAlgorithm,
};

use super::{
    AuthorityError, Certificate, CertificateAuthority, CertificateRequest, CommonName, IssueOptions, Profile,
    PublicKeyAlgorithm, Timestamp, timestamp::moment,
};

/// The shortest validity that Azure Device Registry accepts for an issuing CA with an external root.
const MIN_VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A CA certificate that was issued for a request. Its private key stays where the request was made.
#[derive(Debug)]
#[non_exhaustive]
pub struct SignedRequest {
    /// The certificate.
    pub certificate: Certificate,
    /// The certificates above it, the issuer first.
    pub issuers: Vec<Certificate>,
    /// The requested end of the validity, if the issuer ends earlier and the validity was shortened to that.
    pub shortened_from: Option<Timestamp>,
}

impl SignedRequest {
    /// Returns the certificate, then the certificates above it.
    pub fn fullchain(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.certificate).chain(&self.issuers)
    }
}

/// The reason why the request of a CA is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityRequestError {
    /// The key of the request or of the CA is not on an elliptic curve; holds whose key it is, and its kind.
    #[error(
        "the key of {owner} is {algorithm}: Azure Device Registry accepts only EC keys and signatures for its issuing CAs"
    )]
    NotEc {
        /// Whose key it is: `the request`, or the subject of the CA.
        owner: String,
        /// The kind of the key.
        algorithm: PublicKeyAlgorithm,
    },
    /// The request has no subject, which a CA certificate must have (RFC 5280 section 4.1.2.6).
    #[error("the request has no subject, but a CA needs a name")]
    NoSubject,
    /// The request has the subject of a CA of the chain; holds it.
    #[error("the request has the subject of the CA that signs, or of one above it: {0}")]
    SameSubject(String),
    /// The request is for the key of a CA of the chain; holds the subject of that CA.
    #[error("the request is for the key of {0}, and a CA does not sign its own key again")]
    SameKey(String),
    /// The certificate would be valid for too short a time; holds the last moment it could be valid.
    #[error(
        "the certificate would be valid until {}, which is less than the 365 days that Azure Device Registry requires",
        moment(*.0)
    )]
    Validity(Timestamp),
    /// The certificate cannot be issued.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl CertificateAuthority {
    /// Issues an intermediate CA certificate for a request, by the rules of Azure Device Registry for an issuing CA with
    /// an external root: the subject is that of the request byte for byte, key and signature are ECDSA, the path length is
    /// 0, and the certificate is valid for 365 days or more.
    ///
    /// # Errors
    /// Returns an [`AuthorityRequestError`] for a request that breaks these rules, or if the certificate would not be valid.
    pub fn sign_authority_request(
        &self,
        request: &CertificateRequest,
        options: &IssueOptions,
    ) -> Result<SignedRequest, AuthorityRequestError> {
        let options = options.with_fixed_time();
        let key = self.check_request(request)?;
        let profile = Profile::Intermediate;
        self.path_length_below(profile, options.issue_time())?;
        let (validity, shortened_from) = profile.validity(&options, Some(self.certificate()))?;
        let has_enough = options
            .issue_time()
            .whole_second()
            .checked_add(MIN_VALIDITY)
            .is_some_and(|least| validity.not_after >= least);
        if !has_enough {
            return Err(AuthorityRequestError::Validity(validity.not_after));
        }
        // The subject is replaced below; it only must not be the issuer's.
        let placeholder = CommonName::new("request").map_err(AuthorityError::Name)?;
        let mut params = profile.params(&placeholder, validity, Some(0))?;
        params.key_usages.insert(0, KeyUsagePurpose::DigitalSignature);
        let certificate = self.sign(&params, &key, Some(request.subject().der()))?;
        self.check_issued(&certificate, options.issue_time())?;
        let issuers = std::iter::once(self.certificate()).chain(self.issuers()).cloned().collect();
        Ok(SignedRequest { certificate, issuers, shortened_from })
    }

    /// Checks the names and keys of a request, and returns its key.
    fn check_request<'a>(&self, request: &'a CertificateRequest) -> Result<EcKey<'a>, AuthorityRequestError> {
        let not_ec = |owner: String, algorithm: &PublicKeyAlgorithm| AuthorityRequestError::NotEc {
            owner,
            algorithm: algorithm.clone(),
        };
        let key = EcKey::of(request).ok_or_else(|| not_ec("the request".to_owned(), request.public_key_algorithm()))?;
        let signer = self.certificate();
        if !is_ec(signer.public_key_algorithm()) {
            return Err(not_ec(signer.subject().to_string(), signer.public_key_algorithm()));
        }
        if request.subject().is_empty() {
            return Err(AuthorityRequestError::NoSubject);
        }
        for authority in std::iter::once(signer).chain(self.issuers()) {
            let subject = || authority.subject().to_string();
            if authority.subject().matches(request.subject()) {
                return Err(AuthorityRequestError::SameSubject(subject()));
            }
            if authority.uncompressed_public_key().as_ref() == request.public_key() {
                return Err(AuthorityRequestError::SameKey(subject()));
            }
        }
        Ok(key)
    }
}

fn is_ec(algorithm: &PublicKeyAlgorithm) -> bool {
    matches!(algorithm, PublicKeyAlgorithm::EcP256 | PublicKeyAlgorithm::EcP384 | PublicKeyAlgorithm::EcP521)
}

/// The EC key of a request, as rcgen takes it.
struct EcKey<'a> {
    point: &'a [u8],
    algorithm: &'static SignatureAlgorithm,
}

impl<'a> EcKey<'a> {
    fn of(request: &'a CertificateRequest) -> Option<Self> {
        // An uncompressed point is one octet and two coordinates (SEC 1 section 2.3.3).
        let (coordinate, algorithm) = match request.public_key_algorithm() {
            PublicKeyAlgorithm::EcP256 => (32, &PKCS_ECDSA_P256_SHA256),
            PublicKeyAlgorithm::EcP384 => (48, &PKCS_ECDSA_P384_SHA384),
            PublicKeyAlgorithm::EcP521 => (66, &PKCS_ECDSA_P521_SHA512),
            _ => return None,
        };
        let key_info = request.public_key();
        let start = key_info.len().checked_sub(1 + 2 * coordinate)?;
        Some(Self { point: &key_info[start..], algorithm })
    }
}

impl PublicKeyData for EcKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}
