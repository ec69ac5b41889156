//! Device groups: model, rules, calls.
//!
//! # Where the documentation is silent
//! - **The query** is read when the group is set, and what cannot be read is refused with 422 and the position:
//!   [`GroupQuery`](super::GroupQuery) has its grammar. It decides alone who belongs to the group; the group's
//!   organizations say who sees it, and every token here sees all.
//! - **Replacing a group** (PUT on one that exists) replaces all of it.
//! - **Null in a patch** takes description or organizations away.
//! - **The devices of a group** come by id, in pages of the default size.

use axum::{
    Extension, Router, extract::State, http::StatusCode, middleware, response::Response, routing::get as on_get,
};
use serde_json::{Value, json};

use super::{
    application::Shared,
    device_index::Order,
    error::ApiError,
    gate::{self, Origin, Query},
    group_query::GroupQuery,
    id::{Id, NAME_RULE, Resource, is_name},
    json::{self, AnyPatch, Fields, Json},
    organizations,
    page::{self, PageRequest},
    store::{Etag, State as Everything, check_etag},
};

/// The routes of the resource, below `/api`.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/deviceGroups/{id}", on_get(get).put(put).patch(patch).delete(delete))
        .route_layer(middleware::from_fn(gate::no_parameters))
        .route("/deviceGroups/{id}/devices", on_get(devices))
        .route("/deviceGroups", on_get(list))
}

/// A device group as it is kept.
pub(super) struct DeviceGroup {
    id: String,
    display_name: String,
    description: Option<String>,
    /// The query as it was sent.
    filter: String,
    query: GroupQuery,
    organizations: Vec<String>,
    etag: Etag,
}

// The calls

async fn list(
    State(application): State<Shared>,
    Extension(query): Extension<Query>,
    Extension(origin): Extension<Origin>,
) -> Result<Response, ApiError> {
    query.only(page::PARAMETERS)?;
    let page = PageRequest::read(&application, &query, &origin, "/api/deviceGroups", &[])?;
    let page = application.store.with(|state| page.of_ids(&state.device_groups, DeviceGroup::show));
    Ok(json::answer(StatusCode::OK, &page))
}

async fn devices(
    State(application): State<Shared>,
    Extension(query): Extension<Query>,
    Extension(origin): Extension<Origin>,
    id: Id<DeviceGroup>,
) -> Result<Response, ApiError> {
    query.only(page::PARAMETERS)?;
    let path = format!("/api/deviceGroups/{}/devices", id.text);
    let page = PageRequest::read(&application, &query, &origin, &path, &[])?;
    let page = application.store.with(|state| {
        let group = state.device_groups.get(&id.text).ok_or_else(|| id.not_found())?;
        let rest = state.devices.after(Order::Id, page.after());
        let rest = rest.filter(|device| group.query.matches(&device.properties));
        let size = application.page_size;
        Ok::<_, ApiError>(page.page(size, rest, |device| Order::Id.key(device), |device| device.show(query.version())))
    })?;
    Ok(json::answer(StatusCode::OK, &page))
}

async fn get(State(application): State<Shared>, id: Id<DeviceGroup>) -> Result<Response, ApiError> {
    let shown = application.store.with(|state| id.find(state).map(|group| group.show()))?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn put(State(application): State<Shared>, id: Id<DeviceGroup>, Json(fields): Json) -> Result<Response, ApiError> {
    let body = DeviceGroupBody::read(fields)?;
    let shown = application.store.with(|state| {
        let group = body.into_group(&id, state.device_groups.get(&id.text))?;
        let shown = group.show();
        state.device_groups.insert(id.text, group);
        Ok::<_, ApiError>(shown)
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn patch(
    State(application): State<Shared>,
    id: Id<DeviceGroup>,
    AnyPatch(patch): AnyPatch,
) -> Result<Response, ApiError> {
    patch.only_nullable(&["description", "organizations"])?;
    let shown = application.store.with(|state| {
        let current = id.find(state)?;
        let body = DeviceGroupBody::read(Fields::of_body(patch.apply_to(&current.show()))?)?;
        *current = body.into_group(&id, Some(current))?;
        Ok::<_, ApiError>(current.show())
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn delete(State(application): State<Shared>, id: Id<DeviceGroup>) -> Result<StatusCode, ApiError> {
    let removed = application.store.with(|state| state.device_groups.remove(&id.text));
    removed.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| id.not_found())
}

// The model

impl Resource for DeviceGroup {
    const NAME: &'static str = "device group";
    const ID_RULE: &'static str = NAME_RULE;

    fn is_id(text: &str) -> bool {
        is_name(text)
    }

    fn find<'a>(state: &'a mut Everything, id: &str) -> Option<&'a mut Self> {
        state.device_groups.get_mut(id)
    }
}

impl DeviceGroup {
    fn show(&self) -> Value {
        let mut shown = json!({
            "id": self.id,
            "displayName": self.display_name,
            "filter": self.filter,
            "etag": self.etag.as_str(),
        });
        if let Some(description) = &self.description {
            shown["description"] = json!(description);
        }
        if !self.organizations.is_empty() {
            shown["organizations"] = json!(self.organizations);
        }
        shown
    }
}

struct DeviceGroupBody {
    id: Option<String>,
    display_name: String,
    description: Option<String>,
    filter: String,
    query: GroupQuery,
    organizations: Vec<String>,
    etag: Option<String>,
}

impl DeviceGroupBody {
    fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let filter = fields.required("filter", Fields::string)?;
        let body = Self {
            id: fields.string("id")?,
            display_name: fields.required("displayName", Fields::string)?,
            description: fields.string("description")?,
            query: GroupQuery::parse(&filter).map_err(|error| fields.refuse("filter", error))?,
            filter,
            organizations: organizations::read(&mut fields)?,
            etag: fields.string("etag")?,
        };
        fields.finish()?;
        Ok(body)
    }

    /// The group it describes, in place of the current one.
    fn into_group(self, id: &Id<DeviceGroup>, current: Option<&DeviceGroup>) -> Result<DeviceGroup, ApiError> {
        check_etag(self.etag.as_deref(), current.map(|group| &group.etag))?;
        id.check_body(self.id.as_deref())?;
        Ok(DeviceGroup {
            id: id.text.clone(),
            display_name: self.display_name,
            description: self.description,
            filter: self.filter,
            query: self.query,
            organizations: self.organizations,
            etag: Etag::new()?,
        })
    }
}
