//! Individual enrollments and enrollment groups.
//!
//! # Where the documentation is silent
//! - **IDs** are those of the documentation: at most 128 letters, digits and `- . _ :`, the last one a letter, digit or
//!   `-`. They are compared without regard to case. An enrollment keeps the spelling that it was created with.
//! - **The ID in a body** is required and must be that of the path, without regard to case (400).
//! - **Null** is an absent member, since SDKs send it. Unknown members are 400, as are those of another version.
//! - **Read-only members** and the etag of a body are ignored: the header `If-Match` decides.
//! - **Defaults** are in answers: `provisioningStatus`, `capabilities`, `reprovisionPolicy` and `allocationPolicy`
//!   (`hashed`). Members without a default are omitted if the body has none.
//! - **`iotHubs`** are kept and answered, and need not be linked: a test can have several hubs. The first is assigned.
//!   `iotHubHostName` counts as one if there is no other.
//! - **A custom allocation** needs its definition (400). The emulator does not call the webhook.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    attestation::Attestation,
    twin::{read_collection, read_initial_twin, show_collection},
};
use crate::{
    certificate::Timestamp,
    emulator::{
        api_error::ApiError,
        dps::timestamp::timestamp,
        etag::Etag,
        fields::{FieldError, Fields},
        json_text,
        random::RandomError,
        shared,
    },
};

/// The two kinds of enrollments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Individual,
    Group,
}

impl Kind {
    /// The name for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Individual => "individual enrollment",
            Self::Group => "enrollment group",
        }
    }

    /// The member with the ID.
    pub(crate) fn id_member(self) -> &'static str {
        match self {
            Self::Individual => "registrationId",
            Self::Group => "enrollmentGroupId",
        }
    }

    /// The name of the collection in paths and bodies.
    pub(crate) fn collection(self) -> &'static str {
        match self {
            Self::Individual => "enrollments",
            Self::Group => "enrollmentGroups",
        }
    }

    /// The type in answers to queries.
    pub(crate) fn item_type(self) -> &'static str {
        match self {
            Self::Individual => "enrollment",
            Self::Group => "enrollmentGroup",
        }
    }
}

/// A version of the service API. Versions with the same members are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceVersion {
    Stable,
    /// `2025-07-01-preview`: has `credentialPolicyName`.
    CredentialPolicy,
    /// 2026: has the names of a namespace, a certificate authority and a certificate policy.
    Namespace,
}

impl ServiceVersion {
    /// Returns the members that only this version has.
    fn members(self) -> &'static [&'static str] {
        match self {
            Self::Stable => &[],
            Self::CredentialPolicy => &["credentialPolicyName"],
            Self::Namespace => &["namespaceName", "certificateAuthorityName", "certificatePolicyName"],
        }
    }
}

/// An individual enrollment or an enrollment group.
#[derive(Serialize, Deserialize)]
pub(crate) struct Enrollment {
    pub(crate) id: String,
    pub(crate) attestation: Attestation,
    pub(crate) settings: Settings,
    created: Timestamp,
    updated: Timestamp,
    pub(crate) etag: Etag,
}

/// The settings of an enrollment: what decides on the registration of a device, and everything as JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) is_enabled: bool,
    pub(crate) is_for_iot_edge: bool,
    pub(crate) reprovision_policy: ReprovisionPolicy,
    /// The ID of the device at the hub, if it is not the registration ID.
    pub(crate) device_id: Option<String>,
    /// The first hub of the enrollment.
    #[serde(with = "shared::option")]
    pub(crate) hub: Option<Arc<str>>,
    #[serde(with = "json_text")]
    members: Map<String, Value>,
}

/// What happens when a device registers again and its enrollment has another hub.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ReprovisionPolicy {
    pub(crate) updates_hub: bool,
    pub(crate) migrates_data: bool,
}

impl Enrollment {
    /// Returns the JSON of GET without the registration state.
    pub(crate) fn show(&self, kind: Kind) -> Value {
        let mut shown = Value::Object(self.settings.members.clone());
        for pointer in ["/initialTwin/tags", "/initialTwin/properties/desired", "/optionalDeviceInformation"] {
            if let Some(collection) = shown.pointer_mut(pointer) {
                show_collection(collection, self.updated);
            }
        }
        shown[kind.id_member()] = json!(self.id);
        shown["attestation"] = self.attestation.show();
        shown["etag"] = json!(self.etag.quoted());
        shown["createdDateTimeUtc"] = json!(timestamp(self.created));
        shown["lastUpdatedDateTimeUtc"] = json!(timestamp(self.updated));
        shown
    }
}

/// The body of a PUT, or an element of a bulk operation.
pub(crate) struct EnrollmentBody {
    pub(crate) id: String,
    pub(crate) attestation: Attestation,
    settings: Settings,
}

impl EnrollmentBody {
    /// Reads a body. The ID in it is checked, but not compared with a path.
    pub(crate) fn read(fields: Fields, kind: Kind, version: ServiceVersion, now: Timestamp) -> Result<Self, ApiError> {
        let mut fields = fields.without_nulls();
        let id = fields.required(kind.id_member(), Fields::string)?;
        if !is_enrollment_id(&id) {
            return Err(fields.invalid(kind.id_member(), invalid_id(&id)).into());
        }
        Self::read_with_id(id, fields, kind, version, now)
    }

    /// Reads the members of a body after its ID.
    pub(crate) fn read_with_id(
        id: String,
        mut fields: Fields,
        kind: Kind,
        version: ServiceVersion,
        now: Timestamp,
    ) -> Result<Self, ApiError> {
        let attestation = fields.required("attestation", Fields::object)?;
        let attestation = Attestation::read(attestation, kind == Kind::Group, now)?;
        let settings = Settings::read(fields, kind, version)?;
        Ok(Self { id, attestation, settings })
    }

    /// Creates the enrollment, which replaces the current one.
    pub(crate) fn into_enrollment(
        self,
        current: Option<&Enrollment>,
        now: Timestamp,
    ) -> Result<Enrollment, RandomError> {
        Ok(Enrollment {
            id: current.map_or(self.id, |current| current.id.clone()),
            attestation: self.attestation,
            settings: self.settings,
            created: current.map_or(now, |current| current.created),
            updated: now,
            etag: Etag::new()?,
        })
    }
}

impl Settings {
    /// Reads all members but the ID and the attestation.
    fn read(mut fields: Fields, kind: Kind, version: ServiceVersion) -> Result<Self, FieldError> {
        for read_only in ["etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc"] {
            fields.any(read_only);
        }
        let mut members = Map::new();
        let status = fields.choice("provisioningStatus", "enabled or disabled", |text| match text {
            "enabled" => Some(true),
            "disabled" => Some(false),
            _ => None,
        })?;
        let is_enabled = status.unwrap_or(true);
        members.insert("provisioningStatus".to_owned(), json!(if is_enabled { "enabled" } else { "disabled" }));
        let is_for_iot_edge = read_capabilities(&mut fields)?;
        members.insert("capabilities".to_owned(), json!({ "iotEdge": is_for_iot_edge }));
        let reprovision_policy = ReprovisionPolicy::read(&mut fields)?;
        members.insert("reprovisionPolicy".to_owned(), reprovision_policy.show());
        let hub = read_allocation(&mut fields, &mut members)?;
        if let Some(twin) = read_initial_twin(&mut fields)? {
            members.insert("initialTwin".to_owned(), twin);
        }
        let mut device_id = None;
        if kind == Kind::Individual {
            fields.any("registrationState");
            device_id = fields.string("deviceId")?;
            if device_id.as_deref().is_some_and(|id| !is_hub_device_id(id)) {
                return Err(fields.invalid("deviceId", "it is not a valid device ID of IoT Hub"));
            }
            if let Some(id) = &device_id {
                members.insert("deviceId".to_owned(), json!(id));
            }
            if let Some(information) = read_collection(&mut fields, "optionalDeviceInformation")? {
                members.insert("optionalDeviceInformation".to_owned(), information);
            }
        }
        for name in version.members() {
            if let Some(text) = fields.string(name)? {
                members.insert((*name).to_owned(), json!(text));
            }
        }
        fields.finish()?;
        Ok(Self { is_enabled, is_for_iot_edge, reprovision_policy, device_id, hub, members })
    }
}

impl ReprovisionPolicy {
    fn read(fields: &mut Fields) -> Result<Self, FieldError> {
        let Some(policy) = fields.object("reprovisionPolicy")? else {
            return Ok(Self { updates_hub: true, migrates_data: true });
        };
        let mut policy = policy.without_nulls();
        let read = Self {
            updates_hub: policy.required("updateHubAssignment", Fields::boolean)?,
            migrates_data: policy.required("migrateDeviceData", Fields::boolean)?,
        };
        policy.finish()?;
        Ok(read)
    }

    fn show(self) -> Value {
        json!({ "updateHubAssignment": self.updates_hub, "migrateDeviceData": self.migrates_data })
    }
}

fn read_capabilities(fields: &mut Fields) -> Result<bool, FieldError> {
    let Some(mut capabilities) = fields.object("capabilities")? else { return Ok(false) };
    let is_for_iot_edge = capabilities.required("iotEdge", Fields::boolean)?;
    capabilities.finish()?;
    Ok(is_for_iot_edge)
}

/// Removes the members that decide on the hub, and returns the first hub.
fn read_allocation(fields: &mut Fields, members: &mut Map<String, Value>) -> Result<Option<Arc<str>>, FieldError> {
    let policies = ["hashed", "geoLatency", "static", "custom"];
    let policy = fields
        .choice("allocationPolicy", &policies.join(", "), |text| policies.into_iter().find(|policy| *policy == text))?;
    let policy = policy.unwrap_or("hashed");
    members.insert("allocationPolicy".to_owned(), json!(policy));
    match fields.object("customAllocationDefinition")? {
        Some(mut definition) => {
            let webhook = definition.required("webhookUrl", Fields::string)?;
            let version = definition.required("apiVersion", Fields::string)?;
            definition.finish()?;
            let definition = json!({ "webhookUrl": webhook, "apiVersion": version });
            members.insert("customAllocationDefinition".to_owned(), definition);
        }
        None if policy == "custom" => {
            return Err(fields.invalid("customAllocationDefinition", "is missing; a custom allocation needs it"));
        }
        None => {}
    }
    let hubs = fields.strings("iotHubs")?;
    let hub = fields.string("iotHubHostName")?;
    let first = hubs.as_ref().and_then(|hubs| hubs.first()).or(hub.as_ref()).map(|hub| Arc::from(hub.as_str()));
    if let Some(hubs) = hubs {
        members.insert("iotHubs".to_owned(), json!(hubs));
    }
    if let Some(hub) = hub {
        members.insert("iotHubHostName".to_owned(), json!(hub));
    }
    Ok(first)
}

/// The rule of [`is_enrollment_id`], for error messages.
pub(crate) const ENROLLMENT_ID_RULE: &str = "1 to 128 letters, digits and - . _ : with a letter, digit or - last";

/// Returns whether a text can be a registration ID or the ID of an enrollment group.
pub(crate) fn is_enrollment_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
        && text.bytes().last().is_some_and(|last| last.is_ascii_alphanumeric() || last == b'-')
}

/// Describes an ID that is against the rule.
pub(crate) fn invalid_id(id: &str) -> String {
    format!("{id:?} is not a valid ID: use {ENROLLMENT_ID_RULE}")
}

/// Returns whether a text can be the ID of a device at IoT Hub.
fn is_hub_device_id(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.%_#*?!(),:=@$'+".contains(&byte))
}
