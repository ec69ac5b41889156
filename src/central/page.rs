//! Lists: the pages that `nextLink` chains, as a stream.

use std::collections::HashSet;

use futures_util::{
    TryStreamExt,
    stream::{self, BoxStream},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    client::{Call, Client},
    error::{Error, Operation, sanitise},
};

/// The things of a list, fetched page by page as they are asked for: a caller that stops, for instance by
/// `futures_util::StreamExt::take`, causes no further request.
pub type Listing<T> = BoxStream<'static, Result<T, Error>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<T> {
    value: Vec<T>,
    next_link: Option<String>,
}

/// The pages of a list, beginning with this call.
pub(super) fn pages<T: DeserializeOwned + Send + 'static>(client: Client, first: Call) -> Listing<Vec<T>> {
    let operation = first.operation();
    let start = (Some(first), HashSet::new());
    Box::pin(stream::try_unfold(start, move |(call, mut seen)| {
        let (client, operation) = (client.clone(), operation.clone());
        async move {
            let Some(call) = call else { return Ok(None) };
            let page: Page<T> = client.read(&call).await?;
            let next = match page.next_link.filter(|link| !link.is_empty()) {
                Some(link) => Some(follow(&client, &operation, &link, &mut seen)?),
                None => None,
            };
            Ok(Some((page.value, (next, seen))))
        }
    }))
}

/// The things of a list, beginning with this call.
pub(super) fn items<T: DeserializeOwned + Send + 'static>(client: Client, first: Call) -> Listing<T> {
    Box::pin(pages(client, first).map_ok(|page| stream::iter(page.into_iter().map(Ok))).try_flatten())
}

fn follow(client: &Client, operation: &Operation, link: &str, seen: &mut HashSet<String>) -> Result<Call, Error> {
    let refuse = |problem: String| Error::NextLink { operation: operation.clone(), problem: sanitise(&problem, &[]) };
    let url = client.endpoint().follow(link).map_err(refuse)?;
    if seen.insert(url.to_string()) {
        Ok(Call::page(url, operation))
    } else {
        Err(refuse("it leads to a page that was read before".to_owned()))
    }
}
