//! The handlers of individual attestations and of device credentials.
//!
//! # Where the documentation is silent
//! - **Credentials** have the content of the attestation, with certificates as thumbprints. A device without one that
//!   registered through a symmetric-key group has keys that are derived from that group's.

use axum::{Router, extract, http::StatusCode, middleware::from_fn, response::Response, routing::get as on_get};
use serde_json::{Value, json};

use super::{
    id::Id,
    middleware::{no_if_match, no_parameters},
    model::{Device, DeviceAttestation, id_key},
};
use crate::emulator::{
    api_error::ApiError,
    body::{Json, MergePatch, json_response},
    context::SharedContext,
    credential::SymmetricKey,
    fields::Fields,
    state::State,
};

/// Returns the routes of attestations and credentials, below `/api`.
pub(crate) fn routes() -> Router<SharedContext> {
    Router::new()
        .route("/devices/{id}/attestation", on_get(get).put(put).patch(patch).delete(delete))
        .route("/devices/{id}/credentials", on_get(credentials))
        .route_layer(from_fn(no_parameters))
        .route_layer(from_fn(no_if_match))
}

fn find<'a>(id: &Id<Device>, state: &'a mut State) -> Result<&'a mut Device, ApiError> {
    state.devices.get_mut(&id.text).ok_or_else(|| id.not_found())
}

async fn credentials(
    extract::State(context): extract::State<SharedContext>,
    id: Id<Device>,
) -> Result<Response, ApiError> {
    let mut shown = context.store.with(|state| {
        let device = state.devices.get(&id.text).ok_or_else(|| id.not_found())?;
        let Some(attestation) = &device.attestation else {
            let of_group = group_key(state, &id.text).map(|key| key.derive(&id_key(&id.text)));
            let key = of_group.unwrap_or_else(|| context.device_keys.derive(&id.text));
            return Ok::<_, ApiError>(json!({ "symmetricKey": key.show() }));
        };
        Ok(json!({ attestation.name(): attestation.section() }))
    })?;
    shown["idScope"] = json!(context.id_scope);
    Ok(json_response(StatusCode::OK, &shown))
}

/// Returns the keys of the symmetric-key group that a device registered through.
fn group_key<'a>(state: &'a State, id: &str) -> Option<&'a SymmetricKey> {
    let group = state.registrations.get(&id_key(id))?.group_id()?;
    state.enrollment_groups.get(group)?.value.symmetric_key()
}

async fn get(extract::State(context): extract::State<SharedContext>, id: Id<Device>) -> Result<Response, ApiError> {
    let shown = context.store.with(|state| {
        let device = state.devices.get(&id.text).ok_or_else(|| id.not_found())?;
        device.attestation.as_deref().map(DeviceAttestation::show).ok_or_else(|| no_attestation(&id))
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn put(
    extract::State(context): extract::State<SharedContext>,
    id: Id<Device>,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let attestation = DeviceAttestation::read(fields)?;
    let shown = attestation.show();
    context.store.with(|state| {
        find(&id, state)?.attestation = Some(Box::new(attestation));
        Ok::<_, ApiError>(())
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn patch(
    extract::State(context): extract::State<SharedContext>,
    id: Id<Device>,
    patch: MergePatch,
) -> Result<Response, ApiError> {
    let shown = context.store.with(|state| {
        let device = find(&id, state)?;
        let mut document = device.attestation.as_ref().ok_or_else(|| no_attestation(&id))?.show();
        // A certificate in the patch replaces the thumbprint of the current one.
        for entry in ["primary", "secondary"] {
            let entry = format!("/x509/clientCertificates/{entry}");
            if patch.pointer(&format!("{entry}/certificate")).is_some()
                && let Some(Value::Object(shown)) = document.pointer_mut(&entry)
            {
                shown.clear();
            }
        }
        let attestation = DeviceAttestation::read(Fields::from_body(patch.apply_to(&document))?)?;
        let shown = attestation.show();
        device.attestation = Some(Box::new(attestation));
        Ok::<_, ApiError>(shown)
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn delete(
    extract::State(context): extract::State<SharedContext>,
    id: Id<Device>,
) -> Result<StatusCode, ApiError> {
    context.store.with(|state| {
        let removed = find(&id, state)?.attestation.take();
        removed.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| no_attestation(&id))
    })
}

fn no_attestation(id: &Id<Device>) -> ApiError {
    ApiError::not_found(format!("the device {:?} has no individual attestation", id.text))
}
