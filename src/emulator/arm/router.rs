//! The routes of Resource Manager and the checks before its handlers run.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};

use super::{certificates, instance, keys, version::ArmVersion};
use crate::emulator::{
    api_error::ApiError,
    body::MAX_READ,
    context::{Context, SharedContext},
    path::unknown_method,
};

/// Returns the routes of Resource Manager.
pub(crate) fn router(context: &SharedContext) -> Router<SharedContext> {
    instance::routes()
        .merge(certificates::routes())
        .merge(keys::routes())
        .route_layer(from_fn(check_version))
        .merge(instance::subscription_routes())
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(MAX_READ))
        .layer(from_fn_with_state(Arc::clone(context), check))
}

/// Checks the bearer token.
pub(crate) fn authorize(headers: &HeaderMap, context: &Context) -> Result<(), ApiError> {
    let unauthorized = |message: &str| ApiError::new(StatusCode::UNAUTHORIZED, message);
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let token = match (all.next(), all.next()) {
        (Some(given), None) => given.to_str().unwrap_or_default().strip_prefix("Bearer "),
        _ => return Err(unauthorized("send one Authorization header, with a bearer token")),
    };
    let is_right = token.is_some_and(|token| {
        aws_lc_rs::constant_time::verify_slices_are_equal(token.as_bytes(), context.arm_token.as_bytes()).is_ok()
    });
    if is_right { Ok(()) } else { Err(unauthorized("the bearer token is not that of the emulator")) }
}

/// Checks authentication and rate of every request.
async fn check(State(context): State<SharedContext>, request: Request, next: Next) -> Response {
    match authorize(request.headers(), &context).and_then(|()| context.arm_rate.check()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Checks the version of a request to the resource provider.
async fn check_version(mut request: Request, next: Next) -> Response {
    match ArmVersion::parse(request.uri().query().unwrap_or_default()) {
        Ok(version) => {
            request.extensions_mut().insert(version);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}
