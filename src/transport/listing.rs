//! Lists: the pages that links or continuation tokens chain.

use std::{collections::HashSet, fmt};

use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::{
    call::{CONTINUATION, Call, Paging},
    error::Error,
    redact::sanitize,
    rest::{Page, RestClient},
};

/// The maximum number of empty pages in a row. A filter may leave some pages empty; a service that never ends a list
/// would make all of them empty.
const MAX_EMPTY_PAGES: usize = 1000;

/// The maximum number of pages in a row that have the content of an earlier page. A short page can be repeated if a
/// resource is created while the list is read.
const MAX_REPEATED_PAGES: usize = 3;

/// A list that is read from a service page by page.
///
/// The first page is requested when the first item is. Once a page arrives, the next one is requested at once, so that
/// it arrives while the caller uses this one. A caller that stops early causes one unneeded request at most, which is
/// canceled when the list is dropped. A limit that the list was requested with prevents it.
///
/// After an error the list ends. It must be read within a tokio runtime.
///
/// ```no_run
/// # use iot_enroll::central::{Client, Error};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let mut groups = client.enrollment_groups().list();
/// while let Some(group) = groups.next().await {
///     println!("{}", group?.display_name);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is requested until an item is"]
pub struct Listing<T>(BoxStream<'static, Result<T, Error>>);

impl<T: Send + 'static> Listing<T> {
    /// Returns the next item, or `None` at the end of the list. Dropping the future loses no item.
    ///
    /// # Errors
    /// [`Error`] if a page cannot be read.
    pub async fn next(&mut self) -> Option<Result<T, Error>> {
        self.0.next().await
    }

    /// Reads the whole list into a collection, such as a `Vec`.
    ///
    /// # Errors
    /// The first [`Error`]. Items before it are discarded.
    pub async fn try_collect<C: Default + Extend<T>>(self) -> Result<C, Error> {
        self.0.try_collect().await
    }

    /// Ends the list after `count` items.
    pub fn take(self, count: usize) -> Self {
        Self(self.0.take(count).boxed())
    }

    /// Returns the list as a stream, to combine it with others in this crate.
    pub(crate) fn into_stream(self) -> BoxStream<'static, Result<T, Error>> {
        self.0
    }
}

impl<T> fmt::Debug for Listing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").finish_non_exhaustive()
    }
}

/// The pages of a list that were not returned yet.
struct Pages<T> {
    client: RestClient,
    /// The call for the next page, if there is one.
    call: Option<Call>,
    /// The task that fetches it, once started. Dropping the set cancels it.
    fetch: JoinSet<Result<Page<T>, Error>>,
    /// The links and continuation tokens that were followed.
    seen: HashSet<String>,
    /// The number of empty pages in a row.
    empty: usize,
    /// The contents of the pages that are not empty, as hashes.
    contents: HashSet<u64>,
    /// The number of pages in a row that have the content of an earlier page.
    repeated: usize,
    /// How many items are still wanted.
    wanted: usize,
}

/// Lists pages, starting with this call, until they have `limit` items.
pub(crate) fn pages<T: DeserializeOwned + Send + 'static>(
    client: RestClient,
    first: Call,
    limit: Option<usize>,
) -> Listing<Vec<T>> {
    let wanted = limit.unwrap_or(usize::MAX);
    let call = (wanted > 0).then_some(first);
    let start = Pages {
        client,
        call,
        fetch: JoinSet::new(),
        seen: HashSet::new(),
        empty: 0,
        contents: HashSet::new(),
        repeated: 0,
        wanted,
    };
    let pages = stream::try_unfold(start, |mut pages| async move {
        let page = pages.next().await?;
        Ok(page.map(|page| (page, pages)))
    });
    Listing(pages.boxed())
}

/// Lists at most `limit` items, starting with this call.
pub(crate) fn items<T: DeserializeOwned + Send + 'static>(
    client: RestClient,
    first: Call,
    limit: Option<usize>,
) -> Listing<T> {
    let pages = pages(client, first, limit).into_stream();
    Listing(pages.map_ok(|page| stream::iter(page.into_iter().map(Ok))).try_flatten().boxed())
}

impl<T: DeserializeOwned + Send + 'static> Pages<T> {
    async fn next(&mut self) -> Result<Option<Vec<T>>, Error> {
        let Some(call) = self.call.take() else { return Ok(None) };
        let mut page = match self.fetch.join_next().await {
            Some(Ok(fetched)) => fetched?,
            // No task was started, or the runtime canceled it.
            Some(Err(_)) | None => self.client.read_page(&call).await?,
        };
        self.empty = if page.items.is_empty() { self.empty + 1 } else { 0 };
        if !page.items.is_empty() {
            self.repeated = if self.contents.insert(page.content) { 0 } else { self.repeated + 1 };
        }
        page.items.truncate(self.wanted);
        self.wanted -= page.items.len();
        let link = page.next.filter(|link| !link.is_empty() && self.wanted > 0);
        self.call = link.map(|link| self.follow(&call, &link)).transpose()?;
        if let Some(next) = self.call.clone() {
            let client = self.client.clone();
            self.fetch.spawn(async move { client.read_page(&next).await }.in_current_span());
        }
        Ok(Some(page.items))
    }

    /// Returns the call for the page that a link or continuation token names. Refuses links to other hosts, so that the
    /// token is not sent there, and links that do not end.
    fn follow(&mut self, from: &Call, link: &str) -> Result<Call, Error> {
        let refuse =
            |problem: String| Error::NextLink { operation: from.operation(), problem: sanitize(&problem, &[]) };
        if self.empty > MAX_EMPTY_PAGES {
            return Err(refuse(format!("the last {MAX_EMPTY_PAGES} pages were empty")));
        }
        if self.repeated >= MAX_REPEATED_PAGES {
            return Err(refuse(format!("the last {MAX_REPEATED_PAGES} pages have the content of earlier ones")));
        }
        let (call, page) = match from.paging {
            Paging::NextLink => {
                let url = self.client.address().follow(link).map_err(refuse)?;
                (Call::page(url.clone(), from), url.into())
            }
            Paging::Continuation => (from.clone().with_header(CONTINUATION, link), link.to_owned()),
        };
        if self.seen.insert(page) {
            Ok(call)
        } else {
            Err(refuse("it points to a page that was read before".to_owned()))
        }
    }
}
