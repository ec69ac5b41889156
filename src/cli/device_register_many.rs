//! `device register --manifest`: the devices of a fleet.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::BufReader,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::{
    csv_rows::CsvRows,
    error::AlreadyReported,
    output::{BAD, GOOD, Output, clean},
    progress::bar,
    registration::{GROUP_KEY, GroupKey, Passwords, Registrar, RegistrationArgs, RegistrationFailure},
    results::{self, Results},
};
use crate::{
    central::NetworkFailure,
    certificate::{DeviceId, files::FileError},
    dps::device::{
        Assignment, Attempt, Cause, Credential, CredentialError, DiagnosedError, RegistrationErrorKind, SymmetricKey,
        derive_device_key,
    },
};

/// The first line of a results file, by which one is known.
const RESULTS: [&str; 8] =
    ["IOTC_DEVICEID", "line", "outcome", "idScope", "assignedHub", "deviceId", "cause", "message"];

/// Where in it the outcome and the id scope stand.
const OUTCOME: usize = 2;
const ID_SCOPE: usize = 3;

const ASSIGNED: &str = "assigned";
const FAILED: &str = "failed";

/// Many devices.
#[derive(clap::Args)]
#[command(next_help_heading = "Many devices")]
pub(super) struct Many {
    /// The CSV file that lists the devices and their files, as cert fleet makes it; paths in it are relative to its
    /// folder
    #[arg(long, value_name = "CSV")]
    manifest: Option<PathBuf>,
    /// Where the outcome of each row is written [default: the manifest's name and .registrations.csv]
    #[arg(long, value_name = "CSV", conflicts_with = "id")]
    results: Option<PathBuf>,
    /// How many registrations are under way at once; --rate says how many are begun a second, 16 without it
    #[arg(long, value_name = "N", default_value = "64", conflicts_with = "id")]
    concurrency: NonZeroUsize,
}

#[derive(Serialize)]
struct Summary {
    #[serde(serialize_with = "crate::workflow::lossy_path")]
    results: PathBuf,
    /// Registered by this run.
    assigned: u64,
    /// Registered by an earlier run, and left alone.
    earlier: u64,
    failed: u64,
    /// How many rows were not tried, because the run stopped.
    remaining: u64,
}

/// What Unix systems say when a process, or all of them, can have no more files open: EMFILE, ENFILE.
const TOO_MANY_FILES: &[i32] = if cfg!(unix) { &[24, 23] } else { &[] };

/// A row of the manifest, and what is wrong with it as a row.
struct Row {
    line: u64,
    id: String,
    files: Files,
    problem: Option<String>,
}

/// The paths of a device's files, where the manifest names them.
#[derive(Default)]
struct Files {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    pfx: Option<PathBuf>,
}

/// What all rows share.
struct Run {
    registrar: Registrar,
    passwords: Passwords,
    group_key: Option<SymmetricKey>,
}

/// Why a row failed: the cause as one word, where it is known, and a text.
struct Failure {
    cause: &'static str,
    message: String,
    reach: Reach,
}

/// Whom a failure concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The row: the service was not asked.
    Row,
    /// The device: the service was reached.
    Device,
    /// Nobody took the connection.
    Nobody,
    /// Perhaps every device: the service failed, or the way there.
    Service,
    /// Every device.
    All,
    /// This computer: no more files and connections can be open.
    Computer,
}

/// After so many devices in a row for which nobody took the connection, no more are started.
const MAX_UNREACHED: usize = 64;

/// After so many devices in a row that the service failed, or the way there, no more are started.
const MAX_FAILURES: usize = 64;

pub(super) async fn run(many: Many, registration: RegistrationArgs, output: &Output) -> anyhow::Result<()> {
    let Many { manifest, results, concurrency } = many;
    let concurrency = concurrency.get();
    let manifest = Manifest::open(manifest.context("--manifest names the devices")?)?;
    let results = results.unwrap_or_else(|| results::path(&manifest.path, "registrations"));
    let group_key = group_key(&registration.group_key, &manifest, output)?;
    let (count, repeated) = manifest.check(group_key.is_some())?;
    let passwords = registration.passwords()?;
    let run = Arc::new(Run { registrar: registration.registrar().await?, passwords, group_key });
    let file = Results::open(&results, &RESULTS, "registration")?;
    let scope = run.registrar.client.id_scope().to_string();
    let mut earlier = HashSet::new();
    let mut writer = file.resume(|row| {
        let keep = &row[OUTCOME] == ASSIGNED && row[ID_SCOPE].eq_ignore_ascii_case(&scope);
        keep && earlier.insert(hash(&row[0]))
    })?;
    let mut summary = Summary { results, assigned: 0, earlier: 0, failed: 0, remaining: 0 };
    let progress = bar(output, count, "devices");
    let mut rows = manifest.rows()?;
    let mut pending = stream::FuturesUnordered::new();
    let mut stopped = None;
    // Where an id of several rows stands first.
    let mut first_lines = HashMap::new();
    // The first one goes ahead alone: it may meet what every other would.
    let mut at_once = 1;
    // Were it the first one, once is enough. Where one came through before, it may be the network for a moment.
    let mut unreached = MAX_UNREACHED - 1;
    let mut failures = 0;
    loop {
        while pending.len() < at_once && stopped.is_none() {
            let Some(row) = rows.next() else { break };
            let mut row = row?;
            let key = hash(&row.id);
            if row.problem.is_none() && repeated.contains(&key) {
                match *first_lines.entry(key).or_insert(row.line) {
                    first if first < row.line => row.problem = Some(format!("line {first} has the same id")),
                    _ => {}
                }
            }
            if row.problem.is_none() && earlier.contains(&key) {
                summary.earlier += 1;
                progress.inc(1);
                continue;
            }
            let (run, output) = (Arc::clone(&run), output.clone());
            // A task of its own: handshakes are work for a processor.
            pending.push(tokio::spawn(async move {
                let result = run.register(&row, &output).await;
                (row, result)
            }));
        }
        let Some(done) = pending.next().await else { break };
        let (row, result) = done.context("a registration ended unexpectedly")?;
        let line = row.line.to_string();
        match &result {
            Ok(Assignment { assigned_hub, device_id, .. }) => {
                summary.assigned += 1;
                writer.write(&[&row.id, &line, ASSIGNED, &scope, assigned_hub, device_id, "", ""])?;
            }
            // Nothing is known of the device.
            Err(Failure { reach: Reach::Computer, .. }) => {
                stopped.get_or_insert_with(|| {
                    format!(
                        "too many files and connections are open at once for this computer: allow more with `ulimit -n`, \
                         or fewer registrations at once than --concurrency {concurrency}"
                    )
                });
                continue;
            }
            Err(Failure { cause, message, reach }) => {
                summary.failed += 1;
                writer.write(&[&row.id, &line, FAILED, &scope, "", "", cause, message])?;
                progress.suspend(|| output.progress(format_args!("{BAD}line {line}{BAD:#}: {}", clean(message))));
                stopped = stopped.or_else(|| stop_reason(*reach, &line, message, unreached, failures));
            }
        }
        progress.inc(1);
        match result.map_err(|failure| failure.reach) {
            Err(Reach::Row) => {}
            Err(Reach::Nobody) => (unreached, failures) = (unreached + 1, failures + 1),
            // The others start, because it takes minutes until one has failed for good.
            Err(Reach::Service) => (at_once, unreached, failures) = (concurrency, 0, failures + 1),
            _ => (at_once, unreached, failures) = (concurrency, 0, 0),
        }
    }
    progress.finish_and_clear();
    let done = summary.assigned + summary.earlier + summary.failed;
    summary.remaining = if stopped.is_some() { count.saturating_sub(done) } else { 0 };
    tell(&summary, output)?;
    if let Some(reason) = stopped {
        bail!(
            "{reason}. The run stopped after {done} of {count} rows; {} were not tried. When the cause is removed, the same \
             command resumes",
            count.saturating_sub(done)
        );
    }
    if summary.failed == 0 { Ok(()) } else { Err(AlreadyReported.into()) }
}

/// Why no more devices are started after this failure, if so. `unreached` and `failures` count those in a row before it.
fn stop_reason(reach: Reach, line: &str, message: &str, unreached: usize, failures: usize) -> Option<String> {
    match reach {
        Reach::All => Some(format!("the failure of line {line} affects every device")),
        Reach::Nobody if unreached + 1 >= MAX_UNREACHED => Some(format!("nobody answers: {}", clean(message))),
        Reach::Nobody | Reach::Service if failures + 1 >= MAX_FAILURES => {
            Some(format!("the last {MAX_FAILURES} devices failed because of the service: {}", clean(message)))
        }
        _ => None,
    }
}

/// The key of the group, where the devices register by it, and a note where they might as well register by the other.
fn group_key(given: &GroupKey, manifest: &Manifest, output: &Output) -> anyhow::Result<Option<SymmetricKey>> {
    if !manifest.columns.have_files() {
        return given.read();
    }
    if given.is_named() {
        output.note("the devices register by the group's key, and the files that the manifest names are not used");
        return given.read();
    }
    if GroupKey::is_in_environment() {
        output.note(format_args!(
            "the devices register with the files that the manifest names, and the key in {GROUP_KEY} is not used; \
             --group-key-file would use one"
        ));
    }
    Ok(None)
}

fn tell(summary: &Summary, output: &Output) -> anyhow::Result<()> {
    let Summary { results, assigned, earlier, failed, remaining } = summary;
    output.result(summary, || {
        let style = if *failed == 0 && *remaining == 0 { GOOD } else { BAD };
        let before = if *earlier > 0 { format!(", {earlier} registered before") } else { String::new() };
        let after = if *remaining > 0 { format!(", {remaining} not tried") } else { String::new() };
        format!(
            "{style}{assigned} registered{before}, {failed} failed{after}{style:#}. Each row's outcome is in {}.",
            results.display()
        )
    })
}

impl Run {
    async fn register(&self, row: &Row, output: &Output) -> Result<Assignment, Failure> {
        let named = |error: anyhow::Error| if row.id.is_empty() { error } else { error.context(row.id.clone()) };
        if let Some(problem) = &row.problem {
            return Err(Failure::because("bad-row", &named(anyhow!("{problem}"))));
        }
        let id = DeviceId::new(row.id.as_str()).map_err(|error| Failure::because("bad-id", &named(error.into())))?;
        let credential = self.credential(&id, &row.files).map_err(|error| {
            let mismatch = matches!(error.downcast_ref(), Some(CredentialError::KeyMismatch { .. }));
            Failure::because(if mismatch { "key-mismatch" } else { "unreadable" }, &named(error))
        })?;
        match self.registrar.register(&id, &credential).await {
            Ok(assignment) => Ok(assignment),
            Err(error) => {
                let id_scope = self.registrar.client.id_scope();
                let attempt = Attempt { id: &id, id_scope, credential: &credential, unsent: &[] };
                Err(self.registrar.explain(&attempt, error, output).await.into())
            }
        }
    }

    fn credential(&self, id: &DeviceId, files: &Files) -> anyhow::Result<Credential> {
        if let Some(key) = &self.group_key {
            return Ok(derive_device_key(key, id).into());
        }
        let device = match files {
            Files { certificate: Some(certificate), key: Some(key), .. } => {
                self.passwords.device_certificate(certificate, Some(key))
            }
            Files { pfx: Some(pfx), .. } => self.passwords.device_certificate(pfx, None),
            _ => bail!(
                "the manifest names no private key for it, as where it was certified by a request: only the device itself \
                 can register"
            ),
        };
        Ok(device?.into())
    }
}

impl Failure {
    /// What kept a row from being sent.
    fn because(cause: &'static str, error: &anyhow::Error) -> Self {
        let code = error.chain().find_map(|cause| match cause.downcast_ref()? {
            FileError::Io { error, .. } => error.raw_os_error(),
            _ => None,
        });
        let reach = if code.is_some_and(|code| TOO_MANY_FILES.contains(&code)) { Reach::Computer } else { Reach::Row };
        Self { cause, message: format!("{error:#}"), reach }
    }
}

impl From<RegistrationFailure> for Failure {
    fn from(RegistrationFailure { unregistered, .. }: RegistrationFailure) -> Self {
        let DiagnosedError { error, diagnosis, .. } = &unregistered;
        // Of the operating system's error the text is left.
        let is_full = |cause: &str| TOO_MANY_FILES.iter().any(|code| cause.contains(&format!("(os error {code})")));
        let reach = match &error.kind {
            RegistrationErrorKind::Network { failure: NetworkFailure::Connect, cause, .. } if is_full(cause) => {
                Reach::Computer
            }
            _ if diagnosis.causes.iter().any(Cause::affects_all_devices) => Reach::All,
            RegistrationErrorKind::Network { failure: NetworkFailure::Connect, .. } => Reach::Nobody,
            RegistrationErrorKind::NotSent(_) => Reach::Row,
            _ if unregistered.error.is_service_failure() => Reach::Service,
            _ => Reach::Device,
        };
        Self {
            cause: diagnosis.first().map(Cause::name).unwrap_or_default(),
            message: unregistered.to_string().replace("\n  ", "; "),
            reach,
        }
    }
}

/// The ids of a fleet may be many: eight bytes of each are enough to know it again.
fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.to_ascii_lowercase().hash(&mut hasher);
    hasher.finish()
}

/// A manifest, read row by row.
struct Manifest {
    path: PathBuf,
    columns: Columns,
}

/// Where in a row things stand.
#[derive(Clone, Copy)]
struct Columns {
    id: usize,
    fullchain: Option<usize>,
    certificate: Option<usize>,
    key: Option<usize>,
    pfx: Option<usize>,
}

impl Manifest {
    fn open(path: PathBuf) -> anyhow::Result<Self> {
        let unreadable = || format!("no devices could be read from {}", path.display());
        // Standard input has no folder, and cannot be read twice.
        let is_stream =
            path == Path::new("-") || ["/dev/stdin", "/dev/fd", "/proc"].iter().any(|folder| path.starts_with(folder));
        if is_stream || !path.metadata().with_context(unreadable)?.is_file() {
            bail!(
                "{}: it is no regular file. The paths in a manifest are relative to its folder: save it as a file there",
                unreadable()
            );
        }
        let columns = csv_rows(&path).and_then(|rows| Columns::read(&rows)).with_context(unreadable)?;
        Ok(Self { path, columns })
    }

    /// Counts the rows, and finds out what ids several rows have, by their hashes.
    fn check(&self, has_group_key: bool) -> anyhow::Result<(u64, HashSet<u64>)> {
        if !self.columns.have_files() && !has_group_key {
            bail!(
                "{} names no files to register with: it needs the columns fullchain and privateKey, or pfx, as `cert \
                 fleet` makes them; or give the enrollment group's key with --group-key-file or in the environment as \
                 {GROUP_KEY}",
                self.path.display()
            );
        }
        let mut count = 0;
        let (mut seen, mut repeated) = (HashSet::new(), HashSet::new());
        for row in self.rows()? {
            let row = row?;
            count += 1;
            let key = hash(&row.id);
            if row.problem.is_none() && !row.id.is_empty() && !seen.insert(key) {
                repeated.insert(key);
            }
        }
        if count == 0 {
            bail!("{} has no rows after its first line", self.path.display());
        }
        Ok((count, repeated))
    }

    fn rows(&self) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Row>>> {
        let path = self.path.clone();
        let unreadable = move || format!("{} could not be read", path.display());
        let folder = self.path.parent().unwrap_or(Path::new("")).to_owned();
        let columns = self.columns;
        let rows = csv_rows(&self.path).with_context(unreadable.clone())?;
        Ok(rows.map(move |row| {
            let row = row.with_context(&unreadable)?;
            let file = |column| row.text(column).map(|name| folder.join(name));
            Ok(Row {
                line: row.line,
                id: row.id(columns.id).to_owned(),
                files: Files {
                    certificate: file(columns.fullchain).or_else(|| file(columns.certificate)),
                    key: file(columns.key),
                    pfx: file(columns.pfx),
                },
                problem: row.problem,
            })
        }))
    }
}

impl Columns {
    fn read(rows: &CsvRows<BufReader<File>>) -> anyhow::Result<Self> {
        if rows.header().iter().eq(RESULTS) {
            bail!("it holds the results of a registration: name the manifest");
        }
        let columns = ["iotc_deviceid", "fullchain", "certificate", "privatekey", "pfx"];
        let names = rows.names(&columns)?;
        let [id, fullchain, certificate, key, pfx] = columns.map(|name| names.find(name));
        Ok(Self { id: id.unwrap_or_default(), fullchain, certificate, key, pfx })
    }

    /// Whether they name files to register with.
    fn have_files(&self) -> bool {
        (self.fullchain.or(self.certificate).is_some() && self.key.is_some()) || self.pfx.is_some()
    }
}

fn csv_rows(path: &Path) -> anyhow::Result<CsvRows<BufReader<File>>> {
    let open = || File::open(path).map(BufReader::new);
    CsvRows::new(open()?, open()?)
}
