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
    error::{CreateError, ProvisionError},
    record::ProvisionedDevice,
    registration::RefusedDevice,
    step::{Outcome, Step, Steps, device_count},
};
use crate::{
    certificate::{
        Certificate, DeviceId, Thumbprint,
        files::{self, FileError},
        fleet::read_manifest,
    },
    dps::service::{
        Attestation, CertificateInfo, Client, IndividualEnrollment, IndividualEnrollments, MAX_BULK, NewAttestation,
        NewCertificates, NewIndividualEnrollment, Query, RegistrationId,
    },
    transport::Error,
};

/// For how many devices it is reported that they cannot connect.
const MAX_REPORTED: usize = 20;

/// The individual enrollments that an instance has, by the IDs in lower case.
#[derive(Default)]
pub(super) struct KnownEnrollments(HashMap<String, KnownEnrollment>);

/// An individual enrollment. Little of each is kept, because there may be a million of them.
struct KnownEnrollment {
    /// The ID as the instance writes it.
    id: String,
    is_enabled: bool,
    attestation: KnownAttestation,
}

/// How a device proves its identity.
enum KnownAttestation {
    /// With a certificate that has one of these thumbprints.
    Certificates([Option<Thumbprint>; 2]),
    /// In another way.
    Other(String),
}

impl KnownEnrollment {
    fn new(enrollment: &IndividualEnrollment) -> Self {
        let attestation = match &enrollment.attestation {
            Attestation::ClientCertificates(own) => {
                let thumbprint = |info: &Option<CertificateInfo>| info.as_ref().and_then(|info| info.sha1_thumbprint);
                KnownAttestation::Certificates([&own.primary, &own.secondary].map(thumbprint))
            }
            other => KnownAttestation::Other(other.kind().to_owned()),
        };
        Self { id: enrollment.id.to_string(), is_enabled: enrollment.is_enabled(), attestation }
    }

    /// Returns what the enrollment is for, unless it is for this certificate.
    fn mismatch(&self, certificate: &Certificate) -> Option<String> {
        let ours = certificate.sha1_thumbprint();
        match &self.attestation {
            KnownAttestation::Certificates(found) if found.contains(&Some(ours)) => None,
            KnownAttestation::Certificates(found) => {
                let found: Vec<_> = found.iter().flatten().map(ToString::to_string).collect();
                Some(format!("another certificate, {}, and not for {ours}", found.join(" and ")))
            }
            KnownAttestation::Other(kind) => Some(format!("attestation by {kind}, and not for the certificate {ours}")),
        }
    }
}

impl KnownEnrollments {
    /// Reads the individual enrollments of the devices.
    async fn read(client: &Client, creation: &DeviceCreation<'_>) -> Result<Self, ProvisionError> {
        let enrollments = client.individual_enrollments();
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
        let known = found.map_ok(|found| (found.id.as_str().to_ascii_lowercase(), KnownEnrollment::new(&found)));
        Ok(Self(known.try_collect().await?))
    }

    /// Reads which of the devices the instance has. Fails if it has one under an ID that differs in case.
    pub(super) async fn read_spelled(client: &Client, creation: &DeviceCreation<'_>) -> Result<Self, ProvisionError> {
        let known = Self::read(client, creation).await?;
        for device in creation.read()? {
            let id = device.map_err(ProvisionError::Devices)?.id;
            if let Some(existing) = known.get(id.as_str()).map(|it| &it.id).filter(|it| *it != id.as_str()) {
                return Err(ProvisionError::Spelling { given: id.to_string(), existing: existing.clone() });
            }
        }
        Ok(known)
    }

    fn get(&self, id: &str) -> Option<&KnownEnrollment> {
        self.0.get(&id.to_ascii_lowercase())
    }
}

/// Finds devices that cannot connect with the certificates that were issued, because their individual enrollments, which
/// take precedence over a group, do not admit them. Returns the first ones. `manifest` is that of the fleet.
pub(super) async fn find_unadmitted(
    client: &Client,
    creation: &DeviceCreation<'_>,
    devices: &[ProvisionedDevice],
    manifest: Option<&Path>,
    steps: &mut Steps<'_>,
) -> Result<Vec<RefusedDevice>, ProvisionError> {
    if devices.is_empty() && manifest.is_none() {
        return Ok(Vec::new());
    }
    let known = KnownEnrollments::read(client, creation).await?;
    let (mut count, mut refused) = (0, Vec::new());
    for device in read_issued(devices, manifest)? {
        let IssuedDevice { id, certificate } = device?;
        let Some(enrollment) = known.get(id.as_str()) else { continue };
        let reason = match enrollment.mismatch(&read_leaf(&certificate)?) {
            Some(found) => {
                format!("{id} cannot connect with its certificate: its individual enrollment is for {found}")
            }
            None if enrollment.is_enabled => continue,
            None => format!("{id} cannot connect: its individual enrollment is disabled"),
        };
        count += 1;
        if refused.len() < MAX_REPORTED {
            refused.push(RefusedDevice { id: id.to_string(), reason });
        }
    }
    if count > 0 {
        let detail = format!("{} cannot connect, because of individual enrollments", device_count(count));
        steps.finish(Step::Device, Outcome::Failed, detail);
    }
    Ok(refused)
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
        let failed = |error| Creation { failure: Some((id.to_string(), error)), ..creation };
        let certificate = match read_leaf(&certificate) {
            Ok(certificate) => certificate,
            Err(error) => return failed(error.into()),
        };
        match known.get(id.as_str()).map(|it| it.mismatch(&certificate)) {
            Some(Some(found)) => return failed(CreateError::Enrolled { found }),
            Some(None) => creation.counts.existing += 1,
            None => missing.push((RegistrationId::from(id), certificate)),
        }
    }
    let missing: Vec<_> =
        missing.into_iter().map(|(id, certificate)| (id, new_enrollment(&certificate), certificate)).collect();
    let new: Vec<_> = missing.iter().map(|(id, enrollment, _)| (id.clone(), enrollment.clone())).collect();
    let failed = match enrollments.create_many(&new).await {
        Ok(errors) => errors.into_iter().map(|error| error.id.to_ascii_lowercase()).collect(),
        // Which of them were created is found out one by one.
        Err(error) if error.answer_was_lost() => new.iter().map(|(id, _)| id.as_str().to_ascii_lowercase()).collect(),
        Err(error) => {
            let first = new.first().map(|(id, _)| id.to_string()).unwrap_or_default();
            return Creation { failure: Some((first, error.into())), ..creation };
        }
    };
    let failed: Vec<String> = failed;
    for (id, enrollment, certificate) in &missing {
        if !failed.contains(&id.as_str().to_ascii_lowercase()) {
            creation.counts.created += 1;
            continue;
        }
        // The errors of a bulk operation are short. The service's answer for one device tells why it failed, or that another
        // run created it.
        match create_one(enrollments, id, enrollment, certificate).await {
            Ok(true) => creation.counts.created += 1,
            Ok(false) => creation.counts.existing += 1,
            Err(error) => return Creation { failure: Some((id.to_string(), error)), ..creation },
        }
    }
    creation
}

/// Creates an individual enrollment. Returns false if another run has created it for the same certificate.
async fn create_one(
    enrollments: &IndividualEnrollments,
    id: &RegistrationId,
    enrollment: &NewIndividualEnrollment,
    certificate: &Certificate,
) -> Result<bool, CreateError> {
    match enrollments.create(id, enrollment).await {
        Ok(_) => Ok(true),
        Err(Error::AlreadyExists { .. }) => {
            let found = KnownEnrollment::new(&enrollments.get(id).await?).mismatch(certificate);
            found.map_or(Ok(false), |found| Err(CreateError::Enrolled { found }))
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads the certificate of a device.
fn read_leaf(path: &Path) -> Result<Certificate, FileError> {
    Ok(files::read_certificates(path)?.swap_remove(0))
}

/// Returns the individual enrollment for a certificate.
fn new_enrollment(certificate: &Certificate) -> NewIndividualEnrollment {
    NewIndividualEnrollment::new(NewAttestation::ClientCertificates(NewCertificates::new(certificate.clone())))
}
