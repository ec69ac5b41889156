//! The checks of the IoT Central API before its handlers run.

use axum::{
    Extension,
    extract::{OriginalUri, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    api_version::ApiVersion,
    query::{API_VERSION, Query},
};
use crate::emulator::{api_error::ApiError, context::SharedContext};

/// Checks authorization, rate and query of every request to the API.
///
/// Choice: throttling counts every authorized request, valid or not.
pub(crate) async fn check(State(context): State<SharedContext>, mut request: Request, next: Next) -> Response {
    let checked = authorize(request.headers(), &context.token)
        .and_then(|()| context.rate.check())
        .and_then(|()| Query::parse(request.uri().query().unwrap_or_default()));
    match checked {
        Ok(query) => {
            request.extensions_mut().insert(query);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Checks the `Authorization` header.
///
/// Choice: the whole header is compared byte by byte. The token's own expiry (`se`) is ignored.
pub(crate) fn authorize(headers: &HeaderMap, token: &str) -> Result<(), ApiError> {
    let unauthorized = |message| Err(ApiError::new(StatusCode::UNAUTHORIZED, message));
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    match (all.next(), all.next()) {
        (None, _) => unauthorized("the Authorization header is missing; send the API token in it, unchanged"),
        (Some(_), Some(_)) => unauthorized("there are several Authorization headers; send one"),
        (Some(found), None) => aws_lc_rs::constant_time::verify_slices_are_equal(found.as_bytes(), token.as_bytes())
            .or_else(|_| unauthorized("the Authorization header is not the API token of this application")),
    }
}

/// Refuses all query parameters but the version.
pub(crate) async fn no_parameters(Extension(query): Extension<Query>, request: Request, next: Next) -> Response {
    match query.allow_only(&[]) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Hides routes from all versions but `2022-10-31-preview`.
pub(crate) async fn preview_only(
    Extension(query): Extension<Query>,
    OriginalUri(uri): OriginalUri,
    request: Request,
    next: Next,
) -> Response {
    if query.version() == ApiVersion::Preview {
        return next.run(request).await;
    }
    let message = format!(
        "the path {} does not exist in version {}; use {API_VERSION}={}",
        uri.path(),
        query.version().as_str(),
        ApiVersion::Preview.as_str()
    );
    ApiError::not_found(message).into_response()
}

/// Refuses `If-Match` on resources without an etag.
///
/// Choice: it is an error (400). A client that sends it relies on a refusal if something changed, and would never get
/// one.
pub(crate) async fn no_if_match(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::IF_MATCH) {
        return ApiError::bad_request("the header If-Match is not supported on this path: the resource has no etag")
            .into_response();
    }
    next.run(request).await
}
