//! IoT Central as the place of a CA: an entry, primary or secondary, of an enrollment group.

use std::fmt;

use super::{
    entries::{Entries, EntryState},
    entry_policy::EntryPolicy,
    error::ProvisionError,
    rollover_error::RolloverError,
    service::GroupId,
    step::{Outcome, Step, Steps},
    trust_anchor::{AnchorContent, AnchorState, AnchorTarget, Possession},
};
use crate::{
    central::{
        self, Attestation, CertificateEntry, Client, DeviceType, EnrollmentGroup, EnrollmentGroupId, Etag,
        NewEnrollmentGroup, SigningCertificate,
    },
    certificate::{Certificate, Thumbprint},
    transport::{Error, RestClient},
};

/// An entry of an enrollment group.
pub(super) struct CentralTarget<'a> {
    client: &'a Client,
    group: EnrollmentGroupId,
    /// The name of a group that is created.
    pub(super) display_name: Option<&'a str>,
    /// The type that the group has to be of.
    pub(super) device_type: Option<&'a DeviceType>,
    policy: EntryPolicy,
    found: Option<EnrollmentGroup>,
    entry: CertificateEntry,
    /// The version of the certificate in the entry, as last read.
    etag: Option<Etag>,
}

impl<'a> CentralTarget<'a> {
    pub(super) fn new(client: &'a Client, policy: EntryPolicy) -> Result<Self, ProvisionError> {
        let group = EnrollmentGroupId::new(policy.group.as_str())
            .map_err(|error| ProvisionError::GroupId { group: policy.group.clone(), problem: error.to_string() })?;
        let entry = policy.default_entry();
        Ok(Self { client, group, display_name: None, device_type: None, policy, found: None, entry, etag: None })
    }

    async fn read(&mut self, entry: CertificateEntry) -> Result<Option<(Thumbprint, SigningCertificate)>, Error> {
        let found = self.client.enrollment_groups().find_certificate(&self.group, entry).await?;
        Ok(found.and_then(|found| found.sha1_thumbprint.map(|thumbprint| (thumbprint, found))))
    }

    /// Reads an entry. Returns its state and the version of its certificate.
    async fn read_state(&mut self, entry: CertificateEntry) -> Result<(EntryState, Option<Etag>), Error> {
        Ok(match self.read(entry).await? {
            Some((thumbprint, content)) => {
                let state = EntryState {
                    verified: content.verified,
                    sha1_thumbprint: Some(thumbprint),
                    ..EntryState::empty(entry)
                };
                (state, content.etag)
            }
            None => (EntryState::empty(entry), None),
        })
    }

    fn group_id(&self) -> GroupId {
        self.policy.group.clone()
    }
}

/// Fails if a group does not attest devices by certificates.
fn check_attestation(group: &EnrollmentGroup) -> Result<(), ProvisionError> {
    if matches!(group.attestation, Attestation::X509 { .. }) {
        return Ok(());
    }
    let found = group.attestation.kind().to_owned();
    Err(ProvisionError::Attestation { group: group.id.clone().into(), found })
}

impl AnchorTarget for CentralTarget<'_> {
    async fn find(&mut self) -> Result<bool, ProvisionError> {
        self.found = self.client.enrollment_groups().find(&self.group).await?;
        let Some(group) = &self.found else { return Ok(false) };
        check_attestation(group)?;
        match self.device_type {
            Some(expected) if *expected != group.device_type => Err(ProvisionError::DeviceType {
                group: group.id.clone().into(),
                expected: expected.clone(),
                found: group.device_type.clone(),
            }),
            _ => Ok(true),
        }
    }

    async fn prepare(&mut self, dry_run: bool, steps: &mut Steps<'_>) -> Result<bool, ProvisionError> {
        let id = &self.group;
        if let Some(group) = &self.found {
            let state = if group.enabled { "" } else { "; it is disabled, so no device can connect through it" };
            let detail =
                format!("found {id}, named {:?}, for {} devices{state}", group.display_name, group.device_type);
            steps.finish(Step::Group, Outcome::Unchanged, detail);
            return Ok(false);
        }
        let device_type = self.device_type.cloned().unwrap_or_default();
        if dry_run {
            steps.finish(Step::Group, Outcome::Planned, format!("would create {id} for {device_type} devices"));
            return Ok(false);
        }
        steps.start(Step::Group, "creating the enrollment group");
        let name = self.display_name.unwrap_or(id.as_str());
        let group = NewEnrollmentGroup { device_type, ..NewEnrollmentGroup::x509(name) };
        let group = match self.client.enrollment_groups().create(id, &group).await {
            Ok(group) => group,
            Err(Error::AlreadyExists { .. }) => {
                steps.finish(
                    Step::Group,
                    Outcome::Unchanged,
                    format!("found {id}, which another run has just created"),
                );
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        steps.finish(Step::Group, Outcome::Done, format!("created {id} for {} devices", group.device_type));
        Ok(true)
    }

    /// Reads the other entry too, unless the CA is verified in the first.
    async fn state(&mut self, ours: Option<&Certificate>) -> Result<AnchorState, ProvisionError> {
        let ours = ours.map(Certificate::sha1_thumbprint);
        let first = self.policy.default_entry();
        self.entry = first;
        let (target, target_etag) = self.read_state(first).await?;
        if target.verified && target.holds(ours) {
            return Ok(AnchorState::Verified);
        }
        let (other, other_etag) = self.read_state(first.other()).await?;
        let (primary, secondary) = if first == CertificateEntry::Primary { (target, other) } else { (other, target) };
        let entries = Entries { group: self.group_id(), is_enabled: true, primary, secondary };
        let (entry, state) = self.policy.choose(&entries, ours)?;
        (self.entry, self.etag) = (entry, if entry == first { target_etag } else { other_etag });
        Ok(state)
    }

    async fn content(&mut self) -> Result<Option<AnchorContent>, Error> {
        let found = self.read(self.entry).await?;
        Ok(found.map(|(thumbprint, found)| AnchorContent { thumbprint, verified: found.verified }))
    }

    async fn upload(&mut self, certificate: &Certificate, possession: Possession) -> Result<bool, Error> {
        let possession = match possession {
            Possession::Prove => central::Possession::ToBeProven,
            Possession::Attest => central::Possession::Attested,
        };
        let groups = self.client.enrollment_groups();
        let set = groups.set_certificate(&self.group, self.entry, certificate, possession, self.etag.as_ref()).await?;
        Ok(set.verified)
    }

    async fn request_code(&mut self) -> Result<String, Error> {
        Ok(self.client.enrollment_groups().generate_verification_code(&self.group, self.entry).await?.code)
    }

    async fn verify(&mut self, proof: &Certificate) -> Result<(), Error> {
        self.client.enrollment_groups().verify_certificate(&self.group, self.entry, proof).await
    }

    /// A verified CA admits devices, because its entry is in the group.
    async fn admit(&mut self, _: Option<&Certificate>, _: bool, _: &mut Steps<'_>) -> Result<bool, ProvisionError> {
        Ok(true)
    }

    fn request_entry(&mut self, entry: CertificateEntry) {
        self.policy.requested = Some(entry);
    }

    fn entry(&self) -> CertificateEntry {
        self.entry
    }

    fn place(&self) -> impl fmt::Display {
        self.entry
    }

    fn not_confirmed(&self, found: Option<AnchorContent>, ours: Thumbprint) -> ProvisionError {
        ProvisionError::NotConfirmed {
            place: format!("the {} entry of {}", self.entry, self.group),
            verified: found.is_some_and(|found| found.verified),
            found: found.map(|found| found.thumbprint),
            ours,
        }
    }

    fn obstacle(&self) -> Option<String> {
        let is_disabled = self.found.as_ref().is_some_and(|group| !group.enabled);
        is_disabled.then(|| "the group is disabled".to_owned())
    }

    async fn entries(&mut self) -> Result<Entries, RolloverError> {
        let found = self.client.enrollment_groups().get(&self.group).await?;
        check_attestation(&found)?;
        let (primary, _) = self.read_state(CertificateEntry::Primary).await?;
        let (secondary, _) = self.read_state(CertificateEntry::Secondary).await?;
        Ok(Entries { group: self.group_id(), is_enabled: found.enabled, primary, secondary })
    }

    async fn remove(&mut self, entries: &Entries, entry: CertificateEntry) -> Result<(Outcome, String), RolloverError> {
        match self.client.enrollment_groups().delete_certificate(&self.group, entry).await {
            Ok(()) => {
                let old = entries.state(entry).sha1_thumbprint.map(|old| old.to_string()).unwrap_or_default();
                Ok((Outcome::Done, format!("removed {old} from {entry}")))
            }
            Err(error) if error.is_not_found() => Ok((Outcome::Unchanged, format!("{entry} is empty already"))),
            Err(error) => Err(error.into()),
        }
    }

    fn rest(&self) -> &RestClient {
        self.client.rest()
    }
}
