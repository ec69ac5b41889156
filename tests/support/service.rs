//! The program's own emulator as a process, and commands that speak to it.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Run, program};

pub(crate) fn directory() -> TempDir {
    super::temporary_directory()
}

/// `iot-enroll emulator` as a process of its own, ended with the test.
pub(crate) struct Service {
    process: Child,
    stdout: BufReader<ChildStdout>,
    pub(crate) endpoint: String,
    pub(crate) token: String,
    pub(crate) first_line: Value,
}

impl Service {
    pub(crate) fn start() -> Self {
        Self::with(&["--rate", "1000000"])
    }

    pub(crate) fn with(arguments: &[&str]) -> Self {
        let mut command = program(Path::new("."));
        command.arg("emulator").args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("the program starts");
        let mut stdout = BufReader::new(process.stdout.take().expect("standard output"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let first_line: Value = serde_json::from_str(&line).expect("one JSON document on the first line");
        let text = |name: &str| first_line[name].as_str().expect(name).to_owned();
        Self { process, stdout, endpoint: text("endpoint"), token: text("token"), first_line }
    }

    /// A command that speaks to it, as fast as it can.
    pub(crate) fn command(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = program(directory);
        command.args(arguments).args(["--endpoint", &self.endpoint, "--rate", "1000000"]);
        command.env("IOT_ENROLL_TOKEN", &self.token);
        command
    }

    /// A command that speaks to its DPS instance, as fast as it can.
    pub(crate) fn dps_command(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = program(directory);
        command.args(arguments).args(["--rate", "1000000"]);
        command.env("IOT_ENROLL_DPS", self.text("/dps/name"));
        command.env("IOT_ENROLL_ARM_ENDPOINT", self.text("/arm/endpoint"));
        command.env("IOT_ENROLL_ARM_TOKEN", self.text("/arm/token"));
        command
    }

    /// A member of the first line.
    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.first_line.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer}"))
    }

    /// Runs a command; the token is in nothing that it prints.
    pub(crate) fn run(&self, directory: &Path, arguments: &[&str]) -> Run {
        let run = Run::of(&mut self.command(directory, arguments));
        assert_without(&run, &self.token);
        run
    }

    pub(crate) fn json(&self, directory: &Path, arguments: &[&str]) -> Value {
        self.run(directory, &[arguments, &["-o", "json"]].concat()).json()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self, signal: &str) -> (ExitStatus, String) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status();
        assert!(sent.expect("the program kill").success());
        let (ended, waiting) = mpsc::channel();
        let id = self.process.id().to_string();
        // One that does not end would hold the test for ever.
        let guard = thread::spawn(move || {
            let late = waiting.recv_timeout(Duration::from_secs(30)).is_err();
            late.then(|| Command::new("kill").args(["-KILL", &id]).status())
        });
        let status = self.process.wait().expect("its end");
        ended.send(()).ok();
        guard.join().expect("no panic");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("the rest of its output");
        (status, rest)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Neither the token nor its signature is in what was printed.
#[track_caller]
pub(crate) fn assert_without(run: &Run, token: &str) {
    let signature = token.split("sig=").nth(1).and_then(|rest| rest.split('&').next()).unwrap_or(token);
    assert!(signature.len() > 5, "a signature to look for");
    for printed in [&run.stdout, &run.stderr] {
        assert!(!printed.contains(token) && !printed.contains(signature), "a token was printed: {printed}");
    }
}

/// The names of an object's fields.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}
