//! Tests of the emulator over a socket.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod arm;
mod article;
mod certificates;
mod clients;
mod clock;
mod conditions;
mod deployment_manifests;
mod device_commands;
mod device_groups;
mod device_lists;
mod device_templates;
mod devices;
mod dps_admission;
mod dps_service;
mod enrollment_groups;
mod faults;
mod health;
mod hosts;
mod if_match;
mod large_queries;
mod mqtt;
mod mqtt_limits;
mod operational;
mod organizations;
mod registration;
mod request_checks;
mod requests;
mod seeding;
mod server;
mod state;
mod tls;
