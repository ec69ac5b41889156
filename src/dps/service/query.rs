//! Queries for enrollments.

use std::num::NonZeroU32;

use reqwest::header::HeaderName;
use serde_json::json;

use crate::transport::Call;

const MAX_ITEM_COUNT: HeaderName = HeaderName::from_static("x-ms-max-item-count");

/// A query for enrollments: a filter in the service's SQL-like language, and how many to return.
///
/// The default is `SELECT *`, which returns all.
#[derive(Debug, Clone)]
pub struct Query {
    text: String,
    page_size: Option<NonZeroU32>,
    pub(super) limit: Option<usize>,
}

impl Default for Query {
    fn default() -> Self {
        Self { text: "SELECT *".to_owned(), page_size: None, limit: None }
    }
}

impl Query {
    /// Returns a query for all enrollments.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the text of the query. Default: `SELECT *`.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// Sets how many items a page has at most. Default: the service decides.
    #[must_use]
    pub fn page_size(mut self, size: NonZeroU32) -> Self {
        self.page_size = Some(size);
        self
    }

    /// Sets how many items are returned at most. Default: all.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Returns the call for the first page.
    pub(super) fn call(&self, collection: &str) -> Call {
        self.paged(Call::post(&[collection, "query"], &json!({ "query": self.text })))
    }

    /// Makes a call list pages of the size that this query has.
    pub(super) fn paged(&self, call: Call) -> Call {
        let call = call.reading().with_continuation();
        match self.page_size {
            Some(size) => call.with_header(MAX_ITEM_COUNT, &size.to_string()),
            None => call,
        }
    }
}
