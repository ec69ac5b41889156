//! Enrollment groups of a DPS instance: whether one can be used, and what its entries hold.

use super::{
    dps_references::{reference, thumbprint},
    entries::{Entries, EntryState},
    error::ProvisionError,
    service::GroupId,
};
use crate::{
    arm::DpsCertificate,
    central::{CertificateEntry, DeviceType},
    dps::service::{Attestation, EnrollmentGroup},
};

/// The kind of attestation by certificates.
pub(super) const X509: &str = "x509";

/// Fails if a group does not admit devices by CA certificates of the instance.
pub(super) fn check_attestation(group: &EnrollmentGroup) -> Result<(), ProvisionError> {
    let found = match &group.attestation {
        Attestation::CaReferences(_) => return Ok(()),
        // A group without any certificate.
        Attestation::Other(kind) if kind == X509 => return Ok(()),
        Attestation::SigningCertificates(_) => "certificates of its own (signingCertificates)".to_owned(),
        other => other.kind().to_owned(),
    };
    Err(ProvisionError::Attestation { group: group.id.clone().into(), found })
}

pub(super) fn device_type(group: &EnrollmentGroup) -> DeviceType {
    if group.settings.iot_edge == Some(true) { DeviceType::IotEdge } else { DeviceType::Iot }
}

/// Returns what to add to a message about a group that is disabled.
pub(super) fn disabled_note(group: &EnrollmentGroup) -> &'static str {
    if group.is_enabled() { "" } else { "; it is disabled, so no device can connect through it" }
}

/// Returns the entries of a group. A reference to a certificate that does not exist admits no device: its entry has the name
/// only. Fails if the service does not tell which certificate an entry refers to.
pub(super) fn entries(
    id: GroupId,
    group: Option<&EnrollmentGroup>,
    certificates: &[DpsCertificate],
) -> Result<Entries, ProvisionError> {
    let state = |entry| {
        let Some(name) = group.and_then(|group| reference(group, entry)) else { return Ok(EntryState::empty(entry)) };
        let Some(certificate) = certificates.iter().find(|it| it.name == *name) else {
            return Ok(EntryState { certificate_name: Some(name.clone()), ..EntryState::empty(entry) });
        };
        let Some(thumbprint) = thumbprint(certificate) else {
            return Err(ProvisionError::UnknownCertificate { group: id.clone(), entry, name: name.to_string() });
        };
        Ok(EntryState {
            entry,
            verified: certificate.is_verified,
            sha1_thumbprint: Some(thumbprint),
            certificate_name: Some(certificate.name.clone()),
        })
    };
    Ok(Entries {
        primary: state(CertificateEntry::Primary)?,
        secondary: state(CertificateEntry::Secondary)?,
        is_enabled: group.is_some_and(EnrollmentGroup::is_enabled),
        group: id,
    })
}
