//! X.509 certificates: reading, thumbprints, chains; with the feature `issue` also making them.
//!
//! Nothing here speaks HTTP or to a terminal. Without any feature it reads certificates ([`Certificate`]), prints and
//! compares thumbprints ([`Thumbprint`]), checks chains and proofs of possession ([`chain`]).

mod ber;
pub mod chain;
mod der;
mod extensions;
pub(crate) mod hex;
mod identifier;
mod name;
mod name_constraints;
mod objection;
mod oid;
mod pem;
mod public_key;
mod read;
mod signature;
mod thumbprint;
mod x509;

#[cfg(feature = "issue")]
mod authority;
#[cfg(feature = "issue")]
mod device_issuer;
#[cfg(feature = "issue")]
mod ec_point;
#[cfg(feature = "issue")]
pub mod files;
#[cfg(feature = "issue")]
pub mod fleet;
#[cfg(feature = "issue")]
mod key;
#[cfg(feature = "issue")]
mod key_encryption;
#[cfg(feature = "issue")]
mod profile;
#[cfg(feature = "issue")]
mod request;
#[cfg(feature = "issue")]
pub(crate) mod secure_file;

#[cfg(feature = "pfx")]
mod pbe;
#[cfg(feature = "pfx")]
pub mod pfx;

#[cfg(feature = "issue")]
pub use authority::{AuthorityError, CertificateAuthority, IssueOptions, IssuedCertificate};
pub use chain::ChainError;
#[cfg(feature = "issue")]
pub use device_issuer::{DeviceIdentity, DeviceIssuer};
pub use extensions::{
    AuthorityKeyIdentifier, BasicConstraints, Extension, GeneralName, GeneralSubtree, KeyUsage, MalformedExtension,
    NameConstraints,
};
pub use identifier::{CommonName, DeviceId, MAX_COMMON_NAME, MAX_DEVICE_ID, NameError, camel_case};
#[cfg(feature = "issue")]
pub use key::{KeyAlgorithm, KeyError, PrivateKey};
pub use name::Name;
pub use objection::{Objection, objections};
#[cfg(feature = "issue")]
pub use profile::{Lifetime, Profile, Validity};
pub use public_key::PublicKeyAlgorithm;
pub use read::{ContentKind, ReadError, content_kinds};
#[cfg(feature = "issue")]
pub use request::{CertificateRequest, RequestError};
pub use signature::{HashAlgorithm, PssParameters, SignatureAlgorithm, SignatureError};
pub use thumbprint::{Thumbprint, ThumbprintError};
pub use x509::Certificate;
