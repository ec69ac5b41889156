//! `device register --manifest`: the devices of a fleet.

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::{Context, anyhow};

use super::{
    error::AlreadyReported,
    output::{BAD, GOOD, Output},
    progress::RowProgress,
    results_argument::results_file,
};
use crate::workflow::{ManifestRegistration, RegisterError, Registrar, RegistrationReport, RunStop, register_manifest};

/// Many devices.
#[derive(clap::Args)]
#[command(next_help_heading = "Many devices")]
pub(super) struct Many {
    /// CSV file that lists the devices and their files, as written by cert fleet
    ///
    /// Paths in it are relative to its directory.
    #[arg(long, value_name = "CSV")]
    manifest: Option<PathBuf>,
    /// Results file [default: the manifest's name with .registrations.csv]
    #[arg(long, value_name = "CSV", value_parser = results_file(), conflicts_with = "id")]
    results: Option<PathBuf>,
    /// Registrations under way at once; --rate sets how many start per second
    #[arg(long, value_name = "N", default_value = "64", conflicts_with = "id")]
    concurrency: NonZeroUsize,
}

impl Many {
    /// Reads the columns of the manifest.
    pub(super) fn open(&self) -> anyhow::Result<ManifestRegistration> {
        let manifest = self.manifest.as_ref().context("--manifest is missing")?;
        let request = ManifestRegistration::open(manifest)?.concurrency(self.concurrency);
        Ok(match &self.results {
            Some(results) => request.results(results),
            None => request,
        })
    }
}

/// Registers the devices. `unavailable` is why the service cannot be asked for causes, if it is named.
pub(super) async fn run(
    request: ManifestRegistration,
    registrar: &Registrar,
    unavailable: Option<anyhow::Error>,
    output: &Output,
) -> anyhow::Result<()> {
    let concurrency = request.concurrency;
    let progress = RowProgress::new(output, 0);
    let registered = register_manifest(registrar, request, &mut |event| progress.show(&event)).await;
    progress.finish();
    let mut report = registered.map_err(|error| match error {
        RegisterError::Manifest(error) => anyhow!(error),
        RegisterError::Results(error) => anyhow!(error),
    })?;
    let unavailable = unavailable.or_else(|| registrar.service_error().map(|error| anyhow!("{error}")));
    if let Some(error) = unavailable.filter(|_| report.failed > 0) {
        output.note(format_args!("could not look up the cause at the service: {error:#}"));
    }
    output.result(&report, || summary(&report))?;
    let (done, failed, remaining) = (report.done(), report.failed, report.remaining);
    match report.stopped.take() {
        Some(stop) => Err(stopped(stop, concurrency).context(format!(
            "the run stopped after {done} of {} rows, and {remaining} were not tried; the same command resumes when the cause \
             is removed",
            done + remaining
        ))),
        None if failed > 0 => Err(AlreadyReported.into()),
        None => Ok(()),
    }
}

/// Returns why a run stopped.
fn stopped(stop: RunStop, concurrency: NonZeroUsize) -> anyhow::Error {
    match stop {
        RunStop::Results(error) => error.into(),
        RunStop::OutOfFiles => {
            anyhow!("{stop} with --concurrency {concurrency}: lower it, or raise the limit with `ulimit -n`")
        }
        stop => stop.into(),
    }
}

fn summary(report: &RegistrationReport) -> String {
    let RegistrationReport { results, assigned, earlier, failed, remaining, .. } = report;
    let style = if *failed == 0 && *remaining == 0 { GOOD } else { BAD };
    let before = if *earlier > 0 { format!(", {earlier} registered before") } else { String::new() };
    let after = if *remaining > 0 { format!(", {remaining} not tried") } else { String::new() };
    format!(
        "{style}{assigned} registered{before}, {failed} failed{after}{style:#}. The outcome of each row is in {}.",
        results.display()
    )
}
