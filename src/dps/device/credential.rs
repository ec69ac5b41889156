//! What a device proves who it is with.

use std::{fmt, sync::Arc};

use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

use super::SymmetricKey;
use crate::certificate::{Certificate, KeyError, PrivateKey, SignatureError};

/// The most certificates that are followed up to a root. Real chains have three or four.
const MAX_CHAIN: usize = 16;

/// What a device proves who it is with.
#[derive(Debug)]
#[non_exhaustive]
pub enum Credential {
    /// An X.509 certificate, presented in the TLS handshake.
    Certificate(DeviceCertificate),
    /// A symmetric key, which signs a token.
    SymmetricKey(SymmetricKey),
}

impl From<DeviceCertificate> for Credential {
    fn from(certificate: DeviceCertificate) -> Self {
        Self::Certificate(certificate)
    }
}

impl From<SymmetricKey> for Credential {
    fn from(key: SymmetricKey) -> Self {
        Self::SymmetricKey(key)
    }
}

/// A device's certificate with its private key and the certificates that lead up from it. `Debug` hides the key.
pub struct DeviceCertificate {
    certificates: Vec<Certificate>,
    chain: usize,
    key: Arc<CertifiedKey>,
}

impl DeviceCertificate {
    /// Joins a certificate, the chain above it and its key. The certificates may come in any order: the one that the key
    /// belongs to is the device's, and those that lead up from it follow.
    ///
    /// # Errors
    /// [`CredentialError`] when the key belongs to none of them, or TLS cannot use it.
    pub fn new(mut certificates: Vec<Certificate>, key: &PrivateKey) -> Result<Self, CredentialError> {
        let own = certificates.iter().position(|certificate| key.belongs_to(certificate));
        let Some(own) = own else {
            let subject = certificates.first().ok_or(CredentialError::NoCertificate)?.subject().to_string();
            return Err(CredentialError::KeyMismatch { subject });
        };
        certificates[..=own].rotate_right(1);
        let chain = sort_chain(&mut certificates);
        let der = key.to_pkcs8_der()?;
        let key = any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.as_slice())))
            .map_err(|error| CredentialError::Tls(error.to_string()))?;
        let sent = certificates.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect();
        Ok(Self { certificates, chain, key: Arc::new(CertifiedKey::new(sent, key)) })
    }

    /// The device's certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificates[0]
    }

    /// What is sent and leads up from the device's certificate: that one first, then each one's issuer.
    #[must_use]
    pub fn chain(&self) -> &[Certificate] {
        &self.certificates[..self.chain]
    }

    /// Everything that is sent: the [`chain`](Self::chain), then what does not belong to it.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

/// Puts each certificate's issuer behind it, beginning with the first; the length of that chain. TLS 1.2 asks for this
/// order (RFC 5246 section 7.4.2).
pub(super) fn sort_chain(certificates: &mut [Certificate]) -> usize {
    let mut length = 1.min(certificates.len());
    while (1..MAX_CHAIN).contains(&length) {
        let last = &certificates[length - 1];
        if is_self_signed(last) {
            break;
        }
        let signature = |candidate: &Certificate| {
            last.issuer().matches(candidate.subject()).then(|| last.verify_signature(candidate))
        };
        let mut candidates = certificates[length..].iter();
        let signer = candidates.position(|candidate| signature(candidate) == Some(Ok(())));
        // A signature that cannot be checked may be the right one.
        let possible = |candidate| signature(candidate).is_some_and(|found| found != Err(SignatureError::Wrong));
        let Some(next) = signer.or_else(|| certificates[length..].iter().position(possible)) else { break };
        certificates[length..=length + next].rotate_right(1);
        length += 1;
    }
    length
}

/// A self-issued certificate need not be: a device may be called as its root is.
pub(super) fn is_self_signed(certificate: &Certificate) -> bool {
    certificate.is_self_signed()
}

impl fmt::Debug for DeviceCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCertificate").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// Why certificates and a key do not make a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// There is no certificate.
    #[error("there is no certificate to register with")]
    NoCertificate,
    /// The key belongs to none of the certificates.
    #[error(
        "the private key does not belong to the certificate {subject}: give the key file that was made with it; nothing \
         was sent"
    )]
    KeyMismatch {
        /// The subject of the first certificate.
        subject: String,
    },
    /// The key could not be handed on.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// TLS cannot use the key.
    #[error("TLS cannot use the private key: {0}")]
    Tls(String),
}
