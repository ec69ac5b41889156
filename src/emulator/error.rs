//! What the emulator answers when it refuses: status, code, message.
//!
//! # Where the documentation is silent
//! The codes of the Device Provisioning Service are those of IoT Hub: three digits of status and three more. Documented or
//! seen are 400004 (invalid argument), 401000 and 401002 (unauthorized), 404201 and 404202 (not found) and 429001
//! (throttled). Any other status has its generic code, which ends in 000. What IoT Central would answer with 422 is 400 there.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use time::{
    Duration, OffsetDateTime, PrimitiveDateTime, UtcOffset, format_description::BorrowedFormatItem,
    macros::format_description,
};

use super::{clock, json};

/// The response header that repeats the code of an error.
pub(super) const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// The form of the time in an error: RFC 1123, as in `Sat, 05 Dec 2020 10:00:00 GMT`.
const RFC_1123: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// Which service a request is for, and in whose form it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Face {
    /// IoT Central: `{"error": {"code", "message", "requestId", "time"}}`.
    Application,
    /// The Device Provisioning Service: `{"errorCode", "trackingId", "message", "timestampUtc"}`.
    Provisioning,
}

impl Face {
    pub(super) fn of(path: &str) -> Self {
        let mut segments = path.split('/').skip(1);
        match (segments.next(), segments.next()) {
            (Some(id_scope), Some("registrations")) if id_scope != "api" => Self::Provisioning,
            _ => Self::Application,
        }
    }
}

/// A refusal. It becomes the service's error body when the answer leaves: only there are the request's id and the time
/// known ([`finish`]).
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    status: StatusCode,
    /// The code of the Device Provisioning Service, where it is not the status's own.
    error_code: Option<u32>,
    message: String,
    retry_after: Option<RetryAfter>,
}

/// The two forms of the `Retry-After` header (RFC 9110 section 10.2.3).
#[derive(Debug, Clone, Copy)]
pub(super) enum RetryAfter {
    Seconds(u64),
    /// The date that is so many seconds ahead.
    Date(u64),
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, error_code: None, message: message.into(), retry_after: None }
    }

    /// The query, the path or the JSON cannot be understood.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// What the path names does not exist.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The body is JSON, and says something that cannot be.
    pub(super) fn invalid_body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// The request contradicts something else that exists.
    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(super) fn retry_after(self, retry_after: Option<RetryAfter>) -> Self {
        Self { retry_after, ..self }
    }

    /// A refusal of the Device Provisioning Service; the first digits of the code are the status.
    pub(super) fn provisioning(error_code: u32, message: impl Into<String>) -> Self {
        let status = u16::try_from(error_code / 1000).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let error = Self::new(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), message);
        Self { error_code: Some(error_code), ..error }
    }

    fn error_code(&self) -> u32 {
        self.error_code.unwrap_or_else(|| match self.status.as_u16() {
            400 => 400_004,
            429 => 429_001,
            status => u32::from(status) * 1000,
        })
    }

    /// The code, one for each status. The documentation names the statuses and no codes.
    fn code(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST => "BadRequest",
            StatusCode::UNAUTHORIZED => "Unauthorized",
            StatusCode::FORBIDDEN => "Forbidden",
            StatusCode::NOT_FOUND => "NotFound",
            StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
            StatusCode::REQUEST_TIMEOUT => "RequestTimeout",
            StatusCode::CONFLICT => "Conflict",
            StatusCode::PRECONDITION_FAILED => "PreconditionFailed",
            StatusCode::PAYLOAD_TOO_LARGE => "PayloadTooLarge",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaType",
            StatusCode::UNPROCESSABLE_ENTITY => "InvalidBody",
            StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
            status if status.is_client_error() => "BadRequest",
            _ => "InternalServerError",
        }
    }
}

/// The system has no randomness to give, which is no fault of the request.
impl From<aws_lc_rs::error::Unspecified> for ApiError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the system's random number generator failed")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the body of a response that is an [`ApiError`]; any other is left as it is.
pub(super) fn finish(mut response: Response, face: Face, request_id: &str, now: OffsetDateTime) -> Response {
    let Some(mut error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let (code, body) = match face {
        Face::Application => {
            let (code, time) = (error.code(), rfc_1123(now));
            let body = json!({ "code": code, "message": error.message, "requestId": request_id, "time": time });
            (HeaderValue::from_static(code), json!({ "error": body }))
        }
        Face::Provisioning => {
            if error.status == StatusCode::UNPROCESSABLE_ENTITY {
                error.status = StatusCode::BAD_REQUEST;
            }
            let (code, time) = (error.error_code(), clock::timestamp(now));
            let body = json!({
                "errorCode": code, "trackingId": request_id, "message": error.message, "timestampUtc": time
            });
            (HeaderValue::from(code), body)
        }
    };
    let mut finished = json::answer(error.status, &body);
    let headers = finished.headers_mut();
    headers.insert(ERROR_CODE, code);
    let retry_after = match error.retry_after {
        None => None,
        Some(RetryAfter::Seconds(seconds)) => Some(HeaderValue::from(seconds)),
        Some(RetryAfter::Date(seconds)) => HeaderValue::try_from(rfc_1123(later(now, seconds))).ok(),
    };
    if let Some(retry_after) = retry_after {
        headers.insert(header::RETRY_AFTER, retry_after);
    }
    // Which methods a route has (RFC 9110 section 15.5.6) is written by the router.
    if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
        headers.insert(header::ALLOW, allow);
    }
    finished
}

fn rfc_1123(time: OffsetDateTime) -> String {
    // Every component of the format is there, and years before 10,000 are written.
    time.to_offset(UtcOffset::UTC).format(RFC_1123).unwrap_or_default()
}

/// So many seconds later, rounded up to a whole one, which is all that a date has. It stops at the last moment that can be
/// represented.
fn later(now: OffsetDateTime, seconds: u64) -> OffsetDateTime {
    let seconds = seconds.saturating_add(u64::from(now.nanosecond() > 0));
    let later = i64::try_from(seconds).ok().and_then(|seconds| now.checked_add(Duration::seconds(seconds)));
    later.unwrap_or_else(|| PrimitiveDateTime::MAX.assume_utc())
}
