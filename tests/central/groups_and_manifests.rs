//! Every call of device groups and deployment manifests sends what the API describes, and reads what the API answers.

use crate::support::{
    client::client,
    openapi::OpenApi,
    server::{Reply, Request, Server},
};
use iot_enroll::central::{
    ApiVersion, Change, DeploymentManifestId, DeploymentManifestUpdate, DeviceGroupId, DeviceGroupUpdate, Error, Etag,
    IdError, NewDeploymentManifest, NewDeviceGroup,
};
use serde_json::{Map, Value, json};

const QUERY: &str = r#"SELECT * FROM devices WHERE $template = "dtmi:modelDefinition:dtdlv2" AND $provisioned = true"#;

fn group_id() -> DeviceGroupId {
    "group_1".parse().expect("an id")
}

fn manifest_id() -> DeploymentManifestId {
    "cameras".parse().expect("an id")
}

fn group() -> Value {
    json!({
        "id": "group_1", "displayName": "Device group 1", "description": "Custom device group.", "filter": QUERY,
        "organizations": ["seattle"], "etag": "e1",
    })
}

fn content() -> Map<String, Value> {
    let edge = json!({ "registryCredentials": { "main": { "username": "u", "password": "opensesame" } } });
    let content = json!({ "modulesContent": { "$edgeAgent": { "properties.desired": { "runtime": edge } } } });
    content.as_object().expect("an object").clone()
}

fn manifest() -> Value {
    json!({ "id": "cameras", "displayName": "Cameras", "data": content(), "etag": "e1" })
}

/// The request, held to the description.
#[track_caller]
fn sent(server: &Server, method: &str, target: &str) -> Request {
    let request = server.requests().pop().expect("a request");
    assert_eq!((request.method.as_str(), request.target.as_str()), (method, format!("/api/{target}").as_str()));
    let checked = OpenApi::load().check_request(method, &request.target, request.header("content-type"), &request.body);
    assert_eq!(checked, Ok(()));
    request
}

#[tokio::test]
async fn a_device_group_is_created_read_changed_and_deleted() {
    let server = Server::start((0..4).map(|_| Reply::json(200, &group())));
    let groups = client(&server).device_groups();
    let target = "deviceGroups/group_1?api-version=2022-07-31";

    let mut new = NewDeviceGroup::new("Device group 1", QUERY);
    groups.replace(&group_id(), &new).await.expect("created");
    let bare = json!({ "displayName": "Device group 1", "filter": QUERY });
    assert_eq!(sent(&server, "PUT", target).json(), bare);
    new.description = Some("Custom device group.".to_owned());
    new.organizations = vec!["seattle".to_owned()];
    new.etag = Some(Etag::new("e1"));
    groups.replace(&group_id(), &new).await.expect("created");
    let mut whole = group();
    whole.as_object_mut().expect("an object").remove("id");
    assert_eq!(sent(&server, "PUT", target).json(), whole);

    let found = groups.get(&group_id()).await.expect("a group");
    sent(&server, "GET", target);
    assert_eq!((found.id.as_str(), found.filter.as_str()), ("group_1", QUERY));
    assert_eq!(serde_json::to_value(&found).expect("JSON"), group());

    let update = DeviceGroupUpdate::default().display_name("New group name".to_owned()).description(Change::Clear);
    groups.update(&group_id(), &update).await.expect("updated");
    let expected = json!({ "displayName": "New group name", "description": null });
    assert_eq!(sent(&server, "PATCH", target).json(), expected);

    server.then(Reply::no_content());
    groups.delete(&group_id()).await.expect("deleted");
    sent(&server, "DELETE", target);
    server.then(Reply::error(404, "NotFound", "none"));
    assert_eq!(groups.find(&group_id()).await.expect("an answer"), None);
}

#[tokio::test]
async fn device_groups_are_listed_and_the_devices_of_one_page_by_page() {
    let mut small = group();
    small["organizations"] = Value::Null;
    let server = Server::start([Reply::json(200, &json!({ "value": [group(), small] }))]);
    let groups = client(&server).device_groups();
    let found: Vec<_> = groups.list().try_collect().await.expect("groups");
    sent(&server, "GET", "deviceGroups?api-version=2022-07-31");
    assert_eq!((found.len(), found[1].organizations.len()), (2, 0));

    let target = "deviceGroups/group_1/devices?api-version=2022-07-31";
    let next = format!("{}/api/{target}&%24skiptoken=2", server.url());
    server.then(Reply::json(200, &json!({ "value": [{ "id": "a" }], "nextLink": next })));
    server.then(Reply::json(200, &json!({ "value": [{ "id": "b" }] })));
    let devices: Vec<_> = groups.devices(&group_id()).try_collect().await.expect("devices");
    let devices: Vec<_> = devices.into_iter().map(|it| it.id).collect();
    assert_eq!(devices.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["a", "b"]);
    sent(&server, "GET", &format!("{target}&%24skiptoken=2"));
}

#[tokio::test]
async fn a_manifest_is_created_read_changed_listed_and_deleted_in_the_preview_version() {
    let server = Server::start((0..3).map(|_| Reply::json(200, &manifest())));
    let client = client(&server);
    let manifests = client.deployment_manifests();
    assert_eq!(client.api_version(), ApiVersion::V2022_07_31, "the client's own version stays");
    let target = "deploymentManifests/cameras?api-version=2022-10-31-preview";

    let mut new = NewDeploymentManifest::new("Cameras", content());
    new.etag = Some(Etag::new("e1"));
    new.organizations = vec!["seattle".to_owned()];
    manifests.replace(&manifest_id(), &new).await.expect("created");
    let expected = json!({ "displayName": "Cameras", "data": content(), "etag": "e1", "organizations": ["seattle"] });
    assert_eq!(sent(&server, "PUT", target).json(), expected);

    let found = manifests.get(&manifest_id()).await.expect("a manifest");
    sent(&server, "GET", target);
    assert_eq!((&found.id, &found.data), (&manifest_id(), &content()));
    assert_eq!(serde_json::to_value(&found).expect("JSON"), manifest());

    let update = DeploymentManifestUpdate::default().data(content());
    manifests.update(&manifest_id(), &update).await.expect("updated");
    assert_eq!(sent(&server, "PATCH", target).json(), json!({ "data": content() }));
    assert!(!format!("{new:?} {found:?} {update:?}").contains("opensesame"));

    server.then(Reply::json(200, &json!({ "value": [manifest()] })));
    assert_eq!(manifests.list().try_collect::<Vec<_>>().await.expect("manifests"), [found]);
    sent(&server, "GET", "deploymentManifests?api-version=2022-10-31-preview");
    server.then(Reply::no_content());
    manifests.delete(&manifest_id()).await.expect("deleted");
    sent(&server, "DELETE", target);
    server.then(Reply::error(404, "NotFound", "none"));
    assert_eq!(manifests.find(&manifest_id()).await.expect("an answer"), None);
}

#[tokio::test]
async fn an_assignment_is_retried_after_a_lost_answer_and_any_success_status_is_success() {
    for reply in [Reply::no_content(), Reply::json(200, &json!({})), Reply::with(202, &[], "")] {
        let server = Server::start([Reply::lost(), reply]);
        let device = "gateway 1".parse().expect("an id");
        client(&server).deployment_manifests().assign(&device, &content()).await.expect("assigned");
        let target = "devices/gateway%201/applyDeploymentManifest?api-version=2022-10-31-preview";
        assert_eq!(sent(&server, "POST", target).json(), json!({ "data": content() }));
        assert_eq!(server.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_password_of_a_manifest_is_in_no_error() {
    let server = Server::start([Reply::error(422, "Unprocessable", "the registry refused opensesame")]);
    let new = NewDeploymentManifest::new("Cameras", content());
    let error = client(&server).deployment_manifests().replace(&manifest_id(), &new).await.expect_err("refused");
    assert!(!format!("{error} {error:?}").contains("opensesame") && matches!(error, Error::Service(_)), "{error}");
}

#[test]
fn ids_keep_their_rules() {
    assert!(DeviceGroupId::new("475cad48-b7ff_4a09").is_ok() && DeploymentManifestId::new("a b/c").is_ok());
    assert!(matches!(DeviceGroupId::new("a.b"), Err(IdError::Character { character: '.', position: 2, .. })));
    assert!(matches!(DeviceGroupId::new("a".repeat(256)), Err(IdError::Length { max: 255, .. })));
    assert!(matches!(DeviceGroupId::new(""), Err(IdError::Length { found: 0, .. })));
    assert!(matches!(DeploymentManifestId::new(".."), Err(IdError::Path { .. })));
}

#[test]
fn the_description_tells_the_versions_apart() {
    let api = OpenApi::load();
    let (preview, general) = ("?api-version=2022-10-31-preview", "?api-version=2022-07-31");
    let check = |method: &str, target: String, body: &Value| {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        api.check_request(method, &target, Some("application/json"), &body)
    };
    let edge = json!({ "type": ["iotEdge"] });
    assert_eq!(check("PUT", format!("/devices/d{preview}"), &edge), Ok(()));
    assert!(check("PUT", format!("/devices/d{general}"), &edge).is_err(), "a type");
    assert_eq!(check("GET", format!("/devices{preview}&maxpagesize=100"), &Value::Null), Ok(()));
    assert!(check("GET", format!("/devices{preview}&maxpagesize=101"), &Value::Null).is_err(), "the size");
    for (version, parameter) in [(preview, "$filter=x"), (general, "filter=x"), (general, "maxpagesize=1")] {
        assert!(check("GET", format!("/devices{version}&{parameter}"), &Value::Null).is_err(), "{parameter}");
    }
    assert!(check("GET", format!("/deploymentManifests{general}"), &Value::Null).is_err(), "manifests");
    let data = json!({ "data": {} });
    assert!(check("POST", format!("/devices/d/applyDeploymentManifest{general}"), &data).is_err(), "an assignment");
    let attestation = json!({ "type": "x509" });
    assert_eq!(check("PUT", format!("/devices/d/attestation{general}"), &attestation), Ok(()));
}
