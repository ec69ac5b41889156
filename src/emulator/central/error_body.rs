//! The error bodies of IoT Central: `{"error": {"code", "message", "requestId", "time"}}`.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    certificate::Timestamp,
    emulator::api_error::{ApiError, http_date},
};

/// Returns the error code and the body of an error response.
pub(crate) fn error_body(error: &ApiError, request_id: &str, now: Timestamp) -> (&'static str, Value) {
    let code = error_code(error.status);
    let body = json!({ "code": code, "message": error.message, "requestId": request_id, "time": http_date(now) });
    (code, json!({ "error": body }))
}

/// Returns the error code of a status. The API description lists the statuses, but no codes.
fn error_code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::REQUEST_TIMEOUT => "RequestTimeout",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::PRECONDITION_FAILED => "PreconditionFailed",
        StatusCode::PAYLOAD_TOO_LARGE => "PayloadTooLarge",
        StatusCode::MISDIRECTED_REQUEST => "MisdirectedRequest",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaType",
        StatusCode::UNPROCESSABLE_ENTITY => "InvalidBody",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        status if status.is_client_error() => "BadRequest",
        _ => "InternalServerError",
    }
}
