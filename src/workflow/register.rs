//! Registration of the devices, as a step of a workflow: each does what it would do itself.

use std::{path::Path, sync::Arc};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use zeroize::Zeroizing;

use super::{
    fleet::FleetSummary,
    provision::{ProvisionError, ProvisionedDevice, Run},
    step::{Outcome, Step},
};
use crate::{
    central::Client,
    certificate::{
        DeviceId, files,
        fleet::{ManifestDevice, read_manifest},
    },
    registration::{
        Application, Assignment, Attempt, Credential, DeviceCertificate, RegistrationClient, RegistrationError,
        Unregistered, diagnose,
    },
};

/// How many registrations are under way at once. Each has a connection of its own, and the client a rate.
const IN_FLIGHT: usize = 16;

impl Run<'_, '_> {
    /// Registers the devices that have their certificates; nothing in a dry run.
    pub(super) async fn register(
        &mut self,
        client: &RegistrationClient,
        devices: &mut [ProvisionedDevice],
        fleet: Option<&mut FleetSummary>,
    ) -> Result<(), ProvisionError> {
        if self.request.dry_run {
            let of = self.request.devices.len() as u64 + self.request.fleet.as_ref().map_or(0, |fleet| fleet.count);
            let detail = format!("would register {of} devices at {}", client.endpoint().host());
            self.steps.finish(Step::Register, Outcome::Planned, detail);
            return Ok(());
        }
        let password = self.request.key_password.map(str::to_owned).map(Zeroizing::new).map(Arc::new);
        for device in devices {
            self.steps.start(Step::Register, &format!("registering {}", device.id));
            let id = DeviceId::new(device.id.as_str()).map_err(|error| ProvisionError::Devices(error.into()))?;
            let password = password.as_ref().map(|password| password.as_str());
            let credential = credential(&device.record.fullchain, &device.record.private_key, password)?;
            let assigned = match client.register(&id, &credential, None).await {
                Ok(assigned) => assigned,
                Err(error) => return Err(unregistered(self.client, client, &id, &credential, error).await),
            };
            let detail = format!("{id} is assigned to {}", assigned.assigned_hub);
            self.steps.finish(Step::Register, Outcome::Done, detail);
            device.assigned_hub = Some(assigned.assigned_hub);
        }
        let Some(fleet) = fleet else { return Ok(()) };
        self.steps.start(Step::Register, &format!("registering {} devices", fleet.devices));
        let rows = read_manifest(&fleet.manifest)?;
        let mut registering = registering(self.client, client, rows, password);
        let mut registered = 0;
        while let Some(done) = registering.next().await {
            done.map_err(|error| ProvisionError::Registered { registered, of: fleet.devices, error: Box::new(error) })?;
            registered += 1;
            self.steps.progress(Step::Register, registered, fleet.devices);
        }
        fleet.registered = Some(registered);
        self.steps.finish(Step::Register, Outcome::Done, format!("registered {registered} devices"));
        Ok(())
    }
}

/// Registers the devices of a manifest, many at once. It owns what it needs, as what creates devices does.
fn registering(
    central: &Client,
    client: &RegistrationClient,
    rows: impl Iterator<Item = Result<ManifestDevice, crate::certificate::fleet::FleetError>> + Send + 'static,
    password: Option<Arc<Zeroizing<String>>>,
) -> BoxStream<'static, Result<Assignment, ProvisionError>> {
    let (central, client) = (central.clone(), client.clone());
    let registered = stream::iter(rows).map(move |row| {
        let (central, client, password) = (central.clone(), client.clone(), password.clone());
        async move {
            let device = row?;
            let password = password.as_ref().map(|password| password.as_str());
            let credential = credential(&device.fullchain, &device.private_key, password)?;
            match client.register(&device.id, &credential, None).await {
                Ok(assigned) => Ok(assigned),
                Err(error) => Err(unregistered(&central, &client, &device.id, &credential, error).await),
            }
        }
    });
    Box::pin(registered.buffer_unordered(IN_FLIGHT))
}

fn credential(fullchain: &Path, key: &Path, password: Option<&str>) -> Result<Credential, ProvisionError> {
    let certificates = files::read_certificates(fullchain)?;
    let key = files::read_key(key, password)?;
    Ok(DeviceCertificate::new(certificates, &key)?.into())
}

/// Finds out why a device was not registered. The application is asked, as far as it answers.
async fn unregistered(
    central: &Client,
    client: &RegistrationClient,
    id: &DeviceId,
    credential: &Credential,
    error: RegistrationError,
) -> ProvisionError {
    let attempt = Attempt { id, id_scope: client.id_scope(), credential, unsent: &[] };
    let application = async { Application::read(central).await?.of_device(central, id).await };
    let diagnosis = diagnose(&attempt, &error, application.await.ok().as_ref());
    Unregistered::new(error, diagnosis).into()
}
