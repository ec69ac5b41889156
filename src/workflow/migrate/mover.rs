//! Commands that tell devices the new ID scope: sent, recorded, and settled after an interrupted run.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};

use super::{
    move_request::MoveReport,
    moves::{MoveOutcome, MoveResults, MoveRow, run_hash},
};
use crate::{
    central::{CentralDeviceId, CommandPath, DeviceCommand, Devices, NewCommand},
    certificate::Timestamp,
    transport::Error,
    workflow::{
        bulk::{Bulk, ReportOrder, RunStop, Signal},
        import::signal,
        results::ResultsError,
        step::{Observer, Step, WorkflowEvent},
    },
};

/// How many commands are under way at once. A killed run leaves at most so many devices of which it is not known whether they
/// received the command.
const UNDER_WAY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(19);

/// The member of the command's payload with the new ID scope, as the interface `dtmi:azureiot:DeviceMigration;1` names it.
const ID_SCOPE: &str = "idScope";

/// What is to be done for a device.
#[derive(Debug, Clone, Copy)]
pub(super) enum Task {
    /// Send the command.
    Send,
    /// Find out whether an earlier run sent it. If it has the hash of a run, that is an older one.
    Settle(Option<u64>),
}

/// Sends the command to the devices, and records it.
pub(super) struct Mover {
    devices: Devices,
    command: CommandPath,
    request: NewCommand,
    results: Mutex<MoveResults>,
}

/// The outcome of a device.
struct Delivery {
    outcome: MoveOutcome,
    /// The service's ID of the run of the command.
    run: String,
    message: String,
}

impl Delivery {
    fn new(outcome: MoveOutcome, message: impl Into<String>) -> Self {
        Self { outcome, run: String::new(), message: message.into() }
    }
}

impl Mover {
    /// Creates what sends the command with this ID scope.
    pub(super) fn new(devices: Devices, command: CommandPath, id_scope: &str, results: MoveResults) -> Arc<Self> {
        let request = NewCommand::with_request(json!({ ID_SCOPE: id_scope }));
        Arc::new(Self { devices, command, request, results: Mutex::new(results) })
    }

    fn record(&self, id: &CentralDeviceId, delivery: &Delivery) -> Result<bool, ResultsError> {
        let Delivery { outcome, run, message } = delivery;
        let (command, time) = (self.command.to_string(), Timestamp::now().to_string());
        let row = MoveRow { id: id.as_str(), outcome: *outcome, command: &command, time: &time, run, message };
        self.results.lock().unwrap_or_else(PoisonError::into_inner).write(&row)
    }

    pub(super) fn record_skipped(&self, skipped: &[(CentralDeviceId, String)]) -> Result<(), ResultsError> {
        for (id, reason) in skipped {
            self.record(id, &Delivery::new(MoveOutcome::Skipped, reason))?;
        }
        Ok(())
    }

    pub(super) async fn send_all(
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
                ((id, done.map(|(delivery, _)| delivery)), signal)
            }
        };
        let bulk = Bulk { concurrency: UNDER_WAY, order: ReportOrder::Ended, probes: true };
        let ended = bulk.run(tasks.into_iter().map(Ok), work, |(id, delivery), reason| {
            // Nothing was sent, because it could not be recorded.
            let Some(delivery) = delivery? else { return Ok(()) };
            if let Some(reason) = reason {
                report.stopped = Some(RunStop::of_device(reason, id.as_str(), &delivery.message));
            }
            report.count(delivery.outcome);
            let recorded = mover.record(&id, &delivery).map(drop);
            if delivery.outcome != MoveOutcome::Sent {
                observer(WorkflowEvent::DeviceFailed { id: id.as_str(), message: &delivery.message });
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
    ) -> Result<(Option<Delivery>, Signal), ResultsError> {
        if let Task::Settle(older) = task {
            let (delivery, signal) = self.settle(id, older).await;
            return Ok((Some(delivery), signal));
        }
        // Recorded when its turn by the rate limit has come: if the run is killed, few devices have this row last.
        let failure = Arc::new(Mutex::new(None));
        let (mover, device, failed) = (Arc::clone(self), id.clone(), Arc::clone(&failure));
        let gate = move || match mover.record(&device, &Delivery::new(MoveOutcome::Sending, "")) {
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
        let (delivery, signal) = outcome(sent);
        Ok((Some(delivery), signal))
    }

    /// Finds out by the history of the command whether an earlier run sent it.
    async fn settle(&self, id: &CentralDeviceId, older: Option<u64>) -> (Delivery, Signal) {
        let unknown = |message: String| Delivery::new(MoveOutcome::Unknown, message);
        let last = self.devices.command_history(id, &self.command).next().await;
        let is_ours = |last: &DeviceCommand| {
            last.request == self.request.request
                && last.response_code.is_some()
                && older.is_none_or(|older| last.id.as_deref().map(run_hash) != Some(older))
        };
        match last {
            Some(Ok(last)) if is_ours(&last) => (answered(&last), Signal::Answered),
            Some(Err(error)) => {
                let message = format!("an earlier run may have sent the command, and {}", without_advice(&error));
                (unknown(message), signal(&error))
            }
            _ => {
                let message = "an earlier run may have sent the command, and the application does not tell";
                (unknown(message.to_owned()), Signal::Answered)
            }
        }
    }
}

/// Returns the outcome of a command that was sent.
fn outcome(sent: Result<DeviceCommand, Error>) -> (Delivery, Signal) {
    match sent {
        Ok(run) => (answered(&run), Signal::Answered),
        // 408: the device did not answer in time.
        Err(error) if error.answer_was_lost() || error.status() == Some(408) => (
            Delivery::new(
                MoveOutcome::Unknown,
                format!("the device may have received the command: {}", without_advice(&error)),
            ),
            signal(&error),
        ),
        Err(error) if error.is_not_found() => {
            (Delivery::new(MoveOutcome::Failed, format!("the device is not connected: {error}")), signal(&error))
        }
        Err(error) => (Delivery::new(MoveOutcome::Failed, error.to_string()), signal(&error)),
    }
}

/// Returns the message of an error without the advice to try again, because the next run does not send the command again.
fn without_advice(error: &Error) -> String {
    let text = error.to_string();
    let end = [". Try again", ". The service failed: try again"].into_iter().find_map(|advice| text.find(advice));
    text[..end.unwrap_or(text.len())].to_owned()
}

/// Returns the outcome of a command that the device answered.
fn answered(run: &DeviceCommand) -> Delivery {
    let id = run.id.clone().unwrap_or_default();
    let delivery = if run.is_failure() {
        let code = run.response_code.unwrap_or_default();
        // The payload is the firmware's. It may be long.
        let payload = run.response.as_ref().map(Value::to_string).filter(|text| text.len() <= 200);
        let payload = payload.map(|payload| format!(": {payload}")).unwrap_or_default();
        Delivery::new(MoveOutcome::Refused, format!("the device answered the command with status {code}{payload}"))
    } else {
        Delivery::new(MoveOutcome::Sent, "")
    };
    Delivery { run: id, ..delivery }
}
