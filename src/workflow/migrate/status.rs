//! Who has arrived: the registration records of the instance against the devices of the application.

use std::{collections::HashMap, fmt, sync::Arc};

use serde::Serialize;

use super::{
    plan::{DeviceAction, DeviceAdmission, DeviceObstacle},
    plan_error::PlanError,
    plan_file::Plan,
    rehearsal_marker::is_left_by_rehearsal,
};
use crate::{
    central::{CentralDeviceId, Client, Device, DeviceQuery},
    certificate::Timestamp,
    dps::service::{Query, RegistrationState, RegistrationStatus, Registrations},
    transport::{Error, Listing},
    workflow::{dps_instance::DpsInstance, repeated_ids::id_hash},
};

/// Whether a device has arrived at the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ArrivalState {
    /// It registered at the instance and is assigned to a hub.
    Arrived,
    /// The plan moves it, and it has not registered at the instance, or only a rehearsal that was interrupted has.
    Waiting,
    /// It registered at the instance, and the registration failed or is not complete.
    Failed,
    /// The plan does not move it.
    NotMoved,
    /// The plan does not have it: it is newer than the plan.
    NotPlanned,
    /// The application has it as disabled, so it cannot register.
    Disabled,
    /// The application simulates it: there is no device.
    Simulated,
}

impl ArrivalState {
    /// Returns whether such a device is to arrive and has not.
    #[must_use]
    pub fn is_missing(self) -> bool {
        matches!(self, Self::Waiting | Self::Failed | Self::NotMoved | Self::NotPlanned)
    }
}

impl fmt::Display for ArrivalState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Arrived => "arrived",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::NotMoved => "not moved",
            Self::NotPlanned => "not planned",
            Self::Disabled => "disabled",
            Self::Simulated => "simulated",
        })
    }
}

/// A device of the application, and whether it has arrived.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DeviceArrival {
    /// The device.
    pub id: CentralDeviceId,
    /// Whether it has arrived.
    pub state: ArrivalState,
    /// Whether it has ever connected to the application.
    pub provisioned: bool,
    /// The hub that it is assigned to.
    pub assigned_hub: Option<String>,
    /// The enrollment group that admitted it. `None` if it was an individual enrollment.
    pub enrollment_group: Option<String>,
    /// When it last registered at the instance.
    pub registered_at: Option<Timestamp>,
    /// Why it has not arrived, if that is known, or what is wrong although it has: it differs from the plan, or what admitted
    /// it is disabled.
    pub reason: Option<String>,
}

/// The number of devices in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ArrivalCounts {
    /// All devices of the application.
    pub total: u64,
    /// Those that have arrived.
    pub arrived: u64,
    /// Those that the plan moves and that have not arrived.
    pub waiting: u64,
    /// Those whose registration failed.
    pub failed: u64,
    /// Those that the plan does not move.
    pub not_moved: u64,
    /// Those that the plan does not have.
    pub not_planned: u64,
    /// Those that are disabled.
    pub disabled: u64,
    /// Those that the application simulates.
    pub simulated: u64,
    /// The devices of the plan that the application does not have any more. They are not among the others.
    pub deleted: u64,
}

impl ArrivalCounts {
    /// Returns the number of devices that are to arrive and have not.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.waiting + self.failed + self.not_moved + self.not_planned
    }

    fn add(&mut self, state: ArrivalState) {
        self.total += 1;
        *match state {
            ArrivalState::Arrived => &mut self.arrived,
            ArrivalState::Waiting => &mut self.waiting,
            ArrivalState::Failed => &mut self.failed,
            ArrivalState::NotMoved => &mut self.not_moved,
            ArrivalState::NotPlanned => &mut self.not_planned,
            ArrivalState::Disabled => &mut self.disabled,
            ArrivalState::Simulated => &mut self.simulated,
        } += 1;
    }
}

/// Why it cannot be determined who has arrived.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArrivalError {
    /// The plan cannot be read.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A service could not be read.
    #[error(transparent)]
    Service(#[from] Error),
}

/// The devices of the application one by one, each with whether it has arrived.
///
/// Of the devices of the plan and of the registration records, about a hundred bytes each are held; of the devices of the application
/// a page.
pub struct Arrivals {
    devices: Listing<Device>,
    planned: HashMap<u64, Planned>,
    records: Records,
    counts: ArrivalCounts,
}

/// How the instance is to admit a device.
enum Way {
    /// A group of symmetric keys.
    Group(Arc<str>),
    /// One of the X.509 groups, presumably: the plan does not know which.
    X509Group,
    Individual,
}

/// What the plan says about a device.
enum Planned {
    Moved(Way),
    NotMoved(Option<DeviceObstacle>),
}

impl Arrivals {
    /// Reads the plan, and all registration records of the instance: of all its groups, and of its individual enrollments.
    /// Changes nothing. `records` may be of another client than the instance, because the rights differ.
    ///
    /// # Errors
    /// [`ArrivalError`] if something cannot be read.
    pub async fn read(
        client: &Client,
        instance: &DpsInstance,
        records: &Registrations,
        plan: &Plan,
    ) -> Result<Self, ArrivalError> {
        let mut planned = HashMap::new();
        let mut groups: HashMap<String, Arc<str>> = HashMap::new();
        for device in plan.devices()? {
            let device = device?;
            let mark = match device.action {
                DeviceAction::None => Planned::NotMoved(device.obstacle),
                DeviceAction::Enroll => Planned::Moved(Way::Individual),
                DeviceAction::Covered => Planned::Moved(match &device.admission {
                    DeviceAdmission::SymmetricGroup { group, .. } => {
                        let known = groups.entry(group.as_str().to_owned());
                        Way::Group(Arc::clone(known.or_insert_with_key(|id| id.as_str().into())))
                    }
                    _ => Way::X509Group,
                }),
            };
            planned.insert(id_hash(device.id.as_str()), mark);
        }
        let records = Records::read(instance, records, plan).await?;
        let devices = client.devices().list(&DeviceQuery::default());
        Ok(Self { devices, planned, records, counts: ArrivalCounts::default() })
    }

    /// Returns the next device of the application, or `None` at the end.
    ///
    /// # Errors
    /// [`ArrivalError`] if the devices of the application cannot be read.
    pub async fn next(&mut self) -> Option<Result<DeviceArrival, ArrivalError>> {
        match self.devices.next().await? {
            Ok(device) => Some(Ok(self.judge(device))),
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Returns the number of devices so far in each state.
    #[must_use]
    pub fn counts(&self) -> ArrivalCounts {
        ArrivalCounts { deleted: self.planned.len() as u64, ..self.counts }
    }

    fn judge(&mut self, device: Device) -> DeviceArrival {
        let Device { id, enabled, provisioned, simulated, .. } = device;
        let hash = id_hash(id.as_str());
        // What is left at the end are the devices that were deleted.
        let planned = self.planned.remove(&hash);
        let record = self.records.by_id.get(&hash);
        let (state, reason) = match (record, planned) {
            (Some(record), planned) if record.is_assigned && !record.of_rehearsal => {
                let differences = record.differences(id.as_str(), planned.as_ref());
                (ArrivalState::Arrived, (!differences.is_empty()).then(|| differences.join("; ")))
            }
            _ if simulated => (ArrivalState::Simulated, None),
            _ if !enabled => (ArrivalState::Disabled, None),
            (Some(record), _) if record.of_rehearsal => {
                let reason =
                    "only a rehearsal that was interrupted has registered it: rehearse it again, which removes that";
                (ArrivalState::Waiting, Some(reason.to_owned()))
            }
            (Some(record), _) => {
                (ArrivalState::Failed, Some(record.problem.as_deref().unwrap_or("it is being assigned").to_owned()))
            }
            (None, Some(Planned::NotMoved(obstacle))) => {
                (ArrivalState::NotMoved, obstacle.map(|obstacle| obstacle.to_string()))
            }
            (None, Some(Planned::Moved(_))) if !provisioned => {
                (ArrivalState::Waiting, Some("it has never connected to the application".to_owned()))
            }
            (None, Some(Planned::Moved(_))) => (ArrivalState::Waiting, None),
            (None, None) => (ArrivalState::NotPlanned, Some("the plan does not have it".to_owned())),
        };
        self.counts.add(state);
        DeviceArrival {
            id,
            state,
            provisioned,
            assigned_hub: record.and_then(|record| record.hub.as_deref().map(str::to_owned)),
            enrollment_group: record.and_then(|record| record.group.as_deref().map(str::to_owned)),
            registered_at: record.and_then(|record| record.updated_at),
            reason,
        }
    }
}

/// A registration record, in few bytes: names are shared.
struct Record {
    is_assigned: bool,
    hub: Option<Arc<str>>,
    group: Option<Arc<str>>,
    updated_at: Option<Timestamp>,
    /// The ID in the hub.
    device_id: Option<Box<str>>,
    /// Whether the group or individual enrollment is disabled.
    is_disabled: bool,
    of_rehearsal: bool,
    /// Why the registration failed.
    problem: Option<Box<str>>,
}

impl Record {
    /// Returns what is wrong with a device that is assigned. `id` is its ID at the application.
    fn differences(&self, id: &str, planned: Option<&Planned>) -> Vec<String> {
        let mut differences = Vec::new();
        if let Some(found) = self.device_id.as_deref().filter(|found| *found != id) {
            differences.push(format!("its ID at the hub is {found}"));
        }
        let group = self.group.as_deref();
        match (planned, group) {
            (Some(Planned::Moved(Way::Group(planned))), Some(found)) if !planned.eq_ignore_ascii_case(found) => {
                differences.push(format!("the plan has enrollment group {planned}"));
            }
            (Some(Planned::Moved(Way::Group(planned))), None) => {
                differences
                    .push(format!("an individual enrollment admitted it, and the plan has enrollment group {planned}"));
            }
            (Some(Planned::Moved(Way::X509Group)), None) => {
                differences.push("an individual enrollment admitted it, and the plan has an X.509 group".to_owned());
            }
            (Some(Planned::Moved(Way::Individual)), Some(_)) => {
                differences.push("the plan has an individual enrollment".to_owned());
            }
            (Some(Planned::NotMoved(_)), _) => differences.push("the plan does not move it".to_owned()),
            (None, _) => differences.push("the plan does not have it".to_owned()),
            _ => {}
        }
        if self.is_disabled {
            let what = if group.is_some() { "enrollment group" } else { "individual enrollment" };
            differences.push(format!("its {what} is disabled at the instance, so that it cannot register again"));
        }
        differences
    }
}

/// What the instance has of the enrollment that a record belongs to.
#[derive(Clone, Copy)]
struct Admission<'a> {
    group: Option<&'a Arc<str>>,
    is_enabled: bool,
}

/// The registration records of an instance.
#[derive(Default)]
struct Records {
    by_id: HashMap<u64, Record>,
    hubs: HashMap<String, Arc<str>>,
}

impl Records {
    async fn read(instance: &DpsInstance, registrations: &Registrations, plan: &Plan) -> Result<Self, Error> {
        let mut records = Self::default();
        for group in instance.read_groups().await? {
            let name: Arc<str> = group.id.as_str().into();
            let mut listing = registrations.list(&group.id, &Query::new());
            while let Some(record) = listing.next().await {
                let admission = Admission { group: Some(&name), is_enabled: group.is_enabled() };
                records.add(None, record?, admission, plan);
            }
        }
        let mut listing = instance.client().individual_enrollments().list(&Query::new());
        while let Some(enrollment) = listing.next().await {
            let enrollment = enrollment?;
            let admission = Admission { group: None, is_enabled: enrollment.is_enabled() };
            if let Some(record) = enrollment.registration_state {
                records.add(Some(enrollment.id.as_str()), record, admission, plan);
            }
        }
        Ok(records)
    }

    /// Adds a record. That of an individual enrollment may omit the ID.
    fn add(&mut self, id: Option<&str>, record: RegistrationState, admission: Admission<'_>, plan: &Plan) {
        let own = record.registration_id.as_ref().map(|id| id.as_str().to_owned());
        let Some(id) = id.map(str::to_owned).or(own) else { return };
        let is_assigned = match record.status {
            RegistrationStatus::Assigned => true,
            // An individual enrollment has this state before its device registers.
            RegistrationStatus::Unassigned => return,
            _ => false,
        };
        let of_rehearsal = is_left_by_rehearsal(plan.path(), &id, &record);
        let device_id = record.device_id.map(String::into_boxed_str);
        let hub = record.assigned_hub.map(|hub| {
            let shared = self.hubs.entry(hub).or_insert_with_key(|hub| hub.as_str().into());
            Arc::clone(shared)
        });
        let problem = (!is_assigned && record.status != RegistrationStatus::Assigning).then(|| {
            let message = record.error_message.unwrap_or_default();
            if message.is_empty() { format!("status {}", record.status) } else { message }.into()
        });
        let new = Record {
            is_assigned,
            hub,
            group: admission.group.cloned(),
            updated_at: record.updated_at,
            device_id,
            is_disabled: !admission.is_enabled,
            of_rehearsal,
            problem,
        };
        let hash = id_hash(&id);
        // A device that changed its enrollment may have two records.
        if self.by_id.get(&hash).is_none_or(|known| !known.is_assigned) {
            self.by_id.insert(hash, new);
        }
    }
}
