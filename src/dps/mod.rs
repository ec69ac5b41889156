//! The Device Provisioning Service: its [device API](device), at which devices register, and its [service API](service),
//! which manages enrollments.

mod certificate_name;
pub mod device;
pub mod service;

pub use certificate_name::{DpsCertificateName, MAX_CERTIFICATE_NAME};
