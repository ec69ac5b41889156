//! The handlers of registration records.
//!
//! # Where the documentation is silent
//! - **The body** of the query of a group's records is ignored: the API description has none, and SDKs send one.

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::Response,
    routing::{get as on_get, post as on_post},
};

use super::{changes::find, enrollments::EnrollmentId, query::PageRequest};
use crate::emulator::{
    api_error::{ApiError, ErrorCode},
    body::json_response,
    context::SharedContext,
    dps::{
        error::REGISTRATION_NOT_FOUND,
        model::{Instance, Kind},
        registration::Registration,
    },
    precondition::IfMatch,
};

/// Returns the routes of registration records.
pub(crate) fn routes() -> Router<SharedContext> {
    Router::new()
        .route("/registrations/{id}", on_get(get).delete(delete))
        .route("/registrations/{id}/query", on_post(query))
}

fn find_record<'a>(instance: &'a Instance, id: &str) -> Result<&'a Registration, ApiError> {
    instance.registration(id).ok_or_else(|| {
        let message = format!("there is no registration {id:?}");
        ApiError::new(StatusCode::NOT_FOUND, message).code(ErrorCode::Number(REGISTRATION_NOT_FOUND))
    })
}

async fn get(State(context): State<SharedContext>, EnrollmentId(id): EnrollmentId) -> Result<Response, ApiError> {
    let shown = context.store.with(|state| find_record(&state.instance, &id).map(Registration::show_record))?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn delete(
    State(context): State<SharedContext>,
    EnrollmentId(id): EnrollmentId,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    context.store.with(|state| {
        if_match.check_quoted(find_record(&state.instance, &id)?.etag)?;
        state.instance.remove_registration(&id);
        Ok(StatusCode::NO_CONTENT)
    })
}

async fn query(
    State(context): State<SharedContext>,
    EnrollmentId(group): EnrollmentId,
    request: PageRequest,
) -> Result<Response, ApiError> {
    context.store.with(|state| {
        find(&state.instance, Kind::Group, &group)?;
        Ok(request.page(&context, "deviceRegistration", &state.instance.registrations, |record| {
            record.is_in_group(&group).then(|| record.show_record())
        }))
    })
}
