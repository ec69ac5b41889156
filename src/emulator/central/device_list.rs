//! Lists of devices and device templates: their options, and pages of devices.
//!
//! # Where the documentation is silent
//! - **The parameters** are `$top`, `$filter` and `$orderby` in versions 2022-07-31 and 2022-06-30-preview,
//!   `maxpagesize`, `filter` and `orderby` in 2022-10-31-preview. The other spelling is an error (400). `$top` is the
//!   size of a page, not of the whole list.
//! - **A filtered list** is searched in chunks of 512 devices, so that other requests do not wait for it. A change
//!   between two chunks has the effect of a change between two pages.

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::Value;

use super::{
    api_version::ApiVersion,
    model::{Device, DeviceProperties, Filter, ListedResource, Order},
    page::{self, PageRequest},
    query::Query,
};
use crate::emulator::{api_error::ApiError, context::SharedContext};

/// The maximum size of a page: the `maximum` of `$top` in the API description.
const MAX_TOP: usize = 100;

/// The number of devices that are filtered at a time.
const CHUNK: usize = 512;

/// The parameters for the page size, the filter and the order.
const PARAMETERS: [&str; 3] = ["$top", "$filter", "$orderby"];
const PREVIEW_PARAMETERS: [&str; 3] = ["maxpagesize", "filter", "orderby"];

/// The options of a list.
pub(crate) struct ListOptions<'a> {
    pub(crate) top: Option<usize>,
    pub(crate) filter: Option<Filter>,
    pub(crate) order: Order,
    /// The text of the filter and of the order, which decide on the members of the list and their order.
    pub(crate) texts: [&'a str; 2],
}

impl<'a> ListOptions<'a> {
    pub(crate) fn read(query: &'a Query, listed: ListedResource) -> Result<Self, ApiError> {
        let (known, others) = match query.version() {
            ApiVersion::Stable | ApiVersion::Preview2022_06_30 => (PARAMETERS, PREVIEW_PARAMETERS),
            ApiVersion::Preview => (PREVIEW_PARAMETERS, PARAMETERS),
        };
        if let Some((known, other)) = known.iter().zip(others).find(|(_, other)| query.get(other).is_some()) {
            return Err(ApiError::bad_request(format!(
                "unknown query parameter {other:?}; it is called {known:?} in version {}",
                query.version().as_str()
            )));
        }
        query.allow_only(&[page::PARAMETERS, &known].concat())?;
        let [top, filter, order] = known;
        let texts = [filter, order].map(|name| query.get(name).unwrap_or_default());
        let top = query.get(top).map(|text| match text.parse() {
            Ok(number) if (1..=MAX_TOP).contains(&number) => Ok(number),
            _ => Err(ApiError::bad_request(format!("{top}: expected a number from 1 to {MAX_TOP}, found {text:?}"))),
        });
        let filter = query.get(filter).map(|text| {
            Filter::parse_for(text, query.version(), listed)
                .map_err(|error| ApiError::bad_request(format!("{filter}: {error}")))
        });
        let order = query.get(order).map_or(Ok(Order::Id), |text| {
            Order::parse(text).ok_or_else(|| {
                let expected = "expected displayName, displayName asc or displayName desc";
                ApiError::bad_request(format!("{order}: {expected}, found {text:?}"))
            })
        })?;
        Ok(Self { top: top.transpose()?, filter: filter.transpose()?, order, texts })
    }
}

/// Returns a page of the devices that match; of all devices if `matches` is `None`.
pub(crate) async fn page_of_devices<M>(
    context: &SharedContext,
    request: &PageRequest<'_>,
    order: Order,
    size: usize,
    matches: Option<M>,
    version: ApiVersion,
) -> Result<Value, ApiError>
where
    M: Fn(&DeviceProperties) -> bool + Send + 'static,
{
    let after = request.after().map(<[String]>::to_vec);
    // One more device tells whether there is a next page.
    let limit = size.saturating_add(1);
    let found = match matches {
        None => chunk(context, order, after.as_deref(), limit),
        Some(matches) => {
            let context = Arc::clone(context);
            // A query may have a megabyte: neither the lock nor a thread of the runtime is held during the search.
            let search = move || search(&context, order, after, limit, matches);
            tokio::task::spawn_blocking(search).await.map_err(|_| {
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the search for devices did not finish")
            })?
        }
    };
    let key = |device: &&Arc<Device>| device.sort_key(order);
    Ok(request.page(size, found.iter(), key, |device| device.show(version)))
}

fn search(
    context: &SharedContext,
    order: Order,
    mut after: Option<Vec<String>>,
    limit: usize,
    matches: impl Fn(&DeviceProperties) -> bool,
) -> Vec<Arc<Device>> {
    let mut found = Vec::new();
    loop {
        let chunk = chunk(context, order, after.as_deref(), CHUNK);
        let Some(last) = chunk.last() else { return found };
        after = Some(last.sort_key(order));
        for device in chunk {
            if matches(&device.properties) {
                found.push(device);
            }
            if found.len() == limit {
                return found;
            }
        }
    }
}

/// Returns up to `limit` devices after a sort key.
fn chunk(context: &SharedContext, order: Order, after: Option<&[String]>, limit: usize) -> Vec<Arc<Device>> {
    context.store.with(|state| state.devices.after(order, after).take(limit).map(Arc::clone).collect())
}
