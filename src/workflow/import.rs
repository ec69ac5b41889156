//! Creation of the devices of a list in an IoT Central application.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use serde::Serialize;

use super::{
    bulk::{Bulk, ReportOrder, RunStop, Signal},
    create::{MAX_LOOKUPS, REQUESTS_UNDER_WAY, lower_case},
    record::lossy_path,
    repeated_ids::id_hash,
    results::{ResultsError, ResultsFile, ResultsFormat, results_path},
    step::{RowFailure, Step, WorkflowEvent},
};
use crate::{
    central::{
        CentralDeviceId, Change, Client, Device, DeviceQuery, DeviceUpdate, Devices, Error, NetworkFailure, NewDevice,
    },
    certificate::fleet::SourceError,
};

/// The columns of the results, by which a results file is known.
pub(crate) const IMPORT_RESULT_COLUMNS: [&str; 4] = ["IOTC_DEVICEID", "line", "outcome", "message"];

const FORMAT: ResultsFormat = ResultsFormat { columns: &IMPORT_RESULT_COLUMNS, earlier: None, run: "import" };

/// A device of a list.
#[derive(Debug, Clone)]
pub struct ImportRow {
    /// The line of the row in its file, counted from 1.
    pub line: u64,
    /// The device's ID as written.
    pub id: String,
    /// The device and the properties that the row names, or why the row cannot be used.
    pub device: Result<(CentralDeviceId, DeviceUpdate), String>,
}

/// How to import devices.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ImportRequest {
    /// The results file.
    pub results: PathBuf,
    /// Whether devices that exist are changed to what the rows say. What a row does not name is left unchanged.
    pub replace: bool,
}

impl ImportRequest {
    /// Imports devices with the outcomes in this results file. Devices that exist are left unchanged.
    #[must_use]
    pub fn new(results: impl Into<PathBuf>) -> Self {
        Self { results: results.into(), replace: false }
    }

    /// Puts the results file beside the list that is imported: `devices.results.csv` for `devices.csv`.
    #[must_use]
    pub fn beside(list: &Path) -> Self {
        Self::new(results_path(list, "results"))
    }

    /// Sets whether devices that exist are changed to what the rows say.
    #[must_use]
    pub fn replace(mut self, replace: bool) -> Self {
        self.replace = replace;
        self
    }
}

/// The result of an import.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ImportReport {
    /// The results file: a row for each device.
    #[serde(serialize_with = "lossy_path")]
    pub results: PathBuf,
    /// The number of devices that were created.
    pub created: u64,
    /// The number of devices that were changed to what their rows say.
    pub replaced: u64,
    /// The number of devices that were as their rows say.
    pub unchanged: u64,
    /// The number of devices that differ from their rows, and were left unchanged.
    pub exists: u64,
    /// The number of rows that failed.
    pub failed: u64,
    /// The rows that failed.
    pub failures: Vec<RowFailure>,
    /// The number of rows that were not tried, because the import stopped.
    pub remaining: u64,
    /// Why the import stopped before its end.
    #[serde(skip)]
    pub stopped: Option<RunStop>,
}

impl ImportReport {
    fn new(results: &Path) -> Self {
        Self {
            results: results.to_owned(),
            created: 0,
            replaced: 0,
            unchanged: 0,
            exists: 0,
            failed: 0,
            failures: Vec::new(),
            remaining: 0,
            stopped: None,
        }
    }

    /// Returns the number of rows whose outcome is known.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.counts().iter().map(|(_, count)| count).sum()
    }

    /// Returns the number of rows of each outcome, by its name.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 5] {
        let Self { created, replaced, unchanged, exists, failed, .. } = self;
        [
            ("created", *created),
            ("replaced", *replaced),
            ("unchanged", *unchanged),
            ("exists", *exists),
            ("failed", *failed),
        ]
    }

    fn count(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Created => &mut self.created,
            Outcome::Replaced => &mut self.replaced,
            Outcome::Unchanged => &mut self.unchanged,
            Outcome::Exists => &mut self.exists,
            Outcome::Failed => &mut self.failed,
        } += 1;
    }
}

/// Why an import could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The results cannot be kept.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The rows could not be read.
    #[error(transparent)]
    Rows(SourceError),
    /// The devices of the application could not be read.
    #[error(transparent)]
    Central(#[from] Error),
}

/// The outcome of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Created,
    Replaced,
    /// The device exists and is as the row says.
    Unchanged,
    /// The device exists and differs from the row.
    Exists,
    Failed,
}

impl Outcome {
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

/// Creates the devices of a list in the application. `rows` returns the same rows each time: they are read twice, so that
/// they need not fit into memory.
///
/// What exists is read first, so an import that was killed is resumed by the same call, and no device is sent twice. A row
/// that fails is reported, and the others are done; an error that affects every device stops the import. The outcomes are
/// in the results file in the order of the rows.
///
/// # Errors
/// [`ImportError`] if the import cannot start. Failures of rows, and why the import stopped, are in the report.
///
/// ```no_run
/// use iot_enroll::{
///     central::{CentralDeviceId, Client, DeviceUpdate},
///     workflow::{ImportRequest, ImportRow, import_devices},
/// };
///
/// # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let rows = || {
///     Ok((2..=1000).map(|line| {
///         let id = CentralDeviceId::new(format!("device-{line}"))?;
///         Ok(ImportRow { line, id: id.to_string(), device: Ok((id, DeviceUpdate::default())) })
///     }))
/// };
/// let report = import_devices(&client, rows, &ImportRequest::new("results.csv"), &mut |_| ()).await?;
/// println!("{} created, {} failed", report.created, report.failed);
/// # Ok(())
/// # }
/// ```
pub async fn import_devices<I>(
    client: &Client,
    rows: impl Fn() -> Result<I, SourceError> + Send + Sync,
    request: &ImportRequest,
    observer: &mut (dyn FnMut(WorkflowEvent<'_>) + Send),
) -> Result<ImportReport, ImportError>
where
    I: Iterator<Item = Result<ImportRow, SourceError>> + Send,
{
    let ids = ListedIds::read(rows().map_err(ImportError::Rows)?)?;
    let of = ids.count;
    let file = ResultsFile::open(&request.results, FORMAT)?;
    let devices = client.devices();
    let existing = ids.find_existing(&devices).await?;
    let mut results = file.start()?;
    let importer = Arc::new(Importer { devices, existing, replace: request.replace });
    let mut report = ImportReport::new(&request.results);
    let work = |row: ImportRow| {
        let importer = Arc::clone(&importer);
        async move {
            let (outcome, message, signal) = importer.import(&row).await;
            ((row, outcome, message), signal)
        }
    };
    let bulk = Bulk { concurrency: REQUESTS_UNDER_WAY, order: ReportOrder::Listed, probes: false };
    let rows =
        rows().map_err(ImportError::Rows)?.map(|row| row.map_err(|error| RunStop::Unreadable(error.to_string())));
    let ended = bulk.run(rows, work, |(row, outcome, message), reason| {
        let ImportRow { line, id, .. } = row;
        if let Some(reason) = reason {
            report.stopped = Some(RunStop::new(reason, line, &message));
        }
        report.count(outcome);
        let written = results.write(&[&id, &line.to_string(), outcome.name(), &message]);
        if outcome == Outcome::Failed {
            let failure = RowFailure { line, id, message };
            observer(WorkflowEvent::RowFailed(&failure));
            report.failures.push(failure);
        }
        observer(WorkflowEvent::Progressed { step: Step::Create, done: report.done(), of });
        written.map_err(RunStop::Results)
    });
    let failure = ended.await.err();
    report.stopped = failure.or(report.stopped);
    report.remaining = of.saturating_sub(report.done());
    Ok(report)
}

/// Sends what the rows say.
struct Importer {
    devices: Devices,
    /// The devices of the list that exist, by their IDs in lower case.
    existing: HashMap<String, Device>,
    replace: bool,
}

impl Importer {
    async fn import(&self, row: &ImportRow) -> (Outcome, String, Signal) {
        let (id, device) = match &row.device {
            Ok(device) => device,
            Err(problem) => return (Outcome::Failed, problem.clone(), Signal::NotSent),
        };
        let found = self.existing.get(&lower_case(id));
        match found {
            Some(found) if found.id != *id => {
                let message = format!("the application has it as {}", found.id);
                return (Outcome::Exists, message, Signal::NotSent);
            }
            Some(found) if matches_row(found, device) => return (Outcome::Unchanged, String::new(), Signal::NotSent),
            Some(_) if !self.replace => {
                return (Outcome::Exists, "it differs from this row".to_owned(), Signal::NotSent);
            }
            _ => {}
        }
        let sent = match found {
            Some(found) => self.update(id, device, found).await.map(|()| Outcome::Replaced),
            None => self.devices.replace(id, &new_device(device)).await.map(|_| Outcome::Created),
        };
        match sent {
            Ok(outcome) => (outcome, String::new(), Signal::Answered),
            Err(error) => (Outcome::Failed, error.to_string(), signal(&error)),
        }
    }

    /// Changes what the row names, unless another client changed the device since it was read.
    async fn update(&self, id: &CentralDeviceId, row: &DeviceUpdate, found: &Device) -> Result<(), Error> {
        let update = DeviceUpdate { etag: found.etag.clone(), ..row.clone() };
        match self.devices.update(id, &update).await {
            Ok(_) => Ok(()),
            Err(lost @ Error::OutcomeUnknown { .. }) => match self.devices.find(id).await {
                Ok(Some(now)) if matches_row(&now, row) => Ok(()),
                _ => Err(lost),
            },
            Err(error) => Err(error),
        }
    }
}

/// Returns what a failure says about the rows after it.
pub(super) fn signal(error: &Error) -> Signal {
    match error {
        // The token is wrong, or the address.
        Error::Authorization { .. } | Error::Redirect { .. } => Signal::AffectsAll,
        // A connection was retried for minutes already.
        Error::Network(error) => match error.failure {
            NetworkFailure::Connect | NetworkFailure::Tls | NetworkFailure::CertificateOutOfTime => Signal::AffectsAll,
            _ => Signal::ServiceFailed,
        },
        Error::Service(error) if error.status == 401 => Signal::AffectsAll,
        // The token may have no rights at all, or none in the organization of one row.
        Error::Service(error) if error.status == 403 => Signal::Forbidden,
        Error::Service(error) if error.status == 429 || error.status >= 500 => Signal::ServiceFailed,
        Error::Answer(_) => Signal::ServiceFailed,
        _ => Signal::Answered,
    }
}

/// Returns the device that a row describes.
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

/// Returns whether a device has every property that the row names.
fn matches_row(found: &Device, row: &DeviceUpdate) -> bool {
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

/// The IDs of a list.
struct ListedIds {
    count: u64,
    hashes: HashSet<u64>,
    /// The IDs, if they are few enough to be looked up one by one.
    few: Option<Vec<CentralDeviceId>>,
}

impl ListedIds {
    fn read(rows: impl Iterator<Item = Result<ImportRow, SourceError>>) -> Result<Self, ImportError> {
        let mut ids = Self { count: 0, hashes: HashSet::new(), few: Some(Vec::new()) };
        for row in rows {
            ids.count += 1;
            let Ok((id, _)) = row.map_err(ImportError::Rows)?.device else { continue };
            ids.hashes.insert(id_hash(id.as_str()));
            if let Some(few) = &mut ids.few {
                few.push(id);
            }
            ids.few = ids.few.filter(|few| few.len() <= MAX_LOOKUPS);
        }
        Ok(ids)
    }

    /// Reads the devices of the list that the application has, by their IDs in lower case.
    async fn find_existing(&self, devices: &Devices) -> Result<HashMap<String, Device>, Error> {
        let found: BoxStream<'_, Result<Device, Error>> = match self.few.clone() {
            Some(ids) => {
                let looked_up = stream::iter(ids).map(|id| async move { devices.find(&id).await });
                Box::pin(looked_up.buffered(REQUESTS_UNDER_WAY.get()).try_filter_map(|found| async move { Ok(found) }))
            }
            None => devices.list(&DeviceQuery::default()).into_stream(),
        };
        let ours = found.try_filter(|device| std::future::ready(self.hashes.contains(&id_hash(device.id.as_str()))));
        ours.map_ok(|device| (lower_case(&device.id), device)).try_collect().await
    }
}
