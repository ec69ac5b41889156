//! The IoT Central REST API.

mod api_version;
mod device_attestation;
mod device_commands;
mod device_groups;
mod device_list;
mod device_templates;
mod devices;
mod documents;
mod enrollment_groups;
mod error_body;
mod id;
mod middleware;
pub(super) mod model;
mod page;
mod query;
mod router;
mod seeds;

pub use api_version::ApiVersion;
pub(super) use error_body::error_body;
pub(super) use middleware::authorize;
pub(super) use page::PAGE_SIZE;
pub(super) use router::router;
pub(super) use seeds::{seed_device, seed_document, seed_enrollment_group};
