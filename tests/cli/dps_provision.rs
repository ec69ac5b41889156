//! `provision`, `rollover` and `device register` for an instance of the Device Provisioning Service.

use std::fs;

use crate::support::{
    Run, program,
    service::{Service, directory, keys},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROVISION: [&str; 6] = ["provision", "--group", "g", "--root", "old", "--no-pfx"];

/// An instance over TLS, and a directory with the files of the commands.
struct Lab {
    service: Service,
    directory: TempDir,
}

impl Lab {
    fn new() -> Self {
        Self { service: Service::with(&["--tls", "--rate", "1000000", "--retry-after", "0"]), directory: directory() }
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let arguments = [arguments, &["--tls-ca", self.service.text("/caFile")]].concat();
        Run::of(&mut self.service.dps_command(self.directory.path(), &arguments))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["-o", "json"]].concat()).json()
    }

    fn references(&self) -> Value {
        self.json(&["dps", "enrollment-group", "show", "g"])["attestation"]["x509"]["caReferences"].clone()
    }

    /// Runs the command that another one printed, in a shell with the same environment.
    fn run_printed(&self, command: &str) -> Run {
        let bin = self.directory.path().join("bin");
        if !bin.exists() {
            fs::create_dir(&bin).expect("a directory");
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_iot-enroll"), bin.join("iot-enroll")).expect("a link");
        }
        let template = self.service.dps_command(self.directory.path(), &[]);
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", command]).current_dir(self.directory.path());
        shell.envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let path = std::env::var("PATH").expect("a PATH");
        Run::of(shell.env("PATH", format!("{}:{path}", bin.display())))
    }
}

#[test]
fn a_new_device_is_assigned_by_an_emulated_instance() {
    let directory = directory();
    let report = Run::of(program(directory.path()).args([
        "provision",
        "--emulator",
        "dps",
        "--register",
        "--no-pfx",
        "-o",
        "json",
    ]))
    .json();
    assert_eq!((&report["group"], &report["verified"]), (&json!("myx509eg"), &json!(true)));
    assert_eq!(report["devices"][0]["assignedHub"], "emulated-hub.azure-devices.net");
    for name in ["--dps=x", "--arm-endpoint=https://x", "--connection-string-file=x"] {
        Run::of(program(directory.path()).args(["provision", "--emulator", "dps", name])).fails(2);
    }
    Run::of(program(directory.path()).args(["provision", "--emulator", "hub"])).fails(2);
}

#[test]
fn provisioning_is_idempotent_and_registers_at_the_instance() {
    let lab = Lab::new();
    let arguments = [&PROVISION[..], &["--device", "sensor-1", "--register", "--certificate-name", "root-1"]].concat();
    assert!(lab.run(&[&arguments[..], &["--dry-run"]].concat()).ok().contains("dry run"));
    assert_eq!(lab.json(&["dps", "certificate", "list"]), json!([]));
    let first = lab.json(&arguments);
    assert_eq!(first["certificateName"], "root-1");
    assert_eq!(first["devices"][0]["assignedHub"], "emulated-hub.azure-devices.net");
    assert_eq!(lab.references(), json!({ "primary": "root-1" }));
    // It is registered in the instance, not in the application.
    assert_eq!(lab.json(&["dps", "registration", "show", "sensor-1"])["status"], "assigned");

    let again = lab.json(&arguments);
    let outcomes: Vec<_> = again["steps"].as_array().expect("steps").iter().map(|step| &step["outcome"]).collect();
    let changed = outcomes.iter().filter(|outcome| **outcome != "unchanged").count();
    assert!(changed <= 1, "only the registration is repeated: {again}");
}

#[test]
fn individual_enrollments_are_created_with_the_devices_certificates() {
    let lab = Lab::new();
    lab.json(&[&PROVISION[..], &["--device", "sensor-1", "--create-devices", "--register"]].concat());
    let enrollment = lab.json(&["dps", "enrollment", "show", "sensor-1"]);
    assert!(enrollment["attestation"]["x509"]["clientCertificates"]["primary"]["info"].is_object(), "{enrollment}");
    assert_eq!(enrollment["registrationState"]["status"], "assigned");
}

#[test]
fn a_group_with_two_cas_takes_no_third_and_the_hint_removes_one() {
    let lab = Lab::new();
    lab.run(&PROVISION).ok();
    let roll = |root| lab.run(&["rollover", "--group", "g", "--root", root, "--no-pfx"]);
    roll("new").ok();
    let text = roll("third").fails(1);
    assert!(text.contains("both entries of g") && text.contains("rollover --group g --root NAME --retire"), "{text}");
    lab.run(&["rollover", "--group", "g", "--root", "new", "--retire", "--yes"]).ok();
    roll("third").ok();
}

#[test]
fn nothing_connects_through_a_disabled_group() {
    let lab = Lab::new();
    let arguments = [&PROVISION[..], &["-q", "--device", "sensor-1"]].concat();
    let text = lab.run(&arguments).ok();
    assert!(text.contains("sensor-1 connects with"), "{text}");
    lab.run(&["dps", "enrollment-group", "update", "g", "--enabled", "false"]).ok();
    let roll = ["rollover", "--group", "g", "--root", "new", "--device", "sensor-1", "--no-pfx"];
    for arguments in [&arguments[..], &roll] {
        let text = lab.run(arguments).ok();
        assert!(!text.contains("connects") && text.contains("the group is disabled"), "{text}");
        assert!(text.contains("sensor1_key.pem"), "{text}");
    }
}

#[test]
fn a_device_with_an_enrollment_for_another_certificate_is_not_said_to_connect() {
    let lab = Lab::new();
    lab.run(&[&PROVISION[..], &["--device", "sensor-1", "--create-devices"]].concat()).ok();
    let run = lab.run(&["rollover", "--group", "g", "--root", "new", "--device", "sensor-1", "--no-pfx"]);
    assert!(!run.stdout.contains("connects") && run.stdout.contains("--retire"), "{}", run.stdout);
    let text = run.fails(1);
    assert!(text.contains("sensor-1") && text.contains("another certificate"), "{text}");
    let arguments = [&PROVISION[..], &["--device", "sensor-2", "--create-devices"]].concat();
    lab.run(&["dps", "enrollment", "create", "sensor-2", "--symmetric-key"]).ok();
    let text = lab.run(&arguments).fails(1);
    assert!(text.contains("symmetricKey") && text.contains("dps enrollment delete sensor-2"), "{text}");
}

#[test]
fn replacing_a_verified_ca_needs_confirmation() {
    let lab = Lab::new();
    lab.run(&PROVISION).ok();
    let before = lab.references();
    let other = ["provision", "--group", "g", "--root", "other", "--no-pfx"];
    assert!(lab.run(&other).fails(1).contains("--add-ca"));
    let replace = [&other[..], &["--entry", "primary", "--replace"]].concat();
    assert!(lab.run(&replace).fails(2).contains("--yes"));
    assert_eq!(lab.references(), before);
    lab.run(&[&replace[..], &["--yes"]].concat()).ok();
    assert_ne!(lab.references(), before);
}

#[test]
fn rollover_prints_the_commands_that_end_it() {
    let lab = Lab::new();
    lab.run(&[&PROVISION[..], &["--device", "sensor-1"]].concat()).ok();
    let instance = ["--dps", lab.service.text("/dps/name")];
    let begin =
        [&["rollover", "--group", "g", "--root", "new", "--device", "sensor-1", "--no-pfx"], &instance[..]].concat();
    let report = lab.json(&begin);
    assert_eq!(keys(&lab.references()), ["primary", "secondary"]);
    let next = report["next"].as_str().expect("the next command");
    assert!(next.contains("--dps emulated-dps") && next.contains("--retire"), "{next}");
    let retired = lab.run_printed(&format!("{next} --yes -o json")).json();
    assert_eq!(lab.references().as_object().expect("an object").len(), 1);
    assert_eq!(
        lab.json(&["dps", "certificate", "list"]).as_array().expect("a list").len(),
        1,
        "the old one is deleted"
    );
    let next = retired["next"].as_str().expect("the next command");
    assert!(next.contains("provision --dps emulated-dps"), "{next}");
    let provisioned = lab.run_printed(&format!("{next} -o json")).json();
    assert_eq!(provisioned["verified"], true);
}

#[test]
fn refused_device_learns_the_cause_from_the_instance() {
    let lab = Lab::new();
    lab.run(&[&PROVISION[..], &["--device", "sensor-1"]].concat()).ok();
    let register = ["device", "register", "sensor-1", "--cert", "sensor1_fullchain.pem", "--key", "sensor1_key.pem"];
    let assigned = lab.json(&register);
    assert_eq!(assigned["assignedHub"], "emulated-hub.azure-devices.net");
    lab.run(&["dps", "enrollment-group", "update", "g", "--enabled", "false"]).ok();
    let error = lab.run(&register).fails(1);
    assert!(error.contains("disabled") && error.contains('g'), "{error}");
    lab.run(&["dps", "enrollment-group", "delete", "g", "--yes"]).ok();
    let error = lab.run(&register).fails(1);
    assert!(error.contains("group"), "{error}");
}

#[test]
fn fleet_is_provisioned_and_registered_at_the_instance() {
    let lab = Lab::new();
    lab.run(&[&PROVISION[..], &["--count", "3"]].concat()).ok();
    let registered = lab.json(&["device", "register", "--manifest", "fleet/manifest.csv"]);
    assert_eq!((&registered["assigned"], &registered["failed"]), (&json!(3), &json!(0)));
    assert_eq!(lab.json(&["dps", "registration", "list", "g"]).as_array().expect("a list").len(), 3);
    let again = lab.json(&[&PROVISION[..], &["--count", "3", "--create-devices"]].concat());
    assert_eq!(again["verified"], true);
    assert_eq!(lab.json(&["dps", "enrollment", "list"]).as_array().expect("a list").len(), 3);
}

#[test]
fn options_of_the_other_service_are_refused() {
    let lab = Lab::new();
    let fails = |arguments: &[&str], part: &str| {
        let error = lab.run(&[&PROVISION[..], arguments].concat()).fails(2);
        assert!(error.contains(part), "{arguments:?}: {error}");
    };
    fails(&["--display-name", "x"], "--display-name");
    fails(&["--template", "x", "--create-devices", "--device", "d"], "--template");
    fails(&["--dps", "emulated-dps", "--app", "contoso"], "--app");
    fails(&["--token-file", "token"], "--arm-token-file");
    fails(&["--endpoint", "http://127.0.0.1:1", "--certificate-name", "x"], "--certificate-name");
    fails(&["--endpoint", "http://127.0.0.1:1", "--resource-group", "x"], "--dps");
    let mut command = lab.service.dps_command(lab.directory.path(), &PROVISION);
    let error = Run::of(command.env("IOT_ENROLL_APP", "contoso")).fails(2);
    assert!(error.contains("--app") && error.contains("--dps"), "{error}");
    let mut command = lab.service.dps_command(lab.directory.path(), &PROVISION);
    let error = Run::of(command.env_remove("IOT_ENROLL_DPS")).fails(2);
    assert!(error.contains("--app") && error.contains("--dps"), "{error}");
    // Each service has its own rule for group IDs.
    let error = lab.run(&["provision", "--group", "a b", "--root", "r"]).fails(2);
    assert!(error.contains("--group"), "{error}");
    lab.run(&["provision", "--group", "a.b", "--root", "r", "--no-pfx"]).ok();
}
