//! The end of a rollover: the old certificate authority is removed.

use std::fmt::Write;

use serde::Serialize;

use super::{
    central_target::CentralTarget,
    dps_target::DpsTarget,
    entries::{Entries, EntryState},
    entry_policy::EntryPolicy,
    rollover_error::RolloverError,
    service::{GroupId, Service},
    step::{Observer, Outcome, Step, StepReport, Steps, WorkflowEvent},
    trust_anchor::{AnchorTarget, CONFLICT_WAIT, MAX_CONFLICTS, is_race},
};
use crate::certificate::{Certificate, ChainError, Thumbprint, Timestamp, chain};

/// How to end a rollover.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RetireRequest {
    /// The enrollment group.
    pub group: GroupId,
    /// The certificate of the CA that stays.
    pub stays: Certificate,
    /// Whether to only read, and report what would be done.
    pub dry_run: bool,
}

impl RetireRequest {
    /// Removes the group's certificate other than `stays`.
    #[must_use]
    pub fn new(group: GroupId, stays: Certificate) -> Self {
        Self { group, stays, dry_run: false }
    }

    /// Sets whether to only read, and report what would be done.
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}

/// The result of ending a rollover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RetireReport {
    /// The enrollment group.
    pub group: GroupId,
    /// Whether the group is enabled, so that devices can connect through it.
    pub enabled: bool,
    /// The entry that is emptied, with what it held.
    pub from: EntryState,
    /// The entry that stays.
    pub to: EntryState,
    /// Whether the old entry is empty now.
    pub retired: bool,
    /// The steps in their order.
    pub steps: Vec<StepReport>,
}

/// Ends a rollover: removes the group's other certificate. From then on only devices with certificates under the CA that
/// stays can connect.
///
/// At DPS the group no longer refers to the old certificate, the one that stays becomes the primary one, and the old
/// certificate is deleted unless another group refers to it, or has certificates of its own that may be under it. A run that
/// is killed before that leaves the certificate; the next one names the certificates that no group needs.
///
/// Fails unless the group holds the certificate that stays as verified and it is valid now. Does nothing if the other entry
/// is empty.
///
/// # Errors
/// [`RolloverError`]
pub async fn retire(
    service: impl Into<Service>,
    request: &RetireRequest,
    observer: &mut (dyn FnMut(WorkflowEvent<'_>) + Send),
) -> Result<RetireReport, RolloverError> {
    let service = service.into();
    let policy = EntryPolicy::new(request.group.clone(), None);
    match &service {
        Service::Central(client) => retire_at(CentralTarget::new(client, policy)?, request, observer).await,
        Service::Dps(instance) => retire_at(DpsTarget::new(instance, policy)?, request, observer).await,
    }
}

/// Retires at one target of a service.
async fn retire_at<T: AnchorTarget>(
    mut target: T,
    request: &RetireRequest,
    observer: &mut Observer<'_>,
) -> Result<RetireReport, RolloverError> {
    let RetireRequest { group, stays, dry_run } = request;
    let mut steps = Steps::new(observer);
    let thumbprint = stays.sha1_thumbprint();
    let check = |at| chain::check_authority(stays, at).map_err(|error| RolloverError::Unfit { thumbprint, error });
    check(Timestamp::now())?;
    let entries = target.entries().await?;
    let to = entries.holding(thumbprint)?;
    let detail = format!("the service says that {thumbprint}, the {} certificate, is verified", to.entry);
    steps.finish(Step::Confirm, Outcome::Unchanged, detail);
    // The service does not accept a certificate that is not valid yet by its own clock.
    if let Some(theirs) = target.rest().service_date()
        && let Err(error @ RolloverError::Unfit { error: ChainError::NotYetValid { .. }, .. }) = check(theirs)
    {
        return Err(error);
    }
    let from = entries.state(to.entry.other()).clone();
    let mut report =
        RetireReport { group: group.clone(), enabled: entries.is_enabled, from, to, retired: false, steps: Vec::new() };
    let entry = report.from.entry;
    if report.from.is_empty() {
        let mut detail = format!("{entry} is empty");
        // A run that was killed between its two changes left the certificate, and nothing tells which one it was.
        let unneeded = target.unneeded().await?;
        if !unneeded.is_empty() {
            let names: Vec<_> = unneeded.iter().map(ToString::to_string).collect();
            let _ = write!(detail, "; no group needs these certificates, which can be deleted: {}", names.join(", "));
        }
        steps.finish(Step::Retire, Outcome::Unchanged, detail);
    } else {
        let (old, name) = (report.from.sha1_thumbprint, report.from.certificate_name.as_ref());
        if *dry_run {
            let old = match (old, name) {
                (None, Some(name)) => format!("the reference to {name}, which does not exist,"),
                _ => old.map(|old| old.to_string()).unwrap_or_default(),
            };
            let detail = format!("would remove {old} from {entry}; only devices under {thumbprint} can connect then");
            steps.finish(Step::Retire, Outcome::Planned, detail);
            report.steps = steps.into_reports();
            return Ok(report);
        }
        steps.start(Step::Retire, "removing the old certificate");
        let (outcome, detail) = remove_old(&mut target, entries, thumbprint, old).await?;
        steps.finish(Step::Retire, outcome, detail);
        steps.start(Step::Confirm, "reading both entries again");
        let after = target.entries().await?;
        let Ok(to) = after.holding(thumbprint) else {
            return Err(RolloverError::LeftWithout { group: group.clone(), entry, thumbprint });
        };
        let entry = to.entry.other();
        if let Some(found) = after.state(entry).sha1_thumbprint {
            return Err(RolloverError::NotRetired { group: group.clone(), entry, found });
        }
        if let Some(name) = &after.state(entry).certificate_name {
            return Err(RolloverError::RefersAgain { group: group.clone(), entry, name: name.to_string() });
        }
        let detail = format!("{entry} is empty, and {thumbprint} in {} is verified", to.entry);
        steps.finish(Step::Confirm, Outcome::Done, detail);
        report.to = to;
    }
    report.retired = true;
    report.steps = steps.into_reports();
    Ok(report)
}

/// Empties the entry that holds the old certificate, or refers to one that does not exist. Starts again if another client
/// changes the group in between.
async fn remove_old<T: AnchorTarget>(
    target: &mut T,
    mut entries: Entries,
    stays: Thumbprint,
    old: Option<Thumbprint>,
) -> Result<(Outcome, String), RolloverError> {
    let mut conflicts = 0;
    loop {
        let entry = entries.holding(stays)?.entry.other();
        if let Some(found) = entries.state(entry).sha1_thumbprint.filter(|found| Some(*found) != old) {
            return Err(RolloverError::NotRetired { group: entries.group, entry, found });
        }
        match target.remove(&entries, entry).await {
            Err(RolloverError::Service(error)) if conflicts < MAX_CONFLICTS && is_race(&error) => {
                conflicts += 1;
                target.rest().sleep(CONFLICT_WAIT * conflicts).await;
                entries = target.entries().await?;
            }
            result => return result,
        }
    }
}
