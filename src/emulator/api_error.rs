//! Error responses, before they take the form of an API.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{fields::FieldError, random::RandomError};
use crate::certificate::Timestamp;

/// An error response. Its body is written when the response leaves: the request ID and the API are known only there.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(super) status: StatusCode,
    /// The error code, if it does not follow from the status.
    pub(super) code: Option<ErrorCode>,
    pub(super) message: String,
    pub(super) retry_after: Option<RetryAfter>,
}

/// An error code that a service chose.
#[derive(Debug, Clone, Copy)]
pub(super) enum ErrorCode {
    /// That of the Device Provisioning Service and of its resource provider: three digits of the status and three more.
    Number(u32),
    /// That of Resource Manager.
    Name(&'static str),
}

/// The two forms of the `Retry-After` header (RFC 9110 section 10.2.3).
#[derive(Debug, Clone, Copy)]
pub(super) enum RetryAfter {
    Seconds(u64),
    /// The date in that many seconds.
    Date(u64),
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, code: None, message: message.into(), retry_after: None }
    }

    /// The query, the path, a header or the JSON syntax is invalid.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The resource in the path does not exist.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The body is JSON with invalid content.
    pub(super) fn invalid_body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// The request conflicts with another resource.
    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// The etag of the request does not match.
    pub(super) fn precondition_failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, message)
    }

    /// Sets the error code.
    pub(super) fn code(self, code: ErrorCode) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(super) fn retry_after(self, retry_after: Option<RetryAfter>) -> Self {
        Self { retry_after, ..self }
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        Self::invalid_body(error.to_string())
    }
}

impl From<RandomError> for ApiError {
    fn from(error: RandomError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl RetryAfter {
    /// Returns the value of the header. A date is rounded up to a whole second.
    pub(super) fn header(self, now: Timestamp) -> String {
        match self {
            Self::Seconds(seconds) => seconds.to_string(),
            Self::Date(seconds) => {
                let seconds = seconds.saturating_add(u64::from(now.date_time().nanosecond() > 0));
                http_date(now + Duration::from_secs(seconds))
            }
        }
    }
}

/// Formats a time as an HTTP date (RFC 9110 section 5.6.7), as in `Sat, 05 Dec 2020 10:00:00 GMT`.
pub(super) fn http_date(time: Timestamp) -> String {
    // `httpdate` panics before 1970 and after 9999.
    httpdate::fmt_http_date(time.max(Timestamp::UNIX_EPOCH).into())
}
