//! Sequences of calls, client and emulator together.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod bulk;
mod clocks;
mod contract;
mod faults;
mod provision;
mod races;
mod resume;
mod rollover;
mod second_ca;
