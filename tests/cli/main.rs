//! The program.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod arguments;
mod cert;
mod completions;
mod confirmation;
mod device;
mod errors;
mod expiring;
mod fleet;
mod help;
mod import;
mod many_devices;
mod register;
mod service;

/// Reports a test that cannot run here. Written to standard error itself, which the test harness does not capture.
fn skipped(why: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
