//! What the service's things are called: ids, entries, etags.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The most characters the id of an enrollment group may have.
pub const MAX_ENROLLMENT_GROUP_ID: usize = 255;

/// The most characters the id of a device group may have.
pub const MAX_DEVICE_GROUP_ID: usize = 255;

/// The id of an enrollment group: 1 to 255 ASCII letters, digits and hyphens.
///
/// The rule is the parameter `enrollmentGroupId` of the API, version 2022-07-31.
///
/// ```
/// use iot_enroll::central::EnrollmentGroupId;
///
/// let id: EnrollmentGroupId = "myx509eg".parse()?;
/// assert_eq!(
///     EnrollmentGroupId::new("my_group").unwrap_err().to_string(),
///     "the id of an enrollment group has letters, digits and hyphens, found '_' at position 3"
/// );
/// # Ok::<(), iot_enroll::central::IdError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnrollmentGroupId(String);

impl EnrollmentGroupId {
    /// Takes a text as an id.
    ///
    /// # Errors
    /// [`IdError`] when it is empty, too long, or has another character, which it names.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let rule = "letters, digits and hyphens";
        named(text.into(), "the id of an enrollment group", rule, MAX_ENROLLMENT_GROUP_ID, &['-']).map(Self)
    }
}

/// The id of a device group: 1 to 255 ASCII letters, digits, hyphens and underscores.
///
/// The rule is the parameter `deviceGroupId` of the API, version 2022-07-31.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceGroupId(String);

impl DeviceGroupId {
    /// Takes a text as an id.
    ///
    /// # Errors
    /// [`IdError`] when it is empty, too long, or has another character, which it names.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        let rule = "letters, digits, hyphens and underscores";
        named(text.into(), "the id of a device group", rule, MAX_DEVICE_GROUP_ID, &['-', '_']).map(Self)
    }
}

/// The id of a device, as an application knows it: any text that can stand in a path.
///
/// The API asks for one character at least (its parameter `deviceId`). Ids of existing devices need not keep the rule of
/// the Device Provisioning Service, which is that of
/// [`certificate::DeviceId`](crate::certificate::DeviceId); a device that shall register there should.
///
/// ```
/// use iot_enroll::central::DeviceId;
///
/// let id: DeviceId = "plant 7/sensor".parse()?;
/// assert_eq!(id.as_str(), "plant 7/sensor");
/// assert!("..".parse::<DeviceId>().is_err());
/// # Ok::<(), iot_enroll::central::IdError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

impl DeviceId {
    /// Takes a text as an id.
    ///
    /// # Errors
    /// [`IdError`] when it is empty, `.` or `..`, or has a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        in_a_path(text.into(), "the id of a device").map(Self)
    }
}

impl From<crate::certificate::DeviceId> for DeviceId {
    fn from(id: crate::certificate::DeviceId) -> Self {
        Self(id.as_str().to_owned())
    }
}

/// The id of a deployment manifest: any text that can stand in a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeploymentManifestId(String);

impl DeploymentManifestId {
    /// Takes a text as an id.
    ///
    /// # Errors
    /// [`IdError`] when it is empty, `.` or `..`, or has a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
        in_a_path(text.into(), "the id of a deployment manifest").map(Self)
    }
}

macro_rules! text {
    ($($name:ident)*) => {$(
        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    )*};
}
text!(EnrollmentGroupId DeviceGroupId DeviceId DeploymentManifestId);

/// Checks an id of ASCII letters, digits and these.
fn named(text: String, what: &'static str, rule: &'static str, max: usize, others: &[char]) -> Result<String, IdError> {
    let stranger = text.chars().enumerate().find(|(_, c)| !c.is_ascii_alphanumeric() && !others.contains(c));
    if let Some((index, character)) = stranger {
        return Err(IdError::Character { what, character, position: index + 1, rule });
    }
    if (1..=max).contains(&text.len()) { Ok(text) } else { Err(IdError::Length { what, found: text.len(), max }) }
}

/// Checks an id that has no rule but this: written as a segment of a path, it is still there. `.` and `..` are not, even
/// percent-encoded (WHATWG URL, "dot segment").
fn in_a_path(text: String, what: &'static str) -> Result<String, IdError> {
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

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// A character that may not stand there.
    #[error("{what} has {rule}, found {character:?} at position {position}")]
    Character {
        /// Whose id.
        what: &'static str,
        /// The character found.
        character: char,
        /// Where, counted in characters from 1.
        position: usize,
        /// What may stand there.
        rule: &'static str,
    },
    /// Empty, or too long.
    #[error("{what} has 1 to {max} characters, found {found}")]
    Length {
        /// Whose id.
        what: &'static str,
        /// How many characters were found.
        found: usize,
        /// The most it may have.
        max: usize,
    },
    /// Nothing that can stand in a path.
    #[error("{what} cannot be {found:?}, which does not stand in an address")]
    Path {
        /// Whose id.
        what: &'static str,
        /// The text found.
        found: String,
    },
    /// Neither `primary` nor `secondary`.
    #[error("a certificate entry is primary or secondary, found {0:?}")]
    Entry(String),
}

/// Which of an enrollment group's two signing certificates. Two, so that one can be exchanged while the other serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateEntry {
    /// `primary`
    Primary,
    /// `secondary`
    Secondary,
}

impl CertificateEntry {
    /// The entry as the service writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }

    /// The other of the two.
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

/// The state of a thing as it was read. Sent back with a change, it makes the service refuse the change with 412 if the
/// thing has changed since. This API carries etags in bodies, not in headers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Etag(String);

impl Etag {
    /// Takes a text, as it was read, as an etag. Its content has no meaning for a client.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The etag as text.
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
