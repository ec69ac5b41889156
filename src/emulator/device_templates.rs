//! Device templates: the models that devices are said to have. Model, rules, list.
//!
//! # Where the documentation is silent
//! - **The id** in the path decides. `@id` in a body is read and not compared: the vendor's own tests send another one, and
//!   the published example answers with another one. Ids follow no published pattern; taken are 1 to 2048 letters, digits
//!   and `: ; . _ -`, which DTMIs and the older URNs consist of.
//! - **Required** are `@type`, a list of strings, and `capabilityModel`, an object, as the description has it. A template
//!   without a display name is shown without one.
//! - **The model** is kept and shown as it was sent, as is `@context`: DTDL is not checked, and no types are added to it.
//! - **`deploymentManifest`** is taken and shown in every version.
//! - **A template that devices have** cannot be deleted (409): the command-line tool says so of the service.
//! - **The list** takes the parameters of the list of devices, since the articles send them. The filter asks for
//!   `displayName` only.
//! - **Null in a patch** takes display name, description, context or manifest away; in the model, the member that it stands
//!   for.

use std::collections::BTreeMap;

use axum::{
    Extension, Router, extract::State, http::StatusCode, middleware, response::Response, routing::get as on_get,
};
use serde_json::{Value, json};

use super::{
    application::Shared,
    device_index::Order,
    devices::{DeviceProperties, ListOptions},
    document::{self, Document},
    error::ApiError,
    filter::Listed,
    gate::{self, Origin, Query},
    id::{Id, Resource, consists_of},
    json::{self, Fields},
    page::PageRequest,
    store::{Etag, State as Everything},
};

/// The type of the templates of IoT Edge devices.
const EDGE_MODEL: &str = "EdgeModel";

/// The routes of the resource, below `/api`.
pub(super) fn routes() -> Router<Shared> {
    let collection =
        Router::new().route("/deviceTemplates", on_get(list)).route_layer(middleware::from_fn(gate::no_if_match));
    document::member_routes::<DeviceTemplate>().merge(collection)
}

/// A device template as it is kept.
pub(super) struct DeviceTemplate {
    id: String,
    content: Content,
    etag: Etag,
}

/// What a body says of a template.
pub(super) struct Content {
    types: Vec<String>,
    capability_model: Value,
    display_name: Option<String>,
    description: Option<String>,
    context: Option<Value>,
    deployment_manifest: Option<Value>,
}

async fn list(
    State(application): State<Shared>,
    Extension(query): Extension<Query>,
    Extension(origin): Extension<Origin>,
) -> Result<Response, ApiError> {
    let options = ListOptions::read(&query, Listed::Templates)?;
    let page = PageRequest::read(&application, &query, &origin, "/api/deviceTemplates", &options.texts)?;
    let size = options.top.unwrap_or(application.page_size);
    let page = application.store.with(|state| {
        let matches = |template: &&DeviceTemplate| {
            options.filter.as_ref().is_none_or(|filter| filter.matches(&template.as_filtered()))
        };
        let mut all: Vec<_> = state.device_templates.values().filter(matches).collect();
        let key = |template: &&DeviceTemplate| template.key(options.order);
        all.sort_by_cached_key(key);
        if options.order == Order::DisplayNameDescending {
            all.reverse();
        }
        let follows = |template: &&DeviceTemplate| {
            page.after().is_none_or(|after| match options.order {
                Order::DisplayNameDescending => key(template).as_slice() < after,
                _ => key(template).as_slice() > after,
            })
        };
        page.page(size, all.into_iter().filter(follows), key, |template| template.show())
    });
    Ok(json::answer(StatusCode::OK, &page))
}

impl DeviceTemplate {
    /// Whether its devices are IoT Edge devices.
    pub(super) fn is_for_iot_edge(&self) -> bool {
        self.content.types.iter().any(|one| one == EDGE_MODEL)
    }

    /// What a filter can ask for.
    fn as_filtered(&self) -> DeviceProperties {
        let display_name = self.content.display_name.clone().unwrap_or_default();
        DeviceProperties { display_name, ..DeviceProperties::new("") }
    }

    /// Where it stands in the order.
    fn key(&self, order: Order) -> Vec<String> {
        match order {
            Order::Id => vec![self.id.clone()],
            Order::DisplayName | Order::DisplayNameDescending => {
                vec![self.content.display_name.clone().unwrap_or_default(), self.id.clone()]
            }
        }
    }
}

impl Resource for DeviceTemplate {
    const NAME: &'static str = "device template";
    const ID_RULE: &'static str = "1 to 2048 letters, digits and : ; . _ -";

    fn is_id(text: &str) -> bool {
        consists_of(text, 2048, |byte| byte.is_ascii_alphanumeric() || b":;._-".contains(&byte))
    }

    fn find<'a>(state: &'a mut Everything, id: &str) -> Option<&'a mut Self> {
        state.device_templates.get_mut(id)
    }
}

impl Document for DeviceTemplate {
    const COLLECTION: &'static str = "deviceTemplates";
    const NULLABLE: &'static [&'static str] = &["displayName", "description", "@context", "deploymentManifest"];

    type Content = Content;

    fn read(fields: &mut Fields, _: &Id<Self>) -> Result<Content, ApiError> {
        fields.string("@id")?;
        Ok(Content {
            types: fields.required("@type", Fields::strings)?,
            capability_model: fields.required("capabilityModel", Fields::any_object)?,
            display_name: fields.string("displayName")?,
            description: fields.string("description")?,
            context: fields.any("@context"),
            deployment_manifest: fields.any_object("deploymentManifest")?,
        })
    }

    fn new(id: String, content: Content, etag: Etag) -> Self {
        Self { id, content, etag }
    }

    fn all(state: &mut Everything) -> &mut BTreeMap<String, Self> {
        &mut state.device_templates
    }

    fn etag(&self) -> &Etag {
        &self.etag
    }

    fn show(&self) -> Value {
        let content = &self.content;
        let mut shown = json!({
            "@id": self.id,
            "@type": content.types,
            "capabilityModel": content.capability_model,
            "etag": self.etag.as_str(),
        });
        let optional = [
            ("displayName", content.display_name.as_ref().map(|name| json!(name))),
            ("description", content.description.as_ref().map(|text| json!(text))),
            ("@context", content.context.clone()),
            ("deploymentManifest", content.deployment_manifest.clone()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                shown[name] = value;
            }
        }
        shown
    }

    fn check_removal(&self, state: &Everything) -> Result<(), ApiError> {
        let mut devices = state.devices.after(Order::Id, None);
        match devices.find(|device| device.properties.template.as_ref() == Some(&self.id)) {
            Some(device) => Err(ApiError::conflict(format!(
                "the device template {:?} is that of the device {:?} and perhaps of others; delete them first",
                self.id, device.properties.id
            ))),
            None => Ok(()),
        }
    }
}
