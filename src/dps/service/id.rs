//! IDs of enrollments.

use serde::{Deserialize, Serialize};

use crate::{
    certificate::{DeviceId, NameError},
    transport::{case_insensitive_name, check_name},
};

/// The maximum length of an enrollment group ID and of a registration ID.
pub const MAX_ID: usize = 128;

/// The ID of an enrollment group: 1 to 128 ASCII letters, digits and `-` `.` `_` `:`. The last is a letter, digit or `-`.
///
/// IDs are compared without regard to case, as the service does, and keep the case in which they were written.
///
/// ```
/// use iot_enroll::dps::service::EnrollmentGroupId;
///
/// let id: EnrollmentGroupId = "myx509eg".parse()?;
/// assert_eq!(id, "MyX509EG".parse()?);
/// assert!("my group".parse::<EnrollmentGroupId>().is_err());
/// # Ok::<(), iot_enroll::certificate::NameError>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnrollmentGroupId(String);

impl EnrollmentGroupId {
    /// Checks a text and returns it as an ID.
    ///
    /// # Errors
    /// [`NameError`] if it is empty, too long, or has a character that is not allowed at its position.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        check_id(text.into(), "an enrollment group ID").map(Self)
    }
}

/// The ID of a device at the Device Provisioning Service: 1 to 128 ASCII letters, digits and `-` `.` `_` `:`. The last is a
/// letter, digit or `-`.
///
/// Registration IDs are compared without regard to case, as the service does, and keep the case in which they were
/// written. They may start with a hyphen, a dot or the like, which a [`DeviceId`] may not; every [`DeviceId`] is a
/// registration ID. With X.509, the common name of the device's certificate is the registration ID, so it has at most 64
/// characters.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistrationId(String);

impl RegistrationId {
    /// Checks a text and returns it as an ID.
    ///
    /// # Errors
    /// [`NameError`] if it is empty, too long, or has a character that is not allowed at its position.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        check_id(text.into(), "a registration ID").map(Self)
    }
}

impl From<DeviceId> for RegistrationId {
    fn from(id: DeviceId) -> Self {
        Self(id.into())
    }
}

case_insensitive_name!(EnrollmentGroupId RegistrationId);

fn check_id(text: String, what: &'static str) -> Result<String, NameError> {
    let rule = "letters, digits and - . _ :";
    check_name(&text, what, rule, MAX_ID, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':'))?;
    match text.chars().last() {
        Some(character @ ('.' | '_' | ':')) => {
            let rule = "a letter, digit or - last";
            Err(NameError::Character { what, character, position: text.len(), rule })
        }
        _ => Ok(text),
    }
}
