//! `migrate plan` and `migrate apply`, through the program.

use std::{
    fmt::Write,
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::support::{
    Run, program,
    service::{Service, assert_without, directory},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An application with an X.509 group, a symmetric-key group and devices, and the instance in the same emulator.
struct Lab {
    service: Service,
    directory: TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { service: Service::start(), directory: directory() };
        lab.central(&["provision", "--group", "plant-7", "--root", "plantroot", "--no-pfx", "--dir", "cas"]);
        lab.central(&["enrollment-group", "create", "meters", "--attestation", "symmetric-key"]);
        lab.central(&["device", "create", "meter-1"]);
        lab.central(&["device", "attestation", "set", "meter-1", "--symmetric-key"]);
        lab.central(&["device", "create", "simulated-1", "--simulated"]);
        lab
    }

    /// Runs a command at the application, which has to succeed.
    fn central(&self, arguments: &[&str]) -> String {
        self.service.run(self.directory.path(), arguments).ok()
    }

    /// A command with the sign-in at both services, by the environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.service.dps_command(self.directory.path(), arguments);
        command.env("IOT_ENROLL_ENDPOINT", &self.service.endpoint).env("IOT_ENROLL_TOKEN", &self.service.token);
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let run = Run::of(&mut self.command(arguments));
        assert_without(&run, &self.service.token);
        run
    }

    fn plan(&self, arguments: &[&str]) -> Run {
        self.run(&[&["migrate", "plan", "--ca-dir", "cas", "--out", "plan.json"], arguments].concat())
    }

    fn apply(&self, arguments: &[&str]) -> Run {
        self.run(&[&["migrate", "apply", "plan.json"], arguments].concat())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).expect("a file")
    }

    fn keys(&self) -> Vec<String> {
        let shown = self.central(&["device", "credentials", "meter-1", "--show-keys", "-o", "json"]);
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        let key = |name| shown["symmetricKey"][name].as_str().expect("a key").to_owned();
        vec![key("primaryKey"), key("secondaryKey")]
    }
}

#[test]
fn plan_is_printed_for_people_with_the_command_that_comes_next() {
    let lab = Lab::new();
    let text = lab.plan(&[]).ok();
    for part in [
        "upload as plantroot-",
        "meters   symmetricKey  0          create",
        "plant-7  x509          not known  create",
        "2 devices",
        "1 with an individual enrollment",
        "simulated by the application: there is no device to move: simulated-1",
        "iot-enroll migrate apply plan.json --rate 1000000 --dry-run",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let mode = fs::metadata(lab.directory.path().join("plan.json")).expect("the plan").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = lab.apply(&["--dry-run"]).ok();
    assert!(text.contains("would create meters") && text.contains("dry run"), "{text}");
    assert!(!lab.directory.path().join("plan.results.csv").exists());
}

#[test]
fn plan_and_its_outcome_are_one_document_each() {
    let lab = Lab::new();
    let report = lab.plan(&["-o", "json"]).json();
    assert_eq!(
        report["counts"],
        json!({
            "total": 2, "covered": 0, "presumed": 0, "enroll": 1, "disabled": 0, "present": 0, "notMoved": 1
        })
    );
    assert_eq!(report["deviceObstacles"][0]["reason"], "simulated");
    let plan: Value = serde_json::from_str(&lab.read("plan.json")).expect("one document");
    assert_eq!(plan["version"], 1);
    assert_eq!(plan["devices"].as_array().expect("devices").len(), 2);
    assert_eq!(plan["groups"], report["groups"]);
    let applied = lab.apply(&["-o", "json"]).json();
    let count = |name: &str| applied[name].as_u64().expect("a number");
    assert_eq!((count("created"), count("present"), count("failed"), count("remaining")), (3, 0, 0, 0));
    let again = lab.apply(&["-o", "json"]).json();
    assert_eq!((&again["created"], &again["present"], &again["failed"]), (&json!(0), &json!(3), &json!(0)));
}

#[test]
fn keys_are_neither_printed_nor_written() {
    let lab = Lab::new();
    let keys = lab.keys();
    let mut printed = Vec::new();
    for run in [lab.plan(&["-v"]), lab.apply(&["-vv"])] {
        printed.extend([run.stdout, run.stderr]);
    }
    printed.extend([lab.read("plan.json"), lab.read("plan.results.csv")]);
    for key in &keys {
        assert!(!printed.iter().any(|text| text.contains(key.as_str())));
    }
}

#[test]
fn plan_with_keys_needs_no_application() {
    let lab = Lab::new();
    lab.plan(&["--include-keys", "-q"]).ok();
    assert!(lab.keys().iter().all(|key| lab.read("plan.json").contains(key.as_str())));
    let mut command = lab.command(&["migrate", "apply", "plan.json", "--keys-from-plan", "-o", "json"]);
    command.env_remove("IOT_ENROLL_ENDPOINT").env_remove("IOT_ENROLL_TOKEN");
    assert_eq!(Run::of(&mut command).json()["created"], 3);
    // Keys that somebody put in place of the others.
    let plan = lab.read("plan.json");
    let other = plan.replace(&lab.keys()[0], &lab.keys()[1]);
    assert_ne!(other, plan);
    fs::write(lab.directory.path().join("plan.json"), other).expect("written");
    let text = Run::of(&mut command).fails(1);
    assert!(text.contains("the keys of meter-1 do not have the fingerprint"), "{text}");
    // Others must not read it.
    let path = lab.directory.path().join("plan.json");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
    let text = lab.apply(&[]).fails(1);
    assert!(text.contains("plan.json") && text.contains("chmod 600"), "{text}");
}

#[test]
fn each_wrong_usage_has_its_own_message() {
    let lab = Lab::new();
    lab.plan(&["-q"]).ok();
    let text = lab.plan(&[]).fails(1);
    assert!(text.contains("plan.json exists already") && text.contains("hint: --out"), "{text}");
    let text = lab.apply(&["--keys-from-plan"]).fails(2);
    assert!(text.contains("the plan includes no keys"), "{text}");
    let other = lab.apply(&["--endpoint", "https://fabrikam.azureiotcentral.com"]).fails(2);
    assert!(
        other.contains("the plan is for the application")
            && other.contains("hint: omit")
            && other.contains("IOT_ENROLL_ENDPOINT"),
        "{other}"
    );
    let scope = "0neFFFFFFFF";
    let plan = lab.read("plan.json");
    let mut changed: Value = serde_json::from_str(&plan).expect("JSON");
    changed["application"]["idScope"] = scope.into();
    fs::write(lab.directory.path().join("plan.json"), changed.to_string()).expect("written");
    let text = lab.apply(&["--dry-run"]).fails(2);
    assert!(text.contains("the plan is for the application with the ID scope 0neFFFFFFFF, not"), "{text}");
    fs::write(lab.directory.path().join("plan.json"), plan).expect("written");
    let text = lab.run(&["migrate", "apply", "missing.json"]).fails(1);
    assert!(text.contains("could not read missing.json"), "{text}");
    fs::write(lab.directory.path().join("other.json"), "{\"devices\": []}").expect("written");
    let text = lab.run(&["migrate", "apply", "other.json"]).fails(1);
    assert!(text.contains("other.json is not a plan of a migration"), "{text}");
    let text = lab.plan(&["--results", "x"]).fails(2);
    assert!(text.contains("--results"), "{text}");
    Run::of(program(lab.directory.path()).args(["migrate", "plan", "--out", "x.json"])).fails(2);
    Run::of(program(lab.directory.path()).args(["migrate", "apply", "plan.json"])).fails(2);
}

#[test]
fn plan_names_the_services() {
    let lab = Lab::new();
    lab.plan(&["-q"]).ok();
    let mut command = lab.command(&["migrate", "apply", "plan.json", "-o", "json"]);
    command.env_remove("IOT_ENROLL_ENDPOINT").env_remove("IOT_ENROLL_DPS");
    assert_eq!(Run::of(&mut command).json()["created"], 3);
}

#[test]
fn what_failed_is_reported_and_the_exit_status_tells() {
    let lab = Lab::new();
    lab.plan(&["-q"]).ok();
    lab.central(&["device", "update", "meter-1", "--enabled", "false"]);
    let run = lab.apply(&[]);
    assert!(run.stdout.contains("2 created, 1 failed"), "{}", run.stdout);
    let text = run.fails(1);
    assert!(text.contains("meter-1: it was enabled when the plan was made, and is disabled"), "{text}");
    let rows = lab.read("plan.results.csv");
    assert!(rows.starts_with("kind,id,outcome,message,plan\n"), "{rows}");
    assert!(rows.contains("group,meters,created,") && rows.contains("device,meter-1,failed,"), "{rows}");
}

#[test]
fn killed_plan_is_resumed_by_the_same_command() {
    let lab = Lab::new();
    let mut rows = "IOTC_DEVICEID,IOTC_DEVICENAME\n".to_owned();
    for number in 0..300 {
        let _ = writeln!(rows, "sensor-{number},s");
    }
    fs::write(lab.directory.path().join("devices.csv"), rows).expect("written");
    lab.central(&["device", "import", "--file", "devices.csv"]);
    let partial = lab.directory.path().join("plan.json.partial");
    // Slow enough to be killed before its end: the last --rate counts.
    let mut command = lab.service.dps_command(lab.directory.path(), &[]);
    command = {
        let mut slow = program(lab.directory.path());
        slow.args(["migrate", "plan", "--ca-dir", "cas", "--out", "plan.json", "--rate", "100"]);
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                slow.env(name, value);
            }
        }
        slow.env("IOT_ENROLL_ENDPOINT", &lab.service.endpoint).env("IOT_ENROLL_TOKEN", &lab.service.token);
        slow
    };
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    let lines = || fs::read_to_string(&partial).map_or(0, |text| text.lines().count());
    while lines() < 20 {
        assert!(child.try_wait().expect("a child").is_none(), "it ended too early");
        thread::sleep(Duration::from_millis(5));
    }
    // Another run of the same plan is refused meanwhile.
    let text = lab.plan(&[]).fails(1);
    assert!(text.contains("another run makes plan.json"), "{text}");
    child.kill().expect("killed");
    child.wait().expect("its end");
    let known = lines();
    assert!(!lab.directory.path().join("plan.json").exists());
    let run = lab.plan(&[]);
    assert!(run.stderr.contains("devices are known from an interrupted run"), "{}", run.stderr);
    run.ok();
    assert!(!partial.exists() && known > 0);
    let plan: Value = serde_json::from_str(&lab.read("plan.json")).expect("one document");
    assert_eq!(plan["counts"]["total"], 302);
}
