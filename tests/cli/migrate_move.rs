//! `migrate move`, through the program: it asks first, and a run that is killed sends nothing twice.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Run, program,
    service::{assert_without, directory},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::emulator::{Emulator, Fault, FaultKind};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const MOVE: [&str; 3] = ["migrate", "move", "plan.json"];

/// An emulator in this process, an application with devices that have connected, and a plan that was carried out.
struct Lab {
    emulator: Emulator,
    directory: TempDir,
    _runtime: Runtime,
}

impl Lab {
    fn start(count: usize) -> Self {
        let runtime = Runtime::new().expect("threads");
        let builder = Emulator::builder().assign_after(0).registration_retry_after(Duration::ZERO);
        let emulator = runtime.block_on(builder.start()).expect("a free loopback port");
        let lab = Self { emulator, directory: directory(), _runtime: runtime };
        let key = BASE64_STANDARD.encode([7; 32]);
        lab.write("group.keys", &format!("{key}\n{}\n", BASE64_STANDARD.encode([8; 32])));
        lab.write("group.key", &key);
        lab.write("devices.csv", &format!("IOTC_DEVICEID\n{}\n", ids(count).join("\n")));
        let keys = ["--attestation", "symmetric-key", "--keys-file", "group.keys"];
        lab.run(&[&["enrollment-group", "create", "g"], &keys[..]].concat()).ok();
        let place = ["--id-scope", lab.emulator.id_scope(), "--dps-endpoint", &lab.emulator.endpoint()];
        let register = ["device", "register", "--manifest", "devices.csv", "--group-key-file", "group.key"];
        lab.run(&[&register[..], &place].concat()).ok();
        lab.run(&["migrate", "plan", "--dps", lab.emulator.dps_name(), "--out", "plan.json"]).ok();
        lab.run(&["migrate", "apply", "plan.json"]).ok();
        lab
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(self.path());
        command.args(arguments).args(["--rate", "1000000"]);
        command.env("IOT_ENROLL_ENDPOINT", self.emulator.endpoint()).env("IOT_ENROLL_TOKEN", self.emulator.token());
        command.env("IOT_ENROLL_ARM_ENDPOINT", self.emulator.endpoint());
        command.env("IOT_ENROLL_ARM_TOKEN", self.emulator.arm_token());
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let run = Run::of(&mut self.command(arguments));
        assert_without(&run, self.emulator.token());
        run
    }

    /// Sends all devices, with further arguments.
    fn send(&self, count: usize, arguments: &[&str]) -> Command {
        let mut command = self.command(&MOVE);
        for id in ids(count) {
            command.args(["--device", &id]);
        }
        command.args(arguments);
        command
    }

    fn results(&self) -> String {
        fs::read_to_string(self.path().join("plan.moves.csv")).unwrap_or_default()
    }

    /// The last outcome of each device.
    fn outcomes(&self) -> BTreeMap<String, String> {
        let text = self.results();
        let rows = text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
        rows.filter(|row| row.len() >= 7).map(|row| (row[0].to_owned(), row[1].to_owned())).collect()
    }

    /// The number of commands that each device received.
    fn received(&self) -> BTreeMap<String, usize> {
        let mut received = BTreeMap::new();
        for request in self.emulator.requests() {
            if request.method == "POST" && request.status == Some(201) && request.path.contains("/commands/") {
                *received.entry(request.path.split('/').nth(3).expect("an ID").to_owned()).or_default() += 1;
            }
        }
        received
    }
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("d{number:03}")).collect()
}

/// Waits until the results have so many lines more, or the process has ended.
fn wait_for_rows(lab: &Lab, child: &mut Child, rows: usize) {
    let (before, started) = (lab.results().lines().count(), Instant::now());
    while lab.results().lines().count() < before + rows && child.try_wait().expect("a state").is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "it hangs");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_run_that_is_killed_at_any_point_sends_nothing_twice() {
    const COUNT: usize = 60;
    let lab = Lab::start(COUNT);
    let slow =
        Fault::new(FaultKind::Delay(Duration::from_millis(4))).method("POST").path_contains("/commands/").always();
    lab.emulator.inject(slow).expect("a fault");
    for rows in [0, 1, 2, 7, 20, 23, 31] {
        let mut command = lab.send(COUNT, &["--yes", "-q"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
        wait_for_rows(&lab, &mut child, rows);
        child.kill().expect("killed");
        child.wait().expect("its end");
        let received = lab.received();
        assert!(received.values().all(|count| *count == 1), "{received:?}");
    }
    let run = Run::of(&mut lab.send(COUNT, &["--yes", "-o", "json"]));
    let report: Value = serde_json::from_str(&run.stdout).expect("one JSON document");
    assert_eq!(run.status, i32::from(report["unknown"] != 0), "{report}");
    let (received, outcomes) = (lab.received(), lab.outcomes());
    assert_eq!(outcomes.len(), COUNT);
    for (id, outcome) in &outcomes {
        let count = received.get(id).copied().unwrap_or_default();
        match outcome.as_str() {
            "sent" => assert_eq!(count, 1, "{id}"),
            "unknown" => assert!(count <= 1, "{id}"),
            other => panic!("{id}: {other}"),
        }
    }
    // Asked for, and only the devices of which it is not known.
    Run::of(&mut lab.send(COUNT, &["--yes", "--resend"])).ok();
    let after = lab.received();
    for (id, outcome) in outcomes {
        let resent = after[&id] - received.get(&id).copied().unwrap_or_default();
        assert_eq!(resent, usize::from(outcome == "unknown"), "{id}");
    }
    assert!(lab.outcomes().values().all(|outcome| outcome == "sent"));
}

#[test]
fn it_asks_first_and_a_dry_run_does_not() {
    let lab = Lab::start(2);
    let error = Run::of(&mut lab.send(2, &[])).fails(2);
    let question = "send migration.DeviceMove with the ID scope ";
    assert!(error.contains(question) && error.contains("to 2 devices of http://127.0.0.1"), "{error}");
    let planned = Run::of(&mut lab.send(2, &["--dry-run"])).ok();
    assert!(planned.contains("2 to send") && planned.contains("This was a dry run"), "{planned}");
    assert!(lab.received().is_empty());
    let sent = Run::of(&mut lab.send(2, &["--yes"])).ok();
    assert!(sent.contains("2 sent") && sent.contains("plan.moves.csv"), "{sent}");
    // Nothing is left to ask about.
    let again = Run::of(&mut lab.send(2, &[])).ok();
    assert!(again.contains("2 sent before"), "{again}");
}

#[test]
fn the_services_have_to_be_those_of_the_plan() {
    let lab = Lab::start(1);
    for named in [["--endpoint", "http://127.0.0.1:1"], ["--dps", "other"]] {
        let run = Run::of(&mut lab.send(1, &[&["--yes"], &named[..]].concat()));
        assert_ne!(run.status, 0, "{named:?}");
    }
    Run::of(&mut lab.command(&MOVE)).fails(2);
    for command in ["", "a.", "a.b.c", "a b"] {
        Run::of(&mut lab.send(1, &["--yes", "--command", command])).fails(2);
    }
    Run::of(&mut lab.send(1, &["--yes", "--device-group", "g"])).fails(2);
    Run::of(&mut lab.send(1, &["--yes", "--resend=some"])).fails(2);
    assert!(lab.received().is_empty());
}
