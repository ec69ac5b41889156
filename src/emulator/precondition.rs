//! Preconditions: a change applies only to the version of a resource that the client knows.
//!
//! # Where the documentation is silent
//! The service's etags are in bodies, and no header is documented. The emulator also accepts `If-Match`:
//!
//! - Its syntax is that of RFC 9110 section 13.1.1: `*`, or a comma-separated list of etags. The quotes around an etag
//!   are optional, since the etags in bodies have none. A weak etag, `W/"…"`, matches nothing.
//! - GET, PUT, PATCH and DELETE of a resource with an etag honor it. Other requests with it are errors (400).

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};

use super::{api_error::ApiError, etag::Etag};

/// Compares the etag in a body with the current one. A body without an etag matches everything.
///
/// Choice: an etag for a resource that does not exist does not match.
pub(super) fn check_etag(given: Option<&str>, current: Option<&Etag>) -> Result<(), ApiError> {
    let Some(given) = given else { return Ok(()) };
    if current.is_some_and(|current| current.encoded() == given) {
        return Ok(());
    }
    let problem = match current {
        Some(_) => "the resource has changed; get it again and repeat the change",
        None => "the resource does not exist; omit the etag to create it",
    };
    Err(ApiError::precondition_failed(format!("the etag {given:?} does not match: {problem}")))
}

/// The `If-Match` header of a request. A request without it, the default, matches everything.
#[derive(Default)]
pub(super) struct IfMatch(Option<Vec<String>>);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let invalid = || ApiError::bad_request("the header If-Match is neither * nor a list of etags");
        let mut etags = Vec::new();
        for value in parts.headers.get_all(header::IF_MATCH) {
            let value = value.to_str().map_err(|_| invalid())?;
            etags.extend(value.split(',').map(|etag| etag.trim().to_owned()).filter(|etag| !etag.is_empty()));
        }
        if etags.is_empty() && parts.headers.contains_key(header::IF_MATCH) {
            return Err(invalid());
        }
        Ok(Self(Some(etags).filter(|etags| !etags.is_empty())))
    }
}

impl IfMatch {
    /// Returns whether the request has the header.
    pub(super) fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// Compares the header with the current etag of IoT Central, which is `None` if the resource does not exist.
    pub(super) fn check(&self, current: Option<&Etag>) -> Result<(), ApiError> {
        match (&self.0, current) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(mismatch("the resource does not exist")),
            (Some(given), Some(current)) => check_any(given.iter().map(|given| unquote(given)), &current.encoded()),
        }
    }

    /// Compares the header with the current etag of Resource Manager.
    ///
    /// Choice: `*` and quotes around the etag are accepted, as RFC 9110 has them.
    pub(super) fn check_row_version(&self, current: Etag) -> Result<(), ApiError> {
        let Some(given) = &self.0 else { return Ok(()) };
        check_any(given.iter().map(|given| unquote(given)), &current.row_version())
    }

    /// Compares the header with the current etag of the service API of DPS, whose quotes belong to the etag. An etag
    /// without quotes, or with more, is invalid (400).
    pub(super) fn check_quoted(&self, current: Etag) -> Result<(), ApiError> {
        let Some(given) = &self.0 else { return Ok(()) };
        let is_quoted = |text: &str| unquote(text) != text && !unquote(text).contains('"');
        if given.iter().any(|given| given != "*" && !is_quoted(given)) {
            return Err(ApiError::bad_request(
                "the etag in the header If-Match is invalid: send it as it is in the body",
            ));
        }
        check_any(given.iter().map(String::as_str), &current.quoted())
    }
}

fn check_any<'a>(mut given: impl Iterator<Item = &'a str>, current: &str) -> Result<(), ApiError> {
    if given.any(|given| given == "*" || given == current) {
        Ok(())
    } else {
        Err(mismatch("the resource has changed; get it again"))
    }
}

fn unquote(etag: &str) -> &str {
    etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(etag)
}

fn mismatch(problem: &str) -> ApiError {
    ApiError::precondition_failed(format!("the header If-Match does not match: {problem}"))
}
