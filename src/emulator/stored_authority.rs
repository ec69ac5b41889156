//! A certificate authority in a state file.

use serde::{Deserialize, Serialize};

use crate::certificate::{AuthorityError, Certificate, CertificateAuthority, PrivateKey, Timestamp};

/// A certificate authority and those above it. Secret.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct StoredAuthority {
    /// The CA's own certificate first.
    certificates: Vec<Certificate>,
    /// The private key, as PEM.
    key: String,
}

impl StoredAuthority {
    pub(super) fn new(authority: &CertificateAuthority) -> Result<Self, AuthorityError> {
        let above = authority.issuers().iter();
        let certificates = std::iter::once(authority.certificate()).chain(above).cloned().collect();
        Ok(Self { certificates, key: authority.key().to_pem()?.to_string() })
    }

    /// Returns the authority, which must be valid at this time.
    pub(super) fn authority(&self, at: Timestamp) -> Result<CertificateAuthority, AuthorityError> {
        CertificateAuthority::new(self.certificates.clone(), PrivateKey::read(self.key.as_bytes(), None)?, at)
    }

    /// Returns when the first of the certificates expires.
    pub(super) fn not_after(&self) -> Option<Timestamp> {
        self.certificates.iter().map(Certificate::not_after).min()
    }
}
