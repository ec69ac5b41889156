//! The resources of IoT Central: their fields, rules and JSON, without requests.

mod condition;
mod deployment_manifest;
mod device;
mod device_attestation;
mod device_command;
mod device_group;
mod device_index;
mod device_properties;
mod device_template;
mod document;
mod enrollment_group;
mod filter;
mod group_query;
mod order;
mod organization;
mod resource;

pub use condition::SyntaxError;
pub(crate) use deployment_manifest::DeploymentManifest;
pub(crate) use device::{Device, DeviceBody, IOT_EDGE};
pub(crate) use device_attestation::{DeviceAttestation, DeviceKeys};
pub(crate) use device_command::{CommandHistory, CommandKey, DeviceCommand};
pub(crate) use device_group::DeviceGroup;
pub(crate) use device_index::DeviceIndex;
pub use device_properties::DeviceProperties;
pub(crate) use device_properties::id_key;
pub(crate) use device_template::DeviceTemplate;
pub(crate) use document::{Document, Versioned};
pub(crate) use enrollment_group::{CertificateBody, EnrollmentGroup, Entry, SigningCertificate, read_proof};
pub use filter::Filter;
pub(crate) use filter::ListedResource;
pub use group_query::GroupQuery;
pub(crate) use order::Order;
pub(crate) use organization::Organization;
pub(crate) use resource::{Resource, after_id, invalid_id};
