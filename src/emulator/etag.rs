//! Etags.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::random::{self, RandomError};

/// The version of a resource: opaque and unique. Each service writes it in its own form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Etag(u128);

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
