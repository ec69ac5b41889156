//! What becomes of each device.

use std::collections::{HashMap, HashSet};

use super::{
    super::repeated_ids::id_hash,
    ca_files::CaFiles,
    decision::{SYMMETRIC_KEY, X509},
    plan::{DeviceAction, DeviceAdmission, DeviceObstacle, GroupAction, PlannedDevice, PlannedGroup},
    target::{EnrollmentKind, KnownEnrollments, Target},
};
use crate::{certificate::MAX_COMMON_NAME, dps::service::RegistrationId};

/// Decides what becomes of devices.
pub(super) struct DeviceDecisions<'a> {
    files: &'a CaFiles,
    enrollments: &'a KnownEnrollments,
    /// The IDs, in lower case as hashes, that several devices have.
    repeated: &'a HashSet<u64>,
    /// The IDs of the symmetric-key groups that are moved, and whether they are enabled.
    symmetric: HashMap<String, bool>,
    /// Whether an X.509 group is moved, and an enabled one among them.
    has_x509: bool,
    has_enabled_x509: bool,
    /// Whether all X.509 groups of the application are disabled.
    all_x509_disabled: bool,
}

impl<'a> DeviceDecisions<'a> {
    pub(super) fn new(
        groups: &[PlannedGroup],
        files: &'a CaFiles,
        target: &'a Target,
        repeated: &'a HashSet<u64>,
    ) -> Self {
        let moved = |kind: &'static str| {
            groups.iter().filter(move |group| group.kind() == kind && group.action != GroupAction::None)
        };
        Self {
            files,
            enrollments: &target.enrollments,
            repeated,
            symmetric: moved(SYMMETRIC_KEY).map(|group| (group.id.to_string(), group.enabled)).collect(),
            has_x509: moved(X509).next().is_some(),
            has_enabled_x509: moved(X509).any(|group| group.enabled),
            all_x509_disabled: groups.iter().filter(|group| group.kind() == X509).all(|group| !group.enabled),
        }
    }

    /// Decides what becomes of a device. Returns whether the instance has an individual enrollment of its ID.
    pub(super) fn decide(&self, device: &mut PlannedDevice) -> bool {
        let id = device.id.as_str();
        let existing = self.enrollments.get(id);
        (device.action, device.obstacle) = match self.obstacle(device) {
            Some(obstacle) => (DeviceAction::None, Some(obstacle)),
            None => self.action(device),
        };
        // An individual enrollment takes precedence over the group that admits the device.
        if let Some(existing) = existing
            && device.action != DeviceAction::None
            && (device.action == DeviceAction::Covered || !is_kind(existing.kind, device))
        {
            device.obstacle = Some(DeviceObstacle::OtherEnrollment);
            device.action = DeviceAction::None;
        }
        existing.is_some() && device.action == DeviceAction::Enroll
    }

    /// Returns why a device cannot be moved with any attestation.
    fn obstacle(&self, device: &PlannedDevice) -> Option<DeviceObstacle> {
        let id = device.id.as_str();
        let has_certificate =
            matches!(device.admission, DeviceAdmission::X509 { .. } | DeviceAdmission::X509Group { .. });
        match &device.admission {
            DeviceAdmission::Simulated => Some(DeviceObstacle::Simulated),
            _ if RegistrationId::new(id).is_err() => Some(DeviceObstacle::IdRefused),
            // Its common name is the registration ID.
            _ if has_certificate && id.len() > MAX_COMMON_NAME => Some(DeviceObstacle::IdRefused),
            _ if self.repeated.contains(&id_hash(id)) => Some(DeviceObstacle::IdCollision),
            DeviceAdmission::Other { .. } => Some(DeviceObstacle::OtherAttestation),
            _ => None,
        }
    }

    fn action(&self, device: &mut PlannedDevice) -> (DeviceAction, Option<DeviceObstacle>) {
        let (id, enabled) = (device.id.as_str(), device.enabled);
        let none = |obstacle| (DeviceAction::None, Some(obstacle));
        match &mut device.admission {
            DeviceAdmission::SymmetricGroup { group, .. } if !self.symmetric.contains_key(group.as_str()) => {
                none(DeviceObstacle::GroupNotMoved)
            }
            DeviceAdmission::SymmetricGroup { group, .. } if enabled && !self.symmetric[group.as_str()] => {
                none(DeviceObstacle::GroupDisabled)
            }
            DeviceAdmission::X509Group { .. } if !self.has_x509 => none(DeviceObstacle::GroupNotMoved),
            DeviceAdmission::X509Group { .. } if enabled && !self.has_enabled_x509 => {
                none(if self.all_x509_disabled { DeviceObstacle::GroupDisabled } else { DeviceObstacle::GroupNotMoved })
            }
            DeviceAdmission::SymmetricGroup { .. } | DeviceAdmission::X509Group { .. } if enabled => {
                (DeviceAction::Covered, None)
            }
            DeviceAdmission::X509Group { file } => {
                *file = self.files.leaf(id).cloned();
                if file.is_some() {
                    (DeviceAction::Enroll, None)
                } else {
                    none(DeviceObstacle::DisabledWithoutCertificate)
                }
            }
            DeviceAdmission::X509 { primary, secondary, files } => {
                let wanted: Vec<_> = [*primary, *secondary].into_iter().flatten().collect();
                *files = wanted.iter().filter_map(|thumbprint| self.files.file(*thumbprint)).cloned().collect();
                match files.len() {
                    0 => none(DeviceObstacle::NoCertificate),
                    found if found < wanted.len() => (DeviceAction::Enroll, Some(DeviceObstacle::OneCertificate)),
                    _ => (DeviceAction::Enroll, None),
                }
            }
            DeviceAdmission::SymmetricGroup { .. } | DeviceAdmission::SymmetricKey(_) | DeviceAdmission::Tpm { .. } => {
                (DeviceAction::Enroll, None)
            }
            DeviceAdmission::Other { .. } | DeviceAdmission::Simulated => none(DeviceObstacle::OtherAttestation),
        }
    }
}

/// Returns whether an individual enrollment is of the kind that the device needs. The certificates of some are not known
/// before they are read.
fn is_kind(found: EnrollmentKind, device: &PlannedDevice) -> bool {
    match &device.admission {
        DeviceAdmission::SymmetricGroup { .. } | DeviceAdmission::SymmetricKey(_) => {
            found == EnrollmentKind::SymmetricKey
        }
        DeviceAdmission::X509 { primary, secondary, .. } if device.obstacle.is_none() => {
            found == EnrollmentKind::x509([*primary, *secondary].into_iter().flatten())
        }
        DeviceAdmission::X509 { .. } | DeviceAdmission::X509Group { .. } => matches!(found, EnrollmentKind::X509(_)),
        DeviceAdmission::Tpm { .. } => found == EnrollmentKind::Tpm,
        DeviceAdmission::Other { .. } | DeviceAdmission::Simulated => false,
    }
}
