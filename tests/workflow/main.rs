//! Sequences of calls, client and emulator together.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod contract;
mod faults;
mod provision;
mod resume;
mod rollover;
