//! The responses of faults.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::body::Frame;

use super::api_error::{ApiError, RetryAfter};

/// Breaks the connection: the HTTP server closes a connection whose service fails.
#[derive(Debug, thiserror::Error)]
#[error("the connection was broken by a fault")]
pub(super) struct Severed;

/// Returns an injected error.
pub(super) fn status(status: u16, retry_after: Option<RetryAfter>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    ApiError::new(status, "a fault was injected").retry_after(retry_after).into_response()
}

/// Returns the web page of a captive portal.
pub(super) fn not_json() -> Response {
    let page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in to continue.</body></html>";
    let media_type = HeaderValue::from_static("text/html; charset=utf-8");
    ([(header::CONTENT_TYPE, media_type)], page).into_response()
}

/// Returns a redirect.
pub(super) fn redirect(url: &str) -> Response {
    // `Fault::check` ensures that the URL is a valid header.
    let location = HeaderValue::from_str(url).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response()
}

/// Cuts the body of a response in half, but not its `Content-Length`.
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
            // The server sends the first half while the body is pending. An error would discard it.
            self.flushed = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(Severed)))
    }
}
