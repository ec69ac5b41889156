//! The Device Provisioning Service as the place of a CA: a certificate of the instance, which an enrollment group refers to.
//!
//! A verified certificate is never replaced in place, because devices cannot register until the new one is verified. Another
//! CA is uploaded under another name, verified, and then referred to by the group.

use std::fmt;

use super::{
    dps_group::{X509, check_attestation, device_type, disabled_note, entries},
    dps_instance::{DpsInstance, MAX_CERTIFICATES, MAX_X509_GROUPS, default_certificate_name},
    dps_references::{
        has_authority, needed_by, reference, references_update, thumbprint, unneeded, with_reference, without_reference,
    },
    entries::{Entries, EntryState},
    entry_policy::EntryPolicy,
    error::ProvisionError,
    rollover_error::RolloverError,
    service::GroupId,
    step::{Outcome, Step, Steps},
    trust_anchor::{AnchorContent, AnchorState, AnchorTarget, CONFLICT_WAIT, MAX_CONFLICTS, Possession, is_race},
};
use crate::{
    arm::{self, DpsCertificate},
    central::{CertificateEntry, DeviceType},
    certificate::{Certificate, Thumbprint},
    dps::{
        DpsCertificateName,
        service::{CaReferences, EnrollmentGroup, EnrollmentGroupId, EnrollmentSettings, NewEnrollmentGroup},
    },
    transport::{Call, Error, Etag, RestClient},
};

/// A certificate of an instance, and the entry of an enrollment group that refers to it.
pub(super) struct DpsTarget<'a> {
    instance: &'a DpsInstance,
    group: EnrollmentGroupId,
    /// The type that the group has to be of.
    pub(super) device_type: Option<&'a DeviceType>,
    /// Whether a group that is created admits devices; the service's default if none.
    pub(super) is_enabled: Option<bool>,
    /// The name of a certificate that is uploaded.
    pub(super) requested_name: Option<&'a DpsCertificateName>,
    policy: EntryPolicy,
    /// The group, as last read.
    found: Option<EnrollmentGroup>,
    entry: CertificateEntry,
    /// The CA that was in the entry when its state was read. Nothing newer is replaced.
    previous: Option<Thumbprint>,
    /// The name of the CA's certificate, once it is chosen.
    name: Option<DpsCertificateName>,
    /// The version of the CA's certificate, as last read or answered.
    etag: Option<Etag>,
}

impl<'a> DpsTarget<'a> {
    pub(super) fn new(instance: &'a DpsInstance, policy: EntryPolicy) -> Result<Self, ProvisionError> {
        let group = EnrollmentGroupId::new(policy.group.as_str())
            .map_err(|error| ProvisionError::GroupId { group: policy.group.clone(), problem: error.to_string() })?;
        let entry = policy.default_entry();
        Ok(Self {
            instance,
            group,
            device_type: None,
            is_enabled: None,
            requested_name: None,
            policy,
            found: None,
            entry,
            previous: None,
            name: None,
            etag: None,
        })
    }

    fn group_id(&self) -> GroupId {
        self.policy.group.clone()
    }

    fn certificates(&self) -> arm::Certificates {
        self.instance.resource().certificates()
    }

    /// Reads the group. Fails if it cannot be used.
    async fn read_group(&mut self) -> Result<(), ProvisionError> {
        self.found = self.instance.client().enrollment_groups().find(&self.group).await?;
        if let Some(group) = &self.found {
            self.check_group(group)?;
        }
        Ok(())
    }

    fn check_group(&self, group: &EnrollmentGroup) -> Result<(), ProvisionError> {
        // The service compares IDs without case, so this is the group; a script that names it otherwise may be wrong.
        if group.id.as_str() != self.group.as_str() {
            let existing = group.id.to_string();
            return Err(ProvisionError::Spelling { given: self.group.to_string(), existing });
        }
        check_attestation(group)?;
        let found = device_type(group);
        match self.device_type {
            Some(expected) if *expected != found => {
                Err(ProvisionError::DeviceType { group: self.group_id(), expected: expected.clone(), found })
            }
            _ => Ok(()),
        }
    }

    fn entries_of(&self, certificates: &[DpsCertificate]) -> Result<Entries, ProvisionError> {
        entries(self.group_id(), self.found.as_ref(), certificates)
    }

    /// Fails if another group has the CA.
    fn check_other_groups(
        &self,
        ours: &Certificate,
        groups: &[EnrollmentGroup],
        certificates: &[DpsCertificate],
    ) -> Result<(), ProvisionError> {
        let other = groups.iter().find(|it| it.id != self.group && has_authority(it, ours, certificates));
        other.map_or(Ok(()), |other| {
            let (group, other) = (self.group_id(), other.id.to_string());
            Err(ProvisionError::InOtherGroup { group, other, ours: ours.sha1_thumbprint() })
        })
    }

    /// Chooses the name for a certificate that is uploaded. Fails if the instance cannot take it.
    fn choose_name(
        &self,
        ours: Option<&Certificate>,
        groups: &[EnrollmentGroup],
        certificates: &[DpsCertificate],
    ) -> Result<Option<DpsCertificateName>, ProvisionError> {
        if certificates.len() >= MAX_CERTIFICATES {
            let unneeded = unneeded(groups, certificates).map(ToString::to_string).collect();
            return Err(ProvisionError::TooManyCertificates { max: MAX_CERTIFICATES, unneeded });
        }
        let Some(name) = self.requested_name.cloned().or_else(|| default_certificate_name(ours?)) else {
            return Ok(None);
        };
        match certificates.iter().find(|it| it.name == name) {
            Some(taken) => Err(ProvisionError::CertificateNameTaken {
                name: taken.name.to_string(),
                found: thumbprint(taken),
                verified: taken.is_verified,
            }),
            None => Ok(Some(name)),
        }
    }

    fn keep(&mut self, found: &DpsCertificate) {
        self.name = Some(found.name.clone());
        self.etag = Some(found.etag.clone());
    }

    /// Returns the CA's certificate in the service with its version, which is read if it is not known.
    async fn chosen(&mut self) -> Result<(DpsCertificateName, Etag), Error> {
        let Some(name) = self.name.clone() else {
            // The name is chosen when the state is read, which comes first.
            let operation = Call::get(&["certificates"]).operation();
            return Err(Error::NotFound { operation, problem: "no certificate was chosen" });
        };
        let etag = match self.etag.clone() {
            Some(etag) => etag,
            None => self.certificates().get(&name).await?.etag,
        };
        Ok((name, etag))
    }

    /// Reads everything, and chooses the entry and the certificate.
    async fn read_state(&mut self, ours: Option<&Certificate>) -> Result<AnchorState, ProvisionError> {
        (self.name, self.etag) = (None, None);
        self.read_group().await?;
        let groups = self.instance.read_groups().await?;
        let certificates = self.instance.read_certificates().await?;
        let wanted = ours.map(Certificate::sha1_thumbprint);
        let entries = self.entries_of(&certificates)?;
        let (entry, _) = self.policy.choose(&entries, wanted)?;
        self.entry = entry;
        self.previous = entries.state(entry).sha1_thumbprint;
        if let Some(ours) = ours
            && !entries.state(entry).holds(wanted)
        {
            self.check_other_groups(ours, &groups, &certificates)?;
        }
        let is_x509 = |group: &&EnrollmentGroup| group.attestation.kind() == X509;
        if self.found.is_none() && groups.iter().filter(is_x509).count() >= MAX_X509_GROUPS {
            return Err(ProvisionError::TooManyGroups { max: MAX_X509_GROUPS });
        }
        // The group refers to one of them, or else it is to refer to the one with the least left to do.
        let referred = entries.state(entry).certificate_name.as_ref();
        let uploaded = ours.and_then(|ours| {
            let same = certificates.iter().filter(|it| it.is(ours));
            same.max_by_key(|it| (referred == Some(&it.name), it.is_verified, self.requested_name == Some(&it.name)))
        });
        if let Some(uploaded) = uploaded {
            self.keep(uploaded);
            return Ok(if uploaded.is_verified { AnchorState::Verified } else { AnchorState::Uploaded });
        }
        self.name = self.choose_name(ours, &groups, &certificates)?;
        Ok(AnchorState::Missing { is_taken: false })
    }

    /// Makes the group refer to the certificate. Returns whether that changed anything, and what there is now.
    async fn refer(
        &mut self,
        ours: &Certificate,
        name: &DpsCertificateName,
    ) -> Result<(Outcome, String), ProvisionError> {
        let mut conflicts = 0;
        loop {
            self.read_group().await?;
            let certificates = self.instance.read_certificates().await?;
            let entries = self.entries_of(&certificates)?;
            let (entry, state) = self.policy.choose(&entries, Some(ours.sha1_thumbprint()))?;
            self.entry = entry;
            if let (Some(group), AnchorState::Verified) = (&self.found, state) {
                // Another run may have let it refer to the CA under another name.
                let name = entries.state(entry).certificate_name.as_ref().unwrap_or(name);
                let detail = format!("found {}, whose {entry} certificate is {name}{}", group.id, disabled_note(group));
                self.name = Some(name.clone());
                return Ok((Outcome::Unchanged, detail));
            }
            let EntryState { verified, sha1_thumbprint: found, .. } = *entries.state(entry);
            if let Some(found) = found.filter(|_| found != self.previous && state != AnchorState::Uploaded) {
                let (group, ours) = (self.group_id(), Some(ours.sha1_thumbprint()));
                return Err(ProvisionError::OtherCertificate { group, entry, verified, found, ours });
            }
            match self.write(entry, name).await {
                Ok(group) => {
                    let was_found = self.found.is_some();
                    self.confirm_reference(entry, name).await?;
                    let detail = if was_found {
                        format!("set the {entry} certificate of {} to {name}{}", group.id, disabled_note(&group))
                    } else {
                        format!(
                            "created {} for {} devices, with {name} as its {entry} certificate",
                            group.id,
                            device_type(&group)
                        )
                    };
                    return Ok((Outcome::Done, detail));
                }
                Err(error) if conflicts < MAX_CONFLICTS && (is_race(&error) || error.answer_was_lost()) => {
                    conflicts += 1;
                    self.rest().sleep(CONFLICT_WAIT * conflicts).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads the group again. Fails unless it refers to the certificate.
    async fn confirm_reference(
        &mut self,
        entry: CertificateEntry,
        name: &DpsCertificateName,
    ) -> Result<(), ProvisionError> {
        self.read_group().await?;
        let found = self.found.as_ref().and_then(|group| reference(group, entry));
        if found == Some(name) {
            return Ok(());
        }
        let found = found.map(ToString::to_string);
        Err(ProvisionError::NotReferred { group: self.group_id(), entry, name: name.to_string(), found })
    }

    /// Creates the group with the reference, or changes the one that was read.
    async fn write(&self, entry: CertificateEntry, name: &DpsCertificateName) -> Result<EnrollmentGroup, Error> {
        let groups = self.instance.client().enrollment_groups();
        if let Some(group) = &self.found {
            let references = group.ca_references().cloned().unwrap_or_default();
            let references = with_reference(references, entry, name.clone());
            return groups.update(&self.group, &references_update(references, group)).await;
        }
        let iot_edge = self.device_type.map(|it| *it == DeviceType::IotEdge);
        let group = NewEnrollmentGroup::new(with_reference(CaReferences::default(), entry, name.clone()));
        let settings = EnrollmentSettings::new().iot_edge(iot_edge).enabled(self.is_enabled);
        groups.create(&self.group, &group.settings(settings)).await
    }

    /// Deletes a certificate that the group referred to, unless another group needs it. Returns what became of it.
    async fn delete_unneeded(&self, name: &DpsCertificateName, old: Thumbprint) -> Result<String, RolloverError> {
        let groups = self.instance.read_groups().await?;
        let Some(found) = self.certificates().find(name).await? else {
            return Ok(format!("; the certificate {name} is gone already"));
        };
        if thumbprint(&found) != Some(old) {
            return Ok(format!("; kept the certificate {name}, which another client has replaced"));
        }
        if let Some(reason) = needed_by(&groups, &found) {
            return Ok(format!("; kept the certificate {name}, {reason}"));
        }
        match self.certificates().delete(name, &found.etag).await {
            Ok(()) => Ok(format!(", and deleted the certificate {name}")),
            Err(error) if error.is_not_found() => Ok(format!("; the certificate {name} is gone already")),
            // Another client changed it, or a group refers to it by now.
            Err(error) if is_race(&error) => Ok(format!("; kept the certificate {name}: {error}")),
            Err(error) => Err(error.into()),
        }
    }
}

impl AnchorTarget for DpsTarget<'_> {
    /// A certificate may be there although the group is not.
    async fn find(&mut self) -> Result<bool, ProvisionError> {
        let properties = self.instance.properties();
        if properties.is_active() {
            return Ok(true);
        }
        let state = properties.state.clone().unwrap_or_default();
        Err(ProvisionError::InstanceNotActive { instance: self.instance.name().to_owned(), state })
    }

    async fn prepare(&mut self, _: bool, steps: &mut Steps<'_>) -> Result<bool, ProvisionError> {
        let (name, properties) = (self.instance.name(), self.instance.properties());
        let hubs: Vec<_> = properties.iot_hubs.iter().map(|hub| hub.host_name.as_str()).collect();
        let hubs = match &hubs[..] {
            [] => "which has no linked hub, so no device can be assigned yet".to_owned(),
            hubs => format!("linked to {}", hubs.join(", ")),
        };
        steps.finish(Step::Instance, Outcome::Unchanged, format!("found {name}, {hubs}"));
        Ok(false)
    }

    async fn state(&mut self, ours: Option<&Certificate>) -> Result<AnchorState, ProvisionError> {
        self.read_state(ours).await
    }

    async fn content(&mut self) -> Result<Option<AnchorContent>, Error> {
        let Some(name) = self.name.clone() else { return Ok(None) };
        let found = self.certificates().find(&name).await?;
        self.etag = found.as_ref().map(|found| found.etag.clone());
        Ok(found.and_then(|found| Some(AnchorContent { thumbprint: thumbprint(&found)?, verified: found.is_verified })))
    }

    /// Only an unverified certificate with the same content is replaced, to attest it.
    async fn upload(&mut self, certificate: &Certificate, possession: Possession) -> Result<bool, Error> {
        let possession = match possession {
            Possession::Prove => arm::Possession::ToBeProven,
            Possession::Attest => arm::Possession::Attested,
        };
        if self.name.is_none() {
            self.name = default_certificate_name(certificate);
        }
        let Some(name) = self.name.clone() else { return self.chosen().await.map(|_| false) };
        let set = self.certificates().set(&name, certificate, possession, self.etag.as_ref()).await?;
        self.keep(&set);
        Ok(set.is_verified)
    }

    async fn request_code(&mut self) -> Result<String, Error> {
        let (name, etag) = self.chosen().await?;
        // If it fails, the version may have changed.
        self.etag = None;
        let code = self.certificates().generate_verification_code(&name, &etag).await?;
        self.etag = Some(code.etag);
        Ok(code.code)
    }

    async fn verify(&mut self, proof: &Certificate) -> Result<(), Error> {
        let (name, etag) = self.chosen().await?;
        self.etag = None;
        let verified = self.certificates().verify(&name, proof, &etag).await?;
        self.keep(&verified);
        Ok(())
    }

    /// Makes the group refer to the verified certificate. Creates the group if missing.
    async fn admit(
        &mut self,
        ours: Option<&Certificate>,
        dry_run: bool,
        steps: &mut Steps<'_>,
    ) -> Result<bool, ProvisionError> {
        if let (Some(ours), false, Some(name)) = (ours, dry_run, self.name.clone()) {
            steps.start(Step::Group, "setting the group's reference to the certificate");
            let (outcome, detail) = self.refer(ours, &name).await?;
            steps.finish(Step::Group, outcome, detail);
            return Ok(true);
        }
        let (group, entry) = (&self.group, self.entry);
        let name = self.name.as_ref().map_or("the new certificate", DpsCertificateName::as_str);
        let (outcome, detail) = match &self.found {
            Some(found) if self.name.as_ref().is_some_and(|name| reference(found, entry) == Some(name)) => (
                Outcome::Unchanged,
                format!("found {group}, whose {entry} certificate is {name}{}", disabled_note(found)),
            ),
            Some(_) => (Outcome::Planned, format!("would set the {entry} certificate of {group} to {name}")),
            None => {
                let device_type = self.device_type.cloned().unwrap_or_default();
                let detail =
                    format!("would create {group} for {device_type} devices, with {name} as its {entry} certificate");
                (Outcome::Planned, detail)
            }
        };
        steps.finish(Step::Group, outcome, detail);
        Ok(outcome == Outcome::Unchanged)
    }

    fn request_entry(&mut self, entry: CertificateEntry) {
        self.policy.requested = Some(entry);
    }

    fn entry(&self) -> CertificateEntry {
        self.entry
    }

    fn certificate_name(&self) -> Option<DpsCertificateName> {
        self.name.clone()
    }

    fn place(&self) -> impl fmt::Display {
        match &self.name {
            Some(name) => format!("certificate {name}"),
            None => "a new certificate".to_owned(),
        }
    }

    fn not_confirmed(&self, found: Option<AnchorContent>, ours: Thumbprint) -> ProvisionError {
        ProvisionError::NotConfirmed {
            place: format!("{} of {}", self.place(), self.instance.name()),
            verified: found.is_some_and(|found| found.verified),
            found: found.map(|found| found.thumbprint),
            ours,
        }
    }

    fn obstacle(&self) -> Option<String> {
        if self.found.as_ref().is_some_and(|group| !group.is_enabled()) {
            return Some("the group is disabled".to_owned());
        }
        let has_hub = !self.instance.properties().iot_hubs.is_empty();
        (!has_hub).then(|| format!("{} has no linked hub to assign it to", self.instance.name()))
    }

    async fn entries(&mut self) -> Result<Entries, RolloverError> {
        let group = self.instance.client().enrollment_groups().get(&self.group).await?;
        self.check_group(&group)?;
        self.found = Some(group);
        let certificates = self.instance.read_certificates().await?;
        Ok(self.entries_of(&certificates)?)
    }

    /// Removes the reference, then the certificate unless another group needs it.
    async fn remove(&mut self, entries: &Entries, entry: CertificateEntry) -> Result<(Outcome, String), RolloverError> {
        let EntryState { certificate_name: Some(name), sha1_thumbprint: old, .. } = entries.state(entry) else {
            return Ok((Outcome::Unchanged, format!("{entry} is empty already")));
        };
        // The group is changed only as it was when both entries were read.
        let Some(group) = self.found.clone() else {
            return Ok((Outcome::Unchanged, format!("{entry} is empty already")));
        };
        let references = without_reference(group.ca_references().cloned().unwrap_or_default(), entry);
        let groups = self.instance.client().enrollment_groups();
        if let Err(error) = groups.update(&self.group, &references_update(references.clone(), &group)).await {
            // The answer to a change that was carried out may be lost.
            let is_done = error.answer_was_lost()
                && groups.get(&self.group).await.is_ok_and(|now| now.ca_references() == Some(&references));
            if !is_done {
                return Err(error.into());
            }
        }
        let Some(old) = old else {
            let detail = format!("removed the reference to {name}, which does not exist, from {entry}");
            return Ok((Outcome::Done, detail));
        };
        let deleted = self.delete_unneeded(name, *old).await?;
        Ok((Outcome::Done, format!("removed {old} from {entry}{deleted}")))
    }

    async fn unneeded(&mut self) -> Result<Vec<DpsCertificateName>, Error> {
        let groups = self.instance.read_groups().await?;
        let certificates = self.instance.read_certificates().await?;
        Ok(unneeded(&groups, &certificates).cloned().collect())
    }

    fn rest(&self) -> &RestClient {
        self.instance.client().rest()
    }
}
