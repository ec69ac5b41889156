//! The Device Provisioning Service.

pub mod device;
