//! The enrollment state of a service, which decides which devices can register. A diagnosis compares it with the
//! device.

use std::{fmt, sync::Arc};

use super::{id_scope::IdScope, symmetric_key::SymmetricKey};
use crate::certificate::Thumbprint;

/// The service's name of symmetric key attestation.
pub(super) const SYMMETRIC_KEY: &str = "symmetricKey";

/// The enrollment state of a service: its enrollment groups, its ID scope, and one device.
///
/// `workflow::read_enrollment_state` reads that of an IoT Central application or a DPS instance. Build it for a test:
///
/// ```
/// use iot_enroll::{
///     certificate::Thumbprint,
///     dps::device::{DeviceState, EnrolledCertificate, EnrollmentState, GroupAttestation, GroupState},
/// };
///
/// let root: Thumbprint = "644543467786B60C14DFE6B7C968A1990CF63EAC".parse()?;
/// let entry = EnrolledCertificate::new("my-group", "primary", root).verified(true);
/// let group = GroupState::new("my-group", GroupAttestation::X509(vec![entry]));
/// let state = EnrollmentState::new([group]).id_scope("0ne00A1B2C3".parse()?).device(DeviceState::new().enabled(false));
/// # let _ = state;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EnrollmentState {
    /// The enrollment groups.
    pub groups: Arc<[GroupState]>,
    /// The ID scope, if known.
    pub id_scope: Option<IdScope>,
    /// The device, if it exists.
    pub device: Option<Arc<DeviceState>>,
    /// The CA certificates of the service that no group refers to, so that they admit no device: their names and SHA-1
    /// thumbprints. IoT Central has none.
    pub unreferenced: Arc<[(String, Thumbprint)]>,
}

/// The part of an enrollment group that decides which devices can register.
#[derive(Debug)]
#[non_exhaustive]
pub struct GroupState {
    /// The ID.
    pub id: String,
    /// Whether devices can register through it.
    pub enabled: bool,
    /// How devices prove that they belong to it.
    pub attestation: GroupAttestation,
}

/// How devices prove that they belong to a group.
#[derive(Debug)]
#[non_exhaustive]
pub enum GroupAttestation {
    /// With a chain to one of these certificates.
    X509(Vec<EnrolledCertificate>),
    /// With a key that is derived from one of these.
    SymmetricKey(Vec<SymmetricKey>),
    /// In a way that this client does not know.
    Other,
}

/// A certificate in an entry of an enrollment group. The service returns its thumbprint and not the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnrolledCertificate {
    /// The ID of the group.
    pub group: String,
    /// The entry, such as `primary`.
    pub entry: String,
    /// The SHA-1 thumbprint.
    pub thumbprint: Thumbprint,
    /// Whether possession of its key was proven or attested.
    pub verified: bool,
    /// Whether the group is enabled.
    pub enabled: bool,
}

/// The part of a device's state that decides whether it can register.
#[derive(Debug)]
#[non_exhaustive]
pub struct DeviceState {
    /// Whether the device can connect.
    pub enabled: bool,
    /// The individual attestation, if the device has one. At DPS it is that of an individual enrollment.
    pub attestation: Option<OwnAttestation>,
    /// The symmetric keys: those of its individual attestation, or else those of its credentials.
    pub keys: Vec<SymmetricKey>,
}

/// The individual attestation of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnAttestation {
    /// X.509 certificates with these SHA-1 thumbprints.
    X509(Vec<Thumbprint>),
    /// Another kind, as the service names it.
    Other(String),
}

impl EnrollmentState {
    /// Creates the state of a service with these enrollment groups, an unknown ID scope, and without the device.
    #[must_use]
    pub fn new(groups: impl IntoIterator<Item = GroupState>) -> Self {
        Self { groups: groups.into_iter().collect(), id_scope: None, device: None, unreferenced: Arc::default() }
    }

    /// Sets the CA certificates that no group refers to: their names and SHA-1 thumbprints.
    #[must_use]
    pub fn unreferenced(mut self, certificates: impl IntoIterator<Item = (String, Thumbprint)>) -> Self {
        self.unreferenced = certificates.into_iter().collect();
        self
    }

    /// Sets the ID scope.
    #[must_use]
    pub fn id_scope(mut self, id_scope: IdScope) -> Self {
        self.id_scope = Some(id_scope);
        self
    }

    /// Sets the device.
    #[must_use]
    pub fn device(mut self, device: DeviceState) -> Self {
        self.device = Some(Arc::new(device));
        self
    }

    /// Returns the signing certificates of all groups. Those of a disabled group are disabled.
    pub(super) fn enrolled(&self) -> Vec<EnrolledCertificate> {
        let mut enrolled = Vec::new();
        for group in &*self.groups {
            if let GroupAttestation::X509(entries) = &group.attestation {
                let entries = entries.iter().cloned();
                enrolled.extend(
                    entries.map(|entry| EnrolledCertificate { enabled: entry.enabled && group.enabled, ..entry }),
                );
            }
        }
        enrolled
    }
}

impl GroupState {
    /// Creates the state of an enabled group.
    #[must_use]
    pub fn new(id: impl Into<String>, attestation: GroupAttestation) -> Self {
        Self { id: id.into(), enabled: true, attestation }
    }

    /// Sets whether devices can register through the group.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }
}

impl EnrolledCertificate {
    /// Creates an entry of an enabled group. Possession of its key is not proven.
    #[must_use]
    pub fn new(group: impl Into<String>, entry: impl Into<String>, thumbprint: Thumbprint) -> Self {
        Self { group: group.into(), entry: entry.into(), thumbprint, verified: false, enabled: true }
    }

    /// Sets whether possession of its key was proven or attested.
    #[must_use]
    pub fn verified(mut self, verified: bool) -> Self {
        self.verified = verified;
        self
    }

    /// Sets whether the group is enabled.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }
}

impl DeviceState {
    /// Creates the state of an enabled device without an individual attestation or keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether the device can connect.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets the individual attestation.
    #[must_use]
    pub fn attestation(mut self, attestation: OwnAttestation) -> Self {
        self.attestation = Some(attestation);
        self
    }

    /// Sets the symmetric keys.
    #[must_use]
    pub fn keys(mut self, keys: impl IntoIterator<Item = SymmetricKey>) -> Self {
        self.keys = keys.into_iter().collect();
        self
    }
}

/// The state of an enabled device without an individual attestation or keys.
impl Default for DeviceState {
    fn default() -> Self {
        Self { enabled: true, attestation: None, keys: Vec::new() }
    }
}

impl fmt::Display for EnrolledCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} of {})", self.thumbprint, self.entry, self.group)
    }
}
