//! `rollover` prints the command to use next, and each of them works as it is printed.

use std::{fs, path::Path, process::Command};

use crate::support::{
    Run, program,
    service::{Service, directory},
};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Lab {
    service: Service,
    directory: TempDir,
}

impl Lab {
    fn start() -> Self {
        Self { service: Service::start(), directory: directory() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.service.run(self.path(), arguments)
    }

    /// Runs a command line in a shell, as a person pastes it.
    fn paste(&self, line: &str) -> Run {
        let programs = Path::new(env!("CARGO_BIN_EXE_iot-enroll")).parent().expect("a directory");
        let path = std::env::var("PATH").unwrap_or_default();
        // What the tests take from the environment is removed as for the program itself.
        let mut command = Command::new("sh");
        command.current_dir(self.path()).args(["-c", line]).stdin(std::process::Stdio::null());
        for (name, _) in program(self.path()).get_envs() {
            command.env_remove(name);
        }
        command.env("PATH", format!("{}:{path}", programs.display())).env("IOT_ENROLL_TOKEN", &self.service.token);
        Run::of(&mut command)
    }

    /// What is printed after a rollover with these arguments, run as it is printed: the command of `--retire`, and what
    /// that prints, the report of provisioning from then on.
    fn follow(&self, arguments: &[&str]) -> (String, String, Value) {
        let group = ["rollover", "--group", "g"];
        let text = self.run(&[&group[..], arguments].concat()).ok();
        let retire = next(&text);
        assert!(retire.starts_with("iot-enroll rollover ") && retire.ends_with(" --retire"), "{retire}");
        let report = self.run(&[&group[..], arguments, &["-o", "json"]].concat()).json();
        assert_eq!(report["next"], retire, "JSON has the same");
        // It asks on a terminal, and there is none here.
        self.paste(&retire).fails(2);
        let text = self.paste(&format!("{retire} --yes")).ok();
        let provision = next(&text);
        let again = self.paste(&format!("{retire} --yes -o json")).json();
        assert_eq!((&again["retired"], &again["next"]), (&json!(true), &json!(provision)));
        assert!(provision.starts_with("iot-enroll provision "), "{provision}");
        let report = self.paste(&format!("{provision} -o json")).json();
        assert_eq!(report["verified"], true);
        let steps = report["steps"].as_array().expect("steps");
        assert!(steps.iter().all(|step| step["outcome"] == "unchanged"), "nothing is left to do: {report}");
        (retire, provision, report)
    }
}

/// The command in a text: the line that is indented.
fn next(text: &str) -> String {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("  iot-enroll "));
    let line = lines.next().unwrap_or_else(|| panic!("no command in: {text}"));
    assert_eq!(lines.next(), None, "{text}");
    format!("iot-enroll {line}")
}

#[test]
fn the_printed_commands_work_with_single_devices() {
    let lab = Lab::start();
    let devices = ["--device", "d1", "--device", "d2"];
    lab.run(&[&["provision", "--group", "g", "--root", "old"], &devices[..]].concat()).ok();
    let (_, provision, report) = lab.follow(&[&["--root", "new"], &devices[..]].concat());
    assert_eq!(report["entry"], "secondary");
    assert_eq!(report["devices"].as_array().expect("devices").len(), 2);
    // A device that is added later gets its certificate beside the others.
    lab.paste(&format!("{provision} --device d3")).ok();
    assert!(lab.path().join("new/d3_key.pem").exists());
    // The old command is refused, and says what to do.
    let error = lab.run(&[&["provision", "--group", "g", "--root", "old"], &devices[..]].concat()).fails(1);
    assert!(error.contains("another verified CA") && error.contains("--add-ca"), "{error}");
    // And on to the next root, from the entry that holds this one.
    let (.., report) = lab.follow(&["--root", "newer", "--device", "d1"]);
    assert_eq!(report["entry"], "primary");
}

#[test]
fn the_printed_commands_work_with_names_and_paths_that_need_quotes() {
    let lab = Lab::start();
    let directory = "it's a $(dir)";
    fs::create_dir(lab.path().join(directory)).expect("created");
    fs::write(lab.path().join("pass word"), "secret\n").expect("written");
    let common = ["--dir", directory, "--pfx-password-file", "pass word", "--days", "30"];
    let many = ["--count", "3", "--prefix", "d_", "--digits", "4", "--pfx", "--device", "single"];
    lab.run(&[&["provision", "--group", "g", "--root", "Old Root"], &common[..], &many].concat()).ok();
    let (_, provision, report) = lab.follow(&[&["--root", "New Root"], &common[..], &many].concat());
    assert_eq!((&report["fleet"]["found"], &report["devices"][0]["id"]), (&json!(3), &json!("single")));
    assert!(!provision.contains("secret"), "{provision}");
    // A directory that starts with a hyphen is not taken as an option.
    let text = lab.run(&["rollover", "--group", "g", "--root", "Third", "--dir=-dir", "--no-pfx"]).ok();
    lab.paste(&format!("{} --yes", next(&text))).ok();
    assert!(lab.path().join("-dir/third_cert.pem").exists());
}

#[test]
fn the_printed_commands_work_with_a_ca_of_ones_own_and_a_list_of_devices() {
    let lab = Lab::start();
    fs::write(lab.path().join("ids.csv"), "deviceId\na\nb\n").expect("written");
    lab.run(&["provision", "--group", "g", "--root", "old", "--devices", "ids.csv", "--no-pfx"]).ok();
    Run::of(program(lab.path()).args(["cert", "root", "Contoso", "--dir", "pki", "--no-pfx"])).ok();
    let own = ["--ca-cert", "pki/contoso_cert.pem", "--ca-key", "pki/contoso_key.pem"];
    let (retire, provision, report) =
        lab.follow(&[&own[..], &["--devices", "ids.csv", "--out", "issued", "--no-pfx"]].concat());
    assert!(retire.contains("--out issued") && provision.contains("--out issued"), "{retire}\n{provision}");
    assert_eq!(report["fleet"]["found"], 2);
}

#[test]
fn the_printed_commands_leave_out_devices_whose_keys_stayed_in_the_old_directory() {
    let lab = Lab::start();
    lab.run(&["provision", "--group", "g", "--root", "old", "--count", "2", "--device", "d1", "--no-pfx"]).ok();
    let kept = ["--root", "new", "--device", "d1", "--devices", "fleet/manifest.csv", "--keep-keys", "--no-pfx"];
    let (retire, provision, report) = lab.follow(&kept);
    assert!(retire.contains("--keep-keys --") && !provision.contains("--device"), "{retire}\n{provision}");
    assert_eq!(report["devices"], json!([]));
}

#[test]
fn without_devices_the_root_is_named() {
    let lab = Lab::start();
    lab.run(&["provision", "--group", "g", "--root", "old", "--no-pfx"]).ok();
    let (_, provision, _) = lab.follow(&["--root", "new", "--no-pfx"]);
    assert!(provision.contains(" --root new --dir ."), "{provision}");
}

#[test]
fn a_dry_run_prints_no_command() {
    let lab = Lab::start();
    lab.run(&["provision", "--group", "g", "--root", "old", "--no-pfx"]).ok();
    let rollover = ["rollover", "--group", "g", "--root", "new", "--dry-run", "-o", "json"];
    assert!(lab.run(&rollover).json()["next"].is_null());
}
