//! `migrate status`: which devices have arrived at the DPS instance.

use std::{
    io::{self, ErrorKind, Write},
    path::PathBuf,
};

use anyhow::{Context, anyhow, bail};
use serde::Serialize;

use super::{
    error::{AlreadyReported, Undetermined, UsageError},
    output::{BAD, Format, GOOD, Output, WARN, clean, table},
    planned_services::BothServices,
    progress::bar,
};
use crate::workflow::migrate::{ArrivalCounts, Arrivals, DeviceArrival, Plan};

/// Show which devices have arrived at the DPS instance
///
/// Compares the devices of the application with the registration records of the instance, and changes nothing. A device has
/// arrived if it registered and is assigned to a hub. A reason is shown if its group or its ID in the hub is not that of the
/// plan, or if what admitted it is disabled now.
///
/// The exit status is 0 if every device of the application has arrived, except for disabled and simulated ones; 1 if some have
/// not, also those that the plan cannot move; and 3 if it could not be determined.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll migrate status plan.json --token-file token --missing
  iot-enroll migrate status plan.json --token-file token --format csv > status.csv")]
pub(super) struct Status {
    /// File with the plan
    plan: PathBuf,
    /// List only the devices that have not arrived
    #[arg(long)]
    missing: bool,
    /// Format of the list; for JSON use -o json
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: ListFormat,
    #[command(flatten)]
    services: BothServices,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ListFormat {
    /// Counts and a table
    Table,
    /// CSV with a header; the counts go to standard error
    Csv,
}

/// The result as JSON.
#[derive(Serialize)]
struct Document {
    counts: ArrivalCounts,
    devices: Vec<DeviceArrival>,
}

impl Status {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        if self.format == ListFormat::Csv && output.format() == Format::Json {
            return Err(UsageError::new("--format csv and -o json exclude each other").into());
        }
        let counts = self
            .list(output)
            .await
            .map_err(|error| if error.is::<UsageError>() { error } else { Undetermined::new(error).into() })?;
        if counts.total == 0 {
            bail!(Undetermined::new(anyhow!("the application has no devices that the sign-in can see")));
        }
        if counts.missing() == 0 { Ok(()) } else { Err(AlreadyReported.into()) }
    }

    async fn list(&self, output: &Output) -> anyhow::Result<ArrivalCounts> {
        let plan = Plan::read(&self.plan)?;
        let client = self.services.planned_application(plan.header()).await?;
        let records = self.services.planned_registrations(plan.header()).await?;
        let instance = self.services.planned_instance(plan.header()).await?;
        let mut arrivals = Arrivals::read(&client, &instance, &records.registrations(), &plan).await?;
        match self.format {
            ListFormat::Csv => self.print_csv(&mut arrivals, output).await,
            ListFormat::Table => {
                let progress = bar(output, plan.header().counts.total, "devices");
                let mut devices = Vec::new();
                while let Some(device) = arrivals.next().await {
                    let device = device?;
                    progress.inc(1);
                    if self.shows(&device) {
                        devices.push(device);
                    }
                }
                progress.finish_and_clear();
                let document = Document { counts: arrivals.counts(), devices };
                output.result(&document, || summary(&document))?;
                Ok(document.counts)
            }
        }
    }

    fn shows(&self, device: &DeviceArrival) -> bool {
        !self.missing || device.state.is_missing()
    }

    /// Prints each device as soon as it is known.
    async fn print_csv(&self, arrivals: &mut Arrivals, output: &Output) -> anyhow::Result<ArrivalCounts> {
        let mut csv = csv::Writer::from_writer(io::stdout().lock());
        let mut is_open =
            write(&mut csv, &["IOTC_DEVICEID", "state", "assignedHub", "enrollmentGroup", "registeredAt", "reason"])?;
        while let Some(device) = arrivals.next().await {
            let device = device?;
            if is_open && self.shows(&device) {
                is_open = write(&mut csv, &row(&device))?;
            }
        }
        let counts = arrivals.counts();
        output.note(line(&counts));
        Ok(counts)
    }
}

/// Writes a row. Returns false if a reader such as `head` has closed the pipe.
fn write<W: Write, T: AsRef<[u8]>>(csv: &mut csv::Writer<W>, row: &[T]) -> anyhow::Result<bool> {
    let written = csv.write_record(row).map_err(io::Error::from).and_then(|()| csv.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("could not write to standard output"),
    }
}

fn row(device: &DeviceArrival) -> [String; 6] {
    [
        device.id.to_string(),
        device.state.to_string(),
        clean(device.assigned_hub.as_deref().unwrap_or_default()),
        device.enrollment_group.clone().unwrap_or_default(),
        device.registered_at.map(|at| at.to_string()).unwrap_or_default(),
        clean(device.reason.as_deref().unwrap_or_default()),
    ]
}

/// Returns the counts that are not zero on one line.
fn line(counts: &ArrivalCounts) -> String {
    let others = [
        (counts.waiting, "waiting"),
        (counts.failed, "failed"),
        (counts.not_moved, "not moved by the plan"),
        (counts.not_planned, "not in the plan"),
        (counts.disabled, "disabled"),
        (counts.simulated, "simulated"),
    ];
    let others = others.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}"));
    let deleted = match counts.deleted {
        0 => String::new(),
        deleted => format!("; {deleted} of the plan are not in the application any more"),
    };
    format!("{} of {} devices have arrived{}{deleted}", counts.arrived, counts.total, others.collect::<String>())
}

fn summary(document: &Document) -> String {
    let Document { counts, devices } = document;
    let style = match (counts.missing(), counts.arrived) {
        (0, _) => GOOD,
        (_, 0) => BAD,
        _ => WARN,
    };
    let line = line(counts);
    if devices.is_empty() {
        return format!("{style}{line}.{style:#}\n");
    }
    let head = ["DEVICE", "STATE", "HUB", "ADMITTED BY", "REGISTERED", "REASON"];
    format!("{style}{line}.{style:#}\n\n{}", table(head, devices.iter().map(row)))
}
