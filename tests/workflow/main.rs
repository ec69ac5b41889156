//! Sequences of calls, client and emulator together.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod bulk;
mod clocks;
mod contract;
mod dps;
mod dps_lab;
mod dps_races;
mod dps_rollover;
mod faults;
mod migrate;
mod migrate_move;
mod migration_lab;
mod provision;
mod races;
mod resume;
mod rollover;
mod second_ca;
