//! What a service has enrolled, as far as it decides which devices may register: the other half of a diagnosis.

use std::{fmt, sync::Arc};

use super::{id_scope::IdScope, symmetric_key::SymmetricKey};
use crate::certificate::Thumbprint;

/// The attestation by a symmetric key, as the service calls it.
pub(super) const SYMMETRIC_KEY: &str = "symmetricKey";

/// What a service has enrolled: its enrollment groups, its ID scope, and what it knows of one device.
#[derive(Debug, Clone)]
pub struct EnrollmentState {
    /// Its enrollment groups.
    pub groups: Arc<[GroupState]>,
    /// Its id scope. Known where it has any device.
    pub id_scope: Option<IdScope>,
    /// The device, where it is there.
    pub device: Option<Arc<DeviceState>>,
}

/// An enrollment group, as far as it decides who is let in.
#[derive(Debug)]
pub struct GroupState {
    /// Its id.
    pub id: String,
    /// Whether devices may connect through it.
    pub enabled: bool,
    /// What proves that a device belongs to it.
    pub attestation: GroupAttestation,
}

/// What proves that a device belongs to a group.
#[derive(Debug)]
#[non_exhaustive]
pub enum GroupAttestation {
    /// A chain to one of these certificates.
    X509(Vec<EnrolledCertificate>),
    /// A key derived from one of these.
    SymmetricKey(Vec<SymmetricKey>),
    /// Something later than this client.
    Other,
}

/// A certificate in an entry of an enrollment group. The service does not give the certificate back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledCertificate {
    /// The group.
    pub group: String,
    /// The entry, such as `primary`.
    pub entry: String,
    /// Its SHA-1 thumbprint.
    pub thumbprint: Thumbprint,
    /// Whether possession of its key was proven or attested.
    pub verified: bool,
    /// Whether the group is enabled.
    pub enabled: bool,
}

/// A device, as far as it decides whether it is let in.
#[derive(Debug)]
pub struct DeviceState {
    /// Whether it may connect.
    pub enabled: bool,
    /// The attestation of its own, where it has one.
    pub attestation: Option<OwnAttestation>,
    /// Its symmetric keys, where it has any: those of its own attestation, or those of its credentials.
    pub keys: Vec<SymmetricKey>,
}

/// The attestation that a device has of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnAttestation {
    /// X.509 certificates with these SHA-1 thumbprints.
    X509(Vec<Thumbprint>),
    /// Another kind, as the service writes it.
    Other(String),
}

impl EnrollmentState {
    /// The signing certificates of all groups.
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
