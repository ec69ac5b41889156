//! The two entries of an enrollment group, primary and secondary, between which it rolls over.

use serde::Serialize;

use super::{record::thumbprint_text, rollover_error::RolloverError, service::GroupId};
use crate::{central::CertificateEntry, certificate::Thumbprint, dps::DpsCertificateName};

/// What an entry of an enrollment group holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct EntryState {
    /// The entry.
    pub entry: CertificateEntry,
    /// Whether its certificate is verified.
    pub verified: bool,
    /// The thumbprint of its certificate; none if it is empty.
    #[serde(serialize_with = "thumbprint_text")]
    pub sha1_thumbprint: Option<Thumbprint>,
    /// The name of its certificate in the DPS instance, which may not exist; none at IoT Central.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_name: Option<DpsCertificateName>,
}

impl EntryState {
    pub(super) fn empty(entry: CertificateEntry) -> Self {
        Self { entry, verified: false, sha1_thumbprint: None, certificate_name: None }
    }

    /// Returns whether it holds nothing, not even a name.
    pub(super) fn is_empty(&self) -> bool {
        self.sha1_thumbprint.is_none() && self.certificate_name.is_none()
    }

    /// Returns whether no device connects by it. It may have the name of a certificate that does not exist.
    pub(super) fn is_free(&self) -> bool {
        self.sha1_thumbprint.is_none()
    }

    /// Returns whether it holds this certificate. Nothing holds a certificate that does not exist yet.
    pub(super) fn holds(&self, ours: Option<Thumbprint>) -> bool {
        ours.is_some() && self.sha1_thumbprint == ours
    }
}

/// Both entries of an enrollment group.
#[derive(Debug)]
pub(super) struct Entries {
    pub(super) group: GroupId,
    /// Whether the group is enabled.
    pub(super) is_enabled: bool,
    pub(super) primary: EntryState,
    pub(super) secondary: EntryState,
}

impl Entries {
    pub(super) fn state(&self, entry: CertificateEntry) -> &EntryState {
        match entry {
            CertificateEntry::Primary => &self.primary,
            CertificateEntry::Secondary => &self.secondary,
        }
    }

    /// Returns the entry for the new certificate: the one that already holds it, or the empty one. The other entry has to
    /// be verified.
    pub(super) fn free_for(&self, ours: Option<Thumbprint>) -> Result<CertificateEntry, RolloverError> {
        let group = || self.group.clone();
        let (to, from) = match (&self.primary, &self.secondary) {
            (to, from) if to.holds(ours) => (to, from),
            (from, to) if to.holds(ours) => (to, from),
            (from, to) if to.is_free() => (to, from),
            (to, from) if to.is_free() => (to, from),
            _ => return Err(RolloverError::BothTaken { group: group() }),
        };
        match ours {
            _ if from.verified => Ok(to.entry),
            Some(ours) if to.holds(Some(ours)) && (to.verified || from.is_free()) => {
                Err(RolloverError::OnlyCertificate { group: group(), entry: to.entry, ours })
            }
            _ => Err(RolloverError::NotVerified { group: group() }),
        }
    }

    /// Returns the entry that holds this certificate, which has to be verified.
    pub(super) fn holding(&self, thumbprint: Thumbprint) -> Result<EntryState, RolloverError> {
        let found = [&self.primary, &self.secondary].into_iter().find(|it| it.holds(Some(thumbprint)));
        match found {
            Some(state) if state.verified => Ok(state.clone()),
            found => Err(RolloverError::Needed {
                group: self.group.clone(),
                thumbprint,
                entry: found.map(|state| state.entry),
            }),
        }
    }
}
