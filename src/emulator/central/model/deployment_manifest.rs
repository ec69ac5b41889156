//! Deployment manifests, which tell IoT Edge devices what to run.
//!
//! # Where the documentation is silent
//! - **Versions**: only `2022-10-31-preview` has these routes. They do not exist in the others (404).
//! - **The ID** has 1 to 255 letters, digits, hyphens and underscores, like that of a device group.
//! - **`data`** is any JSON object. Its content is not checked.
//! - **Assigned manifests** stay with their devices when the manifest is replaced or deleted.
//! - **Null in a patch** removes organizations, or a member of `data`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    document::Document,
    organization::read_organizations,
    resource::{self, NAME_RULE, Resource, is_name},
};
use crate::emulator::{api_error::ApiError, etag::Etag, fields::Fields, json_text};

/// A deployment manifest.
#[derive(Serialize, Deserialize)]
pub(crate) struct DeploymentManifest {
    display_name: String,
    #[serde(with = "json_text")]
    data: Value,
    organizations: Vec<String>,
}

impl Resource for DeploymentManifest {
    const NAME: &'static str = "deployment manifest";
    const ID_RULE: &'static str = NAME_RULE;

    fn is_id(text: &str) -> bool {
        is_name(text)
    }
}

impl Document for DeploymentManifest {
    const COLLECTION: &'static str = "deploymentManifests";
    const NULLABLE: Option<&'static [&'static str]> = Some(&["organizations"]);

    type Body = Self;

    fn read(fields: &mut Fields, id: &str) -> Result<Self, ApiError> {
        resource::read_id::<Self>(fields, id)?;
        Ok(Self {
            display_name: fields.required("displayName", Fields::string)?,
            data: fields.required("data", Fields::any_object)?,
            organizations: read_organizations(fields)?,
        })
    }

    fn from_body(body: Self, _: Option<&Self>) -> Result<Self, ApiError> {
        Ok(body)
    }

    fn show(&self, id: &str, etag: &Etag) -> Value {
        let mut shown = json!({
            "id": id,
            "displayName": self.display_name,
            "data": self.data,
            "etag": etag.encoded(),
        });
        if !self.organizations.is_empty() {
            shown["organizations"] = json!(self.organizations);
        }
        shown
    }
}
