//! From one authority to another, without downtime.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    fleet::{FleetRequest, FleetSummary},
    provision::{AuthoritySource, ProvisionError, ProvisionRequest, ProvisionedDevice, Run, as_text},
    step::{Outcome, Step, StepReport, Steps, WorkflowEvent},
};
use crate::{
    central::{Attestation, CertificateEntry, Client, EnrollmentGroupId, Error, SigningCertificate},
    certificate::{
        Certificate, ChainError, DeviceId, KeyAlgorithm, Lifetime, Thumbprint, Timestamp,
        chain::{self, moment},
        files::PfxOptions,
    },
};

/// How a group is to roll over to another authority.
pub struct RolloverRequest<'a> {
    /// The enrollment group, verified on the old authority.
    pub group: EnrollmentGroupId,
    /// The new authority.
    pub authority: AuthoritySource,
    /// The password of keys that are found in files and encrypted.
    pub key_password: Option<&'a str>,
    /// Upload the certificate as verified instead of proving possession of its key.
    pub attest: bool,
    /// The devices to make certificates for under the new authority.
    pub devices: Vec<DeviceId>,
    /// Many devices to make certificates for, in a directory of their own.
    pub fleet: Option<FleetRequest>,
    /// The directory of the new root, and of the devices' old certificates.
    pub directory: PathBuf,
    /// The directory for the devices' new certificates.
    pub device_directory: PathBuf,
    /// Make the new certificates of [`devices`](Self::devices) for the keys of their old ones. The keys stay where they are.
    pub keep_keys: bool,
    /// The kind of key for what is made.
    pub algorithm: KeyAlgorithm,
    /// How long device certificates are valid.
    pub device_lifetime: Option<Lifetime>,
    /// How PFX files are made, when they are.
    pub pfx: Option<PfxOptions<'a>>,
    /// Only read and tell what would be done.
    pub dry_run: bool,
}

/// What an entry of a group holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct EntryState {
    /// The entry.
    pub entry: CertificateEntry,
    /// Whether it is verified.
    pub verified: bool,
    /// The thumbprint of what it holds; nothing where it is empty.
    #[serde(serialize_with = "as_text")]
    pub sha1_thumbprint: Option<Thumbprint>,
}

/// The result of a rollover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RolloverReport {
    /// The enrollment group.
    pub group: EnrollmentGroupId,
    /// Whether devices may connect through the group.
    pub enabled: bool,
    /// The entry of the old authority.
    pub from: EntryState,
    /// The entry of the new one.
    pub to: EntryState,
    /// The steps in their order.
    pub steps: Vec<StepReport>,
    /// The new device certificates that exist now, those of a fleet apart.
    pub devices: Vec<ProvisionedDevice>,
    /// The fleet, where one was asked for and made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetSummary>,
}

/// Starts a rollover: uploads the new authority's certificate to the group's free entry, proves possession of its key, and
/// issues device certificates under it. The old certificate stays, so devices can connect by either, until [`retire`].
///
/// It is idempotent, as [`provision`](super::provision) is, and reads everything before it changes anything.
///
/// # Errors
/// [`RolloverError`]. Completed steps stay completed, and the next call resumes from there.
pub async fn rollover(
    client: &Client,
    request: &RolloverRequest<'_>,
    observer: &mut (dyn FnMut(WorkflowEvent<'_>) + Send),
) -> Result<RolloverReport, RolloverError> {
    let entries = Entries::read(client, &request.group).await?;
    let mut provision = ProvisionRequest {
        group: request.group.clone(),
        display_name: None,
        device_type: None,
        entry: None,
        authority: request.authority.clone(),
        key_password: request.key_password,
        devices: request.devices.clone(),
        fleet: request.fleet.clone(),
        create_devices: false,
        template: None,
        register: None,
        directory: request.directory.clone(),
        algorithm: request.algorithm,
        device_lifetime: request.device_lifetime,
        pfx: request.pfx,
        attest: request.attest,
        replace: false,
        // Two verified CAs at a time are what a rollover is for.
        add_ca: true,
        dry_run: request.dry_run,
    };
    let ours = Run::new(client, &provision, Steps::new(&mut |_| ())).find_authority()?;
    let ours = ours.map(|authority| authority.certificate().sha1_thumbprint());
    let entry = entries.free_for(ours)?;
    provision.entry = Some(entry);
    let from = entries.state(entry.other());
    let mut run = Run::new(client, &provision, Steps::new(observer));
    run.device_directory = &request.device_directory;
    run.keys_of = request.keep_keys.then_some(&request.directory);
    let plan = run.plan().await?;
    let report = run.carry_out(plan).await?;
    let to = EntryState { entry: report.entry, verified: report.verified, sha1_thumbprint: report.sha1_thumbprint };
    Ok(RolloverReport {
        group: report.group,
        enabled: entries.enabled,
        from,
        to,
        steps: report.steps,
        devices: report.devices,
        fleet: report.fleet,
    })
}

/// The result of retiring an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RetireReport {
    /// The enrollment group.
    pub group: EnrollmentGroupId,
    /// Whether devices may connect through the group.
    pub enabled: bool,
    /// The entry that is, or would be, emptied, and what it held.
    pub from: EntryState,
    /// The entry that stays.
    pub to: EntryState,
    /// Whether the old entry is empty now.
    pub retired: bool,
    /// The steps in their order.
    pub steps: Vec<StepReport>,
}

/// Ends a rollover: removes the group's other certificate. From then on only devices whose certificates lead to `stays`
/// can connect.
///
/// Fails unless the group holds `stays` as verified and it is valid now. Does nothing if the other entry is empty.
///
/// # Errors
/// [`RolloverError`]
pub async fn retire(
    client: &Client,
    group: &EnrollmentGroupId,
    stays: &Certificate,
    dry_run: bool,
    observer: &mut (dyn FnMut(WorkflowEvent<'_>) + Send),
) -> Result<RetireReport, RolloverError> {
    let mut steps = Steps::new(observer);
    let thumbprint = stays.sha1_thumbprint();
    chain::check_authority(stays, Timestamp::now()).map_err(|error| RolloverError::Unfit { thumbprint, error })?;
    let entries = Entries::read(client, group).await?;
    let to = entries.holding(thumbprint)?;
    steps.finish(
        Step::Confirm,
        Outcome::Unchanged,
        format!("the service says that {thumbprint}, the {} certificate, is verified", to.entry),
    );
    // A device is not let in by a certificate that is not valid yet by the service's clock.
    if let Some(theirs) = client.rest().service_date()
        && let Err(error @ ChainError::NotYetValid { .. }) = chain::check_authority(stays, theirs)
    {
        return Err(RolloverError::Unfit { thumbprint, error });
    }
    let from = entries.state(to.entry.other());
    let entry = from.entry;
    let report = |retired, steps: Steps<'_>, from: EntryState, to: EntryState| RetireReport {
        group: group.clone(),
        enabled: entries.enabled,
        from,
        to,
        retired,
        steps: steps.taken(),
    };
    let Some(old) = from.sha1_thumbprint else {
        steps.finish(Step::Retire, Outcome::Unchanged, format!("{entry} is empty"));
        return Ok(report(true, steps, from, to));
    };
    if dry_run {
        let detail = format!("would remove {old} from {entry}; only devices under {thumbprint} can connect then");
        steps.finish(Step::Retire, Outcome::Planned, detail);
        return Ok(report(false, steps, from, to));
    }
    steps.start(Step::Retire, "removing the old certificate");
    match client.enrollment_groups().delete_certificate(group, entry).await {
        Ok(()) => steps.finish(Step::Retire, Outcome::Done, format!("removed {old} from {entry}")),
        Err(error) if error.is_not_found() => {
            steps.finish(Step::Retire, Outcome::Unchanged, format!("{entry} is empty already"));
        }
        Err(error) => return Err(error.into()),
    }
    steps.start(Step::Confirm, "reading both entries again");
    let after = Entries::read(client, group).await?;
    let Ok(to) = after.holding(thumbprint) else {
        return Err(RolloverError::LeftWithout { group: group.clone(), entry, thumbprint });
    };
    if let Some(found) = after.state(entry).sha1_thumbprint {
        return Err(RolloverError::NotRetired { group: group.clone(), entry, found });
    }
    let detail = format!("{entry} is empty, and {thumbprint} in {} is verified", to.entry);
    steps.finish(Step::Confirm, Outcome::Done, detail);
    Ok(report(true, steps, from, to))
}

/// Both entries of a group.
struct Entries<'a> {
    group: &'a EnrollmentGroupId,
    enabled: bool,
    primary: Option<SigningCertificate>,
    secondary: Option<SigningCertificate>,
}

impl<'a> Entries<'a> {
    async fn read(client: &Client, group: &'a EnrollmentGroupId) -> Result<Self, RolloverError> {
        let groups = client.enrollment_groups();
        let found = groups.get(group).await?;
        if !matches!(found.attestation, Attestation::X509 { .. }) {
            let (group, found) = (found.id, found.attestation.kind().to_owned());
            return Err(ProvisionError::Attestation { group, found }.into());
        }
        Ok(Self {
            group,
            enabled: found.enabled,
            primary: groups.find_certificate(group, CertificateEntry::Primary).await?,
            secondary: groups.find_certificate(group, CertificateEntry::Secondary).await?,
        })
    }

    fn state(&self, entry: CertificateEntry) -> EntryState {
        let found = match entry {
            CertificateEntry::Primary => &self.primary,
            CertificateEntry::Secondary => &self.secondary,
        };
        EntryState {
            entry,
            verified: found.as_ref().is_some_and(|found| found.verified),
            sha1_thumbprint: found.as_ref().and_then(|found| found.sha1_thumbprint),
        }
    }

    fn both(&self) -> [EntryState; 2] {
        [CertificateEntry::Primary, CertificateEntry::Secondary].map(|entry| self.state(entry))
    }

    /// The entry for the new certificate: the one that holds it already, or the empty one. The other has to be verified.
    fn free_for(&self, ours: Option<Thumbprint>) -> Result<CertificateEntry, RolloverError> {
        let group = || self.group.clone();
        let [primary, secondary] = self.both();
        let holds_ours = |state: &EntryState| ours.is_some() && state.sha1_thumbprint == ours;
        let empty = |state: &EntryState| state.sha1_thumbprint.is_none();
        let (to, from) = match (&primary, &secondary) {
            (to, from) if holds_ours(to) => (to, from),
            (from, to) if holds_ours(to) => (to, from),
            (from, to) if empty(to) => (to, from),
            (to, from) if empty(to) => (to, from),
            _ => return Err(RolloverError::BothTaken { group: group() }),
        };
        match ours {
            _ if from.verified => Ok(to.entry),
            Some(ours) if holds_ours(to) && (to.verified || empty(from)) => {
                Err(RolloverError::OnlyCertificate { group: group(), entry: to.entry, ours })
            }
            _ => Err(RolloverError::NotVerified { group: group() }),
        }
    }

    /// The entry that holds this certificate, which has to be verified.
    fn holding(&self, thumbprint: Thumbprint) -> Result<EntryState, RolloverError> {
        let found = self.both().into_iter().find(|state| state.sha1_thumbprint == Some(thumbprint));
        match found {
            Some(state) if state.verified => Ok(state),
            found => Err(RolloverError::Needed {
                group: self.group.clone(),
                thumbprint,
                entry: found.map(|state| state.entry),
            }),
        }
    }
}

/// Why a group could not roll over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RolloverError {
    /// The service refused a call, or could not be reached.
    #[error(transparent)]
    Central(#[from] Error),
    /// The new certificate could not be brought into the group, or device certificates could not be made.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// There is nothing to roll over from.
    #[error("neither certificate of {group} is verified, so there is nothing to roll over from: provision the group")]
    NotVerified {
        /// The group.
        group: EnrollmentGroupId,
    },
    /// The new certificate is all that the group has.
    #[error(
        "{ours} is the only certificate of {group}, in its {entry} entry: either the rollover to it is complete, or this is \
         the old one and the new one has to be named"
    )]
    OnlyCertificate {
        /// The group.
        group: EnrollmentGroupId,
        /// Its entry.
        entry: CertificateEntry,
        /// Its thumbprint.
        ours: Thumbprint,
    },
    /// There is no free entry.
    #[error("both entries of {group} hold other certificates: remove the one that no device needs")]
    BothTaken {
        /// The group.
        group: EnrollmentGroupId,
    },
    /// The certificate that is to stay is not what devices could connect by.
    #[error(
        "nothing was removed, because no device could connect then: {thumbprint} is {} of {group}. Run the rollover first",
        .entry.map_or_else(|| "in no entry".to_owned(), |entry| format!("not verified in the {entry} entry"))
    )]
    Needed {
        /// The group.
        group: EnrollmentGroupId,
        /// The thumbprint of the certificate that is to stay.
        thumbprint: Thumbprint,
        /// The entry it is in.
        entry: Option<CertificateEntry>,
    },
    /// The certificate that is to stay cannot sign device certificates, or is not valid now.
    #[error("nothing was removed, because no device could connect then: {thumbprint} cannot be used: {}", in_time(.error))]
    Unfit {
        /// The thumbprint of the certificate that is to stay.
        thumbprint: Thumbprint,
        /// What is wrong with it.
        error: ChainError,
    },
    /// The old certificate was removed, and meanwhile another client removed or replaced the one that was to stay.
    #[error(
        "the {entry} entry of {group} was emptied, but {thumbprint}, which was to stay, is no longer verified in the other: \
         another client changed the group at the same time, and devices may not be able to connect. Check both entries, \
         and provision the group with the root that is to stay"
    )]
    LeftWithout {
        /// The group.
        group: EnrollmentGroupId,
        /// The entry that was emptied.
        entry: CertificateEntry,
        /// The thumbprint of the certificate that was to stay.
        thumbprint: Thumbprint,
    },
    /// The entry was emptied, but holds a certificate again.
    #[error("the {entry} entry of {group} was emptied, but holds {found} now: another client may be changing it")]
    NotRetired {
        /// The group.
        group: EnrollmentGroupId,
        /// The entry.
        entry: CertificateEntry,
        /// What it holds.
        found: Thumbprint,
    },
}

/// What is wrong with a certificate, with the remedy if it is not valid yet.
fn in_time(error: &ChainError) -> String {
    match error {
        ChainError::NotYetValid { subject, not_before, at } => format!(
            "{subject} is not valid until {}, and it is {}: wait until then, or check the clock",
            moment(*not_before),
            moment(*at)
        ),
        error => error.to_string(),
    }
}
