//! The IoT Central client.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod contract;
mod devices;
mod edges;
mod entra;
mod errors;
mod filters;
mod groups_and_manifests;
mod lists;
mod rate;
mod retries;
mod tls;
mod tracing;
