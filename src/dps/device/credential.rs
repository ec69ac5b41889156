//! The credential with which a device registers.

use std::{fmt, sync::Arc};

use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

use super::symmetric_key::SymmetricKey;
use crate::certificate::{Certificate, KeyError, PrivateKey, chain::find_issuer};

/// The maximum length of a chain. Chains in use have three or four certificates.
const MAX_CHAIN: usize = 16;

/// The credential with which a device proves its identity.
#[derive(Debug)]
#[non_exhaustive]
pub enum Credential {
    /// An X.509 certificate, which is presented in the TLS handshake.
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

/// A device's certificate with its private key and its chain. `Debug` hides the key.
pub struct DeviceCertificate {
    certificates: Vec<Certificate>,
    chain: usize,
    key: Arc<CertifiedKey>,
}

impl DeviceCertificate {
    /// Creates a credential from a certificate, its chain and its key. The certificates may be in any order: the one
    /// that the key matches is the device's, and its chain is sorted after it.
    ///
    /// # Errors
    /// [`CredentialError`] if the key matches no certificate, or if TLS cannot use it.
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
            .map_err(|_| CredentialError::UnsupportedKey)?;
        let sent = certificates.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect();
        Ok(Self { certificates, chain, key: Arc::new(CertifiedKey::new(sent, key)) })
    }

    /// Returns the device's certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificates[0]
    }

    /// Returns the chain that is sent: the device's certificate, then the issuer of each certificate.
    #[must_use]
    pub fn chain(&self) -> &[Certificate] {
        &self.certificates[..self.chain]
    }

    /// Returns all certificates that are sent: the [`chain`](Self::chain), then those that do not belong to it.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

/// Sorts the chain of the first certificate to the front, each certificate before its issuer, as TLS 1.2 requires (RFC
/// 5246 section 7.4.2). Returns the length of the chain.
pub(super) fn sort_chain(certificates: &mut [Certificate]) -> usize {
    let mut length = 1.min(certificates.len());
    while (1..MAX_CHAIN).contains(&length) {
        let (last, candidates) = (&certificates[length - 1], &certificates[length..]);
        if last.is_self_signed() {
            break;
        }
        let Some(next) = find_issuer(last, candidates, |_| true) else { break };
        certificates[length..=length + next].rotate_right(1);
        length += 1;
    }
    length
}

impl fmt::Debug for DeviceCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCertificate").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// Explains why certificates and a key do not form a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// No certificate was given.
    #[error("there is no certificate to register with")]
    NoCertificate,
    /// The key matches none of the certificates.
    #[error(
        "the private key does not match the certificate {subject}: use the key file that was created with it; nothing was \
         sent"
    )]
    KeyMismatch {
        /// The subject of the first certificate.
        subject: String,
    },
    /// The key cannot be encoded.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// TLS does not support the key.
    #[error("TLS does not support this kind of private key: use RSA or a NIST curve")]
    UnsupportedKey,
}
