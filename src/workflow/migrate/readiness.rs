//! Whether the instance would admit the devices of a plan: what the plan creates has to be there before a device is sent away
//! from its application.

use std::collections::{HashMap, HashSet};

use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use super::{
    fingerprint::KeyFingerprint,
    plan::{DeviceAction, DeviceAdmission, GroupAction, GroupAttestation, PlanHeader, PlannedDevice, PlannedGroup},
    target::EnrollmentKind,
};
use crate::{
    arm::DpsCertificate,
    certificate::Thumbprint,
    dps::service::{Attestation, EnrollmentGroup, IndividualEnrollment, Query, RegistrationId},
    transport::Error,
    workflow::{
        create::{MAX_LOOKUPS, REQUESTS_UNDER_WAY},
        dps_instance::DpsInstance,
        repeated_ids::id_hash,
    },
};

/// What a plan says about a device, as far as it decides whether the device can be sent to the instance.
pub(super) enum Expectation {
    /// A group of symmetric keys admits it: its ID in lower case.
    SymmetricGroup(String),
    /// One of the X.509 groups admits it.
    X509Group,
    /// It has an individual enrollment of this kind.
    Individual(&'static str),
    /// It cannot be sent, for this reason.
    Unable(String),
}

impl Expectation {
    pub(super) fn new(device: &PlannedDevice) -> Self {
        if let Some(obstacle) = &device.obstacle {
            return Self::Unable(format!("the plan does not move it: {obstacle}"));
        }
        if !device.enabled {
            return Self::Unable("it is disabled".to_owned());
        }
        match (device.action, &device.admission) {
            (DeviceAction::Covered, DeviceAdmission::SymmetricGroup { group, .. }) => {
                Self::SymmetricGroup(group.as_str().to_ascii_lowercase())
            }
            (DeviceAction::Covered, DeviceAdmission::X509Group { .. }) => Self::X509Group,
            (DeviceAction::Enroll, DeviceAdmission::SymmetricKey(_) | DeviceAdmission::SymmetricGroup { .. }) => {
                Self::Individual("symmetricKey")
            }
            (DeviceAction::Enroll, DeviceAdmission::X509 { .. } | DeviceAdmission::X509Group { .. }) => {
                Self::Individual("x509")
            }
            (DeviceAction::Enroll, DeviceAdmission::Tpm { .. }) => Self::Individual("tpm"),
            _ => Self::Unable("the plan does not move it".to_owned()),
        }
    }
}

/// What the instance has of a plan.
pub(super) struct Readiness {
    /// Why the groups of symmetric keys admit no devices, if so, by their IDs in lower case.
    symmetric: HashMap<String, Option<String>>,
    /// The X.509 groups that do not admit all of their devices, by their IDs in lower case, and why.
    x509: Vec<(String, String)>,
    /// The X.509 group that admits the devices of which the plan does not know it, in lower case.
    assumed: Option<String>,
    /// The individual enrollments that were looked up, by the hash of the ID.
    enrollments: HashMap<u64, FoundEnrollment>,
}

/// An individual enrollment of the instance.
pub(super) struct FoundEnrollment {
    /// The name of its kind.
    name: String,
    pub(super) kind: EnrollmentKind,
    pub(super) endorsement_key: Option<String>,
    enabled: bool,
}

impl FoundEnrollment {
    fn new(found: IndividualEnrollment) -> Self {
        let (name, kind) = (found.attestation.kind().to_owned(), EnrollmentKind::of(&found.attestation));
        let enabled = found.is_enabled();
        let endorsement_key = match found.attestation {
            Attestation::Tpm { endorsement_key } => endorsement_key,
            _ => None,
        };
        Self { name, kind, endorsement_key, enabled }
    }
}

impl Readiness {
    /// Reads the groups and certificates of an instance, and the individual enrollments with these IDs.
    pub(super) async fn read(
        instance: &DpsInstance,
        plan: &PlanHeader,
        enrolled: Vec<RegistrationId>,
        assumed: Option<String>,
    ) -> Result<Self, Error> {
        let groups = instance.read_groups().await?;
        let certificates = instance.read_certificates().await?;
        let mut readiness = Self { symmetric: HashMap::new(), x509: Vec::new(), assumed, enrollments: HashMap::new() };
        let find = |planned: &PlannedGroup| {
            groups.iter().find(|group| group.id.as_str().eq_ignore_ascii_case(planned.id.as_str()))
        };
        // A group that the plan does not move is not expected.
        for planned in plan.groups.iter().filter(|group| group.action != GroupAction::None) {
            let id = &planned.id;
            let problem = match find(planned) {
                None => Some(format!("the instance has no enrollment group {id}: apply the plan first")),
                Some(found) if !found.is_enabled() => {
                    Some(format!("the enrollment group {id} of the instance is disabled"))
                }
                Some(found) => compare(instance, plan, planned, found, &certificates).await?,
            };
            match &planned.attestation {
                GroupAttestation::SymmetricKey(_) => {
                    readiness.symmetric.insert(id.as_str().to_ascii_lowercase(), problem);
                }
                // A group that was disabled at the application admitted no devices there.
                _ if planned.enabled => {
                    readiness.x509.extend(problem.map(|problem| (id.as_str().to_ascii_lowercase(), problem)));
                }
                _ => {}
            }
        }
        readiness.enrollments = read_enrollments(instance, enrolled).await?;
        Ok(readiness)
    }

    /// Returns why the instance would not admit a device, if so.
    pub(super) fn problem(&self, id: &str, expected: &Expectation) -> Option<String> {
        match expected {
            Expectation::Unable(reason) => Some(reason.clone()),
            Expectation::X509Group => self.x509_problem(),
            Expectation::SymmetricGroup(group) => match self.symmetric.get(group) {
                Some(problem) => problem.clone(),
                None => Some(format!("the plan does not move its enrollment group {group}")),
            },
            Expectation::Individual(kind) => match self.enrollments.get(&id_hash(id)) {
                None => Some("the instance has no individual enrollment for it: apply the plan first".to_owned()),
                Some(FoundEnrollment { name, .. }) if name != kind => {
                    Some(format!("its individual enrollment at the instance is for attestation by {name}, not {kind}"))
                }
                Some(FoundEnrollment { enabled: false, .. }) => {
                    Some("its individual enrollment at the instance is disabled".to_owned())
                }
                Some(_) => None,
            },
        }
    }

    /// Returns why the instance may not admit a device that is presumably in an X.509 group, if so.
    fn x509_problem(&self) -> Option<String> {
        let Some(assumed) = &self.assumed else {
            let (_, problem) = self.x509.first()?;
            return Some(format!(
                "{problem}; which X.509 group admits the device is not known, so all of them have to be ready, unless its \
                 group is named"
            ));
        };
        self.x509.iter().find(|(group, _)| group == assumed).map(|(_, problem)| problem.clone())
    }

    /// Returns the individual enrollment of a device, if it was looked up and found.
    pub(super) fn enrollment(&self, id: &str) -> Option<&FoundEnrollment> {
        self.enrollments.get(&id_hash(id))
    }
}

/// Returns why a group of the instance does not admit the devices that the planned one admits, if so.
async fn compare(
    instance: &DpsInstance,
    plan: &PlanHeader,
    planned: &PlannedGroup,
    found: &EnrollmentGroup,
    certificates: &[DpsCertificate],
) -> Result<Option<String>, Error> {
    let id = &planned.id;
    match (&planned.attestation, &found.attestation) {
        (GroupAttestation::SymmetricKey(keys), Attestation::SymmetricKey(_)) => {
            let attestation = instance.client().enrollment_groups().attestation(&found.id).await?;
            let found = attestation.symmetric_keys().map(|keys| KeyFingerprint::new(&plan.id, keys));
            let is_same = found.as_ref() == Some(&keys.fingerprint);
            Ok((!is_same).then(|| format!("the enrollment group {id} of the instance has other keys")))
        }
        (GroupAttestation::X509 { primary, secondary }, Attestation::CaReferences(names)) => {
            let names = [&names.primary, &names.secondary];
            let verified: HashSet<Thumbprint> = certificates
                .iter()
                .filter(|it| it.is_verified && names.contains(&&Some(it.name.clone())))
                .filter_map(|it| it.sha1_thumbprint)
                .collect();
            // One that is not verified admitted no devices at the application. One with an obstacle is not moved.
            let is_moved = |thumbprint: &Thumbprint| {
                plan.certificates.iter().any(|it| it.sha1_thumbprint == *thumbprint && it.obstacle.is_none())
            };
            let entries = [primary, secondary].into_iter().flatten().filter(|entry| entry.verified);
            let mut moved = entries.map(|entry| entry.sha1_thumbprint).filter(is_moved);
            let missing = moved.find(|thumbprint| !verified.contains(thumbprint));
            Ok(missing.map(|thumbprint| {
                format!("the enrollment group {id} of the instance has no verified CA certificate {thumbprint}")
            }))
        }
        (_, other) => {
            let kind = other.kind();
            Ok(Some(format!("the enrollment group {id} of the instance is for another attestation, by {kind}")))
        }
    }
}

/// Reads individual enrollments: a few one by one, or else all.
async fn read_enrollments(
    instance: &DpsInstance,
    ids: Vec<RegistrationId>,
) -> Result<HashMap<u64, FoundEnrollment>, Error> {
    let enrollments = instance.client().individual_enrollments();
    let wanted: HashSet<_> = ids.iter().map(|id| id_hash(id.as_str())).collect();
    let found: BoxStream<'_, Result<IndividualEnrollment, Error>> = if ids.len() > MAX_LOOKUPS {
        enrollments.list(&Query::new()).into_stream()
    } else {
        let look_up = |id| {
            let enrollments = enrollments.clone();
            async move { enrollments.find(&id).await }
        };
        let found = stream::iter(ids).map(look_up).buffered(REQUESTS_UNDER_WAY.get());
        Box::pin(found.try_filter_map(|found| async move { Ok(found) }))
    };
    let entry = |found: IndividualEnrollment| (id_hash(found.id.as_str()), FoundEnrollment::new(found));
    found.map_ok(entry).try_filter(|(hash, _)| std::future::ready(wanted.contains(hash))).try_collect().await
}
