//! Deployment manifests, which tell IoT Edge devices what to run: model and rules.
//!
//! # Where the documentation is silent
//! - **Only version `2022-10-31-preview`** has these routes; in the others they do not exist (404).
//! - **The id** has 1 to 255 letters, digits, hyphens and underscores, as that of a device group.
//! - **`data`** is any JSON object; what is in it is between IoT Edge and the device.
//! - **What was assigned to devices** stays with them when the manifest is replaced or deleted.
//! - **Null in a patch** takes organizations away; in `data` it takes the member away that it stands for.

use std::collections::BTreeMap;

use axum::{Router, middleware};
use serde_json::{Value, json};

use super::{
    application::Shared,
    document::{self, Document},
    error::ApiError,
    gate,
    id::{Id, NAME_RULE, Resource, is_name},
    json::Fields,
    organizations,
    store::{Etag, State as Everything},
};

/// The routes of the resource, below `/api`.
pub(super) fn routes() -> Router<Shared> {
    document::routes::<DeploymentManifest>().route_layer(middleware::from_fn(gate::preview_only))
}

/// A deployment manifest as it is kept.
pub(super) struct DeploymentManifest {
    id: String,
    content: Content,
    etag: Etag,
}

/// What a body says of a manifest.
pub(super) struct Content {
    display_name: String,
    data: Value,
    organizations: Vec<String>,
}

impl Resource for DeploymentManifest {
    const NAME: &'static str = "deployment manifest";
    const ID_RULE: &'static str = NAME_RULE;

    fn is_id(text: &str) -> bool {
        is_name(text)
    }

    fn find<'a>(state: &'a mut Everything, id: &str) -> Option<&'a mut Self> {
        state.deployment_manifests.get_mut(id)
    }
}

impl Document for DeploymentManifest {
    const COLLECTION: &'static str = "deploymentManifests";
    const NULLABLE: &'static [&'static str] = &["organizations"];

    type Content = Content;

    fn read(fields: &mut Fields, id: &Id<Self>) -> Result<Content, ApiError> {
        document::read_id(fields, id)?;
        Ok(Content {
            display_name: fields.required("displayName", Fields::string)?,
            data: fields.required("data", Fields::any_object)?,
            organizations: organizations::read(fields)?,
        })
    }

    fn new(id: String, content: Content, etag: Etag) -> Self {
        Self { id, content, etag }
    }

    fn all(state: &mut Everything) -> &mut BTreeMap<String, Self> {
        &mut state.deployment_manifests
    }

    fn etag(&self) -> &Etag {
        &self.etag
    }

    fn show(&self) -> Value {
        let content = &self.content;
        let mut shown = json!({
            "id": self.id,
            "displayName": content.display_name,
            "data": content.data,
            "etag": self.etag.as_str(),
        });
        if !content.organizations.is_empty() {
            shown["organizations"] = json!(content.organizations);
        }
        shown
    }
}
