//! Etags.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of a resource. The service refuses a change that names another version than the current one (412).
///
/// IoT Central has etags in bodies. Resource Manager and the Device Provisioning Service take them in `If-Match`, where
/// the text is sent exactly as the service wrote it: the quotation marks that some contain are part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Etag(String);

impl Etag {
    /// Takes an etag as the service wrote it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the etag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
