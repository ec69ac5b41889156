//! The ID scope, which identifies an instance of the Device Provisioning Service.

use std::{fmt, str::FromStr};

/// The maximum length of an ID scope. Those in use have 11 characters.
pub const MAX_ID_SCOPE: usize = 64;

/// An ID scope, such as `0ne00A1B2C3`: letters and digits.
///
/// Every IoT Central application has its own. It is on the application's *Device connection* page and in the
/// credentials of its devices.
///
/// ```
/// use iot_enroll::dps::device::IdScope;
///
/// let scope: IdScope = "0ne00A1B2C3".parse()?;
/// assert_eq!(scope.as_str(), "0ne00A1B2C3");
/// assert!("contoso.azureiotcentral.com".parse::<IdScope>().is_err());
/// # Ok::<(), iot_enroll::dps::device::IdScopeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdScope(String);

impl IdScope {
    /// Returns the ID scope as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether both are the same scope. The service ignores case.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl fmt::Display for IdScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IdScope {
    type Err = IdScopeError;

    fn from_str(text: &str) -> Result<Self, IdScopeError> {
        let text = text.trim();
        if let Some((index, character)) = text.chars().enumerate().find(|(_, c)| !c.is_ascii_alphanumeric()) {
            return Err(IdScopeError::Character { character, position: index + 1 });
        }
        match text.len() {
            1..=MAX_ID_SCOPE => Ok(Self(text.to_owned())),
            found => Err(IdScopeError::Length(found)),
        }
    }
}

/// Explains why a text is not an ID scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdScopeError {
    /// It contains a character that is not allowed.
    #[error("an ID scope has letters and digits, as in 0ne00A1B2C3; found {character:?} at position {position}")]
    Character {
        /// The character.
        character: char,
        /// The position of the character, counted in characters from 1.
        position: usize,
    },
    /// It is empty or too long.
    #[error("an ID scope has 1 to {MAX_ID_SCOPE} characters, as in 0ne00A1B2C3; found {0}")]
    Length(usize),
}
