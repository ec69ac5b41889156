//! Registration at the Device Provisioning Service.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod diagnosis;
