//! The changes of enrollments that single requests and bulk operations make.

use axum::http::StatusCode;

use crate::{
    certificate::Timestamp,
    emulator::{
        api_error::{ApiError, ErrorCode},
        dps::{
            error::ENROLLMENT_NOT_FOUND,
            model::{Enrollment, EnrollmentBody, Instance, Kind, ServiceVersion},
        },
        fields::Fields,
        state::State,
    },
};

/// Creates an enrollment, whose ID must be new.
pub(crate) fn create(
    instance: &mut Instance,
    kind: Kind,
    body: EnrollmentBody,
    now: Timestamp,
) -> Result<(), ApiError> {
    if let Some(current) = instance.find(kind, &body.id) {
        let message =
            format!("the {} {:?} already exists; send its etag in If-Match to update it", kind.name(), current.id);
        return Err(ApiError::conflict(message));
    }
    set(instance, kind, body, now)
}

/// Replaces an enrollment if `check` accepts the current one.
pub(crate) fn update(
    instance: &mut Instance,
    kind: Kind,
    body: EnrollmentBody,
    now: Timestamp,
    check: impl FnOnce(&Enrollment) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    check(find(instance, kind, &body.id)?)?;
    set(instance, kind, body, now)
}

/// Deletes an enrollment if `check` accepts it.
pub(crate) fn delete(
    instance: &mut Instance,
    kind: Kind,
    id: &str,
    check: impl FnOnce(&Enrollment) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    check(find(instance, kind, id)?)?;
    instance.remove(kind, id);
    Ok(())
}

/// Finds the enrollment with an ID.
pub(crate) fn find<'a>(instance: &'a Instance, kind: Kind, id: &str) -> Result<&'a Enrollment, ApiError> {
    instance.find(kind, id).ok_or_else(|| {
        let message = format!("there is no {} {id:?}", kind.name());
        ApiError::new(StatusCode::NOT_FOUND, message).code(ErrorCode::Number(ENROLLMENT_NOT_FOUND))
    })
}

/// Creates the enrollment of a seed, unless there is one with its ID.
pub(crate) fn seed(state: &mut State, fields: Fields, kind: Kind, now: Timestamp) -> Result<(), ApiError> {
    let body = EnrollmentBody::read(fields, kind, ServiceVersion::Namespace, now)?;
    if state.instance.find(kind, &body.id).is_some() {
        return Ok(());
    }
    set(&mut state.instance, kind, body, now)
}

fn set(instance: &mut Instance, kind: Kind, body: EnrollmentBody, now: Timestamp) -> Result<(), ApiError> {
    instance.check_conflicts(kind, &body.id, &body.attestation)?;
    let current = instance.find(kind, &body.id);
    let enrollment = body.into_enrollment(current, now)?;
    instance.insert(kind, enrollment);
    Ok(())
}
