//! A whole move, through the program: devices of each kind of credential are planned, rehearsed and moved, register at the
//! instance with unchanged credentials, and can go back.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::support::{
    Run,
    service::{Service, assert_without, directory},
};
use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The devices, with the options by which each registers.
const DEVICES: [(&str, &[&str]); 5] = [
    ("x-root", &["--cert", "xRoot_fullchain.pem", "--key", "xRoot_key.pem"]),
    ("x-int", &["--cert", "xInt_fullchain.pem", "--key", "xInt_key.pem"]),
    ("x-own", &["--cert", "xOwn_cert.pem", "--key", "xOwn_key.pem"]),
    ("s-group", &["--group-key-file", "group1.key"]),
    ("s-own", &["--symmetric-key-file", "own1.key"]),
];

struct Lab {
    service: Service,
    directory: TempDir,
}

impl Lab {
    fn start() -> Self {
        let service = Service::with(&["--tls", "--rate", "1000000", "--retry-after", "0"]);
        Self { service, directory: directory() }
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = self.service.dps_command(self.directory.path(), arguments);
        if arguments[0] == "cert" {
            command = crate::support::program(self.directory.path());
            command.args(arguments);
        } else {
            command.args(["--tls-ca", self.service.text("/caFile")]);
        }
        let is_planned = arguments[0] == "migrate" && arguments[1] != "plan";
        if is_planned {
            // The plan names both services.
            command.env_remove("IOT_ENROLL_DPS");
        } else if arguments[0] == "migrate" {
            command.env("IOT_ENROLL_ENDPOINT", &self.service.endpoint);
        } else if arguments[0] != "dps" {
            command.env_remove("IOT_ENROLL_DPS").env("IOT_ENROLL_ENDPOINT", &self.service.endpoint);
        }
        let run = Run::of(command.env("IOT_ENROLL_TOKEN", &self.service.token));
        assert_without(&run, &self.service.token);
        run
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["-o", "json"]].concat()).json()
    }

    /// Writes a file that only its owner can read, with a key on each line.
    fn keys(&self, name: &str, seeds: &[&str]) {
        let keys = seeds.iter().map(|seed| BASE64_STANDARD.encode(digest::digest(&digest::SHA512, seed.as_bytes())));
        let path = self.directory.path().join(name);
        fs::write(&path, keys.collect::<Vec<_>>().join("\n")).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
    }

    /// Creates the certificates, keys, groups and devices of the application.
    fn fill_application(&self) {
        for issue in [
            &["root", "root-1"][..],
            &["intermediate", "int-1", "root-1"],
            &["root", "root-2"],
            &["device", "x-root", "root-2"],
            &["device", "x-int", "int-1"],
            &["device", "x-own"],
        ] {
            self.run(&[&["cert"], issue, &["--no-pfx"]].concat()).ok();
        }
        self.keys("group.keys", &["group 1", "group 2"]);
        self.keys("group1.key", &["group 1"]);
        self.keys("own.keys", &["own 1", "own 2"]);
        self.keys("own1.key", &["own 1"]);
        self.run(&["provision", "--group", "g-root", "--root", "root-2", "--no-pfx"]).ok();
        self.run(&[
            "provision",
            "--group",
            "g-int",
            "--ca-cert",
            "int1_cert.pem",
            "--ca-key",
            "int1_key.pem",
            "--no-pfx",
        ])
        .ok();
        let keys = ["--attestation", "symmetric-key", "--keys-file", "group.keys"];
        self.run(&[&["enrollment-group", "create", "g-sas"], &keys[..]].concat()).ok();
        for (id, attestation) in [("s-own", ["--keys-file", "own.keys"]), ("x-own", ["--certificate", "xOwn_cert.pem"])]
        {
            self.run(&["device", "create", id]).ok();
            self.run(&[&["device", "attestation", "set", id], &attestation[..]].concat()).ok();
        }
    }

    /// Registers a device as it does itself, at an ID scope.
    fn register(&self, id: &str, credential: &[&str], scope: &str) -> Run {
        let place = ["--id-scope", scope, "--dps-endpoint", &self.service.endpoint, "-o", "json"];
        self.run(&[&["device", "register", id], credential, &place].concat())
    }

    /// Everything that the application says, with etags.
    fn application(&self) -> Value {
        let attestations = DEVICES.map(|(id, _)| self.json(&["device", "credentials", id, "--show-keys"]));
        json!([self.json(&["device", "list"]), self.json(&["enrollment-group", "list"]), attestations])
    }

    fn status(&self) -> (i32, Value) {
        let run = self.run(&["migrate", "status", "plan.json", "-o", "json"]);
        (run.status, serde_json::from_str(&run.stdout).expect("one JSON document"))
    }
}

#[test]
fn devices_of_every_kind_move_with_unchanged_credentials_and_can_go_back() {
    let lab = Lab::start();
    let (old, new) = (lab.service.text("/idScope"), lab.service.text("/dps/idScope"));
    lab.fill_application();
    for (id, credential) in DEVICES {
        lab.register(id, credential, old).ok();
        lab.register(id, credential, new).fails(1);
    }
    let before = lab.application();

    lab.run(&["migrate", "plan", "--ca-dir", ".", "--out", "plan.json"]).ok();
    let apply = lab.run(&["migrate", "apply", "plan.json"]);
    assert_eq!(apply.status, 0, "{}{}", apply.stdout, apply.stderr);

    let (status, shown) = lab.status();
    assert_eq!((status, &shown["counts"]["waiting"], &shown["counts"]["arrived"]), (1, &json!(5), &json!(0)));

    for (id, credential) in DEVICES {
        let rehearsal = lab.json(&[&["migrate", "rehearse", "plan.json", "--device", id], credential].concat());
        assert_eq!((&rehearsal["differences"], &rehearsal["record"]), (&json!([]), &json!("removed")), "{rehearsal}");
    }
    // Nobody has arrived by a rehearsal.
    assert_eq!(lab.status().1["counts"]["arrived"], json!(0));

    let query = "SELECT * FROM devices WHERE $provisioned = true";
    lab.run(&["device-group", "create", "all", "--display-name", "All", "--filter", query]).ok();
    let moved = lab.json(&["migrate", "move", "plan.json", "--device-group", "all", "--yes"]);
    assert_eq!((&moved["sent"], &moved["idScope"]), (&json!(5), &json!(new)), "{moved}");

    // The devices do what the command says.
    for (index, (id, credential)) in DEVICES.into_iter().enumerate() {
        let assigned: Value = serde_json::from_str(&lab.register(id, credential, new).ok()).expect("JSON");
        assert_eq!(assigned["assignedHub"], "emulated-hub.azure-devices.net");
        let (status, shown) = lab.status();
        assert_eq!(shown["counts"]["arrived"], json!(index + 1));
        assert_eq!(status, i32::from(index + 1 < DEVICES.len()));
    }
    let csv = lab.run(&["migrate", "status", "plan.json", "--format", "csv"]);
    assert!(csv.stderr.contains("5 of 5 devices have arrived"), "{}", csv.stderr);
    let csv = csv.ok();
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.len(), 6, "{csv}");
    assert!(lines.iter().any(|line| line.starts_with("x-int,arrived,emulated-hub.azure-devices.net,g-int,")), "{csv}");
    assert!(lines.iter().any(|line| line.starts_with("s-own,arrived,emulated-hub.azure-devices.net,,")), "{csv}");
    assert!(lab.run(&["migrate", "status", "plan.json", "--missing"]).ok().contains("5 of 5"));

    // The application is untouched, and each device can go back.
    lab.run(&["device-group", "delete", "all", "--yes"]).ok();
    for (id, credential) in DEVICES {
        lab.register(id, credential, old).ok();
    }
    assert_eq!(lab.application(), before);
}

#[test]
fn a_rehearsal_keeps_a_registration_that_existed_before() {
    let lab = Lab::start();
    let (old, new) = (lab.service.text("/idScope"), lab.service.text("/dps/idScope"));
    lab.fill_application();
    let (id, credential) = DEVICES[3];
    lab.register(id, credential, old).ok();
    lab.run(&["migrate", "plan", "--ca-dir", ".", "--out", "plan.json"]).ok();
    lab.run(&["migrate", "apply", "plan.json"]).ok();

    // A wrong credential is refused, leaves no record, and the cause is named.
    let wrong = lab.run(&["migrate", "rehearse", "plan.json", "--device", id, "--symmetric-key-file", "own1.key"]);
    let error = wrong.fails(1);
    assert!(error.contains("the symmetric key is not the one of s-group"), "{error}");
    lab.run(&["dps", "registration", "show", id]).fails(1);
    // A device that the plan does not have.
    let unknown = ["migrate", "rehearse", "plan.json", "--device", "x", "--group-key-file", "group1.key"];
    assert!(lab.run(&unknown).fails(1).contains("the plan has no device x"));
    assert!(lab.run(&["migrate", "rehearse", "plan.json", "--device", id]).fails(2).contains("--symmetric-key-file"));

    lab.register(id, credential, new).ok();
    let rehearsal = lab.run(&[&["migrate", "rehearse", "plan.json", "--device", id], credential].concat());
    assert!(rehearsal.stderr.contains("was registered before the rehearsal"), "{}", rehearsal.stderr);
    assert!(rehearsal.ok().contains("registration  kept"));
    lab.run(&["dps", "registration", "show", id]).ok();
}

#[test]
fn a_rehearsal_reports_what_differs_from_the_plan() {
    let lab = Lab::start();
    let old = lab.service.text("/idScope");
    lab.fill_application();
    let (id, credential) = DEVICES[3];
    lab.register(id, credential, old).ok();
    lab.run(&["migrate", "plan", "--ca-dir", ".", "--out", "plan.json"]).ok();
    lab.run(&["migrate", "apply", "plan.json"]).ok();
    // Another group of the instance has the keys now.
    lab.run(&["dps", "enrollment-group", "delete", "g-sas", "--yes"]).ok();
    lab.run(&["dps", "enrollment-group", "create", "other", "--symmetric-key", "--keys-file", "group.keys"]).ok();
    let run = lab.run(&[&["migrate", "rehearse", "plan.json", "--device", id], credential].concat());
    assert!(run.stdout.contains("the enrollment group other admitted it, and the plan has g-sas"), "{}", run.stdout);
    run.fails(1);
    // Such a device is not sent away.
    let run = lab.run(&["migrate", "move", "plan.json", "--device", id, "--yes"]);
    assert!(run.stderr.contains("the instance has no enrollment group g-sas"), "{}", run.stderr);
    run.fails(1);
}

#[test]
fn the_record_of_a_rehearsal_that_was_killed_is_not_an_arrival_and_the_next_one_removes_it() {
    let lab = Lab::start();
    let (old, new) = (lab.service.text("/idScope"), lab.service.text("/dps/idScope"));
    lab.fill_application();
    let (id, credential) = DEVICES[3];
    lab.register(id, credential, old).ok();
    lab.run(&["migrate", "plan", "--ca-dir", ".", "--out", "plan.json"]).ok();
    lab.run(&["migrate", "apply", "plan.json"]).ok();
    let marker = lab.directory.path().join("plan.json.rehearsal-s-group");
    let rehearse = [&["migrate", "rehearse", "plan.json", "--device", id], credential].concat();

    lab.run(&rehearse).ok();
    assert!(!marker.exists());
    // What a kill between the registration and its removal leaves.
    lab.register(id, credential, new).ok();
    let now = iot_enroll::certificate::Timestamp::now();
    let write = |text: &str| {
        fs::write(&marker, text).expect("written");
        fs::set_permissions(&marker, fs::Permissions::from_mode(0o600)).expect("set");
    };
    write(&format!("\n{now}\n\n2026-0"));
    let shown = lab.run(&["migrate", "status", "plan.json"]);
    let text = shown.stdout.clone();
    assert!(text.contains("0 of 3 devices have arrived") && text.contains("rehearsal that was interrupted"), "{text}");
    let rehearsal = lab.run(&rehearse).ok();
    assert!(rehearsal.contains("registration  removed"), "{rehearsal}");
    assert!(!marker.exists());
    lab.run(&["dps", "registration", "show", id]).fails(1);

    // The device itself registered long after the rehearsal, or the rehearsal was killed before it registered.
    lab.register(id, credential, new).ok();
    for text in ["\n2020-01-01T00:00:00Z\n", "", "\n2020-01"] {
        write(text);
        let shown = lab.run(&["migrate", "status", "plan.json"]);
        assert!(shown.stdout.contains("1 of 3 devices have arrived"), "{}", shown.stdout);
        assert!(lab.run(&rehearse).ok().contains("registration  kept"));
        assert!(!marker.exists());
    }
}

#[test]
fn an_arrival_that_differs_from_the_plan_has_a_reason() {
    let lab = Lab::start();
    let (old, new) = (lab.service.text("/idScope"), lab.service.text("/dps/idScope"));
    lab.fill_application();
    let (id, credential) = DEVICES[3];
    lab.register(id, credential, old).ok();
    lab.run(&["migrate", "plan", "--ca-dir", ".", "--out", "plan.json"]).ok();
    lab.run(&["migrate", "apply", "plan.json"]).ok();
    let reason = || {
        let (_, shown) = lab.status();
        let devices = shown["devices"].as_array().expect("devices").clone();
        let device = devices.into_iter().find(|it| it["id"] == id).expect("the device");
        assert_eq!(device["state"], "arrived", "{device}");
        let csv = lab.run(&["migrate", "status", "plan.json", "--format", "csv"]).stdout;
        let reason = device["reason"].as_str().unwrap_or_default().to_owned();
        assert!(csv.contains(&reason), "{csv}");
        reason
    };
    lab.register(id, credential, new).ok();
    assert_eq!(reason(), "");
    lab.run(&["dps", "enrollment-group", "delete", "g-sas", "--yes"]).ok();
    lab.run(&["dps", "registration", "delete", id, "--yes"]);
    lab.run(&["dps", "enrollment-group", "create", "other", "--symmetric-key", "--keys-file", "group.keys"]).ok();
    lab.register(id, credential, new).ok();
    assert_eq!(reason(), "the plan has enrollment group g-sas");
    // A device that writes its ID in another case.
    lab.run(&["dps", "registration", "delete", id, "--yes"]).ok();
    lab.register("S-Group", credential, new).ok();
    assert_eq!(reason(), "its ID at the hub is S-Group; the plan has enrollment group g-sas");
    lab.run(&["dps", "enrollment-group", "update", "other", "--enabled", "false"]).ok();
    assert!(reason().ends_with("its enrollment group is disabled at the instance, so that it cannot register again"));
}

#[test]
fn an_x509_group_that_is_not_ready_blocks_no_device_of_a_group_that_is_named() {
    let lab = Lab::start();
    let old = lab.service.text("/idScope");
    lab.fill_application();
    let (id, credential) = DEVICES[1];
    lab.register(id, credential, old).ok();
    lab.run(&["migrate", "plan", "--ca-dir", ".", "--out", "plan.json"]).ok();
    lab.run(&["migrate", "apply", "plan.json"]).ok();
    lab.run(&["dps", "enrollment-group", "delete", "g-root", "--yes"]).ok();
    let send = ["migrate", "move", "plan.json", "--device", id, "--dry-run"];
    let run = lab.run(&send);
    let (reason, way_on) = ("no enrollment group g-root", "unless its group is named");
    assert!(run.stderr.contains(reason) && run.stderr.contains(way_on), "{}", run.stderr);
    run.fails(1);
    lab.run(&[&send[..], &["--x509-group", "g-root"]].concat()).fails(1);
    assert!(lab.run(&[&send[..], &["--x509-group", "G-INT"]].concat()).ok().contains("1 to send"));
    let error = lab.run(&[&send[..], &["--x509-group", "g-sas"]].concat()).fails(1);
    assert!(error.contains("the plan moves no X.509 group g-sas"), "{error}");
    // The group of symmetric keys moves too, and is another one than the plan presumes.
    let differs = lab.run(&["migrate", "rehearse", "plan.json", "--device", id, "--group-key-file", "group1.key"]);
    let difference =
        "the enrollment group g-sas of symmetric keys admitted it, and the plan has it presumably in an X.509 group";
    assert!(differs.stdout.contains(difference), "{}{}", differs.stdout, differs.stderr);
    differs.fails(1);
}

#[test]
fn status_tells_what_it_cannot_determine() {
    let lab = Lab::start();
    lab.run(&["migrate", "status", "missing.json"]).fails(3);
    lab.run(&["migrate", "plan", "--out", "plan.json"]).ok();
    let error = lab.run(&["migrate", "status", "plan.json"]).fails(3);
    assert!(error.contains("no devices"), "{error}");
    lab.run(&["migrate", "status", "plan.json", "--format", "csv", "-o", "json"]).fails(2);
    lab.run(&["migrate", "status"]).fails(2);
    lab.run(&["device", "create", "late"]).ok();
    let run = lab.run(&["migrate", "status", "plan.json"]);
    assert!(run.stdout.contains("1 not in the plan"), "{}", run.stdout);
    run.fails(1);
    // The service refuses the sign-in.
    let mut command = lab.service.dps_command(lab.directory.path(), &["migrate", "status", "plan.json"]);
    command.env("IOT_ENROLL_TOKEN", format!("{}x", lab.service.token));
    Run::of(command.args(["--tls-ca", lab.service.text("/caFile")])).fails(3);
}
