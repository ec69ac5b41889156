//! Individual enrollments of devices at the Device Provisioning Service, as a step of a workflow.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use super::{
    create::{CreatedDevices, Creation, DeviceCreation, MAX_LOOKUPS, REQUESTS_UNDER_WAY},
    error::ProvisionError,
    record::ProvisionedDevice,
    step::{Step, Steps},
};
use crate::{
    certificate::{
        DeviceId,
        files::{self, FileError},
        fleet::read_manifest,
    },
    dps::service::{
        Client, IndividualEnrollment, IndividualEnrollments, MAX_BULK, NewAttestation, NewCertificates,
        NewIndividualEnrollment, Query, RegistrationId,
    },
    transport::Error,
};

/// The individual enrollments that an instance has: their IDs as the instance writes them, by the IDs in lower case.
#[derive(Default)]
pub(super) struct KnownEnrollments(HashMap<String, String>);

impl KnownEnrollments {
    /// Reads which of the devices the instance has. Fails if it has one under an ID that differs in case.
    pub(super) async fn read(client: &Client, creation: &DeviceCreation<'_>) -> Result<Self, ProvisionError> {
        let enrollments = client.individual_enrollments();
        // Only the IDs are kept, because there may be a million of them.
        let found: BoxStream<'_, Result<IndividualEnrollment, Error>> = if creation.count() > MAX_LOOKUPS as u64 {
            enrollments.list(&Query::new()).into_stream()
        } else {
            let mut ids: Vec<RegistrationId> = Vec::new();
            for device in creation.read()? {
                ids.push(device.map_err(ProvisionError::Devices)?.id.into());
            }
            let look_up = move |id| {
                let enrollments = enrollments.clone();
                async move { enrollments.find(&id).await }
            };
            let looked_up = stream::iter(ids).map(look_up).buffered(REQUESTS_UNDER_WAY.get());
            Box::pin(looked_up.try_filter_map(|found| async move { Ok(found) }))
        };
        let ids = found.map_ok(|found| (found.id.as_str().to_ascii_lowercase(), found.id.to_string()));
        let known = Self(ids.try_collect().await?);
        for device in creation.read()? {
            let id = device.map_err(ProvisionError::Devices)?.id;
            if let Some(existing) = known.spelling(id.as_str()).filter(|existing| *existing != id.as_str()) {
                return Err(ProvisionError::Spelling { given: id.to_string(), existing: existing.to_owned() });
            }
        }
        Ok(known)
    }

    fn spelling(&self, id: &str) -> Option<&str> {
        self.0.get(&id.to_ascii_lowercase()).map(String::as_str)
    }
}

/// A device with the file of its certificate.
struct IssuedDevice {
    id: DeviceId,
    certificate: PathBuf,
}

/// Creates individual enrollments for the devices that the instance does not have, each for the certificate that was issued.
/// `manifest` is that of the fleet.
pub(super) async fn create_enrollments(
    client: &Client,
    known: KnownEnrollments,
    creation: &DeviceCreation<'_>,
    devices: &[ProvisionedDevice],
    manifest: Option<&Path>,
    steps: &mut Steps<'_>,
) -> Result<CreatedDevices, ProvisionError> {
    steps.start(Step::Create, "creating individual enrollments");
    let known = Arc::new(known);
    let enrollments = client.individual_enrollments();
    let work = move |devices: Vec<IssuedDevice>| {
        let (enrollments, known) = (enrollments.clone(), Arc::clone(&known));
        async move { create_some(&enrollments, &known, devices).await }
    };
    let mut issued = read_issued(devices, manifest)?;
    let chunks = std::iter::from_fn(move || {
        let chunk: Vec<_> = issued.by_ref().take(MAX_BULK).collect();
        (!chunk.is_empty()).then(|| chunk.into_iter().collect::<Result<Vec<_>, _>>())
    });
    creation.run(chunks, work, steps).await
}

/// Reads the devices of the list and the fleet with the files of their certificates.
fn read_issued(
    devices: &[ProvisionedDevice],
    manifest: Option<&Path>,
) -> Result<impl Iterator<Item = Result<IssuedDevice, ProvisionError>> + Send + use<>, ProvisionError> {
    let id = |text: &str| DeviceId::new(text).map_err(|error| ProvisionError::Devices(error.into()));
    let issued = |device: &ProvisionedDevice| {
        Ok(IssuedDevice { id: id(&device.id)?, certificate: device.record.certificate.clone() })
    };
    let list: Vec<_> = devices.iter().map(issued).collect();
    let fleet = manifest.map(read_manifest).transpose()?;
    let fleet = fleet.into_iter().flatten().map(move |device| {
        let device = device?;
        Ok(IssuedDevice { id: id(device.id.as_str())?, certificate: device.fullchain })
    });
    Ok(list.into_iter().chain(fleet))
}

/// Creates individual enrollments for up to [`MAX_BULK`] devices.
async fn create_some(
    enrollments: &IndividualEnrollments,
    known: &KnownEnrollments,
    devices: Vec<IssuedDevice>,
) -> Creation {
    let mut creation = Creation::default();
    let mut missing = Vec::new();
    for IssuedDevice { id, certificate } in devices {
        if known.spelling(id.as_str()).is_some() {
            creation.counts.existing += 1;
            continue;
        }
        match new_enrollment(&certificate) {
            Ok(enrollment) => missing.push((RegistrationId::from(id), enrollment)),
            Err(error) => return Creation { failure: Some((id.to_string(), error.into())), ..creation },
        }
    }
    let failed = match enrollments.create_many(&missing).await {
        Ok(errors) => errors.into_iter().map(|error| error.id.to_ascii_lowercase()).collect(),
        // Which of them were created is found out one by one.
        Err(error) if error.answer_was_lost() => {
            missing.iter().map(|(id, _)| id.as_str().to_ascii_lowercase()).collect()
        }
        Err(error) => {
            let first = missing.first().map(|(id, _)| id.to_string()).unwrap_or_default();
            return Creation { failure: Some((first, error.into())), ..creation };
        }
    };
    let failed: Vec<String> = failed;
    for (id, enrollment) in &missing {
        if !failed.contains(&id.as_str().to_ascii_lowercase()) {
            creation.counts.created += 1;
            continue;
        }
        // The errors of a bulk operation are short. The service's answer for one device tells why it failed, or that another
        // run created it.
        match enrollments.create(id, enrollment).await {
            Ok(_) => creation.counts.created += 1,
            Err(Error::AlreadyExists { .. }) => creation.counts.existing += 1,
            Err(error) => return Creation { failure: Some((id.to_string(), error.into())), ..creation },
        }
    }
    creation
}

/// Reads the certificate of a device, and returns the individual enrollment for it.
fn new_enrollment(certificate: &Path) -> Result<NewIndividualEnrollment, FileError> {
    let certificate = files::read_certificates(certificate)?.swap_remove(0);
    Ok(NewIndividualEnrollment::new(NewAttestation::ClientCertificates(NewCertificates::new(certificate))))
}
