//! Texts that must not be printed.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// A secret text, such as a token or a symmetric key.
///
/// Its memory is wiped when it is dropped, and `Debug` prints `[redacted]`. It cannot be serialized:
/// [`expose`](Self::expose) names each place where the text leaves the program.
///
/// ```
/// use iot_enroll::transport::Secret;
///
/// let key = Secret::from("bXkga2V5");
/// assert_eq!(key.expose(), "bXkga2V5");
/// assert_eq!(format!("{key:?}"), "[redacted]");
/// ```
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(SecretString);

impl Secret {
    /// Returns the text.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
