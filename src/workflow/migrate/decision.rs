//! What becomes of each CA certificate and each group.

use std::collections::{HashMap, hash_map::Entry};

use super::{
    super::dps_instance::{MAX_CERTIFICATES, MAX_GROUPS, MAX_X509_GROUPS, default_certificate_name},
    ca_files::{CaFiles, read_certificate},
    fingerprint::KeyFingerprint,
    plan::{
        CertificateAction, CertificateObstacle, GroupAction, GroupAttestation, GroupObstacle, PlannedCertificate,
        PlannedEntry, PlannedGroup, PlannedKeys,
    },
    target::Target,
};
use crate::{
    central::{self, DeviceType},
    certificate::{Certificate, Thumbprint, files::Passwords},
    dps::service::EnrollmentGroupId,
};

/// The kinds of attestation of groups, as the service names them.
pub(super) const X509: &str = "x509";
pub(super) const SYMMETRIC_KEY: &str = "symmetricKey";

/// Describes a group of the application.
pub(super) fn describe_group(group: central::EnrollmentGroup, plan_id: &str, include_keys: bool) -> PlannedGroup {
    let entry = |found: Option<central::SigningCertificate>| {
        found.and_then(|found| Some(PlannedEntry { sha1_thumbprint: found.sha1_thumbprint?, verified: found.verified }))
    };
    let attestation = match group.attestation {
        central::Attestation::X509 { primary, secondary } => {
            GroupAttestation::X509 { primary: entry(primary), secondary: entry(secondary) }
        }
        central::Attestation::SymmetricKey(Some(keys)) => GroupAttestation::SymmetricKey(PlannedKeys {
            fingerprint: KeyFingerprint::new(plan_id, &keys),
            keys: include_keys.then_some(keys),
        }),
        other => GroupAttestation::Other { name: other.kind().to_owned() },
    };
    PlannedGroup {
        id: group.id,
        display_name: group.display_name,
        enabled: group.enabled,
        device_type: group.device_type,
        attestation,
        devices: None,
        action: GroupAction::None,
        obstacles: Vec::new(),
    }
}

impl PlannedGroup {
    /// Returns the entries that hold a certificate.
    pub(super) fn entries(&self) -> impl Iterator<Item = PlannedEntry> {
        let (primary, secondary) = match self.attestation {
            GroupAttestation::X509 { primary, secondary } => (primary, secondary),
            _ => (None, None),
        };
        primary.into_iter().chain(secondary)
    }

    /// Returns the kind of attestation, as the service names it.
    pub(super) fn kind(&self) -> &str {
        match &self.attestation {
            GroupAttestation::X509 { .. } => X509,
            GroupAttestation::SymmetricKey(_) => SYMMETRIC_KEY,
            GroupAttestation::Other { name } => name,
        }
    }
}

/// Decides what becomes of the CA certificates that admit devices.
pub(super) fn decide_certificates(
    groups: &[PlannedGroup],
    target: &Target,
    files: &CaFiles,
    passwords: Passwords<'_>,
) -> Vec<PlannedCertificate> {
    let mut wanted: Vec<Thumbprint> = Vec::new();
    for entry in groups.iter().flat_map(PlannedGroup::entries).filter(|entry| entry.verified) {
        if !wanted.contains(&entry.sha1_thumbprint) {
            wanted.push(entry.sha1_thumbprint);
        }
    }
    let read: Vec<_> = wanted
        .iter()
        .filter_map(|thumbprint| {
            let path = files.file(*thumbprint)?;
            Some((read_certificate(path, *thumbprint, passwords).ok()??, path.clone()))
        })
        .collect();
    let keys = files.find_keys(&read, passwords);
    let mut count = target.certificates.len();
    wanted
        .into_iter()
        .map(|thumbprint| {
            let found = read.iter().find(|(certificate, _)| certificate.sha1_thumbprint() == thumbprint);
            let planned = decide_certificate(thumbprint, found.map(|(certificate, _)| certificate), target);
            let mut planned = PlannedCertificate {
                file: found.map(|(_, path)| path.clone()),
                key_file: keys.get(&thumbprint).cloned(),
                ..planned
            };
            settle_certificate(&mut planned, &mut count);
            planned
        })
        .collect()
}

/// Describes a CA certificate: its name in the instance, and whether it is there.
fn decide_certificate(thumbprint: Thumbprint, found: Option<&Certificate>, target: &Target) -> PlannedCertificate {
    let present = target.certificate(thumbprint);
    let subject = found.map(|certificate| certificate.subject().to_string());
    let action = match present {
        Some(present) if present.is_verified => CertificateAction::Present,
        Some(_) => CertificateAction::Verify,
        None => CertificateAction::Upload,
    };
    PlannedCertificate {
        sha1_thumbprint: thumbprint,
        subject: subject.or_else(|| Some(present?.certificate()?.subject().to_string())),
        file: None,
        key_file: None,
        name: present.map(|it| it.name.clone()).or_else(|| default_certificate_name(found?)),
        action,
        obstacle: None,
    }
}

/// Decides by the files that are at hand.
fn settle_certificate(planned: &mut PlannedCertificate, count: &mut usize) {
    let obstacle = match (planned.action, &planned.file, &planned.key_file) {
        (CertificateAction::Present, ..) => return,
        (_, None, _) => Some(CertificateObstacle::NoFile),
        (CertificateAction::Upload, ..) if *count >= MAX_CERTIFICATES => Some(CertificateObstacle::TooMany),
        _ => None,
    };
    *count += usize::from(planned.action == CertificateAction::Upload && obstacle.is_none());
    planned.action = match obstacle {
        Some(_) => CertificateAction::None,
        None if planned.key_file.is_none() => CertificateAction::Attest,
        None => planned.action,
    };
    planned.obstacle = obstacle;
}

/// Decides what becomes of the groups.
pub(super) fn decide_groups(groups: &mut [PlannedGroup], certificates: &[PlannedCertificate], target: &Target) {
    let mut ids: HashMap<String, String> = HashMap::new();
    let mut owners: HashMap<Thumbprint, String> = HashMap::new();
    let counted = |kind: &str| target.groups.iter().filter(|group| group.attestation.kind() == kind).count();
    let mut counts = [(X509, counted(X509), MAX_X509_GROUPS), (SYMMETRIC_KEY, counted(SYMMETRIC_KEY), MAX_GROUPS)];
    for group in groups {
        let mut obstacles = Vec::new();
        let id = group.id.as_str();
        if EnrollmentGroupId::new(id).is_err() {
            obstacles.push(GroupObstacle::IdRefused);
        }
        match ids.entry(id.to_ascii_lowercase()) {
            Entry::Occupied(first) => obstacles.push(GroupObstacle::IdCollision { other: first.get().clone() }),
            Entry::Vacant(entry) => {
                entry.insert(id.to_owned());
            }
        }
        let present = target.group(id);
        if let Some(found) = present.filter(|found| !is_same_kind(group, found)) {
            obstacles.push(GroupObstacle::OtherKind { found: kind_of(found).to_owned() });
        }
        match &group.attestation {
            GroupAttestation::X509 { .. } => decide_entries(group, certificates, target, &mut owners, &mut obstacles),
            GroupAttestation::SymmetricKey(_) => {}
            GroupAttestation::Other { name } => {
                obstacles.push(GroupObstacle::OtherAttestation { name: name.clone() });
            }
        }
        let is_blocked = |obstacles: &[GroupObstacle]| obstacles.iter().any(|it| !it.is_partial());
        if present.is_none()
            && !is_blocked(&obstacles)
            && let Some((_, count, max)) = counts.iter_mut().find(|(kind, ..)| *kind == group.kind())
        {
            if count >= max {
                obstacles.push(GroupObstacle::TooMany);
            } else {
                *count += 1;
            }
        }
        group.action = match present {
            _ if is_blocked(&obstacles) => GroupAction::None,
            Some(_) => GroupAction::Check,
            None => GroupAction::Create,
        };
        group.obstacles = obstacles;
    }
}

/// Adds the obstacles of the entries of an X.509 group.
fn decide_entries(
    group: &PlannedGroup,
    certificates: &[PlannedCertificate],
    target: &Target,
    owners: &mut HashMap<Thumbprint, String>,
    obstacles: &mut Vec<GroupObstacle>,
) {
    let id = group.id.as_str();
    let mut admits = false;
    for PlannedEntry { sha1_thumbprint, verified } in group.entries() {
        let is_moved =
            certificates.iter().any(|it| it.sha1_thumbprint == sha1_thumbprint && it.action != CertificateAction::None);
        let other = owners.get(&sha1_thumbprint).filter(|other| *other != id).cloned();
        let other = other.or_else(|| Some(target.other_group_with(id, sha1_thumbprint)?.id.to_string()));
        obstacles.push(match other {
            _ if !verified => GroupObstacle::NotVerified { sha1_thumbprint },
            Some(other) => GroupObstacle::SharedCertificate { sha1_thumbprint, other },
            None if !is_moved => GroupObstacle::Certificate { sha1_thumbprint },
            None => {
                owners.insert(sha1_thumbprint, id.to_owned());
                admits = true;
                continue;
            }
        });
    }
    if !admits {
        obstacles.push(GroupObstacle::NoCertificate);
    }
}

/// Returns whether a group of the instance has the kind of attestation that is to be created: CA references, or keys.
fn is_same_kind(group: &PlannedGroup, found: &crate::dps::service::EnrollmentGroup) -> bool {
    use crate::dps::service::Attestation;
    match (&group.attestation, &found.attestation) {
        (GroupAttestation::X509 { .. }, Attestation::CaReferences(_))
        | (GroupAttestation::SymmetricKey(_), Attestation::SymmetricKey(_)) => true,
        // A group without any certificate.
        (GroupAttestation::X509 { .. }, Attestation::Other(kind)) => kind == X509,
        _ => false,
    }
}

fn kind_of(group: &crate::dps::service::EnrollmentGroup) -> &str {
    match &group.attestation {
        crate::dps::service::Attestation::SigningCertificates(_) => "certificates of its own (signingCertificates)",
        other => other.kind(),
    }
}

/// Returns the type of the devices of a group as the setting of an enrollment.
pub(super) fn is_iot_edge(device_type: &DeviceType) -> bool {
    *device_type == DeviceType::IotEdge
}
