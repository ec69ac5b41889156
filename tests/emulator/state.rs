//! The state file: what it keeps, and what is refused.

use std::{fs, path::Path};

use crate::support::{
    app::{App, Authority, VERSION, x509_group},
    caller::Caller,
    temporary_directory,
};
use iot_enroll::emulator::{Builder, DpsRight, Emulator, EmulatorError};
use serde_json::{Value, json};

fn builder(file: &Path) -> Builder {
    Emulator::builder().state_file(file)
}

/// Sends a request to the service API of DPS or to Resource Manager, with the bearer token.
async fn bearer(app: &App, method: &str, path: &str, body: Option<&Value>) -> Value {
    let url = format!("{}{path}", app.emulator.endpoint());
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request =
        app.http.request(method, url).header("Authorization", format!("Bearer {}", app.emulator.arm_token()));
    if let Some(body) = body {
        request = request.header("Content-Type", "application/json").body(body.to_string());
    }
    let answer = request.send().await.expect("an answer");
    assert!(answer.status().is_success(), "{path}: {}", answer.text().await.expect("a body"));
    serde_json::from_str(&answer.text().await.expect("a body")).unwrap_or_default()
}

const DPS: &str = "api-version=2021-10-01";

fn certificates(app: &App) -> String {
    format!(
        "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Devices/provisioningServices/{}/certificates",
        app.emulator.subscription(),
        app.emulator.resource_group(),
        app.emulator.dps_name()
    )
}

/// Everything that the APIs show.
async fn shown(app: &App) -> Value {
    let mut shown = json!({});
    for path in [
        "/enrollmentGroups",
        "/enrollmentGroups/keys",
        "/enrollmentGroups/g/certificates/primary",
        "/devices",
        "/devices/keyed/attestation",
        "/devices/certified/attestation",
        "/devices/plain/credentials",
        "/deviceGroups",
        "/deviceTemplates",
        "/organizations",
    ] {
        shown[path] = app.get(path).await.expect(200).body;
    }
    shown["manifests"] = app.preview("GET", "/deploymentManifests", None).await.expect(200).body;
    shown["assigned"] = json!(app.emulator.assigned_manifest("edge"));
    shown["certificates"] = bearer(app, "GET", &format!("{}?api-version=2022-02-05", certificates(app)), None).await;
    for path in ["/enrollmentGroups/x", "/enrollments/y", "/enrollmentGroups/ca"] {
        shown[format!("dps{path}")] = bearer(app, "GET", &format!("{path}?{DPS}"), None).await;
    }
    let mechanism = format!("/enrollmentGroups/x/attestationmechanism?{DPS}");
    shown["mechanism"] = bearer(app, "POST", &mechanism, None).await;
    let emulator = &app.emulator;
    shown["identity"] = json!([
        emulator.token(),
        emulator.arm_token(),
        emulator.id_scope(),
        emulator.dps_id_scope(),
        emulator.dps_name(),
        emulator.dps_connection_string().split_once(';').map(|(_, rest)| rest),
    ]);
    shown
}

/// Creates a resource of every kind.
async fn fill(app: &App) {
    let authority = Authority::new("Root");
    app.enrolled(&authority).await;
    app.put("/enrollmentGroups/keys", &crate::support::app::symmetric_group()).await.expect(200);
    app.put("/organizations/customer-a", &json!({ "displayName": "A" })).await.expect(200);
    let template =
        json!({ "@type": ["ModelDefinition"], "capabilityModel": { "a": [1, null, {}] }, "@context": ["x"] });
    app.put("/deviceTemplates/dtmi:a;1", &template).await.expect(200);
    for id in ["plain", "keyed", "certified"] {
        app.put(&format!("/devices/{id}"), &json!({ "displayName": format!("The {id}") })).await.expect(200);
    }
    app.put("/devices/keyed/attestation", &json!({ "type": "symmetricKey" })).await.expect(200);
    let thumbprint = "0123456789ABCDEF0123456789ABCDEF01234567";
    let info = json!({ "primary": { "info": { "sha1Thumbprint": thumbprint } } });
    let attestation = json!({ "type": "x509", "x509": { "clientCertificates": info } });
    app.put("/devices/certified/attestation", &attestation).await.expect(200);
    app.preview("PUT", "/devices/edge", Some(&json!({ "type": ["iotEdge"] }))).await.expect(200);
    let mut deep = json!(1);
    for _ in 0..120 {
        deep = json!([deep]);
    }
    let manifest = json!({ "displayName": "M", "data": { "deep": deep } });
    app.preview("PUT", "/deploymentManifests/m", Some(&manifest)).await.expect(200);
    let assigned = json!({ "data": manifest["data"] });
    app.preview("POST", "/devices/edge/applyDeploymentManifest", Some(&assigned)).await.expect(204);
    let group = json!({ "displayName": "G", "filter": "SELECT * FROM devices WHERE $provisioned = false" });
    app.put("/deviceGroups/dg", &group).await.expect(200);
    let root = json!({ "properties": { "certificate": authority.base64(), "isVerified": true } });
    bearer(app, "PUT", &format!("{}/root?api-version=2022-02-05", certificates(app)), Some(&root)).await;
    let keys = json!({
        "enrollmentGroupId": "x", "attestation": { "type": "symmetricKey" }, "iotHubs": ["h.example"],
        "initialTwin": { "tags": { "a": 1 }, "properties": { "desired": {} } }
    });
    bearer(app, "PUT", &format!("/enrollmentGroups/x?{DPS}"), Some(&keys)).await;
    let references = json!({ "type": "x509", "x509": { "caReferences": { "primary": "root" } } });
    let referring = json!({ "enrollmentGroupId": "ca", "attestation": references });
    bearer(app, "PUT", &format!("/enrollmentGroups/ca?{DPS}"), Some(&referring)).await;
    let client = json!({ "primary": { "certificate": authority.issue("y", |_| {}) } });
    let individual = json!({
        "registrationId": "y", "deviceId": "other", "attestation": { "type": "x509", "x509": { "clientCertificates": client } }
    });
    bearer(app, "PUT", &format!("/enrollments/y?{DPS}"), Some(&individual)).await;
}

#[tokio::test]
async fn a_restart_continues_with_everything() {
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    let app = App::with(builder(&file)).await;
    fill(&app).await;
    let before = shown(&app).await;
    app.emulator.stop_and_save().await.expect("saved");
    let app = App::with(builder(&file)).await;
    assert_eq!(shown(&app).await, before);
    // What refers to a certificate still protects it, and a certificate is still in one enrollment only.
    let certificate = format!("{}{}/root?api-version=2022-02-05", app.emulator.endpoint(), certificates(&app));
    let delete = app.http.delete(certificate).header("Authorization", format!("Bearer {}", app.emulator.arm_token()));
    let etag = before["certificates"]["value"][0]["etag"].as_str().expect("an etag");
    assert_eq!(delete.header("If-Match", etag).send().await.expect("an answer").status(), 409);
}

/// The lock of a file ends with the emulator, even if a child process still has a copy of the file.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_next_emulator_is_not_held_up_by_copies_of_the_file() {
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    let first = builder(&file).start().await.expect("started");
    let _copies = crate::support::descriptors::copy_open_files(&file);
    assert!(builder(&file).start().await.is_err(), "it is locked");
    drop(first);
    let second = builder(&file).start().await.expect("started");
    second.stop_and_save().await.expect("saved");
    let third = builder(&file).start().await.expect("started");
    let _more = crate::support::descriptors::copy_open_files(&file);
    third.stop_and_save().await.expect("saved");
    builder(&file).start().await.expect("started");
}

#[tokio::test]
async fn a_verification_code_and_a_registration_survive_a_restart() {
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    let authority = Authority::new("Root");
    let app = App::with(builder(&file)).await;
    let path = app.enrolled(&authority).await;
    let code = app.code(&path).await;
    app.emulator.stop_and_save().await.expect("saved");

    let app = App::with(builder(&file)).await;
    app.verify(&path, &authority.proof(&code)).await.expect(204);
    app.emulator.stop_and_save().await.expect("saved");

    let emulator = builder(&file).tls(true).start().await.expect("started");
    let issued = authority.device("sensor-1");
    let caller = Caller::presenting(&emulator, issued);
    let operation = caller.register("sensor-1").await.expect(202).text("/operationId");
    emulator.stop_and_save().await.expect("saved");

    let emulator = builder(&file).tls(true).start().await.expect("started");
    let caller = Caller::presenting(&emulator, authority.device("sensor-1"));
    // Another certificate of the device does not have the operation of the first.
    caller.poll("sensor-1", &operation).await.refused(401, 401_002, "Unauthorized");
    caller.assigned("sensor-1").await;
    emulator.stop_and_save().await.expect("saved");

    let emulator = builder(&file).tls(true).start().await.expect("started");
    let state = Caller::presenting(&emulator, authority.device("sensor-1")).look_up("sensor-1").await.expect(200);
    assert_eq!(state.text("/status"), "assigned");
}

#[tokio::test]
async fn clients_that_trust_the_ca_connect_after_a_restart() {
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    let first = builder(&file).tls(true).start().await.expect("started");
    let ca = first.ca_pem().expect("a CA").to_owned();
    first.stop_and_save().await.expect("saved");
    // A run without TLS keeps it.
    builder(&file).start().await.expect("started").stop_and_save().await.expect("saved");
    let second = builder(&file).tls(true).host("app.example").start().await.expect("started");
    assert_eq!(second.ca_pem(), Some(ca.as_str()));
    Caller::new(&second).handshake("app.example").await.expect("a certificate of the same CA");
}

#[tokio::test]
async fn a_given_token_and_policies_take_precedence() {
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    let policy = || builder(&file).dps_policy("reader", [DpsRight::EnrollmentRead]);
    let first = policy().start().await.expect("started");
    let key = first.dps_connection_string();
    first.stop_and_save().await.expect("saved");
    let second = policy().token("another token").start().await.expect("started");
    assert_eq!(second.token(), "another token");
    assert_eq!(second.dps_connection_string().rsplit_once(';').map(|it| it.1), key.rsplit_once(';').map(|it| it.1));
    second.stop_and_save().await.expect("saved");
    assert_eq!(builder(&file).start().await.expect("started").token(), "another token");
}

#[tokio::test]
async fn what_a_killed_emulator_knew_is_that_of_its_start() {
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    let app = App::with(builder(&file)).await;
    let token = app.emulator.token().to_owned();
    app.put("/enrollmentGroups/g", &x509_group()).await.expect(200);
    drop(app);
    let app = App::with(builder(&file)).await;
    assert_eq!(app.emulator.token(), token);
    app.send(app.request("GET", &format!("/enrollmentGroups/g?{VERSION}"))).await.expect(404);
}

#[tokio::test]
async fn two_emulators_do_not_share_a_file() {
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    let first = builder(&file).start().await.expect("started");
    let error = builder(&file).start().await.expect_err("refused");
    assert!(error.to_string().contains("another emulator"), "{error}");
    first.stop_and_save().await.expect("saved");
    builder(&file).start().await.expect("started");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_completely_is_refused_and_unchanged() {
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    builder(&file).tls(true).start().await.expect("started").stop_and_save().await.expect("saved");
    let good = fs::read_to_string(&file).expect("a file");
    let secret = serde_json::from_str::<Value>(&good).expect("JSON")["identity"]["arm_token"].clone();
    let secret = secret.as_str().expect("a token");
    for (bad, why) in [
        (good[..good.len() / 2].to_owned(), "damaged"),
        (good.replacen("\"version\":1", "\"version\":2", 1), "version 2"),
        (good.replacen("iot-enroll emulator state", "something else", 1), "not the state file"),
        (good.replacen("\"state\":{", "\"state\":{\"news\":[],", 1), "damaged"),
        (good.replacen(&format!("\"{secret}\""), "7", 1), "damaged"),
        ("[]".to_owned(), "not the state file"),
        ("{}".to_owned(), "not the state file"),
        ("not JSON".to_owned(), "not the state file"),
    ] {
        assert_ne!(bad, good);
        fs::write(&file, &bad).expect("written");
        let error = builder(&file).tls(true).start().await.expect_err("refused");
        assert!(matches!(&error, EmulatorError::StateFile { path, .. } if *path == file), "{error}");
        let text = error.to_string();
        assert!(text.contains(why) && !text.contains(secret) && !text.contains("expected"), "{why}: {text}");
        assert_eq!(fs::read_to_string(&file).expect("a file"), bad);
    }
    fs::write(&file, &good).expect("written");
    builder(&file).tls(true).start().await.expect("started");
}

#[tokio::test]
async fn a_file_that_was_replaced_is_left_as_it_is_and_the_state_is_beside_it() {
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    let first = builder(&file).start().await.expect("started");
    let first_token = first.token().to_owned();
    fs::remove_file(&file).expect("removed");
    let second = builder(&file).start().await.expect("started");
    let error = first.stop_and_save().await.expect_err("refused");
    let saved = directory.path().join("state.json.1");
    assert!(
        matches!(&error, EmulatorError::StateFileChanged { path, saved: found } if *path == file && *found == saved),
        "{error}"
    );
    assert_eq!(builder(&saved).start().await.expect("started").token(), first_token);
    let token = second.token().to_owned();
    second.stop_and_save().await.expect("saved");
    let third = builder(&file).start().await.expect("started");
    assert_eq!(third.token(), token);
    // A file that was only removed is created again.
    fs::remove_file(&file).expect("removed");
    third.stop_and_save().await.expect("saved");
    assert_eq!(builder(&file).start().await.expect("started").token(), token);
}

#[tokio::test]
async fn a_file_that_another_program_wrote_is_left_as_it_is_and_the_state_is_beside_it() {
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    let saved = directory.path().join("state.json.2");
    fs::write(directory.path().join("state.json.1"), "taken").expect("written");
    for content in ["", "{\"mine\": true}"] {
        let app = App::with(builder(&file)).await;
        let token = app.emulator.token().to_owned();
        app.put("/enrollmentGroups/g", &x509_group()).await.expect(200);
        // In place, as an editor or a redirection of a shell does.
        fs::write(&file, content).expect("written");
        let error = app.emulator.stop_and_save().await.expect_err("refused").to_string();
        assert!(error.contains("state.json.2") && !error.contains(&token), "{error}");
        assert_eq!(fs::read_to_string(&file).expect("a file"), content);
        assert_eq!(fs::read_to_string(directory.path().join("state.json.1")).expect("a file"), "taken");
        let app = App::with(builder(&saved)).await;
        assert_eq!(app.emulator.token(), token);
        app.get("/enrollmentGroups/g").await.expect(200);
        drop(app);
        fs::remove_file(&saved).expect("removed");
        fs::remove_file(&file).expect("removed");
    }
    let names: Vec<_> = fs::read_dir(directory.path()).expect("a directory").flatten().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_in_the_place_of_the_file_is_left_as_it_is() {
    let directory = temporary_directory();
    let (file, moved) = (directory.path().join("state.json"), directory.path().join("moved.json"));
    let app = builder(&file).start().await.expect("started");
    fs::rename(&file, &moved).expect("moved");
    std::os::unix::fs::symlink(&moved, &file).expect("a link");
    let error = app.stop_and_save().await.expect_err("refused");
    assert!(matches!(error, EmulatorError::StateFileChanged { .. }), "{error}");
    assert!(file.symlink_metadata().expect("a link").is_symlink());
}

#[tokio::test]
async fn the_token_of_the_file_is_checked_like_a_given_one() {
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    builder(&file).token("short").start().await.expect("started").stop_and_save().await.expect("saved");
    let remote = || {
        let address = "0.0.0.0:0".parse().expect("an address");
        builder(&file).listen(address).remote_access(iot_enroll::emulator::RemoteAccess::OverTls).tls(true)
    };
    let error = remote().start().await.expect_err("refused");
    assert!(matches!(error, EmulatorError::ShortToken), "{error}");
    remote().token("a longer token for it").start().await.expect("started").stop_and_save().await.expect("saved");
    let good = fs::read_to_string(&file).expect("a file");
    for bad in ["\"\"", "\"a\\nb\""] {
        fs::write(&file, good.replacen("\"a longer token for it\"", bad, 1)).expect("written");
        assert!(matches!(builder(&file).start().await, Err(EmulatorError::Token)), "{bad}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn an_empty_file_is_a_new_one_whoever_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    fs::write(&file, "").expect("written");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("changed");
    builder(&file).start().await.expect("started");
    assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_it_and_a_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    builder(&file).start().await.expect("started").stop_and_save().await.expect("saved");
    assert_eq!(file.metadata().expect("a file").permissions().mode() & 0o777, 0o600);
    let others: Vec<_> = fs::read_dir(directory.path()).expect("a directory").collect();
    assert_eq!(others.len(), 1, "{others:?}");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("changed");
    let error = builder(&file).start().await.expect_err("refused");
    assert!(error.to_string().contains("chmod 600"), "{error}");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("changed");
    let link = directory.path().join("link.json");
    symlink(&file, &link).expect("a link");
    builder(&link).start().await.expect_err("refused");
    let missing = builder(&directory.path().join("missing/state.json")).start().await.expect_err("refused");
    assert!(missing.to_string().contains("missing/state.json"), "{missing}");
}
