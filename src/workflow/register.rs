//! Registration of the devices, as a step of a workflow: each does what it would do itself.

use std::{path::Path, sync::Arc};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
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
    registration::{
        Application, Assignment, Attempt, Cause, Credential, DeviceCertificate, RegistrationClient, RegistrationError,
        Unregistered, diagnose,
    },
};

/// How many registrations are under way at once. Each has a connection of its own, and the client a rate.
const IN_FLIGHT: usize = 16;

/// Of so many devices of a fleet it is told why they did not get in.
const TOLD: u64 = 20;

/// A device that did not get in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RefusedDevice {
    /// Its id.
    pub id: String,
    /// Why, as far as that was found out.
    pub reason: String,
}

/// Why a device did not get in, and whether every other would meet the same.
struct Refusal {
    device: RefusedDevice,
    concerns_all: bool,
}

impl Run<'_, '_> {
    /// Registers the devices that have their certificates; nothing in a dry run. Those that did not get in.
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
        let password = self.request.key_password.map(str::to_owned).map(Zeroizing::new).map(Arc::new);
        let mut refused = Vec::new();
        for device in devices {
            self.steps.start(Step::Register, &format!("registering {}", device.id));
            let id = DeviceId::new(device.id.as_str()).map_err(|error| ProvisionError::Devices(error.into()))?;
            let (chain, key) = (&device.record.fullchain, &device.record.private_key);
            match register(self.client, client, &id, (chain, key), password.as_deref()).await {
                Ok(assigned) => {
                    let detail = format!("{id} is assigned to {}", assigned.assigned_hub);
                    self.steps.finish(Step::Register, Outcome::Done, detail);
                    device.assigned_hub = Some(assigned.assigned_hub);
                }
                Err(refusal) => {
                    self.steps.finish(Step::Register, Outcome::Failed, format!("{id} did not get in"));
                    refused.push(refusal.device);
                    if refusal.concerns_all {
                        return Ok(refused);
                    }
                }
            }
        }
        if let Some(fleet) = fleet {
            self.register_fleet(client, fleet, password, &mut refused).await?;
        }
        Ok(refused)
    }

    async fn register_fleet(
        &mut self,
        client: &RegistrationClient,
        fleet: &mut FleetSummary,
        password: Option<Arc<Zeroizing<String>>>,
        told: &mut Vec<RefusedDevice>,
    ) -> Result<(), ProvisionError> {
        self.steps.start(Step::Register, &format!("registering {} devices", fleet.devices));
        let (mut registered, mut refused) = (0, 0);
        let mut registering = registering(self.client, client, read_manifest(&fleet.manifest)?, password);
        while let Some(done) = registering.next().await {
            match done? {
                Ok(_) => registered += 1,
                Err(Refusal { device, concerns_all }) => {
                    refused += 1;
                    if refused <= TOLD {
                        told.push(device);
                    }
                    if concerns_all {
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
            (refused, 0) => (Outcome::Failed, format!("registered {registered} devices; {refused} did not get in")),
            (refused, untried) => (
                Outcome::Failed,
                format!(
                    "registered {registered} devices; {refused} did not get in, and {untried} were not tried, as they \
                     would meet the same"
                ),
            ),
        };
        self.steps.finish(Step::Register, outcome, detail);
        Ok(())
    }
}

/// Registers the devices of a manifest, many at once. It owns what it needs, as what creates devices does.
fn registering(
    central: &Client,
    client: &RegistrationClient,
    rows: impl Iterator<Item = Result<ManifestDevice, FleetError>> + Send + 'static,
    password: Option<Arc<Zeroizing<String>>>,
) -> BoxStream<'static, Result<Result<Assignment, Refusal>, FleetError>> {
    let (central, client) = (central.clone(), client.clone());
    let registered = stream::iter(rows).map(move |row| {
        let (central, client, password) = (central.clone(), client.clone(), password.clone());
        async move {
            let ManifestDevice { id, fullchain, private_key, .. } = row?;
            Ok(register(&central, &client, &id, (&fullchain, &private_key), password.as_deref()).await)
        }
    });
    Box::pin(registered.buffer_unordered(IN_FLIGHT))
}

async fn register(
    central: &Client,
    client: &RegistrationClient,
    id: &DeviceId,
    (fullchain, key): (&Path, &Path),
    password: Option<&Zeroizing<String>>,
) -> Result<Assignment, Refusal> {
    let refused =
        |reason: String, concerns_all| Refusal { device: RefusedDevice { id: id.to_string(), reason }, concerns_all };
    let credential = credential(fullchain, key, password.map(|password| password.as_str()))
        .map_err(|error| refused(error.to_string(), false))?;
    match client.register(id, &credential, None).await {
        Ok(assigned) => Ok(assigned),
        Err(error) => {
            let unregistered = explain(central, client, id, &credential, error).await;
            let concerns_all = unregistered.diagnosis.causes.iter().any(Cause::concerns_all_devices);
            Err(refused(unregistered.to_string(), concerns_all))
        }
    }
}

fn credential(fullchain: &Path, key: &Path, password: Option<&str>) -> Result<Credential, ProvisionError> {
    let certificates = files::read_certificates(fullchain)?;
    let key = files::read_key(key, password)?;
    Ok(DeviceCertificate::new(certificates, &key)?.into())
}

/// Finds out why a device was not registered. The application is asked, as far as it answers.
async fn explain(
    central: &Client,
    client: &RegistrationClient,
    id: &DeviceId,
    credential: &Credential,
    error: RegistrationError,
) -> Unregistered {
    let attempt = Attempt { id, id_scope: client.id_scope(), credential, unsent: &[] };
    let application = async { Application::read(central).await?.of_device(central, id).await };
    let diagnosis = diagnose(&attempt, &error, application.await.ok().as_ref());
    Unregistered::new(error, diagnosis)
}
