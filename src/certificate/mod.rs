//! X.509 certificates: read, compare, verify, issue.
//!
//! Nothing here uses HTTP or a terminal. Without any feature, this module reads certificates ([`Certificate`]) and prints
//! and compares thumbprints ([`Thumbprint`]). The feature `verify` adds chains and proofs of possession (`chain`), `pfx`
//! reads PFX files (`pfx`), and `issue` adds certificate authorities (`CertificateAuthority`), private keys, the files of
//! certificates (`files`), certificates for many devices (`fleet`), those of IoT Edge devices (`edge`), renewal (`renewal`),
//! and conversions to other formats (`convert`). `pkcs11` adds private keys in PKCS#11 tokens (`pkcs11`).

mod ber;
mod der;
mod extensions;
mod hash;
pub(crate) mod hex;
mod identifier;
mod issuer;
mod name;
mod oid;
mod pem;
mod possession;
mod public_key;
mod read;
#[cfg(feature = "serde")]
mod serde_text;
mod signature;
mod text_conversions;
mod thumbprint;
mod timestamp;
mod validity;
mod x509;

#[cfg(feature = "verify")]
pub mod chain;
#[cfg(feature = "verify")]
mod chain_error;
#[cfg(feature = "verify")]
mod name_constraints;
#[cfg(feature = "verify")]
mod objection;
#[cfg(feature = "verify")]
mod signature_check;

#[cfg(feature = "pfx")]
mod pbe;
#[cfg(feature = "pfx")]
pub mod pfx;

#[cfg(feature = "issue")]
mod alternative_name;
#[cfg(feature = "issue")]
mod authority;
#[cfg(feature = "issue")]
mod authority_error;
#[cfg(feature = "issue")]
mod authority_request;
#[cfg(feature = "issue")]
pub mod convert;
#[cfg(feature = "issue")]
mod device_issuer;
#[cfg(feature = "issue")]
mod ec_point;
#[cfg(feature = "issue")]
pub mod edge;
#[cfg(feature = "issue")]
pub mod files;
#[cfg(feature = "issue")]
pub mod fleet;
#[cfg(feature = "issue")]
mod issue_options;
#[cfg(feature = "issue")]
mod key;
#[cfg(feature = "issue")]
mod key_encryption;
#[cfg(feature = "issue")]
mod key_error;
#[cfg(feature = "issue")]
mod key_format;
#[cfg(feature = "issue")]
mod leaf;
#[cfg(feature = "issue")]
mod lifetime;
#[cfg(feature = "issue")]
pub(crate) mod locked_file;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
#[cfg(feature = "issue")]
mod profile;
#[cfg(feature = "issue")]
mod remote_key;
#[cfg(feature = "issue")]
pub mod renewal;
#[cfg(feature = "issue")]
mod request;
#[cfg(feature = "issue")]
pub(crate) mod secure_file;

pub use extensions::{
    AuthorityKeyIdentifier, BasicConstraints, Extension, GeneralName, GeneralSubtree, KeyUsage, MalformedExtension,
    NameConstraints,
};
pub use hash::HashAlgorithm;
pub use identifier::{CommonName, DeviceId, MAX_COMMON_NAME, MAX_DEVICE_ID, NameError, camel_case};
pub use name::Name;
pub use possession::Possession;
pub use public_key::PublicKeyAlgorithm;
pub use read::{ContentKind, ReadError, content_kinds};
pub use signature::{PssParameters, SignatureAlgorithm};
#[cfg(feature = "client")]
pub(crate) use text_conversions::text_conversions;
pub use thumbprint::{Thumbprint, ThumbprintError};
pub use timestamp::{Timestamp, TimestampError};
pub use validity::Validity;
pub use x509::Certificate;

#[cfg(feature = "verify")]
pub use chain_error::ChainError;
#[cfg(feature = "cli")]
pub(crate) use issuer::find_leaf;
#[cfg(feature = "verify")]
pub use objection::{Objection, objections};
#[cfg(feature = "verify")]
pub use signature_check::SignatureError;

#[cfg(feature = "issue")]
pub use alternative_name::{AlternativeName, AlternativeNameError};
#[cfg(feature = "issue")]
pub use authority::{CertificateAuthority, IssuedCertificate};
#[cfg(feature = "issue")]
pub use authority_error::AuthorityError;
#[cfg(feature = "issue")]
pub use authority_request::{AuthorityRequestError, SignedRequest};
#[cfg(feature = "issue")]
pub use device_issuer::{DeviceIdentity, DeviceIssuer};
#[cfg(feature = "issue")]
pub use issue_options::IssueOptions;
#[cfg(feature = "issue")]
pub use key::{KeyAlgorithm, PrivateKey};
#[cfg(feature = "issue")]
pub use key_error::KeyError;
#[cfg(feature = "issue")]
pub use key_format::{KeyEncoding, KeyFormat};
#[cfg(feature = "issue")]
pub use leaf::LeafParams;
#[cfg(feature = "issue")]
pub use lifetime::Lifetime;
#[cfg(feature = "issue")]
pub use profile::Profile;
#[cfg(feature = "issue")]
pub use request::{CertificateRequest, RequestError};
