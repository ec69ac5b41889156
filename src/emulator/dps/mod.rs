//! The Device Provisioning Service (DPS).
//!
//! The device API registers devices. Its rules ([`provisioning`], [`admission`]) do not depend on HTTP; only
//! [`registrations`] does.

mod admission;
mod error;
mod provisioning;
pub(super) mod registration;
mod registrations;
mod sas_token;
mod timestamp;

pub(super) use error::DpsError;
pub(super) use registrations::routes as router;
