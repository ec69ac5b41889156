//! Sending devices to the instance: their firmware is told the new ID scope by a command.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    moves::{EarlierMove, EarlierMoves, EarlierState, MoveOutcome, MoveResults, MoveRow, run_hash},
    plan::PlanHeader,
    plan_error::PlanError,
    plan_file::Plan,
    readiness::{Expectation, Readiness},
};
use crate::{
    central::{CentralDeviceId, Client, CommandPath, DeviceCommand, DeviceGroupId, Devices, NewCommand},
    certificate::Timestamp,
    dps::service::RegistrationId,
    transport::Error,
    workflow::{
        bulk::{Bulk, ReportOrder, RunStop, Signal},
        dps_instance::DpsInstance,
        import::signal,
        record::lossy_path,
        repeated_ids::id_hash,
        results::{ResultsError, results_path},
        step::{Observer, Step, WorkflowEvent},
    },
};

/// How many commands are under way at once. A killed run leaves at most so many devices of which it is not known whether they
/// received the command.
const UNDER_WAY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(19);

/// The member of the command's payload with the new ID scope, as the interface `dtmi:azureiot:DeviceMigration;1` names it.
const ID_SCOPE: &str = "idScope";

/// Which devices to send to the instance.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MoveTargets {
    /// These.
    Devices(Vec<CentralDeviceId>),
    /// Those that the query of a device group of the application matches now.
    ///
    /// The group is resolved to its devices. A job of the application would need one request only, but it reports no more
    /// than a status of each device, and cannot skip devices that were sent before or that the instance would refuse.
    Group(DeviceGroupId),
}

/// To which devices a command is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Resend {
    /// To those that certainly did not receive it, or refused it.
    #[default]
    Failed,
    /// To those of which it is not known whether they received it, too.
    Unknown,
    /// To all, also those that received it.
    All,
}

/// How to send devices to the instance.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MoveRequest {
    /// The devices.
    pub targets: MoveTargets,
    /// The command of the devices' firmware.
    pub command: CommandPath,
    /// The results file.
    pub results: PathBuf,
    /// To which devices of earlier runs the command is sent again.
    pub resend: Resend,
    /// Whether to find out only what a run would do.
    pub dry_run: bool,
}

impl MoveRequest {
    /// Sends this command to devices. The results go to a file beside the plan, `plan.moves.csv` for `plan.json`.
    #[must_use]
    pub fn new(plan: &Plan, targets: MoveTargets, command: CommandPath) -> Self {
        let results = results_path(plan.path(), "moves");
        Self { targets, command, results, resend: Resend::default(), dry_run: false }
    }

    /// Sets the results file.
    #[must_use]
    pub fn results(mut self, path: impl Into<PathBuf>) -> Self {
        self.results = path.into();
        self
    }

    /// Sets to which devices of earlier runs the command is sent again.
    #[must_use]
    pub fn resend(mut self, resend: Resend) -> Self {
        self.resend = resend;
        self
    }

    /// Sets whether to find out only what a run would do.
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}

/// Why devices could not be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// The plan cannot be read.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The results cannot be kept.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// A service could not be read.
    #[error(transparent)]
    Service(#[from] Error),
}

/// The result of sending devices.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MoveReport {
    /// The results file: a row before and after each command.
    #[serde(serialize_with = "lossy_path")]
    pub results: PathBuf,
    /// The ID scope that the devices are told.
    pub id_scope: String,
    /// The command.
    pub command: CommandPath,
    /// Whether nothing was sent, because this was a dry run.
    pub dry_run: bool,
    /// The number of devices that a run would send the command to. Zero unless this was a dry run.
    pub planned: u64,
    /// The number of devices that received the command and accepted it.
    pub sent: u64,
    /// The number of devices that received it in an earlier run.
    pub earlier: u64,
    /// The number of devices of which it is not known whether they received it.
    pub unknown: u64,
    /// The number of devices that answered with an error.
    pub refused: u64,
    /// The number of devices that did not receive it.
    pub failed: u64,
    /// The number of devices that it was not sent to, because the plan or the instance is not ready for them.
    pub skipped: u64,
    /// The number of devices that were not tried, because the run stopped.
    pub remaining: u64,
    /// Why the run stopped before its end.
    #[serde(skip)]
    pub stopped: Option<RunStop>,
}

impl MoveReport {
    fn new(request: &MoveRequest, id_scope: &str) -> Self {
        Self {
            results: request.results.clone(),
            id_scope: id_scope.to_owned(),
            command: request.command.clone(),
            dry_run: request.dry_run,
            planned: 0,
            sent: 0,
            earlier: 0,
            unknown: 0,
            refused: 0,
            failed: 0,
            skipped: 0,
            remaining: 0,
            stopped: None,
        }
    }

    /// Returns the number of devices of each outcome, by its name.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 8] {
        let Self { planned, sent, earlier, unknown, refused, failed, skipped, remaining, .. } = self;
        [
            ("to send", *planned),
            ("sent", *sent),
            ("sent before", *earlier),
            ("unknown", *unknown),
            ("refused", *refused),
            ("failed", *failed),
            ("skipped", *skipped),
            ("not tried", *remaining),
        ]
    }

    /// Returns whether every device received the command, or would be sent it by a dry run.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let Self { unknown, refused, failed, skipped, remaining, stopped, .. } = self;
        stopped.is_none() && [unknown, refused, failed, skipped, remaining].into_iter().all(|count| *count == 0)
    }

    fn done(&self) -> u64 {
        self.sent + self.unknown + self.refused + self.failed
    }

    fn count(&mut self, outcome: MoveOutcome) {
        *match outcome {
            MoveOutcome::Sent => &mut self.sent,
            MoveOutcome::Sending | MoveOutcome::Unknown => &mut self.unknown,
            MoveOutcome::Refused => &mut self.refused,
            MoveOutcome::Failed => &mut self.failed,
            MoveOutcome::Skipped => &mut self.skipped,
        } += 1;
    }
}

/// What is to be done for a device.
#[derive(Debug, Clone, Copy)]
enum Task {
    /// Send the command.
    Send,
    /// Find out whether an earlier run sent it. If it has the hash of a run, that is an older one.
    Settle(Option<u64>),
}

/// Devices that are ready to be sent to the instance. Nothing has been sent yet, so that a person can be asked first.
pub struct PreparedMove {
    devices: Devices,
    command: CommandPath,
    tasks: Vec<(CentralDeviceId, Task)>,
    skipped: Vec<(CentralDeviceId, String)>,
    report: MoveReport,
    results: Option<MoveResults>,
}

impl PreparedMove {
    /// Returns the number of devices that the command will be sent to.
    #[must_use]
    pub fn to_send(&self) -> usize {
        self.tasks.iter().filter(|(_, task)| matches!(task, Task::Send)).count()
    }

    /// Returns the devices that it will not be sent to because the plan or the instance is not ready for them, and why.
    pub fn skipped(&self) -> impl Iterator<Item = (&CentralDeviceId, &str)> {
        self.skipped.iter().map(|(id, reason)| (id, reason.as_str()))
    }

    /// Sends the command to the devices, within the rate of the application's client. In a dry run, sends nothing.
    ///
    /// Failures of devices, and why the run stopped, are in the report.
    pub async fn run(self, observer: &mut (dyn FnMut(WorkflowEvent<'_>) + Send)) -> MoveReport {
        let to_send = self.to_send() as u64;
        let Self { devices, command, tasks, skipped, mut report, results } = self;
        report.skipped = skipped.len() as u64;
        for (id, reason) in &skipped {
            observer(WorkflowEvent::DeviceFailed { id: id.as_str(), message: reason });
        }
        let Some(results) = results else {
            report.planned = to_send;
            report.unknown = tasks.len() as u64 - to_send;
            return report;
        };
        let of = tasks.len() as u64;
        let mover = Arc::new(Mover {
            devices,
            request: NewCommand::with_request(json!({ ID_SCOPE: report.id_scope })),
            command,
            results: Mutex::new(results),
        });
        let stopped = mover.record_skipped(&skipped).err().map(RunStop::Results);
        let ended = match stopped {
            Some(stopped) => Err(stopped),
            None => Mover::send_all(&mover, tasks, &mut report, observer).await,
        };
        report.stopped = ended.err().or(report.stopped);
        report.remaining = of.saturating_sub(report.done());
        report
    }
}

/// Finds out to which devices a command is to be sent. Reads the plan, the application, the instance and the results of earlier
/// runs, and sends nothing. The results file stays locked until the result is dropped.
///
/// A device is skipped if the plan does not move it, or if the instance would not admit it: its group or individual enrollment
/// is missing, disabled or for another credential.
///
/// Every command is recorded in the results file before and after it is sent. The next run sends nothing to devices that
/// received the command. A device whose last row is the one before, because the run was killed, is not sent the command again
/// either: the application is asked for the device's last command, and if that does not tell, the device is reported as unknown.
/// [`Resend`] sends it to these devices too.
///
/// # Errors
/// [`MoveError`] if something cannot be read.
///
/// ```no_run
/// use iot_enroll::{
///     central::Client,
///     workflow::{
///         DpsInstance,
///         migrate::{MoveRequest, MoveTargets, Plan, prepare_move},
///     },
/// };
///
/// # async fn run(client: Client, instance: DpsInstance) -> Result<(), Box<dyn std::error::Error>> {
/// let plan = Plan::read("plan.json")?;
/// let targets = MoveTargets::Group("wave-1".parse()?);
/// let request = MoveRequest::new(&plan, targets, "migration.DeviceMove".parse()?);
/// let report = prepare_move(&client, &instance, &plan, &request).await?.run(&mut |_| ()).await;
/// println!("{} sent", report.sent);
/// # Ok(())
/// # }
/// ```
pub async fn prepare_move(
    client: &Client,
    instance: &DpsInstance,
    plan: &Plan,
    request: &MoveRequest,
) -> Result<PreparedMove, MoveError> {
    let id_scope = &plan.header().instance.id_scope;
    let ids = resolve(client, &request.targets).await?;
    let (earlier, results) = if request.dry_run {
        (EarlierMoves::read(&request.results, id_scope)?, None)
    } else {
        let (earlier, results) = EarlierMoves::open(&request.results, id_scope)?;
        (earlier, Some(results))
    };
    let mut prepared = PreparedMove {
        devices: client.devices(),
        command: request.command.clone(),
        tasks: Vec::new(),
        skipped: Vec::new(),
        report: MoveReport::new(request, id_scope),
        results,
    };
    let mut fresh = Vec::new();
    for id in ids {
        match earlier.get(id.as_str()) {
            Some(EarlierMove { state: EarlierState::Sent, .. }) if request.resend != Resend::All => {
                prepared.report.earlier += 1;
            }
            Some(EarlierMove { state: EarlierState::Unknown, run }) if request.resend == Resend::Failed => {
                prepared.tasks.push((id, Task::Settle(run)));
            }
            _ => fresh.push(id),
        }
    }
    let expected = read_expectations(plan, &fresh)?;
    let readiness = read_readiness(instance, plan.header(), &fresh, &expected).await?;
    for id in fresh {
        let problem = match expected.get(&id_hash(id.as_str())) {
            Some(expectation) => readiness.problem(id.as_str(), expectation),
            None => Some("the plan does not have it: make the plan again".to_owned()),
        };
        match problem {
            Some(problem) => prepared.skipped.push((id, problem)),
            None => prepared.tasks.push((id, Task::Send)),
        }
    }
    Ok(prepared)
}

/// Returns the IDs of the devices, each once.
async fn resolve(client: &Client, targets: &MoveTargets) -> Result<Vec<CentralDeviceId>, Error> {
    let ids = match targets {
        MoveTargets::Devices(ids) => ids.clone(),
        MoveTargets::Group(group) => {
            let mut listing = client.device_groups().devices(group);
            let mut ids = Vec::new();
            while let Some(device) = listing.next().await {
                ids.push(device?.id);
            }
            ids
        }
    };
    let mut seen = std::collections::HashSet::new();
    Ok(ids.into_iter().filter(|id| seen.insert(id_hash(id.as_str()))).collect())
}

/// Reads what the plan says about these devices, by the hashes of their IDs.
fn read_expectations(plan: &Plan, ids: &[CentralDeviceId]) -> Result<HashMap<u64, Expectation>, PlanError> {
    let wanted: std::collections::HashSet<_> = ids.iter().map(|id| id_hash(id.as_str())).collect();
    let mut expected = HashMap::new();
    if wanted.is_empty() {
        return Ok(expected);
    }
    for device in plan.devices()? {
        let device = device?;
        let hash = id_hash(device.id.as_str());
        if wanted.contains(&hash) {
            expected.insert(hash, Expectation::new(&device));
        }
    }
    Ok(expected)
}

async fn read_readiness(
    instance: &DpsInstance,
    plan: &PlanHeader,
    ids: &[CentralDeviceId],
    expected: &HashMap<u64, Expectation>,
) -> Result<Readiness, Error> {
    let is_enrolled =
        |id: &&CentralDeviceId| matches!(expected.get(&id_hash(id.as_str())), Some(Expectation::Individual(_)));
    let enrolled = ids.iter().filter(is_enrolled).filter_map(|id| RegistrationId::new(id.as_str()).ok());
    Readiness::read(instance, plan, enrolled.collect()).await
}

/// Sends the command to the devices, and records it.
struct Mover {
    devices: Devices,
    command: CommandPath,
    request: NewCommand,
    results: Mutex<MoveResults>,
}

/// The outcome of a device.
struct Moved {
    outcome: MoveOutcome,
    /// The service's ID of the run of the command.
    run: String,
    message: String,
}

impl Moved {
    fn new(outcome: MoveOutcome, message: impl Into<String>) -> Self {
        Self { outcome, run: String::new(), message: message.into() }
    }
}

impl Mover {
    fn record(&self, id: &CentralDeviceId, moved: &Moved) -> Result<bool, ResultsError> {
        let Moved { outcome, run, message } = moved;
        let (command, time) = (self.command.to_string(), Timestamp::now().to_string());
        let row = MoveRow { id: id.as_str(), outcome: *outcome, command: &command, time: &time, run, message };
        self.results.lock().unwrap_or_else(PoisonError::into_inner).write(&row)
    }

    fn record_skipped(&self, skipped: &[(CentralDeviceId, String)]) -> Result<(), ResultsError> {
        for (id, reason) in skipped {
            self.record(id, &Moved::new(MoveOutcome::Skipped, reason))?;
        }
        Ok(())
    }

    async fn send_all(
        mover: &Arc<Self>,
        tasks: Vec<(CentralDeviceId, Task)>,
        report: &mut MoveReport,
        observer: &mut Observer<'_>,
    ) -> Result<(), RunStop> {
        let of = tasks.len() as u64;
        let work = |(id, task): (CentralDeviceId, Task)| {
            let mover = Arc::clone(mover);
            async move {
                let done = mover.perform(&id, task).await;
                let signal = done.as_ref().map_or(Signal::NotSent, |(_, signal)| *signal);
                ((id, done.map(|(moved, _)| moved)), signal)
            }
        };
        let bulk = Bulk { concurrency: UNDER_WAY, order: ReportOrder::Ended, probes: true };
        let ended = bulk.run(tasks.into_iter().map(Ok), work, |(id, moved), reason| {
            // Nothing was sent, because it could not be recorded.
            let Some(moved) = moved? else { return Ok(()) };
            if let Some(reason) = reason {
                report.stopped = Some(RunStop::of_device(reason, id.as_str(), &moved.message));
            }
            report.count(moved.outcome);
            let recorded = mover.record(&id, &moved).map(drop);
            if moved.outcome != MoveOutcome::Sent {
                observer(WorkflowEvent::DeviceFailed { id: id.as_str(), message: &moved.message });
            }
            observer(WorkflowEvent::Progressed { step: Step::Move, done: report.done(), of });
            recorded.map_err(RunStop::Results)
        });
        ended.await
    }

    /// Does what is to be done for a device. Returns no outcome if nothing can be recorded any more.
    async fn perform(
        self: &Arc<Self>,
        id: &CentralDeviceId,
        task: Task,
    ) -> Result<(Option<Moved>, Signal), ResultsError> {
        if let Task::Settle(older) = task {
            let (moved, signal) = self.settle(id, older).await;
            return Ok((Some(moved), signal));
        }
        // Recorded when its turn by the rate limit has come: if the run is killed, few devices have this row last.
        let failure = Arc::new(Mutex::new(None));
        let (mover, device, failed) = (Arc::clone(self), id.clone(), Arc::clone(&failure));
        let gate = move || match mover.record(&device, &Moved::new(MoveOutcome::Sending, "")) {
            Ok(is_recorded) => is_recorded,
            Err(error) => {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                false
            }
        };
        let sent = self.devices.run_gated_command(id, &self.command, &self.request, Some(Arc::new(gate))).await;
        if let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        if let Err(Error::Withdrawn { .. }) = sent {
            return Ok((None, Signal::NotSent));
        }
        let (moved, signal) = outcome(sent);
        Ok((Some(moved), signal))
    }

    /// Finds out by the history of the command whether an earlier run sent it.
    async fn settle(&self, id: &CentralDeviceId, older: Option<u64>) -> (Moved, Signal) {
        let unknown = |message: String| Moved::new(MoveOutcome::Unknown, message);
        let last = self.devices.command_history(id, &self.command).next().await;
        let is_ours = |last: &DeviceCommand| {
            last.request == self.request.request
                && last.response_code.is_some()
                && older.is_none_or(|older| last.id.as_deref().map(run_hash) != Some(older))
        };
        match last {
            Some(Ok(last)) if is_ours(&last) => (answered(&last), Signal::Answered),
            Some(Err(error)) => {
                (unknown(format!("an earlier run may have sent the command, and {error}")), signal(&error))
            }
            _ => {
                let message = "an earlier run may have sent the command, and the application does not tell";
                (unknown(message.to_owned()), Signal::Answered)
            }
        }
    }
}

/// Returns the outcome of a command that was sent.
fn outcome(sent: Result<DeviceCommand, Error>) -> (Moved, Signal) {
    match sent {
        Ok(run) => (answered(&run), Signal::Answered),
        // 408: the device did not answer in time.
        Err(error) if error.answer_was_lost() || error.status() == Some(408) => (
            Moved::new(MoveOutcome::Unknown, format!("the device may have received the command: {error}")),
            signal(&error),
        ),
        Err(error) if error.is_not_found() => {
            (Moved::new(MoveOutcome::Failed, format!("the device is not connected: {error}")), signal(&error))
        }
        Err(error) => (Moved::new(MoveOutcome::Failed, error.to_string()), signal(&error)),
    }
}

/// Returns the outcome of a command that the device answered.
fn answered(run: &DeviceCommand) -> Moved {
    let id = run.id.clone().unwrap_or_default();
    let moved = if run.is_failure() {
        let code = run.response_code.unwrap_or_default();
        // The payload is the firmware's. It may be long.
        let payload = run.response.as_ref().map(Value::to_string).filter(|text| text.len() <= 200);
        let payload = payload.map(|payload| format!(": {payload}")).unwrap_or_default();
        Moved::new(MoveOutcome::Refused, format!("the device answered the command with status {code}{payload}"))
    } else {
        Moved::new(MoveOutcome::Sent, "")
    };
    Moved { run: id, ..moved }
}
