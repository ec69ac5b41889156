//! Devices in the application, as a step of a workflow.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use serde::Serialize;

use super::{
    fleet::FleetDevices,
    provision::{ProvisionError, ProvisionRequest, Run},
    step::{Outcome, Step, devices_of},
};
use crate::{
    central::{CentralDeviceId, Client, DeviceQuery, Devices, Error, NewDevice},
    certificate::{
        self,
        fleet::{FleetDevice, SourceError},
    },
};

/// How many requests are under way at once. The rate limit decides how many a second; this only has to be enough to keep
/// it busy while answers take their time.
const IN_FLIGHT: usize = 64;

/// Of so few devices each is asked for; for more, all of the application are listed, a hundred at a time.
const ASKED_SINGLY: u64 = 100;

/// What the application has of the devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CreatedDevices {
    /// How many were created.
    pub created: u64,
    /// How many were there before, and were left as they were.
    pub existing: u64,
}

impl Run<'_, '_> {
    /// Creates the devices that the application does not have; nothing in a dry run.
    pub(super) async fn create_devices(&mut self) -> Result<Option<CreatedDevices>, ProvisionError> {
        let request = self.request;
        let of = request.devices.len() as u64 + request.fleet.as_ref().map_or(0, |fleet| fleet.count);
        if request.dry_run {
            let detail = format!("would create those of {} that the application does not have", devices_of(of));
            self.steps.finish(Step::Create, Outcome::Planned, detail);
            return Ok(None);
        }
        self.steps.start(Step::Create, "looking for the devices in the application");
        let known = if of > ASKED_SINGLY { Some(Arc::new(known(self.client).await?)) } else { None };
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let wanted = Box::new(wanted(request)?.take_while(move |_| !until.load(Relaxed)));
        let mut creating = creating(self.client, wanted, known, request.template.clone());
        let mut counts = CreatedDevices { created: 0, existing: 0 };
        let mut failed = None;
        while let Some(done) = creating.next().await {
            match done {
                Ok(Ok(true)) => counts.created += 1,
                Ok(Ok(false)) => counts.existing += 1,
                // Those that are under way come to their end, so that the count is true.
                other => {
                    stop.store(true, Relaxed);
                    failed.get_or_insert(other);
                }
            }
            self.steps.progress(Step::Create, counts.created + counts.existing, of);
        }
        let CreatedDevices { created, existing } = counts;
        match failed {
            Some(Err(error)) => return Err(ProvisionError::Devices(error)),
            Some(Ok(Err((id, error)))) => {
                let (id, error) = (id.to_string(), Box::new(error));
                return Err(ProvisionError::Create { created, existing, of, id, error });
            }
            _ => {}
        }
        let outcome = if created == 0 { Outcome::Unchanged } else { Outcome::Done };
        let detail = match (created, existing) {
            (0, existing) => format!("found {} in the application", devices_of(existing)),
            (created, 0) => format!("created {} in the application", devices_of(created)),
            (created, existing) => format!("created {} in the application, and found {existing}", devices_of(created)),
        };
        self.steps.finish(Step::Create, outcome, detail);
        Ok(Some(counts))
    }
}

/// A device that was created, or was there; or which one the service refused.
type Created = Result<bool, (CentralDeviceId, Error)>;

/// Creates devices, many at once. It owns what it needs: a stream that borrows would keep the futures that wait for it from
/// being sent between threads.
fn creating(
    client: &Client,
    devices: FleetDevices,
    known: Option<Arc<HashSet<String>>>,
    template: Option<String>,
) -> BoxStream<'static, Result<Created, SourceError>> {
    let client = client.clone();
    let created = stream::iter(devices).map(move |device| {
        let (devices, known, template) = (client.devices(), known.clone(), template.clone());
        async move {
            let device = device?;
            let id = CentralDeviceId::from(device.id);
            let device = NewDevice { display_name: device.name, template, ..NewDevice::default() };
            let created = create(&devices, known.as_deref(), &id, &device).await;
            Ok(created.map_err(|error| (id, error)))
        }
    });
    Box::pin(created.buffer_unordered(IN_FLIGHT))
}

/// Creates a device, if the application does not have it; whether it was created.
async fn create(
    devices: &Devices,
    known: Option<&HashSet<String>>,
    id: &CentralDeviceId,
    device: &NewDevice,
) -> Result<bool, Error> {
    let exists = match known {
        Some(known) => known.contains(&id.as_str().to_ascii_lowercase()),
        None => devices.find(id).await?.is_some(),
    };
    if !exists {
        devices.replace(id, device).await?;
    }
    Ok(!exists)
}

/// The ids of the application's devices in lower case: the service may compare ids without regard to case, and a device
/// must not be replaced for that.
async fn known(client: &Client) -> Result<HashSet<String>, ProvisionError> {
    let mut listed = client.devices().list(&DeviceQuery::default());
    let mut known = HashSet::new();
    while let Some(device) = listed.next().await {
        known.insert(device?.id.as_str().to_ascii_lowercase());
    }
    Ok(known)
}

/// The devices that are asked for.
fn wanted(request: &ProvisionRequest<'_>) -> Result<FleetDevices, ProvisionError> {
    let single = |id: &certificate::DeviceId| FleetDevice { id: id.clone(), name: None, public_key: None };
    let singles: Vec<_> = request.devices.iter().map(|id| Ok(single(id))).collect();
    let fleet = request.fleet.as_ref().map(|fleet| (fleet.devices)()).transpose().map_err(ProvisionError::Devices)?;
    Ok(Box::new(singles.into_iter().chain(fleet.into_iter().flatten())))
}
