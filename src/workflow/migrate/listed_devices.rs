//! What the application has, as its lists tell.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Seek, Write},
    path::Path,
};

use super::{super::repeated_ids::id_hash, inspection::ListedDevice, plan_error::PlanError};
use crate::{
    central::{
        ApiVersion, Attestation, CertificateEntry, Client, Device, DeviceQuery, DeviceType, EnrollmentGroup, Listing,
    },
    transport::Error,
};

/// Why the devices could not be listed, or compared with those of a plan.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    #[error(transparent)]
    Service(#[from] Error),
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Reads the enrollment groups with their certificates, which the list does not always include.
pub(super) async fn read_groups(application: &Client) -> Result<Vec<EnrollmentGroup>, Error> {
    let groups = application.enrollment_groups();
    let mut listed: Vec<EnrollmentGroup> = groups.list().try_collect().await?;
    for group in &mut listed {
        if let Attestation::X509 { primary, secondary } = &mut group.attestation {
            for (entry, found) in [(CertificateEntry::Primary, primary), (CertificateEntry::Secondary, secondary)] {
                if found.is_none() {
                    *found = groups.find_certificate(&group.id, entry).await?;
                }
            }
        }
    }
    Ok(listed)
}

/// The devices of the application, in a file without a name: they are listed in a minute, before they are inspected for an
/// hour, and may be too many for the memory.
pub(super) struct ListedDevices {
    file: File,
    pub(super) count: u64,
    /// The IDs that occur more than once without regard to case, as hashes.
    pub(super) repeated: HashSet<u64>,
    /// Whether the application does not tell which devices run IoT Edge.
    pub(super) edge_unknown: bool,
}

impl ListedDevices {
    /// Lists the devices, and tells `progress` how many there are so far.
    pub(super) async fn read(
        application: &Client,
        plan: &Path,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Self, ListError> {
        let unwritable = |error: io::Error| PlanError::Write { path: plan.to_owned(), error };
        let directory = plan.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::tempfile_in(directory).map_err(unwritable)?;
        let mut writer = BufWriter::new(file);
        let (mut seen, mut repeated) = (HashSet::new(), HashSet::new());
        let mut count = 0;
        let (mut pages, edge_unknown, mut page) = first_page(application).await?;
        while let Some(devices) = page {
            for device in devices {
                let listed = ListedDevice {
                    iot_edge: device.device_types.contains(&DeviceType::IotEdge),
                    id: device.id,
                    enabled: device.enabled,
                    provisioned: device.provisioned,
                    simulated: device.simulated,
                };
                let hash = id_hash(listed.id.as_str());
                if !seen.insert(hash) {
                    repeated.insert(hash);
                }
                serde_json::to_writer(&mut writer, &listed).map_err(|error| unwritable(error.into()))?;
                writer.write_all(b"\n").map_err(unwritable)?;
                count += 1;
            }
            progress(count);
            page = pages.next().await.transpose()?;
        }
        let file = writer.into_inner().map_err(|error| unwritable(error.into_error()))?;
        Ok(Self { file, count, repeated, edge_unknown })
    }

    /// Reads the devices again.
    pub(super) fn devices(&self) -> io::Result<impl Iterator<Item = io::Result<ListedDevice>> + use<>> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        let lines = BufReader::new(file).split(b'\n');
        Ok(lines.map(|line| Ok(serde_json::from_slice(&line?)?)))
    }
}

type Page = Option<Vec<Device>>;

/// Reads the first page of devices, with their types if the application has the version of the API that tells them.
async fn first_page(application: &Client) -> Result<(Listing<Vec<Device>>, bool, Page), Error> {
    let preview = application.with_api_version(ApiVersion::V2022_10_31Preview);
    let mut pages = preview.devices().list_pages(&DeviceQuery::new());
    match pages.next().await.transpose() {
        Ok(page) => return Ok((pages, false, page)),
        // The service may end a preview.
        Err(error) if matches!(error.status(), Some(400 | 404 | 410)) => {}
        Err(error) => return Err(error),
    }
    let mut pages = application.devices().list_pages(&DeviceQuery::new());
    let page = pages.next().await.transpose()?;
    Ok((pages, true, page))
}
