//! The subscription and the DPS instance.

use axum::{
    Extension, Router,
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
    middleware::from_fn,
    response::Response,
    routing::get as on_get,
};
use serde_json::{Value, json};

use super::version::{ArmVersion, check_subscription_version};
use crate::emulator::{
    api_error::{ApiError, ErrorCode},
    body::json_response,
    context::{Context, SharedContext},
    origin::Origin,
    path::path_parameter,
};

/// The path of the instance, as a route.
pub(crate) const INSTANCE: &str =
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Devices/provisioningServices/{instance}";

/// The location of the instance and of its hub.
const LOCATION: &str = "westeurope";

/// Returns the routes of subscriptions, which have versions of their own.
pub(crate) fn subscription_routes() -> Router<SharedContext> {
    Router::new()
        .route("/subscriptions", on_get(list_subscriptions))
        .route("/subscriptions/{subscription}", on_get(get_subscription))
        .route_layer(from_fn(async |request: axum::extract::Request, next: axum::middleware::Next| {
            check_subscription_version(request.uri().query().unwrap_or_default())?;
            Ok::<_, ApiError>(next.run(request).await)
        }))
}

/// Returns the routes of the instance.
pub(crate) fn routes() -> Router<SharedContext> {
    const PROVIDER: &str = "providers/Microsoft.Devices/provisioningServices";
    Router::new()
        .route(&format!("/subscriptions/{{subscription}}/{PROVIDER}"), on_get(list))
        .route(&format!("/subscriptions/{{subscription}}/resourceGroups/{{group}}/{PROVIDER}"), on_get(list))
        .route(INSTANCE, on_get(get))
}

/// The subscription, resource group and instance in a path, which exist.
pub(crate) struct InstancePath;

impl FromRequestParts<SharedContext> for InstancePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &SharedContext) -> Result<Self, ApiError> {
        let instance = &context.instance;
        let known = [
            ("subscription", &instance.subscription, "SubscriptionNotFound"),
            ("group", &instance.resource_group, "ResourceGroupNotFound"),
            ("instance", &instance.name, "ResourceNotFound"),
        ];
        for (name, expected, code) in known {
            match path_parameter(parts, name).await {
                Ok(found) if !found.eq_ignore_ascii_case(expected) => {
                    let kind = match name {
                        "subscription" => "subscription",
                        "group" => "resource group",
                        _ => "resource Microsoft.Devices/provisioningServices",
                    };
                    let message = format!("the {kind} {found:?} was not found");
                    return Err(ApiError::not_found(message).code(ErrorCode::Name(code)));
                }
                // A path that does not go as deep has no such parameter.
                Err(error) if error.status != StatusCode::NOT_FOUND => return Err(error),
                _ => {}
            }
        }
        Ok(Self)
    }
}

/// Returns the ID of the instance in Resource Manager.
pub(crate) fn instance_id(context: &Context) -> String {
    let instance = &context.instance;
    format!(
        "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Devices/provisioningServices/{}",
        instance.subscription, instance.resource_group, instance.name
    )
}

async fn list_subscriptions(State(context): State<SharedContext>) -> Response {
    json_response(StatusCode::OK, &json!({ "value": [show_subscription(&context)] }))
}

async fn get_subscription(State(context): State<SharedContext>, _: InstancePath) -> Response {
    json_response(StatusCode::OK, &show_subscription(&context))
}

async fn list(
    State(context): State<SharedContext>,
    Extension(version): Extension<ArmVersion>,
    _: InstancePath,
    origin: Origin,
) -> Response {
    json_response(StatusCode::OK, &json!({ "value": [show(&context, version, &origin)] }))
}

async fn get(
    State(context): State<SharedContext>,
    Extension(version): Extension<ArmVersion>,
    _: InstancePath,
    origin: Origin,
) -> Response {
    json_response(StatusCode::OK, &show(&context, version, &origin))
}

fn show_subscription(context: &Context) -> Value {
    let id = &context.instance.subscription;
    json!({
        "id": format!("/subscriptions/{id}"),
        "subscriptionId": id,
        "displayName": "Emulated subscription",
        "state": "Enabled",
    })
}

/// Returns the JSON of the instance. Its host names are those by which the client reached the emulator.
fn show(context: &Context, version: ArmVersion, origin: &Origin) -> Value {
    let instance = &context.instance;
    let mut properties = json!({
        "state": "Active",
        "provisioningState": "Succeeded",
        "iotHubs": [{
            "name": &*instance.hub,
            "hostName": &*instance.hub,
            "connectionString":
                format!("HostName={};SharedAccessKeyName=iothubowner;SharedAccessKey=****", instance.hub),
            "location": LOCATION,
            "applyAllocationPolicy": true,
            "allocationWeight": 1,
        }],
        "allocationPolicy": "Hashed",
        "serviceOperationsHostName": origin.authority,
        "deviceProvisioningHostName": origin.authority,
        "idScope": instance.id_scope,
        "publicNetworkAccess": "Enabled",
    });
    if version.shows_local_auth() {
        properties["disableLocalAuth"] = json!(!instance.local_auth);
    }
    if version.shows_namespaces() {
        properties["deviceRegistryNamespaces"] = json!([]);
    }
    json!({
        "id": instance_id(context),
        "name": instance.name,
        "type": "Microsoft.Devices/provisioningServices",
        "location": LOCATION,
        "tags": {},
        "etag": instance.etag.row_version(),
        "resourcegroup": instance.resource_group,
        "subscriptionid": instance.subscription,
        "sku": { "name": "S1", "tier": "Standard", "capacity": 1 },
        "properties": properties,
    })
}
