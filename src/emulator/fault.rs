//! Misbehaviour on request: what networks, proxies and services do to a client, made to happen where a test wants it.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::body::Frame;

use super::{error::ApiError, server::EmulatorError};

/// A fault: what goes wrong, for which requests, how often.
///
/// It strikes before anything else is looked at, as a network does: also requests without a token and unknown routes.
/// Where several faults match a request, the one injected first strikes, alone.
///
/// ```
/// use iot_enroll::emulator::{Fault, FaultKind};
///
/// // The first two uploads of a certificate get 503.
/// let fault = Fault::new(FaultKind::Status { status: 503, retry_after: None })
///     .method("PUT")
///     .path_contains("/certificates/")
///     .times(2);
/// ```
#[derive(Debug, Clone)]
pub struct Fault {
    kind: FaultKind,
    method: Option<String>,
    path: String,
    /// How often it still strikes; `None`: always.
    left: Option<u32>,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The request is answered with this error, in the service's form, and is not carried out.
    Status {
        /// 400 to 599.
        status: u16,
        /// The `Retry-After` header, in whole seconds, rounded up.
        retry_after: Option<Duration>,
    },
    /// The connection breaks before the request is carried out.
    CloseBeforeHandling,
    /// The request is carried out, and the connection breaks before the answer.
    CloseAfterHandling,
    /// The request is carried out, and the connection breaks in the middle of the answer's body; before the answer where
    /// it has none.
    TruncateBody,
    /// The request is answered with 200 and a web page, as by a proxy that wants a login, and is not carried out.
    NotJson,
    /// The request is answered with 307 and this `Location`, and is not carried out.
    Redirect(String),
    /// The request is carried out after this time.
    Delay(Duration),
}

impl Fault {
    /// A fault that strikes the next request, whatever it is.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, method: None, path: String::new(), left: Some(1) }
    }

    /// Strikes only requests with this method.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        Self { method: Some(method.to_ascii_uppercase()), ..self }
    }

    /// Strikes only requests whose path, as sent and without the query, contains this.
    #[must_use]
    pub fn path_contains(self, part: &str) -> Self {
        Self { path: part.to_owned(), ..self }
    }

    /// Strikes so many times.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        Self { left: Some(count), ..self }
    }

    /// Strikes every time.
    #[must_use]
    pub fn always(self) -> Self {
        Self { left: None, ..self }
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        self.method.as_deref().is_none_or(|expected| expected == method) && path.contains(&self.path)
    }
}

/// The faults that are still to strike.
#[derive(Default)]
pub(super) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    pub(super) fn add(&self, fault: Fault) -> Result<(), EmulatorError> {
        match &fault.kind {
            FaultKind::Status { status, .. } if !(400..600).contains(status) => {
                return Err(EmulatorError::Fault(format!("{status} is not the status of an error: use 400 to 599")));
            }
            FaultKind::Redirect(url) if HeaderValue::from_str(url).is_err() => {
                return Err(EmulatorError::Fault(format!("{url:?} cannot be sent as a Location")));
            }
            _ => {}
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
        Ok(())
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The fault that strikes this request.
    pub(super) fn strike(&self, method: &str, path: &str) -> Option<FaultKind> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.retain(|fault| fault.left != Some(0));
        let fault = faults.iter_mut().find(|fault| fault.matches(method, path))?;
        fault.left = fault.left.map(|left| left - 1);
        Some(fault.kind.clone())
    }
}

/// The connection is to be broken. The HTTP server closes a connection whose service fails.
#[derive(Debug, thiserror::Error)]
#[error("the connection was broken by a fault")]
pub(super) struct Severed;

pub(super) fn status(status: u16, retry_after: Option<Duration>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let seconds = retry_after.map(seconds);
    ApiError::new(status, "a fault was injected here").retry_after(seconds).into_response()
}

/// Whole seconds, rounded up: less would be too early.
pub(super) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

pub(super) fn not_json() -> Response {
    let page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in to continue.</body></html>";
    let media_type = HeaderValue::from_static("text/html; charset=utf-8");
    ([(header::CONTENT_TYPE, media_type)], page).into_response()
}

pub(super) fn redirect(url: &str) -> Response {
    // `Faults::add` has made sure that it can be sent.
    let location = HeaderValue::from_str(url).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response()
}

/// The response with its whole length announced and half of its body.
pub(super) async fn truncate(response: Response) -> Result<Response, Severed> {
    let (mut parts, body) = response.into_parts();
    let whole = to_bytes(body, usize::MAX).await.map_err(|_| Severed)?;
    if whole.is_empty() {
        return Err(Severed);
    }
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
    let half = Some(whole.slice(..whole.len() / 2));
    Ok(Response::from_parts(parts, Body::new(Truncated { half, flushed: false })))
}

/// A body that fails after its first half.
struct Truncated {
    half: Option<Bytes>,
    flushed: bool,
}

impl hyper::body::Body for Truncated {
    type Data = Bytes;
    type Error = Severed;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Severed>>> {
        if let Some(half) = self.half.take() {
            return Poll::Ready(Some(Ok(Frame::data(half))));
        }
        if !self.flushed {
            // While the body has nothing to give, the server sends what it has. An error would discard that.
            self.flushed = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(Severed)))
    }
}
