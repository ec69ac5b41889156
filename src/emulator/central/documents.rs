//! The handlers of documents: device groups, device templates, deployment manifests, enrollment groups, organizations.
//!
//! # Where the documentation is silent
//! - **PUT** on an existing document replaces all of it, unless the kind says otherwise.
//! - **A patch** applies to the response of GET. The result is checked like the body of a PUT.

use std::collections::BTreeMap;

use axum::{
    Extension, Router, extract,
    http::StatusCode,
    middleware::from_fn,
    response::Response,
    routing::{MethodRouter, get as on_get},
};

use super::{
    id::Id,
    middleware::{no_if_match, no_parameters},
    model::{
        DeploymentManifest, DeviceGroup, DeviceTemplate, Document, EnrollmentGroup, Order, Organization, Versioned,
    },
    page::{self, PageRequest},
    query::Query,
};
use crate::emulator::{
    api_error::ApiError,
    body::{Json, MergePatch, json_response},
    context::SharedContext,
    etag::Etag,
    fields::Fields,
    origin::Origin,
    precondition::{IfMatch, check_etag},
    state::State,
};

/// A kind of document and its place in the state.
pub(crate) trait StoredDocument: Document {
    fn collection(state: &mut State) -> &mut BTreeMap<String, Versioned<Self>>;

    /// Checks a new or changed document against the other resources.
    fn check_conflicts(&self, _id: &str, _state: &State) -> Result<(), ApiError> {
        Ok(())
    }

    /// Checks that a document can be deleted.
    fn check_removal(_id: &str, _state: &State) -> Result<(), ApiError> {
        Ok(())
    }
}

impl StoredDocument for DeploymentManifest {
    fn collection(state: &mut State) -> &mut BTreeMap<String, Versioned<Self>> {
        &mut state.deployment_manifests
    }
}

impl StoredDocument for DeviceGroup {
    fn collection(state: &mut State) -> &mut BTreeMap<String, Versioned<Self>> {
        &mut state.device_groups
    }
}

impl StoredDocument for Organization {
    fn collection(state: &mut State) -> &mut BTreeMap<String, Versioned<Self>> {
        &mut state.organizations
    }
}

impl StoredDocument for DeviceTemplate {
    fn collection(state: &mut State) -> &mut BTreeMap<String, Versioned<Self>> {
        &mut state.device_templates
    }

    fn check_removal(id: &str, state: &State) -> Result<(), ApiError> {
        let mut devices = state.devices.after(Order::Id, None);
        match devices.find(|device| device.properties.template.as_deref() == Some(id)) {
            Some(device) => Err(ApiError::conflict(format!(
                "the device template {id:?} is in use by the device {:?} and possibly others; delete them first",
                device.properties.id
            ))),
            None => Ok(()),
        }
    }
}

impl StoredDocument for EnrollmentGroup {
    fn collection(state: &mut State) -> &mut BTreeMap<String, Versioned<Self>> {
        &mut state.enrollment_groups
    }

    fn check_conflicts(&self, id: &str, state: &State) -> Result<(), ApiError> {
        let Some(key) = self.symmetric_key() else { return Ok(()) };
        let mut others = state.enrollment_groups.iter().filter(|(other, _)| *other != id);
        match others.find(|(_, group)| group.value.symmetric_key() == Some(key)) {
            Some((other, _)) => Err(ApiError::conflict(format!(
                "attestation.symmetricKey: the enrollment group {other:?} has the same keys"
            ))),
            None => Ok(()),
        }
    }
}

/// Returns the routes of a kind of document, below `/api`.
pub(crate) fn routes<D: StoredDocument>() -> Router<SharedContext> {
    routes_with_list::<D>(on_get(list::<D>))
}

/// Returns the routes of a kind of document that has its own list, below `/api`.
pub(crate) fn routes_with_list<D: StoredDocument>(list: MethodRouter<SharedContext>) -> Router<SharedContext> {
    let collection = format!("/{}", D::COLLECTION);
    let methods = on_get(get::<D>).put(put::<D>).patch(patch::<D>).delete(delete::<D>);
    let documents = Router::new().route(&format!("{collection}/{{id}}"), methods).route_layer(from_fn(no_parameters));
    Router::new().route(&collection, list).route_layer(from_fn(no_if_match)).merge(documents)
}

/// Finds the document that the path names.
pub(crate) fn find<'a, D: StoredDocument>(id: &Id<D>, state: &'a mut State) -> Result<&'a mut Versioned<D>, ApiError> {
    D::collection(state).get_mut(&id.text).ok_or_else(|| id.not_found())
}

async fn list<D: StoredDocument>(
    extract::State(context): extract::State<SharedContext>,
    Extension(query): Extension<Query>,
    origin: Origin,
) -> Result<Response, ApiError> {
    query.allow_only(page::PARAMETERS)?;
    let request = PageRequest::read(&context, &query, &origin, &format!("/api/{}", D::COLLECTION), &[])?;
    let page = context.store.with(|state| request.page_by_id(D::collection(state), |id, document| document.show(id)));
    Ok(json_response(StatusCode::OK, &page))
}

async fn get<D: StoredDocument>(
    extract::State(context): extract::State<SharedContext>,
    id: Id<D>,
    if_match: IfMatch,
) -> Result<Response, ApiError> {
    let shown = context.store.with(|state| {
        let document = find(&id, state)?;
        if_match.check(Some(&document.etag))?;
        Ok::<_, ApiError>(document.show(&id.text))
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn put<D: StoredDocument>(
    extract::State(context): extract::State<SharedContext>,
    id: Id<D>,
    if_match: IfMatch,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let body = ParsedBody::<D>::read(fields, &id.text)?;
    let shown = context.store.with(|state| {
        let current = D::collection(state).get(&id.text);
        if_match.check(current.map(|document| &document.etag))?;
        let document = body.into_document(current)?;
        document.value.check_conflicts(&id.text, state)?;
        let shown = document.show(&id.text);
        D::collection(state).insert(id.text, document);
        Ok::<_, ApiError>(shown)
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn patch<D: StoredDocument>(
    extract::State(context): extract::State<SharedContext>,
    id: Id<D>,
    if_match: IfMatch,
    patch: MergePatch,
) -> Result<Response, ApiError> {
    if let Some(names) = D::NULLABLE {
        patch.check_nulls(names)?;
    }
    loop {
        let (before, etag) = context.store.with(|state| {
            let current = find(&id, state)?;
            if_match.check(Some(&current.etag))?;
            Ok::<_, ApiError>((current.show(&id.text), current.etag))
        })?;
        // Parsed without the lock, since parsing may take long. If the document changes meanwhile, the patch starts
        // again.
        let after = patch.apply_to(&before);
        let body = ParsedBody::<D>::read(Fields::from_body(after.clone())?, &id.text)?;
        let shown = context.store.with(|state| {
            let current = find(&id, state)?;
            // The certificates of an enrollment group change without its etag.
            if current.etag != etag || current.show(&id.text) != before {
                return Ok::<_, ApiError>(None);
            }
            let document = body.into_document(Some(current))?;
            D::check_patch(&before, &after)?;
            document.value.check_conflicts(&id.text, state)?;
            let shown = document.show(&id.text);
            D::collection(state).insert(id.text.clone(), document);
            Ok(Some(shown))
        })?;
        if let Some(shown) = shown {
            return Ok(json_response(StatusCode::OK, &shown));
        }
    }
}

async fn delete<D: StoredDocument>(
    extract::State(context): extract::State<SharedContext>,
    id: Id<D>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    context.store.with(|state| {
        if_match.check(Some(&find(&id, state)?.etag))?;
        D::check_removal(&id.text, state)?;
        D::collection(state).remove(&id.text);
        Ok(StatusCode::NO_CONTENT)
    })
}

/// The body of a PUT, or the result of a patch.
pub(crate) struct ParsedBody<D: Document> {
    body: D::Body,
    etag: Option<String>,
}

impl<D: Document> ParsedBody<D> {
    pub(crate) fn read(mut fields: Fields, id: &str) -> Result<Self, ApiError> {
        let body = D::read(&mut fields, id)?;
        let etag = fields.string("etag")?;
        fields.finish()?;
        Ok(Self { body, etag })
    }

    /// Creates the document that replaces the current one.
    pub(crate) fn into_document(self, current: Option<&Versioned<D>>) -> Result<Versioned<D>, ApiError> {
        check_etag(self.etag.as_deref(), current.map(|document| &document.etag))?;
        Ok(Versioned { value: D::from_body(self.body, current.map(|document| &document.value))?, etag: Etag::new()? })
    }
}
