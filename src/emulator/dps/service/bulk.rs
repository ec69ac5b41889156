//! Bulk operations on enrollments.
//!
//! # Where the documentation is silent
//! - **The elements** are processed in their order. One that fails does not stop the others.
//! - **The status** is 200 also if elements fail: `isSuccessful` and `errors` tell.
//! - **`delete`** needs only the ID of an element, and honors its etag.
//! - **An element without a valid ID**, or more than 10 elements, make the whole request fail (400).

use axum::{Extension, extract::State, http::StatusCode, response::Response};
use serde_json::{Value, json};

use super::changes;
use crate::{
    certificate::Timestamp,
    emulator::{
        api_error::ApiError,
        body::{Json, json_response},
        context::SharedContext,
        dps::{
            DpsError,
            model::{Enrollment, EnrollmentBody, Instance, Kind, ServiceVersion, invalid_id, is_enrollment_id},
        },
        fields::Fields,
    },
};

/// The highest number of elements.
const MAX_ELEMENTS: usize = 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Create,
    Update,
    UpdateIfMatch,
    Delete,
}

/// Handles a bulk operation.
pub(crate) async fn run(
    State(context): State<SharedContext>,
    Extension(kind): Extension<Kind>,
    Extension(version): Extension<ServiceVersion>,
    Json(mut fields): Json,
) -> Result<Response, ApiError> {
    let mode = fields.required("mode", |fields, name| {
        fields.choice(name, "create, update, updateIfMatchETag or delete", |text| match text {
            "create" => Some(Mode::Create),
            "update" => Some(Mode::Update),
            "updateIfMatchETag" => Some(Mode::UpdateIfMatch),
            "delete" => Some(Mode::Delete),
            _ => None,
        })
    })?;
    let elements = fields.required(kind.collection(), Fields::objects)?;
    if elements.is_empty() || elements.len() > MAX_ELEMENTS {
        let problem = format_args!("expected 1 to {MAX_ELEMENTS} elements, found {}", elements.len());
        return Err(fields.invalid(kind.collection(), problem).into());
    }
    fields.finish()?;
    let elements: Vec<_> =
        elements.into_iter().map(|element| Element::read(element, kind)).collect::<Result<_, ApiError>>()?;
    let now = context.clock.timestamp();
    let errors: Vec<Value> = context.store.with(|state| {
        let run = |element: Element| {
            let id = element.id.clone();
            let error = element.run(&mut state.instance, mode, kind, version, now).err()?;
            let error = DpsError::from(&error);
            Some(json!({ kind.id_member(): id, "errorCode": error.code, "errorStatus": error.message }))
        };
        elements.into_iter().filter_map(run).collect()
    });
    Ok(json_response(StatusCode::OK, &json!({ "isSuccessful": errors.is_empty(), "errors": errors })))
}

struct Element {
    id: String,
    etag: Option<String>,
    fields: Fields,
}

impl Element {
    fn read(fields: Fields, kind: Kind) -> Result<Self, ApiError> {
        let mut fields = fields.without_nulls();
        let id = fields.required(kind.id_member(), Fields::string)?;
        if !is_enrollment_id(&id) {
            return Err(fields.invalid(kind.id_member(), invalid_id(&id)).into());
        }
        let etag = fields.string("etag")?;
        Ok(Self { id, etag, fields })
    }

    fn run(
        self,
        instance: &mut Instance,
        mode: Mode,
        kind: Kind,
        version: ServiceVersion,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let Self { id, etag, fields } = self;
        let check = |current: &Enrollment| match etag {
            Some(etag) if etag != current.etag.quoted() => {
                Err(ApiError::precondition_failed("the etag does not match: the resource has changed; get it again"))
            }
            None if mode == Mode::UpdateIfMatch => Err(ApiError::bad_request("etag: is missing")),
            _ => Ok(()),
        };
        if mode == Mode::Delete {
            return changes::delete(instance, kind, &id, check);
        }
        let body = EnrollmentBody::read_with_id(id, fields, kind, version, now)?;
        match mode {
            Mode::Create => changes::create(instance, kind, body, now),
            Mode::UpdateIfMatch => changes::update(instance, kind, body, now, check),
            Mode::Update | Mode::Delete => changes::update(instance, kind, body, now, |_| Ok(())),
        }
    }
}
