//! What an IoT Central application has enrolled, as far as it tells: the other half of a diagnosis.

use std::{fmt, sync::Arc};

use futures_util::TryStreamExt;
use secrecy::ExposeSecret;

use super::{IdScope, OwnAttestation, SymmetricKey};
use crate::{
    central::{
        self, Attestation, CertificateEntry, Client, DeviceAttestation, DeviceQuery, EnrollmentGroupId,
        SigningCertificate, SymmetricKeys,
    },
    certificate::{DeviceId, Thumbprint},
};

/// What lets devices into an application: its enrollment groups, its id scope, and what it knows of one device.
///
/// The groups are read once; [`of_device`](Self::of_device) then reads one device's state.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Application {
    /// Its enrollment groups.
    pub groups: Arc<[GroupState]>,
    /// Its id scope. Known where it has any device.
    pub id_scope: Option<IdScope>,
    /// The device, where it is there.
    pub device: Option<Arc<DeviceState>>,
}

/// An enrollment group, as far as it decides who is let in.
#[derive(Debug)]
#[non_exhaustive]
pub struct GroupState {
    /// Its id.
    pub id: EnrollmentGroupId,
    /// Whether devices may connect through it.
    pub enabled: bool,
    /// What proves that a device belongs to it.
    pub proof: ProofKind,
}

/// What proves that a device belongs to a group.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProofKind {
    /// A chain to one of these certificates.
    X509(Vec<EnrolledCertificate>),
    /// A key derived from one of these.
    SymmetricKey(Vec<SymmetricKey>),
    /// Something later than this client.
    Other,
}

/// A certificate in an entry of an enrollment group. The service does not give the certificate back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnrolledCertificate {
    /// The group.
    pub group: EnrollmentGroupId,
    /// The entry.
    pub entry: CertificateEntry,
    /// Its SHA-1 thumbprint.
    pub thumbprint: Thumbprint,
    /// Whether possession of its key was proven or attested.
    pub verified: bool,
    /// Whether the group is enabled.
    pub enabled: bool,
}

/// A device, as far as it decides whether it is let in.
#[derive(Debug)]
#[non_exhaustive]
pub struct DeviceState {
    /// Whether it may connect.
    pub enabled: bool,
    /// The attestation of its own, where it has one.
    pub attestation: Option<OwnAttestation>,
    /// Its symmetric keys, where it has any: those of its own attestation, or those of its credentials.
    pub keys: Vec<SymmetricKey>,
}

impl Application {
    /// Reads the groups and the id scope.
    ///
    /// # Errors
    /// [`central::Error`]
    pub async fn read(client: &Client) -> Result<Self, central::Error> {
        let mut groups = Vec::new();
        let listed: Vec<_> = client.enrollment_groups().list().try_collect().await?;
        for group in listed {
            let proof = match group.attestation {
                Attestation::X509 { primary, secondary } => {
                    let mut entries = Vec::new();
                    let told = [(CertificateEntry::Primary, primary), (CertificateEntry::Secondary, secondary)];
                    for (entry, told) in told {
                        let found = match told {
                            Some(told) => Some(told),
                            None => client.enrollment_groups().find_certificate(&group.id, entry).await?,
                        };
                        entries.extend(found.and_then(|found| enrolled(&group.id, group.enabled, entry, &found)));
                    }
                    ProofKind::X509(entries)
                }
                Attestation::SymmetricKey(keys) => ProofKind::SymmetricKey(keys.map(read_keys).unwrap_or_default()),
                Attestation::Other(_) => ProofKind::Other,
            };
            groups.push(GroupState { id: group.id, enabled: group.enabled, proof });
        }
        // Any device's credentials name the scope, and nothing else of the API does.
        let query = DeviceQuery { limit: Some(1), ..DeviceQuery::default() };
        let any: Vec<_> = client.devices().list(&query).try_collect().await?;
        let mut id_scope = None;
        if let Some(device) = any.first() {
            id_scope = client.devices().credentials(&device.id).await?.id_scope.parse().ok();
        }
        Ok(Self { groups: groups.into(), id_scope, device: None })
    }

    /// The same with the state of a device.
    ///
    /// # Errors
    /// [`central::Error`]
    pub async fn of_device(&self, client: &Client, id: &DeviceId) -> Result<Self, central::Error> {
        let id = central::DeviceId::from(id.clone());
        let devices = client.devices();
        let Some(device) = devices.find(&id).await? else { return Ok(Self { device: None, ..self.clone() }) };
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
        Ok(Self {
            groups: Arc::clone(&self.groups),
            id_scope: credentials.id_scope.parse().ok().or_else(|| self.id_scope.clone()),
            device: Some(Arc::new(device)),
        })
    }

    /// The signing certificates of all groups.
    pub(super) fn enrolled(&self) -> Vec<EnrolledCertificate> {
        let entries = self.groups.iter().filter_map(|group| match &group.proof {
            ProofKind::X509(entries) => Some(entries),
            _ => None,
        });
        entries.flatten().cloned().collect()
    }
}

fn enrolled(
    group: &EnrollmentGroupId,
    enabled: bool,
    entry: CertificateEntry,
    found: &SigningCertificate,
) -> Option<EnrolledCertificate> {
    let thumbprint = found.sha1_thumbprint?;
    Some(EnrolledCertificate { group: group.clone(), entry, thumbprint, verified: found.verified, enabled })
}

/// Those of the keys that are keys; the others are of no use here.
fn read_keys(keys: SymmetricKeys) -> Vec<SymmetricKey> {
    let keys = [keys.primary_key, keys.secondary_key];
    keys.iter().filter_map(|key| SymmetricKey::from_base64(key.expose_secret()).ok()).collect()
}

impl fmt::Display for EnrolledCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} of {})", self.thumbprint, self.entry, self.group)
    }
}
