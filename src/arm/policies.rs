//! Shared access policies: the keys that sign tokens for the service API.

use std::fmt;

use serde::Deserialize;

use super::instance::Instance;
use crate::transport::{Call, Error, Listing, Secret, SharedAccessKey, SharedAccessKeyError, items};

impl Instance {
    /// Lists the shared access policies of the instance, with their keys.
    ///
    /// Further pages are requested with GET, as the management SDKs do. The API describes only the first request.
    pub fn policies(&self) -> Listing<SharedAccessPolicy> {
        let call = Call::post_empty(&self.id.path(&["listkeys"])).reading_keys();
        items(self.client.rest().clone(), call, None)
    }

    /// Reads a shared access policy, with its keys.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the policy does not exist.
    pub async fn policy(&self, name: &str) -> Result<SharedAccessPolicy, Error> {
        let call = Call::post_empty(&self.id.path(&["keys", name, "listkeys"])).reading_keys();
        self.client.rest().read(&call).await
    }
}

/// A shared access policy of an instance. `Debug` hides its keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SharedAccessPolicy {
    /// The name.
    #[serde(rename = "keyName")]
    pub name: String,
    /// What its keys allow.
    #[serde(deserialize_with = "parse_rights")]
    pub rights: Vec<AccessRight>,
    /// The primary key, in base64.
    pub primary_key: Secret,
    /// The secondary key, in base64.
    pub secondary_key: Secret,
}

impl SharedAccessPolicy {
    /// Returns whether its keys have a right.
    #[must_use]
    pub fn has(&self, right: &AccessRight) -> bool {
        self.rights.contains(right)
    }

    /// Returns the primary key, to sign tokens with.
    ///
    /// # Errors
    /// [`SharedAccessKeyError`] if the key is not base64.
    pub fn key(&self) -> Result<SharedAccessKey, SharedAccessKeyError> {
        SharedAccessKey::new(self.name.as_str(), &self.primary_key)
    }
}

/// What a shared access policy allows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessRight {
    /// `ServiceConfig`: to read and change the configuration of the instance.
    ServiceConfig,
    /// `EnrollmentRead`: to read enrollments.
    EnrollmentRead,
    /// `EnrollmentWrite`: to read and change enrollments.
    EnrollmentWrite,
    /// `DeviceConnect`: to register as a device.
    DeviceConnect,
    /// `RegistrationStatusRead`: to read registration records.
    RegistrationStatusRead,
    /// `RegistrationStatusWrite`: to read and delete registration records.
    RegistrationStatusWrite,
    /// A right that this client does not know.
    Other(String),
}

impl AccessRight {
    /// Returns the right as the service writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::ServiceConfig => "ServiceConfig",
            Self::EnrollmentRead => "EnrollmentRead",
            Self::EnrollmentWrite => "EnrollmentWrite",
            Self::DeviceConnect => "DeviceConnect",
            Self::RegistrationStatusRead => "RegistrationStatusRead",
            Self::RegistrationStatusWrite => "RegistrationStatusWrite",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for AccessRight {
    fn from(text: &str) -> Self {
        match text {
            "ServiceConfig" => Self::ServiceConfig,
            "EnrollmentRead" => Self::EnrollmentRead,
            "EnrollmentWrite" => Self::EnrollmentWrite,
            "DeviceConnect" => Self::DeviceConnect,
            "RegistrationStatusRead" => Self::RegistrationStatusRead,
            "RegistrationStatusWrite" => Self::RegistrationStatusWrite,
            _ => Self::Other(text.to_owned()),
        }
    }
}

impl fmt::Display for AccessRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Reads rights, which the service separates by commas.
fn parse_rights<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<AccessRight>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(text.split(',').map(|right| right.trim().into()).collect())
}
