//! Registration of provisioned devices, as a step of a workflow.

use std::{num::NonZeroUsize, path::Path};

use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    bulk::RunStop,
    error::ProvisionError,
    fleet::{FleetRequest, FleetSummary},
    manifest::{DeviceFiles, UnreadableCredential},
    record::ProvisionedDevice,
    register::{ManifestRegistration, RegisterError, RegistrationReport, register_manifest},
    registrar::Registrar,
    results::ResultsError,
    step::{Outcome, Step, Steps, WorkflowEvent, device_count},
};
use crate::{
    certificate::{DeviceId, files::Passwords},
    dps::device::{Assignment, Cause},
};

/// How many registrations of a fleet are under way at once.
const CONCURRENCY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// For how many devices of a fleet the cause is reported.
const MAX_REPORTED: usize = 20;

/// How many devices of a fleet are looked up at the service. In any order in which concurrent registrations end, those
/// that are reported are among them.
const MAX_LOOKUPS: u64 = (MAX_REPORTED + CONCURRENCY.get()) as u64;

/// A device that was not registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RefusedDevice {
    /// The device's ID.
    pub id: String,
    /// Why it was not registered.
    pub reason: String,
}

/// The devices to register.
pub(super) struct DeviceRegistration<'a> {
    pub(super) registrar: Registrar,
    pub(super) key_password: Option<&'a str>,
}

impl DeviceRegistration<'_> {
    /// Reports what a run would register.
    pub(super) fn report_plan(&self, devices: &[DeviceId], fleet: Option<&FleetRequest>, steps: &mut Steps<'_>) {
        let of = devices.len() as u64 + fleet.map_or(0, |fleet| fleet.count);
        let host = self.registrar.client().endpoint().host();
        let detail = format!("would register {} at {host}", device_count(of));
        steps.finish(Step::Register, Outcome::Planned, detail);
    }

    /// Registers the devices that have certificates. Returns those that were refused; of a fleet the first ones.
    pub(super) async fn run(
        &self,
        devices: &mut [ProvisionedDevice],
        fleet: Option<&mut FleetSummary>,
        steps: &mut Steps<'_>,
    ) -> Result<Vec<RefusedDevice>, ProvisionError> {
        let mut refused = Vec::new();
        for device in devices {
            steps.start(Step::Register, &format!("registering {}", device.id));
            let id = DeviceId::new(device.id.as_str()).map_err(|error| ProvisionError::Devices(error.into()))?;
            match self.register(&id, &device.record.fullchain, device.key_file()).await {
                Ok(assigned) => {
                    let detail = format!("{id} is assigned to {}", assigned.assigned_hub);
                    steps.finish(Step::Register, Outcome::Done, detail);
                    device.assigned_hub = Some(assigned.assigned_hub);
                }
                Err(Refusal { reason, affects_all }) => {
                    steps.finish(Step::Register, Outcome::Failed, format!("{id} was not registered"));
                    refused.push(RefusedDevice { id: id.to_string(), reason });
                    if affects_all {
                        return Ok(refused);
                    }
                }
            }
        }
        if let Some(fleet) = fleet {
            self.register_fleet(fleet, &mut refused, steps).await?;
        }
        Ok(refused)
    }

    async fn register(&self, id: &DeviceId, fullchain: &Path, key: &Path) -> Result<Assignment, Refusal> {
        let passwords = Passwords { key: self.key_password, pfx: None };
        let files = DeviceFiles { certificate: Some(fullchain.to_owned()), key: Some(key.to_owned()), pfx: None };
        let unreadable = |error: UnreadableCredential| Refusal { reason: error.to_string(), affects_all: false };
        let credential = files.read(passwords).map_err(unreadable)?.into();
        self.registrar.register(id, &credential).await.map_err(|unregistered| Refusal {
            reason: unregistered.to_string(),
            affects_all: unregistered.diagnosis.causes.iter().any(Cause::affects_all_devices),
        })
    }

    async fn register_fleet(
        &self,
        fleet: &mut FleetSummary,
        refused: &mut Vec<RefusedDevice>,
        steps: &mut Steps<'_>,
    ) -> Result<(), ProvisionError> {
        steps.start(Step::Register, &format!("registering {}", device_count(fleet.devices)));
        let open = || {
            let request = ManifestRegistration::open(&fleet.manifest).map_err(RegisterError::from)?;
            let key_password = self.key_password.map(|password| Zeroizing::new(password.to_owned()));
            Ok::<_, RegisterError>(request.concurrency(CONCURRENCY).key_password(key_password))
        };
        let registrar = self.registrar.clone().max_lookups(MAX_LOOKUPS);
        let before = refused.len();
        let mut show = |event: WorkflowEvent<'_>| {
            if let WorkflowEvent::RowFailed(failure) = &event
                && refused.len() - before < MAX_REPORTED
            {
                refused.push(RefusedDevice { id: failure.id.clone(), reason: failure.message.clone() });
            }
            (steps.observer())(event);
        };
        let mut is_recorded = true;
        let report = match register_manifest(&registrar, open()?, &mut show).await {
            // Another run registers the same fleet and records it. Registering is idempotent, so both can.
            Err(RegisterError::Results(ResultsError::Locked { .. })) => {
                is_recorded = false;
                let scratch =
                    tempfile::tempdir().map_err(|error| ResultsError::Write { path: std::env::temp_dir(), error });
                let scratch = scratch.map_err(RegisterError::from)?;
                register_manifest(&registrar, open()?.results(scratch.path().join("results.csv")), &mut show).await?
            }
            report => report?,
        };
        (fleet.registered, fleet.refused) = (Some(report.assigned + report.earlier), Some(report.failed));
        let (outcome, detail) = summary(&report);
        fleet.registrations = is_recorded.then_some(report.results);
        steps.finish(Step::Register, outcome, detail);
        match report.stopped {
            Some(RunStop::Results(error)) => Err(ProvisionError::Register(error.into())),
            _ => Ok(()),
        }
    }
}

/// Why a device of the list was not registered.
struct Refusal {
    reason: String,
    affects_all: bool,
}

fn summary(report: &RegistrationReport) -> (Outcome, String) {
    let RegistrationReport { assigned, earlier, failed, remaining, stopped, .. } = report;
    let mut parts = vec![format!("registered {}", device_count(*assigned))];
    if *earlier > 0 {
        parts.push(format!("{earlier} were registered before"));
    }
    if *failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    if let Some(reason) = stopped {
        parts.push(format!("{remaining} were not tried: {reason}"));
    }
    let outcome = match (failed, stopped, assigned) {
        (0, None, 0) => Outcome::Unchanged,
        (0, None, _) => Outcome::Done,
        _ => Outcome::Failed,
    };
    (outcome, parts.join(", "))
}
