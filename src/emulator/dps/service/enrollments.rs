//! The handlers of individual enrollments and enrollment groups.

use axum::{
    Extension, Router,
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
    response::Response,
    routing::{get as on_get, post as on_post},
};
use serde_json::Value;

use super::{
    bulk,
    changes::{self, find},
    query::{PageRequest, check_query},
};
use crate::emulator::{
    api_error::ApiError,
    body::{Json, json_response},
    context::SharedContext,
    dps::model::{Enrollment, EnrollmentBody, Instance, Kind, ServiceVersion, invalid_id, is_enrollment_id},
    fields::{FieldError, Fields},
    path::path_parameter,
    precondition::IfMatch,
};

/// Returns the routes of a kind of enrollments.
pub(crate) fn routes(kind: Kind) -> Router<SharedContext> {
    let collection = format!("/{}", kind.collection());
    Router::new()
        .route(&collection, on_post(bulk::run))
        // An enrollment with the ID `query` has the other methods.
        .route(&format!("{collection}/query"), on_post(query).get(get).put(put).delete(delete))
        .route(&format!("{collection}/{{id}}"), on_get(get).put(put).delete(delete))
        .route(&format!("{collection}/{{id}}/attestationmechanism"), on_post(attestation_mechanism))
        .layer(Extension(kind))
}

/// A valid ID in the path.
pub(crate) struct EnrollmentId(pub(crate) String);

impl<S: Sync> FromRequestParts<S> for EnrollmentId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let id = match path_parameter(parts, "id").await {
            // The route of queries has no parameter.
            Err(error) if error.status == StatusCode::NOT_FOUND => "query".to_owned(),
            found => found?,
        };
        if is_enrollment_id(&id) { Ok(Self(id)) } else { Err(ApiError::bad_request(invalid_id(&id))) }
    }
}

/// Returns the JSON of an enrollment. That of an individual one has the state of its registration.
fn show(instance: &Instance, kind: Kind, enrollment: &Enrollment) -> Value {
    let mut shown = enrollment.show(kind);
    if kind == Kind::Individual
        && let Some(registration) = instance.registration(&enrollment.id)
        && registration.group_id().is_none()
    {
        shown["registrationState"] = registration.show_record();
    }
    shown
}

async fn get(
    State(context): State<SharedContext>,
    Extension(kind): Extension<Kind>,
    EnrollmentId(id): EnrollmentId,
) -> Result<Response, ApiError> {
    let shown = context.store.with(|state| {
        let instance = &state.instance;
        find(instance, kind, &id).map(|enrollment| show(instance, kind, enrollment))
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn put(
    State(context): State<SharedContext>,
    Extension(kind): Extension<Kind>,
    Extension(version): Extension<ServiceVersion>,
    EnrollmentId(id): EnrollmentId,
    if_match: IfMatch,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let now = context.clock.timestamp();
    let body = EnrollmentBody::read(fields, kind, version, now)?;
    if !body.id.eq_ignore_ascii_case(&id) {
        let problem = format_args!("found {:?}, but the path has {id:?}", body.id);
        return Err(FieldError::new(kind.id_member(), problem).into());
    }
    let shown = context.store.with(|state| {
        let instance = &mut state.instance;
        if if_match.is_given() {
            changes::update(instance, kind, body, now, |current| if_match.check_quoted(current.etag))?;
        } else {
            changes::create(instance, kind, body, now)?;
        }
        find(instance, kind, &id).map(|enrollment| show(instance, kind, enrollment))
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn delete(
    State(context): State<SharedContext>,
    Extension(kind): Extension<Kind>,
    EnrollmentId(id): EnrollmentId,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    context
        .store
        .with(|state| changes::delete(&mut state.instance, kind, &id, |current| if_match.check_quoted(current.etag)))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn attestation_mechanism(
    State(context): State<SharedContext>,
    Extension(kind): Extension<Kind>,
    EnrollmentId(id): EnrollmentId,
) -> Result<Response, ApiError> {
    let shown = context
        .store
        .with(|state| find(&state.instance, kind, &id).map(|enrollment| enrollment.attestation.show_with_keys()))?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn query(
    State(context): State<SharedContext>,
    Extension(kind): Extension<Kind>,
    request: PageRequest,
    Json(mut fields): Json,
) -> Result<Response, ApiError> {
    let query = fields.required("query", Fields::string)?;
    fields.finish()?;
    check_query(&query, kind.collection())?;
    Ok(context.store.with(|state| {
        let instance = &state.instance;
        let show = |enrollment: &Enrollment| Some(show(instance, kind, enrollment));
        request.page(&context, kind.item_type(), instance.enrollments(kind), show)
    }))
}
