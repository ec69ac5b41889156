//! Sending devices to the instance: a command gives their firmware the new ID scope.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    move_check::{CurrentDevice, MoveCheck},
    move_request::{MoveError, MoveReport, MoveRequest, MoveTargets, Resend},
    mover::{Mover, Task},
    moves::{EarlierMove, EarlierMoves, EarlierState, MoveResults},
    plan::{GroupAction, GroupAttestation, PlanHeader, PlannedGroup},
    plan_error::PlanError,
    plan_file::Plan,
    readiness::{Expectation, Readiness},
};
use crate::{
    central::{CentralDeviceId, Client, CommandPath, Devices, EnrollmentGroupId},
    dps::service::RegistrationId,
    transport::Error,
    workflow::{
        bulk::RunStop, create::REQUESTS_UNDER_WAY, dps_instance::DpsInstance, repeated_ids::id_hash,
        step::WorkflowEvent,
    },
};

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
        let mover = Mover::new(devices, command, &report.id_scope, results);
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
/// A device is skipped if the plan does not move it, if the application has it as disabled or not any more, or if the instance
/// would not admit it: its group or individual enrollment is missing, disabled or for another credential. The credential of an
/// individual enrollment is compared with that of the device at the application now. That of a device that a group admits is
/// not read: only the keys and certificates of the group are compared, with those of the plan.
///
/// Every command is recorded in the results file before and after it is sent. The next run sends nothing to devices that
/// received the same command with the same ID scope. A device whose last row is the one before, because the run was killed, is not sent the command again
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
    let assumed = request.x509_group.as_ref().map(|group| find_x509_group(plan.header(), group)).transpose()?;
    let command = request.command.to_string();
    let ids = resolve(client, &request.targets).await?;
    let (earlier, results) = if request.dry_run {
        (EarlierMoves::read(&request.results, id_scope, &command)?, None)
    } else {
        let (earlier, results) = EarlierMoves::open(&request.results, id_scope, &command)?;
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
    for (id, listed) in ids {
        match earlier.get(id.as_str()) {
            Some(EarlierMove { state: EarlierState::Sent, .. }) if request.resend != Resend::All => {
                prepared.report.earlier += 1;
            }
            Some(EarlierMove { state: EarlierState::Unknown, run }) if request.resend == Resend::Failed => {
                prepared.tasks.push((id, Task::Settle(run)));
            }
            _ => fresh.push((id, listed)),
        }
    }
    let expected = read_expectations(plan, &fresh)?;
    let readiness = read_readiness(instance, plan.header(), &fresh, &expected, assumed).await?;
    let check = &MoveCheck::new(client, instance, plan.header(), readiness);
    let problem = |(id, listed): Target| {
        let expectation = expected.get(&id_hash(id.as_str()));
        async move {
            let problem = match expectation {
                Some(expectation) => check.problem(&id, expectation, listed).await?,
                None => Some("the plan does not have it: make the plan again".to_owned()),
            };
            Ok::<_, Error>((id, problem))
        }
    };
    let mut checked = stream::iter(fresh).map(problem).buffered(REQUESTS_UNDER_WAY.get());
    while let Some((id, problem)) = checked.try_next().await? {
        match problem {
            Some(problem) => prepared.skipped.push((id, problem)),
            None => prepared.tasks.push((id, Task::Send)),
        }
    }
    drop(checked);
    Ok(prepared)
}

/// Returns the ID in lower case of an X.509 group that the plan moves.
fn find_x509_group(plan: &PlanHeader, id: &EnrollmentGroupId) -> Result<String, MoveError> {
    let is_it = |group: &PlannedGroup| {
        group.id.as_str().eq_ignore_ascii_case(id.as_str())
            && group.action != GroupAction::None
            && matches!(group.attestation, GroupAttestation::X509 { .. })
    };
    let found = plan.groups.iter().any(is_it);
    found.then(|| id.as_str().to_ascii_lowercase()).ok_or_else(|| MoveError::NoX509Group(id.clone()))
}

/// A device to send, and what the list of a device group told of it.
type Target = (CentralDeviceId, Option<CurrentDevice>);

/// Returns the devices, each once.
async fn resolve(client: &Client, targets: &MoveTargets) -> Result<Vec<Target>, Error> {
    let found = match targets {
        MoveTargets::Devices(ids) => ids.iter().map(|id| (id.clone(), None)).collect(),
        MoveTargets::Group(group) => {
            let mut listing = client.device_groups().devices(group);
            let mut found = Vec::new();
            while let Some(device) = listing.next().await {
                let device = device?;
                let now = CurrentDevice::from(&device);
                found.push((device.id, Some(now)));
            }
            found
        }
    };
    let mut seen = HashSet::new();
    Ok(found.into_iter().filter(|(id, _): &Target| seen.insert(id_hash(id.as_str()))).collect())
}

/// Reads what the plan says about these devices, by the hashes of their IDs.
fn read_expectations(plan: &Plan, targets: &[Target]) -> Result<HashMap<u64, Expectation>, PlanError> {
    let wanted: HashSet<_> = targets.iter().map(|(id, _)| id_hash(id.as_str())).collect();
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
    targets: &[Target],
    expected: &HashMap<u64, Expectation>,
    assumed: Option<String>,
) -> Result<Readiness, Error> {
    let is_enrolled =
        |id: &&CentralDeviceId| matches!(expected.get(&id_hash(id.as_str())), Some(Expectation::Individual(_)));
    let enrolled =
        targets.iter().map(|(id, _)| id).filter(is_enrolled).filter_map(|id| RegistrationId::new(id.as_str()).ok());
    Readiness::read(instance, plan, enrolled.collect(), assumed).await
}
