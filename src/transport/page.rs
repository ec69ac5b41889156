//! Lists: the pages that `nextLink` chains, as a stream.

use std::collections::HashSet;

use futures_util::{
    TryStreamExt,
    stream::{self, BoxStream},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::{call::Call, error::Error, redact::sanitise, rest::RestClient};

/// The things of a list.
///
/// The first page is asked for when the stream is first polled. When a page arrives, the next is asked for at once, so
/// that it comes while the caller works on this one. A caller that stops has caused one request more than it needed at
/// most, which dropping the stream ends; one that says beforehand how many it wants ([`DeviceQuery::limit`]) none.
///
/// After an error the stream ends. It must be polled within a tokio runtime.
///
/// [`DeviceQuery::limit`]: crate::central::DeviceQuery::limit
pub type Listing<T> = BoxStream<'static, Result<T, Error>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<T> {
    value: Vec<T>,
    next_link: Option<String>,
}

/// What is left of a list.
struct Rest<T> {
    client: RestClient,
    /// The next page, if there is one.
    call: Option<Call>,
    /// The task that fetches it, if it was begun. Dropping it ends it.
    fetch: JoinSet<Result<Page<T>, Error>>,
    /// The links that were followed.
    seen: HashSet<String>,
    /// How many pages had nothing on them, one after another.
    empty: usize,
    /// How many things are still wanted.
    wanted: usize,
}

/// How many pages without anything are followed. A filter may leave some empty, a service gone astray all of them.
const MAX_EMPTY: usize = 1000;

/// The pages of a list, beginning with this call, until there are so many things.
pub(crate) fn pages<T: DeserializeOwned + Send + 'static>(
    client: RestClient,
    first: Call,
    limit: Option<usize>,
) -> Listing<Vec<T>> {
    let wanted = limit.unwrap_or(usize::MAX);
    let call = (wanted > 0).then_some(first);
    let start = Rest { client, call, fetch: JoinSet::new(), seen: HashSet::new(), empty: 0, wanted };
    Box::pin(stream::try_unfold(start, |mut rest| async move {
        let page = rest.next().await?;
        Ok(page.map(|page| (page, rest)))
    }))
}

/// The things of a list, beginning with this call, so many at most.
pub(crate) fn items<T: DeserializeOwned + Send + 'static>(
    client: RestClient,
    first: Call,
    limit: Option<usize>,
) -> Listing<T> {
    Box::pin(pages(client, first, limit).map_ok(|page| stream::iter(page.into_iter().map(Ok))).try_flatten())
}

impl<T: DeserializeOwned + Send + 'static> Rest<T> {
    async fn next(&mut self) -> Result<Option<Vec<T>>, Error> {
        let Some(call) = self.call.take() else { return Ok(None) };
        let mut page: Page<T> = match self.fetch.join_next().await {
            Some(Ok(fetched)) => fetched?,
            // Nothing was begun, or its task was ended from outside: then here and now.
            Some(Err(_)) | None => self.client.read(&call).await?,
        };
        self.empty = if page.value.is_empty() { self.empty + 1 } else { 0 };
        page.value.truncate(self.wanted);
        self.wanted -= page.value.len();
        let link = page.next_link.filter(|link| !link.is_empty() && self.wanted > 0);
        self.call = link.map(|link| self.follow(&call, &link)).transpose()?;
        if let Some(next) = self.call.clone() {
            let client = self.client.clone();
            self.fetch.spawn(async move { client.read(&next).await }.in_current_span());
        }
        Ok(Some(page.value))
    }

    fn follow(&mut self, from: &Call, link: &str) -> Result<Call, Error> {
        let refuse =
            |problem: String| Error::NextLink { operation: from.operation(), problem: sanitise(&problem, &[]) };
        if self.empty > MAX_EMPTY {
            return Err(refuse(format!("the last {MAX_EMPTY} pages were empty")));
        }
        let url = self.client.address().follow(link).map_err(refuse)?;
        if self.seen.insert(url.to_string()) {
            Ok(Call::page(url, &from.operation()))
        } else {
            Err(refuse("it leads to a page that was read before".to_owned()))
        }
    }
}
