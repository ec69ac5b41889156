//! The examples of tests in other languages that start the emulator.

use std::{io::ErrorKind, path::Path, process::Command};

use crate::support::{Run, skipped, temporary_directory};

/// Runs an example with a program, if it is installed.
fn run(program: &str, arguments: &[&str], example: &str) {
    let installed = Command::new(program).arg("--version").output();
    if installed.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return skipped(&format!("{program} is not installed"));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/emulator").join(example);
    let directory = temporary_directory();
    let mut command = Command::new(program);
    command.args(arguments).arg(file).current_dir(directory.path());
    command.env("IOT_ENROLL_PROGRAM", env!("CARGO_BIN_EXE_iot-enroll")).env("PYTHONDONTWRITEBYTECODE", "1");
    Run::of(&mut command).ok();
}

#[test]
fn python() {
    run("python3", &[], "test_emulator.py");
}

#[test]
fn node() {
    run("node", &["--test"], "emulator.test.js");
}
