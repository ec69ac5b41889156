//! `migrate apply`: carries out a plan at the DPS instance.

use std::{fmt::Write, path::PathBuf, sync::Arc};

use super::{
    args::KeyPassword,
    error::{AlreadyReported, UsageError},
    output::{BAD, GOOD, Output, counted},
    planned_services::BothServices,
    progress::{Steps, plan as planned_steps},
    results_argument::results_file,
    token_key::authority_key,
};
use crate::workflow::migrate::{ApplyError, ApplyReport, ApplyRequest, Plan, apply_plan};

/// Carry out a plan at the DPS instance; the application is only read
///
/// Uploads and verifies the CA certificates, and creates the enrollment groups and individual enrollments. Nothing that the
/// instance has is overwritten. A group or device that has changed at the application since the plan was made is left out and
/// reported; the others are done. Disabled individual enrollments are created first, because they block devices that a group
/// would admit. The outcome of each is written to a results file. The command is idempotent, resumes a run that was
/// interrupted, and compares everything each time.
///
/// The plan names the application and the instance. Give the sign-in at both.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll migrate apply plan.json --token-file token --dry-run
  iot-enroll migrate apply plan.json --token-file token")]
pub(super) struct Apply {
    /// File of the plan
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// Results file [default: the plan's name with .results.csv]
    #[arg(long, value_name = "CSV", value_parser = results_file())]
    results: Option<PathBuf>,
    /// Upload certificates as verified, without a proof of possession
    #[arg(long = "verified", alias = "attest")]
    skip_proof: bool,
    /// Use the keys in the plan, and do not read the application
    ///
    /// The plan must have been made with --include-keys. Changes at the application since then go unnoticed.
    #[arg(long)]
    keys_from_plan: bool,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// PKCS#11 URI of a CA's key in a token, to prove possession (can be repeated)
    ///
    /// For CAs whose keys the plan has not found in files.
    #[arg(long = "ca-key", value_name = "URI")]
    ca_key: Vec<PathBuf>,
    #[command(flatten)]
    key_password: KeyPassword,
    #[command(flatten)]
    services: BothServices,
}

impl Apply {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        let plan = Plan::read(&self.plan)?;
        let application = if self.keys_from_plan {
            if !plan.header().includes_keys {
                let hint = "omit --keys-from-plan, or make the plan with --include-keys";
                return Err(UsageError::new("the plan includes no keys").with_hint(hint).into());
            }
            if self.services.names_application() {
                let hint = "omit --keys-from-plan to read the application";
                return Err(UsageError::new("--keys-from-plan does not read the application").with_hint(hint).into());
            }
            None
        } else {
            Some(self.services.planned_application(plan.header()).await?)
        };
        let password = self.key_password.given()?;
        let instance = self.services.planned_instance(plan.header()).await?;
        let ca_keys =
            self.ca_key.iter().map(|uri| authority_key(uri, output).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        let mut request = ApplyRequest::new(&plan)
            .ca_keys(ca_keys)
            .dry_run(self.dry_run)
            .skip_proof(self.skip_proof)
            .key_password(password.as_ref().map(|password| password.as_str()));
        if let Some(results) = &self.results {
            request = request.results(results);
        }
        let steps = Steps::new(output);
        let applied =
            apply_plan(&plan, application.as_ref(), &instance, &request, &mut |event| steps.show(&event)).await;
        steps.finish();
        let report = applied.map_err(|error| match error {
            ApplyError::Service(error) => anyhow::Error::from(error),
            ApplyError::Plan(error) => error.into(),
            ApplyError::Results(error) => error.into(),
            error => error.into(),
        })?;
        if report.new_devices > 0 {
            output.note(format_args!(
                "the application has {} that the plan does not have; those with an attestation of their own are not moved: \
                 make a plan again",
                counted(report.new_devices, "device")
            ));
        }
        if report.registrations_unread {
            output.note(format_args!(
                "whether the disabled devices have registered at the instance was not checked: the sign-in may not read \
                 registration records"
            ));
        }
        let failures: Vec<_> =
            report.failures.iter().map(|failure| format!("{}: {}", failure.id, failure.message)).collect();
        output.failures(&failures);
        output.result(&report, || self.summary(&report))?;
        if let Some(stopped) = &report.stopped {
            let tried = plan.header().counts.enroll - report.remaining;
            anyhow::bail!(
                "the run stopped after {tried} of {} individual enrollments: {stopped}; the same command resumes when the \
                 cause is removed",
                plan.header().counts.enroll
            );
        }
        if report.failed > 0 { Err(AlreadyReported.into()) } else { Ok(()) }
    }

    fn summary(&self, report: &ApplyReport) -> String {
        let style = if report.failed == 0 && report.stopped.is_none() { GOOD } else { BAD };
        let counts = [
            ("created", report.created),
            ("present", report.present),
            ("to create", report.planned),
            ("failed", report.failed),
            ("not tried", report.remaining),
        ];
        let counts: Vec<_> =
            counts.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}")).collect();
        let mut counts = if counts.is_empty() { "nothing to do".to_owned() } else { counts.join(", ") };
        if report.planned_disabled > 0 {
            let _ = write!(counts, "; individual enrollments to create that are disabled: {}", report.planned_disabled);
        }
        if self.dry_run {
            return format!("{}{style}{counts}{style:#}\n", planned_steps(&report.steps));
        }
        let mut text = format!("{style}{counts}{style:#}. The outcome of each is in {}.\n", report.results.display());
        if report.failed > report.failures.len() as u64 {
            let _ = writeln!(text, "{} failures are not printed above.", report.failed - report.failures.len() as u64);
        }
        text
    }
}
