//! `device import`: many devices from a CSV file.

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::{
    error::AlreadyReported,
    import_rows::ImportFile,
    output::{BAD, GOOD, Output},
    progress::RowProgress,
    results_argument::results_file,
    service::Service,
};
use crate::workflow::{ImportError, ImportReport, ImportRequest, RunStop, import_devices};

/// Create many devices from a CSV file
///
/// The file has the columns of the web page's import, IOTC_DEVICEID and IOTC_DEVICENAME, and optionally template, simulated,
/// enabled and organizations (separated by semicolons). A row that fails is reported, and the others are done. The outcome
/// of each row is written to a results file. Devices that exist are left unchanged, so the same command resumes an import
/// that was interrupted.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  iot-enroll device import --app contoso --token-file token --file devices.csv")]
pub(super) struct Import {
    /// CSV file with the devices; - reads standard input
    #[arg(long, value_name = "CSV")]
    file: PathBuf,
    /// File for the outcome of each row [default: the file's name with .results.csv]
    #[arg(long, value_name = "CSV", value_parser = results_file())]
    results: Option<PathBuf>,
    /// Change devices that exist to what the file says
    ///
    /// Properties that the file does not name stay as they are.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    service: Service,
}

impl Import {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        let file = ImportFile::open(&self.file, output)?;
        let request = match self.results {
            Some(path) => ImportRequest::new(path),
            None if self.file == Path::new("-") => ImportRequest::beside(Path::new("devices.csv")),
            None => ImportRequest::beside(&self.file),
        };
        let (client, total) = (self.service.client()?, file.count);
        let progress = RowProgress::new(output, total);
        let imported =
            import_devices(&client, || file.rows(), &request.replace(self.replace), &mut |event| progress.show(&event))
                .await;
        progress.finish();
        let mut report = imported.map_err(|error| match error {
            ImportError::Results(error) => anyhow!(error),
            ImportError::Central(error) => anyhow!(error),
            ImportError::Rows(error) => {
                anyhow::Error::from_boxed(error).context(format!("could not read {}", self.file.display()))
            }
        })?;
        let note = match report.exists {
            0 => None,
            1 => Some(
                "1 device exists and differs from the file; it was left unchanged, and --replace changes it".to_owned(),
            ),
            count => Some(format!(
                "{count} devices exist and differ from the file; they were left unchanged, and --replace changes them"
            )),
        };
        if let Some(note) = note {
            output.note(format_args!("{note} to what the file says"));
        }
        output.result(&report, || summary(&report))?;
        let (done, failed) = (report.done(), report.failed);
        match report.stopped.take() {
            Some(stop) => Err(stopped(stop).context(format!(
                "the import stopped after {done} of {total} rows; the same command resumes when the cause is removed"
            ))),
            None if failed > 0 => Err(AlreadyReported.into()),
            None => Ok(()),
        }
    }
}

/// Returns why a run stopped.
fn stopped(stop: RunStop) -> anyhow::Error {
    match stop {
        RunStop::Results(error) => error.into(),
        stop => stop.into(),
    }
}

fn summary(report: &ImportReport) -> String {
    let counts = report.counts().into_iter().filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts.map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let counts = if counts.is_empty() { "nothing done".to_owned() } else { counts.join(", ") };
    let style = if report.failed == 0 && report.stopped.is_none() { GOOD } else { BAD };
    format!("{style}{counts}{style:#}. The outcome of each row is in {}.", report.results.display())
}
