//! The two entries of an IoT Central enrollment group, between which it rolls over.

use serde::Serialize;

use super::{central_target::check_attestation, record::thumbprint_text, rollover_error::RolloverError};
use crate::{
    central::{CertificateEntry, Client, EnrollmentGroupId, SigningCertificate},
    certificate::Thumbprint,
};

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
}

/// Both entries of an enrollment group.
pub(super) struct Entries<'a> {
    group: &'a EnrollmentGroupId,
    pub(super) is_enabled: bool,
    primary: EntryState,
    secondary: EntryState,
}

impl<'a> Entries<'a> {
    pub(super) async fn read(client: &Client, group: &'a EnrollmentGroupId) -> Result<Self, RolloverError> {
        let groups = client.enrollment_groups();
        let found = groups.get(group).await?;
        check_attestation(&found)?;
        let state = |entry, content: Option<SigningCertificate>| EntryState {
            entry,
            verified: content.as_ref().is_some_and(|found| found.verified),
            sha1_thumbprint: content.and_then(|found| found.sha1_thumbprint),
        };
        let [primary, secondary] = [CertificateEntry::Primary, CertificateEntry::Secondary];
        Ok(Self {
            group,
            is_enabled: found.enabled,
            primary: state(primary, groups.find_certificate(group, primary).await?),
            secondary: state(secondary, groups.find_certificate(group, secondary).await?),
        })
    }

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
        let holds_ours = |state: &EntryState| ours.is_some() && state.sha1_thumbprint == ours;
        let is_empty = |state: &EntryState| state.sha1_thumbprint.is_none();
        let (to, from) = match (&self.primary, &self.secondary) {
            (to, from) if holds_ours(to) => (to, from),
            (from, to) if holds_ours(to) => (to, from),
            (from, to) if is_empty(to) => (to, from),
            (to, from) if is_empty(to) => (to, from),
            _ => return Err(RolloverError::BothTaken { group: group() }),
        };
        match ours {
            _ if from.verified => Ok(to.entry),
            Some(ours) if holds_ours(to) && (to.verified || is_empty(from)) => {
                Err(RolloverError::OnlyCertificate { group: group(), entry: to.entry, ours })
            }
            _ => Err(RolloverError::NotVerified { group: group() }),
        }
    }

    /// Returns the entry that holds this certificate, which has to be verified.
    pub(super) fn holding(&self, thumbprint: Thumbprint) -> Result<EntryState, RolloverError> {
        let found = [&self.primary, &self.secondary].into_iter().find(|it| it.sha1_thumbprint == Some(thumbprint));
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
