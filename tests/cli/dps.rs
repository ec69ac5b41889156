//! The commands that manage an instance of the Device Provisioning Service, against the emulator.

use std::{fs, path::Path};

use crate::support::{
    Run, program,
    service::{Service, directory, keys},
};
use iot_enroll::{
    dps::service::{
        AllocationPolicy, Authorization, Client, ConnectionString, CustomAllocation, EnrollmentSettings,
        NewAttestation, NewEnrollmentGroup, NewIndividualEnrollment,
    },
    emulator::Emulator,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// An instance, and a directory with the files of the commands.
struct Lab {
    service: Service,
    directory: TempDir,
}

impl Lab {
    fn new() -> Self {
        Self { service: Service::start(), directory: directory() }
    }

    fn with_tls() -> Self {
        Self { service: Service::with(&["--tls", "--rate", "1000000", "--retry-after", "0"]), directory: directory() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a command for the instance. Nothing that it prints contains a secret of the service.
    fn run(&self, arguments: &[&str]) -> Run {
        let mut arguments = arguments.to_vec();
        if let Some(file) = self.service.first_line["caFile"].as_str() {
            arguments.extend(["--tls-ca", file]);
        }
        let run = Run::of(&mut self.service.dps_command(self.path(), &arguments));
        let connection = self.service.text("/dps/connectionString");
        let key = connection.split("SharedAccessKey=").nth(1).expect("a key");
        for secret in [self.service.text("/arm/token"), key] {
            assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret), "{arguments:?} prints a secret");
        }
        run
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["-o", "json"]].concat()).json()
    }

    /// Runs a command without a service.
    fn cert(&self, arguments: &[&str]) -> Value {
        let mut command = program(self.path());
        Run::of(command.arg("cert").args(arguments).args(["--no-pfx", "-o", "json"])).json()
    }

    /// Makes a verified CA certificate of the instance.
    fn verified(&self, name: &str) {
        let root = self.cert(&["root", name]);
        let file = root["certificate"].as_str().expect("a file");
        self.run(&["dps", "certificate", "set", name, "--file", file, "--verified"]).ok();
    }
}

#[test]
fn certificate_is_uploaded_proven_and_deleted() {
    let lab = Lab::new();
    let root = lab.cert(&["root", "root"]);
    let set = lab.json(&["dps", "certificate", "set", "root-1", "--file", "root_cert.pem"]);
    assert_eq!(set["properties"]["isVerified"], false);
    assert_eq!(set["properties"]["thumbprint"], root["sha1Thumbprint"]);

    let code = lab.json(&["dps", "certificate", "generate-code", "root-1"]);
    assert_eq!(keys(&code), ["etag", "verificationCode"]);
    assert_ne!(code["etag"], set["etag"]);
    let stale = ["dps", "certificate", "generate-code", "root-1", "--etag", set["etag"].as_str().expect("an etag")];
    let error: Value = serde_json::from_str(&lab.run(&[&stale[..], &["-o", "json"]].concat()).fails(1)).expect("JSON");
    assert_eq!(error["error"]["service"]["status"], 412);

    let code = code["verificationCode"].as_str().expect("a code");
    lab.cert(&["verification", "--ca-cert", "root_cert.pem", "--ca-key", "root_key.pem", "--code", code]);
    let verified = lab.run(&["dps", "certificate", "verify", "ROOT-1", "--file", "verification_cert.pem"]).ok();
    assert!(verified.contains("is verified"), "{verified}");

    let listed = lab.run(&["dps", "certificate", "list"]).ok();
    assert!(listed.starts_with("NAME") && listed.contains("root-1") && listed.contains("CN=root"), "{listed}");
    let shown = lab.run(&["dps", "certificate", "show", "root-1"]).ok();
    assert!(shown.contains("verified") && shown.contains("yes"), "{shown}");

    lab.run(&["dps", "enrollment-group", "create", "group", "--certificate", "root-1"]).ok();
    let refused = lab.run(&["dps", "certificate", "delete", "root-1"]).fails(2);
    assert!(refused.contains("--yes") && refused.contains("group group"), "{refused}");
    lab.run(&["dps", "enrollment-group", "delete", "group", "--yes"]).ok();
    lab.cert(&["intermediate", "line", "root"]);
    lab.run(&["dps", "enrollment-group", "create", "own", "--signing-certificate", "line_cert.pem"]).ok();
    let refused = lab.run(&["dps", "certificate", "delete", "root-1"]).fails(2);
    assert!(refused.contains("group own"), "its devices need a verified certificate above theirs: {refused}");
    let deleted = lab.json(&["dps", "certificate", "delete", "root-1", "--yes"]);
    assert_eq!(deleted, json!({ "name": "root-1", "deleted": true }));
    assert_eq!(lab.json(&["dps", "certificate", "list"]), json!([]));
}

#[test]
fn missing_resource_is_not_deleted_with_any_etag() {
    let lab = Lab::new();
    for delete in [
        ["certificate", "delete"],
        ["enrollment", "delete"],
        ["enrollment-group", "delete"],
        ["registration", "delete"],
    ] {
        let run = lab.run(&[&["dps"], &delete[..], &["missing", "--etag", "*", "--yes"]].concat());
        assert!(run.fails(1).contains("404"), "{delete:?}");
    }
}

#[test]
fn malformed_etag_is_refused() {
    let lab = Lab::new();
    lab.run(&["dps", "enrollment-group", "create", "g", "--symmetric-key"]).ok();
    for etag in ["", " ", "\"x\"\r\nX-Y: z", "\"\u{e4}\""] {
        lab.run(&["dps", "enrollment-group", "update", "g", "--enabled", "false", "--etag", etag]).fails(2);
        lab.run(&["dps", "enrollment-group", "delete", "g", "--yes", "--etag", etag]).fails(2);
        lab.run(&["dps", "certificate", "generate-code", "g", "--etag", etag]).fails(2);
        lab.run(&["dps", "registration", "delete", "g", "--yes", "--etag", etag]).fails(2);
    }
    assert_eq!(lab.json(&["dps", "enrollment-group", "show", "g"])["provisioningStatus"], "enabled");
}

#[test]
fn proof_by_another_key_is_refused() {
    let lab = Lab::new();
    lab.cert(&["root", "a"]);
    lab.cert(&["root", "b"]);
    lab.run(&["dps", "certificate", "set", "a", "--file", "a_cert.pem"]).ok();
    let code = lab.run(&["dps", "certificate", "generate-code", "a"]).ok();
    let proof = ["verification", "--ca-cert", "b_cert.pem", "--ca-key", "b_key.pem", "--code", code.trim()];
    lab.cert(&proof);
    lab.run(&["dps", "certificate", "verify", "a", "--file", "verification_cert.pem"]).fails(1);
    assert_eq!(lab.json(&["dps", "certificate", "show", "a"])["properties"]["isVerified"], false);
}

#[test]
fn only_replacing_a_verified_certificate_needs_confirmation() {
    let lab = Lab::new();
    for name in ["a", "b"] {
        lab.cert(&["root", name]);
    }
    let set =
        |file: &str, more: &[&str]| lab.run(&[&["dps", "certificate", "set", "x", "--file", file], more].concat());
    set("a_cert.pem", &[]).ok();
    set("b_cert.pem", &[]).ok();
    set("b_cert.pem", &["--verified"]).ok();
    set("b_cert.pem", &["--verified"]).ok();
    // The same certificate stays verified: it is not uploaded again.
    let before = lab.json(&["dps", "certificate", "show", "x"]);
    assert!(set("b_cert.pem", &["--yes"]).ok().contains("is verified"));
    set("b_cert.pem", &["--etag", "*"]).ok();
    assert_eq!(lab.json(&["dps", "certificate", "show", "x"]), before);
    assert!(set("b_cert.pem", &["--etag", "AAAAAAAAAAA=", "--yes"]).fails(1).contains("412"));
    assert!(set("a_cert.pem", &["--verified"]).fails(2).contains("--yes"));
    set("a_cert.pem", &["--yes"]).ok();
    assert_eq!(lab.json(&["dps", "certificate", "show", "x"])["properties"]["subject"], "CN=a");
}

#[test]
fn enrollment_group_is_created_updated_and_deleted() {
    let lab = Lab::new();
    lab.verified("root-1");
    lab.verified("root-2");
    let group = ["dps", "enrollment-group"];
    let run = |arguments: &[&str]| lab.run(&[&group, arguments].concat());
    let json = |arguments: &[&str]| lab.json(&[&group, arguments].concat());

    assert!(run(&["create", "g"]).fails(2).contains("--certificate"));
    let created = json(&["create", "g", "--certificate", "root-1", "--type", "iot-edge", "--disabled"]);
    assert_eq!(created["attestation"]["x509"]["caReferences"], json!({ "primary": "root-1" }));
    assert_eq!(
        (&created["provisioningStatus"], &created["capabilities"]["iotEdge"]),
        (&json!("disabled"), &json!(true))
    );
    assert!(run(&["create", "G", "--symmetric-key"]).fails(1).contains("exists"));

    // An update keeps what it does not name.
    let updated = json(&["update", "g", "--enabled", "true", "--reprovision-policy", "never"]);
    assert_eq!(
        (&updated["provisioningStatus"], &updated["capabilities"]["iotEdge"]),
        (&json!("enabled"), &json!(true))
    );
    assert_eq!(updated["reprovisionPolicy"]["updateHubAssignment"], false);
    let both = json(&["update", "g", "--secondary-certificate", "root-2"]);
    assert_eq!(both["attestation"]["x509"]["caReferences"], json!({ "primary": "root-1", "secondary": "root-2" }));
    assert_eq!(both["reprovisionPolicy"], updated["reprovisionPolicy"]);
    let one = json(&["update", "g", "--clear-secondary-certificate"]);
    assert_eq!(one["attestation"]["x509"]["caReferences"], json!({ "primary": "root-1" }));
    assert!(run(&["update", "g"]).fails(2).contains("nothing"));

    let stale = both["etag"].as_str().expect("an etag");
    assert!(run(&["update", "g", "--enabled", "false", "--etag", stale]).fails(1).contains("412"));
    assert!(run(&["delete", "g", "--etag", stale, "--yes"]).fails(1).contains("412"));
    let current = one["etag"].as_str().expect("an etag");
    assert!(run(&["delete", "g"]).fails(2).contains("--yes"));
    let deleted = json(&["delete", "g", "--etag", current, "--yes"]);
    assert_eq!(deleted, json!({ "enrollmentGroupId": "g", "deleted": true }));
    assert!(run(&["show", "g"]).fails(1).contains("404"));
}

#[test]
fn initial_twin_is_read_from_a_file() {
    let lab = Lab::new();
    let twin = json!({ "tags": { "room": "12" }, "properties": { "desired": { "interval": 5 } } });
    fs::write(lab.path().join("twin.json"), twin.to_string()).expect("written");
    let create = ["dps", "enrollment-group", "create", "g", "--symmetric-key", "--initial-twin"];
    let created = lab.json(&[&create[..], &["twin.json"]].concat());
    assert_eq!(created["initialTwin"], twin);
    // A parser of less precision reads another number than this one.
    let exact = "51.248178375505404";
    fs::write(lab.path().join("exact.json"), format!(r#"{{"tags":{{"latitude":{exact}}}}}"#)).expect("written");
    let create_exact =
        ["dps", "enrollment-group", "create", "exact", "--symmetric-key", "--initial-twin", "exact.json"];
    lab.run(&create_exact).ok();
    let updated = ["-o", "json", "dps", "enrollment-group", "update", "exact", "--enabled", "false"];
    let updated = lab.run(&updated).ok();
    assert!(updated.contains(&format!("\"latitude\": {exact}")), "{updated}");
    fs::write(lab.path().join("broken.json"), "{\"tags\": 1}").expect("written");
    let error = lab.run(&[&create[..], &["broken.json"]].concat()).fails(1);
    assert!(error.contains("broken.json"), "{error}");
}

#[test]
fn initial_twin_that_the_service_would_not_return_is_refused() {
    let lab = Lab::new();
    let twins = [
        json!({ "desired": { "interval": 5 } }),
        json!({ "tags": {}, "properties": { "desirde": {} } }),
        json!({}),
        json!({ "tags": { "version": 3, "site": "a" } }),
        json!({ "tags": { "count": "5" } }),
        json!({ "properties": { "desired": { "$version": 1 } } }),
        json!({ "properties": { "desired": { "metadata": {} } } }),
    ];
    for twin in twins {
        fs::write(lab.path().join("twin.json"), twin.to_string()).expect("written");
        let create = ["create", "g", "--symmetric-key", "--initial-twin", "twin.json"];
        for kind in ["enrollment", "enrollment-group"] {
            let error = lab.run(&[&["dps", kind], &create[..]].concat()).fails(1);
            assert!(error.contains("twin.json"), "{error}");
        }
    }
}

#[test]
fn hubs_are_restricted_and_released() {
    let lab = Lab::new();
    let json = |arguments: &[&str]| lab.json(&[&["dps", "enrollment-group"], arguments].concat());
    let created = json(&["create", "g", "--symmetric-key", "--hub", "h1.azure-devices.net"]);
    assert_eq!(created["iotHubs"], json!(["h1.azure-devices.net"]));
    let refused = lab.run(&["dps", "enrollment-group", "update", "g", "--hub", ""]).fails(2);
    assert!(refused.contains("--all-hubs"), "{refused}");
    let updated = json(&["update", "g", "--all-hubs"]);
    assert!(updated.get("iotHubs").is_none_or(|hubs| *hubs == json!([])), "{updated}");
}

#[test]
fn removing_an_allocation_function_needs_confirmation() {
    let lab = Lab::new();
    let connection: ConnectionString = lab.service.text("/dps/connectionString").parse().expect("a connection string");
    let settings = EnrollmentSettings::new()
        .allocation_policy(AllocationPolicy::Custom)
        .custom_allocation(CustomAllocation::new("https://f.azurewebsites.net/api/f?code=k"));
    let group = NewEnrollmentGroup::new(NewAttestation::SymmetricKey(None)).settings(settings.clone());
    let device = NewIndividualEnrollment::new(NewAttestation::SymmetricKey(None)).settings(settings);
    Runtime::new().expect("a runtime").block_on(async {
        let endpoint = format!("http://{}", connection.host()).parse().expect("an endpoint");
        let authorization = Authorization::from_connection_string(&connection);
        let client = Client::builder(endpoint).authorization(authorization).build().expect("a client");
        client.enrollment_groups().create(&"x".parse().expect("an ID"), &group).await.expect("created");
        client.individual_enrollments().create(&"x".parse().expect("an ID"), &device).await.expect("created");
    });
    for kind in ["enrollment", "enrollment-group"] {
        let update = |options: &[&str]| lab.run(&[&["dps", kind, "update", "x"], options].concat());
        update(&["--enabled", "false"]).ok();
        let refused = update(&["--allocation-policy", "hashed"]).fails(2);
        assert!(refused.contains("allocation function") && refused.contains("--yes"), "{refused}");
        assert_eq!(lab.json(&["dps", kind, "show", "x"])["allocationPolicy"], "custom");
        update(&["--allocation-policy", "hashed", "--yes"]).ok();
        update(&["--allocation-policy", "static"]).ok();
    }
}

#[test]
fn only_keys_prints_the_keys_of_a_group() {
    let lab = Lab::new();
    let shown = [
        lab.json(&["dps", "enrollment-group", "create", "g", "--symmetric-key"]),
        lab.json(&["dps", "enrollment-group", "show", "g"]),
        lab.json(&["dps", "enrollment-group", "list"]),
        lab.json(&["dps", "enrollment-group", "update", "g", "--type", "iot-edge"]),
    ];
    let found = lab.json(&["dps", "enrollment-group", "keys", "g"]);
    assert_eq!(keys(&found), ["enrollmentGroupId", "primaryKey", "secondaryKey"]);
    let key = found["primaryKey"].as_str().expect("a key");
    assert!(shown.iter().all(|shown| !shown.to_string().contains(key)), "{shown:?}");
    // The update kept the keys.
    assert_eq!(lab.json(&["dps", "enrollment-group", "keys", "g"]), found);

    lab.verified("root-1");
    lab.run(&["dps", "enrollment-group", "create", "x", "--certificate", "root-1"]).ok();
    assert!(lab.run(&["dps", "enrollment-group", "keys", "x"]).fails(1).contains("no symmetric keys"));
}

#[test]
fn individual_enrollment_is_created_updated_and_deleted() {
    let lab = Lab::new();
    let device = lab.cert(&["device", "sensor-1"]);
    let run = |arguments: &[&str]| lab.run(&[&["dps", "enrollment"], arguments].concat());
    let json = |arguments: &[&str]| lab.json(&[&["dps", "enrollment"], arguments].concat());

    let created = json(&["create", "sensor-1", "--cert", "sensor1_cert.pem", "--device-id", "Sensor1"]);
    let info = &created["attestation"]["x509"]["clientCertificates"]["primary"]["info"];
    assert_eq!(info["sha1Thumbprint"], device["sha1Thumbprint"]);
    assert_eq!(created["deviceId"], "Sensor1");
    assert!(run(&["create", "sensor-2"]).fails(2).contains("--cert"));

    // The service does not return the certificate, so an update would remove it.
    let error = run(&["update", "sensor-1", "--enabled", "false"]).fails(1);
    assert!(error.contains("--cert"), "{error}");
    let updated = json(&["update", "sensor-1", "--enabled", "false", "--cert", "sensor1_cert.pem"]);
    assert_eq!((&updated["provisioningStatus"], &updated["deviceId"]), (&json!("disabled"), &json!("Sensor1")));

    json(&["create", "sensor-2", "--symmetric-key"]);
    let listed = run(&["list"]).ok();
    assert!(listed.contains("sensor-1") && listed.contains("sensor-2"), "{listed}");
    assert_eq!(json(&["list", "--top", "1"]).as_array().expect("a list").len(), 1);
    assert!(run(&["delete", "sensor-1"]).fails(2).contains("--yes"));
    run(&["delete", "sensor-1", "--yes"]).ok();
    assert!(run(&["show", "sensor-1"]).fails(1).contains("404"));
}

#[test]
fn update_does_not_drop_a_second_certificate() {
    let lab = Lab::new();
    lab.verified("root");
    for name in ["a", "b"] {
        lab.cert(&["device", name]);
        lab.cert(&["intermediate", &format!("ca{name}"), "root"]);
    }
    let secondary = |value: &Value, kind: &str| value["attestation"]["x509"][kind]["secondary"].is_object();

    let update = ["dps", "enrollment", "update", "a", "--enabled", "false", "--cert", "a_cert.pem"];
    let create = ["dps", "enrollment", "create", "a", "--cert", "a_cert.pem"];
    lab.run(&[&create[..], &["--secondary-cert", "b_cert.pem"]].concat()).ok();
    let refused = lab.run(&update).fails(1);
    assert!(refused.contains("--secondary-cert FILE") && refused.contains("--clear-secondary-cert"), "{refused}");
    assert!(secondary(&lab.json(&["dps", "enrollment", "show", "a"]), "clientCertificates"), "nothing was written");
    let kept = lab.json(&[&update[..], &["--secondary-cert", "b_cert.pem"]].concat());
    assert!(secondary(&kept, "clientCertificates"), "{kept}");
    let cleared = lab.json(&[&update[..], &["--clear-secondary-cert"]].concat());
    assert!(!secondary(&cleared, "clientCertificates"), "{cleared}");
    lab.run(&update).ok();

    let first = ["--signing-certificate", "caa_cert.pem"];
    let second = ["--secondary-signing-certificate", "cab_cert.pem"];
    lab.run(&[&["dps", "enrollment-group", "create", "g"], &first[..], &second].concat()).ok();
    let update = [&["dps", "enrollment-group", "update", "g", "--enabled", "false"], &first[..]].concat();
    let refused = lab.run(&update).fails(1);
    assert!(refused.contains("--secondary-signing-certificate FILE"), "{refused}");
    let kept = lab.json(&[&update[..], &second].concat());
    assert!(secondary(&kept, "signingCertificates"), "{kept}");
    let cleared = lab.json(&[&update[..], &["--clear-secondary-certificate"]].concat());
    assert!(!secondary(&cleared, "signingCertificates"), "{cleared}");
}

#[test]
fn option_of_a_reference_does_not_replace_another_attestation() {
    let lab = Lab::new();
    lab.verified("root");
    lab.cert(&["intermediate", "ca", "root"]);
    let group = |arguments: &[&str]| lab.run(&[&["dps", "enrollment-group"], arguments].concat());
    group(&["create", "keys", "--symmetric-key"]).ok();
    group(&["create", "signing", "--signing-certificate", "ca_cert.pem"]).ok();
    for id in ["keys", "signing"] {
        let before = lab.json(&["dps", "enrollment-group", "show", id]);
        for options in [&["--clear-secondary-certificate"][..], &["--secondary-certificate", "root"]] {
            let refused = group(&[&["update", id], options].concat()).fails(2);
            assert!(refused.contains("refers to no CA certificate") && refused.contains("--certificate"), "{refused}");
        }
        assert_eq!(lab.json(&["dps", "enrollment-group", "show", id]), before);
    }
    group(&["update", "keys", "--certificate", "root"]).ok();
}

#[test]
fn registrations_are_listed_shown_and_deleted() {
    let lab = Lab::new();
    lab.run(&["dps", "enrollment-group", "create", "g", "--symmetric-key"]).ok();
    let key = lab.json(&["dps", "enrollment-group", "keys", "g"])["primaryKey"].as_str().expect("a key").to_owned();
    fs::write(lab.path().join("group.key"), &key).expect("written");
    let register = ["device", "register", "sensor-1", "--group-key-file", "group.key"];
    let assigned = lab.json(&register);

    let shown = lab.json(&["dps", "registration", "show", "sensor-1"]);
    assert_eq!((&shown["status"], &shown["assignedHub"]), (&json!("assigned"), &assigned["assignedHub"]));
    let listed = lab.json(&["dps", "registration", "list", "g"]);
    assert_eq!(listed.as_array().expect("a list").len(), 1);
    assert!(lab.run(&["dps", "registration", "list", "g"]).ok().contains("sensor-1"));
    assert!(lab.run(&["dps", "registration", "delete", "sensor-1"]).fails(2).contains("--yes"));
    let stale = ["dps", "registration", "delete", "sensor-1", "--etag", "\"stale\"", "--yes"];
    assert!(lab.run(&stale).fails(1).contains("412"));
    lab.run(&["dps", "registration", "delete", "sensor-1", "--yes"]).ok();
    assert!(lab.run(&["dps", "registration", "show", "sensor-1"]).fails(1).contains("404"));
}

#[test]
fn instance_is_shown_with_its_use_of_the_limits() {
    let lab = Lab::new();
    lab.verified("root-1");
    lab.run(&["dps", "enrollment-group", "create", "x", "--certificate", "root-1"]).ok();
    lab.run(&["dps", "enrollment-group", "create", "k", "--symmetric-key"]).ok();
    lab.run(&["dps", "enrollment", "create", "sensor-1", "--symmetric-key"]).ok();
    let shown = lab.json(&["dps", "show"]);
    assert_eq!(shown["idScope"], lab.service.text("/dps/idScope"));
    assert_eq!((&shown["state"], &shown["localAuth"]), (&json!("Active"), &json!(true)));
    let used = |used: usize, limit: usize| json!({ "used": used, "limit": limit });
    let expected = json!({
        "certificates": used(1, 25),
        "linkedHubs": used(1, 50),
        "x509EnrollmentGroups": used(1, 100),
        "symmetricKeyEnrollmentGroups": used(1, 100),
        "individualEnrollments": used(1, 1_000_000),
    });
    assert_eq!(shown["usage"], expected);
    let text = lab.run(&["dps", "show"]).ok();
    assert!(text.contains("1 of 25") && text.contains(lab.service.text("/dps/idScope")), "{text}");
}

#[test]
fn instance_must_be_named_and_exist() {
    let lab = Lab::new();
    let run = |arguments: &[&str]| {
        let mut command = lab.service.dps_command(lab.path(), arguments);
        Run::of(command.env_remove("IOT_ENROLL_DPS"))
    };
    for command in [&["dps", "show"][..], &["dps", "certificate", "list"], &["dps", "enrollment-group", "list"]] {
        let error = run(command).fails(2);
        assert!(error.contains("--dps"), "{error}");
    }
    let error = run(&["dps", "show", "--dps", "missing"]).fails(1);
    assert!(error.contains("missing") && error.contains("emulated-dps"), "{error}");
    run(&["dps", "show", "--dps", "EMULATED-dps", "--subscription", lab.service.text("/arm/subscription")]).ok();
    run(&["dps", "show", "--dps", "emulated-dps", "--resource-group", lab.service.text("/arm/resourceGroup")]).ok();
    run(&["dps", "show", "--dps", "emulated-dps", "--resource-group", "other"]).fails(1);
    run(&["dps", "show", "--dps", "emulated_dps"]).fails(2);
    let error = Run::of(lab.service.dps_command(lab.path(), &["dps", "show"]).env("IOT_ENROLL_DPS", "a b")).fails(2);
    assert!(error.contains("IOT_ENROLL_DPS"), "{error}");
}

#[test]
fn instance_without_keys_needs_entra_for_enrollments() {
    let runtime = Runtime::new().expect("threads");
    let emulator = runtime.block_on(Emulator::builder().local_auth(false).start()).expect("an emulator");
    let directory = directory();
    let command = |arguments: &[&str]| {
        let mut command = program(directory.path());
        command.args(arguments).args(["--dps", emulator.dps_name(), "--arm-endpoint", &emulator.endpoint()]);
        command.env("IOT_ENROLL_ARM_TOKEN", emulator.arm_token());
        command
    };
    // Resource Manager accepts the token, and the rest of the instance is shown.
    let shown = Run::of(&mut command(&["dps", "show", "-o", "json"]));
    assert!(shown.stderr.contains("disableLocalAuth"), "{}", shown.stderr);
    let shown = shown.json();
    assert_eq!((&shown["localAuth"], &shown["usage"]["x509EnrollmentGroups"]), (&json!(false), &Value::Null));
    let list = ["dps", "enrollment-group", "list"];
    let error = Run::of(&mut command(&list)).fails(2);
    assert!(error.contains("disableLocalAuth") && error.contains("Entra"), "{error}");
    let by_key = Run::of(command(&list).env("IOT_ENROLL_DPS_CONNECTION_STRING", emulator.dps_connection_string()));
    let error = by_key.fails(1);
    assert!(error.contains("401") && error.contains("Entra"), "{error}");
}

#[test]
fn connection_string_needs_no_resource_manager() {
    let lab = Lab::with_tls();
    let connection = lab.service.text("/dps/connectionString");
    fs::write(lab.path().join("connection"), connection).expect("written");
    let ca = lab.service.text("/caFile");
    let run = |arguments: &[&str]| {
        let mut command = program(lab.path());
        Run::of(command.args(arguments).args(["--tls-ca", ca, "--rate", "1000000"]))
    };
    let file = ["--connection-string-file", "connection"];
    run(&[&["dps", "enrollment-group", "create", "g", "--symmetric-key"], &file[..]].concat()).ok();
    let list = ["dps", "enrollment-group", "list", "--tls-ca", ca];
    let by_variable = Run::of(program(lab.path()).args(list).env("IOT_ENROLL_DPS_CONNECTION_STRING", connection));
    assert!(by_variable.ok().contains('g'));

    let without_root = ["dps", "enrollment-group", "list", "--connection-string-file", "connection"];
    let error = Run::of(program(lab.path()).args(without_root)).fails(1);
    assert!(error.contains("--tls-ca"), "{error}");

    let other = "contoso.azure-devices-provisioning.net";
    let wrong = connection.replace(connection.split(['=', ';']).nth(1).expect("a host"), other);
    fs::write(lab.path().join("wrong"), wrong).expect("written");
    let error = lab.run(&["dps", "enrollment-group", "list", "--connection-string-file", "wrong"]).fails(2);
    assert!(error.contains(other) && error.contains("emulated-dps"), "{error}");
    fs::write(lab.path().join("broken"), "HostName=x;SharedAccessKey=topsecret1").expect("written");
    let error = run(&["dps", "enrollment-group", "list", "--connection-string-file", "broken"]).fails(2);
    assert!(error.contains("connection string") && !error.contains("topsecret1"), "{error}");
}

#[test]
fn connection_string_reaches_an_emulator_without_tls() {
    let lab = Lab::new();
    let mut command = lab.service.dps_command(lab.path(), &["dps", "enrollment-group", "list", "-o", "json"]);
    command.env_remove("IOT_ENROLL_DPS").env_remove("IOT_ENROLL_ARM_TOKEN");
    command.env("IOT_ENROLL_DPS_CONNECTION_STRING", lab.service.text("/dps/connectionString"));
    assert_eq!(Run::of(&mut command).json(), json!([]));

    // Nothing else is needed.
    let mut command = program(lab.path());
    command.args(["dps", "enrollment-group", "list", "-o", "json"]);
    command.env("IOT_ENROLL_DPS_CONNECTION_STRING", lab.service.text("/dps/connectionString"));
    assert_eq!(Run::of(&mut command).json(), json!([]));
}

#[test]
fn connection_string_may_be_quoted_or_broken_into_lines() {
    let lab = Lab::new();
    let connection = lab.service.text("/dps/connectionString");
    for text in [format!("\"{connection}\"\n"), format!("'{connection}'"), connection.replace(';', ";\r\n  ")] {
        fs::write(lab.path().join("connection"), &text).expect("written");
        let list = ["dps", "enrollment-group", "list", "-o", "json", "--connection-string-file", "connection"];
        assert_eq!(Run::of(program(lab.path()).args(list)).json(), json!([]), "from a file: {text}");
        let mut command = program(lab.path());
        command.args(&list[..5]).env("IOT_ENROLL_DPS_CONNECTION_STRING", &text);
        assert_eq!(Run::of(&mut command).json(), json!([]), "from a variable: {text}");
    }
}

#[test]
fn tokens_of_resource_manager_are_not_repeated() {
    let lab = Lab::new();
    let wrong = "eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJ4In0.c2lnbmF0dXJl";
    let mut command = lab.service.dps_command(lab.path(), &["dps", "show", "-v"]);
    let error = Run::of(command.env("IOT_ENROLL_ARM_TOKEN", wrong)).fails(1);
    assert!(error.contains("401") && !error.contains("c2lnbmF0dXJl"), "{error}");
    for arguments in [&["--arm-token-file", wrong][..], &["--token", wrong], &["--arm-token", wrong]] {
        let error = lab.run(&[&["dps", "show"], arguments].concat()).fails(2);
        assert!(error.contains("--arm-token-file") && !error.contains("c2lnbmF0dXJl"), "{error}");
    }
    let connection = "HostName=x.azure-devices-provisioning.net;SharedAccessKeyName=o;SharedAccessKey=dG9wc2VjcmV0MQ==";
    for option in ["--connection-string-file", "--connection-string"] {
        let error = lab.run(&["dps", "show", option, connection]).fails(2);
        assert!(error.contains("--connection-string-file") && !error.contains("dG9wc2VjcmV0"), "{error}");
    }
    let mut command = lab.service.dps_command(lab.path(), &["dps", "show"]);
    let error = Run::of(command.env("IOT_ENROLL_ARM_TOKEN", "SharedAccessSignature sr=a&sig=topsecret&se=1")).fails(2);
    assert!(error.contains("--connection-string-file") && !error.contains("topsecret"), "{error}");
    assert_eq!(lab.json(&["dps", "show"])["name"], "emulated-dps");
}
