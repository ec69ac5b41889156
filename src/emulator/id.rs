//! The id by which a path names a thing.

use std::marker::PhantomData;

use axum::{extract::FromRequestParts, http::request::Parts};

use super::{error::ApiError, gate, store::State};

/// A thing that has an id and lies in a collection.
pub(super) trait Resource: Sized {
    /// What it is called.
    const NAME: &'static str;
    /// The rule for its id, as `is_id` has it.
    const ID_RULE: &'static str;

    fn is_id(text: &str) -> bool;

    /// Whether the two are ids of one thing.
    fn is_same_id(one: &str, other: &str) -> bool {
        one == other
    }

    fn find<'a>(state: &'a mut State, id: &str) -> Option<&'a mut Self>;
}

/// An id of the resource, by its rule. One against the rule is refused with 400.
pub(super) struct Id<R> {
    pub(super) text: String,
    resource: PhantomData<fn() -> R>,
}

impl<S: Sync, R: Resource> FromRequestParts<S> for Id<R> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let text = gate::path_parameter(parts, "id").await?;
        if R::is_id(&text) {
            return Ok(Self { text, resource: PhantomData });
        }
        Err(ApiError::bad_request(format!("{text:?} is no id of {}: use {}", with_article(R::NAME), R::ID_RULE)))
    }
}

impl<R: Resource> Id<R> {
    pub(super) fn find<'a>(&self, state: &'a mut State) -> Result<&'a mut R, ApiError> {
        R::find(state, &self.text).ok_or_else(|| self.not_found())
    }

    pub(super) fn not_found(&self) -> ApiError {
        ApiError::not_found(format!("there is no {} {:?}", R::NAME, self.text))
    }

    /// Checks the `id` that a body may repeat.
    pub(super) fn check_body(&self, given: Option<&str>) -> Result<(), ApiError> {
        match given.filter(|given| !R::is_same_id(given, &self.text)) {
            Some(other) => {
                Err(ApiError::invalid_body(format!("id: found {other:?}, and the path says {:?}", self.text)))
            }
            None => Ok(()),
        }
    }
}

/// The rule for the ids of device groups and deployment manifests.
pub(super) const NAME_RULE: &str = "1 to 255 letters, digits, hyphens and underscores";

pub(super) fn is_name(text: &str) -> bool {
    consists_of(text, 255, |byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Whether the text has one to so many characters, each of them fitting.
pub(super) fn consists_of(text: &str, most: usize, fits: impl Fn(u8) -> bool) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(fits)
}

fn with_article(name: &str) -> String {
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {name}")
}
