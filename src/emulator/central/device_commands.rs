//! The handlers of device commands.
//!
//! # Where the documentation is silent
//! - **The device** must be enabled, and provisioned or simulated: 404 otherwise, as IoT Hub answers a call of a method
//!   of a device that is not connected. Such a device counts as connected, and answers every command at once with the
//!   status 200 and without a payload. Nothing waits for `connectionTimeout`.
//! - **Components and commands** are not looked up in the template: every device has all.
//! - **The history** has the most recent run, which the Azure CLI documents, or nothing. It does not need a connection.
//! - **The status** of a run is 201, as in the descriptions of versions 1.1-preview and 1.2-preview.
//! - **`id`, `response` and `responseCode`**, which are read-only, are unknown fields of a request.
//! - **Commands of modules** do not exist (404).

use axum::{
    Router,
    extract::{self, FromRequestParts},
    http::{StatusCode, request::Parts},
    middleware::from_fn,
    response::Response,
    routing::get,
};
use serde_json::{Value, json};

use super::{
    id::Id,
    middleware::{no_if_match, no_parameters},
    model::{CommandKey, Device, DeviceCommand},
};
use crate::emulator::{
    api_error::ApiError,
    body::{Json, json_response},
    context::SharedContext,
    path::path_parameter,
};

/// Returns the routes of commands, below `/api`.
pub(crate) fn routes() -> Router<SharedContext> {
    let methods = || get(history).post(run);
    Router::new()
        .route("/devices/{id}/commands/{command}", methods())
        .route("/devices/{id}/components/{component}/commands/{command}", methods())
        .route_layer(from_fn(no_parameters))
        .route_layer(from_fn(no_if_match))
}

async fn run(
    extract::State(context): extract::State<SharedContext>,
    id: Id<Device>,
    CommandInPath(key): CommandInPath,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let command = DeviceCommand::read(fields)?.into_command()?;
    let shown = command.show();
    context.store.with(|state| {
        let device = state.devices.get(&id.text).ok_or_else(|| id.not_found())?;
        if !device.is_connected() {
            return Err(ApiError::not_found(format!("the device {:?} is not connected", id.text)));
        }
        state.commands.record(&id.text, key, command);
        Ok(())
    })?;
    Ok(json_response(StatusCode::CREATED, &shown))
}

async fn history(
    extract::State(context): extract::State<SharedContext>,
    id: Id<Device>,
    CommandInPath(key): CommandInPath,
) -> Result<Response, ApiError> {
    let last: Option<Value> = context.store.with(|state| {
        state.devices.get(&id.text).ok_or_else(|| id.not_found())?;
        Ok::<_, ApiError>(state.commands.last(&id.text, &key).map(DeviceCommand::show))
    })?;
    Ok(json_response(StatusCode::OK, &json!({ "value": last.into_iter().collect::<Vec<_>>() })))
}

/// The component and the command of a path.
struct CommandInPath(CommandKey);

impl<S: Sync> FromRequestParts<S> for CommandInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let component = path_parameter(parts, "component").await.ok();
        Ok(Self((component, path_parameter(parts, "command").await?)))
    }
}
