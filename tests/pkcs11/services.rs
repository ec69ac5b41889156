//! Workflows at the services prove possession of a key in a token, and sign with it.

use crate::{
    lab::{Lab, run, uri},
    support::{Run, service::Service},
};
use serde_json::Value;

struct Labs {
    lab: Lab,
    service: Service,
}

impl Labs {
    fn start() -> Option<Self> {
        Some(Self { lab: Lab::start()?, service: Service::with(&["--rate", "1000000", "--retry-after", "0"]) })
    }

    fn run(&self, arguments: &[&str]) -> Run {
        run(&mut self.lab.prepare(self.service.command(self.lab.path(), arguments), &[]))
    }

    /// Runs a command that speaks to the DPS instance, and to the application where the plan does not name it.
    fn migrate(&self, arguments: &[&str]) -> Run {
        let mut command = self.lab.prepare(self.service.dps_command(self.lab.path(), arguments), &[]);
        command.env("IOT_ENROLL_TOKEN", &self.service.token);
        if arguments[0] == "migrate" && arguments[1] == "plan" {
            command.env("IOT_ENROLL_ENDPOINT", &self.service.endpoint);
        } else if arguments[0] == "migrate" {
            command.env_remove("IOT_ENROLL_DPS");
        }
        run(&mut command)
    }
}

#[test]
fn provision_and_rollover_use_a_key_in_a_token() {
    let Some(labs) = Labs::start() else { return };
    let lab = &labs.lab;
    for (name, label) in [("old", "old"), ("new", "new")] {
        lab.run(&["cert", "root", name, "--ca-key", &uri(label)]).ok();
    }
    let (old, new) = (uri("old"), uri("new"));
    let provision = ["provision", "--group", "g", "--ca-cert", "old_cert.pem", "--ca-key", &old, "--device", "d1"];
    let planned: Value = labs.run(&[&provision[..], &["--dry-run", "-o", "json"]].concat()).json();
    assert_eq!(planned["verified"], false);
    assert!(!lab.exists("d1_cert.pem"));
    let report = labs.run(&[&provision[..], &["-o", "json"]].concat()).json();
    assert_eq!(report["verified"], true);
    let again = labs.run(&[&provision[..], &["-o", "json"]].concat()).json();
    assert!(again["steps"].as_array().expect("steps").iter().all(|step| step["outcome"] == "unchanged"), "{again}");

    let roll = ["rollover", "--group", "g", "--ca-cert", "new_cert.pem", "--ca-key", &new, "--device", "d1"];
    let text = labs.run(&roll).ok();
    // The command for what comes next names the key, in quotes.
    assert!(text.contains(&format!("--ca-key '{new}'")), "{text}");
    let retired = labs.run(&[&roll[..], &["--retire", "--yes"]].concat()).ok();
    assert!(retired.contains(&format!("--ca-key '{new}'")), "{retired}");
    lab.run(&["cert", "verify", "rollover/d1_fullchain.pem", "--ca-cert", "new_cert.pem"]).ok();
    assert!(!lab.exists("old_key.pem") && !lab.exists("new_key.pem"));
}

#[test]
fn a_ca_key_that_would_not_be_used_is_refused() {
    let Some(labs) = Labs::start() else { return };
    let lab = &labs.lab;
    lab.create_root();
    lab.run(&["cert", "root", "file-root", "--no-pfx"]).ok();
    let before = lab.files();
    for key in [&*uri("root"), "fileRoot_key.pem"] {
        for arguments in [
            &["provision", "--emulator", "--root", "lab-root"][..],
            &["provision", "--emulator", "--root", "fresh"],
            &["provision", "--emulator"],
            &["provision", "--group", "g", "--root", "fresh", "--device", "d1"],
            &["rollover", "--group", "g", "--root", "fresh", "--device", "d1"],
            &["rollover", "--group", "g", "--root", "lab-root", "--device", "d1", "--retire", "--yes"],
            &["cert", "renew", "labRoot_cert.pem", "--dir", "."],
            &["cert", "device", "d1"],
            &["cert", "device", "d1", "--pair"],
        ] {
            labs.run(&[arguments, &["--ca-key", key]].concat()).fails(2);
        }
    }
    labs.run(&["cert", "device", "d1", "--pair", "--replace-subject"]).fails(2);
    labs.run(&["cert", "intermediate", "i", "file-root", "--csr", "i.csr", "--existing-key"]).fails(2);
    assert_eq!(lab.files(), before);
}

#[test]
fn a_token_that_fails_ends_a_workflow_with_its_reason() {
    let Some(labs) = Labs::start() else { return };
    let lab = &labs.lab;
    lab.run(&["cert", "root", "r", "--ca-key", &uri("r")]).ok();
    let arguments = ["provision", "--emulator", "--ca-cert", "r_cert.pem", "--ca-key", &uri("r"), "--count", "200"];
    let Some(mut command) = lab.faulty("removed:20", &arguments) else { return };
    let error = run(&mut command).fails(1);
    assert!(error.contains("CKR_DEVICE_REMOVED"), "{error}");
}

#[test]
fn migrate_apply_proves_possession_with_a_key_in_a_token() {
    let Some(labs) = Labs::start() else { return };
    let lab = &labs.lab;
    let key = uri("r");
    lab.run(&["cert", "root", "r", "--ca-key", &key]).ok();
    lab.run(&["cert", "root", "other", "--ca-key", &uri("other")]).ok();
    let provision = [
        "provision",
        "--group",
        "g",
        "--ca-cert",
        "r_cert.pem",
        "--ca-key",
        &key,
        "--device",
        "d1",
        "--create-devices",
    ];
    labs.run(&provision).ok();
    let planned = labs.migrate(&["migrate", "plan", "--ca-dir", ".", "--out", "plan.json"]).ok();
    assert!(planned.contains("--ca-key for a key in a token"), "{planned}");
    let apply = ["migrate", "apply", "plan.json"];
    assert!(labs.migrate(&apply).fails(1).contains("is not at hand"));
    let other = labs.migrate(&[&apply[..], &["--ca-key", &uri("other")]].concat()).fails(1);
    assert!(other.contains("belongs to none of the CA certificates of the plan"), "{other}");
    labs.migrate(&[&apply[..], &["--ca-key", "r_key.pem"]].concat()).fails(2);
    labs.migrate(&[&apply[..], &["--ca-key", &key]].concat()).ok();
    let certificates = labs.migrate(&["dps", "certificate", "list", "-o", "json"]).json();
    assert_eq!(certificates[0]["properties"]["isVerified"], true, "{certificates}");
}
