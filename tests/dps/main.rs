//! The Device Provisioning Service: registration, enrollments, and instances in Resource Manager.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod arm;
mod client;
mod diagnosis;
mod emulated;
mod operational;
mod service;
