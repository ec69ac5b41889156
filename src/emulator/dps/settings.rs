//! The settings of the DPS instance, which do not change while the emulator runs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::emulator::{credential::SymmetricKey, etag::Etag, shared};

/// The name of the policy that every instance has.
pub(crate) const OWNER_POLICY: &str = "provisioningserviceowner";

/// The DPS instance and where Resource Manager has it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct InstanceSettings {
    pub(crate) name: String,
    pub(crate) subscription: String,
    pub(crate) resource_group: String,
    pub(crate) id_scope: String,
    pub(crate) etag: Etag,
    /// The host name of the linked IoT hub.
    #[serde(with = "shared")]
    pub(crate) hub: Arc<str>,
    /// Whether SAS tokens are accepted.
    pub(crate) local_auth: bool,
    pub(crate) policies: Vec<Policy>,
}

/// A shared access policy. Its keys are secret.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) key: SymmetricKey,
    pub(crate) rights: Vec<DpsRight>,
}

/// A right of a shared access policy of a DPS instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DpsRight {
    /// Manage the instance. No operation of the service API needs it.
    ServiceConfig,
    /// Read enrollments and enrollment groups.
    EnrollmentRead,
    /// Change enrollments and enrollment groups, and read their symmetric keys.
    EnrollmentWrite,
    /// Read registration records.
    RegistrationStatusRead,
    /// Delete registration records.
    RegistrationStatusWrite,
    /// Register devices. No operation of the service API needs it.
    DeviceConnect,
}

impl DpsRight {
    pub(crate) const ALL: [Self; 6] = [
        Self::ServiceConfig,
        Self::EnrollmentRead,
        Self::EnrollmentWrite,
        Self::DeviceConnect,
        Self::RegistrationStatusRead,
        Self::RegistrationStatusWrite,
    ];

    /// Returns the name in Resource Manager.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ServiceConfig => "ServiceConfig",
            Self::EnrollmentRead => "EnrollmentRead",
            Self::EnrollmentWrite => "EnrollmentWrite",
            Self::RegistrationStatusRead => "RegistrationStatusRead",
            Self::RegistrationStatusWrite => "RegistrationStatusWrite",
            Self::DeviceConnect => "DeviceConnect",
        }
    }
}

impl InstanceSettings {
    /// Returns a policy by its name.
    pub(crate) fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.name.eq_ignore_ascii_case(name))
    }
}
