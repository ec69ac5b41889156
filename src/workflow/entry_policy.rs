//! Which entry of an enrollment group a CA goes to, and what must not be there. The rules are the same for every service.

use super::{
    entries::{Entries, EntryState},
    error::ProvisionError,
    service::GroupId,
    trust_anchor::AnchorState,
};
use crate::{central::CertificateEntry, certificate::Thumbprint};

/// What was requested for the entry of a CA.
#[derive(Debug)]
pub(super) struct EntryPolicy {
    pub(super) group: GroupId,
    /// The entry that was requested.
    pub(super) requested: Option<CertificateEntry>,
    /// Whether another certificate in the entry may be overwritten.
    pub(super) replace: bool,
    /// Whether another verified CA may be in the other entry.
    pub(super) add_ca: bool,
}

impl EntryPolicy {
    pub(super) fn new(group: GroupId, requested: Option<CertificateEntry>) -> Self {
        Self { group, requested, replace: false, add_ca: false }
    }

    /// Returns the entry for a CA that no entry holds.
    pub(super) fn default_entry(&self) -> CertificateEntry {
        self.requested.unwrap_or(CertificateEntry::Primary)
    }

    /// Chooses the entry that holds the CA, or else the requested or the primary one. Returns it with its state. Fails if
    /// the CA must not be enrolled there.
    pub(super) fn choose(
        &self,
        entries: &Entries,
        ours: Option<Thumbprint>,
    ) -> Result<(CertificateEntry, AnchorState), ProvisionError> {
        let first = self.default_entry();
        let (mut target, mut other) = (entries.state(first), entries.state(first.other()));
        if !target.holds(ours) && other.holds(ours) {
            if self.requested.is_some() {
                return Err(ProvisionError::InOtherEntry { group: self.group.clone(), entry: first, ours });
            }
            (target, other) = (other, target);
        }
        let EntryState { entry, verified, .. } = *target;
        let state = match target.sha1_thumbprint {
            None => AnchorState::Missing { is_taken: false },
            Some(_) if target.holds(ours) && verified => return Ok((entry, AnchorState::Verified)),
            Some(_) if target.holds(ours) => AnchorState::Uploaded,
            Some(found) if !self.replace => {
                let group = self.group.clone();
                return Err(ProvisionError::OtherCertificate { group, entry, verified, found, ours });
            }
            Some(_) => AnchorState::Missing { is_taken: true },
        };
        match other.sha1_thumbprint {
            Some(found) if other.verified && !self.add_ca => {
                Err(ProvisionError::BesideOther { group: self.group.clone(), entry, found, ours })
            }
            _ => Ok((entry, state)),
        }
    }
}
