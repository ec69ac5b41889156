//! The certificates of a fleet, as a step of a workflow.

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
    provision::{ProvisionError, Run},
    step::{Outcome, Step, devices_of},
};
use crate::certificate::{
    CertificateAuthority, DeviceId, IssueOptions, Timestamp,
    files::{self, PfxOptions},
    fleet::{
        Fleet, FleetControl, FleetDevice, FleetError, FleetReport, IfExists, MANIFEST, SourceError, read_manifest,
    },
};

/// The devices of a fleet, one after the other.
pub type FleetDevices = Box<dyn Iterator<Item = Result<FleetDevice, SourceError>> + Send>;

/// Many devices, whose certificates go to a directory.
#[derive(Clone)]
pub struct FleetRequest {
    /// The directory, as [`Fleet::write_directory`] fills it.
    pub folder: PathBuf,
    /// How many devices there are.
    pub count: u64,
    /// Gives the devices, the same ones in the same order each time it is called.
    pub devices: Arc<dyn Fn() -> Result<FleetDevices, SourceError> + Send + Sync>,
    /// Make PFX files too, where the request says how.
    pub pfx: bool,
}

impl fmt::Debug for FleetRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, count, pfx, .. } = self;
        f.debug_struct("FleetRequest")
            .field("folder", folder)
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
    #[serde(serialize_with = "super::lossy_path")]
    pub folder: PathBuf,
    /// The list of what is in it.
    #[serde(serialize_with = "super::lossy_path")]
    pub manifest: PathBuf,
    /// How many devices have their certificates.
    pub devices: u64,
    /// How many of them had theirs before.
    pub found: u64,
    /// How many were registered, if registration was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered: Option<u64>,
    /// How many registrations failed. If both together are fewer than the devices, the others were not tried, because the
    /// failure affects every device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
}

impl FleetRequest {
    /// Fails if a device is among the single ones too, or if what is in the directory cannot be resumed. An authority that
    /// has yet to be created has issued nothing.
    pub(super) fn check(
        &self,
        authority: Option<&CertificateAuthority>,
        options: &IssueOptions,
        pfx: Option<PfxOptions<'_>>,
        singles: &[DeviceId],
    ) -> Result<(), ProvisionError> {
        if !singles.is_empty() {
            for device in (self.devices)().map_err(ProvisionError::Devices)? {
                let id = device.map_err(ProvisionError::Devices)?.id;
                if let Some(single) = singles.iter().find(|single| single.as_str().eq_ignore_ascii_case(id.as_str())) {
                    return Err(ProvisionError::Twice { first: single.to_string(), second: id.to_string() });
                }
            }
        }
        match authority {
            Some(authority) => {
                let devices = (self.devices)().map_err(ProvisionError::Devices)?;
                let fleet = Fleet::new(authority, options, pfx.filter(|_| self.pfx), NonZeroUsize::MIN)?;
                match fleet.check_directory(devices, &self.folder) {
                    // Another run may have completed a subdirectory between two looks at it.
                    Err(FleetError::CannotResume { .. }) => {
                        fleet.check_directory((self.devices)().map_err(ProvisionError::Devices)?, &self.folder)?;
                    }
                    checked => checked?,
                }
                check_validity(&self.folder, options.issue_time())
            }
            None if self.folder.join("0000").exists() => Err(FleetError::Exists(self.folder.clone()).into()),
            None => Ok(()),
        }
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

/// How long to wait at most for another run that issues certificates in the same directory: it takes minutes for a million.
const MAX_BUSY: Duration = Duration::from_secs(30 * 60);

/// How often the directory is tried again.
const BUSY_WAIT: Duration = Duration::from_millis(200);

/// Ends the work of other threads when it goes.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// How often progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(100);

impl Run<'_, '_> {
    /// Makes the certificates that are missing; nothing in a dry run.
    pub(super) async fn fleet(
        &mut self,
        request: &FleetRequest,
        authority: Option<&Arc<CertificateAuthority>>,
    ) -> Result<Option<FleetSummary>, ProvisionError> {
        let (count, folder) = (request.count, request.folder.display());
        let Some(authority) = authority.filter(|_| !self.request.dry_run) else {
            let detail =
                format!("would create the certificates of {} in {folder}, except those it has", devices_of(count));
            self.steps.finish(Step::Fleet, Outcome::Planned, detail);
            return Ok(None);
        };
        let started = Instant::now();
        let report = loop {
            self.steps.start(Step::Fleet, &format!("issuing the certificates of {count} devices"));
            match self.write_fleet(request, authority).await? {
                Err(FleetError::Busy(_)) if started.elapsed() < MAX_BUSY => {
                    self.steps.start(Step::Fleet, "waiting for another run that issues certificates in this directory");
                    time::sleep(BUSY_WAIT).await;
                }
                report => break report?,
            }
        };
        let FleetReport { devices, resumed: found, manifest, .. } = report;
        let outcome = if found == devices { Outcome::Unchanged } else { Outcome::Done };
        let detail = match devices - found {
            0 => format!("found the certificates of {} in {folder}", devices_of(devices)),
            made if found == 0 => format!("created the certificates of {} in {folder}", devices_of(made)),
            made => format!("created the certificates of {} in {folder} and found those of {found}", devices_of(made)),
        };
        self.steps.finish(Step::Fleet, outcome, detail);
        let manifest = manifest.unwrap_or_default();
        Ok(Some(FleetSummary {
            folder: request.folder.clone(),
            manifest,
            devices,
            found,
            registered: None,
            refused: None,
        }))
    }

    /// Creates the certificates that are missing, and reports how many are done.
    async fn write_fleet(
        &mut self,
        request: &FleetRequest,
        authority: &Arc<CertificateAuthority>,
    ) -> Result<Result<FleetReport, FleetError>, ProvisionError> {
        let done = Arc::new(AtomicU64::new(0));
        let stop = StopOnDrop(Arc::default());
        let mut work = self.spawn(request, authority, &done, &stop)?;
        let mut reports = time::interval(REPORT_EVERY);
        loop {
            tokio::select! {
                report = &mut work => {
                    return report.map_err(|panicked| ProvisionError::Devices(panicked.into()));
                }
                _ = reports.tick() => self.steps.progress(Step::Fleet, done.load(Relaxed), request.count),
            }
        }
    }

    /// The work is the processor's, so it has threads of its own.
    fn spawn(
        &self,
        request: &FleetRequest,
        authority: &Arc<CertificateAuthority>,
        done: &Arc<AtomicU64>,
        stop: &StopOnDrop,
    ) -> Result<tokio::task::JoinHandle<Result<FleetReport, FleetError>>, ProvisionError> {
        let devices = (request.devices)().map_err(ProvisionError::Devices)?;
        let pfx = self.request.pfx.filter(|_| request.pfx);
        let pfx = pfx.map(|pfx| (Zeroizing::new(pfx.password.to_owned()), pfx.encryption));
        let (authority, folder, options) = (Arc::clone(authority), request.folder.clone(), self.fleet_options());
        let (done, stop) = (Arc::clone(done), Arc::clone(&stop.0));
        Ok(tokio::task::spawn_blocking(move || {
            let pfx = pfx.as_ref().map(|(password, encryption)| PfxOptions { password, encryption: *encryption });
            let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
            let progress = |made| {
                done.fetch_add(made, Relaxed);
            };
            let control = FleetControl { stop: &stop, progress: &progress };
            Fleet::new(&authority, &options, pfx, threads)?.write_directory(devices, &folder, IfExists::Resume, control)
        }))
    }
}
