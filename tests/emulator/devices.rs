//! Devices: create, replace, patch, delete, credentials, attestation.

use crate::support::app::{App, Authority, MERGE_PATCH, VERSION};
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::{certificate::Certificate, emulator::DeviceProperties};
use serde_json::{Value, json};

const DEVICE: &str = "/devices/thermostat1";
const ATTESTATION: &str = "/devices/thermostat1/attestation";

fn thumbprint(authority: &Authority) -> String {
    Certificate::read(authority.pem.as_bytes()).expect("a certificate").sha1_thumbprint().to_string()
}

fn x509(certificates: &Value) -> Value {
    json!({ "type": "x509", "x509": { "clientCertificates": certificates } })
}

async fn with_device() -> App {
    let app = App::start().await;
    app.put(DEVICE, &json!({})).await.expect(200);
    app
}

#[tokio::test]
async fn omitted_fields_of_a_new_device_have_defaults() {
    let app = App::start().await;
    let put = app.put(DEVICE, &json!({})).await.expect(200);
    assert_eq!(
        put.body,
        json!({
            "id": "thermostat1", "displayName": "thermostat1", "enabled": true, "simulated": false,
            "provisioned": false, "etag": put.body["etag"],
        })
    );
    assert_eq!(app.get(DEVICE).await.expect(200).body, put.body);
}

#[tokio::test]
async fn replacing_a_device_keeps_what_has_its_own_operations() {
    let app = App::start().await;
    let seed = DeviceProperties::new("thermostat1").provisioned(true).template("dtmi:a;1").organizations(["seattle"]);
    app.emulator.add_devices([seed]).expect("a device");
    let tpm = json!({ "type": "tpm", "tpm": { "endorsementKey": "AAAA" } });
    app.put(ATTESTATION, &tpm).await.expect(200);
    let before = app.get(DEVICE).await.expect(200).body;
    assert_eq!(before["organizations"], json!(["seattle"]));
    let after = app.put(DEVICE, &json!({ "displayName": "Name" })).await.expect(200).body;
    assert_ne!(after["etag"], before["etag"]);
    assert_eq!(
        after,
        json!({
            "id": "thermostat1", "displayName": "Name", "enabled": true, "simulated": false, "provisioned": true,
            "etag": after["etag"],
        })
    );
    assert_eq!(app.get(ATTESTATION).await.expect(200).body, tpm);
}

#[tokio::test]
async fn the_response_of_get_can_be_put_back() {
    let app = App::start().await;
    app.put(DEVICE, &json!({ "template": "dtmi:a;1", "organizations": ["redmond", "seattle"] })).await.expect(200);
    let mut shown = app.get(DEVICE).await.expect(200).body;
    let again = app.put(DEVICE, &shown).await.expect(200).body;
    shown["etag"] = again["etag"].clone();
    assert_eq!(again, shown);
}

#[tokio::test]
async fn ids_ignore_case_and_the_first_spelling_is_kept() {
    let app = App::start().await;
    app.put("/devices/Pump-1", &json!({})).await.expect(200);
    let keys = app.get("/devices/Pump-1/credentials").await.expect(200).body;
    let replaced = app.put("/devices/PUMP-1", &json!({ "id": "pump-1", "simulated": true })).await.expect(200).body;
    assert_eq!((&replaced["id"], &replaced["displayName"]), (&json!("Pump-1"), &json!("Pump-1")));
    assert_eq!(app.get("/devices/pump-1").await.expect(200).body, replaced);
    let patched = app.patch("/devices/pUMP-1", &json!({ "enabled": false })).await.expect(200).body;
    assert_eq!((&patched["id"], &patched["simulated"]), (&json!("Pump-1"), &json!(true)));
    assert_eq!(app.get("/devices/pump-1/credentials").await.expect(200).body, keys);
    app.emulator.add_devices([DeviceProperties::new("pump-1"), DeviceProperties::new("a")]).expect("devices");
    assert_eq!(app.get("/devices").await.expect(200).ids(), ["a", "Pump-1"]);
    app.delete("/devices/PUMP-1").await.expect(204);
    assert_eq!(app.get("/devices").await.expect(200).ids(), ["a"]);
    app.put("/devices/PUMP-1", &json!({})).await.expect(200);
    assert_eq!(app.get("/devices/pump-1/credentials").await.expect(200).body, keys);
}

#[tokio::test]
async fn a_patch_changes_its_fields_and_null_resets_name_and_template() {
    let app = App::start().await;
    let whole = json!({
        "displayName": "Name", "template": "dtmi:a;1", "enabled": false, "simulated": true, "organizations": ["seattle"]
    });
    app.put(DEVICE, &whole).await.expect(200);
    let mut expected = app.get(DEVICE).await.expect(200).body;
    let patched = app.patch(DEVICE, &json!({ "displayName": "New", "enabled": true })).await.expect(200).body;
    expected["displayName"] = json!("New");
    expected["enabled"] = json!(true);
    expected["etag"] = patched["etag"].clone();
    assert_eq!(patched, expected);
    let reset = app.patch(DEVICE, &json!({ "displayName": null, "template": null })).await.expect(200).body;
    assert_eq!(reset["displayName"], "thermostat1");
    assert_eq!(reset.get("template"), None);
    for field in ["enabled", "simulated", "organizations", "etag"] {
        app.patch(DEVICE, &json!({ field: null })).await.refused(422, &format!("{field}: cannot be null"));
    }
    assert_eq!(app.get(DEVICE).await.expect(200).body, reset);
}

#[tokio::test]
async fn a_patch_may_have_the_media_type_of_json() {
    let app = with_device().await;
    for (media_type, status) in [(MERGE_PATCH, 200), ("application/json", 200), ("text/plain", 415)] {
        let patch = app.request("PATCH", &format!("{DEVICE}?{VERSION}")).header("Content-Type", media_type);
        app.send(patch.body("{}")).await.expect(status);
    }
}

#[tokio::test]
async fn every_field_of_the_body_is_checked_and_named() {
    let app = App::start().await;
    for (body, message) in [
        (json!([]), "the body: expected an object"),
        (json!({ "id": "other" }), "id: found \"other\""),
        (json!({ "displayName": 1 }), "displayName: expected a string"),
        (json!({ "displayName": null }), "displayName: expected a string"),
        (json!({ "template": "" }), "template: it is empty"),
        (json!({ "enabled": "true" }), "enabled: expected true or false"),
        (json!({ "simulated": 1 }), "simulated: expected true or false"),
        (json!({ "provisioned": true }), "provisioned: it is false and cannot be set"),
        (json!({ "organizations": "a" }), "organizations: expected an array of strings, found a string"),
        (json!({ "organizations": [1] }), "organizations: expected an array of strings"),
        (json!({ "organizations": ["Seattle"] }), "organizations: \"Seattle\" is not a valid"),
        (json!({ "organizations": ["-a"] }), "organizations: \"-a\" is not a valid organization ID"),
        (json!({ "organizations": ["a"] }), "organizations: \"a\" is not a valid organization ID"),
        (json!({ "organizations": ["seattle", "seattle"] }), "organizations: \"seattle\" is listed twice"),
        (json!({ "type": ["iotEdge"] }), "type: is an unknown field"),
        (json!({ "dispalyName": "" }), "dispalyName: is an unknown field"),
    ] {
        app.put(DEVICE, &body).await.refused(422, message);
    }
    app.get(DEVICE).await.expect(404);
}

#[tokio::test]
async fn the_id_of_a_device_is_a_registration_id() {
    let app = App::start().await;
    let longest = "a".repeat(128);
    for id in ["a", "A1", "a-b.c_d:e", "a-", longest.as_str()] {
        app.put(&format!("/devices/{id}"), &json!({})).await.expect(200);
    }
    let too_long = "a".repeat(129);
    for id in ["-a", "a.", "a_", "a:", "-", "a%20b", "a%2Fb", "%C3%BC", too_long.as_str()] {
        app.put(&format!("/devices/{id}"), &json!({})).await.refused(400, "not a valid device ID");
    }
    app.get("/devices/%FF").await.refused(400, "UTF-8");
    assert_eq!(app.get("/devices").await.expect(200).ids().len(), 5);
}

#[tokio::test]
async fn an_etag_guards_put_and_patch() {
    let app = App::start().await;
    app.put(DEVICE, &json!({ "etag": "x" })).await.refused(412, "does not exist");
    let first = app.put(DEVICE, &json!({})).await.expect(200).text("/etag");
    let second = app.patch(DEVICE, &json!({ "enabled": false, "etag": first })).await.expect(200).text("/etag");
    app.patch(DEVICE, &json!({ "etag": first })).await.refused(412, "the resource has changed");
    app.put(DEVICE, &json!({ "etag": first })).await.refused(412, "the resource has changed");
    app.put(DEVICE, &json!({ "etag": second })).await.expect(200);
}

#[tokio::test]
async fn a_deleted_device_is_unknown_to_every_operation() {
    let app = with_device().await;
    app.delete(DEVICE).await.expect(204);
    app.delete(DEVICE).await.refused(404, "there is no device \"thermostat1\"");
    app.get(DEVICE).await.expect(404);
    app.patch(DEVICE, &json!({})).await.expect(404);
    app.get(&format!("{DEVICE}/credentials")).await.expect(404);
    app.get(ATTESTATION).await.expect(404);
    app.put(ATTESTATION, &json!({ "type": "symmetricKey" })).await.expect(404);
    app.patch(ATTESTATION, &json!({})).await.expect(404);
    app.delete(ATTESTATION).await.expect(404);
    assert!(app.get("/devices").await.expect(200).ids().is_empty());
    let sorted = app.query("/devices", &[("api-version", "2022-07-31"), ("$orderby", "displayName")]).await;
    assert!(sorted.expect(200).ids().is_empty());
}

#[tokio::test]
async fn the_credentials_of_a_device_are_unique_and_stable() {
    let app = with_device().await;
    app.put("/devices/other", &json!({})).await.expect(200);
    let credentials = app.get(&format!("{DEVICE}/credentials")).await.expect(200);
    assert_eq!(credentials.text("/idScope"), app.emulator.id_scope());
    let (primary, secondary) =
        (credentials.text("/symmetricKey/primaryKey"), credentials.text("/symmetricKey/secondaryKey"));
    assert_eq!(BASE64_STANDARD.decode(&primary).expect("base64").len(), 32);
    assert_ne!(primary, secondary);
    assert_ne!(app.get("/devices/other/credentials").await.expect(200).text("/symmetricKey/primaryKey"), primary);
    assert_eq!(app.get(&format!("{DEVICE}/credentials")).await.expect(200).body, credentials.body);
    app.get(ATTESTATION).await.refused(404, "no individual attestation");
}

#[tokio::test]
async fn an_attestation_by_certificate_or_thumbprint_shows_thumbprints() {
    let app = with_device().await;
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let info = |authority: &Authority| json!({ "info": { "sha1Thumbprint": thumbprint(authority) } });
    let shown = x509(&json!({ "primary": info(&one), "secondary": info(&two) }));
    let both = json!({ "certificate": two.base64(), "info": { "sha1Thumbprint": thumbprint(&two) } });
    let body = x509(&json!({ "primary": { "certificate": one.base64() }, "secondary": both }));
    assert_eq!(app.put(ATTESTATION, &body).await.expect(200).body, shown);
    assert_eq!(app.get(ATTESTATION).await.expect(200).body, shown);
    assert_eq!(app.put(ATTESTATION, &shown).await.expect(200).body, shown);
    let credentials = app.get(&format!("{DEVICE}/credentials")).await.expect(200).body;
    assert_eq!(credentials, json!({ "idScope": app.emulator.id_scope(), "x509": shown["x509"] }));
}

#[tokio::test]
async fn credentials_show_an_attestation_by_keys_or_tpm() {
    let app = with_device().await;
    let credentials = format!("{DEVICE}/credentials");
    let derived = app.get(&credentials).await.expect(200).body;
    let made = app.put(ATTESTATION, &json!({ "type": "symmetricKey" })).await.expect(200).body;
    assert_ne!(made["symmetricKey"], derived["symmetricKey"]);
    assert_eq!(app.get(&credentials).await.expect(200).body["symmetricKey"], made["symmetricKey"]);
    let keys =
        json!({ "primaryKey": BASE64_STANDARD.encode([1; 32]), "secondaryKey": BASE64_STANDARD.encode([2; 32]) });
    let given = json!({ "type": "symmetricKey", "symmetricKey": keys });
    assert_eq!(app.put(ATTESTATION, &given).await.expect(200).body, given);
    let tpm = json!({ "type": "tpm", "tpm": { "endorsementKey": "AAAA" } });
    assert_eq!(app.put(ATTESTATION, &tpm).await.expect(200).body, tpm);
    let shown = app.get(&credentials).await.expect(200).body;
    assert_eq!(shown, json!({ "idScope": app.emulator.id_scope(), "tpm": { "endorsementKey": "AAAA" } }));
    app.delete(ATTESTATION).await.expect(204);
    app.delete(ATTESTATION).await.expect(404);
    assert_eq!(app.get(&credentials).await.expect(200).body, derived);
}

#[tokio::test]
async fn a_patch_of_an_attestation_merges_and_checks_the_result() {
    let app = with_device().await;
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    app.patch(ATTESTATION, &json!({ "type": "tpm" })).await.refused(404, "no individual attestation");
    let certificates = json!({ "primary": { "certificate": one.base64() } });
    app.put(ATTESTATION, &x509(&certificates)).await.expect(200);
    let patch = |primary: Value, secondary: Value| {
        let certificates = json!({ "primary": primary, "secondary": secondary });
        json!({ "x509": { "clientCertificates": certificates } })
    };
    let change = patch(json!({ "certificate": two.base64() }), json!({ "certificate": one.base64() }));
    let patched = app.patch(ATTESTATION, &change).await.expect(200);
    let shown = patched.text("/x509/clientCertificates/primary/info/sha1Thumbprint");
    assert_eq!(shown, thumbprint(&two));
    app.patch(ATTESTATION, &patch(Value::Null, json!({}))).await.refused(422, "primary: is missing");
    let removed = app.patch(ATTESTATION, &patch(json!({}), Value::Null)).await.expect(200);
    assert_eq!(removed.body["x509"]["clientCertificates"].get("secondary"), None);
    app.patch(ATTESTATION, &json!({ "type": "symmetricKey" })).await.refused(422, "x509: not allowed");
    let keys = app.patch(ATTESTATION, &json!({ "type": "symmetricKey", "x509": null })).await.expect(200);
    assert_eq!(keys.body["symmetricKey"].as_object().expect("keys").len(), 2);
}

#[tokio::test]
async fn every_field_of_an_attestation_is_checked_and_named() {
    let app = with_device().await;
    let one = Authority::new("one");
    let certificate = json!({ "certificate": one.base64() });
    let info = |text: &str| json!({ "primary": { "info": { "sha1Thumbprint": text } } });
    let weak = std::fs::read_to_string("fixtures/root-rsa1024.pem").expect("a fixture");
    for (body, message) in [
        (json!({}), "type: is missing"),
        (json!({ "type": "none" }), "type: expected symmetricKey, x509 or tpm"),
        (json!({ "type": "x509" }), "x509: is missing"),
        (json!({ "type": "x509", "x509": {} }), "x509.clientCertificates: is missing"),
        (x509(&json!({})), "x509.clientCertificates.primary: is missing"),
        (x509(&json!({ "primary": {} })), "x509.clientCertificates.primary.certificate: is missing"),
        (x509(&json!({ "primary": { "certificate": "AAAA" } })), "cannot read a certificate"),
        (x509(&json!({ "primary": { "certificate": weak } })), "its key is RSA"),
        (x509(&info("00")), "info.sha1Thumbprint: expected 40"),
        (x509(&info(&thumbprint(&one).to_lowercase())), "info.sha1Thumbprint: expected 40"),
        (
            x509(&json!({ "primary": { "certificate": one.base64(), "info": { "sha1Thumbprint": "A".repeat(40) } } })),
            "not the thumbprint of the certificate",
        ),
        (x509(&json!({ "primary": certificate, "secondary": certificate })), "secondary: it is already the primary"),
        (x509(&json!({ "primary": certificate, "tertiary": certificate })), "tertiary: is an unknown field"),
        (json!({ "type": "tpm", "x509": {} }), "tpm: is missing"),
        (json!({ "type": "tpm", "tpm": { "endorsementKey": "" } }), "tpm.endorsementKey: expected the key"),
        (json!({ "type": "symmetricKey", "tpm": {} }), "tpm: not allowed with the type symmetricKey"),
        (json!({ "type": "symmetricKey", "symmetricKey": {} }), "symmetricKey.primaryKey: is missing"),
        (json!({ "type": "symmetricKey", "etag": "x" }), "etag: is an unknown field"),
    ] {
        app.put(ATTESTATION, &body).await.refused(422, message);
    }
    app.get(ATTESTATION).await.expect(404);
}

#[tokio::test]
async fn devices_added_in_process_are_checked_and_added_all_or_none() {
    let app = App::start().await;
    let bad = [DeviceProperties::new("good"), DeviceProperties::new("not good")];
    let error = app.emulator.add_devices(bad).expect_err("an id that is none");
    assert!(error.to_string().contains("\"not good\""), "{error}");
    app.get("/devices/good").await.expect(404);
    app.emulator.add_devices([DeviceProperties::new("good")]).expect("a device");
    assert_eq!(app.get("/devices/good").await.expect(200).text("/displayName"), "good");
}
