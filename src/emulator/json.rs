//! Bodies: JSON in, checked field by field, and JSON out.

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Map, Value};

use super::{application::Shared, error::ApiError};

/// The most bytes a body may have.
const MAX_BODY: usize = 1 << 20;

/// How much of a body that is too large is still read: whoever is cut off while sending never sees the 413.
pub(super) const MAX_READ: usize = 8 << 20;

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// A JSON answer.
pub(super) fn answer(status: StatusCode, value: &Value) -> Response {
    // A value can always be written.
    let mut response = Response::new(Body::from(serde_json::to_vec(value).unwrap_or_default()));
    *response.status_mut() = status;
    let media_type = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// The fields of a body that is `application/json`.
pub(super) struct Json(pub(super) Fields);

impl FromRequest<Shared> for Json {
    type Rejection = ApiError;

    async fn from_request(request: Request, application: &Shared) -> Result<Self, ApiError> {
        Fields::of_body(read(request, application, &[JSON]).await?).map(Self)
    }
}

/// A body that is a merge patch. It may call itself `application/merge-patch+json` or `application/json`: the description
/// lists both, and shipped clients send the second.
pub(super) struct MergePatch(Value);

impl FromRequest<Shared> for MergePatch {
    type Rejection = ApiError;

    async fn from_request(request: Request, application: &Shared) -> Result<Self, ApiError> {
        read(request, application, &[MERGE_PATCH, JSON]).await.map(Self)
    }
}

impl MergePatch {
    /// The document with the patch applied (RFC 7396 section 2). A few lines that have not changed since 2014; a crate for
    /// them would bring JSON Patch and JSON Pointer.
    pub(super) fn apply_to(&self, document: &Value) -> Value {
        let mut merged = document.clone();
        merge(&mut merged, &self.0);
        merged
    }

    /// Refuses null for the members that cannot be reset. Those of objects in them are not looked at.
    pub(super) fn only_nullable(&self, names: &[&str]) -> Result<(), ApiError> {
        let mut members = self.0.as_object().into_iter().flatten();
        match members.find(|(name, value)| value.is_null() && !names.contains(&name.as_str())) {
            Some((name, _)) => Err(ApiError::invalid_body(format!("{name}: it cannot be null"))),
            None => Ok(()),
        }
    }

    /// What the patch says at this place (RFC 6901).
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

async fn read(request: Request, application: &Shared, media_types: &[&str]) -> Result<Value, ApiError> {
    check_media_type(request.headers(), media_types)?;
    let body = tokio::time::timeout(application.read_timeout, Bytes::from_request(request, application))
        .await
        .map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))?;
    let too_large =
        || ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {MAX_BODY} bytes; send less"));
    match body {
        Ok(body) if body.len() <= MAX_BODY => serde_json::from_slice(&body)
            .map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}"))),
        Ok(_) => Err(too_large()),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_large()),
        Err(_) => Err(ApiError::bad_request("the body could not be read to its end")),
    }
}

/// Choice: a `charset` may be given where it is UTF-8, the only one JSON has (RFC 8259 section 8.1); other parameters are
/// passed over.
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
    let utf_8 = charset.is_none_or(|(_, charset)| charset.trim_matches('"').eq_ignore_ascii_case("utf-8"));
    if utf_8 && expected.iter().any(|expected| essence.eq_ignore_ascii_case(expected)) {
        return Ok(());
    }
    let message = format!("Content-Type must be {}, in UTF-8; found {found}", expected.join(" or "));
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

/// The members of a JSON object, taken out one by one, so that what is left at the end is what nobody knows.
///
/// Written by hand where serde's derive would do, since that takes an array for a structure, an object for a variant and
/// null for an absent field, and the contract allows none of these.
///
/// Choice: an unknown member is refused, as a misspelt one would otherwise be lost without a word.
pub(super) struct Fields {
    path: String,
    members: Map<String, Value>,
}

impl Fields {
    pub(super) fn of_body(value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(members) => Ok(Self { path: String::new(), members }),
            other => Err(ApiError::invalid_body(format!("the body: expected an object, found {}", kind(&other)))),
        }
    }

    pub(super) fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.take(name, "a string", |value| match value {
            Value::String(text) => Ok(text),
            other => Err(other),
        })
    }

    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.take(name, "true or false", |value| value.as_bool().ok_or(value))
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, ApiError> {
        let path = self.path_of(name);
        self.take(name, "an object", |value| match value {
            Value::Object(members) => Ok(Self { path, members }),
            other => Err(other),
        })
    }

    /// An object whose members are not looked at.
    pub(super) fn any_object(&mut self, name: &str) -> Result<Option<Value>, ApiError> {
        self.take(name, "an object", |value| if value.is_object() { Ok(value) } else { Err(value) })
    }

    pub(super) fn strings(&mut self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        self.take(name, "an array of strings", |value| {
            let all = value.as_array().and_then(|all| all.iter().map(|one| one.as_str().map(str::to_owned)).collect());
            all.ok_or(value)
        })
    }

    /// A value of any kind.
    pub(super) fn any(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name)
    }

    /// Whether the field is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// A string that is one of those `parse` knows; `expected` lists them.
    pub(super) fn choice<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.string(name)? else { return Ok(None) };
        parse(&text).map(Some).ok_or_else(|| self.refuse(name, format_args!("expected {expected}, found {text:?}")))
    }

    /// A field that must be there; `read` is one of the other readers.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self, &str) -> Result<Option<T>, ApiError>,
    ) -> Result<T, ApiError> {
        read(self, name)?.ok_or_else(|| self.refuse(name, "is missing"))
    }

    /// Nothing else may be there.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.members.keys().next() {
            Some(name) => Err(self.refuse(name, "is not a field that is known here")),
            None => Ok(()),
        }
    }

    /// The refusal of a field's value.
    pub(super) fn refuse(&self, name: &str, why: impl std::fmt::Display) -> ApiError {
        ApiError::invalid_body(format!("{}: {why}", self.path_of(name)))
    }

    fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(Value) -> Result<T, Value>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.members.remove(name) else { return Ok(None) };
        read(value)
            .map(Some)
            .map_err(|other| self.refuse(name, format_args!("expected {expected}, found {}", kind(&other))))
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// What a value is, without saying its content, which may be secret.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
