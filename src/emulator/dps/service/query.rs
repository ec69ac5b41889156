//! Queries and their pages.
//!
//! # Where the documentation is silent
//! - **The query** is `SELECT *`, optionally with `FROM` and the collection, or `*`. Conditions are not emulated (400).
//! - **The size of a page** is `x-ms-max-item-count`, from 1 to 10,000. Without it the page size of the emulator counts.
//! - **A continuation token** is valid only for the query that it was issued for (400 otherwise).

use std::{collections::BTreeMap, ops::Bound};

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, StatusCode, request::Parts},
    response::Response,
};
use serde_json::Value;

use crate::emulator::{
    api_error::ApiError,
    body::json_response,
    context::{Context, SharedContext},
    page_token::{open, seal},
};

const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
const ITEM_TYPE: HeaderName = HeaderName::from_static("x-ms-item-type");
const MAX_ITEM_COUNT: HeaderName = HeaderName::from_static("x-ms-max-item-count");

/// The highest size of a page.
const MAX_PAGE: usize = 10_000;

/// The headers of a request for a page.
pub(crate) struct PageRequest {
    /// The path, which the token is for.
    listing: String,
    size: usize,
    after: Option<String>,
}

impl FromRequestParts<SharedContext> for PageRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &SharedContext) -> Result<Self, ApiError> {
        let header = |name| parts.headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let listing = parts.uri.path().to_ascii_lowercase();
        let size = match header(MAX_ITEM_COUNT) {
            None => context.page_size,
            Some(text) => text.parse().ok().filter(|size| (1..=MAX_PAGE).contains(size)).ok_or_else(|| {
                ApiError::bad_request(format!("the header {MAX_ITEM_COUNT} must be a number from 1 to {MAX_PAGE}"))
            })?,
        };
        let after = match header(CONTINUATION) {
            None | Some("") => None,
            Some(token) => match open(&context.page_key, &listing, token).as_deref() {
                Some([after]) => Some(after.clone()),
                _ => return Err(ApiError::bad_request(format!("the header {CONTINUATION} is not from this query"))),
            },
        };
        Ok(Self { listing, size, after })
    }
}

impl PageRequest {
    /// Returns the page of the items that `show` does not leave out.
    pub(crate) fn page<T>(
        &self,
        context: &Context,
        item_type: &'static str,
        all: &BTreeMap<String, T>,
        show: impl Fn(&T) -> Option<Value>,
    ) -> Response {
        let start = self.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = all.range::<str, _>((start, Bound::Unbounded));
        let mut rest = rest.filter_map(|(key, item)| Some((key, show(item)?))).peekable();
        let (mut last, mut page) = (None, Vec::new());
        for (key, shown) in rest.by_ref().take(self.size) {
            last = Some(key);
            page.push(shown);
        }
        let mut response = json_response(StatusCode::OK, &Value::Array(page));
        let headers = response.headers_mut();
        headers.insert(ITEM_TYPE, HeaderValue::from_static(item_type));
        headers.insert(MAX_ITEM_COUNT, HeaderValue::from(self.size));
        if let (Some(last), true) = (last, rest.peek().is_some()) {
            let token = seal(&context.page_key, &self.listing, std::slice::from_ref(last));
            if let Ok(token) = HeaderValue::try_from(token) {
                headers.insert(CONTINUATION, token);
            }
        }
        response
    }
}

/// Checks that a query selects everything.
pub(crate) fn check_query(query: &str, collection: &str) -> Result<(), ApiError> {
    let words: Vec<_> = query.split_whitespace().map(str::to_ascii_lowercase).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["*"] | ["select", "*"] => Ok(()),
        ["select", "*", "from", from] if from.eq_ignore_ascii_case(collection) => Ok(()),
        _ => Err(ApiError::bad_request(format!("query: the emulator knows SELECT * only, found {query:?}"))),
    }
}
