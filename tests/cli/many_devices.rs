//! `provision` and `rollover` for many devices, through the program, against an emulator whose requests can be counted.

use std::{fs, path::Path};

use crate::support::service::{assert_without, directory};
use crate::support::{Run, program};
use iot_enroll::{
    certificate::{PrivateKey, Timestamp, chain, files},
    emulator::{DeviceProperties, Emulator, Fault, FaultKind},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

struct Lab {
    emulator: Emulator,
    directory: TempDir,
    _runtime: Runtime,
}

impl Lab {
    fn start() -> Self {
        let runtime = Runtime::new().expect("threads");
        let emulator = runtime.block_on(Emulator::builder().start()).expect("a free loopback port");
        Self { emulator, directory: directory(), _runtime: runtime }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = program(self.path());
        command.args(arguments).args(["--endpoint", &self.emulator.endpoint(), "--rate", "1000000"]);
        let run = Run::of(command.env("IOT_ENROLL_TOKEN", self.emulator.token()));
        assert_without(&run, self.emulator.token());
        run
    }

    fn provision(&self, arguments: &[&str]) -> Run {
        self.run(&[&["provision", "--group", "g", "--root", "r", "--no-pfx"], arguments].concat())
    }

    fn rollover(&self, arguments: &[&str]) -> Run {
        self.run(&[&["rollover", "--group", "g", "--root", "new"], arguments].concat())
    }

    /// Requests with this method whose path has this part.
    fn count(&self, method: &str, part: &str) -> usize {
        self.emulator.requests().iter().filter(|it| it.method == method && it.path.contains(part)).count()
    }

    fn leads_to(&self, file: &str, root: &str) {
        let chain = files::read_certificates(&self.path().join(file)).expect("a chain");
        let root = files::read_certificates(&self.path().join(root)).expect("a root").swap_remove(0);
        chain::verify(&chain, &root, Timestamp::now()).expect("a chain to the root");
    }
}

#[test]
fn one_run_makes_the_certificates_and_creates_the_devices() {
    let lab = Lab::start();
    let arguments = ["--count", "150", "--prefix", "s-", "--create-devices", "--template", "dtmi:contoso:Sensor;1"];
    let report = lab.provision(&[&arguments[..], &["--device", "extra", "-o", "json"]].concat()).json();
    assert_eq!(
        report["fleet"],
        json!({"folder": "./fleet", "manifest": "./fleet/manifest.csv", "devices": 150, "found": 0})
    );
    assert_eq!(report["created"], json!({"created": 151, "existing": 0}));
    let steps: Vec<_> = report["steps"].as_array().expect("steps").iter().map(|it| &it["step"]).collect();
    assert_eq!(steps[steps.len() - 3..], ["device", "fleet", "create"]);
    lab.leads_to("fleet/0000/s-150_fullchain.pem", "r_cert.pem");
    assert_eq!(lab.count("PUT", "/devices/"), 151);
    let device = Run::of(
        program(lab.path())
            .args(["device", "show", "s-007", "-o", "json", "--endpoint", &lab.emulator.endpoint()])
            .env("IOT_ENROLL_TOKEN", lab.emulator.token()),
    )
    .json();
    assert_eq!(device["template"], "dtmi:contoso:Sensor;1");
    // All of it is there: a second run reads only.
    let before = lab.emulator.requests().len();
    let again = lab.provision(&[&arguments[..], &["--device", "extra", "-o", "json"]].concat()).json();
    assert_eq!((&again["fleet"]["found"], &again["created"]["existing"]), (&json!(150), &json!(151)));
    assert!(lab.emulator.requests()[before..].iter().all(|it| it.method == "GET"));
    // More of them: what is there is kept.
    let more = lab.provision(&["--count", "160", "--prefix", "s-", "--create-devices", "-o", "json"]).json();
    assert_eq!((&more["fleet"]["devices"], &more["fleet"]["found"]), (&json!(160), &json!(150)));
    assert_eq!(more["created"], json!({"created": 10, "existing": 150}));
}

#[test]
fn numbered_devices_grow_past_a_power_of_ten_with_the_digits_they_had() {
    let lab = Lab::start();
    lab.provision(&["--count", "9", "--digits", "1"]).ok();
    let more = lab.provision(&["--count", "12", "--digits", "1", "-o", "json"]).json();
    assert_eq!((&more["fleet"]["devices"], &more["fleet"]["found"]), (&json!(12), &json!(9)));
    let error = lab.provision(&["--count", "12"]).fails(1);
    assert!(error.contains("--digits"), "{error}");
}

#[test]
fn names_come_from_the_file_and_a_device_that_exists_is_left_as_it_is() {
    let lab = Lab::start();
    lab.emulator.add_devices([DeviceProperties::new("B-2")]).expect("added");
    fs::write(lab.path().join("ids.csv"), "deviceId,displayName\na-1,First\nb-2,Second\n").expect("written");
    let report = lab.provision(&["--devices", "ids.csv", "--create-devices", "--out", "out", "-o", "json"]).json();
    assert_eq!(report["created"], json!({"created": 1, "existing": 1}));
    assert_eq!(lab.count("PUT", "/devices/"), 1);
    assert!(lab.path().join("out/0000/b-2_key.pem").exists());
    let sent = lab.emulator.requests();
    assert!(sent.iter().all(|it| !it.path.contains("/devices/b-2") || it.method == "GET"));
}

#[test]
fn a_dry_run_plans_the_fleet_and_bad_ids_stop_everything_before_it_begins() {
    let lab = Lab::start();
    let plan = lab.provision(&["--count", "5", "--create-devices", "--dry-run"]).ok();
    assert!(
        plan.contains("would create the certificates of 5 devices") && plan.contains("would create those of 5"),
        "{plan}"
    );
    assert_eq!(fs::read_dir(lab.path()).expect("read").count(), 0);
    fs::write(lab.path().join("ids"), "good\nbad/id\n").expect("written");
    let error = lab.provision(&["--devices", "ids"]).fails(1);
    assert!(error.contains("line 2"), "{error}");
    let error = lab.provision(&["--count", "3", "--device", "DEVICE-2"]).fails(1);
    assert!(error.contains("device-2 is listed more than once"), "{error}");
    lab.provision(&["--devices", "ids", "--count", "3"]).fails(2);
    lab.provision(&["--prefix", "x"]).fails(2);
    lab.provision(&["--template", "x"]).fails(2);
    assert_eq!(lab.count("PUT", ""), 0);
}

#[test]
fn a_fleet_of_another_root_stops_it_before_the_service_is_changed() {
    let lab = Lab::start();
    lab.provision(&["--count", "3"]).ok();
    let before = lab.count("PUT", "");
    // Nor does one of other devices, of which a dry run tells as well.
    for more in [&["--dry-run"][..], &[]] {
        let arguments = ["provision", "--group", "h", "--root", "r", "--count", "12", "--no-pfx"];
        let error = lab.run(&[&arguments[..], more].concat()).fails(1);
        assert!(error.contains("device-1") && error.contains("--out"), "{error}");
    }
    let error = lab.run(&["provision", "--group", "h", "--root", "other", "--count", "3", "--no-pfx"]).fails(1);
    assert!(error.contains("fleet"), "{error}");
    assert!(!lab.path().join("other_cert.pem").exists());
    assert_eq!(lab.count("PUT", ""), before);
}

#[test]
fn a_refused_device_ends_the_run_with_its_progress_and_the_next_run_resumes() {
    let lab = Lab::start();
    let refused = FaultKind::Status { status: 403, retry_after: None };
    lab.emulator.inject(Fault::new(refused).method("PUT").path_contains("/devices/device-3")).expect("a fault");
    let error = lab.provision(&["--count", "5", "--create-devices"]).fails(1);
    assert!(error.contains("device-3") && error.contains("of 5"), "{error}");
    let report = lab.provision(&["--count", "5", "--create-devices", "-o", "json"]).json();
    assert_eq!(
        report["created"]["created"].as_u64().zip(report["created"]["existing"].as_u64()).map(|(a, b)| a + b),
        Some(5)
    );
}

#[test]
fn a_fleet_rolls_over_with_the_keys_it_has() {
    let lab = Lab::start();
    lab.provision(&["--count", "3", "--device", "single"]).ok();
    let arguments = ["--devices", "fleet/manifest.csv", "--keep-keys", "--device", "single", "--no-pfx"];
    let plan = lab.rollover(&[&arguments[..], &["--dry-run"]].concat()).ok();
    assert!(plan.contains("nothing was changed") && !lab.path().join("new_cert.pem").exists(), "{plan}");
    let text = lab.rollover(&arguments).ok();
    assert!(text.contains("--retire"), "{text}");
    lab.leads_to("new/0000/device-2_fullchain.pem", "new_cert.pem");
    lab.leads_to("new/single_fullchain.pem", "new_cert.pem");
    assert!(!lab.path().join("new/single_key.pem").exists());
    // The key stays where it is, and belongs to both certificates.
    assert!(!lab.path().join("new/0000/device-2_key.pem").exists());
    let key = fs::read(lab.path().join("fleet/0000/device-2_key.pem")).expect("read");
    let key = PrivateKey::read(&key, None).expect("a key");
    for file in ["fleet/0000/device-2_cert.pem", "new/0000/device-2_cert.pem"] {
        assert!(key.belongs_to(&files::read_certificates(&lab.path().join(file)).expect("read")[0]));
    }
    let again = lab.rollover(&[&arguments[..], &["-o", "json"]].concat()).json();
    assert_eq!(again["fleet"]["found"], 3);
    assert_eq!((&again["from"]["entry"], &again["to"]["entry"]), (&json!("primary"), &json!("secondary")));

    let plan = lab.rollover(&["--retire", "--dry-run"]).ok();
    assert!(plan.contains("would remove"), "{plan}");
    assert_eq!(lab.count("DELETE", ""), 0);
    let report = lab.rollover(&["--retire", "--yes", "-o", "json"]).json();
    assert_eq!((&report["retired"], &report["from"]["entry"]), (&json!(true), &json!("primary")));
    lab.rollover(&["--retire", "--yes"]).ok();
    assert_eq!(lab.count("DELETE", ""), 1);
}

#[test]
fn the_old_root_stays_where_the_new_one_is_not_verified() {
    let lab = Lab::start();
    lab.provision(&[]).ok();
    Run::of(program(lab.path()).args(["cert", "root", "new", "--no-pfx"])).ok();
    let error = lab.rollover(&["--retire", "--yes"]).fails(1);
    assert!(error.contains("nothing was removed"), "{error}");
    assert_eq!(lab.count("DELETE", ""), 0);
    fs::write(lab.path().join("ids"), "a\n").expect("written");
    let error = lab.rollover(&["--devices", "ids", "--keep-keys"]).fails(1);
    assert!(error.contains("certificate"), "{error}");
}

#[test]
fn devices_register_at_the_end_and_the_report_says_where_they_went() {
    let lab = Lab::start();
    let run = |arguments: &[&str]| {
        let base = ["provision", "--emulator", "--register", "--no-pfx", "-o", "json"];
        Run::of(program(lab.path()).args([&base[..], arguments].concat()))
    };
    let report = run(&[]).json();
    let hub = report["devices"][0]["assignedHub"].as_str().expect("a hub");
    assert!(hub.ends_with(".azure-devices.net"), "{hub}");
    assert_eq!(
        report["steps"].as_array().and_then(|steps| steps.last()).map(|step| &step["step"]),
        Some(&json!("register"))
    );
    let report = run(&["--count", "40"]).json();
    assert_eq!(report["fleet"]["registered"], 40);
    let plan = run(&["--count", "40", "--dry-run"]).json();
    assert_eq!(
        plan["steps"].as_array().and_then(|steps| steps.last()).map(|step| &step["outcome"]),
        Some(&json!("planned"))
    );
    run(&["--id-scope", "0ne12345678"]).fails(2);
}

#[test]
fn a_device_that_does_not_get_in_ends_it_with_the_cause() {
    let lab = Lab::start();
    // Nothing tells the id scope, and nothing is done.
    let error = lab.provision(&["--device", "d", "--register"]).fails(2);
    assert!(error.contains("--id-scope") && lab.count("PUT", "") == 0, "{error}");
    lab.provision(&["--register", "--id-scope", "0ne12345678"]).fails(2);
    // The emulator without TLS cannot be shown a certificate.
    let arguments = ["--device", "d", "--register", "--id-scope", lab.emulator.id_scope(), "--dps-endpoint"];
    let error = lab.provision(&[&arguments[..], &[&lab.emulator.endpoint()]].concat()).fails(1);
    assert!(error.contains("d was not registered: nothing was sent"), "{error}");
}

#[test]
fn one_device_that_is_refused_keeps_no_other_out() {
    let runtime = Runtime::new().expect("threads");
    let builder = Emulator::builder().tls(true).registration_retry_after(std::time::Duration::ZERO);
    let lab =
        Lab { emulator: runtime.block_on(builder.start()).expect("a port"), directory: directory(), _runtime: runtime };
    fs::write(lab.path().join("ca.pem"), lab.emulator.ca_pem().expect("TLS")).expect("written");
    for device in ["/p-03/register", "/single-1/register"] {
        let refused = FaultKind::Status { status: 401, retry_after: None };
        lab.emulator.inject(Fault::new(refused).path_contains(device).always()).expect("a fault");
    }
    let devices = ["--count", "12", "--prefix", "p-", "--device", "single-1", "--device", "single-2"];
    let endpoint = lab.emulator.endpoint();
    let service =
        ["--register", "--ca-file", "ca.pem", "--id-scope", lab.emulator.id_scope(), "--dps-endpoint", &endpoint];
    let run = lab.provision(&[&devices[..], &service, &["-o", "json"]].concat());
    assert_eq!(run.status, 1, "{}", run.stderr);
    assert!(run.stderr.contains("p-03 was not registered") && run.stderr.contains("single-1 was not registered"));
    let report: serde_json::Value = serde_json::from_str(&run.stdout).expect("one document");
    assert_eq!((&report["fleet"]["registered"], &report["fleet"]["refused"]), (&json!(11), &json!(1)));
    let refused: Vec<_> = report["refused"].as_array().expect("a list").iter().map(|it| &it["id"]).collect();
    assert_eq!(refused, ["single-1", "p-03"]);
    assert!(report["devices"][0]["assignedHub"].is_null() && report["devices"][1]["assignedHub"].is_string());
    // What concerns all of them is met once.
    let wrong = ["--register", "--ca-file", "ca.pem", "--id-scope", "0neFFFFFFFF", "--dps-endpoint", &endpoint];
    let before = lab.emulator.requests().iter().filter(|it| it.path.ends_with("/register")).count();
    let error = lab.provision(&[&["--count", "12", "--prefix", "p-"][..], &wrong].concat()).fails(1);
    assert!(error.contains("ID scope"), "{error}");
    let after = lab.emulator.requests().iter().filter(|it| it.path.ends_with("/register")).count();
    assert!(after - before < 12 + 4, "{}", after - before);
}

#[test]
fn a_fleet_that_is_refused_reads_the_application_once_and_few_of_its_devices() {
    let runtime = Runtime::new().expect("threads");
    let builder = Emulator::builder().tls(true).registration_retry_after(std::time::Duration::ZERO);
    let lab =
        Lab { emulator: runtime.block_on(builder.start()).expect("a port"), directory: directory(), _runtime: runtime };
    fs::write(lab.path().join("ca.pem"), lab.emulator.ca_pem().expect("TLS")).expect("written");
    let endpoint = lab.emulator.endpoint();
    let service =
        ["--register", "--ca-file", "ca.pem", "--id-scope", lab.emulator.id_scope(), "--dps-endpoint", &endpoint];
    let refused = FaultKind::Status { status: 401, retry_after: None };
    lab.emulator.inject(Fault::new(refused).path_contains("/register").always()).expect("a fault");
    let arguments = ["--count", "200", "--create-devices", "--device", "single", "-o", "json"];
    let run = lab.provision(&[&arguments[..], &service].concat());
    assert_eq!(run.status, 1, "{}", run.stderr);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).expect("one document");
    assert_eq!((&report["fleet"]["registered"], &report["fleet"]["refused"]), (&json!(0), &json!(200)));
    let told = report["refused"].as_array().expect("a list");
    assert_eq!(told.len(), 1 + 20);
    // Each that is reported was looked up: the service is said to have refused, and not that nothing is enrolled.
    assert!(told.iter().all(|it| !it["reason"].as_str().expect("a reason").contains("possible cause")), "{told:?}");
    let asked =
        |is: fn(&str) -> bool| lab.emulator.requests().iter().filter(|it| it.method == "GET" && is(&it.path)).count();
    assert_eq!(asked(|path| path == "/api/enrollmentGroups"), 1, "the application is read once");
    // Of a device: itself, its attestation, its credentials. The application's ID scope is in a device's credentials too.
    let single = asked(|path| path.ends_with("/attestation"));
    assert!((21..=1 + 20 + 16).contains(&single), "{single}");
    let credentials = asked(|path| path.ends_with("/credentials"));
    assert_eq!(credentials, single + 1);
}
