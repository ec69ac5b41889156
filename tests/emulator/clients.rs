//! The requests of shipped clients: their queries, media types and bodies.

use crate::support::app::{Answer, App, Authority, MERGE_PATCH, VERSION};
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::emulator::{DeviceProperties, Emulator};
use serde_json::{Value, json};

/// Sends a request like the Azure CLI: with the media type of JSON, even for PATCH, and its own headers.
async fn az(app: &App, method: &str, path: &str, body: Option<Value>) -> Answer {
    let request = app
        .request(method, &format!("{path}?{VERSION}"))
        .header("User-Agent", "IoTPlatformCliExtension/0.25.0")
        .header("x-ms-client-request-id", "5a0c6e1e-8c5a-11ee-b962-0242ac120002")
        .header("Content-Type", "application/json");
    let request = match body {
        Some(body) => request.body(body.to_string()),
        None => request,
    };
    app.send(request).await
}

#[tokio::test]
async fn az_iot_central_enrollment_group() {
    let app = App::start().await;
    let (root, path) = (Authority::new("Root"), "/enrollmentGroups/aztest");
    let group = json!({ "displayName": "n", "attestation": { "type": "x509" }, "type": "iot", "enabled": true });
    az(&app, "PUT", path, Some(group)).await.expect(200);
    az(&app, "PATCH", path, Some(json!({ "displayName": "new", "enabled": true }))).await.expect(200);
    let certificate = format!("{path}/certificates/primary");
    // The Azure CLI removes carriage returns and omits `verified`.
    let set = az(&app, "PUT", &certificate, Some(json!({ "certificate": root.base64() }))).await.expect(200);
    assert_eq!(set.body["verified"], false);
    let code = format!("{certificate}/generateVerificationCode");
    let code = az(&app, "POST", &code, None).await.expect(200).text("/verificationCode");
    let proof = json!({ "certificate": BASE64_STANDARD.encode(root.proof(&code)) });
    az(&app, "POST", &format!("{certificate}/verify"), Some(proof)).await.expect(204);
    az(&app, "DELETE", &certificate, None).await.expect(204);
    az(&app, "DELETE", path, None).await.expect(204);
}

#[tokio::test]
async fn az_iot_central_lists_add_the_version_to_a_next_link_that_has_it() {
    let app = App::start().await;
    for number in 0..30 {
        let group = json!({ "displayName": "", "attestation": { "type": "symmetricKey" }, "type": "iot" });
        az(&app, "PUT", &format!("/enrollmentGroups/g{number:02}"), Some(group)).await.expect(200);
    }
    let link = az(&app, "GET", "/enrollmentGroups", None).await.expect(200).text("/nextLink");
    let next = app.http.get(format!("{link}&{VERSION}")).header("Authorization", app.emulator.token());
    assert_eq!(app.send(next).await.expect(200).ids().len(), 5);
    let other = app.http.get(format!("{link}&api-version=2022-10-31-preview"));
    let other = other.header("Authorization", app.emulator.token());
    app.send(other).await.refused(400, "\"api-version\" is given more than once, with different values");
}

#[tokio::test]
async fn a_repeated_parameter_is_in_a_next_link_once() {
    let app = App::start().await;
    app.emulator.add_devices(["a", "b", "c"].map(DeviceProperties::new)).expect("devices");
    let request = app.request("GET", &format!("/devices?{VERSION}&$top=1&%24top=1&{VERSION}"));
    let first = app.send(request).await.expect(200);
    let link = first.text("/nextLink");
    assert_eq!((link.matches("api-version=").count(), link.matches("top=1").count()), (1, 1), "{link}");
    assert_eq!(app.all_ids(first).await, ["a", "b", "c"]);
    let request = app.request("GET", &format!("/devices?{VERSION}&$top=1&$top=2"));
    app.send(request).await.refused(400, "\"$top\" is given more than once");
}

#[tokio::test]
async fn az_iot_central_device() {
    let app = App::start().await;
    let path = "/devices/aztest";
    let body = json!({ "displayName": "n", "simulated": false, "enabled": true });
    az(&app, "PUT", path, Some(body)).await.expect(200);
    // An update sends the changed response of GET.
    let mut shown = az(&app, "GET", path, None).await.expect(200).body;
    shown["displayName"] = json!("n_new");
    assert_eq!(az(&app, "PATCH", path, Some(shown)).await.expect(200).text("/displayName"), "n_new");
    app.emulator.add_devices([DeviceProperties::new("edge").iot_edge(true)]).expect("a device");
    let version = ("api-version", "2022-06-30-preview");
    assert_eq!(app.query("/devices", &[version]).await.expect(200).ids(), ["aztest", "edge"]);
    let edge_only = ("$filter", "type eq 'GatewayDevice' or type eq 'EdgeDevice'");
    assert_eq!(app.query("/devices", &[edge_only, version]).await.expect(200).ids(), ["edge"]);

    let keys = |byte: u8| {
        let key = BASE64_STANDARD.encode([byte; 32]);
        json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": key, "secondaryKey": key } })
    };
    let attestation = format!("{path}/attestation");
    az(&app, "PUT", &attestation, Some(keys(1))).await.expect(200);
    let changed = az(&app, "PATCH", &attestation, Some(keys(2))).await.expect(200);
    assert_eq!(changed.body, keys(2));
    az(&app, "DELETE", &attestation, None).await.expect(204);
    az(&app, "DELETE", path, None).await.expect(204);
}

#[tokio::test]
async fn az_iot_central_device_group_with_its_organization() {
    let app = App::start().await;
    az(&app, "PUT", "/organizations/aztest1", Some(json!({ "displayName": "aztest1" }))).await.expect(200);
    let group = json!({
        "displayName": "n", "filter": "SELECT * FROM devices WHERE $template = \"dtmi:t\"", "description": "d",
        "organizations": ["aztest1"],
    });
    let made = az(&app, "PUT", "/deviceGroups/aztest", Some(group)).await.expect(200).body;
    assert_eq!(az(&app, "GET", "/deviceGroups", None).await.expect(200).body["value"][0], made);
    let patched = az(&app, "PATCH", "/deviceGroups/aztest", Some(json!({ "description": "new" }))).await.expect(200);
    assert_eq!((patched.text("/description"), patched.text("/displayName")), ("new".to_owned(), "n".to_owned()));
    az(&app, "DELETE", "/deviceGroups/aztest", None).await.expect(204);
}

#[tokio::test]
async fn every_patch_accepts_both_media_types() {
    let app = App::start().await;
    let key = BASE64_STANDARD.encode([1; 32]);
    let attestation = json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": key, "secondaryKey": key } });
    let group = json!({ "displayName": "", "filter": "SELECT * FROM devices" });
    app.put("/devices/d", &json!({})).await.expect(200);
    for (path, body) in [
        ("/devices/d", json!({})),
        ("/devices/d/attestation", attestation),
        ("/deviceGroups/g", group),
        ("/deviceTemplates/t", json!({ "@type": [], "capabilityModel": {} })),
        ("/enrollmentGroups/e", json!({ "displayName": "", "type": "iot", "attestation": { "type": "x509" } })),
        ("/organizations/oo", json!({ "displayName": "" })),
    ] {
        app.put(path, &body).await.expect(200);
        for media_type in [MERGE_PATCH, "application/json"] {
            let patch = app.request("PATCH", &format!("{path}?{VERSION}")).header("Content-Type", media_type);
            app.send(patch.body("{}")).await.expect(200);
        }
        let patch = app.request("PATCH", &format!("{path}?{VERSION}")).header("Content-Type", "text/json");
        app.send(patch.body("{}")).await.refused(415, "application/merge-patch+json or application/json");
    }
    let manifest = json!({ "displayName": "", "data": {} });
    app.preview("PUT", "/deploymentManifests/m", Some(&manifest)).await.expect(200);
    app.preview("PATCH", "/deploymentManifests/m", Some(&json!({}))).await.expect(200);
}

#[tokio::test]
async fn a_next_link_over_tls_keeps_https_and_the_default_port() {
    let app = App::with(Emulator::builder().tls(true).host("app.example")).await;
    app.emulator.add_devices((0..30).map(|number| DeviceProperties::new(format!("d{number}")))).expect("devices");
    let caller = crate::support::caller::Caller::new(&app.emulator);
    // A client on port 443 omits the port.
    let request = format!(
        "GET /api/devices?{VERSION} HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\nAuthorization: {}\r\n\r\n",
        app.emulator.token()
    );
    let answer = crate::support::caller::Answer::read(&caller.exchange(&request).await).expect(200);
    let link = answer.text("/nextLink");
    assert!(link.starts_with("https://app.example/api/devices?"), "{link}");
}
