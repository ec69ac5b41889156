//! Collections, page by page.

use std::{
    collections::{BTreeMap, btree_map::Range},
    ops::Bound,
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    application::Application,
    error::ApiError,
    gate::{Origin, Query},
};

/// The page's size where the request names none.
pub(super) const PAGE_SIZE: usize = 25;

const SKIP_TOKEN: &str = "$skiptoken";

/// The parameters a collection takes without further options.
pub(super) const PARAMETERS: &[&str] = &[SKIP_TOKEN];

/// The page that a request asks for.
///
/// The skip token is the sort key after which the next page begins, so that a page neither repeats nor misses what stood
/// still while other things came and went. It is sealed with a key of the emulator for the one listing that it was made for:
/// its path and whatever decides about members and order.
pub(super) struct PageRequest<'a> {
    application: &'a Application,
    query: &'a Query,
    /// The listing, with its options.
    listing: String,
    /// Where the next page is, without its query.
    url: String,
    after: Option<Vec<String>>,
}

impl<'a> PageRequest<'a> {
    /// `path` is that of the collection; `options` what decides about its members and their order.
    pub(super) fn read(
        application: &'a Application,
        query: &'a Query,
        origin: &Origin,
        path: &str,
        options: &[&str],
    ) -> Result<Self, ApiError> {
        let listing = json!([path, options]).to_string();
        let after = query.get(SKIP_TOKEN).map(|token| {
            open(&application.page_key, &listing, token).ok_or_else(|| {
                ApiError::bad_request(format!("{SKIP_TOKEN} is not one that a nextLink of this list carried"))
            })
        });
        Ok(Self { application, query, listing, url: format!("{origin}{path}"), after: after.transpose()? })
    }

    /// The sort key of the last thing on the page before; `None` on the first page.
    pub(super) fn after(&self) -> Option<&[String]> {
        self.after.as_deref()
    }

    /// The page of a collection that is ordered by id.
    pub(super) fn of_ids<T>(&self, all: &BTreeMap<String, T>, show: impl Fn(&T) -> Value) -> Value {
        self.page(
            self.application.page_size,
            after_id(all, self.after()),
            |(id, _)| vec![(*id).clone()],
            |(_, item)| show(item),
        )
    }

    /// The page: `{"value": […], "nextLink"?}`. `rest` is what comes after [`after`](Self::after), in order. Not
    /// more of it is looked at than is needed to know whether there is a next page.
    pub(super) fn page<T>(
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
            let token = seal(&self.application.page_key, &self.listing, &key(last));
            let parameters = self.query.without(SKIP_TOKEN).append_pair(SKIP_TOKEN, &token).finish();
            page["nextLink"] = format!("{}?{parameters}", self.url).into();
        }
        page
    }
}

/// What comes after the id that is the sort key.
pub(super) fn after_id<'a, T>(all: &'a BTreeMap<String, T>, after: Option<&[String]>) -> Range<'a, String, T> {
    let start = after.and_then(<[String]>::first).map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_str()));
    all.range::<str, _>((start, Bound::Unbounded))
}

fn seal(key: &hmac::Key, listing: &str, after: &[String]) -> String {
    let after = json!(after).to_string();
    let tag = hmac::sign(key, format!("{listing}\n{after}").as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode([tag.as_ref(), after.as_bytes()].concat())
}

fn open(key: &hmac::Key, listing: &str, token: &str) -> Option<Vec<String>> {
    let token = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
    let (tag, after) = token.split_at_checked(hmac::HMAC_SHA256.digest_algorithm().output_len())?;
    let after = str::from_utf8(after).ok()?;
    hmac::verify(key, format!("{listing}\n{after}").as_bytes(), tag).ok()?;
    let Value::Array(parts) = serde_json::from_str(after).ok()? else { return None };
    parts.into_iter().map(|part| part.as_str().map(str::to_owned)).collect()
}
