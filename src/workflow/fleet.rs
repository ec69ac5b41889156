//! The certificates of a fleet.

use std::{
    fmt,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::time;
use zeroize::Zeroizing;

use super::{
    error::ProvisionError,
    record::{lossy_path, optional_lossy_path},
    step::{Outcome, Step, Steps, device_count},
};
use crate::certificate::{
    CertificateAuthority, DeviceId, IssueOptions, Timestamp,
    files::{self, PfxOptions},
    fleet::{
        Fleet, FleetControl, FleetDevice, FleetError, FleetReport, IfExists, MANIFEST, SourceError, read_manifest,
    },
};

/// The devices of a fleet.
pub type FleetDevices = Box<dyn Iterator<Item = Result<FleetDevice, SourceError>> + Send>;

/// Many devices, whose certificates go to a directory of their own.
#[derive(Clone)]
#[non_exhaustive]
pub struct FleetRequest {
    /// The directory, as [`Fleet::write_directory`] fills it.
    pub directory: PathBuf,
    /// The number of devices.
    pub count: u64,
    /// Returns the devices, the same ones in the same order each time.
    pub devices: Arc<dyn Fn() -> Result<FleetDevices, SourceError> + Send + Sync>,
    /// Whether to write PFX files too, if the request has options for them.
    pub pfx: bool,
}

impl FleetRequest {
    /// Requests the certificates of `count` devices in a directory. `devices` returns the same devices in the same order
    /// each time: they are read more than once, so that they need not fit into memory.
    ///
    /// ```
    /// use iot_enroll::{
    ///     certificate::{DeviceId, fleet::FleetDevice},
    ///     workflow::FleetRequest,
    /// };
    ///
    /// let request = FleetRequest::new("fleet", 1000, || {
    ///     Ok(Box::new((1..=1000).map(|number| {
    ///         let id = DeviceId::new(format!("device-{number:04}"))?;
    ///         Ok(FleetDevice::new(id))
    ///     })))
    /// });
    /// assert_eq!(request.count, 1000);
    /// ```
    #[must_use]
    pub fn new(
        directory: impl Into<PathBuf>,
        count: u64,
        devices: impl Fn() -> Result<FleetDevices, SourceError> + Send + Sync + 'static,
    ) -> Self {
        Self { directory: directory.into(), count, devices: Arc::new(devices), pfx: false }
    }

    /// Sets whether to write PFX files too.
    #[must_use]
    pub fn pfx(mut self, pfx: bool) -> Self {
        self.pfx = pfx;
        self
    }

    /// Reads the devices from the beginning.
    pub(super) fn read(&self) -> Result<FleetDevices, ProvisionError> {
        (self.devices)().map_err(ProvisionError::Devices)
    }
}

impl fmt::Debug for FleetRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directory, count, pfx, .. } = self;
        f.debug_struct("FleetRequest")
            .field("directory", directory)
            .field("count", count)
            .field("pfx", pfx)
            .finish_non_exhaustive()
    }
}

/// The result of issuing a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FleetSummary {
    /// The directory.
    #[serde(rename = "folder", serialize_with = "lossy_path")]
    pub directory: PathBuf,
    /// The manifest, which lists the devices and their files.
    #[serde(serialize_with = "lossy_path")]
    pub manifest: PathBuf,
    /// The number of devices that have certificates.
    pub devices: u64,
    /// The number of those that had certificates before this run.
    pub found: u64,
    /// The number of devices that are registered, by this run or an earlier one; none if registration was not requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered: Option<u64>,
    /// The number of registrations that failed. Devices that are neither registered nor refused were not tried, because a
    /// failure affects every device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
    /// The file with the outcome of each registration.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_lossy_path")]
    pub registrations: Option<PathBuf>,
}

/// The part of issuing that all devices of a fleet share.
#[derive(Clone, Copy)]
pub(super) struct FleetIssuance<'a> {
    pub(super) request: &'a FleetRequest,
    pub(super) options: &'a IssueOptions,
    pub(super) pfx: Option<PfxOptions<'a>>,
}

impl<'a> FleetIssuance<'a> {
    pub(super) fn new(request: &'a FleetRequest, options: &'a IssueOptions, pfx: Option<PfxOptions<'a>>) -> Self {
        Self { request, options, pfx: pfx.filter(|_| request.pfx) }
    }

    /// Fails if a device is also in the list, or if the directory cannot be resumed. A CA that does not exist yet has
    /// issued nothing.
    pub(super) fn check(
        &self,
        authority: Option<&CertificateAuthority>,
        list: &[DeviceId],
    ) -> Result<(), ProvisionError> {
        let Self { request, options, pfx } = *self;
        if !list.is_empty() {
            for device in request.read()? {
                let id = device.map_err(ProvisionError::Devices)?.id;
                if let Some(first) = list.iter().find(|listed| listed.as_str().eq_ignore_ascii_case(id.as_str())) {
                    return Err(ProvisionError::DuplicateDevice { first: first.to_string(), second: id.to_string() });
                }
            }
        }
        match authority {
            Some(authority) => {
                let fleet = Fleet::new(authority, options, pfx, NonZeroUsize::MIN)?;
                match fleet.check_directory(request.read()?, &request.directory) {
                    // Another run may have completed a subdirectory between two looks at it.
                    Err(FleetError::CannotResume { .. }) => {
                        fleet.check_directory(request.read()?, &request.directory)?;
                    }
                    checked => checked?,
                }
                check_validity(&request.directory, options.issue_time())
            }
            None if request.directory.join("0000").exists() => {
                Err(FleetError::Exists(request.directory.clone()).into())
            }
            None => Ok(()),
        }
    }

    /// Issues the missing certificates; nothing in a dry run.
    pub(super) async fn issue(
        &self,
        authority: Option<&Arc<CertificateAuthority>>,
        steps: &mut Steps<'_>,
    ) -> Result<Option<FleetSummary>, ProvisionError> {
        let (count, directory) = (self.request.count, self.request.directory.display());
        let Some(authority) = authority else {
            let detail =
                format!("would create the certificates of {} in {directory}, except those it has", device_count(count));
            steps.finish(Step::Fleet, Outcome::Planned, detail);
            return Ok(None);
        };
        let started = Instant::now();
        let report = loop {
            steps.start(Step::Fleet, &format!("issuing the certificates of {}", device_count(count)));
            match self.write(authority, steps).await? {
                Err(FleetError::Busy(_)) if started.elapsed() < MAX_BUSY => {
                    steps.start(Step::Fleet, "waiting for another run that issues certificates in this directory");
                    time::sleep(BUSY_WAIT).await;
                }
                report => break report?,
            }
        };
        let FleetReport { devices, resumed: found, manifest, .. } = report;
        let outcome = if found == devices { Outcome::Unchanged } else { Outcome::Done };
        let detail = match devices - found {
            0 => format!("found the certificates of {} in {directory}", device_count(devices)),
            created if found == 0 => format!("created the certificates of {} in {directory}", device_count(created)),
            created => {
                format!(
                    "created the certificates of {} in {directory} and found those of {found}",
                    device_count(created)
                )
            }
        };
        steps.finish(Step::Fleet, outcome, detail);
        Ok(Some(FleetSummary {
            directory: self.request.directory.clone(),
            manifest: manifest.unwrap_or_default(),
            devices,
            found,
            registered: None,
            refused: None,
            registrations: None,
        }))
    }

    /// Issues the missing certificates in other threads, and reports progress.
    async fn write(
        &self,
        authority: &Arc<CertificateAuthority>,
        steps: &mut Steps<'_>,
    ) -> Result<Result<FleetReport, FleetError>, ProvisionError> {
        let done = Arc::new(AtomicU64::new(0));
        let stop = StopOnDrop(Arc::default());
        let mut work = self.spawn(authority, &done, &stop)?;
        let mut reports = time::interval(REPORT_INTERVAL);
        loop {
            tokio::select! {
                report = &mut work => {
                    return report.map_err(|panicked| ProvisionError::Devices(panicked.into()));
                }
                _ = reports.tick() => steps.progress(Step::Fleet, done.load(Relaxed), self.request.count),
            }
        }
    }

    /// Starts threads for the work, which keeps the processor busy.
    fn spawn(
        &self,
        authority: &Arc<CertificateAuthority>,
        done: &Arc<AtomicU64>,
        stop: &StopOnDrop,
    ) -> Result<tokio::task::JoinHandle<Result<FleetReport, FleetError>>, ProvisionError> {
        let devices = self.request.read()?;
        let pfx = self.pfx.map(|pfx| (Zeroizing::new(pfx.password.to_owned()), pfx.encryption));
        let (authority, directory) = (Arc::clone(authority), self.request.directory.clone());
        let options = *self.options;
        let (done, stop) = (Arc::clone(done), Arc::clone(&stop.0));
        Ok(tokio::task::spawn_blocking(move || {
            let pfx = pfx.as_ref().map(|(password, encryption)| PfxOptions { password, encryption: *encryption });
            let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
            let progress = |issued| {
                done.fetch_add(issued, Relaxed);
            };
            let control = FleetControl { stop: &stop, progress: &progress };
            Fleet::new(&authority, &options, pfx, threads)?.write_directory(
                devices,
                &directory,
                IfExists::Resume,
                control,
            )
        }))
    }
}

/// How long to wait for another run that issues certificates in the same directory. A million certificates take minutes.
const MAX_BUSY: Duration = Duration::from_secs(30 * 60);

/// How long to wait before the directory is tried again.
const BUSY_WAIT: Duration = Duration::from_millis(200);

/// The interval between progress reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Stops the threads when the future that waits for them is dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Fails if certificates that an earlier run issued are not valid yet. All of one run start at the same time, and a run
/// starts a new subdirectory, so one of each is read.
fn check_validity(directory: &Path, at: Timestamp) -> Result<(), ProvisionError> {
    let manifest = directory.join(MANIFEST);
    if !manifest.exists() {
        return Ok(());
    }
    let mut checked: Option<PathBuf> = None;
    for device in read_manifest(&manifest)? {
        let path = device?.fullchain;
        if checked.as_deref() == path.parent() {
            continue;
        }
        checked = path.parent().map(Path::to_owned);
        let certificate = files::read_certificates(&path)?.swap_remove(0);
        let not_before = certificate.not_before();
        if not_before > at {
            let subject = certificate.subject().to_string();
            return Err(ProvisionError::NotYetValid { path, subject, not_before, at });
        }
    }
    Ok(())
}
