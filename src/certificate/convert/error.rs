//! Why certificates and keys could not be converted.

use crate::certificate::{KeyError, ReadError, pfx::PfxError};

/// The reason why certificates and keys could not be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The input or one of its certificates cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The private key cannot be read, or not be written in the requested structure.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The input is a PFX file that cannot be read, or a PFX file cannot be written.
    #[error(transparent)]
    Pfx(#[from] PfxError),
    /// The input has objects that are neither certificates nor private keys; holds a list of them.
    #[error("it holds {0}, which cannot be converted")]
    Unsupported(String),
    /// The input has different private keys.
    #[error("there are several private keys, and only one can be converted at a time")]
    SeveralKeys,
    /// The private key belongs to none of the certificates; holds their subjects, as a list with "or".
    #[error("the private key does not belong to the certificate {0}")]
    KeyMismatch(String),
    /// There is no certificate.
    #[error("there is no certificate, only a private key")]
    NoCertificate,
    /// There is no private key.
    #[error("there is no private key, only certificates")]
    NoKey,
    /// The format does not hold private keys; holds its name.
    #[error("{0} holds no private keys")]
    KeyNotHeld(&'static str),
    /// DER is one object, but there are several certificates; holds their number.
    #[error("DER holds one certificate, but there are {0}")]
    SeveralCertificates(usize),
    /// DER is one object, but there are a certificate and a private key.
    #[error("DER holds one object, but there are a certificate and a private key")]
    CertificateAndKey,
    /// It is not clear which certificate is the leaf: holds those that issued none of the others, or have the same key.
    #[error("{} certificates could be the leaf: {}", .0.len(), .0.join(", "))]
    AmbiguousLeaf(Vec<String>),
    /// There are too many certificates to find the leaf; holds their number.
    #[error("there are {0} certificates: they are not a chain with a leaf")]
    NotAChain(usize),
    /// The text cannot be the beginning of the names of C variables.
    #[error("a name for C has 1 to 48 letters, digits and underscores, and starts with a letter")]
    Symbol,
    /// The text cannot be a namespace in NVS.
    #[error("a namespace of NVS has 1 to 15 letters, digits, hyphens, dots and underscores")]
    NvsNamespace,
    /// The key of an NVS entry would be too long; holds it.
    #[error("the key {0:?} is too long for NVS, whose keys have at most 15 characters")]
    NvsKey(String),
    /// A value is too long for a string in NVS.
    #[error("the value of {key:?} has {length} bytes, but a string in NVS has at most {limit}")]
    NvsString {
        /// The key of the entry.
        key: String,
        /// The length of the value in bytes.
        length: usize,
        /// The maximum length.
        limit: usize,
    },
}
