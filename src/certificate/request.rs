//! Certificate requests (PKCS#10, RFC 2986): for devices whose key never leaves them.

use x509_parser::{
    certification_request::X509CertificationRequest, cri_attributes::ParsedCriAttribute, prelude::FromDer,
};

use super::{
    Name, PublicKeyAlgorithm, ReadError, SignatureAlgorithm, SignatureError,
    der::Element,
    oid::oid_name,
    read::{pem_items, plain_text},
};

/// A request whose signature holds: who made it has the private key.
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    subject: Name,
    public_key: Vec<u8>,
    public_key_algorithm: PublicKeyAlgorithm,
    wishes: Vec<String>,
}

impl CertificateRequest {
    /// Reads a request in PEM or DER and checks its signature and its key.
    ///
    /// # Errors
    /// [`RequestError`] when there is none or more than one, when its signature was not made by the key in it, or when the services would
    /// not take a key of its kind.
    pub fn read(bytes: &[u8]) -> Result<Self, RequestError> {
        let text = plain_text(bytes);
        if text.first() == Some(&0x30) {
            return Self::from_der(&text);
        }
        // The label that Microsoft's tools write.
        let text = String::from_utf8_lossy(&text).replace("NEW CERTIFICATE REQUEST", "CERTIFICATE REQUEST");
        let items = pem_items(text.as_bytes()).map_err(RequestError::Pem)?;
        let requests = items.into_iter().filter_map(|item| match item {
            rustls_pemfile::Item::Csr(der) => Some(der),
            _ => None,
        });
        match requests.collect::<Vec<_>>().as_slice() {
            [] => Err(RequestError::NoRequest),
            [request] => Self::from_der(request),
            several => Err(RequestError::Several(several.len())),
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        let malformed = |error: &dyn std::fmt::Display| RequestError::Malformed(error.to_string());
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(malformed(&format_args!("there are {} bytes after it", rest.len())));
        }
        let info = &request.certification_request_info;
        let public_key_algorithm = PublicKeyAlgorithm::of(&info.subject_pki);
        match public_key_algorithm {
            PublicKeyAlgorithm::EcP256 | PublicKeyAlgorithm::EcP384 | PublicKeyAlgorithm::EcP521 => {}
            PublicKeyAlgorithm::Rsa { bits } if bits >= 2048 => {}
            other => return Err(RequestError::Key(other)),
        }
        let algorithm = signature_algorithm(der).ok_or_else(|| malformed(&"its signature algorithm is malformed"))?;
        let signature = &request.signature_value;
        if signature.unused_bits != 0 {
            return Err(RequestError::Signature);
        }
        algorithm.verify(info.subject_pki.raw, info.raw, &signature.data).map_err(|error| match error {
            SignatureError::Wrong => RequestError::Signature,
            SignatureError::Unsupported(algorithm) | SignatureError::KeyRestricted(algorithm) => {
                RequestError::SignatureAlgorithm(algorithm)
            }
            _ => malformed(&"its public key is malformed"),
        })?;
        let mut wishes = Vec::new();
        for attribute in info.iter_attributes() {
            match attribute.parsed_attribute() {
                ParsedCriAttribute::ExtensionRequest(wanted) => {
                    wishes.extend(wanted.extensions.iter().map(|extension| oid_name(&extension.oid)));
                }
                _ => wishes.push(oid_name(&attribute.oid)),
            }
        }
        Ok(Self {
            subject: Name::from_der(info.subject.as_raw()).ok_or_else(|| malformed(&"its subject is malformed"))?,
            public_key: info.subject_pki.raw.to_vec(),
            public_key_algorithm,
            wishes,
        })
    }

    /// The subject it asks for.
    #[must_use]
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// The public key, as the DER of its `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// What kind of key it is.
    #[must_use]
    pub fn public_key_algorithm(&self) -> &PublicKeyAlgorithm {
        &self.public_key_algorithm
    }

    /// What else it asks for, extensions and attributes by name: all of it is passed over.
    #[must_use]
    pub fn wishes(&self) -> &[String] {
        &self.wishes
    }
}

/// The signature algorithm of a request in DER.
fn signature_algorithm(der: &[u8]) -> Option<SignatureAlgorithm> {
    let mut parts = Element::only_tagged(der, 0x30)?.elements();
    parts.expect(0x30)?;
    SignatureAlgorithm::from_der(parts.expect(0x30)?.whole)
}

/// Why a request is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Neither PEM with a request nor DER.
    #[error("there is no certificate request in it")]
    NoRequest,
    /// So many requests, of which none can be told from the others.
    #[error("there are {0} certificate requests in it: put each into a file of its own")]
    Several(usize),
    /// PEM that is damaged.
    #[error(transparent)]
    Pem(ReadError),
    /// It does not decode.
    #[error("it does not decode as a certificate request: {0}")]
    Malformed(String),
    /// Another key made the signature, or the request was changed afterwards.
    #[error("the request was not signed by the key in it")]
    Signature,
    /// The signature algorithm, by name, is broken or unknown.
    #[error("the request is signed with {0}, which is not supported")]
    SignatureAlgorithm(String),
    /// A key that the services would not take.
    #[error("its key is {0}; the services take RSA of 2048 bits or more and the NIST curves")]
    Key(PublicKeyAlgorithm),
}
