//! The paths of requests: parameters, and paths without a route.

use axum::{
    extract::{FromRequestParts, OriginalUri, RawPathParams, Request},
    http::{StatusCode, request::Parts},
};

use super::api_error::ApiError;

/// Returns a parameter of the path, percent-decoded.
pub(super) async fn path_parameter(parts: &mut Parts, name: &str) -> Result<String, ApiError> {
    let parameters = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|_| ApiError::bad_request("the percent-decoded path is not UTF-8"))?;
    let found = parameters.iter().find(|(found, _)| *found == name);
    // The route declares every parameter that its handlers use.
    found.map(|(_, value)| value.to_owned()).ok_or_else(|| ApiError::not_found("the path does not exist"))
}

/// Responds to a path without a route.
pub(super) async fn unknown_path(OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::not_found(format!("the path {} does not exist", uri.path()))
}

/// Responds to a method that the route does not have.
pub(super) async fn unknown_method(request: Request) -> ApiError {
    let message = format!("the method {} is not supported on this path", request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
