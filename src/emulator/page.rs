//! Collections, page by page.

use std::{collections::BTreeMap, ops::Bound};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    error::ApiError,
    gate::{Origin, Query},
};

/// The page's size where the request names none.
pub(super) const PAGE_SIZE: usize = 25;

const SKIP_TOKEN: &str = "$skiptoken";

/// The parameters a collection takes without further options.
pub(super) const PARAMETERS: &[&str] = &[SKIP_TOKEN];

/// One page of a collection: `{"value": […], "nextLink"?}`.
///
/// The skip token is the id after which the next page begins. A page therefore neither repeats nor misses what stood
/// still while other things came and went.
pub(super) fn page<T>(
    all: &BTreeMap<String, T>,
    path: &str,
    size: usize,
    query: &Query,
    origin: &Origin,
    show: impl Fn(&T) -> Value,
) -> Result<Value, ApiError> {
    let after = query.get(SKIP_TOKEN).map(read_token).transpose()?;
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = all.range::<String, _>((start, Bound::Unbounded)).peekable();
    let shown: Vec<(&String, &T)> = rest.by_ref().take(size).collect();
    let mut page = json!({ "value": shown.iter().map(|(_, item)| show(item)).collect::<Vec<_>>() });
    if let (Some((last, _)), true) = (shown.last(), rest.peek().is_some()) {
        let parameters =
            query.without(SKIP_TOKEN).append_pair(SKIP_TOKEN, &BASE64_URL_SAFE_NO_PAD.encode(last)).finish();
        page["nextLink"] = format!("{origin}{path}?{parameters}").into();
    }
    Ok(page)
}

fn read_token(token: &str) -> Result<String, ApiError> {
    BASE64_URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|id| String::from_utf8(id).ok())
        .ok_or_else(|| ApiError::bad_request(format!("{SKIP_TOKEN} is not one that a nextLink carried")))
}
