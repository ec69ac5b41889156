//! Device templates: create, replace, patch, delete, list, and their effect on devices.

use std::num::NonZeroUsize;

use crate::support::app::{Answer, App, MERGE_PATCH, VERSION};
use iot_enroll::emulator::Emulator;
use serde_json::{Value, json};

const TEMPLATE: &str = "/deviceTemplates/dtmi:contoso:thermostat;1";

fn template(name: &str) -> Value {
    json!({
        "displayName": name,
        "@id": "dtmi:contoso:other",
        "@type": ["ModelDefinition", "DeviceModel"],
        "@context": ["dtmi:iotcentral:context;2", "dtmi:dtdl:context;2"],
        "capabilityModel": {
            "@id": "dtmi:contoso:Thermostat;1",
            "@type": "Interface",
            "contents": [{ "@type": ["Telemetry", "Temperature"], "name": "temperature", "schema": "double" }],
        },
    })
}

fn ids(answer: &Answer) -> Vec<String> {
    let members = answer.body["value"].as_array().expect("a list");
    members.iter().map(|member| member["@id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn a_template_is_shown_as_it_was_set_with_the_id_of_the_path() {
    let app = App::start().await;
    let put = app.put(TEMPLATE, &template("Thermostat")).await.expect(200).body;
    let mut expected = template("Thermostat");
    expected["@id"] = json!("dtmi:contoso:thermostat;1");
    expected["etag"] = put["etag"].clone();
    assert_eq!(put, expected);
    assert_eq!(app.get(TEMPLATE).await.expect(200).body, expected);
    assert_eq!(app.get("/deviceTemplates").await.expect(200).body, json!({ "value": [expected] }));
    // The response of GET can be put back, and PUT replaces the whole template.
    app.put(TEMPLATE, &expected).await.expect(200);
    let bare = json!({ "@type": ["DeviceModel"], "capabilityModel": {} });
    let replaced = app.put(TEMPLATE, &bare).await.expect(200).body;
    assert_eq!(replaced.get("displayName"), None);
    assert_eq!(replaced.get("@context"), None);
    app.put(TEMPLATE, &expected).await.refused(412, "has changed");
    for id in ["urn:modelDefinition:aqlyr1ulfku:tz5rut2pvx", "store_monitoring-device", "dtmi%3Aa%3Bb%3B2"] {
        app.put(&format!("/deviceTemplates/{id}"), &bare).await.expect(200);
    }
    assert_eq!(app.get("/deviceTemplates/dtmi:a;b;2").await.expect(200).text("/@id"), "dtmi:a;b;2");
    app.put("/deviceTemplates/a%20b", &bare).await.refused(400, "not a valid device template ID");
}

#[tokio::test]
async fn a_template_is_patched_as_by_the_azure_cli() {
    let app = App::start().await;
    app.put(TEMPLATE, &template("Thermostat")).await.expect(200);
    // The update command sends the output of the show command without ID, context and etag.
    let mut body = template("Thermostat");
    for gone in ["@id", "@context"] {
        body.as_object_mut().expect("an object").remove(gone);
    }
    body["displayName"] = json!("Thermostat_new");
    let added = json!({ "@id": "dtmi:new;1", "@type": "Telemetry", "name": "new", "schema": "double" });
    body["capabilityModel"]["contents"].as_array_mut().expect("a list").push(added);
    for media_type in ["application/json", MERGE_PATCH] {
        let patch = app.request("PATCH", &format!("{TEMPLATE}?{VERSION}")).header("Content-Type", media_type);
        let patched = app.send(patch.body(body.to_string())).await.expect(200);
        assert_eq!(patched.text("/displayName"), "Thermostat_new");
        assert_eq!(patched.body["capabilityModel"]["contents"].as_array().expect("a list").len(), 2);
        assert_eq!(patched.text("/@context/0"), "dtmi:iotcentral:context;2");
    }
    app.patch(TEMPLATE, &json!({ "@context": null, "capabilityModel": { "contents": null } })).await.expect(200);
    let shown = app.get(TEMPLATE).await.expect(200).body;
    assert_eq!((shown.get("@context"), shown["capabilityModel"].get("contents")), (None, None));
    app.patch(TEMPLATE, &json!({ "@type": null })).await.refused(422, "@type: cannot be null");
    app.patch(TEMPLATE, &json!({ "capabilityModel": [] })).await.refused(422, "capabilityModel: expected an object");
    app.patch(TEMPLATE, &json!({ "etag": "x" })).await.expect(412);
    app.patch("/deviceTemplates/none", &json!({})).await.refused(404, "there is no device template \"none\"");
}

#[tokio::test]
async fn every_field_of_the_body_is_checked_and_named() {
    let app = App::start().await;
    let with = |field: &str, value: Value| {
        let mut body = template("T");
        body[field] = value;
        body
    };
    for (body, message) in [
        (json!({}), "@type: is missing"),
        (json!({ "@type": ["DeviceModel"] }), "capabilityModel: is missing"),
        (with("@type", json!("DeviceModel")), "@type: expected an array of strings"),
        (with("@id", json!(1)), "@id: expected a string"),
        (with("displayName", json!({ "en": "T" })), "displayName: expected a string"),
        (with("deploymentManifest", json!([])), "deploymentManifest: expected an object"),
        (with("capabilitymodel", json!({})), "capabilitymodel: is an unknown field"),
    ] {
        app.put(TEMPLATE, &body).await.refused(422, message);
    }
    app.get(TEMPLATE).await.expect(404);
}

#[tokio::test]
async fn the_list_has_pages_a_filter_and_an_order() {
    let app = App::with(Emulator::builder().page_size(NonZeroUsize::new(2).expect("two"))).await;
    for (id, name) in [("a", "Room"), ("b", "Thermostat"), ("c", "Aircon thermostat"), ("d", "Thermostat")] {
        app.put(&format!("/deviceTemplates/{id}"), &template(name)).await.expect(200);
    }
    let all = async |parameters: &[(&str, &str)]| {
        let mut page = app.query("/deviceTemplates", parameters).await.expect(200);
        let mut found = ids(&page);
        while let Some(next) = app.next(&page).await {
            found.extend(ids(&next));
            page = next;
        }
        found.concat()
    };
    for (version, filter, order, top) in [
        ("2022-07-31", "$filter", "$orderby", "$top"),
        ("2022-06-30-preview", "$filter", "$orderby", "$top"),
        ("2022-10-31-preview", "filter", "orderby", "maxpagesize"),
    ] {
        let version = ("api-version", version);
        assert_eq!(all(&[version]).await, "abcd");
        for (text, expected) in [("displayName", "cabd"), ("displayName desc", "dbac")] {
            assert_eq!(all(&[version, (order, text)]).await, expected, "{text}");
            assert_eq!(all(&[version, (order, text), (top, "1")]).await, expected, "{text}");
        }
        for (text, expected) in [
            ("contains(displayName, 'hermostat')", "bcd"),
            ("contains(displayName, 'Thermostat')", "bd"),
            ("displayName eq 'Room' or displayName eq 'Aircon thermostat'", "ac"),
            ("displayName ne 'Thermostat'", "ac"),
        ] {
            assert_eq!(all(&[version, (filter, text)]).await, expected, "{text}");
            assert_eq!(all(&[version, (filter, text), (order, "displayName"), (top, "1")]).await.len(), expected.len());
        }
        // Templates do not have the fields of devices.
        for text in ["id eq 'a'", "enabled eq true", "type eq 'EdgeDevice'", "contains(template, 'a')"] {
            let answer = app.query("/deviceTemplates", &[version, (filter, text)]).await;
            answer.refused(400, "expected a field");
        }
    }
    app.query("/deviceTemplates", &[("api-version", "2022-07-31"), ("filter", "x")]).await.refused(400, "is called");
}

#[tokio::test]
async fn a_template_in_use_cannot_be_deleted() {
    let app = App::start().await;
    app.put(TEMPLATE, &template("T")).await.expect(200);
    app.put("/devices/d", &json!({ "template": "dtmi:contoso:thermostat;1" })).await.expect(200);
    app.delete(TEMPLATE).await.refused(409, "in use by the device \"d\"");
    app.get(TEMPLATE).await.expect(200);
    app.delete("/devices/d").await.expect(204);
    app.delete(TEMPLATE).await.expect(204);
    app.delete(TEMPLATE).await.expect(404);
}

#[tokio::test]
async fn a_device_of_an_edge_template_is_an_iot_edge_device() {
    let app = App::start().await;
    let mut edge = template("Edge");
    edge["@type"] = json!(["ModelDefinition", "DeviceModel", "EdgeModel"]);
    edge["deploymentManifest"] = json!({ "modulesContent": {} });
    let put = app.put("/deviceTemplates/edge;1", &edge).await.expect(200);
    assert_eq!(put.body["deploymentManifest"], edge["deploymentManifest"]);
    app.put(TEMPLATE, &template("T")).await.expect(200);
    app.put("/devices/edge", &json!({ "template": "edge;1", "simulated": true })).await.expect(200);
    app.put("/devices/other", &json!({ "template": "dtmi:contoso:thermostat;1" })).await.expect(200);
    let version = ("api-version", "2022-06-30-preview");
    let only = ("$filter", "type eq 'GatewayDevice' or type eq 'EdgeDevice'");
    assert_eq!(app.query("/devices", &[version, only]).await.expect(200).ids(), ["edge"]);
    app.patch("/devices/other", &json!({ "template": "edge;1" })).await.expect(200);
    assert_eq!(app.query("/devices", &[version, only]).await.expect(200).ids(), ["edge", "other"]);
}
