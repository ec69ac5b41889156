//! `If-Match`, by which a change is made only to the version that the client knows.
//!
//! # Where the documentation is silent
//! The service's etags travel in bodies and no header is described. A client that sends `If-Match` all the same gets 412
//! when it does not hold. An etag in the body is compared as well.
//!
//! - It is read as RFC 9110 section 13.1.1 has it: `*`, or etags with commas between them. The quotes around an etag may be
//!   left out, since the etags in bodies have none. A weak one, `W/"…"`, matches nothing.
//! - GET, PUT, PATCH and DELETE of a thing with an etag honour it. Everywhere else it is refused (400).

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, header, request::Parts},
};

use super::{error::ApiError, store::Etag};

/// The `If-Match` header of a request; without one, everything matches.
pub(super) struct IfMatch(Option<Vec<String>>);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let unreadable = || ApiError::bad_request("the header If-Match is neither * nor a list of etags");
        let mut etags = Vec::new();
        for value in parts.headers.get_all(header::IF_MATCH) {
            let value = value.to_str().map_err(|_| unreadable())?;
            etags.extend(value.split(',').map(|etag| etag.trim().to_owned()).filter(|etag| !etag.is_empty()));
        }
        if etags.is_empty() && parts.headers.contains_key(header::IF_MATCH) {
            return Err(unreadable());
        }
        Ok(Self(Some(etags).filter(|etags| !etags.is_empty())))
    }
}

impl IfMatch {
    /// Compares it with the etag of the thing that the path names; `None` where it does not exist.
    pub(super) fn check(&self, current: Option<&Etag>) -> Result<(), ApiError> {
        let Some(given) = &self.0 else { return Ok(()) };
        let Some(current) = current else {
            return Err(failed("there is nothing here yet"));
        };
        let matches = |given: &String| {
            let unquoted = given.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(given);
            given == "*" || unquoted == current.as_str()
        };
        if given.iter().any(matches) { Ok(()) } else { Err(failed("it has changed since; get it again")) }
    }
}

fn failed(why: &str) -> ApiError {
    ApiError::new(StatusCode::PRECONDITION_FAILED, format!("the header If-Match does not hold: {why}"))
}
