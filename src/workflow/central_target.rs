//! IoT Central as the place of a CA: an entry, primary or secondary, of an enrollment group.

use std::fmt;

use super::{
    error::ProvisionError,
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
    pub(super) client: &'a Client,
    pub(super) group: &'a EnrollmentGroupId,
    /// The name of a group that is created.
    pub(super) display_name: Option<&'a str>,
    /// The type that the group has to be of.
    pub(super) device_type: Option<&'a DeviceType>,
    /// The entry that was requested.
    pub(super) requested: Option<CertificateEntry>,
    /// Whether another certificate in the entry may be overwritten.
    pub(super) replace: bool,
    /// Whether another verified CA may be in the other entry.
    pub(super) add_ca: bool,
    found: Option<EnrollmentGroup>,
    entry: CertificateEntry,
    /// The version of the certificate in the entry, as last read.
    etag: Option<Etag>,
}

impl<'a> CentralTarget<'a> {
    pub(super) fn new(client: &'a Client, group: &'a EnrollmentGroupId, requested: Option<CertificateEntry>) -> Self {
        Self {
            client,
            group,
            display_name: None,
            device_type: None,
            requested,
            replace: false,
            add_ca: false,
            found: None,
            entry: requested.unwrap_or(CertificateEntry::Primary),
            etag: None,
        }
    }

    /// Returns the entry: the requested one, or the one that was chosen by its state.
    pub(super) fn entry(&self) -> CertificateEntry {
        self.entry
    }

    async fn read(&mut self, entry: CertificateEntry) -> Result<Option<(Thumbprint, SigningCertificate)>, Error> {
        let found = self.client.enrollment_groups().find_certificate(self.group, entry).await?;
        Ok(found.and_then(|found| found.sha1_thumbprint.map(|thumbprint| (thumbprint, found))))
    }
}

/// Fails if a group does not attest devices by certificates.
pub(super) fn check_attestation(group: &EnrollmentGroup) -> Result<(), ProvisionError> {
    if matches!(group.attestation, Attestation::X509 { .. }) {
        return Ok(());
    }
    let found = group.attestation.kind().to_owned();
    Err(ProvisionError::Attestation { group: group.id.clone(), found })
}

impl AnchorTarget for CentralTarget<'_> {
    async fn find(&mut self) -> Result<bool, ProvisionError> {
        self.found = self.client.enrollment_groups().find(self.group).await?;
        let Some(group) = &self.found else { return Ok(false) };
        check_attestation(group)?;
        match self.device_type {
            Some(expected) if *expected != group.device_type => Err(ProvisionError::DeviceType {
                group: group.id.clone(),
                expected: expected.clone(),
                found: group.device_type.clone(),
            }),
            _ => Ok(true),
        }
    }

    async fn prepare(&mut self, dry_run: bool, steps: &mut Steps<'_>) -> Result<bool, ProvisionError> {
        let id = self.group;
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

    /// Chooses the entry that holds the CA, or else the requested or the primary one. Reads the other entry too, unless the
    /// CA is verified in the first.
    async fn state(&mut self, ours: Option<Thumbprint>) -> Result<AnchorState, ProvisionError> {
        let holds_ours = |content: &Option<(Thumbprint, SigningCertificate)>| {
            ours.is_some() && content.as_ref().map(|(found, _)| *found) == ours
        };
        let first = self.requested.unwrap_or(CertificateEntry::Primary);
        self.entry = first;
        let mut target = self.read(first).await?;
        if holds_ours(&target) && target.as_ref().is_some_and(|(_, content)| content.verified) {
            return Ok(AnchorState::Verified);
        }
        let mut other = self.read(first.other()).await?;
        if holds_ours(&other) {
            if self.requested.is_some() {
                return Err(ProvisionError::InOtherEntry { group: self.group.clone(), entry: first, ours });
            }
            self.entry = first.other();
            (target, other) = (other, target);
        }
        let (group, entry) = (self.group, self.entry);
        let state = match target {
            None => {
                self.etag = None;
                AnchorState::Missing { is_taken: false }
            }
            Some((found, content)) if ours == Some(found) => {
                if content.verified {
                    return Ok(AnchorState::Verified);
                }
                self.etag = content.etag;
                AnchorState::Uploaded
            }
            Some((found, SigningCertificate { verified, etag, .. })) => {
                if !self.replace {
                    let group = group.clone();
                    return Err(ProvisionError::OtherCertificate { group, entry, verified, found, ours });
                }
                self.etag = etag;
                AnchorState::Missing { is_taken: true }
            }
        };
        match other {
            Some((found, content)) if content.verified && !self.add_ca => {
                Err(ProvisionError::BesideOther { group: group.clone(), entry, found, ours })
            }
            _ => Ok(state),
        }
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
        let set = groups.set_certificate(self.group, self.entry, certificate, possession, self.etag.as_ref()).await?;
        Ok(set.verified)
    }

    async fn request_code(&mut self) -> Result<String, Error> {
        Ok(self.client.enrollment_groups().generate_verification_code(self.group, self.entry).await?.code)
    }

    async fn verify(&mut self, proof: &Certificate) -> Result<(), Error> {
        self.client.enrollment_groups().verify_certificate(self.group, self.entry, proof).await
    }

    fn place(&self) -> impl fmt::Display {
        self.entry
    }

    fn not_confirmed(&self, found: Option<AnchorContent>, ours: Thumbprint) -> ProvisionError {
        ProvisionError::NotConfirmed {
            group: self.group.clone(),
            entry: self.entry,
            verified: found.is_some_and(|found| found.verified),
            found: found.map(|found| found.thumbprint),
            ours,
        }
    }

    fn rest(&self) -> &RestClient {
        self.client.rest()
    }
}
