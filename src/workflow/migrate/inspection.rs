//! What the application tells about one device: how it is admitted.
//!
//! A device costs one request if a group's keys made its key, which its credentials tell, and otherwise a second one for its
//! individual attestation, which groups' devices do not have. In an application without symmetric-key groups the second one
//! is enough. A simulated device costs none.

use super::{
    fingerprint::KeyFingerprint,
    plan::{DeviceAction, DeviceAdmission, PlannedDevice, PlannedKeys},
};
use crate::{
    central::{CentralDeviceId, ClientCertificates, DeviceAttestation, DeviceCredentials, Devices, EnrollmentGroupId},
    dps::device::{SymmetricKey, derive_key},
    transport::{Error, SymmetricKeys},
};

/// A symmetric-key group, with its keys.
pub(super) struct SymmetricGroup {
    pub(super) id: EnrollmentGroupId,
    keys: Vec<SymmetricKey>,
}

impl SymmetricGroup {
    pub(super) fn new(id: EnrollmentGroupId, keys: &SymmetricKeys) -> Self {
        Self { id, keys: read_keys(keys) }
    }

    /// Returns whether one of these keys is derived from one of the group's. The application writes the ID in lower case
    /// for that, and devices may write it as it is.
    fn derives(&self, id: &str, keys: &[SymmetricKey]) -> bool {
        let lower = id.to_ascii_lowercase();
        let spellings = if lower == id { vec![id] } else { vec![id, lower.as_str()] };
        self.keys.iter().any(|group| spellings.iter().any(|id| keys.contains(&derive_key(group, id))))
    }
}

/// Returns the keys that are valid base64.
fn read_keys(keys: &SymmetricKeys) -> Vec<SymmetricKey> {
    let keys = [&keys.primary_key, &keys.secondary_key];
    keys.into_iter().filter_map(|key| SymmetricKey::from_base64(key.expose()).ok()).collect()
}

/// A device, as the list of the application shows it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct ListedDevice {
    pub(super) id: CentralDeviceId,
    pub(super) enabled: bool,
    pub(super) provisioned: bool,
    pub(super) simulated: bool,
    pub(super) iot_edge: bool,
}

impl ListedDevice {
    /// Returns what has to be the same for an earlier inspection to hold.
    pub(super) fn flags(&self) -> [bool; 4] {
        [self.enabled, self.provisioned, self.simulated, self.iot_edge]
    }
}

/// Returns the same of a device that was inspected.
pub(super) fn inspected_flags(device: &PlannedDevice) -> [bool; 4] {
    let is_simulated = matches!(device.admission, DeviceAdmission::Simulated);
    [device.enabled, device.provisioned, is_simulated, device.iot_edge]
}

/// Reads how devices are admitted.
pub(super) struct Inspector {
    pub(super) devices: Devices,
    pub(super) plan_id: String,
    pub(super) include_keys: bool,
    pub(super) groups: Vec<SymmetricGroup>,
    pub(super) has_x509_groups: bool,
}

/// A device that was inspected.
pub(super) struct Inspection {
    pub(super) device: PlannedDevice,
    /// The ID scope of the application, if the device told it.
    pub(super) id_scope: Option<String>,
}

/// What the application tells of a device's identity.
pub(super) struct Identity {
    pub(super) admission: DeviceAdmission,
    /// The keys of the device itself, if it has any.
    pub(super) keys: Option<SymmetricKeys>,
    id_scope: Option<String>,
}

impl Inspector {
    /// Inspects a device. Returns nothing if it does not exist any more.
    pub(super) async fn inspect(&self, listed: &ListedDevice) -> Result<Option<Inspection>, Error> {
        let (admission, id_scope) = if listed.simulated {
            (DeviceAdmission::Simulated, None)
        } else {
            match self.identify(&listed.id, listed.enabled).await {
                Ok(Identity { admission, id_scope, .. }) => (admission, id_scope),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        let device = PlannedDevice {
            id: listed.id.clone(),
            enabled: listed.enabled,
            provisioned: listed.provisioned,
            iot_edge: listed.iot_edge,
            admission,
            // Decided when all are known.
            action: DeviceAction::None,
            obstacle: None,
        };
        Ok(Some(Inspection { device, id_scope }))
    }

    /// Reads how a device is admitted. It is not found if it does not exist.
    pub(super) async fn identify(&self, id: &CentralDeviceId, enabled: bool) -> Result<Identity, Error> {
        let mut credentials = None;
        if !self.groups.is_empty() {
            let found = self.devices.credentials(id).await?;
            if let Some(identity) = self.by_group(id, enabled, &found) {
                return Ok(identity);
            }
            credentials = Some(found);
        }
        match self.devices.find_attestation(id).await? {
            Some(attestation) => self.by_attestation(id, attestation, credentials).await,
            None if self.has_x509_groups => {
                if credentials.is_none() {
                    // "Not found" may mean the device too, but it was listed.
                    return Ok(Identity::without_keys(DeviceAdmission::X509Group { file: None }, None));
                }
                let scope = credentials.map(|found| found.id_scope);
                Ok(Identity::without_keys(DeviceAdmission::X509Group { file: None }, scope))
            }
            None => self.by_own_key(id, credentials).await,
        }
    }

    /// Returns the group whose keys made the device's.
    fn by_group(&self, id: &CentralDeviceId, enabled: bool, found: &DeviceCredentials) -> Option<Identity> {
        let keys = found.symmetric_key.as_ref()?;
        let own = read_keys(keys);
        let group = self.groups.iter().find(|group| group.derives(id.as_str(), &own))?;
        let planned = (!enabled).then(|| self.planned(keys));
        Some(Identity {
            admission: DeviceAdmission::SymmetricGroup { group: group.id.clone(), keys: planned },
            keys: Some(keys.clone()),
            id_scope: Some(found.id_scope.clone()),
        })
    }

    async fn by_attestation(
        &self,
        id: &CentralDeviceId,
        attestation: DeviceAttestation,
        credentials: Option<DeviceCredentials>,
    ) -> Result<Identity, Error> {
        let scope = credentials.as_ref().map(|found| found.id_scope.clone());
        let admission = match attestation {
            DeviceAttestation::SymmetricKey(Some(keys)) => return Ok(self.own(keys, scope)),
            DeviceAttestation::SymmetricKey(None) => return self.by_own_key(id, credentials).await,
            DeviceAttestation::X509(ClientCertificates { primary, secondary, .. }) => {
                let thumbprint = |found: Option<crate::central::ClientCertificate>| found?.sha1_thumbprint;
                DeviceAdmission::X509 {
                    primary: thumbprint(primary),
                    secondary: thumbprint(secondary),
                    files: Vec::new(),
                }
            }
            DeviceAttestation::Tpm(Some(key)) => DeviceAdmission::Tpm { endorsement_key: key.expose().to_owned() },
            other => DeviceAdmission::Other { name: other.kind().to_owned() },
        };
        Ok(Identity::without_keys(admission, scope))
    }

    /// Returns the keys that the application shows for the device.
    async fn by_own_key(
        &self,
        id: &CentralDeviceId,
        credentials: Option<DeviceCredentials>,
    ) -> Result<Identity, Error> {
        let credentials = match credentials {
            Some(credentials) => credentials,
            None => self.devices.credentials(id).await?,
        };
        let scope = Some(credentials.id_scope);
        Ok(match credentials.symmetric_key {
            Some(keys) => self.own(keys, scope),
            None => Identity::without_keys(DeviceAdmission::Other { name: "unknown".to_owned() }, scope),
        })
    }

    fn own(&self, keys: SymmetricKeys, id_scope: Option<String>) -> Identity {
        Identity { admission: DeviceAdmission::SymmetricKey(self.planned(&keys)), keys: Some(keys), id_scope }
    }

    fn planned(&self, keys: &SymmetricKeys) -> PlannedKeys {
        PlannedKeys {
            fingerprint: KeyFingerprint::new(&self.plan_id, keys),
            keys: self.include_keys.then(|| keys.clone()),
        }
    }
}

impl Identity {
    fn without_keys(admission: DeviceAdmission, id_scope: Option<String>) -> Self {
        Self { admission, keys: None, id_scope }
    }
}
