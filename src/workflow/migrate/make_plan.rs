//! Making a plan: reads the application and the instance, and changes nothing.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    sync::Arc,
};

use aws_lc_rs::rand;

use super::{
    super::{
        bulk::{Bulk, ReportOrder, Signal},
        create::REQUESTS_UNDER_WAY,
        dps_instance::DpsInstance,
    },
    ca_files::CaFiles,
    decision::{decide_certificates, decide_groups, describe_group},
    device_decision::DeviceDecisions,
    inspection::{Inspection, Inspector, ListedDevice, SymmetricGroup},
    listed_devices::{ListError, ListedDevices, read_groups},
    partial::{Partial, PartialHeader},
    plan::{
        DeviceAdmission, DeviceCounts, DeviceObstacle, GroupAttestation, PLAN_VERSION, PlanHeader, PlannedApplication,
        PlannedCertificate, PlannedGroup, PlannedInstance,
    },
    plan_error::PlanError,
    plan_file::write_plan,
    plan_report::{PlanReport, UnreadableFile, count_obstacle},
    target::Target,
};
use crate::{
    central::{Attestation, Client},
    certificate::{Timestamp, files::Passwords, hex::hexadecimal},
    transport::{Error, setters},
};

/// How to make a plan.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlanRequest<'a> {
    /// The file of the plan.
    pub out: PathBuf,
    /// The directory with the certificates and keys of CAs, and the certificates of devices.
    pub ca_directory: Option<PathBuf>,
    /// Whether the plan includes symmetric keys.
    pub include_keys: bool,
    /// The passwords of files in the directory.
    pub passwords: Passwords<'a>,
}

impl PlanRequest<'_> {
    /// Writes a plan to this file, without keys and without a directory of CAs.
    #[must_use]
    pub fn new(out: impl Into<PathBuf>) -> Self {
        Self { out: out.into(), ca_directory: None, include_keys: false, passwords: Passwords::new() }
    }
}

setters!(PlanRequest<'a> {
    ca_directory: Option<PathBuf>,
    include_keys: bool,
    passwords: Passwords<'a>,
});

/// What happens while a plan is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanEvent {
    /// The enrollment groups, the instance and the files were read.
    Prepared,
    /// So many devices were listed.
    Listed(u64),
    /// An earlier run was interrupted, and so many devices that it inspected are taken over.
    Resumed(u64),
    /// What an earlier run left cannot be used, because the groups of the application have changed since, or the request.
    StartedOver,
    /// So many devices are known.
    Inspected {
        /// Their number.
        done: u64,
        /// The number of all devices.
        of: u64,
    },
}

/// Why a plan could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakePlanError {
    /// A service refused a call, or could not be reached.
    #[error(transparent)]
    Service(#[from] Error),
    /// The plan could not be written.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The directory of CAs could not be read.
    #[error("could not read {}: {error}", .directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The system gave no random number.
    #[error("the system has no random numbers")]
    Random,
}

impl From<ListError> for MakePlanError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Service(error) => Self::Service(error),
            ListError::Plan(error) => Self::Plan(error),
        }
    }
}

/// Reads an application and an instance, and writes a plan that moves the devices of the one to the other with their keys
/// unchanged. Changes nothing at either.
///
/// What is known so far is kept in a file beside that of the plan, `PLAN.partial`, so a call that was interrupted is continued
/// by the same call. Each device costs one or two requests to the application.
///
/// # Errors
/// [`MakePlanError`]. What was read is kept for the next call.
pub async fn make_plan(
    application: &Client,
    instance: &DpsInstance,
    request: &PlanRequest<'_>,
    observer: &mut (dyn FnMut(PlanEvent) + Send),
) -> Result<PlanReport, MakePlanError> {
    if request.out.symlink_metadata().is_ok() {
        return Err(PlanError::Exists(request.out.clone()).into());
    }
    let (mut partial, earlier) = Partial::open(&request.out)?;
    let files = read_files(request)?;
    let target = Target::read(instance).await?;
    let read = read_groups(application).await?;
    let plan_id = match &earlier {
        Some(earlier) => earlier.id.clone(),
        None => random_id()?,
    };
    let symmetric = read.iter().filter_map(|group| match &group.attestation {
        Attestation::SymmetricKey(Some(keys)) => Some(SymmetricGroup::new(group.id.clone(), keys)),
        _ => None,
    });
    let has_x509_groups = read.iter().any(|group| matches!(group.attestation, Attestation::X509 { .. }));
    let inspector = Inspector {
        devices: application.devices(),
        plan_id: plan_id.clone(),
        include_keys: request.include_keys,
        groups: symmetric.collect(),
        has_x509_groups,
    };
    let mut groups: Vec<_> =
        read.into_iter().map(|group| describe_group(group, &plan_id, request.include_keys)).collect();
    let header = PartialHeader {
        version: PLAN_VERSION,
        id: plan_id,
        application: application.endpoint().as_str().to_owned(),
        includes_keys: request.include_keys,
        groups: groups.iter().filter_map(fingerprint).collect(),
        has_x509_groups,
    };
    match &earlier {
        Some(earlier) if *earlier == header => {
            partial.resume()?;
            observer(PlanEvent::Resumed(partial.known()));
        }
        found => {
            partial.start(&header)?;
            if found.is_some() {
                observer(PlanEvent::StartedOver);
            }
        }
    }
    observer(PlanEvent::Prepared);
    let listed =
        ListedDevices::read(application, &request.out, &mut |count| observer(PlanEvent::Listed(count))).await?;
    inspect(inspector, &listed, &mut partial, observer).await?;
    let certificates = decide_certificates(&groups, &target, &files, request.passwords);
    decide_groups(&mut groups, &certificates, &target);
    let head = Head { application, instance, id: header.id, include_keys: request.include_keys };
    let found = Found { certificates, groups, files, target, listed };
    finish(&head, found, partial)
}

/// Returns the ID and the fingerprint of the keys of a symmetric-key group.
fn fingerprint(group: &PlannedGroup) -> Option<(String, String)> {
    let GroupAttestation::SymmetricKey(keys) = &group.attestation else { return None };
    Some((group.id.to_string(), keys.fingerprint.as_str().to_owned()))
}

fn random_id() -> Result<String, MakePlanError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| MakePlanError::Random)?;
    Ok(hexadecimal(&bytes).to_ascii_lowercase())
}

fn read_files(request: &PlanRequest<'_>) -> Result<CaFiles, MakePlanError> {
    let Some(directory) = &request.ca_directory else { return Ok(CaFiles::default()) };
    CaFiles::read(directory, request.passwords)
        .map_err(|error| MakePlanError::Directory { directory: directory.clone(), error })
}

/// Inspects the devices that are not known yet.
async fn inspect(
    inspector: Inspector,
    listed: &ListedDevices,
    partial: &mut Partial,
    observer: &mut (dyn FnMut(PlanEvent) + Send),
) -> Result<(), MakePlanError> {
    let path = partial.plan().to_owned();
    let unreadable = move |error| MakePlanError::Plan(PlanError::Read { path: path.clone(), error });
    let (mut unknown, mut done) = (HashSet::new(), 0);
    for (number, device) in listed.devices().map_err(&unreadable)?.enumerate() {
        if partial.list(&device.map_err(&unreadable)?) {
            unknown.insert(number);
        } else {
            done += 1;
        }
    }
    let of = listed.count;
    observer(PlanEvent::Inspected { done, of });
    let inspector = Arc::new(inspector);
    let work = move |device: ListedDevice| {
        let inspector = Arc::clone(&inspector);
        async move {
            let inspected = inspector.inspect(&device).await;
            let signal = if inspected.is_ok() { Signal::Answered } else { Signal::AffectsAll };
            (inspected, signal)
        }
    };
    let devices = listed.devices().map_err(&unreadable)?.enumerate();
    let devices = devices.filter(|(number, _)| unknown.contains(number)).map(|(_, device)| device.map_err(&unreadable));
    // A failed request was retried for minutes, so the first one stops the run. The next one continues.
    let bulk = Bulk { concurrency: REQUESTS_UNDER_WAY, order: ReportOrder::Ended, probes: true };
    bulk.run(devices, work, |inspected: Result<Option<Inspection>, Error>, _| {
        if let Some(Inspection { device, id_scope }) = inspected? {
            partial.add(&device)?;
            if let Some(scope) = id_scope {
                partial.add_scope(scope)?;
            }
        }
        done += 1;
        observer(PlanEvent::Inspected { done, of });
        Ok(())
    })
    .await
}

/// What the header of a plan says about the request.
struct Head<'a> {
    application: &'a Client,
    instance: &'a DpsInstance,
    id: String,
    include_keys: bool,
}

/// What was read for a plan.
struct Found {
    certificates: Vec<PlannedCertificate>,
    groups: Vec<PlannedGroup>,
    files: CaFiles,
    target: Target,
    listed: ListedDevices,
}

/// Decides what becomes of the devices, and writes the plan.
fn finish(head: &Head<'_>, found: Found, partial: Partial) -> Result<PlanReport, MakePlanError> {
    let Found { certificates, mut groups, files, target, listed } = found;
    let decisions = DeviceDecisions::new(&groups, &files, &target, &listed.repeated);
    let mut counts = DeviceCounts::default();
    let mut obstacles = Vec::new();
    let mut symmetric: HashMap<String, u64> = HashMap::new();
    for device in partial.devices()? {
        let mut device = device?;
        counts.present += u64::from(decisions.decide(&mut device));
        counts.add(&device);
        if let DeviceAdmission::SymmetricGroup { group, .. } = &device.admission {
            *symmetric.entry(group.to_string()).or_default() += 1;
        }
        count_obstacle(&device, &mut obstacles);
    }
    for group in &mut groups {
        if let GroupAttestation::SymmetricKey(_) = group.attestation {
            group.devices = Some(symmetric.get(group.id.as_str()).copied().unwrap_or_default());
        }
    }
    obstacles.sort_by_key(|it| DeviceObstacle::ALL.iter().position(|known| *known == it.reason));
    let properties = head.instance.properties();
    let header = PlanHeader {
        version: PLAN_VERSION,
        id: head.id.clone(),
        created_at: Timestamp::now(),
        application: PlannedApplication {
            endpoint: head.application.endpoint().as_str().to_owned(),
            id_scope: partial.id_scope.clone(),
        },
        instance: PlannedInstance {
            name: properties.id.name.clone(),
            subscription: properties.id.subscription.clone(),
            resource_group: properties.id.resource_group.clone(),
            id_scope: properties.id_scope.as_str().to_owned(),
            service_endpoint: properties.service_endpoint.as_str().to_owned(),
            device_endpoint: properties.device_endpoint.as_str().to_owned(),
            iot_hubs: properties.iot_hubs.iter().map(|hub| hub.host_name.clone()).collect(),
        },
        includes_keys: head.include_keys,
        certificates,
        groups,
        counts,
    };
    let devices = partial.devices()?.map(|device| {
        let mut device = device?;
        decisions.decide(&mut device);
        Ok(device)
    });
    write_plan(partial.plan(), &header, devices)?;
    let plan = partial.plan().to_owned();
    partial.remove()?;
    let unreadable = files.unreadable.into_iter().map(|(file, reason)| UnreadableFile { file, reason });
    Ok(PlanReport {
        plan,
        has_no_hub: header.instance.iot_hubs.is_empty(),
        header,
        device_obstacles: obstacles,
        unreadable: unreadable.collect(),
        edge_unknown: listed.edge_unknown,
    })
}
