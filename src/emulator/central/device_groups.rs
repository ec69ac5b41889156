//! The devices of a device group, sorted by ID in pages of the default size.

use axum::{Extension, Router, extract, http::StatusCode, middleware::from_fn, response::Response, routing::get};

use super::{
    device_list::page_of_devices,
    documents::{self, find},
    id::Id,
    middleware::no_if_match,
    model::{DeviceGroup, DeviceProperties, Order},
    page::{self, PageRequest},
    query::Query,
};
use crate::emulator::{api_error::ApiError, body::json_response, context::SharedContext, origin::Origin};

/// Returns the routes of device groups, below `/api`.
pub(crate) fn routes() -> Router<SharedContext> {
    let devices = Router::new().route("/deviceGroups/{id}/devices", get(devices)).route_layer(from_fn(no_if_match));
    documents::routes::<DeviceGroup>().merge(devices)
}

async fn devices(
    extract::State(context): extract::State<SharedContext>,
    Extension(query): Extension<Query>,
    origin: Origin,
    id: Id<DeviceGroup>,
) -> Result<Response, ApiError> {
    query.allow_only(page::PARAMETERS)?;
    let path = format!("/api/deviceGroups/{}/devices", id.text);
    let request = PageRequest::read(&context, &query, &origin, &path, &[])?;
    let group_query = context.store.with(|state| find(&id, state).map(|group| group.value.query()))?;
    let matches = move |device: &DeviceProperties| group_query.matches(device);
    let page =
        page_of_devices(&context, &request, Order::Id, context.page_size, Some(matches), query.version()).await?;
    Ok(json_response(StatusCode::OK, &page))
}
