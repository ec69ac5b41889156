//! Private keys in PKCS#11 tokens, which sign and never leave the token.
//!
//! ```no_run
//! use iot_enroll::certificate::{
//!     Certificate, CertificateAuthority, Timestamp,
//!     pkcs11::{Pkcs11Uri, Token},
//! };
//!
//! let uri: Pkcs11Uri = "pkcs11:token=lab;object=root".parse()?;
//! let token = Token::find(&uri, "/usr/lib/softhsm/libsofthsm2.so".as_ref())?;
//! let key = token.log_in(Some("1234"))?.find_key(&uri)?;
//! let certificates = Certificate::read_all(&std::fs::read("root_cert.pem")?)?;
//! let authority = CertificateAuthority::new(certificates, key, Timestamp::now())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A module is a library that is loaded into the process: load only one that you trust. Each signature is verified with the
//! public key before it is used.

mod error;
mod key;
mod module;
mod objects;
mod token;
mod uri;

pub use self::{
    error::{PinTries, TokenError},
    token::{Token, TokenSession},
    uri::{Pkcs11Uri, Pkcs11UriError},
};
