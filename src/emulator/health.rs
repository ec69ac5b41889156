//! `GET /health`: tells that the emulator serves, without a token.

use axum::{Router, http::StatusCode, response::Response, routing::get};
use serde_json::json;

use super::{body::json_response, context::SharedContext, path::unknown_method};

/// Returns the route of the health check.
pub(super) fn routes() -> Router<SharedContext> {
    Router::new().route("/health", get(health)).method_not_allowed_fallback(unknown_method)
}

async fn health() -> Response {
    json_response(StatusCode::OK, &json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}
