//! The program.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod cert;
mod device;
mod expiring;
mod file_safety;
mod fleet;
mod help;
mod import;
mod many_devices;
mod pfx;
mod register;
mod service;
mod verify;
