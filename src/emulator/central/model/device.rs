//! Devices.
//!
//! # Where the documentation is silent
//! - **The ID** is a registration ID of the Device Provisioning Service ([`DeviceId`]); another one in a path is 400.
//!   IDs are compared without regard to case. A device keeps the spelling that it was created with.
//! - **Replacing a device** (PUT on an existing one) resets every field that the body omits to the default of a new
//!   device. The attestation, the assigned manifest and `provisioned`, which have operations of their own, stay. So
//!   does the type in the version that has no types.
//! - **`id` and `provisioned` in a body** may only repeat the current values, so that the response of GET can be sent
//!   back. Other values are 422.
//! - **`provisioned`** is true once a device has registered at the Device Provisioning Service. A simulated device does
//!   not register, and the article shows it as `false`.
//! - **The template** need not exist: every ID but the empty one is accepted. An existing one of the type `EdgeModel`
//!   makes its devices IoT Edge devices. `template` and `organizations` are omitted if there are none.
//! - **The type** is shown and accepted by the preview versions only; in a body of 2022-07-31 it is an unknown field.
//!   An empty list means no type. A device that stops being an IoT Edge device loses its manifest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    device_attestation::DeviceAttestation,
    device_properties::{DeviceProperties, id_key},
    device_template::DeviceTemplate,
    document::Versioned,
    order::Order,
    organization::{check_organizations, read_organizations},
    resource::{Resource, invalid_id, read_id},
};
use crate::{
    certificate::DeviceId,
    emulator::{
        api_error::ApiError,
        central::api_version::ApiVersion,
        etag::Etag,
        fields::{FieldError, Fields},
        json_text,
        precondition::check_etag,
        random::RandomError,
    },
};

/// The only device type.
pub(crate) const IOT_EDGE: &str = "iotEdge";

/// A device.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Device {
    pub(crate) properties: DeviceProperties,
    /// The individual attestation, if any.
    pub(crate) attestation: Option<Box<DeviceAttestation>>,
    /// The deployment manifest that was assigned last.
    #[serde(with = "json_text")]
    pub(crate) manifest: Option<Value>,
    pub(crate) etag: Etag,
}

impl Resource for Device {
    const NAME: &'static str = "device";
    const ID_RULE: &'static str =
        "1 to 128 letters, digits and - . _ : with a letter or digit first and a letter, digit or - last";

    fn is_id(text: &str) -> bool {
        DeviceId::new(text).is_ok()
    }

    fn is_same_id(one: &str, other: &str) -> bool {
        one.eq_ignore_ascii_case(other)
    }
}

impl Device {
    /// Creates a device that was added by the program that runs the emulator, or describes the problem.
    pub(crate) fn from_properties(properties: DeviceProperties) -> Result<Self, String> {
        if !Self::is_id(&properties.id) {
            return Err(invalid_id::<Self>(&properties.id));
        }
        if properties.template.as_ref().is_some_and(String::is_empty) {
            return Err(format!("the template of {:?} is empty", properties.id));
        }
        check_organizations(&properties.organizations)?;
        let etag = Etag::new().map_err(|error| error.to_string())?;
        Ok(Self { properties, attestation: None, manifest: None, etag })
    }

    /// Creates a device that registered at the Device Provisioning Service and was unknown before.
    pub(crate) fn new_provisioned(
        id: &str,
        template: Option<String>,
        is_for_iot_edge: bool,
    ) -> Result<Self, RandomError> {
        let mut properties = DeviceProperties::new(id).provisioned(true).iot_edge(is_for_iot_edge);
        properties.template = template;
        Ok(Self { properties, attestation: None, manifest: None, etag: Etag::new()? })
    }

    /// Marks a device as provisioned. The template is for a device that has none.
    pub(crate) fn provision(&mut self, template: Option<String>) -> Result<(), RandomError> {
        let template = template.filter(|_| self.properties.template.is_none());
        if self.properties.provisioned && template.is_none() {
            return Ok(());
        }
        self.etag = Etag::new()?;
        self.properties.provisioned = true;
        self.properties.template = template.or(self.properties.template.take());
        Ok(())
    }

    /// Returns whether the device counts as connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.properties.enabled && (self.properties.provisioned || self.properties.simulated)
    }

    /// Returns the sort key in an order.
    pub(crate) fn sort_key(&self, order: Order) -> Vec<String> {
        order.key(&self.properties.display_name, &id_key(&self.properties.id))
    }

    /// Returns the device as JSON.
    pub(crate) fn show(&self, version: ApiVersion) -> Value {
        let properties = &self.properties;
        let mut shown = json!({
            "id": properties.id,
            "etag": self.etag.encoded(),
            "displayName": properties.display_name,
            "simulated": properties.simulated,
            "provisioned": properties.provisioned,
            "enabled": properties.enabled,
        });
        if let Some(template) = &properties.template {
            shown["template"] = json!(template);
        }
        if !properties.organizations.is_empty() {
            shown["organizations"] = json!(properties.organizations);
        }
        if properties.iot_edge && version.has_device_types() {
            shown["type"] = json!([IOT_EDGE]);
        }
        shown
    }
}

/// The body of a PUT, or the result of a patch.
pub(crate) struct DeviceBody {
    display_name: Option<String>,
    template: Option<String>,
    enabled: bool,
    provisioned: Option<bool>,
    simulated: bool,
    organizations: Vec<String>,
    /// `None` in the version without types, if the template does not decide.
    iot_edge: Option<bool>,
    etag: Option<String>,
}

impl DeviceBody {
    pub(crate) fn read(mut fields: Fields, id: &str, version: ApiVersion) -> Result<Self, FieldError> {
        read_id::<Device>(&mut fields, id)?;
        let body = Self {
            display_name: fields.string("displayName")?,
            template: fields.string("template")?,
            enabled: fields.boolean("enabled")?.unwrap_or(true),
            provisioned: fields.boolean("provisioned")?,
            simulated: fields.boolean("simulated")?.unwrap_or(false),
            organizations: read_organizations(&mut fields)?,
            iot_edge: if version.has_device_types() { Some(read_type(&mut fields)?) } else { None },
            etag: fields.string("etag")?,
        };
        if body.template.as_ref().is_some_and(String::is_empty) {
            return Err(fields.invalid("template", "it is empty; omit it for a device without a template"));
        }
        fields.finish()?;
        Ok(body)
    }

    /// Makes the device an IoT Edge device if its template says so.
    pub(crate) fn apply_template(&mut self, templates: &BTreeMap<String, Versioned<DeviceTemplate>>) {
        let template = self.template.as_ref().and_then(|id| templates.get(id));
        if template.is_some_and(|template| template.value.is_for_iot_edge()) {
            self.iot_edge = Some(true);
        }
    }

    /// Creates the device that replaces the current one.
    pub(crate) fn into_device(self, id: &str, current: Option<&Device>) -> Result<Device, ApiError> {
        check_etag(self.etag.as_deref(), current.map(|device| &device.etag))?;
        let provisioned = current.is_some_and(|device| device.properties.provisioned);
        if self.provisioned.is_some_and(|given| given != provisioned) {
            return Err(FieldError::new("provisioned", format_args!("it is {provisioned} and cannot be set")).into());
        }
        let iot_edge = self.iot_edge.unwrap_or_else(|| current.is_some_and(|device| device.properties.iot_edge));
        let id = current.map_or(id, |device| &device.properties.id);
        Ok(Device {
            properties: DeviceProperties {
                display_name: self.display_name.unwrap_or_else(|| id.to_owned()),
                id: id.to_owned(),
                template: self.template,
                enabled: self.enabled,
                provisioned,
                simulated: self.simulated,
                organizations: self.organizations,
                iot_edge,
            },
            attestation: current.and_then(|device| device.attestation.clone()),
            manifest: current.filter(|_| iot_edge).and_then(|device| device.manifest.clone()),
            etag: Etag::new()?,
        })
    }
}

/// Removes the field `type` and returns whether it is that of an IoT Edge device.
fn read_type(fields: &mut Fields) -> Result<bool, FieldError> {
    let types = fields.strings("type")?.unwrap_or_default();
    match types.as_slice() {
        [] => Ok(false),
        [only] if only == IOT_EDGE => Ok(true),
        _ => Err(fields.invalid("type", format_args!("expected [\"{IOT_EDGE}\"] or [], found {types:?}"))),
    }
}
