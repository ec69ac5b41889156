//! What several tests need.
#![allow(dead_code, reason = "each test takes what it needs")]

pub(crate) mod app;
pub(crate) mod caller;
pub(crate) mod client;
pub(crate) mod clock;
#[cfg(target_os = "linux")]
pub(crate) mod descriptors;
pub(crate) mod devices;
pub(crate) mod dps;
pub(crate) mod instance;
pub(crate) mod journal;
pub(crate) mod lab;
pub(crate) mod mqtt;
pub(crate) mod openapi;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod rcgen_pem;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod tls;

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// The length of a day.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Creates a directory for one test, in memory where that is possible: what the tests hold does not depend on a disk, and
/// flushing thousands of files to one would take most of their time.
pub(crate) fn temporary_directory() -> TempDir {
    #[cfg(target_os = "linux")]
    {
        // Containers may have little of it.
        const ENOUGH: u64 = 1 << 30;
        let memory = Path::new("/dev/shm");
        let has_room = rustix::fs::statvfs(memory).is_ok_and(|found| found.f_bavail * found.f_frsize >= ENOUGH);
        if has_room && let Ok(directory) = tempfile::tempdir_in(memory) {
            return directory;
        }
    }
    tempfile::tempdir().expect("a directory")
}

/// The path of a file in `fixtures/authorities`.
pub(crate) fn authority_fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/authorities").join(name)
}

/// Reports that a test could not check something on this machine, once for each test and reason.
///
/// It writes to standard error directly, since the test harness captures what the macros print.
pub(crate) fn skipped(reason: &str) {
    static REPORTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let report = format!("skipped: {test}: {reason}\n");
    if REPORTED.lock().unwrap_or_else(PoisonError::into_inner).insert(report.clone()) {
        let _ = std::io::stderr().write_all(report.as_bytes());
    }
}

/// Polls until another process fulfills a condition. Without a pause, this would take the processor from it.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} within a minute");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs the `openssl` program in a directory. Without such a program, returns nothing and reports it as [`skipped`].
pub(crate) fn openssl(directory: &Path, arguments: &[&str]) -> Option<Output> {
    match Command::new("openssl").current_dir(directory).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skipped("there is no openssl program");
            None
        }
        Err(error) => panic!("openssl could not be run: {error}"),
    }
}

/// The program under test, in a directory, without anything of the caller's environment that it would read.
pub(crate) fn program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iot-enroll"));
    command.current_dir(directory).stdin(std::process::Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("IOT_ENROLL_") || name.to_string_lossy().ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command
}

/// What a run of the program came to.
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::ended(command.output().expect("the program runs"))
    }

    pub(crate) fn ended(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// The standard output of a run that has to succeed.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// The standard error of a run that has to fail with that status.
    pub(crate) fn fails(self, status: i32) -> String {
        assert_eq!(self.status, status, "{}{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.stderr
    }

    /// The JSON document that is all of the standard output.
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).expect("one JSON document")
    }
}
