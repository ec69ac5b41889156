//! Device templates, the models of devices.
//!
//! # Where the documentation is silent
//! - **The ID** is that of the path. `@id` in a body is not compared: the vendor's own tests send another one, and the
//!   published example responds with another one. No pattern is published; accepted are 1 to 2048 letters, digits and
//!   `: ; . _ -`, of which DTMIs and the older URNs consist.
//! - **Required** are `@type`, a list of strings, and `capabilityModel`, an object, as in the API description. A
//!   template without a display name is shown without one.
//! - **The model** and `@context` are shown as they were sent. DTDL is not checked, and no types are added to it.
//! - **`deploymentManifest`** is accepted and shown in every version.
//! - **A template in use by devices** cannot be deleted (409); the Azure CLI documents this of the service.
//! - **The list** has the parameters of the list of devices, since the articles send them. The filter can test
//!   `displayName` only.
//! - **Null in a patch** removes the display name, description, context or manifest, or a member of the model.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    device_properties::DeviceProperties,
    document::Document,
    resource::{Resource, consists_of},
};
use crate::emulator::{api_error::ApiError, etag::Etag, fields::Fields, json_text};

/// The type of the templates of IoT Edge devices.
const EDGE_MODEL: &str = "EdgeModel";

/// A device template.
#[derive(Serialize, Deserialize)]
pub(crate) struct DeviceTemplate {
    types: Vec<String>,
    #[serde(with = "json_text")]
    capability_model: Value,
    display_name: Option<String>,
    description: Option<String>,
    #[serde(with = "json_text")]
    context: Option<Value>,
    #[serde(with = "json_text")]
    deployment_manifest: Option<Value>,
}

impl DeviceTemplate {
    /// Returns whether devices with this template are IoT Edge devices.
    pub(crate) fn is_for_iot_edge(&self) -> bool {
        self.types.iter().any(|one| one == EDGE_MODEL)
    }

    /// Returns the properties that a filter can test.
    pub(crate) fn filter_properties(&self) -> DeviceProperties {
        DeviceProperties::new("").display_name(self.display_name.clone().unwrap_or_default())
    }
}

impl Resource for DeviceTemplate {
    const NAME: &'static str = "device template";
    const ID_RULE: &'static str = "1 to 2048 letters, digits and : ; . _ -";

    fn is_id(text: &str) -> bool {
        consists_of(text, 2048, |byte| byte.is_ascii_alphanumeric() || b":;._-".contains(&byte))
    }
}

impl Document for DeviceTemplate {
    const COLLECTION: &'static str = "deviceTemplates";
    const NULLABLE: Option<&'static [&'static str]> =
        Some(&["displayName", "description", "@context", "deploymentManifest"]);

    type Body = Self;

    fn read(fields: &mut Fields, _: &str) -> Result<Self, ApiError> {
        fields.string("@id")?;
        Ok(Self {
            types: fields.required("@type", Fields::strings)?,
            capability_model: fields.required("capabilityModel", Fields::any_object)?,
            display_name: fields.string("displayName")?,
            description: fields.string("description")?,
            context: fields.any("@context"),
            deployment_manifest: fields.any_object("deploymentManifest")?,
        })
    }

    fn from_body(body: Self, _: Option<&Self>) -> Result<Self, ApiError> {
        Ok(body)
    }

    fn show(&self, id: &str, etag: &Etag) -> Value {
        let mut shown = json!({
            "@id": id,
            "@type": self.types,
            "capabilityModel": self.capability_model,
            "etag": etag.encoded(),
        });
        let optional = [
            ("displayName", self.display_name.as_ref().map(|name| json!(name))),
            ("description", self.description.as_ref().map(|text| json!(text))),
            ("@context", self.context.clone()),
            ("deploymentManifest", self.deployment_manifest.clone()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                shown[name] = value;
            }
        }
        shown
    }
}
