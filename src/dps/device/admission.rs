//! The enrollment state of a service, which decides which devices can register. A diagnosis compares it with the
//! device.

use std::{fmt, sync::Arc};

use super::{id_scope::IdScope, symmetric_key::SymmetricKey};
use crate::certificate::Thumbprint;

/// The service's name of symmetric key attestation.
pub(super) const SYMMETRIC_KEY: &str = "symmetricKey";

/// The enrollment state of a service: its enrollment groups, its ID scope, and one device.
#[derive(Debug, Clone)]
pub struct EnrollmentState {
    /// The enrollment groups.
    pub groups: Arc<[GroupState]>,
    /// The ID scope, if known.
    pub id_scope: Option<IdScope>,
    /// The device, if it exists.
    pub device: Option<Arc<DeviceState>>,
}

/// The part of an enrollment group that decides which devices can register.
#[derive(Debug)]
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
pub struct DeviceState {
    /// Whether the device can connect.
    pub enabled: bool,
    /// The individual attestation, if the device has one.
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
    /// Returns the signing certificates of all groups.
    pub(super) fn enrolled(&self) -> Vec<EnrolledCertificate> {
        let entries = self.groups.iter().filter_map(|group| match &group.attestation {
            GroupAttestation::X509(entries) => Some(entries),
            _ => None,
        });
        entries.flatten().cloned().collect()
    }
}

impl fmt::Display for EnrolledCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} of {})", self.thumbprint, self.entry, self.group)
    }
}
