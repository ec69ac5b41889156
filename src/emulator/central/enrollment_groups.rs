//! The handlers of signing certificates of enrollment groups.

use axum::{
    Router,
    extract::{self, FromRequestParts},
    http::{StatusCode, request::Parts},
    middleware::from_fn,
    response::Response,
    routing::{get as on_get, post as on_post},
};
use serde_json::json;

use super::{
    documents::{self, find},
    id::Id,
    middleware::{no_if_match, no_parameters},
    model::{CertificateBody, EnrollmentGroup, Entry, SigningCertificate, read_proof},
};
use crate::emulator::{
    api_error::ApiError,
    body::{Json, json_response},
    context::SharedContext,
    path::path_parameter,
    precondition::IfMatch,
    state::State,
};

/// Returns the routes of enrollment groups, below `/api`.
pub(crate) fn routes() -> Router<SharedContext> {
    let proof = Router::new()
        .route("/enrollmentGroups/{id}/certificates/{entry}/generateVerificationCode", on_post(generate_code))
        .route("/enrollmentGroups/{id}/certificates/{entry}/verify", on_post(verify))
        .route_layer(from_fn(no_parameters))
        .route_layer(from_fn(no_if_match));
    let certificates = Router::new()
        .route("/enrollmentGroups/{id}/certificates/{entry}", on_get(get).put(put).delete(delete))
        .route_layer(from_fn(no_parameters));
    documents::routes::<EnrollmentGroup>().merge(certificates).merge(proof)
}

impl<S: Sync> FromRequestParts<S> for Entry {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let text = path_parameter(parts, "entry").await?;
        let invalid = || ApiError::bad_request(format!("{text:?} is not an entry: use primary or secondary"));
        Self::parse(&text).ok_or_else(invalid)
    }
}

fn find_certificate<'a>(
    id: &Id<EnrollmentGroup>,
    entry: Entry,
    state: &'a mut State,
) -> Result<&'a mut SigningCertificate, ApiError> {
    let not_found =
        || ApiError::not_found(format!("the enrollment group {:?} has no {} certificate", id.text, entry.name()));
    find(id, state)?.value.certificate(entry).ok_or_else(not_found)
}

async fn get(
    extract::State(context): extract::State<SharedContext>,
    id: Id<EnrollmentGroup>,
    entry: Entry,
    if_match: IfMatch,
) -> Result<Response, ApiError> {
    let shown = context.store.with(|state| {
        let certificate = find_certificate(&id, entry, state)?;
        if_match.check(Some(&certificate.etag))?;
        Ok::<_, ApiError>(certificate.show())
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn put(
    extract::State(context): extract::State<SharedContext>,
    id: Id<EnrollmentGroup>,
    entry: Entry,
    if_match: IfMatch,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let body = CertificateBody::read(fields, context.clock.timestamp())?;
    let shown = context.store.with(|state| {
        let group = &mut find(&id, state)?.value;
        Ok::<_, ApiError>(group.set_certificate(&id.text, entry, body, &if_match)?.show())
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn delete(
    extract::State(context): extract::State<SharedContext>,
    id: Id<EnrollmentGroup>,
    entry: Entry,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    context.store.with(|state| {
        if_match.check(Some(&find_certificate(&id, entry, state)?.etag))?;
        find(&id, state)?.value.remove_certificate(entry);
        Ok(StatusCode::NO_CONTENT)
    })
}

async fn generate_code(
    extract::State(context): extract::State<SharedContext>,
    id: Id<EnrollmentGroup>,
    entry: Entry,
) -> Result<Response, ApiError> {
    let shown = context.store.with(|state| {
        let code = find_certificate(&id, entry, state)?.generate_code()?;
        Ok::<_, ApiError>(json!({ "verificationCode": code }))
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn verify(
    extract::State(context): extract::State<SharedContext>,
    id: Id<EnrollmentGroup>,
    entry: Entry,
    Json(fields): Json,
) -> Result<StatusCode, ApiError> {
    let proof = read_proof(fields)?;
    context.store.with(|state| {
        find_certificate(&id, entry, state)?.verify(&proof, context.clock.timestamp())?;
        Ok(StatusCode::NO_CONTENT)
    })
}
