//! The enrollment state of a service, read to diagnose a failed registration.

use super::{central_state, dps_state, service::Service};
use crate::{certificate::DeviceId, dps::device::EnrollmentState, transport::Error};

/// Reads the enrollment groups of a service and its ID scope. Changes nothing.
///
/// # Errors
/// [`Error`] if a call fails.
pub async fn read_enrollment_state(service: impl Into<Service>) -> Result<EnrollmentState, Error> {
    match service.into() {
        Service::Central(client) => central_state::read_groups(&client).await,
        Service::Dps(instance) => dps_state::read_groups(&instance).await,
    }
}

/// Reads the state of a device, and adds it to that of its service. Changes nothing.
///
/// # Errors
/// [`Error`] if a call fails.
pub async fn read_device_state(
    service: impl Into<Service>,
    state: &EnrollmentState,
    id: &DeviceId,
) -> Result<EnrollmentState, Error> {
    match service.into() {
        Service::Central(client) => central_state::read_device(&client, state, id).await,
        Service::Dps(instance) => dps_state::read_device(&instance, state, id).await,
    }
}
