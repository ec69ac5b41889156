//! Operational certificates: the request that a device sends when it registers, and the check of what it is issued.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::certificate::{
    Certificate, CertificateRequest, ChainError, DeviceId, KeyAlgorithm, KeyError, NameError, PrivateKey,
    PublicKeyAlgorithm, ReadError, RequestError, Timestamp, chain,
};

/// The most certificates in an issued chain. Chains of the service have three.
const MAX_CHAIN: usize = 16;

/// A request for an operational certificate, which a device sends when it registers: its common name is the registration ID,
/// and its key is on P-384, the only kind of key that the service accepts here.
///
/// ```
/// use iot_enroll::dps::device::OperationalRequest;
///
/// let (key, request) = OperationalRequest::generate(&"sensor-1".parse()?)?;
/// assert_eq!(request.id().as_str(), "sensor-1");
/// # let _ = key;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct OperationalRequest {
    id: DeviceId,
    request: CertificateRequest,
}

impl OperationalRequest {
    /// Takes a request that was created elsewhere.
    ///
    /// # Errors
    /// [`OperationalRequestError`] if the service would refuse it.
    pub fn new(id: &DeviceId, request: CertificateRequest) -> Result<Self, OperationalRequestError> {
        use OperationalRequestError as Error;
        match request.public_key_algorithm() {
            PublicKeyAlgorithm::EcP384 => {}
            other => return Err(Error::Key(other.clone())),
        }
        match request.subject().common_name() {
            Some(name) if name == id.as_str() => Ok(Self { id: id.clone(), request }),
            Some(name) => Err(Error::CommonName { id: id.clone(), found: name.to_owned() }),
            None => Err(Error::NoCommonName { id: id.clone() }),
        }
    }

    /// Generates a key and creates a request for it.
    ///
    /// # Errors
    /// [`OperationalRequestError::Name`] if the ID is longer than a common name may be, and other errors if the
    /// cryptographic library fails.
    pub fn generate(id: &DeviceId) -> Result<(PrivateKey, Self), OperationalRequestError> {
        let name = id.common_name()?;
        let key = PrivateKey::generate(KeyAlgorithm::EcP384)?;
        let request = Self::new(id, CertificateRequest::new(&name, &key)?)?;
        Ok((key, request))
    }

    /// Returns the registration ID.
    #[must_use]
    pub fn id(&self) -> &DeviceId {
        &self.id
    }

    /// Returns the certificate request.
    #[must_use]
    pub fn request(&self) -> &CertificateRequest {
        &self.request
    }

    /// Returns the request as the device API takes it: the base64 of its DER.
    pub(super) fn encoded(&self) -> String {
        BASE64_STANDARD.encode(self.request.der())
    }

    /// Checks a chain as the service answers it, an array of the base64 of DER, against the request.
    pub(super) fn check(&self, chain: &Value, at: Timestamp) -> Result<Vec<Certificate>, IssuedCertificateError> {
        use IssuedCertificateError as Error;
        let chain = chain.as_array().ok_or(Error::NotAnArray)?;
        if chain.len() > MAX_CHAIN {
            return Err(Error::TooLong { limit: MAX_CHAIN, found: chain.len() });
        }
        let read = |(index, text): (usize, &Value)| {
            let der = text.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
            let der = der.ok_or(Error::Base64 { position: index + 1 })?;
            Certificate::from_der(&der).map_err(|error| Error::Certificate { position: index + 1, error })
        };
        let certificates = chain.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        let [leaf, above @ ..] = certificates.as_slice() else { return Err(Error::NotAnArray) };
        if *leaf.uncompressed_public_key() != *self.request.public_key() {
            return Err(Error::OtherKey { subject: leaf.to_string() });
        }
        if leaf.subject().common_name() != Some(self.id.as_str()) {
            return Err(Error::OtherName { id: self.id.clone(), subject: leaf.to_string() });
        }
        if leaf.basic_constraints().is_some_and(|constraints| constraints.authority) {
            return Err(Error::Authority { subject: leaf.to_string() });
        }
        if !leaf.allows_client_authentication() {
            return Err(Error::NoClientAuthentication { subject: leaf.to_string() });
        }
        let Some(top) = above.last() else { return Err(Error::NoIssuer { subject: leaf.to_string() }) };
        // Every certificate is signed by the next one: path validation alone would accept any order.
        for (certificate, issuer) in certificates.iter().zip(above) {
            if !certificate.names_issuer(issuer) || certificate.verify_signature(issuer).is_err() {
                return Err(Error::Unordered { subject: certificate.to_string(), next: issuer.to_string() });
            }
        }
        if chain::verify(&certificates, top, at)?.len() != certificates.len() {
            return Err(Error::Repeated);
        }
        Ok(certificates)
    }
}

/// Explains why the service would refuse a certificate request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperationalRequestError {
    /// The key is not on P-384.
    #[error("the key of the request is {0}, and the service issues certificates only for EC P-384")]
    Key(PublicKeyAlgorithm),
    /// The common name is another one than the registration ID.
    #[error("the common name of the request is {found:?}, and must be the registration ID {:?}", .id.as_str())]
    CommonName {
        /// The registration ID.
        id: DeviceId,
        /// The common name of the request.
        found: String,
    },
    /// The request has no common name.
    #[error("the request has no common name, which must be the registration ID {:?}", .id.as_str())]
    NoCommonName {
        /// The registration ID.
        id: DeviceId,
    },
    /// The registration ID cannot be a common name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The key could not be generated.
    #[error(transparent)]
    KeyGeneration(#[from] KeyError),
    /// The request could not be created.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Explains why an issued certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssuedCertificateError {
    /// The chain is not an array of certificates.
    #[error("its chain is not an array of certificates")]
    NotAnArray,
    /// The chain has more certificates than any real one.
    #[error("its chain has {found} certificates, more than {limit}")]
    TooLong {
        /// The highest accepted number.
        limit: usize,
        /// The number of certificates.
        found: usize,
    },
    /// A member of the chain is not base64.
    #[error("certificate {position} of its chain is not base64")]
    Base64 {
        /// The position of the certificate, from 1.
        position: usize,
    },
    /// A member of the chain is not a certificate.
    #[error("certificate {position} of its chain cannot be read: {error}")]
    Certificate {
        /// The position of the certificate, from 1.
        position: usize,
        /// Why it cannot be read.
        error: ReadError,
    },
    /// The certificate is for another key than that of the request.
    #[error("{subject} is not for the key of the request")]
    OtherKey {
        /// The subject of the certificate.
        subject: String,
    },
    /// The certificate is for another device.
    #[error("{subject} is not for {id}")]
    OtherName {
        /// The registration ID.
        id: DeviceId,
        /// The subject of the certificate.
        subject: String,
    },
    /// The certificate is a CA certificate.
    #[error("{subject} is a CA certificate")]
    Authority {
        /// The subject of the certificate.
        subject: String,
    },
    /// The certificate has an extended key usage that does not allow client authentication.
    #[error("the extended key usage of {subject} does not allow client authentication")]
    NoClientAuthentication {
        /// The subject of the certificate.
        subject: String,
    },
    /// The chain does not have the certificate's issuer.
    #[error("its chain has only {subject}, without the issuer")]
    NoIssuer {
        /// The subject of the certificate.
        subject: String,
    },
    /// A certificate was not signed by the next one.
    #[error("{subject} was not issued by {next}, the next certificate of its chain")]
    Unordered {
        /// The subject of the certificate.
        subject: String,
        /// The subject of the certificate after it.
        next: String,
    },
    /// A certificate occurs more than once, or another of the same CA.
    #[error("its chain has more than one certificate of the same CA")]
    Repeated,
    /// The chain is not valid.
    #[error(transparent)]
    Chain(#[from] ChainError),
}
