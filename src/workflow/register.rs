//! Registration of the devices of a manifest, as they do it themselves.

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    bulk::{Bulk, ReportOrder, RunStop, Signal, StopReason},
    manifest::{
        EARLIER_RESULT_COLUMNS, Manifest, ManifestError, ManifestIds, ManifestRow, RESULT_COLUMNS, UnreadableCredential,
    },
    record::lossy_path,
    registrar::Registrar,
    repeated_ids::id_hash,
    results::{ResultsError, ResultsFile, ResultsFormat, ResultsWriter, results_path},
    step::{Observer, RowFailure, Step, WorkflowEvent},
};
use crate::{
    certificate::{
        DeviceId,
        files::{FileError, Passwords},
    },
    dps::device::{
        Assignment, Cause, Credential, CredentialError, DiagnosedError, RegistrationErrorKind, SymmetricKey,
        derive_device_key,
    },
    transport::NetworkFailure,
};

/// How many registrations are under way at once by default. The client's rate limit sets how many start a second; each
/// takes several requests.
pub const DEFAULT_CONCURRENCY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);

const FORMAT: ResultsFormat =
    ResultsFormat { columns: &RESULT_COLUMNS, earlier: Some(&EARLIER_RESULT_COLUMNS), run: "registration" };

const ASSIGNED: &str = "assigned";
const FAILED: &str = "failed";

/// The error codes of Unix for too many open files: EMFILE of this process, ENFILE of all of them.
const TOO_MANY_FILES: &[i32] = if cfg!(unix) { &[24, 23] } else { &[] };

/// How to register the devices of a manifest.
///
/// The manifest is CSV with a header: `IOTC_DEVICEID` and either `fullchain` (or `certificate`) and `privateKey`, or `pfx`, as
/// a [`Fleet`](crate::certificate::fleet::Fleet) writes it. Paths in it are relative to its directory.
#[non_exhaustive]
pub struct ManifestRegistration {
    /// The results file.
    pub results: PathBuf,
    /// How many registrations are under way at once.
    pub concurrency: NonZeroUsize,
    manifest: Manifest,
    group_key: Option<SymmetricKey>,
    key_password: Option<Zeroizing<String>>,
    pfx_password: Option<Zeroizing<String>>,
}

impl ManifestRegistration {
    /// Reads the columns of a manifest. The results go to a file beside it, `manifest.registrations.csv`.
    ///
    /// # Errors
    /// [`ManifestError`] if it cannot be read, or is no manifest.
    pub fn open(manifest: impl AsRef<Path>) -> Result<Self, ManifestError> {
        let path = manifest.as_ref();
        Ok(Self {
            results: results_path(path, "registrations"),
            concurrency: DEFAULT_CONCURRENCY,
            manifest: Manifest::open(path)?,
            group_key: None,
            key_password: None,
            pfx_password: None,
        })
    }

    /// Returns whether the manifest names files to register with. If not, a [`group_key`](Self::group_key) is needed.
    #[must_use]
    pub fn names_files(&self) -> bool {
        self.manifest.names_files()
    }

    /// Sets the results file.
    #[must_use]
    pub fn results(mut self, path: impl Into<PathBuf>) -> Self {
        self.results = path.into();
        self
    }

    /// Sets how many registrations are under way at once.
    #[must_use]
    pub fn concurrency(mut self, concurrency: NonZeroUsize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Sets the key of the enrollment group that the devices' keys are derived from. The files of the manifest are not used
    /// then.
    #[must_use]
    pub fn group_key(mut self, key: impl Into<Option<SymmetricKey>>) -> Self {
        self.group_key = key.into();
        self
    }

    /// Sets the password of encrypted private keys.
    #[must_use]
    pub fn key_password(mut self, password: impl Into<Option<Zeroizing<String>>>) -> Self {
        self.key_password = password.into();
        self
    }

    /// Sets the password of PFX files.
    #[must_use]
    pub fn pfx_password(mut self, password: impl Into<Option<Zeroizing<String>>>) -> Self {
        self.pfx_password = password.into();
        self
    }

    /// Checks the manifest before anything is sent.
    ///
    /// # Errors
    /// [`ManifestError`] if it has no rows, or nothing to register with.
    pub fn check(&self) -> Result<(), ManifestError> {
        self.read_ids().map(drop)
    }

    fn read_ids(&self) -> Result<ManifestIds, ManifestError> {
        self.manifest.read_ids(self.group_key.is_some())
    }
}

/// The result of registering the devices of a manifest.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RegistrationReport {
    /// The results file: a row for each device.
    #[serde(serialize_with = "lossy_path")]
    pub results: PathBuf,
    /// The number of devices that this run registered.
    pub assigned: u64,
    /// The number of devices that an earlier run registered. They were skipped.
    pub earlier: u64,
    /// The number of devices that failed.
    pub failed: u64,
    /// The number of devices that were not tried, because the run stopped.
    pub remaining: u64,
    /// Why the run stopped before its end.
    #[serde(skip)]
    pub stopped: Option<RunStop>,
}

impl RegistrationReport {
    fn new(results: &Path) -> Self {
        let results = results.to_owned();
        Self { results, assigned: 0, earlier: 0, failed: 0, remaining: 0, stopped: None }
    }

    /// Returns the number of devices whose outcome is known.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.assigned + self.earlier + self.failed
    }
}

/// Why the registration of a manifest could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The results cannot be kept.
    #[error(transparent)]
    Results(#[from] ResultsError),
}

/// Registers the devices of a manifest at the Device Provisioning Service.
///
/// The outcome of each device is in the results file as soon as it is known. The next run skips devices that the file lists
/// as assigned in the same ID scope with the same certificate, so a run that was killed is resumed by the same call. The first device goes ahead of the
/// others, and an error that affects every device stops the run.
///
/// # Errors
/// [`RegisterError`] if the run cannot start. Failures of devices, and why a run stopped, are in the report.
///
/// ```no_run
/// use iot_enroll::{
///     dps::device::RegistrationClient,
///     workflow::{ManifestRegistration, Registrar, register_manifest},
/// };
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let registrar = Registrar::new(RegistrationClient::builder("0ne00A1B2C3".parse()?).build()?);
/// let request = ManifestRegistration::open("fleet/manifest.csv")?;
/// let report = register_manifest(&registrar, request, &mut |_| ()).await?;
/// println!("{} registered, {} failed", report.assigned, report.failed);
/// # Ok(())
/// # }
/// ```
pub async fn register_manifest(
    registrar: &Registrar,
    request: ManifestRegistration,
    observer: &mut (dyn FnMut(WorkflowEvent<'_>) + Send),
) -> Result<RegistrationReport, RegisterError> {
    let ids = request.read_ids()?;
    let of = ids.count;
    let scope = registrar.client().id_scope().to_string();
    let file = ResultsFile::open(&request.results, FORMAT)?;
    let current = if file.has_results() { request.read_credentials()? } else { HashSet::new() };
    let mut assigned = HashSet::new();
    let results = file.resume(|row| {
        let id = row.get("IOTC_DEVICEID");
        let is_final = row.get("outcome") == ASSIGNED && row.get("idScope").eq_ignore_ascii_case(&scope);
        is_final && current.contains(&credential_hash(id, row.get("sha1Thumbprint"))) && assigned.insert(id_hash(id))
    })?;
    let skipped = AtomicU64::new(0);
    let rows = unregistered_rows(request.manifest.rows()?, ids, &assigned, &skipped);
    let mut recorder = Recorder { report: RegistrationReport::new(&request.results), results, scope };
    let bulk = Bulk { concurrency: request.concurrency, order: ReportOrder::Ended, probes: true };
    let request = Arc::new(request);
    let work = |row: ManifestRow| {
        let (registrar, request) = (registrar.clone(), Arc::clone(&request));
        async move {
            let outcome = request.register(&registrar, &row).await;
            let signal = outcome.as_ref().map_or_else(|failure| failure.signal, |_| Signal::Answered);
            ((row, outcome), signal)
        }
    };
    let ended = bulk.run(rows, work, |(row, outcome), reason| {
        let outcome = recorder.record(&row, outcome, reason, observer);
        let done = recorder.report.done() + skipped.load(Relaxed);
        observer(WorkflowEvent::Progressed { step: Step::Register, done, of });
        outcome
    });
    let failure = ended.await.err();
    let mut report = recorder.report;
    report.stopped = failure.or(report.stopped);
    report.earlier = skipped.into_inner();
    report.remaining = if report.stopped.is_some() { of.saturating_sub(report.done()) } else { 0 };
    Ok(report)
}

/// Keeps the outcomes.
struct Recorder {
    report: RegistrationReport,
    results: ResultsWriter,
    scope: String,
}

impl Recorder {
    /// Counts the outcome of a row, writes it to the results and reports a failure. `reason` says that it stops the run.
    fn record(
        &mut self,
        row: &ManifestRow,
        outcome: Result<Registered, Failure>,
        reason: Option<StopReason>,
        observer: &mut Observer<'_>,
    ) -> Result<(), RunStop> {
        let Self { report, results, scope } = self;
        let (line, id) = (row.line.to_string(), &row.id);
        let written = match outcome {
            Ok(Registered { assignment: Assignment { assigned_hub, device_id, .. }, thumbprint }) => {
                report.assigned += 1;
                results.write(&[id, &line, ASSIGNED, scope, &assigned_hub, &device_id, &thumbprint, "", ""])
            }
            Err(Failure { cause, message, signal }) => {
                if let Some(reason) = reason {
                    report.stopped = Some(RunStop::new(reason, row.line, &message));
                }
                // Nothing is known of a device that was not tried.
                if signal == Signal::OutOfFiles {
                    return Ok(());
                }
                report.failed += 1;
                let written = results.write(&[id, &line, FAILED, scope, "", "", "", cause, &message]);
                observer(WorkflowEvent::RowFailed(&RowFailure { line: row.line, id: id.clone(), message }));
                written
            }
        };
        written.map_err(RunStop::Results)
    }
}

/// Returns the rows of devices that are not registered yet, and counts the others.
fn unregistered_rows(
    rows: impl Iterator<Item = Result<ManifestRow, ManifestError>> + Send,
    mut ids: ManifestIds,
    assigned: &HashSet<u64>,
    skipped: &AtomicU64,
) -> impl Iterator<Item = Result<ManifestRow, RunStop>> + Send {
    rows.filter_map(move |row| {
        let mut row = match row {
            Ok(row) => row,
            Err(error) => return Some(Err(RunStop::Unreadable(error.to_string()))),
        };
        ids.mark_repeated(&mut row);
        if row.problem.is_none() && assigned.contains(&id_hash(&row.id)) {
            skipped.fetch_add(1, Relaxed);
            return None;
        }
        Some(Ok(row))
    })
}

/// Returns eight bytes that stand for a device with its certificate. The thumbprint is empty if it registers by a symmetric key.
fn credential_hash(id: &str, thumbprint: &str) -> u64 {
    id_hash(&format!("{id} {thumbprint}"))
}

/// A device that was registered.
struct Registered {
    assignment: Assignment,
    /// The thumbprint of its certificate; empty if it has a symmetric key.
    thumbprint: String,
}

/// Why a row failed.
struct Failure {
    /// The cause as one word, if it is known.
    cause: &'static str,
    message: String,
    signal: Signal,
}

impl ManifestRegistration {
    /// Reads the certificates that the devices have now. Eight bytes of each are held.
    fn read_credentials(&self) -> Result<HashSet<u64>, ManifestError> {
        let mut current = HashSet::new();
        for row in self.manifest.rows()? {
            let row = row?;
            if self.group_key.is_some() {
                current.insert(credential_hash(&row.id, ""));
                continue;
            }
            // A device whose certificate cannot be read is not skipped, so its row fails.
            for certificate in row.files.read_certificates(self.passwords()).into_iter().flatten() {
                current.insert(credential_hash(&row.id, &certificate.sha1_thumbprint().to_string()));
            }
        }
        Ok(current)
    }

    async fn register(&self, registrar: &Registrar, row: &ManifestRow) -> Result<Registered, Failure> {
        if let Some(problem) = &row.problem {
            return Err(Failure::not_sent("bad-row", row, problem));
        }
        let id =
            DeviceId::new(row.id.as_str()).map_err(|error| Failure::not_sent("bad-id", row, &error.to_string()))?;
        let credential = self.credential(&id, row)?;
        let thumbprint = match &credential {
            Credential::Certificate(own) => own.certificate().sha1_thumbprint().to_string(),
            Credential::SymmetricKey(_) => String::new(),
        };
        let registered = registrar.register(&id, &credential).await;
        let assignment = registered.map_err(|unregistered| Failure::of(&unregistered))?;
        Ok(Registered { assignment, thumbprint })
    }

    fn passwords(&self) -> Passwords<'_> {
        let [key, pfx] = [&self.key_password, &self.pfx_password].map(|it| it.as_ref().map(|it| it.as_str()));
        Passwords { key, pfx }
    }

    fn credential(&self, id: &DeviceId, row: &ManifestRow) -> Result<Credential, Failure> {
        if let Some(key) = &self.group_key {
            return Ok(derive_device_key(key, id).into());
        }
        row.files.read(self.passwords()).map(Into::into).map_err(|error| Failure::unreadable(row, &error))
    }
}

impl Failure {
    fn not_sent(cause: &'static str, row: &ManifestRow, problem: &str) -> Self {
        let message = if row.id.is_empty() { problem.to_owned() } else { format!("{}: {problem}", row.id) };
        Self { cause, message, signal: Signal::NotSent }
    }

    fn unreadable(row: &ManifestRow, error: &UnreadableCredential) -> Self {
        let cause = match error {
            UnreadableCredential::Credential(CredentialError::KeyMismatch { .. }) => "key-mismatch",
            _ => "unreadable",
        };
        let code = match error {
            UnreadableCredential::File(FileError::Io { error, .. }) => error.raw_os_error(),
            _ => None,
        };
        let failure = Self::not_sent(cause, row, &error.to_string());
        match code {
            Some(code) if TOO_MANY_FILES.contains(&code) => Self { signal: Signal::OutOfFiles, ..failure },
            _ => failure,
        }
    }

    fn of(unregistered: &DiagnosedError) -> Self {
        let DiagnosedError { error, diagnosis, .. } = unregistered;
        // Only the text of the operating system's error is left.
        let is_out_of_files =
            |cause: &str| TOO_MANY_FILES.iter().any(|code| cause.contains(&format!("(os error {code})")));
        let signal = match &error.kind {
            RegistrationErrorKind::Network { failure: NetworkFailure::Connect, cause, .. }
                if is_out_of_files(cause) =>
            {
                Signal::OutOfFiles
            }
            _ if diagnosis.causes.iter().any(Cause::affects_all_devices) => Signal::AffectsAll,
            RegistrationErrorKind::Network { failure: NetworkFailure::Connect, .. } => Signal::Unreachable,
            RegistrationErrorKind::NotSent(_) => Signal::NotSent,
            _ if error.is_service_failure() => Signal::ServiceFailed,
            _ => Signal::Answered,
        };
        let cause = diagnosis.first().map(Cause::name).unwrap_or_default();
        Self { cause, message: unregistered.to_string().replace("\n  ", "; "), signal }
    }
}
