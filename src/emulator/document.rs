//! Documents: things that have an id and an etag, are replaced whole and patched, and lie in a collection by their ids.
//!
//! What device groups, deployment manifests, device templates and organizations have in common. Devices and enrollment
//! groups have more to them and handlers of their own.
//!
//! # Where the documentation is silent
//! - **Replacing a document** (PUT on one that exists) replaces all of it.
//! - **A patch** is applied to what GET shows. The result is read and checked as the body of a PUT is.

use std::collections::BTreeMap;

use axum::{
    Extension, Router, extract::State, http::StatusCode, middleware, response::Response, routing::get as on_get,
};
use serde_json::Value;

use super::{
    application::Shared,
    error::ApiError,
    gate::{self, Origin, Query},
    id::{Id, Resource},
    if_match::IfMatch,
    json::{self, Fields, Json, MergePatch},
    page::{self, PageRequest},
    store::{Etag, State as Everything, check_etag},
};

/// A kind of document.
pub(super) trait Document: Resource + Send + 'static {
    /// The name of its collection in paths.
    const COLLECTION: &'static str;
    /// The members that null in a patch takes away.
    const NULLABLE: &'static [&'static str];

    /// What a body says besides id and etag.
    type Content: Send;

    /// Reads all members of a body but the etag, and the id by [`read_id`] or as the kind has it.
    fn read(fields: &mut Fields, id: &Id<Self>) -> Result<Self::Content, ApiError>;

    fn new(id: String, content: Self::Content, etag: Etag) -> Self;

    fn all(state: &mut Everything) -> &mut BTreeMap<String, Self>;

    fn etag(&self) -> &Etag;

    fn show(&self) -> Value;

    /// Says why it cannot be deleted.
    fn check_removal(&self, _: &Everything) -> Result<(), ApiError> {
        Ok(())
    }
}

/// The routes of a kind, below `/api`.
pub(super) fn routes<D: Document>() -> Router<Shared> {
    let collection = Router::new()
        .route(&format!("/{}", D::COLLECTION), on_get(list::<D>))
        .route_layer(middleware::from_fn(gate::no_if_match));
    member_routes::<D>().merge(collection)
}

/// The routes of single documents.
pub(super) fn member_routes<D: Document>() -> Router<Shared> {
    let methods = on_get(get::<D>).put(put::<D>).patch(patch::<D>).delete(delete::<D>);
    Router::new()
        .route(&format!("/{}/{{id}}", D::COLLECTION), methods)
        .route_layer(middleware::from_fn(gate::no_parameters))
}

/// The member `id`, which may repeat the path's.
pub(super) fn read_id<D: Document>(fields: &mut Fields, id: &Id<D>) -> Result<(), ApiError> {
    id.check_body(fields.string("id")?.as_deref())
}

async fn list<D: Document>(
    State(application): State<Shared>,
    Extension(query): Extension<Query>,
    Extension(origin): Extension<Origin>,
) -> Result<Response, ApiError> {
    query.only(page::PARAMETERS)?;
    let page = PageRequest::read(&application, &query, &origin, &format!("/api/{}", D::COLLECTION), &[])?;
    let page = application.store.with(|state| page.of_ids(D::all(state), D::show));
    Ok(json::answer(StatusCode::OK, &page))
}

async fn get<D: Document>(
    State(application): State<Shared>,
    id: Id<D>,
    if_match: IfMatch,
) -> Result<Response, ApiError> {
    let shown = application.store.with(|state| {
        let document = id.find(state)?;
        if_match.check(Some(document.etag()))?;
        Ok::<_, ApiError>(document.show())
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn put<D: Document>(
    State(application): State<Shared>,
    id: Id<D>,
    if_match: IfMatch,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let body = Body::read(fields, &id)?;
    let shown = application.store.with(|state| {
        let all = D::all(state);
        let current = all.get(&id.text).map(D::etag);
        if_match.check(current)?;
        let document = body.into_document(&id, current)?;
        let shown = document.show();
        all.insert(id.text, document);
        Ok::<_, ApiError>(shown)
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn patch<D: Document>(
    State(application): State<Shared>,
    id: Id<D>,
    if_match: IfMatch,
    patch: MergePatch,
) -> Result<Response, ApiError> {
    patch.only_nullable(D::NULLABLE)?;
    loop {
        let (before, etag) = application.store.with(|state| {
            let current = id.find(state)?;
            if_match.check(Some(current.etag()))?;
            Ok::<_, ApiError>((current.show(), current.etag().clone()))
        })?;
        // Without the lock, since what a body holds may take time to read. Who was faster in between comes first.
        let body = Body::<D>::read(Fields::of_body(patch.apply_to(&before))?, &id)?;
        let after = application.store.with(|state| {
            let current = id.find(state)?;
            if *current.etag() != etag {
                return Ok::<_, ApiError>(None);
            }
            *current = body.into_document(&id, Some(current.etag()))?;
            Ok(Some(current.show()))
        })?;
        if let Some(shown) = after {
            return Ok(json::answer(StatusCode::OK, &shown));
        }
    }
}

async fn delete<D: Document>(
    State(application): State<Shared>,
    id: Id<D>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    application.store.with(|state| {
        let document = D::all(state).get(&id.text).ok_or_else(|| id.not_found())?;
        if_match.check(Some(document.etag()))?;
        let removed = D::all(state).remove(&id.text).ok_or_else(|| id.not_found())?;
        if let Err(refused) = removed.check_removal(state) {
            D::all(state).insert(id.text, removed);
            return Err(refused);
        }
        Ok(StatusCode::NO_CONTENT)
    })
}

/// The body of a PUT, or what a patch makes of the document.
struct Body<D: Document> {
    content: D::Content,
    etag: Option<String>,
}

impl<D: Document> Body<D> {
    fn read(mut fields: Fields, id: &Id<D>) -> Result<Self, ApiError> {
        let content = D::read(&mut fields, id)?;
        let etag = fields.string("etag")?;
        fields.finish()?;
        Ok(Self { content, etag })
    }

    /// The document it describes, in place of the one with this etag.
    fn into_document(self, id: &Id<D>, current: Option<&Etag>) -> Result<D, ApiError> {
        check_etag(self.etag.as_deref(), current)?;
        Ok(D::new(id.text.clone(), self.content, Etag::new()?))
    }
}
