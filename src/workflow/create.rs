//! Devices at the service, as a step of a workflow.

use std::{collections::HashSet, num::NonZeroUsize, sync::Arc};

use futures_util::TryStreamExt;
use serde::Serialize;

use super::{
    bulk::{Bulk, ReportOrder, Signal},
    error::{CreateError, ProvisionError},
    fleet::FleetRequest,
    step::{Outcome, Step, Steps, device_count},
};
use crate::{
    central::{CentralDeviceId, Client, DeviceQuery, NewDevice},
    certificate::{self, fleet::FleetDevice},
    transport::Error,
};

/// How many requests are under way at once. The rate limit sets how many are sent a second; this is enough to keep it busy
/// while answers take their time.
pub(super) const REQUESTS_UNDER_WAY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);

/// Up to so many devices are looked up one by one. For more, all devices of the service are listed, a hundred at a time.
pub(super) const MAX_LOOKUPS: usize = 100;

/// How many of the devices the service has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CreatedDevices {
    /// The number of devices that were created.
    pub created: u64,
    /// The number of devices that existed before, at DPS with individual enrollments for their certificates. They were left
    /// unchanged.
    pub existing: u64,
}

/// The outcome of one or more devices.
#[derive(Debug, Default)]
pub(super) struct Creation {
    pub(super) counts: CreatedDevices,
    /// The first device that failed, and why.
    pub(super) failure: Option<(String, CreateError)>,
}

/// The devices to create.
pub(super) struct DeviceCreation<'a> {
    pub(super) devices: &'a [certificate::DeviceId],
    pub(super) fleet: Option<&'a FleetRequest>,
    /// Where devices are, as in messages.
    pub(super) place: &'static str,
}

impl DeviceCreation<'_> {
    pub(super) fn count(&self) -> u64 {
        self.devices.len() as u64 + self.fleet.map_or(0, |fleet| fleet.count)
    }

    /// Reports what a run would create.
    pub(super) fn report_plan(&self, steps: &mut Steps<'_>) {
        let detail = format!("would create those of {} that {} does not have", device_count(self.count()), self.place);
        steps.finish(Step::Create, Outcome::Planned, detail);
    }

    /// Creates the devices that the application does not have.
    pub(super) async fn run_central(
        &self,
        client: &Client,
        template: Option<&str>,
        steps: &mut Steps<'_>,
    ) -> Result<CreatedDevices, ProvisionError> {
        steps.start(Step::Create, "looking for the devices in the application");
        let is_listed = self.count() > MAX_LOOKUPS as u64;
        let known = if is_listed { Some(Arc::new(list_ids(client).await?)) } else { None };
        let (client, template) = (client.clone(), template.map(str::to_owned));
        let work = move |device: FleetDevice| {
            let (client, known, template) = (client.clone(), known.clone(), template.clone());
            async move {
                let id = CentralDeviceId::from(device.id);
                let device = NewDevice { display_name: device.name, template, ..NewDevice::default() };
                match create(&client, known.as_deref(), &id, &device).await {
                    Ok(is_new) => {
                        let counts = CreatedDevices { created: u64::from(is_new), existing: u64::from(!is_new) };
                        Creation { counts, failure: None }
                    }
                    Err(error) => Creation { failure: Some((id.to_string(), error.into())), ..Creation::default() },
                }
            }
        };
        let devices = self.read()?.map(|device| device.map_err(ProvisionError::Devices));
        self.run(devices, work, steps).await
    }

    /// Creates devices with `work`. The first failure stops it.
    pub(super) async fn run<I, F>(
        &self,
        items: impl Iterator<Item = Result<I, ProvisionError>> + Send,
        work: impl Fn(I) -> F + Send + Sync,
        steps: &mut Steps<'_>,
    ) -> Result<CreatedDevices, ProvisionError>
    where
        F: Future<Output = Creation> + Send + 'static,
    {
        let of = self.count();
        let mut counts = CreatedDevices::default();
        let mut failure = None;
        let work = |item| {
            let creation = work(item);
            async move {
                let creation = creation.await;
                let signal = if creation.failure.is_none() { Signal::Answered } else { Signal::AffectsAll };
                (creation, signal)
            }
        };
        let bulk = Bulk { concurrency: REQUESTS_UNDER_WAY, order: ReportOrder::Ended, probes: false };
        let ended = bulk.run(items, work, |creation: Creation, _| {
            counts.created += creation.counts.created;
            counts.existing += creation.counts.existing;
            if let Some(failed) = creation.failure {
                failure.get_or_insert(failed);
            }
            steps.progress(Step::Create, counts.created + counts.existing, of);
            Ok(())
        });
        ended.await?;
        let CreatedDevices { created, existing } = counts;
        if let Some((id, error)) = failure {
            return Err(ProvisionError::Create { created, existing, of, id, error: Box::new(error) });
        }
        let outcome = if created == 0 { Outcome::Unchanged } else { Outcome::Done };
        let place = self.place;
        let detail = match (created, existing) {
            (0, existing) => format!("found {} in {place}", device_count(existing)),
            (created, 0) => format!("created {} in {place}", device_count(created)),
            (created, existing) => format!("created {} in {place}, and found {existing}", device_count(created)),
        };
        steps.finish(Step::Create, outcome, detail);
        Ok(counts)
    }

    /// Reads the devices of the list and the fleet.
    pub(super) fn read(
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
