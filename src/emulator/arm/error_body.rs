//! The error bodies of Resource Manager.
//!
//! Errors of Resource Manager itself are `{"error": {"code", "message"}}`. Those of the resource provider are `{"code",
//! "httpStatusCode", "message", "details"}`, with a number as the code.
//!
//! # Where the documentation is silent
//! - **Error codes** of the provider are the status and three more digits. The only one that is known is 400053, for a
//!   proof of possession that fails. Others end in 000.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::emulator::api_error::{ApiError, ErrorCode};

/// Returns the status and the body of an error response.
pub(crate) fn error_body(error: &ApiError) -> (StatusCode, Value) {
    // Invalid content of a body is 400 here and not 422 as at IoT Central.
    let status = match error.status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        status => status,
    };
    let body = match error.code {
        Some(ErrorCode::Number(code)) => {
            // The names of .NET, as in `PreconditionFailed`.
            let name = status.canonical_reason().unwrap_or_default().replace(' ', "");
            json!({ "code": code, "httpStatusCode": name, "message": error.message, "details": null })
        }
        Some(ErrorCode::Name(name)) => json!({ "error": { "code": name, "message": error.message } }),
        None => json!({ "error": { "code": error_code(status), "message": error.message } }),
    };
    (status, body)
}

/// Returns the error code of a status.
fn error_code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "InvalidAuthenticationToken",
        StatusCode::FORBIDDEN => "AuthorizationFailed",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::PRECONDITION_FAILED => "PreconditionFailed",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        status if status.is_client_error() => "BadRequest",
        _ => "InternalServerError",
    }
}
