//! Why a PFX file could not be read or written.

#[cfg(feature = "issue")]
use crate::certificate::KeyError;
use crate::certificate::{ReadError, pbe::PbeError};

/// The default password of PFX files: the one that `create_test_cert.js` of Azure IoT Central always uses.
pub const DEFAULT_PASSWORD: &str = "1234";

/// The reason why a PFX file could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PfxError {
    /// The password does not open the file.
    #[error("the password does not open the PFX file")]
    Password,
    /// No password was given, and neither [`DEFAULT_PASSWORD`] nor the empty password opens the file.
    #[error(
        "the password does not open the PFX file: none was given, and neither {DEFAULT_PASSWORD} nor the empty one opens it"
    )]
    PasswordNeeded,
    /// The file does not decode; holds which part.
    #[error("the PFX file is damaged: {0}")]
    Damaged(String),
    /// The file uses an unsupported algorithm or variant of the format; holds its name.
    #[error("the PFX file uses {0}, which is not supported")]
    Unsupported(String),
    /// The file asks for more key derivation than any honest file does.
    #[error("the PFX file asks for {iterations} iterations of key derivation, more than the limit of {limit}")]
    Iterations {
        /// The number of iterations that the file asks for.
        iterations: u64,
        /// The highest number that is accepted.
        limit: u64,
    },
    /// Several private keys in the file have a certificate; describes each by subject, friendly name and thumbprint.
    #[error("the PFX file holds {} private keys that have a certificate: {}", .0.len(), .0.join("; "))]
    Ambiguous(Vec<String>),
    /// The private key in the file belongs to none of the certificates.
    #[error("none of the certificates in the PFX file belongs to its private key")]
    NoMatch,
    /// The file holds no certificate.
    #[error("the PFX file holds no certificate")]
    NoCertificate,
    /// A certificate in the file cannot be read.
    #[error("a certificate in the PFX file cannot be read: {0}")]
    Certificate(#[from] ReadError),
    /// The file holds no private key.
    #[cfg(feature = "issue")]
    #[error("the PFX file holds no private key")]
    NoKey,
    /// The private key in the file cannot be used.
    #[cfg(feature = "issue")]
    #[error("the private key in the PFX file cannot be used: {0}")]
    Key(#[from] KeyError),
    /// Java could not open the truststore; says why.
    #[cfg(feature = "issue")]
    #[error("Java could not open the truststore: {0}")]
    Truststore(String),
    /// The file could not be written.
    #[error("the PFX file could not be made: {0}")]
    Write(String),
}

impl PfxError {
    /// Returns the error that a part of the file does not decode.
    pub(super) fn damaged(part: &str) -> Self {
        Self::Damaged(format!("{part} cannot be decoded"))
    }
}

impl From<PbeError> for PfxError {
    fn from(error: PbeError) -> Self {
        match error {
            PbeError::Password => Self::Password,
            PbeError::Unsupported(algorithm) => Self::Unsupported(algorithm),
            PbeError::Iterations(iterations) => {
                Self::Iterations { iterations, limit: crate::certificate::pbe::MAX_ITERATIONS }
            }
            PbeError::Damaged(part) => Self::damaged(part),
        }
    }
}
