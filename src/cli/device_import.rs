//! `device import`: many devices from a CSV file.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsString,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use serde::Serialize;

use super::{
    args::read,
    device::comma_separated,
    output::{BAD, GOOD, Output, Told},
    progress::bar,
    service::Service,
};
use crate::central::{Device, DeviceId, DeviceQuery, Devices, Error, NewDevice};

/// How many requests are under way at once. The rate limit decides how many a second; this only has to be enough to keep
/// it busy while answers take their time.
const IN_FLIGHT: usize = 64;

/// Of so few devices each is asked for; for more, all of the application are listed, a hundred at a time.
const ASKED_SINGLY: usize = 100;

/// The first line of a results file, by which one is known.
const RESULTS: [&str; 4] = ["IOTC_DEVICEID", "line", "outcome", "message"];

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
    /// Replace devices that exist and differ
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

#[derive(Serialize)]
struct Summary {
    results: PathBuf,
    #[serde(flatten)]
    outcomes: BTreeMap<&'static str, usize>,
}

/// A row of the file: its line, its id as written, and the device or what is wrong with it.
struct Row {
    line: u64,
    id: String,
    device: Result<(DeviceId, NewDevice), String>,
}

impl Import {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        let rows = read_rows(&self.file, output)?;
        let results = self.results.clone().unwrap_or_else(|| results_path(&self.file));
        check_results(&results)?;
        let devices = self.service.client()?.devices();
        let existing = existing(&devices, &rows).await?;
        let mut writer = create_results(&results)?;
        let progress = bar(output, rows.len() as u64, "devices");
        let mut counts: BTreeMap<Outcome, usize> = BTreeMap::new();
        let (devices, existing) = (&devices, &existing);
        let mut outcomes = stream::iter(rows)
            .map(|row| async move {
                let (outcome, message) = import(devices, existing, self.replace, &row).await;
                (row, outcome, message)
            })
            .buffered(IN_FLIGHT);
        while let Some((row, outcome, message)) = outcomes.next().await {
            *counts.entry(outcome).or_default() += 1;
            write_result(&mut writer, &row, outcome, &message)
                .with_context(|| format!("could not write {}", results.display()))?;
            if outcome == Outcome::Failed {
                let id = if row.id.is_empty() { String::new() } else { format!("{}: ", row.id) };
                progress.suspend(|| output.progress(format_args!("{BAD}line {}{BAD:#}: {id}{message}", row.line)));
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        let failed = counts.get(&Outcome::Failed).copied().unwrap_or_default();
        let differing = counts.get(&Outcome::Exists).copied().unwrap_or_default();
        if differing > 0 {
            output.note(format_args!(
                "{differing} devices exist and differ from the file; they were left as they are, and --replace replaces \
                 them"
            ));
        }
        let outcomes = counts.iter().map(|(outcome, count)| (outcome.name(), *count)).collect();
        let summary = Summary { results, outcomes };
        output.result(&summary, || {
            let counts: Vec<_> = counts.iter().map(|(outcome, count)| format!("{count} {}", outcome.name())).collect();
            let style = if failed == 0 { GOOD } else { BAD };
            format!("{style}{}{style:#}. Each row's outcome is in {}.", counts.join(", "), summary.results.display())
        })?;
        if failed == 0 { Ok(()) } else { Err(Told.into()) }
    }
}

async fn import(devices: &Devices, existing: &HashMap<String, Device>, replace: bool, row: &Row) -> (Outcome, String) {
    let (id, device) = match &row.device {
        Ok(device) => device,
        Err(problem) => return (Outcome::Failed, problem.clone()),
    };
    let done = match existing.get(&key(id)) {
        Some(found) if found.id != *id => return (Outcome::Exists, format!("the application has it as {}", found.id)),
        Some(found) if is_as(found, device) => return (Outcome::Unchanged, String::new()),
        Some(_) if !replace => return (Outcome::Exists, "it differs from this row".to_owned()),
        Some(_) => Outcome::Replaced,
        None => Outcome::Created,
    };
    match devices.create(id, device).await {
        Ok(_) => (done, String::new()),
        Err(error) => (Outcome::Failed, error.to_string()),
    }
}

/// Whether a device is what the row says; what the row leaves out may be anything.
fn is_as(found: &Device, row: &NewDevice) -> bool {
    let told = |row: &Option<String>, found: &Option<String>| row.is_none() || row == found;
    told(&row.display_name, &found.display_name)
        && told(&row.template, &found.template)
        && row.enabled == found.enabled
        && row.simulated == found.simulated
        && (row.organizations.is_empty() || row.organizations == found.organizations)
}

/// The devices of the file that the application has already, by their ids in lower case: the service may compare ids
/// without regard to case, and a device must not be replaced for that.
async fn existing(devices: &Devices, rows: &[Row]) -> anyhow::Result<HashMap<String, Device>> {
    let wanted: Vec<_> = rows.iter().filter_map(|row| row.device.as_ref().ok()).map(|(id, _)| id.clone()).collect();
    let found: BoxStream<'_, Result<Device, Error>> = if wanted.len() <= ASKED_SINGLY {
        let asked = stream::iter(wanted.clone()).map(|id| async move { devices.find(&id).await });
        Box::pin(asked.buffered(IN_FLIGHT).try_filter_map(|found| async move { Ok(found) }))
    } else {
        devices.list(&DeviceQuery::default())
    };
    let wanted: HashSet<_> = wanted.iter().map(key).collect();
    let ours = found.try_filter(|device| std::future::ready(wanted.contains(&key(&device.id))));
    Ok(ours.map_ok(|device| (key(&device.id), device)).try_collect().await?)
}

fn key(id: &DeviceId) -> String {
    id.as_str().to_ascii_lowercase()
}

/// The columns that are used, by their names in lower case.
struct Columns {
    id: usize,
    name: Option<usize>,
    template: Option<usize>,
    simulated: Option<usize>,
    enabled: Option<usize>,
    organizations: Option<usize>,
}

impl Columns {
    fn read(header: &csv::StringRecord, output: &Output) -> anyhow::Result<Self> {
        let names: Vec<_> = header.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        let find = |wanted: &str| names.iter().position(|name| name == wanted);
        let Some(id) = find("iotc_deviceid") else {
            bail!(
                "its first line names no column IOTC_DEVICEID; found {}",
                header.iter().collect::<Vec<_>>().join(", ")
            );
        };
        let known = ["iotc_deviceid", "iotc_devicename", "template", "simulated", "enabled", "organizations"];
        if let Some(twice) =
            names.iter().enumerate().find(|(at, name)| known.contains(&name.as_str()) && names[..*at].contains(name))
        {
            bail!("its column {} occurs twice", twice.1);
        }
        let unused: Vec<_> = header
            .iter()
            .zip(&names)
            .filter(|(_, name)| !known.contains(&name.as_str()))
            .map(|(name, _)| name)
            .collect();
        if !unused.is_empty() {
            output.note(format_args!("these columns are not used: {}", unused.join(", ")));
        }
        Ok(Self {
            id,
            name: find("iotc_devicename"),
            template: find("template"),
            simulated: find("simulated"),
            enabled: find("enabled"),
            organizations: find("organizations"),
        })
    }

    fn device(&self, record: &csv::StringRecord) -> Result<(DeviceId, NewDevice), String> {
        let text = |column: Option<usize>| {
            column.and_then(|column| record.get(column)).map(str::trim).filter(|text| !text.is_empty())
        };
        let flag = |column, name, default| match text(column).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("true" | "yes" | "1") => Ok(true),
            Some("false" | "no" | "0") => Ok(false),
            Some(other) => Err(format!("{name} is true or false, found {other:?}")),
        };
        // Rows become devices that register: their ids have to be registration ids.
        let id = crate::certificate::DeviceId::new(text(Some(self.id)).unwrap_or_default())
            .map_err(|error| error.to_string())?;
        let device = NewDevice {
            display_name: text(self.name).map(str::to_owned),
            template: text(self.template).map(str::to_owned),
            simulated: flag(self.simulated, "simulated", false)?,
            enabled: flag(self.enabled, "enabled", true)?,
            organizations: text(self.organizations)
                .map(|ids| comma_separated(&ids.replace(';', ",")))
                .unwrap_or_default(),
            ..NewDevice::default()
        };
        Ok((id.into(), device))
    }
}

fn read_rows(file: &Path, output: &Output) -> anyhow::Result<Vec<Row>> {
    let unreadable = || format!("no devices could be read from {}", file.display());
    let bytes = read(file).with_context(unreadable)?;
    // Spreadsheets begin their files with a byte-order mark.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let columns = Columns::read(reader.headers().with_context(unreadable)?, output).with_context(unreadable)?;
    let mut lines = Lines { bytes, at: 0, line: 1 };
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut rows = Vec::new();
    for record in reader.records() {
        let line = lines.of(record.as_ref().map_or_else(csv::Error::position, csv::StringRecord::position));
        let row = match record {
            Ok(record) => {
                let id = record.get(columns.id).unwrap_or_default().trim().to_owned();
                // The service compares ids without regard to case.
                let first = *seen.entry(id.to_ascii_lowercase()).or_insert(line);
                let device = if first < line && !id.is_empty() {
                    Err(format!("line {first} has the same id"))
                } else {
                    columns.device(&record)
                };
                Row { line, id, device }
            }
            // What is not UTF-8 is one row's fault, the rest can be read.
            Err(error) if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) => {
                Row { line, id: String::new(), device: Err("the row is not UTF-8".to_owned()) }
            }
            Err(error) => return Err(error).with_context(unreadable),
        };
        rows.push(row);
    }
    if rows.is_empty() {
        bail!("{} has no rows after its first line", file.display());
    }
    Ok(rows)
}

/// Counts lines. The reader's own count is one behind where lines end with CRLF, and where lines are empty.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of what is at or after this position, which is not before the last one.
    fn of(&mut self, position: Option<&csv::Position>) -> u64 {
        let start = position.and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(self.at);
        while self.at < self.bytes.len() && (self.at < start || matches!(self.bytes[self.at], b'\r' | b'\n')) {
            self.line += u64::from(self.bytes[self.at] == b'\n');
            self.at += 1;
        }
        self.line
    }
}

fn results_path(file: &Path) -> PathBuf {
    if file == Path::new("-") {
        return PathBuf::from("devices.results.csv");
    }
    let mut name = OsString::from(file.with_extension(""));
    name.push(".results.csv");
    PathBuf::from(name)
}

/// A results file of an earlier run is replaced, once there are new results; any other file is not.
fn check_results(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        let mut reader = csv::Reader::from_path(path).with_context(|| format!("could not read {}", path.display()))?;
        if !reader.headers().is_ok_and(|header| header.is_empty() || header.iter().eq(RESULTS)) {
            bail!("{} exists and holds no results of an import: name another file with --results", path.display());
        }
    }
    let opened = File::options().append(true).create(true).open(path);
    opened.map(drop).with_context(|| format!("could not write {}", path.display()))
}

fn create_results(path: &Path) -> anyhow::Result<csv::Writer<BufWriter<File>>> {
    let unwritable = || format!("could not write {}", path.display());
    let file = File::create(path).with_context(unwritable)?;
    let mut writer = csv::Writer::from_writer(BufWriter::new(file));
    writer.write_record(RESULTS).with_context(unwritable)?;
    writer.flush().with_context(unwritable)?;
    Ok(writer)
}

/// Each outcome is on the disk as soon as it is known: a run may be killed.
fn write_result(
    writer: &mut csv::Writer<impl Write>,
    row: &Row,
    outcome: Outcome,
    message: &str,
) -> anyhow::Result<()> {
    writer.write_record([row.id.as_str(), &row.line.to_string(), outcome.name(), message])?;
    writer.flush()?;
    Ok(())
}
