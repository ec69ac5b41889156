//! JSON bodies of requests and responses.

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Map, Value};

use super::{
    api_error::ApiError,
    context::SharedContext,
    exchange_log::BodyRecorder,
    fields::{FieldError, Fields},
};

/// The maximum size of a body in bytes. Choice: no limit is documented.
const MAX_BODY: usize = 1 << 20;

/// The number of bytes that are read of a body that is too large: a client that is cut off while it sends never sees
/// the 413.
pub(super) const MAX_READ: usize = 8 << 20;

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// Creates a response with a JSON body.
pub(super) fn json_response(status: StatusCode, value: &Value) -> Response {
    // Serializing a `Value` cannot fail.
    let mut response = Response::new(Body::from(serde_json::to_vec(value).unwrap_or_default()));
    *response.status_mut() = status;
    let media_type = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// The members of an `application/json` body.
pub(super) struct Json(pub(super) Fields);

impl FromRequest<SharedContext> for Json {
    type Rejection = ApiError;

    async fn from_request(request: Request, context: &SharedContext) -> Result<Self, ApiError> {
        Ok(Self(Fields::from_body(read(request, context, &[JSON]).await?)?))
    }
}

/// The members of a body, if it is a JSON object. Its media type is not checked.
pub(super) struct OptionalJson(pub(super) Option<Fields>);

impl FromRequest<SharedContext> for OptionalJson {
    type Rejection = ApiError;

    async fn from_request(request: Request, context: &SharedContext) -> Result<Self, ApiError> {
        let body = read_bytes(request, context).await?;
        Ok(Self(serde_json::from_slice(&body).ok().and_then(|body| Fields::from_body(body).ok())))
    }
}

/// A JSON merge patch (RFC 7396). Its type is `application/merge-patch+json` or `application/json`: the API description
/// lists both, and shipped clients send the latter.
pub(super) struct MergePatch(Value);

impl FromRequest<SharedContext> for MergePatch {
    type Rejection = ApiError;

    async fn from_request(request: Request, context: &SharedContext) -> Result<Self, ApiError> {
        read(request, context, &[MERGE_PATCH, JSON]).await.map(Self)
    }
}

impl MergePatch {
    /// Returns the document with the patch applied (RFC 7396 section 2). Not a crate, as those for it also bring JSON
    /// Patch and JSON Pointer.
    pub(super) fn apply_to(&self, document: &Value) -> Value {
        let mut merged = document.clone();
        merge(&mut merged, &self.0);
        merged
    }

    /// Returns an error if a member other than `names` is null. Members of nested objects are not checked.
    pub(super) fn check_nulls(&self, names: &[&str]) -> Result<(), FieldError> {
        let mut members = self.0.as_object().into_iter().flatten();
        match members.find(|(name, value)| value.is_null() && !names.contains(&name.as_str())) {
            Some((name, _)) => Err(FieldError::new(name, "cannot be null")),
            None => Ok(()),
        }
    }

    /// Returns the value at a JSON pointer (RFC 6901) of the patch.
    pub(super) fn pointer(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer)
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(members) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), value);
        }
    }
}

async fn read(request: Request, context: &SharedContext, media_types: &[&str]) -> Result<Value, ApiError> {
    check_media_type(request.headers(), media_types)?;
    parse_json(&read_bytes(request, context).await?)
}

async fn read_bytes(request: Request, context: &SharedContext) -> Result<Bytes, ApiError> {
    let recorder = request.extensions().get::<BodyRecorder>().cloned();
    let body = tokio::time::timeout(context.read_timeout, Bytes::from_request(request, context))
        .await
        .map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))?;
    if let (Ok(body), Some(recorder)) = (&body, recorder) {
        recorder.keep(body);
    }
    let too_large = || {
        let message = format!("the body is too large: the maximum is {MAX_BODY} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    match body {
        Ok(body) if body.len() <= MAX_BODY => Ok(body),
        Ok(_) => Err(too_large()),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_large()),
        Err(_) => Err(ApiError::bad_request("the body could not be read completely")),
    }
}

/// Parses a body.
pub(super) fn parse_json(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        // The position only: the parser's own text is not part of the API.
        let (line, column) = (error.line(), error.column());
        ApiError::bad_request(format!("the body is not JSON: syntax error at line {line}, column {column}"))
    })
}

/// Checks the `Content-Type`.
///
/// Choice: a `charset` is accepted if it is UTF-8, the only one of JSON (RFC 8259 section 8.1). Other parameters are
/// ignored.
fn check_media_type(headers: &HeaderMap, expected: &[&str]) -> Result<(), ApiError> {
    let mut all = headers.get_all(header::CONTENT_TYPE).iter();
    let found = match (all.next(), all.next()) {
        (None, _) => "nothing",
        (Some(one), None) => one.to_str().unwrap_or("something unreadable"),
        (Some(_), Some(_)) => "several",
    };
    let mut parts = found.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let charset = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.eq_ignore_ascii_case("charset"));
    let is_utf_8 = charset.is_none_or(|(_, charset)| charset.trim_matches('"').eq_ignore_ascii_case("utf-8"));
    if is_utf_8 && expected.iter().any(|expected| essence.eq_ignore_ascii_case(expected)) {
        return Ok(());
    }
    let message = format!("Content-Type must be {}, in UTF-8; found {found}", expected.join(" or "));
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}
