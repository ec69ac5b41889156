//! The handlers of devices.
//!
//! # Where the documentation is silent
//! - **Null in a patch** resets the display name (to the ID) and the template, as in the API description. For every
//!   other field it is 422.
//! - **Etags** guard PUT and PATCH of a device, and with `If-Match` also GET and DELETE. The attestation and the
//!   manifest have none and do not change that of the device.
//! - **A manifest for a device that is not an IoT Edge device** is 422. The response to an assignment is 204.

use axum::{
    Extension, Router, extract,
    http::StatusCode,
    middleware::from_fn,
    response::Response,
    routing::{get as on_get, post as on_post},
};
use serde_json::Value;

use super::{
    api_version::ApiVersion,
    device_list::{ListOptions, page_of_devices},
    id::Id,
    middleware::{no_if_match, no_parameters, preview_only},
    model::{Device, DeviceBody, DeviceProperties, IOT_EDGE, ListedResource},
    page::PageRequest,
    query::Query,
};
use crate::emulator::{
    api_error::ApiError,
    body::{Json, MergePatch, json_response},
    context::SharedContext,
    fields::Fields,
    origin::Origin,
    precondition::IfMatch,
    state::State,
};

/// Returns the routes of devices, below `/api`.
pub(crate) fn routes() -> Router<SharedContext> {
    let preview = Router::new()
        .route("/devices/{id}/applyDeploymentManifest", on_post(apply_manifest))
        .route_layer(from_fn(no_parameters))
        .route_layer(from_fn(preview_only));
    let without_etag = Router::new().route("/devices", on_get(list)).merge(preview).route_layer(from_fn(no_if_match));
    Router::new()
        .route("/devices/{id}", on_get(get).put(put).patch(patch).delete(delete))
        .route_layer(from_fn(no_parameters))
        .merge(without_etag)
}

async fn list(
    extract::State(context): extract::State<SharedContext>,
    Extension(query): Extension<Query>,
    origin: Origin,
) -> Result<Response, ApiError> {
    let options = ListOptions::read(&query, ListedResource::Devices)?;
    let request = PageRequest::read(&context, &query, &origin, "/api/devices", &options.texts)?;
    let size = options.top.unwrap_or(context.page_size);
    let matches = options.filter.map(|filter| move |device: &DeviceProperties| filter.matches(device));
    let page = page_of_devices(&context, &request, options.order, size, matches, query.version()).await?;
    Ok(json_response(StatusCode::OK, &page))
}

async fn get(
    extract::State(context): extract::State<SharedContext>,
    Extension(query): Extension<Query>,
    id: Id<Device>,
    if_match: IfMatch,
) -> Result<Response, ApiError> {
    let shown = context.store.with(|state| {
        let device = state.devices.get(&id.text).ok_or_else(|| id.not_found())?;
        if_match.check(Some(&device.etag))?;
        Ok::<_, ApiError>(device.show(query.version()))
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn put(
    extract::State(context): extract::State<SharedContext>,
    Extension(query): Extension<Query>,
    id: Id<Device>,
    if_match: IfMatch,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let body = DeviceBody::read(fields, &id.text, query.version())?;
    let shown = context.store.with(|state| {
        if_match.check(state.devices.get(&id.text).map(|device| &device.etag))?;
        store(state, &id.text, body, query.version())
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn patch(
    extract::State(context): extract::State<SharedContext>,
    Extension(query): Extension<Query>,
    id: Id<Device>,
    if_match: IfMatch,
    patch: MergePatch,
) -> Result<Response, ApiError> {
    patch.check_nulls(&["displayName", "template"])?;
    let shown = context.store.with(|state| {
        let current = state.devices.get(&id.text).ok_or_else(|| id.not_found())?;
        if_match.check(Some(&current.etag))?;
        let patched = patch.apply_to(&current.show(query.version()));
        let body = DeviceBody::read(Fields::from_body(patched)?, &id.text, query.version())?;
        store(state, &id.text, body, query.version())
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

/// Creates or replaces a device and returns it as JSON.
fn store(state: &mut State, id: &str, mut body: DeviceBody, version: ApiVersion) -> Result<Value, ApiError> {
    body.apply_template(&state.device_templates);
    let device = body.into_device(id, state.devices.get(id))?;
    let shown = device.show(version);
    state.devices.insert(device);
    Ok(shown)
}

async fn delete(
    extract::State(context): extract::State<SharedContext>,
    id: Id<Device>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    context.store.with(|state| {
        if_match.check(Some(&state.devices.get(&id.text).ok_or_else(|| id.not_found())?.etag))?;
        state.devices.remove(&id.text);
        state.commands.forget(&id.text);
        Ok(StatusCode::NO_CONTENT)
    })
}

async fn apply_manifest(
    extract::State(context): extract::State<SharedContext>,
    id: Id<Device>,
    Json(mut fields): Json,
) -> Result<StatusCode, ApiError> {
    let manifest = fields.required("data", Fields::any_object)?;
    fields.finish()?;
    context.store.with(|state| {
        let device = state.devices.get_mut(&id.text).ok_or_else(|| id.not_found())?;
        if !device.properties.iot_edge {
            return Err(ApiError::invalid_body(format!(
                "the device {:?} is not an IoT Edge device; set its type to [\"{IOT_EDGE}\"] first",
                id.text
            )));
        }
        device.manifest = Some(manifest);
        Ok(StatusCode::NO_CONTENT)
    })
}
