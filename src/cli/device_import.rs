//! `device import`: many devices from a CSV file.

use std::{
    cell::{Cell, OnceCell},
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
};

use anyhow::{Context, anyhow};
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::{
    error::AlreadyReported,
    import_rows::{Row, read_rows},
    output::{BAD, GOOD, Output, clean},
    progress::bar,
    results::{self, Results},
    service::Service,
};
use crate::central::{
    CentralDeviceId, Change, Device, DeviceQuery, DeviceUpdate, Devices, Error, NetworkFailure, NewDevice,
};

/// How many requests are under way at once. The rate limit decides how many a second; this only has to be enough to keep
/// it busy while answers take their time.
const IN_FLIGHT: usize = 64;

/// The first line of the results, by which they are known.
pub(super) const RESULTS: [&str; 4] = ["IOTC_DEVICEID", "line", "outcome", "message"];

/// How many rows are looked ahead at. Results come in the order of the file, and a row that is tried again for two minutes
/// must not hold up the others: at the service's 20 a second that is 2400.
const WINDOW: usize = 4096;

/// After so many requests in a row that the service failed, no more are sent.
const MAX_FAILURES: usize = 64;

/// Of so few devices each is asked for; for more, all of the application are listed, a hundred at a time.
const ASKED_SINGLY: usize = 100;

/// Create many devices from a CSV file
///
/// The columns are those of the web page's import, IOTC_DEVICEID and IOTC_DEVICENAME, and besides them template,
/// simulated, enabled and organizations (several parted by semicolons). A row that fails is reported and the others are
/// done; each row's outcome is written to a results file. An import that was interrupted is finished by the next: what
/// exists already is read first, and left as it is.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  iot-enroll device import --file devices.csv --app contoso --token-file token")]
pub(super) struct Import {
    /// The CSV file; - is standard input
    #[arg(long, value_name = "CSV")]
    file: PathBuf,
    /// Where the outcome of each row is written [default: the file's name and .results.csv]
    #[arg(long, value_name = "CSV")]
    results: Option<PathBuf>,
    /// Change devices that exist and differ to what the file says; what it leaves empty or has no column for stays as it is
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    service: Service,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Created,
    Replaced,
    /// It existed, as the row has it.
    Unchanged,
    /// It existed and differs from the row.
    Exists,
    Failed,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Created, Self::Replaced, Self::Unchanged, Self::Exists, Self::Failed];

    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
            Self::Exists => "exists",
            Self::Failed => "failed",
        }
    }
}

/// What is printed at the end.
#[derive(Serialize)]
struct Summary {
    #[serde(serialize_with = "crate::workflow::lossy_path")]
    results: PathBuf,
    #[serde(flatten)]
    outcomes: BTreeMap<&'static str, usize>,
    /// The rows that failed.
    failures: Vec<Failure>,
    /// How many rows were not begun, because the import stopped.
    remaining: usize,
}

#[derive(Serialize)]
struct Failure {
    line: u64,
    id: String,
    message: String,
}

impl Import {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        let rows = read_rows(&self.file, output)?;
        let total = rows.len();
        let path = self.results.clone().unwrap_or_else(|| results::path(&self.file, "results"));
        let results = Results::open(&path, &RESULTS, "import")?;
        let devices = self.service.client()?.devices();
        let existing = existing(&devices, &rows).await?;
        let mut results = results.begin()?;
        let progress = bar(output, total as u64, "devices");
        let sending = Sending::new(devices, existing, self.replace);
        let mut outcomes = stream::iter(rows)
            .map(async |row| {
                let outcome = sending.import(&row).await;
                progress.inc(u64::from(outcome.is_some()));
                (row, outcome)
            })
            .buffered(WINDOW);
        let mut counts: BTreeMap<Outcome, usize> = BTreeMap::new();
        let mut failures = Vec::new();
        let mut written = Ok(());
        while let Some((row, outcome)) = outcomes.next().await {
            let Some((outcome, message)) = outcome else { continue };
            *counts.entry(outcome).or_default() += 1;
            if written.is_ok() {
                written = results.write(&[&row.id, &row.line.to_string(), outcome.name(), &message]);
                if written.is_err() {
                    sending.stop();
                }
            }
            if outcome == Outcome::Failed {
                let failure = Failure { line: row.line, id: row.id, message };
                progress.suspend(|| output.progress(failure.line()));
                failures.push(failure);
            }
        }
        drop(outcomes);
        progress.finish_and_clear();
        let differing = counts.get(&Outcome::Exists).copied().unwrap_or_default();
        if differing > 0 {
            output.note(format_args!(
                "{differing} devices exist and differ from the file; they were left as they are, and --replace changes \
                 them to what the file says"
            ));
        }
        let done: usize = counts.values().sum();
        let stopped = match (written, sending.stopped.into_inner()) {
            (Err(error), _) => Some(error),
            (Ok(()), reason) => reason.map(|reason| anyhow!(reason)),
        };
        let summary = Summary {
            results: path,
            outcomes: Outcome::ALL
                .map(|outcome| (outcome.name(), counts.get(&outcome).copied().unwrap_or_default()))
                .into(),
            remaining: total - done,
            failures,
        };
        output.result(&summary, || {
            let counts: Vec<_> = counts.iter().map(|(outcome, count)| format!("{count} {}", outcome.name())).collect();
            let style = if summary.failures.is_empty() && stopped.is_none() { GOOD } else { BAD };
            let counts = if counts.is_empty() { "nothing done".to_owned() } else { counts.join(", ") };
            format!("{style}{counts}{style:#}. Each row's outcome is in {}.", summary.results.display())
        })?;
        if let Some(reason) = stopped {
            return Err(reason).context(format!(
                "the import stopped after {done} of {total} rows; when the cause is removed, the same command goes on, and \
                 leaves what exists as it is"
            ));
        }
        if summary.failures.is_empty() { Ok(()) } else { Err(AlreadyReported.into()) }
    }
}

impl Failure {
    /// As people read it.
    fn line(&self) -> String {
        let Self { line, id, message } = self;
        let id = if id.is_empty() { String::new() } else { format!("{id}: ") };
        format!("{BAD}line {line}{BAD:#}: {}", clean(&format!("{id}{message}")))
    }
}

/// What is sent for the rows.
struct Sending {
    devices: Devices,
    /// The devices of the file that exist, by the keys of their ids.
    existing: HashMap<String, Device>,
    replace: bool,
    /// A row that is sent has one of these. Closed when no more are to be sent.
    turns: Semaphore,
    /// Why no more are sent, where that is for a failure.
    stopped: OnceCell<String>,
    /// How many requests in a row the service failed.
    failed: Cell<usize>,
}

impl Sending {
    fn new(devices: Devices, existing: HashMap<String, Device>, replace: bool) -> Self {
        let (turns, stopped, failed) = (Semaphore::new(IN_FLIGHT), OnceCell::new(), Cell::new(0));
        Self { devices, existing, replace, turns, stopped, failed }
    }

    /// Begins no further row. Those under way are brought to their end.
    fn stop(&self) {
        self.turns.close();
    }

    /// Does what a row says; nothing where the import has stopped.
    async fn import(&self, row: &Row) -> Option<(Outcome, String)> {
        let (id, device) = match &row.device {
            Ok(device) => device,
            Err(problem) => return Some((Outcome::Failed, problem.clone())),
        };
        let found = self.existing.get(&key(id));
        match found {
            Some(found) if found.id != *id => {
                return Some((Outcome::Exists, format!("the application has it as {}", found.id)));
            }
            Some(found) if is_as(found, device) => return Some((Outcome::Unchanged, String::new())),
            Some(_) if !self.replace => return Some((Outcome::Exists, "it differs from this row".to_owned())),
            _ => {}
        }
        let _turn = self.turns.acquire().await.ok()?;
        let sent = match found {
            Some(found) => self.update(id, device, found).await.map(|()| Outcome::Replaced),
            None => self.devices.replace(id, &new_device(device)).await.map(|_| Outcome::Created),
        };
        self.watch(sent.as_ref().err());
        Some(match sent {
            Ok(outcome) => (outcome, String::new()),
            Err(error) => (Outcome::Failed, error.to_string()),
        })
    }

    /// Changes what the row names, and only if nobody else changed the device meanwhile.
    async fn update(&self, id: &CentralDeviceId, row: &DeviceUpdate, found: &Device) -> Result<(), Error> {
        let update = DeviceUpdate { etag: found.etag.clone(), ..row.clone() };
        match self.devices.update(id, &update).await {
            Ok(_) => Ok(()),
            Err(lost @ Error::OutcomeUnknown { .. }) => match self.devices.find(id).await {
                Ok(Some(now)) if is_as(&now, row) => Ok(()),
                _ => Err(lost),
            },
            Err(error) => Err(error),
        }
    }

    /// Stops where a failure says that the next rows will fail as well.
    fn watch(&self, error: Option<&Error>) {
        let failed = match error {
            Some(error) if is_hopeless(error) => MAX_FAILURES,
            Some(error) if is_service_s_fault(error) => self.failed.get() + 1,
            _ => 0,
        };
        self.failed.set(failed);
        if let (Some(error), true) = (error, failed >= MAX_FAILURES) {
            self.stopped.get_or_init(|| error.to_string());
            self.stop();
        }
    }
}

/// Whether every request will fail so: it lies with the token, or nobody is there.
fn is_hopeless(error: &Error) -> bool {
    match error {
        Error::Authorization { .. } | Error::Redirect { .. } => true,
        Error::Network(error) => matches!(
            error.failure,
            NetworkFailure::Connect | NetworkFailure::Tls | NetworkFailure::CertificateOutOfTime
        ),
        Error::Service(error) => matches!(error.status, 401 | 403),
        _ => false,
    }
}

/// Whether it lies with the service or the way there, and not with the row.
fn is_service_s_fault(error: &Error) -> bool {
    match error {
        Error::Network(_) | Error::Answer(_) => true,
        Error::Service(error) => error.status == 429 || error.status >= 500,
        _ => false,
    }
}

/// The device that a row describes, where there was none.
fn new_device(row: &DeviceUpdate) -> NewDevice {
    let set = |change: &Change<String>| if let Change::Set(text) = change { Some(text.clone()) } else { None };
    let default = NewDevice::default();
    NewDevice {
        display_name: set(&row.display_name),
        template: set(&row.template),
        enabled: row.enabled.unwrap_or(default.enabled),
        simulated: row.simulated.unwrap_or(default.simulated),
        organizations: row.organizations.clone().unwrap_or_default(),
        ..default
    }
}

/// Whether a device is what the row says; what the row leaves out may be anything.
fn is_as(found: &Device, row: &DeviceUpdate) -> bool {
    let is = |row: &Change<String>, found: &Option<String>| match row {
        Change::Set(text) => found.as_ref() == Some(text),
        Change::Keep | Change::Clear => true,
    };
    is(&row.display_name, &found.display_name)
        && is(&row.template, &found.template)
        && row.enabled.is_none_or(|enabled| enabled == found.enabled)
        && row.simulated.is_none_or(|simulated| simulated == found.simulated)
        && row.organizations.as_ref().is_none_or(|organizations| *organizations == found.organizations)
}

/// The devices of the file that the application has already, by their ids in lower case: the service may compare ids
/// without regard to case, and a device must not be replaced for that.
async fn existing(devices: &Devices, rows: &[Row]) -> anyhow::Result<HashMap<String, Device>> {
    let wanted: Vec<_> = rows.iter().filter_map(|row| row.device.as_ref().ok()).map(|(id, _)| id.clone()).collect();
    let found: BoxStream<'_, Result<Device, Error>> = if wanted.len() <= ASKED_SINGLY {
        let asked = stream::iter(wanted.clone()).map(|id| async move { devices.find(&id).await });
        Box::pin(asked.buffered(IN_FLIGHT).try_filter_map(|found| async move { Ok(found) }))
    } else {
        devices.list(&DeviceQuery::default()).into_stream()
    };
    let wanted: HashSet<_> = wanted.iter().map(key).collect();
    let ours = found.try_filter(|device| std::future::ready(wanted.contains(&key(&device.id))));
    Ok(ours.map_ok(|device| (key(&device.id), device)).try_collect().await?)
}

fn key(id: &CentralDeviceId) -> String {
    id.as_str().to_ascii_lowercase()
}
