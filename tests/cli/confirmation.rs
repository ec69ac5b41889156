//! Commands that delete ask on a terminal, and need `--yes` without one.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::service::{Service, directory};
use serde_json::{Value, json};

/// Runs a command of the program on a pseudo-terminal, types an answer, and returns the status and the screen; nothing
/// where the program `script` of util-linux is not installed.
fn on_a_terminal(service: &Service, directory: &Path, arguments: &str, answer: &str) -> Option<(Option<i32>, String)> {
    let line = format!("{} {arguments} --endpoint {}", env!("CARGO_BIN_EXE_iot-enroll"), service.endpoint);
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(directory);
    command.env("IOT_ENROLL_TOKEN", &service.token);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = child.inspect_err(|error| crate::skipped(format_args!("script cannot be run: {error}"))) else {
        return None;
    };
    child.stdin.take().expect("its input").write_all(answer.as_bytes()).expect("typed");
    let output = child.wait_with_output().expect("its end");
    Some((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// The commands that delete, with what they delete.
fn lab() -> (Service, tempfile::TempDir, Vec<Vec<&'static str>>) {
    let (service, directory) = (Service::start(), directory());
    let run = |arguments: &[&str]| service.run(directory.path(), arguments).ok();
    fs::write(directory.path().join("m.json"), r#"{"modulesContent": {}}"#).expect("written");
    crate::support::Run::of(crate::support::program(directory.path()).args(["cert", "root", "r", "--no-pfx"])).ok();
    run(&["enrollment-group", "create", "g"]);
    run(&["enrollment-group", "certificate", "set", "g", "--file", "r_cert.pem"]);
    run(&["device", "create", "d"]);
    run(&["device", "attestation", "set", "d", "--symmetric-key"]);
    run(&["device-group", "create", "q", "--filter", "SELECT * FROM devices"]);
    run(&["deployment-manifest", "create", "m", "--file", "m.json"]);
    let commands = vec![
        vec!["enrollment-group", "certificate", "delete", "g"],
        vec!["enrollment-group", "delete", "g"],
        vec!["device", "attestation", "delete", "d"],
        vec!["device", "delete", "d"],
        vec!["device-group", "delete", "q"],
        vec!["deployment-manifest", "delete", "m"],
    ];
    (service, directory, commands)
}

#[test]
fn deleting_without_a_terminal_needs_yes() {
    let (service, directory, commands) = lab();
    for command in &commands {
        let error = service.run(directory.path(), command).fails(2);
        assert!(error.contains("--yes") && error.contains("delete"), "{command:?}: {error}");
        let error = service.run(directory.path(), &[command, &["-o", "json"][..]].concat()).fails(2);
        let error: Value = serde_json::from_str(&error).expect("one JSON document");
        assert!(error["error"]["hint"].as_str().expect("a hint").contains("--yes"), "{error}");
    }
    for command in &commands {
        assert_eq!(service.json(directory.path(), &[command, &["--yes"][..]].concat())["deleted"], true, "{command:?}");
    }
}

#[test]
fn deleting_on_a_terminal_asks() {
    let (service, directory, commands) = lab();
    for command in commands {
        let command = command.join(" ");
        // At once, since `script` waits a while after the end of its command.
        std::thread::scope(|scope| {
            for answer in ["\n", "n\n", "no\n", "yes please\n"] {
                let (service, path, command) = (&service, directory.path(), &command);
                scope.spawn(move || {
                    let Some((status, screen)) = on_a_terminal(service, path, command, answer) else { return };
                    assert_eq!(status, Some(1), "{command} {answer:?}: {screen}");
                    assert!(screen.contains("[y/N]") && screen.contains("nothing was changed"), "{screen}");
                });
            }
        });
        let Some((status, screen)) = on_a_terminal(&service, directory.path(), &command, "y\n") else { return };
        assert_eq!(status, Some(0), "{command}: {screen}");
    }
}

#[test]
fn only_replacing_a_verified_certificate_needs_confirmation() {
    let (service, directory) = (Service::start(), directory());
    let cert = |name| {
        crate::support::Run::of(crate::support::program(directory.path()).args(["cert", "root", name, "--no-pfx"]))
            .ok();
    };
    cert("a");
    cert("b");
    service.run(directory.path(), &["enrollment-group", "create", "g"]).ok();
    let set = |file: &str, more: &[&str]| {
        let arguments = ["enrollment-group", "certificate", "set", "g", "--file", file];
        service.run(directory.path(), &[&arguments, more].concat())
    };
    let shown = || service.json(directory.path(), &["enrollment-group", "certificate", "show", "g"]);
    set("a_cert.pem", &[]).ok();
    set("b_cert.pem", &[]).ok();
    set("a_cert.pem", &["--verified"]).ok();
    let before = shown();
    let error = set("b_cert.pem", &[]).fails(2);
    let thumbprint = before["info"]["sha1Thumbprint"].as_str().expect("a thumbprint");
    assert!(error.contains("--yes") && error.contains(thumbprint), "{error}");
    assert!(set("a_cert.pem", &[]).fails(2).contains("--yes"), "it would be verified no longer");
    assert_eq!(shown(), before);
    set("a_cert.pem", &["--verified"]).ok();
    let provision = ["provision", "--group", "g", "--root", "b", "--replace", "--no-pfx"];
    assert!(service.run(directory.path(), &provision).fails(2).contains("--yes"));
    assert_eq!(shown()["info"], before["info"]);
    service.run(directory.path(), &[&provision[..], &["--dry-run"]].concat()).ok();
    service.run(directory.path(), &[&provision[..], &["--yes"]].concat()).ok();
    // The certificate is already in the group, so nothing is replaced.
    service.run(directory.path(), &provision).ok();
    assert_ne!(shown()["info"], before["info"]);
    set("a_cert.pem", &["--yes"]).ok();
    assert_eq!(shown()["verified"], json!(false));
}

#[test]
fn retiring_a_root_needs_confirmation() {
    let (service, directory) = (Service::start(), directory());
    let run = |arguments: &[&str]| service.run(directory.path(), arguments);
    run(&["provision", "--group", "g", "--root", "old", "--no-pfx"]).ok();
    run(&["rollover", "--group", "g", "--root", "new", "--no-pfx"]).ok();
    let retire = ["rollover", "--group", "g", "--root", "new", "--retire"];
    let before = service.json(directory.path(), &["enrollment-group", "show", "g"]);
    assert!(run(&retire).fails(2).contains("--yes"));
    run(&[&retire[..], &["--dry-run"]].concat()).ok();
    assert_eq!(service.json(directory.path(), &["enrollment-group", "show", "g"]), before);
    run(&[&retire[..], &["--yes"]].concat()).ok();
    assert_ne!(service.json(directory.path(), &["enrollment-group", "show", "g"]), before);
}
