//! The settings that enrollment groups and individual enrollments share.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::record::{Record, edit_object, take};
use crate::transport::{Secret, setters};

/// The settings of an enrollment. In a new enrollment, the service chooses those that are `None`; an update keeps them.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EnrollmentSettings {
    /// Whether devices can register through it.
    pub enabled: Option<bool>,
    /// Whether its devices run Azure IoT Edge.
    pub iot_edge: Option<bool>,
    /// What happens when an assigned device registers again.
    pub reprovision_policy: Option<ReprovisionPolicy>,
    /// How devices are assigned to hubs. `None` in a record means the policy of the instance.
    pub allocation_policy: Option<AllocationPolicy>,
    /// The function that assigns devices, for [`AllocationPolicy::Custom`].
    pub custom_allocation: Option<CustomAllocation>,
    /// The host names of the hubs that devices are assigned to. An empty list means all linked hubs.
    pub iot_hubs: Option<Vec<String>>,
    /// The twin that a device starts with.
    pub initial_twin: Option<InitialTwin>,
}

setters!(EnrollmentSettings {
    enabled: Option<bool>,
    iot_edge: Option<bool>,
    reprovision_policy: Option<ReprovisionPolicy>,
    allocation_policy: Option<AllocationPolicy>,
    custom_allocation: Option<CustomAllocation>,
    iot_hubs: Option<Vec<String>>,
    initial_twin: Option<InitialTwin>,
});

const STATUS: &str = "provisioningStatus";
const CAPABILITIES: &str = "capabilities";
const IOT_EDGE: &str = "iotEdge";
const REPROVISION: &str = "reprovisionPolicy";
const ALLOCATION: &str = "allocationPolicy";
const CUSTOM: &str = "customAllocationDefinition";
const HUBS: &str = "iotHubs";
const TWIN: &str = "initialTwin";

/// The names of the metadata in tags and desired properties.
const METADATA: [&str; 5] = ["version", "count", "metadata", "$version", "$metadata"];

impl EnrollmentSettings {
    /// Returns settings of which none is set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the settings out of a record.
    pub(super) fn take(record: &mut Record) -> Result<Self, String> {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase")]
        struct Capabilities {
            iot_edge: Option<bool>,
        }
        let status: Option<String> = take(record, STATUS)?;
        Ok(Self {
            enabled: status.map(|status| status != "disabled"),
            iot_edge: take::<Capabilities>(record, CAPABILITIES)?.unwrap_or_default().iot_edge,
            reprovision_policy: take(record, REPROVISION)?,
            allocation_policy: take(record, ALLOCATION)?,
            custom_allocation: take(record, CUSTOM)?,
            iot_hubs: take(record, HUBS)?,
            initial_twin: take(record, TWIN)?,
        })
    }

    /// Changes the settings of a record that are set here.
    pub(super) fn apply(&self, record: &mut Record) {
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                record.insert(name.to_owned(), value);
            }
        };
        set(STATUS, self.enabled.map(|enabled| if enabled { "enabled" } else { "disabled" }.into()));
        set(ALLOCATION, self.allocation_policy.as_ref().map(|policy| json!(policy)));
        set(HUBS, self.iot_hubs.as_ref().map(|hubs| json!(hubs)));
        if self.iot_hubs.is_some() {
            // The older form, of which the list is the successor.
            record.remove("iotHubHostName");
        }
        if let Some(iot_edge) = self.iot_edge {
            edit_object(record, CAPABILITIES, |capabilities| {
                capabilities.insert(IOT_EDGE.to_owned(), iot_edge.into());
            });
        }
        if let Some(ReprovisionPolicy { update_hub_assignment, migrate_device_data }) = self.reprovision_policy {
            edit_object(record, REPROVISION, |policy| {
                policy.insert("updateHubAssignment".to_owned(), update_hub_assignment.into());
                policy.insert("migrateDeviceData".to_owned(), migrate_device_data.into());
            });
        }
        if let Some(CustomAllocation { webhook_url, api_version }) = &self.custom_allocation {
            edit_object(record, CUSTOM, |custom| {
                custom.insert("webhookUrl".to_owned(), webhook_url.expose().into());
                custom.insert("apiVersion".to_owned(), api_version.as_str().into());
            });
        } else if self.allocation_policy.as_ref().is_some_and(|policy| *policy != AllocationPolicy::Custom) {
            record.remove(CUSTOM);
        }
        if let Some(twin) = &self.initial_twin {
            edit_object(record, TWIN, |record| twin.apply(record));
        }
    }

    /// Adds the settings to a record that is printed, without what can be secret in the URL of a function.
    pub(super) fn print(&self, record: &mut Record) {
        self.apply(record);
        if let Some(CustomAllocation { webhook_url, .. }) = &self.custom_allocation {
            edit_object(record, CUSTOM, |custom| {
                custom.insert("webhookUrl".to_owned(), origin(webhook_url).into());
            });
        }
    }

    /// Returns the texts that no message may repeat.
    pub(super) fn secrets(&self) -> impl Iterator<Item = Secret> {
        self.custom_allocation.iter().map(|custom| custom.webhook_url.clone())
    }
}

/// Returns the scheme and host of a URL, and a mark in place of the rest: a user name, a path and a query can all be keys.
fn origin(url: &Secret) -> String {
    const HIDDEN: &str = "[redacted]";
    let Some((scheme, rest)) = url.expose().split_once("://") else { return HIDDEN.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let is_whole = host == authority && path.trim_matches('/').is_empty();
    if is_whole { format!("{scheme}://{host}") } else { format!("{scheme}://{host}/{HIDDEN}") }
}

/// Returns the URL of the function in a record, which usually contains a key.
pub(super) fn function_url(record: &Record) -> Option<Secret> {
    Some(record.get(CUSTOM)?.get("webhookUrl")?.as_str()?.into())
}

/// What happens when a device that is assigned to a hub registers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ReprovisionPolicy {
    /// Whether it can be assigned to another hub.
    pub update_hub_assignment: bool,
    /// Whether its twin moves with it. Otherwise it starts with the initial twin.
    pub migrate_device_data: bool,
}

/// Assigns the device again and keeps its data, like the service.
impl Default for ReprovisionPolicy {
    fn default() -> Self {
        Self { update_hub_assignment: true, migrate_device_data: true }
    }
}

setters!(ReprovisionPolicy { update_hub_assignment: bool, migrate_device_data: bool });

/// How devices are assigned to hubs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum AllocationPolicy {
    /// `hashed`: evenly, by the weights of the hubs.
    Hashed,
    /// `geoLatency`: to the hub with the lowest latency.
    GeoLatency,
    /// `static`: to the first hub of the list.
    Static,
    /// `custom`: by a function.
    Custom,
    /// A policy that this client does not know.
    Other(String),
}

impl AllocationPolicy {
    /// Returns the policy as the service API writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Hashed => "hashed",
            Self::GeoLatency => "geoLatency",
            Self::Static => "static",
            Self::Custom => "custom",
            Self::Other(name) => name,
        }
    }
}

/// Ignores case, because Resource Manager writes capitals and the service API does not.
impl From<String> for AllocationPolicy {
    fn from(text: String) -> Self {
        let known = [Self::Hashed, Self::GeoLatency, Self::Static, Self::Custom];
        known.into_iter().find(|policy| policy.as_str().eq_ignore_ascii_case(&text)).unwrap_or(Self::Other(text))
    }
}

impl From<AllocationPolicy> for String {
    fn from(policy: AllocationPolicy) -> Self {
        policy.as_str().to_owned()
    }
}

impl fmt::Display for AllocationPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The function that assigns devices to hubs.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CustomAllocation {
    /// Its URL, which usually contains the key of the function.
    pub webhook_url: Secret,
    /// The version of the API that it implements.
    pub api_version: String,
}

impl CustomAllocation {
    /// Returns a function that implements version 2019-03-31.
    #[must_use]
    pub fn new(webhook_url: impl Into<Secret>) -> Self {
        Self { webhook_url: webhook_url.into(), api_version: "2019-03-31".to_owned() }
    }

    /// Sets the version of the API that the function implements.
    #[must_use]
    pub fn api_version(mut self, version: impl Into<String>) -> Self {
        self.api_version = version.into();
        self
    }
}

/// The twin that a device starts with. In an update, `None` keeps the value.
///
/// The service adds metadata, which this client removes: numbers named `version` and `count`, an object `metadata` with the
/// time of the last update, and everything named `$version` and `$metadata`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(from = "WireTwin")]
#[non_exhaustive]
pub struct InitialTwin {
    /// The tags.
    pub tags: Option<Map<String, Value>>,
    /// The desired properties.
    pub desired: Option<Map<String, Value>>,
}

setters!(InitialTwin {
    tags: Option<Map<String, Value>>,
    desired: Option<Map<String, Value>>,
});

impl InitialTwin {
    /// Returns a member whose name is one of the service's metadata, if there is one. The service does not keep it.
    #[must_use]
    pub fn reserved_member(&self) -> Option<&str> {
        let mut names = self.tags.iter().chain(&self.desired).flat_map(Map::keys);
        names.find(|name| METADATA.contains(&name.as_str())).map(String::as_str)
    }

    fn apply(&self, record: &mut Record) {
        if let Some(tags) = &self.tags {
            record.insert("tags".to_owned(), tags.clone().into());
        }
        if let Some(desired) = &self.desired {
            edit_object(record, "properties", |properties| {
                properties.insert("desired".to_owned(), desired.clone().into());
            });
        }
    }
}

#[derive(Deserialize)]
struct WireTwin {
    tags: Option<Map<String, Value>>,
    properties: Option<WireProperties>,
}

#[derive(Deserialize)]
struct WireProperties {
    desired: Option<Map<String, Value>>,
}

impl From<WireTwin> for InitialTwin {
    fn from(WireTwin { tags, properties }: WireTwin) -> Self {
        Self { tags, desired: properties.and_then(|properties| properties.desired) }
    }
}
