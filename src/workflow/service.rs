//! The services that workflows enroll at, and the IDs of their enrollment groups.

use std::{fmt, str::FromStr};

use serde::Serialize;

use super::dps_instance::DpsInstance;
use crate::{central, dps};

/// A service that workflows enroll at.
///
/// Clones are cheap: they share the connections, tokens and rate limits of the clients.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Service {
    /// An IoT Central application.
    Central(central::Client),
    /// An instance of the Device Provisioning Service.
    Dps(DpsInstance),
}

impl Service {
    /// Returns what the service is called in messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Central(_) => "the application",
            Self::Dps(_) => "the provisioning service",
        }
    }
}

impl From<central::Client> for Service {
    fn from(client: central::Client) -> Self {
        Self::Central(client)
    }
}

impl From<&central::Client> for Service {
    fn from(client: &central::Client) -> Self {
        Self::Central(client.clone())
    }
}

impl From<DpsInstance> for Service {
    fn from(instance: DpsInstance) -> Self {
        Self::Dps(instance)
    }
}

impl From<&DpsInstance> for Service {
    fn from(instance: &DpsInstance) -> Self {
        Self::Dps(instance.clone())
    }
}

impl From<&Self> for Service {
    fn from(service: &Self) -> Self {
        service.clone()
    }
}

/// The maximum length of an enrollment group ID of any service.
const MAX_GROUP_ID: usize = 255;

/// The ID of an enrollment group of any service: 1 to 255 ASCII letters, digits, and `-._:`.
///
/// The rule of each service is narrower. A workflow checks it before it sends anything.
///
/// ```
/// use iot_enroll::{central::EnrollmentGroupId, workflow::GroupId};
///
/// let id: GroupId = "myx509eg".parse()?;
/// assert_eq!(id, EnrollmentGroupId::new("myx509eg")?.into());
/// assert!("my/group".parse::<GroupId>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct GroupId(String);

/// Why a text is not an enrollment group ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an enrollment group ID has 1 to {MAX_GROUP_ID} letters, digits, and the characters - . _ :")]
pub struct GroupIdError(());

impl GroupId {
    /// Checks a text and returns it as an ID.
    ///
    /// # Errors
    /// [`GroupIdError`] if it is empty, too long, or contains another character.
    pub fn new(text: impl Into<String>) -> Result<Self, GroupIdError> {
        let text = text.into();
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        let is_valid = (1..=MAX_GROUP_ID).contains(&text.len()) && text.chars().all(is_allowed);
        if is_valid { Ok(Self(text)) } else { Err(GroupIdError(())) }
    }

    /// Returns the ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for GroupId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupId {
    type Err = GroupIdError;

    fn from_str(text: &str) -> Result<Self, GroupIdError> {
        Self::new(text)
    }
}

impl From<central::EnrollmentGroupId> for GroupId {
    fn from(id: central::EnrollmentGroupId) -> Self {
        Self(id.into())
    }
}

impl From<dps::service::EnrollmentGroupId> for GroupId {
    fn from(id: dps::service::EnrollmentGroupId) -> Self {
        Self(id.into())
    }
}
