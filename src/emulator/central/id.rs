//! The IDs of resources in paths.

use std::marker::PhantomData;

use axum::{extract::FromRequestParts, http::request::Parts};

use super::model::{Resource, invalid_id};
use crate::emulator::{api_error::ApiError, path::path_parameter};

/// A valid ID of a kind of resource, from the path. An invalid one is 400.
pub(crate) struct Id<R> {
    pub(crate) text: String,
    resource: PhantomData<fn() -> R>,
}

impl<S: Sync, R: Resource> FromRequestParts<S> for Id<R> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let text = path_parameter(parts, "id").await?;
        if R::is_id(&text) {
            return Ok(Self { text, resource: PhantomData });
        }
        Err(ApiError::bad_request(invalid_id::<R>(&text)))
    }
}

impl<R: Resource> Id<R> {
    /// Creates the error for a resource that does not exist.
    pub(crate) fn not_found(&self) -> ApiError {
        ApiError::not_found(format!("there is no {} {:?}", R::NAME, self.text))
    }
}
