//! Seeds: resources that an emulator starts with.

use std::{fs, path::Path};

use crate::support::{
    app::{App, Authority},
    caller::Caller,
    temporary_directory,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::emulator::{Builder, Emulator, EmulatorError};
use serde_json::{Value, json};

fn builder(directory: &Path, seeds: &Value) -> Builder {
    let file = directory.join("seeds.json");
    fs::write(&file, seeds.to_string()).expect("written");
    Emulator::builder().import_file(file)
}

/// Seeds of every kind, with a root in the directory.
fn seeds(directory: &Path, root: &Authority) -> Value {
    fs::create_dir_all(directory.join("certs")).expect("a directory");
    fs::write(directory.join("certs/root.pem"), &root.pem).expect("written");
    fs::write(directory.join("certs/root.cer"), &root.der).expect("written");
    let client = json!({ "primary": { "certificate": root.issue("individual", |_| {}) } });
    json!({
        "organizations": [{ "id": "customer-a", "displayName": "A" }],
        "deviceTemplates": [{ "@id": "dtmi:a;1", "@type": ["EdgeModel"], "capabilityModel": {} }],
        "deploymentManifests": [{ "id": "m", "displayName": "M", "data": { "certificateFile": "none" } }],
        "enrollmentGroups": [
            {
                "id": "g", "displayName": "G", "type": "iot", "attestation": { "type": "x509" },
                "certificates": {
                    "primary": { "certificateFile": "certs/root.pem", "verified": true },
                    "secondary": { "certificate": Authority::new("Next").pem }
                }
            },
            { "id": "keys", "displayName": "K", "type": "iot", "attestation": { "type": "symmetricKey" } }
        ],
        "devices": [
            { "id": "plain" },
            { "id": "edge", "template": "dtmi:a;1", "provisioned": true, "organizations": ["customer-a"] },
            {
                "id": "keyed",
                "attestation": { "type": "symmetricKey", "symmetricKey": {
                    "primaryKey": BASE64_STANDARD.encode([1; 32]), "secondaryKey": BASE64_STANDARD.encode([2; 32])
                } }
            }
        ],
        "deviceGroups": [{ "id": "dg", "displayName": "D", "filter": "SELECT * FROM devices" }],
        "dps": {
            "certificates": [{ "name": "root", "certificateFile": "certs/root.cer", "isVerified": true }],
            "enrollmentGroups": [{
                "enrollmentGroupId": "x",
                "attestation": { "type": "x509", "x509": { "caReferences": { "primary": "root" } } }
            }],
            "enrollments": [{
                "registrationId": "individual", "attestation": { "type": "x509", "x509": { "clientCertificates": client } }
            }]
        }
    })
}

#[tokio::test]
async fn everything_is_there_from_the_start() {
    let directory = temporary_directory();
    let root = Authority::new("Root");
    let app = App::with(builder(directory.path(), &seeds(directory.path(), &root)).tls(true)).await;
    let caller = Caller::new(&app.emulator);
    let get = async |path: &str| caller.api("GET", path, None).await.expect(200).body;
    assert_eq!(get("/enrollmentGroups/g/certificates/primary").await["verified"], true);
    assert_eq!(get("/enrollmentGroups/g/certificates/secondary").await["verified"], false);
    assert!(get("/enrollmentGroups/keys").await["attestation"]["symmetricKey"]["primaryKey"].is_string());
    let edge = get("/devices/edge").await;
    assert_eq!((&edge["provisioned"], &edge["organizations"]), (&json!(true), &json!(["customer-a"])));
    assert_eq!(get("/devices/plain").await["provisioned"], false);
    let key = get("/devices/keyed/credentials").await["symmetricKey"]["primaryKey"].clone();
    assert_eq!(key, BASE64_STANDARD.encode([1; 32]));
    assert_eq!(get("/deviceGroups/dg/devices").await["value"].as_array().map(Vec::len), Some(3));
    // Devices of the seeded groups are admitted, by both services.
    let device = Caller::presenting(&app.emulator, root.device("sensor-1"));
    device.assigned("sensor-1").await;
    let device = Caller::presenting(&app.emulator, root.device("sensor-1")).at_instance();
    device.assigned("sensor-1").await;
}

#[tokio::test]
async fn an_invalid_import_names_the_member_and_does_not_start() {
    let directory = temporary_directory();
    let good = seeds(directory.path(), &Authority::new("Root"));
    let group = "/enrollmentGroups/0";
    let cases = [
        ("", "enrolmentGroups", json!([]), "enrolmentGroups: is an unknown field"),
        ("", "devices", json!({}), "devices: expected an array of objects"),
        (group, "dispayName", json!("G"), "enrollmentGroups[0].dispayName: is an unknown field"),
        (group, "id", json!("a b"), "enrollmentGroups[0].id: \"a b\" is not a valid enrollment group ID"),
        (group, "type", json!("edge"), "enrollmentGroups[0].type: expected iot or iotEdge"),
        ("/enrollmentGroups/0/certificates", "third", json!({}), "enrollmentGroups[0].certificates.third"),
        (
            "/enrollmentGroups/0/certificates/primary",
            "certificateFile",
            json!("certs/none.pem"),
            "enrollmentGroups[0].certificates.primary.certificateFile:",
        ),
        (
            "/enrollmentGroups/0/certificates/secondary",
            "certificate",
            json!("no certificate"),
            "enrollmentGroups[0].certificates.secondary.certificate:",
        ),
        (
            "/enrollmentGroups/0/certificates/secondary",
            "certificateFile",
            json!("certs/root.pem"),
            "enrollmentGroups[0].certificates.secondary.certificateFile: not allowed beside certificate",
        ),
        ("/devices/0", "id", json!(7), "devices[0].id: expected a string"),
        ("/devices/2/attestation", "type", json!("none"), "devices[2].attestation.type"),
        ("/deviceGroups/0", "filter", json!("SELECT"), "deviceGroups[0].filter"),
        ("/dps", "groups", json!([]), "dps.groups: is an unknown field"),
        ("/dps/certificates/0", "name", json!("a/b"), "dps.certificates[0]"),
        ("/dps/certificates/0", "verified", json!(true), "dps.certificates[0].verified: is an unknown field"),
        (
            "/dps/enrollmentGroups/0/attestation/x509/caReferences",
            "primary",
            json!("missing"),
            "dps.enrollmentGroups[0]: attestation.x509.caReferences",
        ),
        ("/dps/enrollments/0", "registrationId", json!("!"), "dps.enrollments[0].registrationId"),
    ];
    for (pointer, member, value, expected) in cases {
        let mut bad = good.clone();
        bad.pointer_mut(pointer).expect("a place")[member] = value;
        let error = builder(directory.path(), &bad).start().await.expect_err(expected);
        assert!(matches!(error, EmulatorError::Import { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("seeds.json: ") && text.contains(expected), "{expected}: {text}");
    }
    for text in ["", "[]", "{\"devices\": [", "null"] {
        let file = directory.path().join("seeds.json");
        fs::write(&file, text).expect("written");
        Emulator::builder().import_file(&file).start().await.expect_err(text);
    }
    Emulator::builder().import_file(directory.path().join("none.json")).start().await.expect_err("no file");
}

#[tokio::test]
async fn what_the_state_file_has_stays_and_an_invalid_seed_leaves_it_unchanged() {
    let directory = temporary_directory();
    let state = directory.path().join("state.json");
    let good = seeds(directory.path(), &Authority::new("Root"));
    let start = |seeds: &Value| builder(directory.path(), seeds).state_file(&state);
    let app = App::with(start(&good)).await;
    let keys = app.get("/enrollmentGroups/keys").await.expect(200).body;
    app.patch("/devices/plain", &json!({ "displayName": "changed" })).await.expect(200);
    app.emulator.stop_and_save().await.expect("saved");

    let before = fs::read(&state).expect("a file");
    let mut bad = good.clone();
    bad["devices"][0]["id"] = json!("!");
    start(&bad).start().await.expect_err("refused");
    assert_eq!(fs::read(&state).expect("a file"), before);

    let app = App::with(start(&good)).await;
    assert_eq!(app.get("/devices/plain").await.expect(200).text("/displayName"), "changed");
    assert_eq!(app.get("/enrollmentGroups/keys").await.expect(200).body, keys);
}

#[tokio::test]
async fn the_seeds_in_the_documentation_are_valid() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/emulator.md");
    let page = fs::read_to_string(page).expect("a page");
    let section = page.split("## Start with known resources").nth(1).expect("a section");
    let block = section.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    let directory = temporary_directory();
    fs::write(directory.path().join("mytestrootcert_cert.pem"), Authority::new("mytestrootcert").pem).expect("written");
    let seeds = serde_json::from_str(block).expect("JSON");
    let app = App::with(builder(directory.path(), &seeds)).await;
    app.get("/devices/thermostat-2/attestation").await.expect(200);
    app.get("/enrollmentGroups/thermostats/certificates/primary").await.expect(200);
}
