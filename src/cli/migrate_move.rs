//! `migrate move`: tells devices the new ID scope.

use std::path::PathBuf;

use anyhow::anyhow;

use super::{
    args::Confirmation,
    error::AlreadyReported,
    output::{BAD, GOOD, Output, counted},
    planned_services::BothServices,
    progress::RowProgress,
    results_argument::results_file,
};
use crate::{
    central::{CentralDeviceId, CommandPath, DeviceGroupId, EnrollmentGroupId},
    workflow::migrate::{MoveReport, MoveRequest, MoveTargets, Plan, Resend, prepare_move},
};

/// Tell devices the new ID scope by a command of the application
///
/// The firmware of the devices has to have the command, which gets the payload {"idScope": "..."}, and has to register at that
/// ID scope then. A device must be connected to receive it. Devices are skipped if the plan does not move them, if the
/// application has them as disabled or not any more, or if the DPS instance would not admit them yet. A device group is
/// resolved to its devices.
///
/// The outcome of each device is written to a results file. Run the same command again to resume: devices that received the
/// same command are not sent it again, and neither are those of which it is not known because a run was interrupted or an answer was
/// lost. The application is asked for the last command of these; --resend sends it again.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["device", "device_group"])))]
#[command(after_help = "Examples:
  iot-enroll migrate move plan.json --device sensor-1 --token-file token
  iot-enroll migrate move plan.json --device-group wave-1 --token-file token --dry-run
  iot-enroll migrate move plan.json --device-group wave-1 --token-file token --yes")]
pub(super) struct Move {
    /// File with the plan
    plan: PathBuf,
    /// ID of a device (repeatable)
    #[arg(long, value_name = "ID")]
    device: Vec<CentralDeviceId>,
    /// ID of a device group of the application
    #[arg(long, value_name = "ID")]
    device_group: Option<DeviceGroupId>,
    /// Command of the devices, as COMPONENT.COMMAND or COMMAND
    #[arg(long, value_name = "COMPONENT.COMMAND", default_value = "migration.DeviceMove")]
    command: CommandPath,
    /// X.509 group that admits the devices that are presumably in one
    ///
    /// The application does not tell which X.509 group admits a device. Unless it is named, all X.509 groups of the plan have
    /// to be ready. It is not verified that the devices are in the group.
    #[arg(long, value_name = "GROUP")]
    x509_group: Option<EnrollmentGroupId>,
    /// Results file [default: the plan's name with .moves.csv]
    #[arg(long, value_name = "CSV", value_parser = results_file())]
    results: Option<PathBuf>,
    /// Send again to devices that may have received the command, or to all
    ///
    /// Without a value, to those of which it is not known whether they received it.
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "unknown")]
    resend: Option<Which>,
    /// Send nothing; print what would be sent
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    services: BothServices,
}

/// The value of `--resend`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Which {
    /// Devices of which it is not known whether they received the command
    Unknown,
    /// Devices that received it, too
    All,
}

impl Move {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        let plan = Plan::read(&self.plan)?;
        let request = self.request(&plan);
        let client = self.services.planned_application(plan.header()).await?;
        let instance = self.services.planned_instance(plan.header()).await?;
        let prepared = prepare_move(&client, &instance, &plan, &request).await?;
        let count = prepared.to_send();
        if count > 0 && !self.dry_run {
            let devices = counted(count as u64, "device");
            let (scope, endpoint) = (&plan.header().instance.id_scope, &plan.header().application.endpoint);
            let question = format!("send {} with the ID scope {scope} to {devices} of {endpoint}?", self.command);
            self.confirmation.ask(&question)?;
        }
        let progress = RowProgress::new(output, 0);
        let mut report = prepared.run(&mut |event| progress.show(&event)).await;
        progress.finish();
        if report.unknown > 0 {
            output.note(format_args!(
                "it is not known whether {} received the command; `migrate status` prints which devices have arrived, and \
                 --resend sends it again where it is not known",
                counted(report.unknown, "device")
            ));
        }
        output.result(&report, || summary(&report))?;
        let remaining = report.remaining;
        match report.stopped.take() {
            Some(stop) => Err(anyhow!(stop).context(format!(
                "the run stopped with {} not tried; the same command resumes when the cause is removed",
                counted(remaining, "device")
            ))),
            None if report.is_complete() => Ok(()),
            None => Err(AlreadyReported.into()),
        }
    }

    fn request(&self, plan: &Plan) -> MoveRequest {
        let targets = match &self.device_group {
            Some(group) => MoveTargets::Group(group.clone()),
            None => MoveTargets::Devices(self.device.clone()),
        };
        let resend = match self.resend {
            None => Resend::Failed,
            Some(Which::Unknown) => Resend::Unknown,
            Some(Which::All) => Resend::All,
        };
        let request = MoveRequest::new(plan, targets, self.command.clone()).resend(resend).dry_run(self.dry_run);
        let request = match &self.x509_group {
            Some(group) => request.x509_group(group.clone()),
            None => request,
        };
        match &self.results {
            Some(results) => request.results(results),
            None => request,
        }
    }
}

fn summary(report: &MoveReport) -> String {
    let counts = report.counts().into_iter().filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts.map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let counts = if counts.is_empty() { "no devices".to_owned() } else { counts.join(", ") };
    let style = if report.is_complete() { GOOD } else { BAD };
    let end = if report.dry_run {
        "This was a dry run: nothing was sent.".to_owned()
    } else {
        format!("The outcome of each device is in {}.", report.results.display())
    };
    format!("{style}{counts}{style:#}. {end}")
}
