//! `/__admin/requests`: the recent requests and responses, for tests that run in another process than the emulator.
//!
//! It needs the token of the application. GET returns `{"requests": […]}`, the oldest first, and takes the parameters `path`
//! (a part of the path), `method` and `status`. DELETE forgets them. Requests to `/__admin` and `/health` are not recorded.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::{
    api_error::ApiError,
    body::json_response,
    central,
    context::{Context, SharedContext},
    dps,
    exchange_log::{Exchange, RecordedBody},
    path::{unknown_method, unknown_path},
    redaction::Redaction,
};

/// Returns the routes below `/__admin`.
pub(super) fn router(context: &SharedContext) -> Router<SharedContext> {
    Router::new()
        .route("/requests", get(list).delete(clear))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(from_fn_with_state(Arc::clone(context), authorize))
}

async fn authorize(State(context): State<SharedContext>, request: Request, next: Next) -> Response {
    match central::authorize(request.headers(), &context.token) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn list(State(context): State<SharedContext>, request: Request) -> Result<Response, ApiError> {
    let filter = Filter::parse(request.uri().query().unwrap_or_default())?;
    let redaction = redaction(&context);
    let exchanges = context.exchanges.all();
    let shown: Vec<_> =
        exchanges.iter().filter(|exchange| filter.matches(exchange)).map(|found| show(found, &redaction)).collect();
    Ok(json_response(StatusCode::OK, &json!({ "requests": shown })))
}

async fn clear(State(context): State<SharedContext>) -> StatusCode {
    context.exchanges.clear();
    context.log.clear();
    StatusCode::NO_CONTENT
}

/// What is listed.
#[derive(Default)]
struct Filter {
    path: Option<String>,
    method: Option<String>,
    status: Option<StatusCode>,
}

impl Filter {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut filter = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "path" => filter.path = Some(value.into_owned()),
                "method" => filter.method = Some(value.to_ascii_uppercase()),
                "status" => {
                    let invalid = |_| ApiError::bad_request(format!("status: {value:?} is not a status"));
                    filter.status = Some(value.parse().map_err(invalid)?);
                }
                _ => {
                    let message = format!("unknown query parameter {name:?}; use path, method or status");
                    return Err(ApiError::bad_request(message));
                }
            }
        }
        Ok(filter)
    }

    fn matches(&self, exchange: &Exchange) -> bool {
        let status = exchange.response.as_ref().map(|response| response.status);
        self.path.as_ref().is_none_or(|part| exchange.path.contains(part))
            && self.method.as_ref().is_none_or(|method| *method == exchange.method)
            && self.status.is_none_or(|expected| status == Some(expected))
    }
}

/// Returns what removes the emulator's own secrets, and what looks like one.
fn redaction(context: &Context) -> Redaction<'_> {
    let policies = context.instance.policies.iter().flat_map(|policy| policy.key.encoded());
    Redaction::new([context.token.as_str(), context.arm_token.as_str()].into_iter().chain(policies))
}

fn show(exchange: &Exchange, redaction: &Redaction<'_>) -> Value {
    let mut shown = json!({
        "protocol": exchange.protocol,
        "time": dps::timestamp::timestamp(exchange.time),
        "method": exchange.method,
        "path": redaction.text(&exchange.path),
        "query": redaction.query(exchange.query.as_deref().unwrap_or_default()),
        "headers": redaction.headers(&exchange.headers),
        "response": null,
    });
    show_body(&mut shown, &exchange.body, redaction);
    if let Some(response) = &exchange.response {
        shown["response"] = show_response(response.status, &response.headers, &response.body, redaction);
    }
    shown
}

fn show_response(status: StatusCode, headers: &HeaderMap, body: &RecordedBody, redaction: &Redaction<'_>) -> Value {
    let mut shown = json!({ "status": status.as_u16(), "headers": redaction.headers(headers) });
    show_body(&mut shown, body, redaction);
    shown
}

/// Adds `body`, or `bodySize` if the body is not JSON or was too large to be kept.
fn show_body(shown: &mut Value, body: &RecordedBody, redaction: &Redaction<'_>) {
    match body {
        RecordedBody::None => {}
        RecordedBody::Bytes(bytes) => match redaction.body(bytes) {
            Some(body) => shown["body"] = body,
            None => shown["bodySize"] = json!(bytes.len()),
        },
        RecordedBody::TooLarge(size) => shown["bodySize"] = json!(size),
    }
}
