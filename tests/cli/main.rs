//! Tests of the program.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod arguments;
mod authority_request;
mod cert;
mod completions;
mod confirmation;
mod convert;
mod device;
mod documentation;
mod dps;
mod dps_provision;
mod edge;
mod emulator;
mod emulator_examples;
mod encodings;
mod errors;
mod expiring;
mod file_safety;
mod fleet;
mod help;
mod import;
mod inspect;
mod issuing;
mod man;
mod many_devices;
mod migrate;
mod migrate_end_to_end;
mod migrate_move;
mod operational;
mod pair;
mod pfx;
mod random_source;
mod register;
mod rollover;
mod server;
mod service;
mod verify;

/// Reports a test that cannot run here, on standard error itself, which the test harness does not capture.
fn skipped(why: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
