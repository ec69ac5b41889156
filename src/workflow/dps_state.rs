//! The enrollment state of an instance of the Device Provisioning Service.

use std::sync::Arc;

use super::{
    dps_instance::DpsInstance,
    dps_references::{infos, reference, refers_to, thumbprint},
};
use crate::{
    arm::DpsCertificate,
    central::CertificateEntry,
    certificate::DeviceId,
    dps::{
        device::{
            DeviceState, EnrolledCertificate, EnrollmentState, GroupAttestation, GroupState, OwnAttestation,
            SymmetricKey,
        },
        service::{Attestation, EnrollmentGroup, SymmetricKeys},
    },
    transport::Error,
};

/// Reads the enrollment groups and CA certificates of an instance.
pub(super) async fn read_groups(instance: &DpsInstance) -> Result<EnrollmentState, Error> {
    let groups = instance.read_groups().await?;
    let certificates = instance.read_certificates().await?;
    let unreferenced = certificates.iter().filter(|it| !groups.iter().any(|group| refers_to(group, &it.name)));
    let unreferenced: Vec<_> = unreferenced.filter_map(|it| Some((it.name.to_string(), thumbprint(it)?))).collect();
    let mut states = Vec::new();
    for group in groups {
        let attestation = match &group.attestation {
            Attestation::CaReferences(_) => {
                let entries = [CertificateEntry::Primary, CertificateEntry::Secondary];
                let enrolled = entries.into_iter().filter_map(|entry| referred(&group, entry, &certificates));
                GroupAttestation::X509(enrolled.collect())
            }
            Attestation::SigningCertificates(own) => {
                // The service accepts one only if it or a certificate above it is verified. Which are above it is not known,
                // because the service does not return them.
                let verified = certificates.iter().any(|it| it.is_verified);
                let enrolled = infos(own).filter_map(|(entry, info)| {
                    let enrolled = EnrolledCertificate::new(group.id.as_str(), entry.as_str(), info.sha1_thumbprint?);
                    Some(enrolled.verified(verified).enabled(group.is_enabled()))
                });
                GroupAttestation::X509(enrolled.collect())
            }
            Attestation::SymmetricKey(_) => {
                let keys = find_keys(instance.client().enrollment_groups().attestation(&group.id).await)?;
                GroupAttestation::SymmetricKey(keys)
            }
            _ => GroupAttestation::Other,
        };
        states.push(GroupState::new(group.id.as_str(), attestation).enabled(group.is_enabled()));
    }
    let state = EnrollmentState::new(states).unreferenced(unreferenced);
    Ok(state.id_scope(instance.properties().id_scope.clone()))
}

/// Reads the individual enrollment of a device, and adds it to the state of its instance.
pub(super) async fn read_device(
    instance: &DpsInstance,
    state: &EnrollmentState,
    id: &DeviceId,
) -> Result<EnrollmentState, Error> {
    let id = id.clone().into();
    let enrollments = instance.client().individual_enrollments();
    let Some(enrollment) = enrollments.find(&id).await? else {
        return Ok(EnrollmentState { device: None, ..state.clone() });
    };
    let mut keys = Vec::new();
    let own = match &enrollment.attestation {
        Attestation::ClientCertificates(own) => {
            OwnAttestation::X509(infos(own).filter_map(|(_, info)| info.sha1_thumbprint).collect())
        }
        Attestation::SymmetricKey(_) => {
            keys = find_keys(enrollments.attestation(&id).await)?;
            OwnAttestation::Other(enrollment.attestation.kind().to_owned())
        }
        other => OwnAttestation::Other(other.kind().to_owned()),
    };
    let is_enabled = enrollment.settings.enabled.unwrap_or(true);
    let device = DeviceState::new().enabled(is_enabled).attestation(own).keys(keys);
    Ok(EnrollmentState { device: Some(Arc::new(device)), ..state.clone() })
}

/// Returns the entry of a group that refers to a certificate of the instance. A reference to a certificate that does not
/// exist admits no device.
fn referred(
    group: &EnrollmentGroup,
    entry: CertificateEntry,
    certificates: &[DpsCertificate],
) -> Option<EnrolledCertificate> {
    let name = reference(group, entry)?;
    let certificate = certificates.iter().find(|it| it.name == *name)?;
    let enrolled =
        EnrolledCertificate::new(group.id.as_str(), format!("certificate {name}, {entry}"), thumbprint(certificate)?);
    Some(enrolled.verified(certificate.is_verified).enabled(group.is_enabled()))
}

/// Returns the keys that are valid base64. A sign-in that can read enrollments may lack the right to read their keys.
fn find_keys(attestation: Result<Attestation, Error>) -> Result<Vec<SymmetricKey>, Error> {
    match attestation {
        Ok(attestation) => Ok(attestation.symmetric_keys().map(read_keys).unwrap_or_default()),
        Err(error) if matches!(error.status(), Some(401 | 403 | 404)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn read_keys(keys: &SymmetricKeys) -> Vec<SymmetricKey> {
    let keys = [&keys.primary_key, &keys.secondary_key];
    keys.into_iter().filter_map(|key| SymmetricKey::from_base64(key.expose()).ok()).collect()
}
