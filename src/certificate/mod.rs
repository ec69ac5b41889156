//! X.509 certificates: reading, thumbprints, chains; with the feature `issue` also making them.
//!
//! Nothing here speaks HTTP or to a terminal. Without any feature it reads certificates ([`Certificate`]), prints and
//! compares thumbprints ([`Thumbprint`]), checks chains and proofs of possession ([`chain`]).

pub mod chain;
mod encoding;
mod name;
mod thumbprint;

pub use encoding::{BasicConstraints, Certificate, KeyUsage, Name, PublicKeyAlgorithm, ReadError, SignatureError};
pub use name::{CommonName, DeviceId, MAX_COMMON_NAME, MAX_DEVICE_ID, NameError, camel_case};
pub use thumbprint::{Thumbprint, ThumbprintError};
