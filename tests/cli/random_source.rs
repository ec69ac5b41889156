//! Systems without random numbers: an error, and neither a panic nor an abort.

use std::{path::Path, process::Command};

use crate::support::{Run, temporary_directory};

/// Runs the program on a system where getrandom fails with an error. `None` if that is not possible here.
fn run_with(error: &str, arguments: &[&str]) -> Option<Run> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/without_getrandom.py");
    let mut command = Command::new("python3");
    command.arg(script).args([error, env!("CARGO_BIN_EXE_iot-enroll")]).args(arguments);
    let directory = temporary_directory();
    let run = command.current_dir(directory.path()).output().ok().map(Run::ended);
    let run = run.filter(|run| run.status != 77);
    if run.is_none() {
        crate::skipped("getrandom cannot be made to fail here, which needs Linux with seccomp, and python3");
    }
    run
}

#[test]
fn without_random_numbers_every_command_fails_with_the_reason() {
    for arguments in [&["cert", "root", "r"][..], &["emulator"], &["provision", "--emulator"], &["--version"]] {
        let Some(run) = run_with("EPERM", arguments) else { return };
        assert!(run.stdout.is_empty(), "{}", run.stdout);
        let error = run.fails(1);
        assert!(error.starts_with("error: the system provides no random numbers: getrandom failed"), "{error}");
        assert!(error.contains("hint: ") && !error.contains("panicked"), "{error}");
    }
    let Some(run) = run_with("EPERM", &["cert", "root", "r", "-o", "json"]) else { return };
    let error: serde_json::Value = serde_json::from_str(&run.fails(1)).expect("JSON");
    assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains("random numbers")), "{error}");
}

#[test]
fn without_getrandom_the_device_is_used() {
    if let Some(run) = run_with("ENOSYS", &["cert", "root", "r"]) {
        run.ok();
    }
}
