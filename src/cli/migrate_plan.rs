//! `migrate plan`: what a move from an application to a DPS instance would do, as a file.

use std::{fmt::Write, path::PathBuf};

use anyhow::anyhow;
use indicatif::ProgressBar;

use super::{
    args::KeyPassword,
    next_command::NextCommand,
    output::{BAD, GOOD, Output, WARN, clean, counted, table},
    planned_services::BothServices,
    progress::bar,
};
use crate::{
    certificate::files::Passwords,
    workflow::migrate::{
        CertificateAction, GroupAction, GroupAttestation, MakePlanError, PlanEvent, PlanReport, PlanRequest,
        PlannedCertificate, PlannedGroup, make_plan,
    },
};

/// Plan the move of an application's devices to a DPS instance
///
/// Reads the application's enrollment groups and devices and what the instance has, and writes what has to be done to a
/// file. Changes nothing. Devices keep their keys and certificates. The application tells only thumbprints of certificates,
/// so the certificates of the CAs of X.509 groups are looked for in --ca-dir, with their keys, which prove possession.
///
/// Each device costs one or two requests: 100,000 devices take 1.5 to 3 hours at 20 requests per second. What is known so far
/// is in a file beside the plan, and the same command resumes a run that was interrupted. It prints what cannot be moved, and
/// why.
#[derive(clap::Args)]
#[command(after_help = "Example:
  iot-enroll migrate plan --app contoso --token-file token --dps contoso-dps --ca-dir certificates --out plan.json")]
pub(super) struct MakePlan {
    /// File for the plan, which must not exist
    #[arg(long, value_name = "PLAN")]
    out: PathBuf,
    /// Directory with the certificates and keys of the CAs
    ///
    /// Every file in it and below it is read, in any encoding. Certificates of devices are found there too: a device with a
    /// certificate of its own, and a disabled device of an X.509 group, cannot be moved without it.
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// Write the symmetric keys of groups and devices to the plan
    ///
    /// By default migrate apply reads them again from the application.
    #[arg(long)]
    include_keys: bool,
    #[command(flatten)]
    key_password: KeyPassword,
    #[command(flatten)]
    services: BothServices,
}

impl MakePlan {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        let application = self.services.application()?;
        let password = self.key_password.given()?;
        let instance = self.services.instance().await?;
        let request = PlanRequest::new(&self.out)
            .ca_directory(self.ca_dir.clone())
            .include_keys(self.include_keys)
            .passwords(Passwords::new().key(password.as_ref().map(|password| password.as_str())));
        let progress = Progress { output, bar: bar(output, 0, "devices") };
        let made = make_plan(&application, &instance, &request, &mut |event| progress.show(event)).await;
        progress.bar.finish_and_clear();
        let report = made.map_err(|error| match error {
            MakePlanError::Service(error) => {
                anyhow!(error).context("the plan is not complete; the same command resumes when the cause is removed")
            }
            MakePlanError::Plan(error) => error.into(),
            error => error.into(),
        })?;
        note(&report, output);
        output.result(&report, || summary(&report, &self))
    }
}

struct Progress<'a> {
    output: &'a Output,
    bar: ProgressBar,
}

impl Progress<'_> {
    fn show(&self, event: PlanEvent) {
        match event {
            PlanEvent::Listed(count) => self.bar.set_length(count),
            PlanEvent::Inspected { done, of } => {
                self.bar.set_length(of);
                self.bar.set_position(done);
            }
            PlanEvent::Resumed(count) => {
                let text = format!("resuming: {count} devices are known from an interrupted run");
                self.bar.suspend(|| self.output.progress(text));
                // The time left is estimated from this run only.
                self.bar.set_position(count);
                self.bar.reset_eta();
            }
            PlanEvent::StartedOver => self.bar.suspend(|| {
                self.output
                    .note("an interrupted run cannot be resumed, because the groups or options have changed since");
            }),
            _ => {}
        }
    }
}

fn note(report: &PlanReport, output: &Output) {
    for unreadable in report.unreadable.iter().take(5) {
        output.note(format_args!("not read: {}: {}", unreadable.file.display(), unreadable.reason));
    }
    if report.unreadable.len() > 5 {
        output.note(format_args!("not read: {} more files", report.unreadable.len() - 5));
    }
    if report.has_no_hub {
        output.note("the instance has no linked hub, so no device can be assigned yet");
    }
    if report.edge_unknown {
        output.note(
            "the application does not tell which devices run IoT Edge: individual enrollments are for plain devices",
        );
    }
}

/// Returns the plan as tables, and the command that carries it out.
fn summary(report: &PlanReport, command: &MakePlan) -> String {
    let header = &report.header;
    let mut text = format!(
        "{} to {}, ID scope {}\n",
        clean(&header.application.endpoint),
        header.instance.name,
        clean(&header.instance.id_scope)
    );
    if !header.certificates.is_empty() {
        let rows = header.certificates.iter().map(certificate_row);
        let _ = write!(text, "\n{}", table(["CA CERTIFICATE", "SUBJECT", "ACTION"], rows));
    }
    if !header.groups.is_empty() {
        let rows = header.groups.iter().map(group_row);
        let _ = write!(text, "\n{}", table(["GROUP", "ATTESTATION", "DEVICES", "ACTION"], rows));
    }
    let counts = &header.counts;
    let enroll = match (counts.disabled, counts.present) {
        (0, 0) => String::new(),
        (disabled, 0) => format!(", {disabled} of them disabled"),
        (0, present) => format!(", {present} of them are there already"),
        (disabled, present) => format!(", {disabled} of them disabled, {present} are there already"),
    };
    let _ = writeln!(text, "\n{}", counted(counts.total, "device"));
    let presumed = match counts.presumed {
        0 => String::new(),
        presumed => format!(", {presumed} of them presumably by an X.509 group"),
    };
    let _ = writeln!(text, "  {GOOD}{}{GOOD:#} admitted by a group{presumed}", counts.covered);
    let _ = writeln!(text, "  {GOOD}{}{GOOD:#} with an individual enrollment{enroll}", counts.enroll);
    let style = if counts.not_moved > 0 { BAD } else { GOOD };
    let _ = writeln!(text, "  {style}{}{style:#} not moved", counts.not_moved);
    for obstacle in &report.device_obstacles {
        let more = if obstacle.count > obstacle.devices.len() as u64 { ", …" } else { "" };
        let devices = obstacle.devices.iter().map(|id| clean(id)).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "  {WARN}{}{WARN:#} {}: {devices}{more}", obstacle.count, obstacle.message);
    }
    let mut next = NextCommand::new("migrate");
    next.word("apply");
    next.word(&report.plan);
    command.services.repeat_in(&mut next);
    command.key_password.repeat_in(&mut next);
    next.flag("--verified", header.certificates.iter().any(|it| it.action == CertificateAction::Attest));
    next.flag("--dry-run", true);
    let _ = write!(text, "\nThe plan is in {}. Next:\n  {next}\n", report.plan.display());
    text
}

fn certificate_row(certificate: &PlannedCertificate) -> [String; 3] {
    let name = certificate.name.as_ref().map(ToString::to_string).unwrap_or_default();
    let action = match (certificate.action, &certificate.obstacle) {
        (_, Some(obstacle)) => format!("not moved: {obstacle}"),
        (CertificateAction::Present, _) => format!("there already as {name}"),
        (CertificateAction::Verify, _) => format!("there already as {name}, prove possession"),
        (CertificateAction::Upload, _) => format!("upload as {name}, prove possession"),
        (CertificateAction::Attest, _) => {
            format!(
                "upload as {name}; its key is not there, so apply needs --verified, or --ca-key for a key in a token"
            )
        }
        (CertificateAction::None, None) => "not moved".to_owned(),
    };
    let subject = certificate.subject.clone().unwrap_or_default();
    [certificate.sha1_thumbprint.to_string(), subject, action]
}

fn group_row(group: &PlannedGroup) -> [String; 4] {
    let attestation = match &group.attestation {
        GroupAttestation::X509 { .. } => "x509".to_owned(),
        GroupAttestation::SymmetricKey(_) => "symmetricKey".to_owned(),
        GroupAttestation::Other { name } => name.clone(),
    };
    let mut action = match group.action {
        GroupAction::Create => "create".to_owned(),
        GroupAction::Check => "there already, check".to_owned(),
        GroupAction::None => "not moved".to_owned(),
    };
    if group.action == GroupAction::Create && !group.enabled {
        action.push_str(", disabled");
    }
    for obstacle in &group.obstacles {
        let _ = write!(action, "; {obstacle}");
    }
    let devices = group.devices.map_or_else(|| "not known".to_owned(), |count| count.to_string());
    [group.id.to_string(), attestation, devices, action]
}
