//! The keys of the instance's shared access policies.

use axum::{
    Router,
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
    response::Response,
    routing::post as on_post,
};
use serde_json::{Value, json};

use super::instance::{INSTANCE, InstancePath};
use crate::emulator::{
    api_error::{ApiError, ErrorCode},
    body::json_response,
    context::SharedContext,
    dps::settings::Policy,
    path::path_parameter,
};

/// Returns the routes of keys.
pub(crate) fn routes() -> Router<SharedContext> {
    Router::new()
        .route(&format!("{INSTANCE}/listkeys"), on_post(list))
        .route(&format!("{INSTANCE}/keys/{{key}}/listkeys"), on_post(get))
}

/// The name of a policy in the path.
struct PolicyName(String);

impl<S: Sync> FromRequestParts<S> for PolicyName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        path_parameter(parts, "key").await.map(Self)
    }
}

async fn list(State(context): State<SharedContext>, _: InstancePath) -> Response {
    let keys: Vec<_> = context.instance.policies.iter().map(show).collect();
    json_response(StatusCode::OK, &json!({ "value": keys }))
}

async fn get(
    State(context): State<SharedContext>,
    _: InstancePath,
    PolicyName(name): PolicyName,
) -> Result<Response, ApiError> {
    let policy = context
        .instance
        .policy(&name)
        .ok_or_else(|| ApiError::not_found(format!("there is no policy {name:?}")).code(ErrorCode::Number(404_000)))?;
    Ok(json_response(StatusCode::OK, &show(policy)))
}

/// Returns a policy with its keys. Several rights are separated by commas.
fn show(policy: &Policy) -> Value {
    let mut shown = policy.key.show();
    shown["keyName"] = json!(policy.name);
    let rights: Vec<_> = policy.rights.iter().map(|right| right.name()).collect();
    shown["rights"] = json!(rights.join(", "));
    shown
}
