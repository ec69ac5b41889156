//! The requests of the how-to articles, over plain HTTP.

use crate::support::app;
use crate::support::app::{App, Authority, VERSION};
use iot_enroll::{certificate::Certificate, emulator::DeviceProperties};
use serde_json::{Value, json};

#[tokio::test]
async fn enrollment_group_operations_of_the_article_work_in_order() {
    let app = App::start().await;
    let root = Authority::new("mytestrootcert");
    let thumbprint = Certificate::read(root.pem.as_bytes()).expect("a certificate").sha1_thumbprint().to_string();

    // Add an X.509 enrollment group.
    let group = app
        .put(
            "/enrollmentGroups/myx509eg",
            &json!({ "displayName": "My group", "enabled": true, "type": "iot", "attestation": { "type": "x509" } }),
        )
        .await
        .expect(200);
    assert_eq!(
        group.body,
        json!({
            "id": "myx509eg", "displayName": "My group", "enabled": true, "type": "iot",
            "attestation": { "type": "x509", "x509": { "signingCertificates": {} } },
            "etag": group.body["etag"],
        })
    );

    // Add an X.509 certificate.
    let path = "/enrollmentGroups/myx509eg/certificates/primary";
    let set = app.put(path, &json!({ "verified": false, "certificate": root.base64() })).await.expect(200);
    assert_eq!(
        set.body,
        json!({ "verified": false, "info": { "sha1Thumbprint": thumbprint }, "etag": set.body["etag"] })
    );

    // Generate a verification code, issue the verification certificate, verify.
    let code = app.code(path).await;
    app.verify(path, &root.proof(&code)).await.expect(204);

    // Get the X.509 certificate.
    let shown = app.get(path).await.expect(200);
    assert_eq!(
        shown.body,
        json!({ "verified": true, "info": { "sha1Thumbprint": thumbprint }, "etag": shown.body["etag"] })
    );
    let group = app.get("/enrollmentGroups/myx509eg").await.expect(200);
    assert_eq!(group.body["attestation"]["x509"]["signingCertificates"], json!({ "primary": shown.body }));

    // Delete it from the group.
    app.delete(path).await.expect(204);
    app.get(path).await.expect(404);

    // Get a group with symmetric keys.
    app.put(
        "/enrollmentGroups/mysymmetric",
        &json!({ "displayName": "My group", "enabled": true, "type": "iot", "attestation": { "type": "symmetricKey" } }),
    )
    .await
    .expect(200);
    let keys = app.get("/enrollmentGroups/mysymmetric").await.expect(200);
    assert_eq!(keys.body["attestation"]["symmetricKey"].as_object().expect("keys").len(), 2);

    // Update the group. The article's body has a comma too many, which is not JSON.
    let patched = app.patch("/enrollmentGroups/myx509eg", &json!({ "displayName": "My new group name" })).await;
    assert_eq!(patched.expect(200).body["displayName"], "My new group name");
    let article = app
        .request("PATCH", &format!("/enrollmentGroups/myx509eg?{VERSION}"))
        .header("Content-Type", app::MERGE_PATCH)
        .body("{\n  \"displayName\": \"My new group name\",\n}");
    app.send(article).await.refused(400, "not JSON");

    // List the groups, delete the group.
    assert_eq!(app.get("/enrollmentGroups").await.expect(200).ids(), ["mysymmetric", "myx509eg"]);
    app.delete("/enrollmentGroups/myx509eg").await.expect(204);
    assert_eq!(app.get("/enrollmentGroups").await.expect(200).ids(), ["mysymmetric"]);
}

const THERMOSTAT: &str = "dtmi:contoso:Thermostat;1";

/// Returns a device of the article, such as `thermostat1`.
fn seed(id: &str, display_name: &str, simulated: bool) -> DeviceProperties {
    DeviceProperties::new(id)
        .display_name(display_name)
        .template(THERMOSTAT)
        .simulated(simulated)
        .provisioned(simulated)
}

/// Returns a device as the article shows it, with any etag.
fn shown(id: &str, display_name: &str, simulated: bool, provisioned: bool, etag: &Value) -> Value {
    json!({
        "id": id, "etag": etag, "displayName": display_name, "simulated": simulated, "provisioned": provisioned,
        "template": THERMOSTAT, "enabled": true,
    })
}

#[tokio::test]
async fn device_operations_of_the_article_work_in_order() {
    let app = App::start().await;
    let device =
        |name: &str| json!({ "displayName": name, "template": THERMOSTAT, "simulated": true, "enabled": true });

    // Add a device.
    let added = app.put("/devices/thermostat1", &device("CheckoutThermostat")).await.expect(200).body;
    assert_eq!(added, shown("thermostat1", "CheckoutThermostat", true, false, &added["etag"]));

    // Get it.
    assert_eq!(app.get("/devices/thermostat1").await.expect(200).body, added);

    // Get its credentials.
    let credentials = app.get("/devices/thermostat1/credentials").await.expect(200);
    assert!(credentials.text("/idScope").starts_with("0ne"));
    // The keys have the length of those in the article.
    assert_eq!(credentials.text("/symmetricKey/primaryKey").len(), 44);
    assert_eq!(credentials.text("/symmetricKey/secondaryKey").len(), 44);

    // Update it.
    let updated = app.patch("/devices/thermostat1", &device("CheckoutThermostat5")).await.expect(200).body;
    assert_eq!(updated, shown("thermostat1", "CheckoutThermostat5", true, false, &updated["etag"]));

    // Delete it.
    app.delete("/devices/thermostat1").await.expect(204);
    app.get("/devices/thermostat1").await.expect(404);
}

#[tokio::test]
async fn device_lists_match_the_article() {
    let app = App::start().await;
    let sensor = seed("5jcwskdgdwbm", "RS40 Occupancy Sensor - 5jcwskdgdwbm", false)
        .template("urn:modelDefinition:aqlyr1ulfku:tz5rut2pvx");
    app.emulator
        .add_devices([
            seed("5jcwskdwbm", "Thermostat - 5jcwskdwbm", false),
            seed("ccc", "CheckoutThermostat", true),
            sensor,
        ])
        .expect("devices");
    let version = ("api-version", "2022-07-31");

    // List devices.
    let listed = app.get("/devices").await.expect(200);
    assert_eq!(listed.ids(), ["5jcwskdgdwbm", "5jcwskdwbm", "ccc"]);
    let members = &listed.body["value"];
    assert_eq!(members[1], shown("5jcwskdwbm", "Thermostat - 5jcwskdwbm", false, false, &members[1]["etag"]));
    assert_eq!(members[2], shown("ccc", "CheckoutThermostat", true, true, &members[2]["etag"]));

    // $top: the 10 of the article would list all devices, and its link is for a page of 1.
    let all = app.query("/devices", &[version, ("$top", "10")]).await.expect(200);
    assert_eq!(all.ids().len(), 3);
    assert_eq!(all.body.get("nextLink"), None);
    let first = app.query("/devices", &[version, ("$top", "1")]).await.expect(200);
    let link = first.text("/nextLink");
    let begin = format!("{}/api/devices?api-version=2022-07-31&%24top=1&%24skiptoken=", app.emulator.endpoint());
    assert!(link.starts_with(&begin), "{link}");

    // $filter, with the operators in the table of the article.
    for (filter, expected) in [
        ("id eq 'ccc' and scopes eq 'redmond'", vec![]),
        ("Enabled ne true", vec![]),
        ("contains(displayName, 'Thermostat') le -1", vec!["5jcwskdgdwbm"]),
        ("contains(displayName, 'Thermostat') lt 0", vec!["5jcwskdgdwbm"]),
        ("contains(displayName, 'Thermostat') ge 0", vec!["5jcwskdwbm", "ccc"]),
        ("contains(displayName, 'Thermostat') gt 0", vec!["5jcwskdwbm", "ccc"]),
        ("id eq 'ccc' and enabled eq true", vec!["ccc"]),
        ("id eq 'ccc' or simulated eq false", vec!["5jcwskdgdwbm", "5jcwskdwbm", "ccc"]),
    ] {
        let found = app.query("/devices", &[version, ("$filter", filter)]).await.expect(200);
        assert_eq!(found.ids(), expected, "{filter}");
    }

    // $orderby.
    let sorted = app.query("/devices", &[version, ("$orderby", "displayName")]).await.expect(200);
    assert_eq!(sorted.ids(), ["ccc", "5jcwskdgdwbm", "5jcwskdwbm"]);
    let reversed = app.query("/devices", &[version, ("$orderby", "displayName desc")]).await.expect(200);
    assert_eq!(reversed.ids(), ["5jcwskdwbm", "5jcwskdgdwbm", "ccc"]);

    // The article sends these requests to deviceTemplates, which lists templates.
    for name in ["thermostat", "room thermostat", "sensor", "vehicle thermostat"] {
        let template = json!({ "displayName": name, "@type": ["DeviceModel"], "capabilityModel": {} });
        app.put(&format!("/deviceTemplates/dtmi:contoso:{};1", name.replace(' ', "_")), &template).await.expect(200);
    }
    let contains = ("$filter", "contains(displayName, 'thermostat')");
    for (parameters, expected) in [
        (vec![version, contains], vec!["room thermostat", "thermostat", "vehicle thermostat"]),
        (vec![version, contains, ("$top", "2")], vec!["room thermostat", "thermostat"]),
    ] {
        let found = app.query("/deviceTemplates", &parameters).await.expect(200);
        let members = found.body["value"].as_array().expect("a list");
        assert_eq!(members.iter().map(|member| &member["displayName"]).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn device_group_operations_of_the_article_work_in_order() {
    let app = App::start().await;
    let query = "SELECT * FROM devices WHERE $template = \"dtmi:modelDefinition:dtdlv2\" AND $provisioned = true";
    let group = json!({
        "displayName": "Device group 1", "description": "Custom device group.", "filter": query,
        "organizations": ["seattle"],
    });
    // The API description has an etag, the article does not.
    let expected = |name: &str, etag: &Value| {
        json!({
            "id": "group1", "displayName": name, "description": "Custom device group.", "filter": query,
            "organizations": ["seattle"], "etag": etag,
        })
    };

    // Add a group, get it, update it.
    let added = app.put("/deviceGroups/group1", &group).await.expect(200).body;
    assert_eq!(added, expected("Device group 1", &added["etag"]));
    assert_eq!(app.get("/deviceGroups/group1").await.expect(200).body, added);
    let updated = app.patch("/deviceGroups/group1", &json!({ "displayName": "New group name" })).await.expect(200).body;
    assert_eq!(updated, expected("New group name", &updated["etag"]));

    // The devices of the group.
    let template = "dtmi:modelDefinition:dtdlv2";
    app.emulator
        .add_devices([
            seed("in", "in", true).template(template),
            seed("not-provisioned", "out", false).template(template),
            seed("other-template", "out", true),
        ])
        .expect("devices");
    assert_eq!(app.get("/deviceGroups/group1/devices").await.expect(200).ids(), ["in"]);

    // List the groups, including the others of the article. Delete one.
    for (id, filter) in [
        (
            "c2d5ae1d-2cb7-4f58-bf44-5e816aba0a0e",
            "SELECT * FROM devices WHERE $template = \"dtmi:modelDefinition:model1\"",
        ),
        (
            "241ad72b-32aa-4216-aabe-91b240582c8d",
            "SELECT * FROM devices WHERE $template = \"dtmi:modelDefinition:model2\" AND $simulated = true",
        ),
    ] {
        let group = json!({ "displayName": id, "filter": filter });
        app.put(&format!("/deviceGroups/{id}"), &group).await.expect(200);
    }
    let listed = app.get("/deviceGroups").await.expect(200);
    assert_eq!(
        listed.ids(),
        ["241ad72b-32aa-4216-aabe-91b240582c8d", "c2d5ae1d-2cb7-4f58-bf44-5e816aba0a0e", "group1"]
    );
    app.delete("/deviceGroups/group1").await.expect(204);
    app.get("/deviceGroups/group1").await.expect(404);
}

#[tokio::test]
async fn a_deployment_manifest_is_assigned_to_a_device() {
    let app = App::start().await;
    app.preview("PUT", "/devices/edge1", Some(&json!({ "type": ["iotEdge"] }))).await.expect(200);
    let body = json!({ "data": { "modulesContent": { "$edgeAgent": {} } } });
    app.preview("POST", "/devices/edge1/applyDeploymentManifest", Some(&body)).await.expect(204);
}
