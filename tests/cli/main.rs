//! The program.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod cert;
mod device;
mod expiring;
mod fleet;
mod help;
mod import;
mod many_devices;
mod register;
mod service;
mod verify;
