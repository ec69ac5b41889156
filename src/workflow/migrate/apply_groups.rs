//! The certificates and groups of a plan, at the instance.

use std::sync::Arc;

use super::{
    super::{
        dps_instance::DpsInstance,
        dps_references::thumbprint,
        dps_target::DpsTarget,
        entry_policy::EntryPolicy,
        error::ProvisionError,
        service::GroupId,
        step::{Outcome, Step, Steps},
        trust_anchor::{AnchorState, AnchorTarget, Possession, TrustAnchor},
    },
    apply_report::ItemOutcome,
    ca_files::read_certificate,
    decision::is_iot_edge,
    plan::{CertificateAction, GroupAttestation, GroupObstacle, PlanHeader, PlannedCertificate, PlannedGroup},
};
use crate::{
    arm::DpsCertificate,
    central::CertificateEntry,
    certificate::{
        Certificate, CertificateAuthority, PrivateKey, Timestamp,
        files::{FileError, Passwords, read_key},
    },
    dps::service::{
        Attestation, EnrollmentGroup, EnrollmentGroupId, EnrollmentSettings, NewAttestation, NewEnrollmentGroup,
    },
    transport::{Error, SymmetricKeys},
};

/// Why a group could not be moved.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroupError {
    #[error(transparent)]
    Provision(Box<ProvisionError>),
    #[error(transparent)]
    Service(#[from] Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0}")]
    Other(String),
}

impl From<ProvisionError> for GroupError {
    fn from(error: ProvisionError) -> Self {
        Self::Provision(Box::new(error))
    }
}

impl GroupError {
    /// Returns the failed call, if it was one.
    pub(super) fn service(&self) -> Option<&Error> {
        match self {
            Self::Service(error) => Some(error),
            Self::Provision(error) => match &**error {
                ProvisionError::Service(error) => Some(error),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Moves groups.
pub(super) struct GroupMover<'a> {
    pub(super) instance: &'a DpsInstance,
    pub(super) header: &'a PlanHeader,
    /// The certificates of the instance before anything was done.
    pub(super) certificates: Vec<DpsCertificate>,
    pub(super) passwords: Passwords<'a>,
    /// Keys of CAs that the plan has no files for.
    pub(super) ca_keys: &'a [Arc<PrivateKey>],
    /// Whether certificates may be uploaded as verified.
    pub(super) skip_proof: bool,
    pub(super) dry_run: bool,
}

impl GroupMover<'_> {
    /// Moves a group. `keys` are its keys, if it has any.
    pub(super) async fn apply(
        &self,
        group: &PlannedGroup,
        keys: Option<&SymmetricKeys>,
        steps: &mut Steps<'_>,
    ) -> Result<ItemOutcome, GroupError> {
        let id = EnrollmentGroupId::new(group.id.as_str()).map_err(|error| GroupError::Other(error.to_string()))?;
        let existing = self.instance.client().enrollment_groups().find(&id).await?;
        if let Some(existing) = &existing {
            check_settings(group, existing)?;
        }
        match (&group.attestation, keys) {
            (GroupAttestation::X509 { .. }, _) => self.apply_x509(group, steps).await,
            (GroupAttestation::SymmetricKey(_), Some(keys)) => {
                self.apply_symmetric(&id, group, existing, keys, steps).await
            }
            _ => Err(GroupError::Other("its keys are not known".to_owned())),
        }
    }

    async fn apply_symmetric(
        &self,
        id: &EnrollmentGroupId,
        group: &PlannedGroup,
        existing: Option<EnrollmentGroup>,
        keys: &SymmetricKeys,
        steps: &mut Steps<'_>,
    ) -> Result<ItemOutcome, GroupError> {
        let groups = self.instance.client().enrollment_groups();
        if existing.is_none() {
            let status = if group.enabled { "" } else { ", disabled" };
            if self.dry_run {
                let detail = format!("would create {id} with the keys of the application{status}");
                steps.finish(Step::Group, Outcome::Planned, detail);
                return Ok(ItemOutcome::Planned);
            }
            steps.start(Step::Group, "creating a group");
            let settings =
                EnrollmentSettings::new().enabled(Some(group.enabled)).iot_edge(Some(is_iot_edge(&group.device_type)));
            let new = NewEnrollmentGroup::new(NewAttestation::SymmetricKey(Some(keys.clone()))).settings(settings);
            match groups.create(id, &new).await {
                Ok(_) => {
                    let detail = format!("created {id} with the keys of the application{status}");
                    steps.finish(Step::Group, Outcome::Done, detail);
                    return Ok(ItemOutcome::Created);
                }
                // Another run was faster.
                Err(Error::AlreadyExists { .. }) => check_settings(group, &groups.get(id).await?)?,
                Err(error) => return Err(error.into()),
            }
        }
        let found = groups.attestation(id).await?;
        match found.symmetric_keys() {
            Some(found) if same_keys(found, keys) => {
                steps.finish(
                    Step::Group,
                    Outcome::Unchanged,
                    format!("found {id}, which has the keys of the application"),
                );
                Ok(ItemOutcome::Present)
            }
            Some(_) => Err(GroupError::Other(
                "the instance has a group of this ID with other keys, and it is not overwritten".to_owned(),
            )),
            None => Err(GroupError::Other(other_attestation(&found))),
        }
    }

    async fn apply_x509(&self, group: &PlannedGroup, steps: &mut Steps<'_>) -> Result<ItemOutcome, GroupError> {
        let mut outcome = ItemOutcome::Present;
        let mut entry = CertificateEntry::Primary;
        for planned in group.entries() {
            let thumbprint = planned.sha1_thumbprint;
            let is_left = group.obstacles.iter().any(|obstacle| {
                matches!(obstacle,
                    GroupObstacle::NotVerified { sha1_thumbprint }
                    | GroupObstacle::Certificate { sha1_thumbprint }
                    | GroupObstacle::SharedCertificate { sha1_thumbprint, .. } if *sha1_thumbprint == thumbprint)
            });
            let Some(certificate) = self.header.certificates.iter().find(|it| it.sha1_thumbprint == thumbprint) else {
                continue;
            };
            if is_left || certificate.action == CertificateAction::None {
                continue;
            }
            let done = self.apply_entry(group, certificate, entry, steps).await?;
            if done != ItemOutcome::Present {
                outcome = done;
            }
            entry = CertificateEntry::Secondary;
        }
        Ok(outcome)
    }

    /// Takes a CA to *verified*, and makes the group refer to it.
    async fn apply_entry(
        &self,
        group: &PlannedGroup,
        planned: &PlannedCertificate,
        entry: CertificateEntry,
        steps: &mut Steps<'_>,
    ) -> Result<ItemOutcome, GroupError> {
        let ca = self.read_ca(planned)?;
        // A group that is there may have them in the other order.
        match self.anchor(group, planned, &ca, entry, steps).await {
            Err(GroupError::Provision(error)) if matches!(*error, ProvisionError::InOtherEntry { .. }) => {
                self.anchor(group, planned, &ca, entry.other(), steps).await
            }
            done => done,
        }
    }

    async fn anchor(
        &self,
        group: &PlannedGroup,
        planned: &PlannedCertificate,
        ca: &Ca,
        entry: CertificateEntry,
        steps: &mut Steps<'_>,
    ) -> Result<ItemOutcome, GroupError> {
        let policy = EntryPolicy {
            group: GroupId::from(group.id.clone()),
            requested: Some(entry),
            replace: false,
            add_ca: true,
        };
        let mut target = DpsTarget::new(self.instance, policy)?;
        target.device_type = Some(&group.device_type);
        target.is_enabled = Some(group.enabled);
        target.requested_name = planned.name.as_ref();
        let possession = Possession::new(self.skip_proof);
        let before = steps.changes();
        let mut anchor = TrustAnchor { target, possession, at: Timestamp::now() };
        match ca {
            Ca::Authority(authority) => {
                let plan = anchor.plan(Some(authority)).await?;
                if self.dry_run {
                    anchor.report_plan(plan, steps);
                } else {
                    anchor.establish(plan, authority, false, steps).await?;
                }
            }
            Ca::Certificate(certificate) => self.attest(&mut anchor.target, certificate, steps).await?,
        }
        anchor.target.admit(Some(ca.certificate()), self.dry_run, steps).await?;
        Ok(match steps.changes() == before {
            true => ItemOutcome::Present,
            false if self.dry_run => ItemOutcome::Planned,
            false => ItemOutcome::Created,
        })
    }

    /// Takes a CA whose key is not at hand to *verified*.
    async fn attest(
        &self,
        target: &mut DpsTarget<'_>,
        certificate: &Certificate,
        steps: &mut Steps<'_>,
    ) -> Result<(), GroupError> {
        let ours = certificate.sha1_thumbprint();
        let _ = target.find().await?;
        if target.state(Some(certificate)).await? == AnchorState::Verified {
            let detail = format!("{} holds {ours}, which is verified", target.place());
            steps.finish(Step::Certificate, Outcome::Unchanged, detail);
            return Ok(());
        }
        if !self.skip_proof {
            return Err(GroupError::Other(format!(
                "the key of its CA {ours} is not at hand, so possession cannot be proven: allow the upload as verified"
            )));
        }
        let place = target.place().to_string();
        if self.dry_run {
            let detail = format!("would upload {ours} as {place}, attested as verified");
            steps.finish(Step::Certificate, Outcome::Planned, detail);
            return Ok(());
        }
        steps.start(Step::Certificate, "uploading the certificate");
        target.upload(certificate, Possession::Attest).await?;
        steps.finish(Step::Certificate, Outcome::Done, format!("uploaded {ours} as {place}, attested as verified"));
        let found = target.content().await?;
        if found.is_some_and(|found| found.thumbprint == ours && found.verified) {
            return Ok(());
        }
        Err(target.not_confirmed(found, ours).into())
    }

    /// Returns a given key that belongs to no CA certificate of the plan.
    pub(super) fn unknown_key(&self) -> Option<&PrivateKey> {
        let read = |planned: &PlannedCertificate| {
            read_certificate(planned.file.as_deref()?, planned.sha1_thumbprint, self.passwords).ok()?
        };
        let certificates: Vec<_> = self.header.certificates.iter().filter_map(read).collect();
        let is_unknown = |key: &&Arc<PrivateKey>| !certificates.iter().any(|certificate| key.belongs_to(certificate));
        self.ca_keys.iter().find(is_unknown).map(|key| &**key)
    }

    /// Reads a CA with its key, or its certificate if the key is not at hand.
    fn read_ca(&self, planned: &PlannedCertificate) -> Result<Ca, GroupError> {
        let wanted = planned.sha1_thumbprint;
        let certificate = if let Some(file) = &planned.file {
            read_certificate(file, wanted, self.passwords)?.ok_or_else(|| {
                GroupError::Other(format!("{} does not have the certificate {wanted} any more", file.display()))
            })?
        } else {
            let present = self.certificates.iter().find(|it| thumbprint(it) == Some(wanted));
            present.and_then(DpsCertificate::certificate).ok_or_else(|| {
                GroupError::Other(format!("the instance does not have the CA {wanted} any more, and there is no file"))
            })?
        };
        let given = self.ca_keys.iter().find(|key| key.belongs_to(&certificate));
        let (key, place) = match (given, &planned.key_file) {
            (Some(key), _) => (Arc::clone(key), key.token_uri().unwrap_or("the given key").to_owned()),
            (None, Some(file)) => (Arc::new(read_key(file, self.passwords)?), file.display().to_string()),
            (None, None) => return Ok(Ca::Certificate(Box::new(certificate))),
        };
        let authority = CertificateAuthority::new(vec![certificate], key, Timestamp::now()).map_err(|error| {
            GroupError::Other(format!("{place} cannot prove possession of the CA {wanted}: {error}"))
        })?;
        Ok(Ca::Authority(Box::new(authority)))
    }
}

/// A CA of a group.
enum Ca {
    Authority(Box<CertificateAuthority>),
    Certificate(Box<Certificate>),
}

impl Ca {
    fn certificate(&self) -> &Certificate {
        match self {
            Self::Authority(authority) => authority.certificate(),
            Self::Certificate(certificate) => certificate,
        }
    }
}

/// Fails if a group that is there admits devices that the application does not admit, or the other way around.
fn check_settings(planned: &PlannedGroup, found: &EnrollmentGroup) -> Result<(), GroupError> {
    let status = |enabled: bool| if enabled { "enabled" } else { "disabled" };
    if found.is_enabled() != planned.enabled {
        let (theirs, ours) = (status(found.is_enabled()), status(planned.enabled));
        return Err(GroupError::Other(format!(
            "the instance has the group {theirs}, and the application has it {ours}"
        )));
    }
    if found.settings.iot_edge.unwrap_or(false) != is_iot_edge(&planned.device_type) {
        return Err(GroupError::Other("the instance has the group for another type of device".to_owned()));
    }
    Ok(())
}

fn other_attestation(found: &Attestation) -> String {
    format!("the instance has a group of this ID for attestation by {}", found.kind())
}

/// Returns whether both are the same two keys.
pub(super) fn same_keys(one: &SymmetricKeys, other: &SymmetricKeys) -> bool {
    let same =
        |one: &crate::transport::Secret, other: &crate::transport::Secret| one.expose().trim() == other.expose().trim();
    same(&one.primary_key, &other.primary_key) && same(&one.secondary_key, &other.secondary_key)
}
