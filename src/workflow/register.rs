//! Registration of the devices, as a step of a workflow: each does what it would do itself.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use serde::Serialize;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::{
    enrollment_state::{read_device_state, read_enrollment_state},
    fleet::FleetSummary,
    provision::{ProvisionError, ProvisionedDevice, Run},
    step::{Outcome, Step, devices_of},
};
use crate::{
    central::Client,
    certificate::{
        DeviceId, files,
        fleet::{FleetError, ManifestDevice, read_manifest},
    },
    dps::device::{
        Assignment, Attempt, Cause, Credential, DeviceCertificate, DiagnosedError, EnrollmentState, RegistrationClient,
        RegistrationError, diagnose,
    },
};

/// How many registrations are under way at once. Each has a connection of its own, and the client a rate.
const IN_FLIGHT: usize = 16;

/// For so many devices of a fleet the reason of a refusal is reported.
const REPORTED: u64 = 20;

/// About so many refused devices of a fleet the application is asked. Those that are reported are among them, in
/// any order in which concurrent registrations end.
const ASKED: u64 = REPORTED + IN_FLIGHT as u64;

/// After so many registrations in a row that the service or the way there failed, no more are started.
const MAX_FAILURES: usize = 64;

/// A device that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RefusedDevice {
    /// Its ID.
    pub id: String,
    /// Why, if that could be found out.
    pub reason: String,
}

/// Why a device was not registered.
struct Refusal {
    device: RefusedDevice,
    reach: Reach,
}

/// Which devices a failure affects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// This one.
    Device,
    /// Perhaps every one: the service failed, or the way there.
    Service,
    /// Every one.
    All,
}

/// Registers devices, and finds out why one was refused. Clones share everything.
#[derive(Clone)]
struct Registrar {
    central: Client,
    client: RegistrationClient,
    password: Option<Arc<Zeroizing<String>>>,
    /// The application as it was when the first device was refused; none if it did not answer.
    application: Arc<OnceCell<Option<EnrollmentState>>>,
    /// How many devices of the fleet the application was asked about.
    asked: Arc<AtomicU64>,
}

impl Run<'_, '_> {
    /// Registers the devices that have their certificates; nothing in a dry run. Returns those that were refused.
    pub(super) async fn register(
        &mut self,
        client: &RegistrationClient,
        devices: &mut [ProvisionedDevice],
        fleet: Option<&mut FleetSummary>,
    ) -> Result<Vec<RefusedDevice>, ProvisionError> {
        if self.request.dry_run {
            let of = self.request.devices.len() as u64 + self.request.fleet.as_ref().map_or(0, |fleet| fleet.count);
            let detail = format!("would register {} at {}", devices_of(of), client.endpoint().host());
            self.steps.finish(Step::Register, Outcome::Planned, detail);
            return Ok(Vec::new());
        }
        let registrar = Registrar {
            central: self.client.clone(),
            client: client.clone(),
            password: self.request.key_password.map(str::to_owned).map(Zeroizing::new).map(Arc::new),
            application: Arc::default(),
            asked: Arc::default(),
        };
        let mut refused = Vec::new();
        for device in devices {
            self.steps.start(Step::Register, &format!("registering {}", device.id));
            let id = DeviceId::new(device.id.as_str()).map_err(|error| ProvisionError::Devices(error.into()))?;
            let (chain, key) = (&device.record.fullchain, &device.record.private_key);
            match registrar.register(&id, (chain, key), None).await {
                Ok(assigned) => {
                    let detail = format!("{id} is assigned to {}", assigned.assigned_hub);
                    self.steps.finish(Step::Register, Outcome::Done, detail);
                    device.assigned_hub = Some(assigned.assigned_hub);
                }
                Err(refusal) => {
                    self.steps.finish(Step::Register, Outcome::Failed, format!("{id} was not registered"));
                    refused.push(refusal.device);
                    if refusal.reach == Reach::All {
                        return Ok(refused);
                    }
                }
            }
        }
        if let Some(fleet) = fleet {
            self.register_fleet(&registrar, fleet, &mut refused).await?;
        }
        Ok(refused)
    }

    async fn register_fleet(
        &mut self,
        registrar: &Registrar,
        fleet: &mut FleetSummary,
        reported: &mut Vec<RefusedDevice>,
    ) -> Result<(), ProvisionError> {
        self.steps.start(Step::Register, &format!("registering {}", devices_of(fleet.devices)));
        let (mut registered, mut refused) = (0, 0);
        let mut failures_in_a_row = 0;
        let mut registering = registering(registrar, read_manifest(&fleet.manifest)?);
        while let Some(done) = registering.next().await {
            match done? {
                Ok(_) => (registered, failures_in_a_row) = (registered + 1, 0),
                Err(Refusal { device, reach }) => {
                    refused += 1;
                    if refused <= REPORTED {
                        reported.push(device);
                    }
                    failures_in_a_row = if reach == Reach::Service { failures_in_a_row + 1 } else { 0 };
                    if reach == Reach::All || failures_in_a_row >= MAX_FAILURES {
                        break;
                    }
                }
            }
            self.steps.progress(Step::Register, registered + refused, fleet.devices);
        }
        (fleet.registered, fleet.refused) = (Some(registered), Some(refused));
        let untried = fleet.devices.saturating_sub(registered + refused);
        let (outcome, detail) = match (refused, untried) {
            (0, 0) => (Outcome::Done, format!("registered {}", devices_of(registered))),
            (refused, 0) => (Outcome::Failed, format!("registered {}, {refused} failed", devices_of(registered))),
            (refused, untried) => (
                Outcome::Failed,
                format!(
                    "registered {}, {refused} failed, and {untried} were not tried: the failure affects every device",
                    devices_of(registered)
                ),
            ),
        };
        self.steps.finish(Step::Register, outcome, detail);
        Ok(())
    }
}

/// Registers the devices of a manifest, many at once. It owns what it needs, as what creates devices does.
fn registering(
    registrar: &Registrar,
    rows: impl Iterator<Item = Result<ManifestDevice, FleetError>> + Send + 'static,
) -> BoxStream<'static, Result<Result<Assignment, Refusal>, FleetError>> {
    let registrar = registrar.clone();
    let registered = stream::iter(rows).map(move |row| {
        let registrar = registrar.clone();
        async move {
            let ManifestDevice { id, fullchain, private_key, .. } = row?;
            Ok(registrar.register(&id, (&fullchain, &private_key), Some(ASKED)).await)
        }
    });
    Box::pin(registered.buffer_unordered(IN_FLIGHT))
}

impl Registrar {
    /// Registers a device; if it fails, finds out why. The application is asked about `most` devices in all, if given.
    async fn register(
        &self,
        id: &DeviceId,
        (fullchain, key): (&Path, &Path),
        most: Option<u64>,
    ) -> Result<Assignment, Refusal> {
        let refused = |reason: String, reach| Refusal { device: RefusedDevice { id: id.to_string(), reason }, reach };
        let credential = credential(fullchain, key, self.password.as_ref().map(|password| password.as_str()))
            .map_err(|error| refused(error.to_string(), Reach::Device))?;
        match self.client.register(id, &credential, None).await {
            Ok(assigned) => Ok(assigned),
            Err(error) => {
                let is_service_failure = error.is_service_failure();
                let unregistered = self.explain(id, &credential, error, most).await;
                let reach = if unregistered.diagnosis.causes.iter().any(Cause::affects_all_devices) {
                    Reach::All
                } else if is_service_failure {
                    Reach::Service
                } else {
                    Reach::Device
                };
                Err(refused(unregistered.to_string(), reach))
            }
        }
    }

    /// Finds out why a device was not registered. The application is read once, and only if it can tell the cause.
    async fn explain(
        &self,
        id: &DeviceId,
        credential: &Credential,
        error: RegistrationError,
        most: Option<u64>,
    ) -> DiagnosedError {
        let attempt = Attempt { id, id_scope: self.client.id_scope(), credential, unsent: &[] };
        let mut diagnosis = diagnose(&attempt, &error, None);
        if diagnosis.needs_application
            && let Some(application) = self.application().await
        {
            if most.is_none_or(|most| self.asked.fetch_add(1, Relaxed) < most) {
                if let Ok(application) = read_device_state(&self.central, application, id).await {
                    diagnosis = diagnose(&attempt, &error, Some(&application));
                }
            } else {
                // This one is not reported. What matters is whether it affects every device, as a wrong ID scope does.
                diagnosis = diagnose(&attempt, &error, Some(application));
            }
        }
        DiagnosedError::new(error, diagnosis)
    }

    async fn application(&self) -> Option<&EnrollmentState> {
        self.application.get_or_init(|| async { read_enrollment_state(&self.central).await.ok() }).await.as_ref()
    }
}

fn credential(fullchain: &Path, key: &Path, password: Option<&str>) -> Result<Credential, ProvisionError> {
    let certificates = files::read_certificates(fullchain)?;
    let key = files::read_key(key, password)?;
    Ok(DeviceCertificate::new(certificates, &key)?.into())
}
