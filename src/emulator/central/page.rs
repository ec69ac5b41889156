//! The pages of collections.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{model::after_id, query::Query};
use crate::emulator::{
    api_error::ApiError,
    context::Context,
    origin::Origin,
    page_token::{open, seal},
};

/// The default size of a page.
pub(crate) const PAGE_SIZE: usize = 25;

const SKIP_TOKEN: &str = "$skiptoken";

/// The parameters of a collection without options.
pub(crate) const PARAMETERS: &[&str] = &[SKIP_TOKEN];

/// A request for a page.
///
/// The skip token is the sort key of the last resource of the previous page, so that no page repeats or skips a
/// resource while others are added and removed. It is authenticated by a key of the emulator for one listing: its path,
/// and the options that decide on its members and order.
pub(crate) struct PageRequest<'a> {
    context: &'a Context,
    query: &'a Query,
    /// The listing with its options.
    listing: String,
    /// The URL of the next page, without its query.
    url: String,
    after: Option<Vec<String>>,
}

impl<'a> PageRequest<'a> {
    /// Reads the skip token. `path` is that of the collection, and `options` decide on its members and their order.
    pub(crate) fn read(
        context: &'a Context,
        query: &'a Query,
        origin: &Origin,
        path: &str,
        options: &[&str],
    ) -> Result<Self, ApiError> {
        let listing = json!([path, options]).to_string();
        let after = query.get(SKIP_TOKEN).map(|token| {
            open(&context.page_key, &listing, token)
                .ok_or_else(|| ApiError::bad_request(format!("{SKIP_TOKEN} is not from a nextLink of this list")))
        });
        Ok(Self { context, query, listing, url: format!("{origin}{path}"), after: after.transpose()? })
    }

    /// Returns the sort key of the last resource of the previous page. It is `None` for the first page.
    pub(crate) fn after(&self) -> Option<&[String]> {
        self.after.as_deref()
    }

    /// Returns the page of a collection that is sorted by ID.
    pub(crate) fn page_by_id<T>(&self, all: &BTreeMap<String, T>, show: impl Fn(&str, &T) -> Value) -> Value {
        self.page(
            self.context.page_size,
            after_id(all, self.after()),
            |(id, _)| vec![(*id).clone()],
            |(id, item)| show(id, item),
        )
    }

    /// Returns the page: `{"value": […], "nextLink"?}`. `rest` are the resources after [`after`](Self::after), in
    /// order. At most one more than `size` is consumed.
    pub(crate) fn page<T>(
        &self,
        size: usize,
        rest: impl Iterator<Item = T>,
        key: impl Fn(&T) -> Vec<String>,
        show: impl Fn(&T) -> Value,
    ) -> Value {
        let mut rest = rest.peekable();
        let shown: Vec<T> = rest.by_ref().take(size).collect();
        let mut page = json!({ "value": shown.iter().map(show).collect::<Vec<_>>() });
        if let (Some(last), true) = (shown.last(), rest.peek().is_some()) {
            let token = seal(&self.context.page_key, &self.listing, &key(last));
            let parameters = self.query.without(SKIP_TOKEN).append_pair(SKIP_TOKEN, &token).finish();
            page["nextLink"] = format!("{}?{parameters}", self.url).into();
        }
        page
    }
}
