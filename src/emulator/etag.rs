//! Etags.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::random::{self, RandomError};

/// The version of a resource: opaque and unique. Base64 of a quoted string, like the services' etags.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Etag(String);

impl Etag {
    pub(super) fn new() -> Result<Self, RandomError> {
        Ok(Self(BASE64_STANDARD.encode(format!("\"{}\"", random::uuid()?))))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}
