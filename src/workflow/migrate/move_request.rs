//! Which devices to send to the instance and how, and the result.

use std::path::PathBuf;

use serde::Serialize;

use super::{moves::MoveOutcome, plan_error::PlanError, plan_file::Plan};
use crate::{
    central::{CentralDeviceId, CommandPath, DeviceGroupId, EnrollmentGroupId},
    transport::{Error, setters},
    workflow::{
        bulk::RunStop,
        record::lossy_path,
        results::{ResultsError, results_path},
    },
};

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
    /// The X.509 group that admits the devices that are presumably in one. Without it, all X.509 groups have to be ready,
    /// because the application does not tell which one admits a device.
    pub x509_group: Option<EnrollmentGroupId>,
    /// Whether to find out only what a run would do.
    pub dry_run: bool,
}

impl MoveRequest {
    /// Sends this command to devices. The results go to a file beside the plan, `plan.moves.csv` for `plan.json`.
    #[must_use]
    pub fn new(plan: &Plan, targets: MoveTargets, command: CommandPath) -> Self {
        let results = results_path(plan.path(), "moves");
        Self { targets, command, results, resend: Resend::default(), x509_group: None, dry_run: false }
    }

    /// Sets the X.509 group that admits the devices that are presumably in one. It is not verified that it does.
    #[must_use]
    pub fn x509_group(mut self, group: EnrollmentGroupId) -> Self {
        self.x509_group = Some(group);
        self
    }
}

setters!(MoveRequest { results: PathBuf, resend: Resend, dry_run: bool });

/// Why devices could not be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// The plan cannot be read.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan does not move the X.509 group that was named, or it has no such group.
    #[error("the plan moves no X.509 group {0}")]
    NoX509Group(EnrollmentGroupId),
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
    /// The ID scope that the devices get.
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
    pub(super) fn new(request: &MoveRequest, id_scope: &str) -> Self {
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

    pub(super) fn done(&self) -> u64 {
        self.sent + self.unknown + self.refused + self.failed
    }

    pub(super) fn count(&mut self, outcome: MoveOutcome) {
        *match outcome {
            MoveOutcome::Sent => &mut self.sent,
            MoveOutcome::Sending | MoveOutcome::Unknown => &mut self.unknown,
            MoveOutcome::Refused => &mut self.refused,
            MoveOutcome::Failed => &mut self.failed,
            MoveOutcome::Skipped => &mut self.skipped,
        } += 1;
    }
}
