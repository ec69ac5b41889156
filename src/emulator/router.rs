//! The routes of all emulated services, which share one port.

use axum::Router;

use super::{admin, arm, central, context::SharedContext, dps, health, path::unknown_path};

/// Returns the routes of all services.
pub(super) fn router(context: &SharedContext) -> Router {
    Router::new()
        .nest("/api", central::router(context))
        .merge(arm::router(context))
        .merge(dps::device_router())
        .merge(dps::service_router(context))
        .merge(health::routes())
        .nest("/__admin", admin::router(context))
        .fallback(unknown_path)
        .with_state(SharedContext::clone(context))
}
