//! Devices in the IoT Central application, as a step of a workflow.

use std::{collections::HashSet, num::NonZeroUsize, sync::Arc};

use futures_util::TryStreamExt;
use serde::Serialize;

use super::{
    bulk::{Bulk, ReportOrder, Signal},
    error::ProvisionError,
    fleet::FleetRequest,
    step::{Outcome, Step, Steps, device_count},
};
use crate::{
    central::{CentralDeviceId, Client, DeviceQuery, Error, NewDevice},
    certificate::{self, fleet::FleetDevice},
};

/// How many requests are under way at once. The rate limit sets how many are sent a second; this is enough to keep it busy
/// while answers take their time.
pub(super) const REQUESTS_UNDER_WAY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);

/// Up to so many devices are looked up one by one. For more, all devices of the application are listed, a hundred at a time.
pub(super) const MAX_LOOKUPS: usize = 100;

/// How many of the devices the application has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CreatedDevices {
    /// The number of devices that were created.
    pub created: u64,
    /// The number of devices that existed before. They were left unchanged.
    pub existing: u64,
}

/// The devices to create.
pub(super) struct DeviceCreation<'a> {
    pub(super) client: &'a Client,
    pub(super) devices: &'a [certificate::DeviceId],
    pub(super) fleet: Option<&'a FleetRequest>,
    pub(super) template: Option<&'a str>,
}

impl DeviceCreation<'_> {
    /// Creates the devices that the application does not have; nothing in a dry run. The first failure stops it.
    pub(super) async fn run(
        &self,
        dry_run: bool,
        steps: &mut Steps<'_>,
    ) -> Result<Option<CreatedDevices>, ProvisionError> {
        let of = self.devices.len() as u64 + self.fleet.map_or(0, |fleet| fleet.count);
        if dry_run {
            let detail = format!("would create those of {} that the application does not have", device_count(of));
            steps.finish(Step::Create, Outcome::Planned, detail);
            return Ok(None);
        }
        steps.start(Step::Create, "looking for the devices in the application");
        let known = if of > MAX_LOOKUPS as u64 { Some(Arc::new(list_ids(self.client).await?)) } else { None };
        let mut counts = CreatedDevices { created: 0, existing: 0 };
        let mut failure = None;
        let (client, template) = (self.client.clone(), self.template.map(str::to_owned));
        let work = move |device: FleetDevice| {
            let (client, known, template) = (client.clone(), known.clone(), template.clone());
            async move {
                let id = CentralDeviceId::from(device.id);
                let device = NewDevice { display_name: device.name, template, ..NewDevice::default() };
                let created = create(&client, known.as_deref(), &id, &device).await;
                let signal = if created.is_ok() { Signal::Answered } else { Signal::AffectsAll };
                (created.map_err(|error| (id, error)), signal)
            }
        };
        let devices = self.read()?.map(|device| device.map_err(ProvisionError::Devices));
        let bulk = Bulk { concurrency: REQUESTS_UNDER_WAY, order: ReportOrder::Ended, probes: false };
        let ended = bulk.run(devices, work, |created, _| {
            match created {
                Ok(true) => counts.created += 1,
                Ok(false) => counts.existing += 1,
                Err(failed) => {
                    failure.get_or_insert(failed);
                }
            }
            steps.progress(Step::Create, counts.created + counts.existing, of);
            Ok(())
        });
        ended.await?;
        let CreatedDevices { created, existing } = counts;
        if let Some((id, error)) = failure {
            let (id, error) = (id.to_string(), Box::new(error));
            return Err(ProvisionError::Create { created, existing, of, id, error });
        }
        let outcome = if created == 0 { Outcome::Unchanged } else { Outcome::Done };
        let detail = match (created, existing) {
            (0, existing) => format!("found {} in the application", device_count(existing)),
            (created, 0) => format!("created {} in the application", device_count(created)),
            (created, existing) => {
                format!("created {} in the application, and found {existing}", device_count(created))
            }
        };
        steps.finish(Step::Create, outcome, detail);
        Ok(Some(counts))
    }

    /// Reads the devices of the list and the fleet.
    fn read(
        &self,
    ) -> Result<impl Iterator<Item = Result<FleetDevice, certificate::fleet::SourceError>> + use<>, ProvisionError>
    {
        let device = |id: &certificate::DeviceId| FleetDevice { id: id.clone(), name: None, public_key: None };
        let list: Vec<_> = self.devices.iter().map(|id| Ok(device(id))).collect();
        let fleet = self.fleet.map(FleetRequest::read).transpose()?;
        Ok(list.into_iter().chain(fleet.into_iter().flatten()))
    }
}

/// Creates a device unless the application has it. Returns whether it was created.
async fn create(
    client: &Client,
    known: Option<&HashSet<String>>,
    id: &CentralDeviceId,
    device: &NewDevice,
) -> Result<bool, Error> {
    let devices = client.devices();
    let exists = match known {
        Some(known) => known.contains(&lower_case(id)),
        None => devices.find(id).await?.is_some(),
    };
    if !exists {
        devices.replace(id, device).await?;
    }
    Ok(!exists)
}

/// Returns the IDs of all devices of the application in lower case.
async fn list_ids(client: &Client) -> Result<HashSet<String>, Error> {
    client
        .devices()
        .list(&DeviceQuery::default())
        .into_stream()
        .map_ok(|device| lower_case(&device.id))
        .try_collect()
        .await
}

/// Returns an ID in lower case. The service may compare IDs without case, and a device that differs only in case must not
/// be replaced.
pub(super) fn lower_case(id: &CentralDeviceId) -> String {
    id.as_str().to_ascii_lowercase()
}
