//! The routes of the IoT Central API, below `/api`.

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, middleware::from_fn, middleware::from_fn_with_state};

use super::{
    device_attestation, device_commands, device_groups, device_templates, devices, documents, enrollment_groups,
    middleware::{check, preview_only},
    model::{DeploymentManifest, Organization},
};
use crate::emulator::{
    body::MAX_READ,
    context::SharedContext,
    path::{unknown_method, unknown_path},
};

/// Returns the routes of all resources.
pub(crate) fn router(context: &SharedContext) -> Router<SharedContext> {
    enrollment_groups::routes()
        .merge(devices::routes())
        .merge(device_attestation::routes())
        .merge(device_commands::routes())
        .merge(device_groups::routes())
        .merge(device_templates::routes())
        .merge(documents::routes::<DeploymentManifest>().route_layer(from_fn(preview_only)))
        .merge(documents::routes::<Organization>())
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(MAX_READ))
        .layer(from_fn_with_state(Arc::clone(context), check))
}
