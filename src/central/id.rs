//! IDs and certificate entries.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::certificate::text_conversions;

/// The maximum length of an enrollment group ID.
pub const MAX_ENROLLMENT_GROUP_ID: usize = 255;

/// The maximum length of a device group ID.
pub const MAX_DEVICE_GROUP_ID: usize = 255;

/// The ID of an enrollment group: 1 to 255 ASCII letters, digits and hyphens.
///
/// This is the rule of the parameter `enrollmentGroupId` in version 2022-07-31 of the API.
///
/// ```
/// use iot_enroll::central::EnrollmentGroupId;
///
/// let id: EnrollmentGroupId = "myx509eg".parse()?;
/// assert_eq!(
///     EnrollmentGroupId::new("my_group").unwrap_err().to_string(),
///     "an enrollment group ID has letters, digits and hyphens; found '_' at position 3"
/// );
/// # Ok::<(), iot_enroll::central::IdError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnrollmentGroupId(String);

impl EnrollmentGroupId {
    /// Checks a text and returns it as an ID.
    ///
    /// # Errors
    /// [`IdError`] if it is empty, too long, or contains another character.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let rule = "letters, digits and hyphens";
        alphanumeric(text.into(), "an enrollment group ID", rule, MAX_ENROLLMENT_GROUP_ID, &['-']).map(Self)
    }
}

/// The ID of a device group: 1 to 255 ASCII letters, digits, hyphens and underscores.
///
/// This is the rule of the parameter `deviceGroupId` in version 2022-07-31 of the API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceGroupId(String);

impl DeviceGroupId {
    /// Checks a text and returns it as an ID.
    ///
    /// # Errors
    /// [`IdError`] if it is empty, too long, or contains another character.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let rule = "letters, digits, hyphens and underscores";
        alphanumeric(text.into(), "a device group ID", rule, MAX_DEVICE_GROUP_ID, &['-', '_']).map(Self)
    }
}

/// The ID of a device in an application: any text that can be a segment of a path.
///
/// The API requires only that it is not empty (parameter `deviceId` in version 2022-07-31), so an application may have
/// devices whose ID is not a valid registration ID. This type can name, list and delete them. A device that registers
/// at the Device Provisioning Service needs a [`certificate::DeviceId`](crate::certificate::DeviceId), which has a
/// stricter rule and converts into this type.
///
/// ```
/// use iot_enroll::central::CentralDeviceId;
///
/// let id: CentralDeviceId = "plant 7/sensor".parse()?;
/// assert_eq!(id.as_str(), "plant 7/sensor");
/// assert!("..".parse::<CentralDeviceId>().is_err());
/// # Ok::<(), iot_enroll::central::IdError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CentralDeviceId(String);

impl CentralDeviceId {
    /// Checks a text and returns it as an ID.
    ///
    /// # Errors
    /// [`IdError`] if it is empty, `.` or `..`, or contains a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        path_segment(text.into(), "a device ID").map(Self)
    }
}

impl From<crate::certificate::DeviceId> for CentralDeviceId {
    fn from(id: crate::certificate::DeviceId) -> Self {
        Self(id.as_str().to_owned())
    }
}

/// The ID of a deployment manifest: any text that can be a segment of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeploymentManifestId(String);

impl DeploymentManifestId {
    /// Checks a text and returns it as an ID.
    ///
    /// # Errors
    /// [`IdError`] if it is empty, `.` or `..`, or contains a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        path_segment(text.into(), "a deployment manifest ID").map(Self)
    }
}

macro_rules! id_traits {
    ($($name:ident)*) => {$(
        impl $name {
            /// Returns the ID as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        text_conversions!($name, IdError);
    )*};
}
id_traits!(EnrollmentGroupId DeviceGroupId CentralDeviceId DeploymentManifestId);

/// Checks an ID of ASCII letters, digits and `others`.
fn alphanumeric(
    text: String,
    what: &'static str,
    rule: &'static str,
    max: usize,
    others: &[char],
) -> Result<String, IdError> {
    let other = text.chars().enumerate().find(|(_, c)| !c.is_ascii_alphanumeric() && !others.contains(c));
    if let Some((index, character)) = other {
        return Err(IdError::Character { what, character, position: index + 1, rule });
    }
    if (1..=max).contains(&text.len()) { Ok(text) } else { Err(IdError::Length { what, found: text.len(), max }) }
}

/// Checks an ID that has to be a segment of a path and nothing else. `.` and `..` would be removed from the path, even
/// if percent-encoded (WHATWG URL, "dot segment").
fn path_segment(text: String, what: &'static str) -> Result<String, IdError> {
    if matches!(text.as_str(), "" | "." | "..") {
        return Err(IdError::Path { what, found: text });
    }
    match text.chars().enumerate().find(|(_, c)| c.is_control()) {
        Some((index, character)) => {
            Err(IdError::Character { what, character, position: index + 1, rule: "no control characters" })
        }
        None => Ok(text),
    }
}

/// Explains why a text is not an ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// It contains a character that is not allowed.
    #[error("{what} has {rule}; found {character:?} at position {position}")]
    Character {
        /// The kind of ID.
        what: &'static str,
        /// The character.
        character: char,
        /// The position of the character, counted in characters from 1.
        position: usize,
        /// What is allowed.
        rule: &'static str,
    },
    /// It is empty or too long.
    #[error("{what} has 1 to {max} characters; found {found}")]
    Length {
        /// The kind of ID.
        what: &'static str,
        /// The number of characters.
        found: usize,
        /// The maximum.
        max: usize,
    },
    /// It cannot be a segment of a path.
    #[error("{what} cannot be {found:?}, which a URL cannot contain")]
    Path {
        /// The kind of ID.
        what: &'static str,
        /// The text.
        found: String,
    },
    /// It is neither `primary` nor `secondary`.
    #[error("a certificate entry is primary or secondary; found {0:?}")]
    Entry(String),
}

/// One of the two entries for signing certificates of an enrollment group. With two, a certificate can be replaced
/// without downtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateEntry {
    /// `primary`
    Primary,
    /// `secondary`
    Secondary,
}

impl CertificateEntry {
    /// Returns the entry as the service writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }

    /// Returns the other entry.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }
}

impl fmt::Display for CertificateEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CertificateEntry {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        [Self::Primary, Self::Secondary]
            .into_iter()
            .find(|entry| entry.as_str() == text)
            .ok_or_else(|| IdError::Entry(text.chars().take(32).collect()))
    }
}
