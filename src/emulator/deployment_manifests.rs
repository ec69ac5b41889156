//! Deployment manifests, which tell IoT Edge devices what to run: model, rules, calls.
//!
//! # Where the documentation is silent
//! - **The version that is no preview** does not have these routes (404).
//! - **The id** has 1 to 255 letters, digits, hyphens and underscores, as that of a device group.
//! - **`data`** is any JSON object; what is in it is between IoT Edge and the device.
//! - **Replacing a manifest** replaces all of it. What was assigned to devices before stays with them.
//! - **Null in a patch** takes organizations away; in `data` it takes the member away that it stands for.

use axum::{
    Extension, Router, extract::State, http::StatusCode, middleware, response::Response, routing::get as on_get,
};
use serde_json::{Value, json};

use super::{
    application::Shared,
    error::ApiError,
    gate::{self, Origin, Query},
    id::{Id, NAME_RULE, Resource, is_name},
    json::{self, AnyPatch, Fields, Json},
    organizations,
    page::{self, PageRequest},
    store::{Etag, State as Everything, check_etag},
};

/// The routes of the resource, below `/api`.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/deploymentManifests/{id}", on_get(get).put(put).patch(patch).delete(delete))
        .route_layer(middleware::from_fn(gate::no_parameters))
        .route("/deploymentManifests", on_get(list))
        .route_layer(middleware::from_fn(gate::preview_only))
}

/// A deployment manifest as it is kept.
pub(super) struct DeploymentManifest {
    id: String,
    display_name: String,
    data: Value,
    organizations: Vec<String>,
    etag: Etag,
}

// The calls

async fn list(
    State(application): State<Shared>,
    Extension(query): Extension<Query>,
    Extension(origin): Extension<Origin>,
) -> Result<Response, ApiError> {
    query.only(page::PARAMETERS)?;
    let page = PageRequest::read(&application, &query, &origin, "/api/deploymentManifests", &[])?;
    let page = application.store.with(|state| page.of_ids(&state.deployment_manifests, DeploymentManifest::show));
    Ok(json::answer(StatusCode::OK, &page))
}

async fn get(State(application): State<Shared>, id: Id<DeploymentManifest>) -> Result<Response, ApiError> {
    let shown = application.store.with(|state| id.find(state).map(|manifest| manifest.show()))?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn put(
    State(application): State<Shared>,
    id: Id<DeploymentManifest>,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let body = ManifestBody::read(fields)?;
    let shown = application.store.with(|state| {
        let manifest = body.into_manifest(&id, state.deployment_manifests.get(&id.text))?;
        let shown = manifest.show();
        state.deployment_manifests.insert(id.text, manifest);
        Ok::<_, ApiError>(shown)
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn patch(
    State(application): State<Shared>,
    id: Id<DeploymentManifest>,
    AnyPatch(patch): AnyPatch,
) -> Result<Response, ApiError> {
    patch.only_nullable(&["organizations"])?;
    let shown = application.store.with(|state| {
        let current = id.find(state)?;
        let body = ManifestBody::read(Fields::of_body(patch.apply_to(&current.show()))?)?;
        *current = body.into_manifest(&id, Some(current))?;
        Ok::<_, ApiError>(current.show())
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn delete(State(application): State<Shared>, id: Id<DeploymentManifest>) -> Result<StatusCode, ApiError> {
    let removed = application.store.with(|state| state.deployment_manifests.remove(&id.text));
    removed.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| id.not_found())
}

// The model

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

impl DeploymentManifest {
    fn show(&self) -> Value {
        let mut shown = json!({
            "id": self.id,
            "displayName": self.display_name,
            "data": self.data,
            "etag": self.etag.as_str(),
        });
        if !self.organizations.is_empty() {
            shown["organizations"] = json!(self.organizations);
        }
        shown
    }
}

struct ManifestBody {
    id: Option<String>,
    display_name: String,
    data: Value,
    organizations: Vec<String>,
    etag: Option<String>,
}

impl ManifestBody {
    fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let body = Self {
            id: fields.string("id")?,
            display_name: fields.required("displayName", Fields::string)?,
            data: fields.required("data", Fields::any_object)?,
            organizations: organizations::read(&mut fields)?,
            etag: fields.string("etag")?,
        };
        fields.finish()?;
        Ok(body)
    }

    /// The manifest it describes, in place of the current one.
    fn into_manifest(
        self,
        id: &Id<DeploymentManifest>,
        current: Option<&DeploymentManifest>,
    ) -> Result<DeploymentManifest, ApiError> {
        check_etag(self.etag.as_deref(), current.map(|manifest| &manifest.etag))?;
        id.check_body(self.id.as_deref())?;
        Ok(DeploymentManifest {
            id: id.text.clone(),
            display_name: self.display_name,
            data: self.data,
            organizations: self.organizations,
            etag: Etag::new()?,
        })
    }
}
