//! The emulator, over a socket.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod article;
mod certificates;
mod conditions;
mod deployment_manifests;
mod device_groups;
mod device_lists;
mod devices;
mod enrollment_groups;
mod faults;
mod gate;
mod registration;
mod server;
mod tls;
