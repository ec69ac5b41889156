//! Etags.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::random::{self, RandomError};

/// The version of a resource: opaque and unique. Each service writes it in its own form.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Etag(#[serde(with = "hex_number")] u128);

impl Etag {
    pub(super) fn new() -> Result<Self, RandomError> {
        Ok(Self(u128::from_be_bytes(random::bytes()?)))
    }

    /// Returns the form of IoT Central and of the device API: base64 of a quoted UUID.
    pub(super) fn encoded(self) -> String {
        BASE64_STANDARD.encode(self.quoted())
    }

    /// Returns the form of the service API of DPS: a UUID with its quotation marks.
    pub(super) fn quoted(self) -> String {
        format!("\"{}\"", random::to_uuid(self.0))
    }

    /// Returns the form of Resource Manager: base64 of eight bytes.
    pub(super) fn row_version(self) -> String {
        BASE64_STANDARD.encode(&self.0.to_be_bytes()[8..])
    }
}

/// A number as hexadecimal digits: JSON numbers of this size are not portable.
mod hex_number {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(|_| D::Error::custom("expected hexadecimal digits"))
    }
}
