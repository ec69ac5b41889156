//! Deployment manifests and IoT Edge devices, which only the preview version has.

use crate::support::app::App;
use serde_json::{Value, json};

const MANIFEST: &str = "/deploymentManifests/m_1";

fn manifest() -> Value {
    json!({ "displayName": "M", "data": { "modulesContent": { "$edgeAgent": { "properties.desired": {} } } } })
}

#[tokio::test]
async fn a_manifest_is_shown_as_it_was_set() {
    let app = App::start().await;
    let mut expected = manifest();
    expected["organizations"] = json!(["seattle"]);
    let put = app.preview("PUT", MANIFEST, Some(&expected)).await.expect(200);
    expected["id"] = json!("m_1");
    expected["etag"] = put.body["etag"].clone();
    assert_eq!(put.body, expected);
    assert_eq!(app.preview("GET", MANIFEST, None).await.expect(200).body, expected);
    assert_eq!(app.preview("GET", "/deploymentManifests", None).await.expect(200).body, json!({ "value": [expected] }));
}

#[tokio::test]
async fn a_manifest_is_patched_guarded_and_deleted() {
    let app = App::start().await;
    let etag = app.preview("PUT", MANIFEST, Some(&manifest())).await.expect(200).text("/etag");
    let patch = json!({ "displayName": "N", "data": { "modulesContent": { "$edgeHub": {} } }, "etag": etag });
    let patched = app.preview("PATCH", MANIFEST, Some(&patch)).await.expect(200);
    assert_eq!(patched.text("/displayName"), "N");
    assert_eq!(patched.body["data"]["modulesContent"].as_object().expect("modules").len(), 2);
    app.preview("PATCH", MANIFEST, Some(&patch)).await.expect(412);
    app.preview("PUT", MANIFEST, Some(&json!({ "displayName": "M" }))).await.refused(422, "data: is missing");
    app.preview("PUT", MANIFEST, Some(&json!({ "displayName": "M", "data": [] }))).await.refused(422, "data: expected");
    app.preview("PUT", "/deploymentManifests/a.b", Some(&manifest()))
        .await
        .refused(400, "not a valid deployment manifest ID");
    app.preview("DELETE", MANIFEST, None).await.expect(204);
    for (method, body) in [("GET", None), ("DELETE", None), ("PATCH", Some(&patch))] {
        app.preview(method, MANIFEST, body).await.expect(404);
    }
}

#[tokio::test]
async fn the_stable_version_has_neither_manifests_nor_types() {
    let app = App::start().await;
    for path in [MANIFEST, "/deploymentManifests"] {
        let refused = app.get(path).await.refused(404, "use api-version=2022-10-31-preview");
        assert!(refused.text("/error/message").contains(&format!("/api{path} ")), "{}", refused.body);
    }
    let edge = json!({ "type": ["iotEdge"] });
    assert_eq!(app.preview("PUT", "/devices/e", Some(&edge)).await.expect(200).body["type"], json!(["iotEdge"]));
    app.post("/devices/e/applyDeploymentManifest", Some(&json!({ "data": {} }))).await.expect(404);
    assert_eq!(app.get("/devices/e").await.expect(200).body.get("type"), None);
    assert_eq!(app.put("/devices/e", &json!({})).await.expect(200).body.get("type"), None);
    assert_eq!(app.preview("GET", "/devices/e", None).await.expect(200).body["type"], json!(["iotEdge"]));
}

#[tokio::test]
async fn a_manifest_is_assigned_to_iot_edge_devices_only() {
    let app = App::start().await;
    let apply = "/devices/e/applyDeploymentManifest";
    let body = json!({ "data": manifest()["data"] });
    app.preview("POST", apply, Some(&body)).await.expect(404);
    app.preview("PUT", "/devices/e", Some(&json!({}))).await.expect(200);
    app.preview("POST", apply, Some(&body)).await.refused(422, "not an IoT Edge device");
    assert_eq!(app.emulator.assigned_manifest("e"), None);
    app.preview("PATCH", "/devices/e", Some(&json!({ "type": ["iotEdge"] }))).await.expect(200);
    app.preview("POST", apply, Some(&json!({}))).await.refused(422, "data: is missing");
    app.preview("POST", apply, Some(&json!({ "data": {}, "id": "m" }))).await.refused(422, "id: is an unknown field");
    app.preview("POST", apply, Some(&body)).await.expect(204);
    let assigned = app.emulator.assigned_manifest("e").expect("a manifest");
    assert_eq!(serde_json::from_str::<Value>(&assigned).expect("JSON"), body["data"]);
    for wrong in [json!(["iotEdge", "iotEdge"]), json!(["iot"]), json!("iotEdge")] {
        app.preview("PUT", "/devices/e", Some(&json!({ "type": wrong }))).await.refused(422, "type: expected");
    }
    app.preview("PUT", "/devices/e", Some(&json!({ "type": [] }))).await.expect(200);
    assert_eq!(app.emulator.assigned_manifest("e"), None);
}
