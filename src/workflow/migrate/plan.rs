//! What a plan says.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::fingerprint::KeyFingerprint;
use crate::{
    arm::{InstanceName, ResourceGroupName, SubscriptionId},
    central::{CentralDeviceId, DeviceType, EnrollmentGroupId},
    certificate::{Thumbprint, Timestamp},
    dps::DpsCertificateName,
    transport::{Secret, SymmetricKeys},
};

/// The version of the form of plans that this library writes and reads.
pub const PLAN_VERSION: u32 = 1;

/// Everything of a plan but its devices.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlanHeader {
    /// The version of the form: [`PLAN_VERSION`].
    pub version: u32,
    /// The random ID of the plan. Results files name it, and key fingerprints depend on it.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Where the devices come from.
    pub application: PlannedApplication,
    /// Where they go.
    pub instance: PlannedInstance,
    /// Whether the plan contains symmetric keys. If not, they are read again from the application.
    pub includes_keys: bool,
    /// The CA certificates of the application's enrollment groups.
    pub certificates: Vec<PlannedCertificate>,
    /// The enrollment groups of the application.
    pub groups: Vec<PlannedGroup>,
    /// The number of devices of each kind.
    pub counts: DeviceCounts,
}

/// The IoT Central application of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedApplication {
    /// Its address, such as `https://contoso.azureiotcentral.com`.
    pub endpoint: String,
    /// Its ID scope, if a device told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_scope: Option<String>,
}

/// The DPS instance of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedInstance {
    /// Its name.
    pub name: InstanceName,
    /// The subscription that it belongs to.
    pub subscription: SubscriptionId,
    /// The resource group that it belongs to.
    pub resource_group: ResourceGroupName,
    /// The new ID scope of the devices.
    pub id_scope: String,
    /// The address of its service API.
    pub service_endpoint: String,
    /// The address at which devices register.
    pub device_endpoint: String,
    /// The host names of its linked hubs.
    pub iot_hubs: Vec<String>,
}

/// A CA certificate of the application's groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedCertificate {
    /// Its thumbprint, which is all that the application tells.
    pub sha1_thumbprint: Thumbprint,
    /// Its subject, if its file or the instance tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The file of its private key, which proves possession.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Its name in the instance: the one that it has there, or the one that it is to get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<DpsCertificateName>,
    /// What is to be done.
    pub action: CertificateAction,
    /// Why it cannot be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<CertificateObstacle>,
}

/// What is to be done for a CA certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum CertificateAction {
    /// The instance has it, and it is verified: nothing.
    Present,
    /// The instance has it: prove possession of its key.
    Verify,
    /// Upload it, and prove possession of its key.
    Upload,
    /// Upload it as verified, which has to be allowed, because its key is not at hand.
    Attest,
    /// Nothing, because of the obstacle.
    None,
}

/// Why a CA certificate cannot be moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum CertificateObstacle {
    /// Neither the instance nor a file has the certificate.
    NoFile,
    /// The instance would have more certificates than it can have.
    TooMany,
}

impl fmt::Display for CertificateObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFile => "no file in the directory of CAs has this certificate",
            Self::TooMany => "the instance would have more than 25 CA certificates",
        })
    }
}

/// An enrollment group of the application.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedGroup {
    /// Its ID, at the application and at the instance.
    pub id: EnrollmentGroupId,
    /// Its name at the application. Groups of an instance have none.
    pub display_name: String,
    /// Whether devices can connect through it.
    pub enabled: bool,
    /// The type of its devices.
    #[serde(rename = "type")]
    pub device_type: DeviceType,
    /// How its devices prove their identity.
    pub attestation: GroupAttestation,
    /// The number of devices that are known to come through it. That of an X.509 group is not known: the application does
    /// not tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<u64>,
    /// What is to be done.
    pub action: GroupAction,
    /// Why it cannot be done, or only in part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obstacles: Vec<GroupObstacle>,
}

/// How the devices of a group prove their identity.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
#[non_exhaustive]
pub enum GroupAttestation {
    /// With certificates under one of these.
    X509 {
        /// The primary one.
        #[serde(skip_serializing_if = "Option::is_none")]
        primary: Option<PlannedEntry>,
        /// The secondary one.
        #[serde(skip_serializing_if = "Option::is_none")]
        secondary: Option<PlannedEntry>,
    },
    /// With keys that are derived from one of these.
    SymmetricKey(PlannedKeys),
    /// In another way, or with keys that the application does not tell.
    Other {
        /// The kind as the application writes it.
        name: String,
    },
}

/// An entry of an X.509 group that holds a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedEntry {
    /// The certificate: one of the plan's.
    pub sha1_thumbprint: Thumbprint,
    /// Whether it is verified at the application. One that is not admits no device, and is not moved.
    pub verified: bool,
}

/// A pair of symmetric keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedKeys {
    /// Their fingerprint, by which a change is noticed.
    pub fingerprint: KeyFingerprint,
    /// The keys themselves, only in a plan that includes keys.
    #[serde(default, with = "included", skip_serializing_if = "Option::is_none")]
    pub keys: Option<SymmetricKeys>,
}

/// The only place where keys are written: a plan that was asked to include them.
mod included {
    use serde::{Deserializer, Serializer};

    use super::{Deserialize, Secret, Serialize, SymmetricKeys};

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Written<'a> {
        primary_key: &'a str,
        secondary_key: &'a str,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Read {
        primary_key: Secret,
        secondary_key: Secret,
    }

    #[expect(clippy::ref_option, reason = "serde calls it this way")]
    pub(super) fn serialize<S: Serializer>(keys: &Option<SymmetricKeys>, serializer: S) -> Result<S::Ok, S::Error> {
        let written = keys
            .as_ref()
            .map(|keys| Written { primary_key: keys.primary_key.expose(), secondary_key: keys.secondary_key.expose() });
        written.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SymmetricKeys>, D::Error> {
        let read = Option::<Read>::deserialize(deserializer)?;
        Ok(read.map(|Read { primary_key, secondary_key }| SymmetricKeys { primary_key, secondary_key }))
    }
}

/// What is to be done for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum GroupAction {
    /// Create it.
    Create,
    /// The instance has a group of this ID: bring its references up to date, or check its keys.
    Check,
    /// Nothing, because of the obstacles.
    None,
}

/// Why a group cannot be moved, or only in part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "camelCase")]
#[non_exhaustive]
pub enum GroupObstacle {
    /// The service does not accept its ID.
    IdRefused,
    /// Another group of the application has the same ID but for case.
    IdCollision {
        /// The other ID.
        other: String,
    },
    /// The instance has a group of this ID with another kind of attestation.
    OtherKind {
        /// The kind at the instance.
        found: String,
    },
    /// One of its certificates cannot be moved.
    Certificate {
        /// The certificate.
        #[serde(rename = "sha1Thumbprint")]
        sha1_thumbprint: Thumbprint,
    },
    /// A certificate is not verified at the application, so no device connects by it. It is not moved.
    NotVerified {
        /// The certificate.
        #[serde(rename = "sha1Thumbprint")]
        sha1_thumbprint: Thumbprint,
    },
    /// It has no certificate that admits devices.
    NoCertificate,
    /// Another group has the same CA, and an instance accepts a CA in one group only.
    SharedCertificate {
        /// The certificate.
        #[serde(rename = "sha1Thumbprint")]
        sha1_thumbprint: Thumbprint,
        /// The other group, at the application or the instance.
        other: String,
    },
    /// The instance would have more groups of this kind of attestation than it can have.
    TooMany,
    /// Its devices prove their identity in a way that cannot be moved.
    OtherAttestation {
        /// The kind as the application writes it.
        name: String,
    },
}

impl GroupObstacle {
    /// Returns whether the group is moved all the same, without a part of it.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        matches!(self, Self::NotVerified { .. } | Self::Certificate { .. } | Self::SharedCertificate { .. })
    }
}

impl fmt::Display for GroupObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IdRefused => f.write_str("the service does not accept its ID"),
            Self::IdCollision { other } => {
                write!(f, "the ID of group {other} differs only in case, and only the first, {other}, is moved")
            }
            Self::OtherKind { found } => write!(f, "the instance has a group of this ID, for attestation by {found}"),
            Self::Certificate { sha1_thumbprint } => write!(f, "its CA {sha1_thumbprint} cannot be moved"),
            Self::NotVerified { sha1_thumbprint } => {
                write!(f, "its CA {sha1_thumbprint} is not verified at the application, so it is not moved")
            }
            Self::NoCertificate => f.write_str("no CA is left that admits devices"),
            Self::SharedCertificate { sha1_thumbprint, other } => {
                write!(f, "group {other} has the CA {sha1_thumbprint} too, and a CA can be in one group only")
            }
            Self::TooMany => f.write_str("the instance would have more than 100 groups of this kind"),
            Self::OtherAttestation { name } => write!(f, "attestation by {name} cannot be moved"),
        }
    }
}

/// A device of the application.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlannedDevice {
    /// Its ID, at the application and at the instance.
    pub id: CentralDeviceId,
    /// Whether it may connect.
    pub enabled: bool,
    /// Whether it has connected to the application.
    pub provisioned: bool,
    /// Whether it runs IoT Edge, if the application tells it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub iot_edge: bool,
    /// How the application admits it.
    pub admission: DeviceAdmission,
    /// What is to be done.
    pub action: DeviceAction,
    /// Why nothing can be done, or what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<DeviceObstacle>,
}

/// How the application admits a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
#[non_exhaustive]
pub enum DeviceAdmission {
    /// By a key that is derived from the keys of a group.
    SymmetricGroup {
        /// The group.
        group: EnrollmentGroupId,
        /// The keys of the device itself: only for a disabled device, which needs an individual enrollment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keys: Option<PlannedKeys>,
    },
    /// By an X.509 group, as far as can be told: it has no attestation of its own, and its key comes from no group. Which
    /// group it is, only the device's certificate tells.
    X509Group {
        /// The certificate of a disabled device, if a file in the directory of CAs has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<PathBuf>,
    },
    /// By keys of its own.
    SymmetricKey(PlannedKeys),
    /// By certificates of its own.
    X509 {
        /// The primary one.
        #[serde(skip_serializing_if = "Option::is_none")]
        primary: Option<Thumbprint>,
        /// The secondary one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secondary: Option<Thumbprint>,
        /// The files of those that are at hand, in the same order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<PathBuf>,
    },
    /// By a TPM.
    Tpm {
        /// The endorsement key, which is public.
        #[serde(rename = "endorsementKey")]
        endorsement_key: String,
    },
    /// In a way that is not known.
    Other {
        /// The kind as the application writes it.
        name: String,
    },
    /// Not at all, because the application simulates it.
    Simulated,
}

/// What is to be done for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum DeviceAction {
    /// Nothing: a group admits it.
    Covered,
    /// Create an individual enrollment, which is disabled if the device is.
    Enroll,
    /// Nothing, because of the obstacle.
    None,
}

/// Why a device cannot be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum DeviceObstacle {
    /// The application simulates it: there is no device.
    Simulated,
    /// The service does not accept its ID, or not with a certificate.
    IdRefused,
    /// The ID of another device of the application differs only in case.
    IdCollision,
    /// Its own certificate is not at hand, and the application tells only the thumbprint.
    NoCertificate,
    /// It is disabled, and its group would admit it: an individual enrollment that blocks it needs its certificate.
    DisabledWithoutCertificate,
    /// Its group is not moved.
    GroupNotMoved,
    /// Its group is disabled, so neither service admits it.
    GroupDisabled,
    /// The application tells no keys.
    NoKeys,
    /// It proves its identity in a way that cannot be moved.
    OtherAttestation,
    /// One of its two certificates is not at hand. It is enrolled with the other only.
    OneCertificate,
    /// The instance has another individual enrollment of its ID.
    OtherEnrollment,
}

impl DeviceObstacle {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 11] = [
        Self::IdRefused,
        Self::IdCollision,
        Self::NoCertificate,
        Self::OneCertificate,
        Self::DisabledWithoutCertificate,
        Self::GroupNotMoved,
        Self::GroupDisabled,
        Self::NoKeys,
        Self::OtherAttestation,
        Self::OtherEnrollment,
        Self::Simulated,
    ];
}

impl fmt::Display for DeviceObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Simulated => "simulated by the application: there is no device to move",
            Self::IdRefused => "DPS does not accept the ID",
            Self::IdCollision => "the ID of another device differs only in case",
            Self::NoCertificate => {
                "has a certificate of its own, and no file has it: the application tells its thumbprint only"
            }
            Self::DisabledWithoutCertificate => {
                "disabled, but its X.509 group would admit it: no file has its certificate, which blocking it needs"
            }
            Self::GroupNotMoved => "its enrollment group is not moved",
            Self::GroupDisabled => "its enrollment group is disabled, so neither service admits it",
            Self::NoKeys => "the application tells no keys of it",
            Self::OtherAttestation => "attestation of a kind that cannot be moved",
            Self::OneCertificate => "no file has one of its two certificates: it is enrolled with the other only",
            Self::OtherEnrollment => {
                "the instance has another individual enrollment of this ID, which takes precedence over a group"
            }
        })
    }
}

/// The number of devices of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct DeviceCounts {
    /// All devices of the application.
    pub total: u64,
    /// Those that a group admits.
    pub covered: u64,
    /// Those among these that are taken to be in an X.509 group, because they have neither an attestation of their own nor a
    /// key of a group.
    pub presumed: u64,
    /// Those that get an individual enrollment.
    pub enroll: u64,
    /// Those among these that are disabled.
    pub disabled: u64,
    /// Those among these that the instance has an individual enrollment of already.
    pub present: u64,
    /// Those that are not moved.
    pub not_moved: u64,
}

impl DeviceCounts {
    pub(super) fn add(&mut self, device: &PlannedDevice) {
        self.total += 1;
        match device.action {
            DeviceAction::Covered => {
                self.covered += 1;
                self.presumed += u64::from(matches!(device.admission, DeviceAdmission::X509Group { .. }));
            }
            DeviceAction::Enroll => {
                self.enroll += 1;
                self.disabled += u64::from(!device.enabled);
            }
            DeviceAction::None => self.not_moved += 1,
        }
    }
}
