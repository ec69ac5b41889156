//! Conversion of certificates and private keys to the formats of other programs and of device firmware.
//!
//! A [`Bundle`] is the content of files: certificates, and at most one private key. It is read from any encoding. Each format
//! is a method. Nothing is left out silently: if a format cannot hold a part of the bundle, the method fails, and the part is
//! selected first, with [`only_leaf`](Bundle::only_leaf) and its siblings.
//!
//! ```
//! use iot_enroll::certificate::convert::{Bundle, Symbol};
//! use iot_enroll::certificate::files::Passwords;
//!
//! # let pem = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/authorities/ec-sec1_cert.pem"));
//! let bundle = Bundle::read(pem, Passwords::new())?;
//! let header = bundle.to_c_header(&Symbol::new("root_ca")?, Default::default())?;
//! assert!(header.contains("static const char root_ca_cert[]"));
//! # Ok::<(), iot_enroll::certificate::convert::ConvertError>(())
//! ```

mod bundle;
mod c_header;
mod character_list;
mod error;
mod nvs;
mod p7b;
mod symbol;

pub use bundle::Bundle;
pub use error::ConvertError;
pub use nvs::{NvsNamespace, NvsOptions};
pub use symbol::Symbol;
