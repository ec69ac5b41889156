//! One request to a service, described before it is sent.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::{
    Method, Url,
    header::{HeaderName, IF_MATCH},
};
use serde::Serialize;

use super::{etag::Etag, http::JSON, retry::Repeat, secret::Secret};

const MERGE_PATCH: &str = "application/merge-patch+json";

/// The header of requests and answers that holds the token of the next page of a list.
pub(super) const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");

/// Names a call in messages: its method, and its path below the service's base path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// Whether it only reads, which some services do with POST.
    reads: bool,
}

impl Operation {
    /// Returns the HTTP method.
    #[must_use]
    pub fn method(&self) -> &str {
        self.method.as_str()
    }

    /// Returns the path below the service's base path, without a leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns whether the call asks for a change.
    pub(crate) fn changes(&self) -> bool {
        !self.reads
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// A check before a request is sent. If it returns false, nothing is sent.
pub(crate) type Gate = Arc<dyn Fn() -> bool + Send + Sync>;

/// Describes one call to a service: what to send, and whether it can be repeated.
#[derive(Clone)]
pub(crate) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) target: Target,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<(&'static str, Vec<u8>)>,
    pub(super) headers: Vec<(HeaderName, String)>,
    /// The version of the API, if it is not the client's.
    pub(super) api_version: Option<&'static str>,
    /// The longest time that the service waits before it answers, in addition to the client's time-out.
    pub(super) wait: Duration,
    /// Runs right before the first attempt is sent, when its turn by the rate limit has come.
    pub(super) gate: Option<Gate>,
    pub(super) repeat: Repeat,
    pub(super) paging: Paging,
    /// Whether the service refuses the call with 409 if the resource exists.
    pub(super) creates: bool,
    reads: bool,
    /// Whether the answer contains keys, so that no message may quote it.
    pub(super) returns_keys: bool,
    pub(super) secrets: Vec<Secret>,
}

#[derive(Clone)]
pub(crate) enum Target {
    /// Path segments below the service's base path.
    Path(Vec<String>),
    /// A link from an answer. It points to the service's own address.
    Link(Url),
}

/// How the answer to a list names the next page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paging {
    /// By the member `nextLink` of an object with the items in `value`.
    NextLink,
    /// By the header `x-ms-continuation`. The body is an array of the items.
    Continuation,
}

impl Call {
    fn new(method: Method, segments: &[&str]) -> Self {
        Self {
            reads: method == Method::GET,
            method,
            path: segments.join("/"),
            target: Target::Path(segments.iter().map(|&segment| segment.to_owned()).collect()),
            query: Vec::new(),
            body: None,
            headers: Vec::new(),
            api_version: None,
            wait: Duration::ZERO,
            gate: None,
            repeat: Repeat::Safe,
            paging: Paging::NextLink,
            creates: false,
            returns_keys: false,
            secrets: Vec::new(),
        }
    }

    pub(crate) fn get(segments: &[&str]) -> Self {
        Self::new(Method::GET, segments)
    }

    pub(crate) fn delete(segments: &[&str]) -> Self {
        Self::new(Method::DELETE, segments)
    }

    pub(crate) fn put(segments: &[&str], body: &impl Serialize) -> Self {
        Self::new(Method::PUT, segments).with_body(JSON, body)
    }

    /// A JSON merge patch (RFC 7396).
    pub(crate) fn merge_patch(segments: &[&str], body: &impl Serialize) -> Self {
        Self::new(Method::PATCH, segments).with_body(MERGE_PATCH, body)
    }

    /// A POST without a body. It can be repeated.
    pub(crate) fn post_empty(segments: &[&str]) -> Self {
        Self::new(Method::POST, segments)
    }

    /// A POST that is not repeated if the service may have carried it out.
    pub(crate) fn post(segments: &[&str], body: &impl Serialize) -> Self {
        Self { repeat: Repeat::Unsent, ..Self::new(Method::POST, segments).with_body(JSON, body) }
    }

    /// A further page of a list.
    pub(crate) fn page(link: Url, first: &Self) -> Self {
        let returns_keys = first.returns_keys;
        Self { path: first.path.clone(), target: Target::Link(link), returns_keys, ..Self::get(&[]) }
    }

    /// Returns the GET of the same resource.
    pub(crate) fn to_get(&self) -> Self {
        Self {
            method: Method::GET,
            body: None,
            headers: Vec::new(),
            repeat: Repeat::Safe,
            creates: false,
            reads: true,
            ..self.clone()
        }
    }

    /// Sets the query parameters besides `api-version`.
    pub(crate) fn with_query(mut self, query: Vec<(&'static str, String)>) -> Self {
        self.query = query;
        self
    }

    /// Declares the call idempotent, which a POST is not by itself.
    pub(crate) fn repeatable(mut self) -> Self {
        self.repeat = Repeat::Safe;
        self
    }

    /// Declares that the call only reads, as some services do with POST.
    pub(crate) fn reading(mut self) -> Self {
        self.reads = true;
        self.repeatable()
    }

    /// Declares that the call reads keys. No message quotes its answer.
    pub(crate) fn reading_keys(self) -> Self {
        Self { returns_keys: true, ..self.reading() }
    }

    /// Declares that the service refuses the call with 409 if the resource exists.
    pub(crate) fn creating(mut self) -> Self {
        self.creates = true;
        self
    }

    /// Lists pages by the header `x-ms-continuation`.
    pub(crate) fn with_continuation(mut self) -> Self {
        self.paging = Paging::Continuation;
        self
    }

    /// Makes the change depend on the version of the resource. The etag is sent as the service wrote it.
    pub(crate) fn with_if_match(self, etag: Option<&Etag>) -> Self {
        match etag {
            Some(etag) => self.with_header(IF_MATCH, etag.as_str()),
            None => self,
        }
    }

    /// Sets a header.
    pub(crate) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Uses a version of the API that is not the client's.
    pub(crate) fn with_api_version(mut self, version: &'static str) -> Self {
        self.api_version = Some(version);
        self
    }

    /// Allows for the time that the service waits before it answers.
    pub(crate) fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Runs a check right before the first attempt is sent.
    pub(crate) fn with_gate(mut self, gate: Option<Gate>) -> Self {
        self.gate = gate;
        self
    }

    /// Adds texts of the body that no message may repeat.
    pub(crate) fn with_secrets(mut self, secrets: impl IntoIterator<Item = Secret>) -> Self {
        self.secrets.extend(secrets);
        self
    }

    fn with_body(mut self, content_type: &'static str, body: &impl Serialize) -> Self {
        // Bodies are objects with text keys, which serialize without an error.
        self.body = Some((content_type, serde_json::to_vec(body).unwrap_or_default()));
        self
    }

    pub(crate) fn operation(&self) -> Operation {
        Operation { method: self.method.clone(), path: self.path.clone(), reads: self.reads }
    }
}
