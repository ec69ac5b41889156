//! Whether a device can be sent to the instance now: what the application and the instance tell of it at this moment, which
//! the plan does not.

use super::{
    apply_groups::same_keys,
    inspection::{Identity, Inspector},
    plan::{DeviceAdmission, GroupAttestation, PlanHeader},
    readiness::{Expectation, Readiness},
    target::EnrollmentKind,
};
use crate::{
    central::{CentralDeviceId, Client, Device},
    dps::service::{IndividualEnrollments, RegistrationId},
    transport::Error,
    workflow::dps_instance::DpsInstance,
};

/// What the application tells of a device, as far as it decides whether the device can be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct CurrentDevice {
    enabled: bool,
    simulated: bool,
}

impl From<&Device> for CurrentDevice {
    fn from(device: &Device) -> Self {
        Self { enabled: device.enabled, simulated: device.simulated }
    }
}

/// Compares devices at the application with the instance.
pub(super) struct MoveCheck {
    inspector: Inspector,
    enrollments: IndividualEnrollments,
    readiness: Readiness,
}

impl MoveCheck {
    pub(super) fn new(client: &Client, instance: &DpsInstance, plan: &PlanHeader, readiness: Readiness) -> Self {
        let is_x509 = |attestation: &GroupAttestation| matches!(attestation, GroupAttestation::X509 { .. });
        let inspector = Inspector {
            devices: client.devices(),
            plan_id: plan.id.clone(),
            include_keys: false,
            // Only devices that the plan enrolls individually are inspected.
            groups: Vec::new(),
            has_x509_groups: plan.groups.iter().any(|group| is_x509(&group.attestation)),
        };
        Self { inspector, enrollments: instance.client().individual_enrollments(), readiness }
    }

    /// Returns why a device cannot be sent, if so. `listed` is what a list of the application told of it.
    pub(super) async fn problem(
        &self,
        id: &CentralDeviceId,
        expected: &Expectation,
        listed: Option<CurrentDevice>,
    ) -> Result<Option<String>, Error> {
        if let Expectation::Unable(reason) = expected {
            return Ok(Some(reason.clone()));
        }
        let now = match listed {
            Some(now) => Some(now),
            None => self.inspector.devices.find(id).await?.as_ref().map(CurrentDevice::from),
        };
        let problem = match now {
            None => Some(gone()),
            Some(CurrentDevice { enabled: false, .. }) => Some("it is disabled at the application".to_owned()),
            Some(CurrentDevice { simulated: true, .. }) => {
                Some("the application simulates it: there is no device to move".to_owned())
            }
            Some(_) => self.readiness.problem(id.as_str(), expected),
        };
        match (problem, expected) {
            (None, Expectation::Individual(_)) => self.compare(id).await,
            (problem, _) => Ok(problem),
        }
    }

    /// Returns what differs between a device's attestation at the application and its individual enrollment.
    async fn compare(&self, id: &CentralDeviceId) -> Result<Option<String>, Error> {
        let Identity { admission, keys, .. } = match self.inspector.identify(id, true).await {
            Err(error) if error.is_not_found() => return Ok(Some(gone())),
            identity => identity?,
        };
        let other = |what: &str| Ok(Some(format!("its individual enrollment at the instance has {what}")));
        let Ok(registration_id) = RegistrationId::new(id.as_str()) else {
            return Ok(Some("DPS does not accept the ID".to_owned()));
        };
        let found = self.readiness.enrollment(id.as_str());
        match (&admission, found.map(|found| found.kind)) {
            (DeviceAdmission::SymmetricKey(_), Some(EnrollmentKind::SymmetricKey)) => {
                let attestation = self.enrollments.attestation(&registration_id).await?;
                let found = attestation.symmetric_keys();
                let is_same = keys.zip(found).is_some_and(|(ours, found)| same_keys(&ours, found));
                if is_same { Ok(None) } else { other("other keys than the device has at the application") }
            }
            (DeviceAdmission::X509 { primary, secondary, .. }, Some(kind @ EnrollmentKind::X509(_))) => {
                let own = [*primary, *secondary].into_iter().flatten();
                if EnrollmentKind::x509(own) == kind {
                    Ok(None)
                } else {
                    other("other certificates than the device has at the application")
                }
            }
            (DeviceAdmission::Tpm { endorsement_key }, Some(EnrollmentKind::Tpm)) => {
                let found = found.and_then(|found| found.endorsement_key.as_deref());
                if found == Some(endorsement_key.as_str()) {
                    Ok(None)
                } else {
                    other("another endorsement key than the device has at the application")
                }
            }
            _ => Ok(Some("its attestation changed at the application since the plan was made".to_owned())),
        }
    }
}

fn gone() -> String {
    "the application does not have it any more".to_owned()
}
