//! Where a device is assigned.

use serde_json::Value;

use crate::certificate::{Certificate, Timestamp};

/// The result of a registration: the IoT hub that the device is assigned to.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Assignment {
    /// The registration ID, as the service returns it.
    pub registration_id: String,
    /// The host name of the IoT hub that the device connects to.
    pub assigned_hub: String,
    /// The device ID at the hub.
    pub device_id: String,
    /// The kind of assignment, such as `initialAssignment`.
    pub substatus: Option<String>,
    /// The enrollment group that admitted the device. `None` if it was an individual enrollment, or if the service does not
    /// say.
    pub enrollment_group: Option<String>,
    /// When the device first registered.
    pub created_at: Option<Timestamp>,
    /// When the device last registered.
    pub updated_at: Option<Timestamp>,
    /// The version of the registration record.
    pub etag: Option<String>,
    /// The data that a custom allocation policy returns to the device.
    pub payload: Option<Value>,
    /// The certificate that was issued for the request, then those above it, each before its issuer. `None` without a
    /// request, and if the service issued none: the enrollment needs a certificate policy.
    pub certificate_chain: Option<Vec<Certificate>>,
}
