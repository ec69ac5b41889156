//! The program.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod cert;
mod device;
mod encodings;
mod expiring;
mod file_safety;
mod fleet;
mod help;
mod import;
mod inspect;
mod issuing;
mod many_devices;
mod pfx;
mod register;
mod service;
mod verify;
