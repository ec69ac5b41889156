//! Device groups: model, rules, calls.
//!
//! # Where the documentation is silent
//! - **The query** is read when the group is set, and what cannot be read is refused with 422 and the position:
//!   [`GroupQuery`](super::GroupQuery) has its grammar. It decides alone who belongs to the group; the group's
//!   organizations say who sees it, and every token here sees all.
//! - **Null in a patch** takes description or organizations away.
//! - **The devices of a group** come by id, in pages of the default size.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension, Router, extract::State, http::StatusCode, middleware, response::Response, routing::get as on_get,
};
use serde_json::{Value, json};

use super::{
    application::Shared,
    device_index::Order,
    devices,
    document::{self, Document},
    error::ApiError,
    gate::{self, Origin, Query},
    group_query::GroupQuery,
    id::{Id, NAME_RULE, Resource, is_name},
    json::{self, Fields},
    organizations,
    page::{self, PageRequest},
    store::{Etag, State as Everything},
};

/// The routes of the resource, below `/api`.
pub(super) fn routes() -> Router<Shared> {
    let devices = Router::new()
        .route("/deviceGroups/{id}/devices", on_get(devices))
        .route_layer(middleware::from_fn(gate::no_if_match));
    document::routes::<DeviceGroup>().merge(devices)
}

/// A device group as it is kept.
pub(super) struct DeviceGroup {
    id: String,
    content: Content,
    etag: Etag,
}

/// What a body says of a group.
pub(super) struct Content {
    display_name: String,
    description: Option<String>,
    /// The query as it was sent.
    filter: String,
    query: Arc<GroupQuery>,
    organizations: Vec<String>,
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
    let group = application.store.with(|state| id.find(state).map(|group| Arc::clone(&group.content.query)))?;
    let matches = move |device: &devices::DeviceProperties| group.matches(device);
    let page = devices::page(&application, &page, Order::Id, application.page_size, Some(matches), query.version());
    Ok(json::answer(StatusCode::OK, &page.await?))
}

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

impl Document for DeviceGroup {
    const COLLECTION: &'static str = "deviceGroups";
    const NULLABLE: &'static [&'static str] = &["description", "organizations"];

    type Content = Content;

    fn read(fields: &mut Fields, id: &Id<Self>) -> Result<Content, ApiError> {
        let filter = fields.required("filter", Fields::string)?;
        document::read_id(fields, id)?;
        let query = GroupQuery::parse(&filter).map_err(|error| fields.refuse("filter", error))?;
        Ok(Content {
            display_name: fields.required("displayName", Fields::string)?,
            description: fields.string("description")?,
            query: Arc::new(query),
            filter,
            organizations: organizations::read(fields)?,
        })
    }

    fn new(id: String, content: Content, etag: Etag) -> Self {
        Self { id, content, etag }
    }

    fn all(state: &mut Everything) -> &mut BTreeMap<String, Self> {
        &mut state.device_groups
    }

    fn etag(&self) -> &Etag {
        &self.etag
    }

    fn show(&self) -> Value {
        let content = &self.content;
        let mut shown = json!({
            "id": self.id,
            "displayName": content.display_name,
            "filter": content.filter,
            "etag": self.etag.as_str(),
        });
        if let Some(description) = &content.description {
            shown["description"] = json!(description);
        }
        if !content.organizations.is_empty() {
            shown["organizations"] = json!(content.organizations);
        }
        shown
    }
}
