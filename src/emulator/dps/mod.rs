//! The Device Provisioning Service (DPS): two ID scopes, that of the IoT Central application and that of an instance.
//!
//! The device API registers devices. Its rules ([`provisioning`], [`admission`]) do not depend on the protocol:
//! [`registrations`] is HTTP, and [`mqtt`](super::mqtt) is MQTT. The [`service`] API manages the enrollments of the instance.

mod admission;
mod device_version;
mod error;
pub(super) mod model;
mod operational;
mod provisioning;
pub(super) mod registration;
mod registrations;
mod rules;
mod sas_token;
mod service;
pub(super) mod settings;
pub(super) mod timestamp;

pub(super) use admission::Credential;
pub(super) use device_version::DeviceVersion;
pub(super) use error::DpsError;
pub(super) use operational::{OperationalCa, refuse_request};
pub(super) use provisioning::{Identity, Outcome, poll, register};
pub(super) use registrations::routes as device_router;
pub(super) use sas_token::{SasToken, percent_decode};
pub(super) use service::{authorize, router as service_router, seed_enrollment};
