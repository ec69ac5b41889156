//! The certificates of a fleet, as a step of a workflow.

use std::{
    fmt,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use serde::Serialize;
use tokio::time;
use zeroize::Zeroizing;

use super::{
    provision::{ProvisionError, Run},
    step::{Outcome, Step, devices_of},
};
use crate::certificate::{
    CertificateAuthority, DeviceId, IssueOptions,
    files::PfxOptions,
    fleet::{Fleet, FleetControl, FleetDevice, FleetError, FleetReport, SourceError},
};

/// The devices of a fleet, one after the other.
pub type FleetDevices = Box<dyn Iterator<Item = Result<FleetDevice, SourceError>> + Send>;

/// Many devices, whose certificates go to a folder.
#[derive(Clone)]
pub struct FleetRequest {
    /// The folder, as [`Fleet::write_folders`] fills it.
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

/// What came of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FleetSummary {
    /// The folder.
    pub folder: PathBuf,
    /// The list of what is in it.
    pub manifest: PathBuf,
    /// How many devices have their certificates.
    pub devices: u64,
    /// How many of them had them before.
    pub found: u64,
    /// How many were registered, where they were to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered: Option<u64>,
    /// How many of those did not get in. Where both together are fewer than the devices, the others were not tried, as
    /// they would have met the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
}

impl FleetRequest {
    /// Whether no device is among the single ones, and what is in the folder can be gone on with; an authority that has yet
    /// to be made has made nothing.
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
                Ok(fleet.check_folders(devices, &self.folder)?)
            }
            None if self.folder.join("0000").exists() => Err(FleetError::Exists(self.folder.clone()).into()),
            None => Ok(()),
        }
    }
}

/// Ends the work of other threads when it goes.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// How often what has been done is told.
const TOLD_EVERY: Duration = Duration::from_millis(100);

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
                format!("would make the certificates of {} in {folder}, but for those it has", devices_of(count));
            self.steps.finish(Step::Fleet, Outcome::Planned, detail);
            return Ok(None);
        };
        self.steps.start(Step::Fleet, &format!("making the certificates of {count} devices"));
        let done = Arc::new(AtomicU64::new(0));
        let stop = StopOnDrop(Arc::default());
        let mut work = self.spawn(request, authority, &done, &stop)?;
        let mut told = time::interval(TOLD_EVERY);
        let report = loop {
            tokio::select! {
                report = &mut work => break report,
                _ = told.tick() => self.steps.progress(Step::Fleet, done.load(Relaxed), count),
            }
        };
        let FleetReport { devices, resumed: found, manifest, .. } =
            report.map_err(|panicked| ProvisionError::Devices(panicked.into()))??;
        let outcome = if found == devices { Outcome::Unchanged } else { Outcome::Done };
        let detail = match devices - found {
            0 => format!("found the certificates of {} in {folder}", devices_of(devices)),
            made if found == 0 => format!("made the certificates of {} in {folder}", devices_of(made)),
            made => format!("made the certificates of {} in {folder}, and found those of {found}", devices_of(made)),
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
            Fleet::new(&authority, &options, pfx, threads)?.write_folders(devices, &folder, true, control)
        }))
    }
}
