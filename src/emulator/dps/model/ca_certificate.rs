//! The CA certificates of a DPS instance. Resource Manager manages them, and enrollment groups refer to them by name.
//!
//! # Where the documentation is silent
//! - **A verification code** is valid until the next one is generated, the certificate is replaced, or a proof succeeds.
//!   A failed proof keeps the code and the etag.
//! - **A verified certificate** stays verified when a code is generated. It can be verified again.
//! - **Replacing a certificate** makes it unverified, also with the same content, unless the body says `isVerified`.
//! - **The certificate** must be a CA certificate that is valid now, with a key that the service accepts, so that it
//!   could sign for a device. Root or intermediate does not matter.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    certificate::{Certificate, Timestamp, chain},
    emulator::{
        etag::Etag,
        random::{self, RandomError},
        shared,
    },
};

/// The size of a verification code in bytes.
const CODE_BYTES: usize = 24;

/// A CA certificate.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct CaCertificate {
    /// The name in the spelling of its creation.
    pub(crate) name: String,
    /// The member `certificate` as it was uploaded.
    pub(crate) text: String,
    /// Shared with the registrations of devices.
    #[serde(with = "shared")]
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) is_verified: bool,
    /// The current verification code.
    pub(crate) code: Option<String>,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    pub(crate) etag: Etag,
}

/// A proof of possession that fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ProofError(String);

impl CaCertificate {
    /// Creates a certificate, which replaces the current one. `text` is the certificate as it was uploaded.
    pub(crate) fn new(
        name: &str,
        text: String,
        is_verified: bool,
        certificate: Certificate,
        current: Option<&Self>,
        now: Timestamp,
    ) -> Result<Self, RandomError> {
        Ok(Self {
            name: current.map_or(name, |current| &current.name).to_owned(),
            text,
            certificate: certificate.into(),
            is_verified,
            code: None,
            created: current.map_or(now, |current| current.created),
            updated: now,
            etag: Etag::new()?,
        })
    }

    /// Generates a verification code, which invalidates the previous one.
    pub(crate) fn generate_code(&mut self, now: Timestamp) -> Result<(), RandomError> {
        let (etag, code) = (Etag::new()?, random::hexadecimal::<CODE_BYTES>()?);
        (self.etag, self.code, self.updated) = (etag, Some(code), now);
        Ok(())
    }

    /// Checks a proof of possession.
    pub(crate) fn check_proof(&self, proof: &Certificate, now: Timestamp) -> Result<(), ProofError> {
        let missing = || ProofError("there is no current verification code; generate one".to_owned());
        let code = self.code.as_deref().ok_or_else(missing)?;
        chain::verify_possession(proof, &self.certificate, code, now).map_err(|error| ProofError(error.to_string()))
    }

    /// Marks the certificate as verified.
    pub(crate) fn set_verified(&mut self, now: Timestamp) -> Result<(), RandomError> {
        self.etag = Etag::new()?;
        (self.is_verified, self.code, self.updated) = (true, None, now);
        Ok(())
    }
}
