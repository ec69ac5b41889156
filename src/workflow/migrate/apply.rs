//! Carrying out a plan at the instance.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::{
    super::{
        bulk::{Bulk, ReportOrder, RunStop, Signal, StopReason},
        dps_instance::DpsInstance,
        import::signal,
        results::ResultsError,
        step::{Step, Steps, WorkflowEvent},
    },
    apply_devices::{DeviceMover, Moved},
    apply_groups::{GroupError, GroupMover},
    apply_report::{ApplyReport, ItemKind, ItemOutcome, Outcomes, default_results},
    drift::{DeviceDrift, group_drift},
    inspection::{Inspector, SymmetricGroup},
    listed_devices::{ListError, read_groups},
    plan::{DeviceAction, DeviceAdmission, GroupAction, GroupAttestation, PlannedDevice, PlannedGroup},
    plan_error::PlanError,
    plan_file::Plan,
    target::KnownEnrollments,
};
use crate::{
    central::{Attestation, Client, EnrollmentGroup},
    certificate::{PrivateKey, files::Passwords},
    dps::service::{MAX_BULK, RegistrationId},
    transport::{Error, SymmetricKeys, setters},
};

/// How many bulk operations are under way at once. Each reads ten devices.
const CALLS_UNDER_WAY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// How to carry out a plan.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ApplyRequest<'a> {
    /// The results file.
    pub results: PathBuf,
    /// Whether to only read, and report what would be done.
    pub dry_run: bool,
    /// Whether to upload certificates as verified, without a proof of possession.
    pub skip_proof: bool,
    /// The password of private keys and PFX files.
    pub key_password: Option<&'a str>,
    /// Private keys of CAs that the plan has no files for, such as keys in PKCS#11 tokens. They prove possession.
    pub ca_keys: Vec<Arc<PrivateKey>>,
}

impl ApplyRequest<'_> {
    /// Carries out a plan with the outcomes in a file beside it, `plan.results.csv` for `plan.json`.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            results: default_results(plan.path()),
            dry_run: false,
            skip_proof: false,
            key_password: None,
            ca_keys: Vec::new(),
        }
    }
}

setters!(ApplyRequest<'a> {
    results: PathBuf,
    dry_run: bool,
    skip_proof: bool,
    key_password: Option<&'a str>,
    ca_keys: Vec<Arc<PrivateKey>>,
});

/// Why a plan could not be carried out. Failures of items are in the report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A service refused a call, or could not be reached, before anything was done.
    #[error(transparent)]
    Service(#[from] Error),
    /// The plan could not be read.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The results cannot be kept.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// A given private key belongs to none of the CA certificates that the plan names; holds where the key is.
    #[error("the key {0} belongs to none of the CA certificates of the plan that have a file")]
    UnknownKey(String),
    /// The instance is not active.
    #[error("the provisioning service {instance} is not active, its state is {state}: wait until it is active")]
    NotActive {
        /// The name of the instance.
        instance: String,
        /// Its state.
        state: String,
    },
    /// Neither the application is given nor are its keys in the plan.
    #[error("the plan includes no keys, so the application has to be read")]
    NoKeys,
}

impl From<ListError> for ApplyError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Service(error) => Self::Service(error),
            ListError::Plan(error) => Self::Plan(error),
        }
    }
}

/// Carries out a plan at the instance: uploads and verifies CA certificates, and creates enrollment groups and individual
/// enrollments. The application is only read, to see whether it has changed since the plan was made: a group or device that has
/// is left out, and is a failure in the report. Without an application, the keys of the plan are used, and changes go unnoticed.
///
/// It is idempotent. What the instance has is read first, and nothing in it is overwritten: a group or enrollment of the same ID
/// that is another one is a failure. The outcome of each item is in a results file as soon as it is known. A call that was
/// interrupted is resumed by the same call. Every call compares everything, also what an earlier one created.
///
/// The disabled individual enrollments are created first, because they block devices that the groups would admit.
///
/// # Errors
/// [`ApplyError`] if nothing was done. Failures of items, and why the run stopped, are in the report.
pub async fn apply_plan(
    plan: &Plan,
    application: Option<&Client>,
    instance: &DpsInstance,
    request: &ApplyRequest<'_>,
    observer: &mut (dyn FnMut(WorkflowEvent<'_>) + Send),
) -> Result<ApplyReport, ApplyError> {
    if application.is_none() && !plan.header().includes_keys {
        return Err(ApplyError::NoKeys);
    }
    let properties = instance.properties();
    if !properties.is_active() {
        let state = properties.state.clone().unwrap_or_default();
        return Err(ApplyError::NotActive { instance: properties.id.name.to_string(), state });
    }
    let report = ApplyReport::new(plan.path(), &request.results);
    let mut outcomes = Outcomes::open(report, &plan.header().id, request.dry_run)?;
    let groups = match application {
        Some(application) => Some(read_groups(application).await?),
        None => None,
    };
    let drift = match application {
        Some(application) => DeviceDrift::read(application, plan).await?,
        None => DeviceDrift::default(),
    };
    let known = KnownEnrollments::read(instance).await?;
    outcomes.start()?;
    outcomes.report.new_devices = drift.new;
    let mut steps = Steps::new(observer);
    let mut run = Run { plan, request, outcomes, tried: 0, unblocked: Vec::new() };
    let mover = GroupMover {
        instance,
        header: plan.header(),
        certificates: instance.read_certificates().await?,
        passwords: Passwords::new().key(request.key_password),
        ca_keys: &request.ca_keys,
        skip_proof: request.skip_proof,
        dry_run: request.dry_run,
    };
    if let Some(key) = mover.unknown_key() {
        return Err(ApplyError::UnknownKey(key.token_uri().unwrap_or("given").to_owned()));
    }
    let inspector =
        application.zip(groups.as_deref()).map(|(application, groups)| inspector(plan, application, groups));
    let devices = Arc::new(DeviceMover {
        enrollments: instance.client().individual_enrollments(),
        registrations: instance.client().registrations(),
        registrations_unread: AtomicBool::new(false),
        inspector,
        drift,
        known,
        key_password: request.key_password.map(|password| password.to_owned().into()),
        dry_run: request.dry_run,
    });
    run.apply_devices(&devices, Enrollments::Disabled, &mut steps).await?;
    if run.outcomes.report.stopped.is_none() {
        run.find_unblocked_groups(&devices).await?;
        run.apply_groups(&mover, groups.as_deref(), &mut steps).await?;
    }
    for (id, change) in &devices.drift.covered {
        run.outcomes.add(ItemKind::Device, id, ItemOutcome::Failed, change)?;
    }
    if run.outcomes.report.stopped.is_none() {
        run.apply_devices(&devices, Enrollments::Enabled, &mut steps).await?;
    }
    let mut report = run.outcomes.report;
    report.remaining = plan.header().counts.enroll.saturating_sub(run.tried);
    report.registrations_unread = devices.registrations_unread.load(Relaxed);
    report.steps = steps.into_reports();
    Ok(report)
}

/// Returns what reads devices as they were read for the plan.
fn inspector(plan: &Plan, application: &Client, groups: &[EnrollmentGroup]) -> Inspector {
    let symmetric = groups.iter().filter_map(|group| Some(SymmetricGroup::new(group.id.clone(), keys_of(group)?)));
    Inspector {
        devices: application.devices(),
        plan_id: plan.header().id.clone(),
        include_keys: false,
        groups: symmetric.collect(),
        has_x509_groups: groups.iter().any(|group| matches!(group.attestation, Attestation::X509 { .. })),
    }
}

fn keys_of(group: &EnrollmentGroup) -> Option<&SymmetricKeys> {
    if let Attestation::SymmetricKey(keys) = &group.attestation { keys.as_ref() } else { None }
}

/// A run over the items of a plan.
struct Run<'a> {
    plan: &'a Plan,
    request: &'a ApplyRequest<'a>,
    outcomes: Outcomes,
    /// The number of individual enrollments that were tried.
    tried: u64,
    /// The disabled devices that the instance does not block, because their individual enrollments failed.
    unblocked: Vec<Unblocked>,
}

/// A disabled device that the instance does not block.
struct Unblocked {
    id: String,
    /// Its symmetric-key group; none if it is in an X.509 group, which can be any.
    group: Option<String>,
}

impl Unblocked {
    /// Returns whether a group would admit it.
    fn is_admitted_by(&self, group: &PlannedGroup) -> bool {
        match &self.group {
            Some(id) => group.id.as_str() == id,
            None => matches!(group.attestation, GroupAttestation::X509 { .. }),
        }
    }
}

/// Which individual enrollments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Enrollments {
    Disabled,
    Enabled,
}

impl Run<'_> {
    /// Moves the groups. `now` are those of the application.
    async fn apply_groups(
        &mut self,
        mover: &GroupMover<'_>,
        now: Option<&[EnrollmentGroup]>,
        steps: &mut Steps<'_>,
    ) -> Result<(), ResultsError> {
        let header = self.plan.header();
        let by_id: Option<HashMap<&str, &EnrollmentGroup>> =
            now.map(|groups| groups.iter().map(|group| (group.id.as_str(), group)).collect());
        for group in header.groups.iter().filter(|group| group.action != GroupAction::None) {
            let id = group.id.as_str();
            let drift = by_id.as_ref().and_then(|by_id| group_drift(group, by_id.get(id).copied(), &header.id));
            let unblocked = self.unblocked.iter().find(|device| device.is_admitted_by(group));
            let result = match (drift, unblocked) {
                (Some(change), _) => Err(GroupError::Other(change)),
                (None, Some(Unblocked { id, .. })) => Err(GroupError::Other(format!(
                    "it would admit the disabled device {id}, which could not be blocked"
                ))),
                (None, None) => mover.apply(group, group_keys(group, by_id.as_ref()), steps).await,
            };
            match result {
                Ok(outcome) => self.outcomes.add(ItemKind::Group, id, outcome, "")?,
                Err(error) => {
                    let message = error.to_string();
                    self.outcomes.add(ItemKind::Group, id, ItemOutcome::Failed, &message)?;
                    if error.service().is_some_and(is_for_all) {
                        self.outcomes.report.stopped = Some(message);
                        return Ok(());
                    }
                }
            }
        }
        let is_planned = |group: &&EnrollmentGroup| header.groups.iter().any(|planned| planned.id == group.id);
        for group in now.unwrap_or_default().iter().filter(|group| !is_planned(group)) {
            let message = "the plan does not have this group: make the plan again";
            self.outcomes.add(ItemKind::Group, group.id.as_str(), ItemOutcome::Failed, message)?;
        }
        Ok(())
    }

    /// Finds the groups that would admit a disabled device, because it has no enrollment at the instance.
    async fn find_unblocked_groups(&mut self, mover: &DeviceMover) -> Result<(), ApplyError> {
        let failed: HashSet<String> = std::mem::take(&mut self.unblocked).into_iter().map(|it| it.id).collect();
        // One that is not disabled any more, or is gone, is not to be blocked.
        let is_open = |id: &str| failed.contains(id) && mover.known.get(id).is_none() && mover.drift.of(id).is_none();
        if failed.is_empty() {
            return Ok(());
        }
        for device in self.plan.devices()? {
            let device = device?;
            let id = device.id.to_string();
            let group = match device.admission {
                DeviceAdmission::SymmetricGroup { group, .. } => Some(group.to_string()),
                DeviceAdmission::X509Group { .. } => None,
                // No group admits it.
                _ => continue,
            };
            // One is enough for each group.
            if !is_open(&id) || self.unblocked.iter().any(|it| it.group == group) {
                continue;
            }
            // It failed, but may be there all the same.
            let is_there = match RegistrationId::new(&id) {
                Ok(id) => mover.enrollments.find(&id).await.is_ok_and(|found| found.is_some()),
                Err(_) => false,
            };
            if !is_there {
                self.unblocked.push(Unblocked { id, group });
            }
        }
        Ok(())
    }

    /// Creates individual enrollments.
    async fn apply_devices(
        &mut self,
        mover: &Arc<DeviceMover>,
        which: Enrollments,
        steps: &mut Steps<'_>,
    ) -> Result<(), ApplyError> {
        let counts = self.plan.header().counts;
        let (is_enabled, of) = match which {
            Enrollments::Disabled => (false, counts.disabled),
            Enrollments::Enabled => (true, counts.enroll.saturating_sub(counts.disabled)),
        };
        if counts.enroll == 0 {
            return Ok(());
        }
        steps.start(
            Step::Create,
            match which {
                _ if self.request.dry_run => "reading devices",
                Enrollments::Disabled => "creating disabled individual enrollments",
                Enrollments::Enabled => "creating individual enrollments",
            },
        );
        let (outcomes, unblocked) = (&mut self.outcomes, &mut self.unblocked);
        let planned_before = outcomes.report.planned;
        let is_wanted = |device: &PlannedDevice| device.action == DeviceAction::Enroll && device.enabled == is_enabled;
        let mut devices = self.plan.devices()?.filter(|device| device.as_ref().map_or(true, is_wanted));
        let chunks = std::iter::from_fn(|| {
            let chunk: Vec<_> = devices.by_ref().take(MAX_BULK).collect();
            let chunk = (!chunk.is_empty()).then(|| chunk.into_iter().collect::<Result<Vec<_>, _>>());
            chunk.map(|chunk| chunk.map_err(|error| RunStop::Unreadable(error.to_string())))
        });
        let mut tried = 0;
        let bulk = Bulk { concurrency: CALLS_UNDER_WAY, order: ReportOrder::Ended, probes: true };
        let work = |devices: Vec<PlannedDevice>| Arc::clone(mover).apply(devices);
        let ended = bulk.run(chunks, work, |moved: Vec<Moved>, reason| {
            let mut last = String::new();
            for Moved { id, outcome, message } in moved {
                outcomes.add(ItemKind::Device, &id, outcome, &message)?;
                tried += 1;
                if outcome == ItemOutcome::Failed {
                    last = message;
                    if which == Enrollments::Disabled {
                        unblocked.push(Unblocked { id, group: None });
                    }
                }
            }
            if let Some(reason) = reason {
                outcomes.report.stopped = Some(stop_message(reason, &last));
            }
            steps.progress(Step::Create, tried, of);
            Ok(())
        });
        if let Err(stop) = ended.await {
            outcomes.report.stopped = Some(stop.to_string());
        }
        if which == Enrollments::Disabled {
            outcomes.report.planned_disabled = outcomes.report.planned - planned_before;
        }
        self.tried += tried;
        Ok(())
    }
}

/// Returns whether every other item would fail the same way.
fn is_for_all(error: &Error) -> bool {
    matches!(signal(error), Signal::AffectsAll | Signal::Forbidden)
}

fn stop_message(reason: StopReason, message: &str) -> String {
    match reason {
        StopReason::AffectsAll => format!("this affects every device: {message}"),
        reason => RunStop::new(reason, 0, message).to_string(),
    }
}

/// Returns the keys of a group: those that it has at the application, or those of the plan.
fn group_keys<'a>(
    group: &'a PlannedGroup,
    now: Option<&HashMap<&str, &'a EnrollmentGroup>>,
) -> Option<&'a SymmetricKeys> {
    match (now, &group.attestation) {
        (Some(now), _) => now.get(group.id.as_str()).and_then(|group| keys_of(group)),
        (None, GroupAttestation::SymmetricKey(planned)) => planned.keys.as_ref(),
        _ => None,
    }
}
