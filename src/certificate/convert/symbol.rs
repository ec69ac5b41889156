//! The beginning of the names of variables in C, and of keys in NVS.

use std::{fmt, str::FromStr};

use super::ConvertError;

/// The maximum length of a [`Symbol`]. C99 compilers distinguish 63 characters of a name (section 5.2.4.1), and up to 12
/// follow. [`ConvertError::Symbol`] states it.
const MAX_SYMBOL: usize = 48;

/// The beginning of the names of C variables and NVS keys, such as `device` in `device_cert` and `device_key`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Symbol(String);

impl Symbol {
    /// Creates a symbol from text.
    ///
    /// # Errors
    /// Returns [`ConvertError::Symbol`] if names in C cannot begin with it. Names that start with an underscore are reserved
    /// (C99 section 7.1.3).
    pub fn new(text: &str) -> Result<Self, ConvertError> {
        let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.len() <= MAX_SYMBOL
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_name { Ok(Self(text.to_owned())) } else { Err(ConvertError::Symbol) }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Symbol {
    /// Returns `device`: firmware then uses the same names for every device.
    fn default() -> Self {
        Self("device".to_owned())
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Symbol {
    type Err = ConvertError;

    fn from_str(text: &str) -> Result<Self, ConvertError> {
        Self::new(text)
    }
}
