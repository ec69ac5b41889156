//! The list of device templates, which has options.

use axum::{Extension, Router, extract, http::StatusCode, response::Response, routing::get};

use super::{
    device_list::ListOptions,
    documents,
    model::{DeviceTemplate, ListedResource, Order, Versioned},
    page::PageRequest,
    query::Query,
};
use crate::emulator::{api_error::ApiError, body::json_response, context::SharedContext, origin::Origin};

/// Returns the routes of device templates, below `/api`.
pub(crate) fn routes() -> Router<SharedContext> {
    documents::routes_with_list::<DeviceTemplate>(get(list))
}

async fn list(
    extract::State(context): extract::State<SharedContext>,
    Extension(query): Extension<Query>,
    origin: Origin,
) -> Result<Response, ApiError> {
    let options = ListOptions::read(&query, ListedResource::Templates)?;
    let request = PageRequest::read(&context, &query, &origin, "/api/deviceTemplates", &options.texts)?;
    let size = options.top.unwrap_or(context.page_size);
    let page = context.store.with(|state| {
        let matches = |(_, template): &(&String, &Versioned<DeviceTemplate>)| {
            options.filter.as_ref().is_none_or(|filter| filter.matches(&template.value.filter_properties()))
        };
        let key = |(id, template): &(&String, &Versioned<DeviceTemplate>)| {
            options.order.key(&template.value.filter_properties().display_name, id)
        };
        let mut all: Vec<_> = state.device_templates.iter().filter(matches).collect();
        all.sort_by_cached_key(key);
        if options.order == Order::DisplayNameDescending {
            all.reverse();
        }
        let follows = |template: &(&String, &Versioned<DeviceTemplate>)| {
            request.after().is_none_or(|after| match options.order {
                Order::DisplayNameDescending => key(template).as_slice() < after,
                Order::Id | Order::DisplayName => key(template).as_slice() > after,
            })
        };
        request.page(size, all.into_iter().filter(follows), key, |(id, template)| template.show(id))
    });
    Ok(json_response(StatusCode::OK, &page))
}
