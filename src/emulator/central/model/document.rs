//! Documents: resources that have an etag, and that one set of handlers lists, gets, sets, patches and deletes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::resource::Resource;
use crate::emulator::{api_error::ApiError, etag::Etag, fields::Fields};

/// A kind of document.
pub(crate) trait Document: Resource + Send + 'static {
    /// The name of the collection in paths.
    const COLLECTION: &'static str;
    /// The members that may be null in a patch, which removes them. `None` allows every member.
    const NULLABLE: Option<&'static [&'static str]>;

    /// The parsed body of a PUT.
    type Body: Send;

    /// Reads all members of a body but the etag.
    fn read(fields: &mut Fields, id: &str) -> Result<Self::Body, ApiError>;

    /// Creates the document that a body describes, which replaces the current one.
    fn from_body(body: Self::Body, current: Option<&Self>) -> Result<Self, ApiError>;

    /// Compares the JSON of a document before and after a patch.
    fn check_patch(_before: &Value, _after: &Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// Returns the document as JSON.
    fn show(&self, id: &str, etag: &Etag) -> Value;
}

/// A value and its etag.
#[derive(Serialize, Deserialize)]
pub(crate) struct Versioned<T> {
    pub(crate) value: T,
    pub(crate) etag: Etag,
}

impl<T: Document> Versioned<T> {
    pub(crate) fn show(&self, id: &str) -> Value {
        self.value.show(id, &self.etag)
    }
}
