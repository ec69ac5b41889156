//! The enrollment state of an IoT Central application.

use std::sync::Arc;

use crate::{
    central::{
        self, Attestation, CertificateEntry, Client, DeviceAttestation, DeviceQuery, EnrollmentGroupId, Error,
        SigningCertificate, SymmetricKeys,
    },
    certificate::DeviceId,
    dps::device::{
        DeviceState, EnrolledCertificate, EnrollmentState, GroupAttestation, GroupState, OwnAttestation, SymmetricKey,
    },
};

/// Reads the enrollment groups of an application and its ID scope.
pub(super) async fn read_groups(client: &Client) -> Result<EnrollmentState, Error> {
    let mut groups = Vec::new();
    let listed: Vec<_> = client.enrollment_groups().list().try_collect().await?;
    for group in listed {
        let attestation = match group.attestation {
            Attestation::X509 { primary, secondary } => {
                let mut entries = Vec::new();
                let listed = [(CertificateEntry::Primary, primary), (CertificateEntry::Secondary, secondary)];
                for (entry, listed) in listed {
                    let found = match listed {
                        Some(listed) => Some(listed),
                        None => client.enrollment_groups().find_certificate(&group.id, entry).await?,
                    };
                    entries.extend(found.and_then(|found| enrolled(&group.id, group.enabled, entry, &found)));
                }
                GroupAttestation::X509(entries)
            }
            Attestation::SymmetricKey(keys) => GroupAttestation::SymmetricKey(keys.map(read_keys).unwrap_or_default()),
            Attestation::Other(_) => GroupAttestation::Other,
        };
        groups.push(GroupState { id: group.id.to_string(), enabled: group.enabled, attestation });
    }
    // The API shows the ID scope only in the credentials of a device.
    let query = DeviceQuery { limit: Some(1), ..DeviceQuery::default() };
    let any: Vec<_> = client.devices().list(&query).try_collect().await?;
    let mut id_scope = None;
    if let Some(device) = any.first() {
        id_scope = client.devices().credentials(&device.id).await?.id_scope.parse().ok();
    }
    Ok(EnrollmentState { id_scope, ..EnrollmentState::new(groups) })
}

/// Reads the state of a device, and adds it to that of its application.
pub(super) async fn read_device(
    client: &Client,
    state: &EnrollmentState,
    id: &DeviceId,
) -> Result<EnrollmentState, Error> {
    let id = central::CentralDeviceId::from(id.clone());
    let devices = client.devices();
    let Some(device) = devices.find(&id).await? else { return Ok(EnrollmentState { device: None, ..state.clone() }) };
    let attestation = devices.find_attestation(&id).await?;
    let credentials = devices.credentials(&id).await?;
    let own = attestation.as_ref().map(|attestation| match attestation {
        DeviceAttestation::X509(certificates) => {
            let certificates = [&certificates.primary, &certificates.secondary];
            OwnAttestation::X509(certificates.into_iter().flatten().filter_map(|it| it.sha1_thumbprint).collect())
        }
        other => OwnAttestation::Other(other.kind().to_owned()),
    });
    let keys = match attestation {
        Some(DeviceAttestation::SymmetricKey(Some(own))) => read_keys(own),
        _ => credentials.symmetric_key.map(read_keys).unwrap_or_default(),
    };
    let device = DeviceState { enabled: device.enabled, attestation: own, keys };
    Ok(EnrollmentState {
        groups: Arc::clone(&state.groups),
        id_scope: credentials.id_scope.parse().ok().or_else(|| state.id_scope.clone()),
        device: Some(Arc::new(device)),
        unreferenced: Arc::clone(&state.unreferenced),
    })
}

fn enrolled(
    group: &EnrollmentGroupId,
    enabled: bool,
    entry: CertificateEntry,
    found: &SigningCertificate,
) -> Option<EnrolledCertificate> {
    let thumbprint = found.sha1_thumbprint?;
    Some(EnrolledCertificate {
        group: group.to_string(),
        entry: entry.to_string(),
        thumbprint,
        verified: found.verified,
        enabled,
    })
}

/// Returns the keys that are valid base64.
fn read_keys(keys: SymmetricKeys) -> Vec<SymmetricKey> {
    let keys = [keys.primary_key, keys.secondary_key];
    keys.iter().filter_map(|key| SymmetricKey::from_base64(key.expose()).ok()).collect()
}
