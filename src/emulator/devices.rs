//! Devices: model, rules, calls.
//!
//! # Where the documentation is silent
//! - **The id** is a registration id of the Device Provisioning Service: up to 128 letters, digits and `- . _ :`, a letter
//!   or digit first, a letter, digit or `-` last. The service's concepts article allows `-` there and its REST reference does
//!   not; what one of them allows is taken. Another in a path is 400. Ids are compared without regard to case, as registration ids are; a device
//!   keeps the spelling that it was created with.
//! - **Replacing a device** (PUT on one that exists) gives every field that the body leaves out its default, as at creation:
//!   the id as display name, enabled, not simulated, without template and organizations. What has calls of its own stays:
//!   the attestation, the manifest that was assigned, and whether the device is provisioned. So does the type with the
//!   version that does not know it.
//! - **`id` and `provisioned` in a body** may repeat what is, so that what GET showed can be sent back; another is 422.
//! - **A device is provisioned** when it comes through the Device Provisioning Service; a simulated one does not, and is
//!   `false` as the article shows it.
//! - **The template** need not be one of `/deviceTemplates`: every id but the empty one is taken. One that is there and has the
//!   type `EdgeModel` makes its devices IoT Edge devices. `template` and `organizations` are shown where there are any.
//! - **Null in a patch** resets display name (to the id) and template, as the description has it; for every other field it
//!   is 422.
//! - **Etags** guard PUT and PATCH of the device, and by `If-Match` also GET and DELETE. Its attestation and manifest have none and leave the device's as it is.
//! - **The type** is shown and taken by the preview versions only; in a body of 2022-07-31 it is an unknown field. An empty
//!   list is no type. A device that is no longer an IoT Edge device loses its manifest.
//! - **The parameters of the list** are `$top`, `$filter` and `$orderby` in versions 2022-07-31 and 2022-06-30-preview,
//!   `maxpagesize`, `filter` and `orderby` in 2022-10-31-preview. The other spellings are refused (400). `$top` is the size of
//!   a page, not of the whole list.
//! - **`$orderby`** is read without regard to case, as `$filter` is.
//! - **A list with a filter** is put together from parts of 512 devices, so that other requests do not wait for it. What
//!   changes between two parts is seen as what changes between two pages.
//! - **A manifest for a device that is no IoT Edge device** is 422. The assignment is answered with 204.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::State,
    http::StatusCode,
    middleware,
    response::Response,
    routing::{get as on_get, post as on_post},
};
use serde_json::{Value, json};

use super::{
    application::Shared,
    device_attestation::DeviceAttestation,
    device_index::{Order, id_key},
    device_templates::DeviceTemplate,
    error::ApiError,
    filter::{Filter, Listed},
    gate::{self, ApiVersion, Origin, Query},
    id::{Id, Resource, consists_of},
    if_match::IfMatch,
    json::{self, Fields, Json, MergePatch},
    organizations,
    page::{self, PageRequest},
    store::{Etag, State as Everything, check_etag},
};

/// The most members of a page that may be asked for.
const MAX_TOP: usize = 100;

/// How many devices are taken out at a time to be held to a filter.
const PART: usize = 512;

/// The parameters of the list: size of a page, filter, order. The same ones in all versions.
const PARAMETERS: [&str; 3] = ["$top", "$filter", "$orderby"];
const PREVIEW_PARAMETERS: [&str; 3] = ["maxpagesize", "filter", "orderby"];

/// The one type there is.
const IOT_EDGE: &str = "iotEdge";

/// The routes of the resource, below `/api`.
pub(super) fn routes() -> Router<Shared> {
    let preview = Router::new()
        .route("/devices/{id}/applyDeploymentManifest", on_post(apply_manifest))
        .route_layer(middleware::from_fn(gate::no_parameters))
        .route_layer(middleware::from_fn(gate::preview_only));
    let without_etag = Router::new()
        .route("/devices", on_get(list))
        .merge(preview)
        .route_layer(middleware::from_fn(gate::no_if_match));
    Router::new()
        .route("/devices/{id}", on_get(get).put(put).patch(patch).delete(delete))
        .route_layer(middleware::from_fn(gate::no_parameters))
        .merge(without_etag)
}

/// What a device is, as far as `$filter` and the queries of device groups can ask for it.
///
/// ```
/// use iot_enroll::emulator::DeviceProperties;
///
/// let device = DeviceProperties { simulated: true, ..DeviceProperties::new("thermostat-1") };
/// assert_eq!(device.display_name, "thermostat-1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceProperties {
    /// The id: up to 128 letters, digits and `- . _ :`, a letter or digit first, a letter, digit or `-` last.
    pub id: String,
    /// The name that people see. The id, where nothing else is said.
    pub display_name: String,
    /// The id of its template.
    pub template: Option<String>,
    /// Whether it may connect.
    pub enabled: bool,
    /// Whether it came through the Device Provisioning Service.
    pub provisioned: bool,
    /// Whether the service plays it.
    pub simulated: bool,
    /// The ids of the organizations it belongs to.
    pub organizations: Vec<String>,
    /// Whether it is an IoT Edge device.
    pub iot_edge: bool,
}

impl DeviceProperties {
    /// A device that is enabled, and nothing else.
    pub fn new(id: impl Into<String>) -> Self {
        let id = id.into();
        Self {
            display_name: id.clone(),
            id,
            template: None,
            enabled: true,
            provisioned: false,
            simulated: false,
            organizations: Vec::new(),
            iot_edge: false,
        }
    }
}

/// A device as it is kept.
#[derive(Clone)]
pub(super) struct Device {
    pub(super) properties: DeviceProperties,
    /// Its own, where it has one.
    pub(super) attestation: Option<DeviceAttestation>,
    /// The deployment manifest that was assigned last.
    pub(super) manifest: Option<Value>,
    etag: Etag,
}

// The calls

async fn list(
    State(application): State<Shared>,
    Extension(query): Extension<Query>,
    Extension(origin): Extension<Origin>,
) -> Result<Response, ApiError> {
    let options = ListOptions::read(&query, Listed::Devices)?;
    let request = PageRequest::read(&application, &query, &origin, "/api/devices", &options.texts)?;
    let size = options.top.unwrap_or(application.page_size);
    let matches = options.filter.map(|filter| move |device: &DeviceProperties| filter.matches(device));
    let page = page(&application, &request, options.order, size, matches, query.version()).await?;
    Ok(json::answer(StatusCode::OK, &page))
}

/// A page of the devices that this holds for; without it, of all.
pub(super) async fn page<M>(
    application: &Shared,
    request: &PageRequest<'_>,
    order: Order,
    size: usize,
    matches: Option<M>,
    version: ApiVersion,
) -> Result<Value, ApiError>
where
    M: Fn(&DeviceProperties) -> bool + Send + 'static,
{
    let after = request.after().map(<[String]>::to_vec);
    // One more says whether there is another page.
    let most = size.saturating_add(1);
    let found = match matches {
        None => application
            .store
            .with(|state| state.devices.after(order, after.as_deref()).take(most).map(Arc::clone).collect::<Vec<_>>()),
        Some(matches) => {
            let application = Arc::clone(application);
            // A group's query may have a megabyte: neither the state nor a thread that serves others is held meanwhile.
            let search = move || search(&application, order, after, most, matches);
            tokio::task::spawn_blocking(search).await.map_err(|_| {
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the search for devices did not come to an end")
            })?
        }
    };
    Ok(request.page(size, found.iter(), |device| order.key(device), |device| device.show(version)))
}

fn search(
    application: &Shared,
    order: Order,
    mut after: Option<Vec<String>>,
    most: usize,
    matches: impl Fn(&DeviceProperties) -> bool,
) -> Vec<Arc<Device>> {
    let mut found = Vec::new();
    loop {
        let part: Vec<Arc<Device>> = application
            .store
            .with(|state| state.devices.after(order, after.as_deref()).take(PART).map(Arc::clone).collect());
        let Some(last) = part.last() else { return found };
        after = Some(order.key(last));
        for device in part {
            if matches(&device.properties) {
                found.push(device);
            }
            if found.len() == most {
                return found;
            }
        }
    }
}

async fn get(
    State(application): State<Shared>,
    Extension(query): Extension<Query>,
    id: Id<Device>,
    if_match: IfMatch,
) -> Result<Response, ApiError> {
    let shown = application.store.with(|state| {
        let device = state.devices.get(&id.text).ok_or_else(|| id.not_found())?;
        if_match.check(Some(&device.etag))?;
        Ok::<_, ApiError>(device.show(query.version()))
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn put(
    State(application): State<Shared>,
    Extension(query): Extension<Query>,
    id: Id<Device>,
    if_match: IfMatch,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let body = DeviceBody::read(fields, query.version())?;
    let shown = application.store.with(|state| {
        let current = state.devices.get(&id.text);
        if_match.check(current.map(|device| &device.etag))?;
        let edge_template = body.has_edge_template(state);
        let device = body.into_device(&id, current, edge_template)?;
        let shown = device.show(query.version());
        state.devices.insert(device);
        Ok::<_, ApiError>(shown)
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn patch(
    State(application): State<Shared>,
    Extension(query): Extension<Query>,
    id: Id<Device>,
    if_match: IfMatch,
    patch: MergePatch,
) -> Result<Response, ApiError> {
    patch.only_nullable(&["displayName", "template"])?;
    let shown = application.store.with(|state| {
        let current = state.devices.get(&id.text).ok_or_else(|| id.not_found())?;
        if_match.check(Some(&current.etag))?;
        let patched = patch.apply_to(&current.show(query.version()));
        let body = DeviceBody::read(Fields::of_body(patched)?, query.version())?;
        let edge_template = body.has_edge_template(state);
        let patched = body.into_device(&id, Some(current), edge_template)?;
        let shown = patched.show(query.version());
        state.devices.insert(patched);
        Ok::<_, ApiError>(shown)
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn delete(State(application): State<Shared>, id: Id<Device>, if_match: IfMatch) -> Result<StatusCode, ApiError> {
    application.store.with(|state| {
        if_match.check(Some(&state.devices.get(&id.text).ok_or_else(|| id.not_found())?.etag))?;
        state.devices.remove(&id.text);
        Ok(StatusCode::NO_CONTENT)
    })
}

async fn apply_manifest(
    State(application): State<Shared>,
    id: Id<Device>,
    Json(mut fields): Json,
) -> Result<StatusCode, ApiError> {
    let manifest = fields.required("data", Fields::any_object)?;
    fields.finish()?;
    application.store.with(|state| {
        let device = id.find(state)?;
        if !device.properties.iot_edge {
            return Err(ApiError::invalid_body(format!(
                "the device {:?} is no IoT Edge device; set its type to [\"{IOT_EDGE}\"] first",
                id.text
            )));
        }
        device.manifest = Some(manifest);
        Ok(StatusCode::NO_CONTENT)
    })
}

/// What the parameters of a list say.
pub(super) struct ListOptions<'a> {
    pub(super) top: Option<usize>,
    pub(super) filter: Option<Filter>,
    pub(super) order: Order,
    /// What decides about members and order, as it was sent.
    pub(super) texts: [&'a str; 2],
}

impl<'a> ListOptions<'a> {
    pub(super) fn read(query: &'a Query, listed: Listed) -> Result<Self, ApiError> {
        let (known, others) = match query.version() {
            ApiVersion::Stable | ApiVersion::Preview2022_06_30 => (PARAMETERS, PREVIEW_PARAMETERS),
            ApiVersion::Preview => (PREVIEW_PARAMETERS, PARAMETERS),
        };
        if let Some((known, other)) = known.iter().zip(others).find(|(_, other)| query.get(other).is_some()) {
            return Err(ApiError::bad_request(format!(
                "the query parameter {other:?} is called {known:?} in version {}",
                query.version().as_str()
            )));
        }
        query.only(&[page::PARAMETERS, &known].concat())?;
        let [top, filter, order] = known;
        let texts = [filter, order].map(|name| query.get(name).unwrap_or_default());
        let top = query.get(top).map(|text| match text.parse() {
            Ok(number) if (1..=MAX_TOP).contains(&number) => Ok(number),
            _ => Err(ApiError::bad_request(format!("{top}: expected a number from 1 to {MAX_TOP}, found {text:?}"))),
        });
        let filter = query.get(filter).map(|text| {
            Filter::parse_for(text, query.version(), listed)
                .map_err(|error| ApiError::bad_request(format!("{filter}: {error}")))
        });
        let order = query.get(order).map_or(Ok(Order::Id), |text| {
            read_order(text).ok_or_else(|| {
                let message =
                    format!("{order}: expected displayName, displayName asc or displayName desc, found {text:?}");
                ApiError::bad_request(message)
            })
        })?;
        Ok(Self { top: top.transpose()?, filter: filter.transpose()?, order, texts })
    }
}

fn read_order(text: &str) -> Option<Order> {
    let mut words = text.split_ascii_whitespace();
    let (field, direction, more) = (words.next()?, words.next().unwrap_or("asc"), words.next());
    match direction.to_ascii_lowercase().as_str() {
        _ if more.is_some() || !field.eq_ignore_ascii_case("displayName") => None,
        "asc" => Some(Order::DisplayName),
        "desc" => Some(Order::DisplayNameDescending),
        _ => None,
    }
}

// The model

impl Resource for Device {
    const NAME: &'static str = "device";
    const ID_RULE: &'static str =
        "1 to 128 letters, digits and - . _ : with a letter or digit first and a letter, digit or - last";

    fn is_id(text: &str) -> bool {
        let ends = |c: char| c.is_ascii_alphanumeric();
        consists_of(text, 128, |byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
            && text.starts_with(ends)
            && text.ends_with(|c| ends(c) || c == '-')
    }

    fn is_same_id(one: &str, other: &str) -> bool {
        id_key(one) == id_key(other)
    }

    fn find<'a>(state: &'a mut Everything, id: &str) -> Option<&'a mut Self> {
        state.devices.get_mut(id)
    }
}

impl Device {
    /// A device that does not come by the API. Says what is wrong with it.
    pub(super) fn from_properties(properties: DeviceProperties) -> Result<Self, String> {
        if !Self::is_id(&properties.id) {
            return Err(format!("{:?} is no id of a device: use {}", properties.id, Self::ID_RULE));
        }
        if properties.template.as_ref().is_some_and(String::is_empty) {
            return Err(format!("the template of {:?} is empty", properties.id));
        }
        organizations::check(&properties.organizations)?;
        let etag = Etag::new().map_err(|_| "the system's random number generator failed".to_owned())?;
        Ok(Self { properties, attestation: None, manifest: None, etag })
    }

    /// A device that comes through the Device Provisioning Service and was not known before.
    pub(super) fn new_provisioned(id: &str, template: Option<String>, iot_edge: bool) -> Result<Self, ApiError> {
        let properties = DeviceProperties { provisioned: true, template, iot_edge, ..DeviceProperties::new(id) };
        Self::from_properties(properties).map_err(ApiError::bad_request)
    }

    /// It comes through the Device Provisioning Service. The template is for a device that has none.
    pub(super) fn provision(&mut self, template: Option<String>) -> Result<(), ApiError> {
        let template = template.filter(|_| self.properties.template.is_none());
        if self.properties.provisioned && template.is_none() {
            return Ok(());
        }
        self.etag = Etag::new()?;
        self.properties.provisioned = true;
        self.properties.template = template.or(self.properties.template.take());
        Ok(())
    }

    pub(super) fn show(&self, version: ApiVersion) -> Value {
        let properties = &self.properties;
        let mut shown = json!({
            "id": properties.id,
            "etag": self.etag.as_str(),
            "displayName": properties.display_name,
            "simulated": properties.simulated,
            "provisioned": properties.provisioned,
            "enabled": properties.enabled,
        });
        if let Some(template) = &properties.template {
            shown["template"] = json!(template);
        }
        if !properties.organizations.is_empty() {
            shown["organizations"] = json!(properties.organizations);
        }
        if properties.iot_edge && version.has_device_types() {
            shown["type"] = json!([IOT_EDGE]);
        }
        shown
    }
}

struct DeviceBody {
    id: Option<String>,
    display_name: Option<String>,
    template: Option<String>,
    enabled: bool,
    provisioned: Option<bool>,
    simulated: bool,
    organizations: Vec<String>,
    /// `None` with the version that has no types.
    iot_edge: Option<bool>,
    etag: Option<String>,
}

impl DeviceBody {
    fn read(mut fields: Fields, version: ApiVersion) -> Result<Self, ApiError> {
        let body = Self {
            id: fields.string("id")?,
            display_name: fields.string("displayName")?,
            template: fields.string("template")?,
            enabled: fields.boolean("enabled")?.unwrap_or(true),
            provisioned: fields.boolean("provisioned")?,
            simulated: fields.boolean("simulated")?.unwrap_or(false),
            organizations: organizations::read(&mut fields)?,
            iot_edge: if version.has_device_types() { Some(read_type(&mut fields)?) } else { None },
            etag: fields.string("etag")?,
        };
        if body.template.as_ref().is_some_and(String::is_empty) {
            return Err(fields.refuse("template", "it is empty; leave it out for a device without a template"));
        }
        fields.finish()?;
        Ok(body)
    }

    fn has_edge_template(&self, state: &Everything) -> bool {
        let template = self.template.as_ref().and_then(|id| state.device_templates.get(id));
        template.is_some_and(DeviceTemplate::is_for_iot_edge)
    }

    /// The device it describes, in place of the current one.
    fn into_device(self, id: &Id<Device>, current: Option<&Device>, edge_template: bool) -> Result<Device, ApiError> {
        check_etag(self.etag.as_deref(), current.map(|device| &device.etag))?;
        id.check_body(self.id.as_deref())?;
        let provisioned = current.is_some_and(|device| device.properties.provisioned);
        if self.provisioned.is_some_and(|given| given != provisioned) {
            return Err(ApiError::invalid_body(format!("provisioned: it is {provisioned} and cannot be set")));
        }
        let iot_edge =
            edge_template || self.iot_edge.unwrap_or_else(|| current.is_some_and(|device| device.properties.iot_edge));
        let spelled = current.map_or(&id.text, |device| &device.properties.id);
        Ok(Device {
            properties: DeviceProperties {
                display_name: self.display_name.unwrap_or_else(|| spelled.clone()),
                id: spelled.clone(),
                template: self.template,
                enabled: self.enabled,
                provisioned,
                simulated: self.simulated,
                organizations: self.organizations,
                iot_edge,
            },
            attestation: current.and_then(|device| device.attestation.clone()),
            manifest: current.filter(|_| iot_edge).and_then(|device| device.manifest.clone()),
            etag: Etag::new()?,
        })
    }
}

/// Whether the field `type` makes it an IoT Edge device.
fn read_type(fields: &mut Fields) -> Result<bool, ApiError> {
    let types = fields.strings("type")?.unwrap_or_default();
    match types.as_slice() {
        [] => Ok(false),
        [only] if only == IOT_EDGE => Ok(true),
        _ => Err(fields.refuse("type", format_args!("expected [\"{IOT_EDGE}\"] or [], found {types:?}"))),
    }
}
