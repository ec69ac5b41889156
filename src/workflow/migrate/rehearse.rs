//! The rehearsal of one device: its own credential registers at the instance, and the registration record is removed again.

use std::{io, path::PathBuf};

use serde::Serialize;

use super::{
    plan::{GroupAction, GroupAttestation, PlannedDevice},
    plan_error::PlanError,
    plan_file::Plan,
    readiness::Expectation,
    rehearsal_marker::RehearsalMarker,
};
use crate::{
    certificate::DeviceId,
    dps::{
        device::{Assignment, Credential, DiagnosedError},
        service::{RegistrationId, Registrations},
    },
    transport::{Error, Etag},
    workflow::registrar::Registrar,
};

/// What became of the registration record of a rehearsal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum RehearsalRecord {
    /// There was none before, and the new one was removed.
    Removed,
    /// There was one before the rehearsal, which is not that of an interrupted rehearsal, so it was kept.
    Kept,
    /// There is none.
    None,
    /// The new one could not be removed, for this reason.
    Left(String),
}

/// The result of a rehearsal.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Rehearsal {
    /// The device.
    pub device: DeviceId,
    /// The ID scope that it registered at.
    pub id_scope: String,
    /// The hub that it was assigned to. Its identity there stays: DPS does not remove it with the record.
    pub assigned_hub: String,
    /// Its ID at the hub.
    pub device_id: String,
    /// The enrollment group that admitted it. `None` if it was an individual enrollment, or if the service did not say.
    pub enrollment_group: Option<String>,
    /// What differs from the plan.
    pub differences: Vec<String>,
    /// What became of the registration record.
    pub record: RehearsalRecord,
}

/// Why a rehearsal failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RehearsalError {
    /// The plan cannot be read.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan does not have the device.
    #[error("the plan has no device {0}")]
    NotInPlan(DeviceId),
    /// The plan does not move the device, so that the instance would refuse it.
    #[error("{id} cannot be rehearsed: {reason}")]
    NotMoved {
        /// The device.
        id: DeviceId,
        /// Why not.
        reason: String,
    },
    /// That a rehearsal is under way could not be written down, or another one of the device is. Nothing was done, or the
    /// record was removed.
    #[error("could not use {}: {error}", path.display())]
    Marker {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The registration records could not be read before the rehearsal. Nothing was done.
    #[error(transparent)]
    Records(#[from] Error),
    /// The device could not register.
    #[error("{error}")]
    Registration {
        /// Why.
        error: Box<DiagnosedError>,
        /// What became of the registration record.
        record: RehearsalRecord,
    },
}

/// Registers a device of a plan at the instance with its own credential, compares the result with the plan, and removes the
/// registration record again.
///
/// A record that existed before is kept, because the device itself may have registered: this registration only updates it. The
/// identity of the device at its hub stays, because DPS does not remove it with the record.
///
/// A file beside the plan, `plan.json.rehearsal-ID`, exists from before the registration until its record is removed. If the
/// program is killed in between, the next rehearsal of the device knows by it that the record is not the device's, and
/// removes the record. A record that was written more than 15 minutes after the start of the rehearsal is the device's.
///
/// # Errors
/// [`RehearsalError`]. Differences from the plan are in the result.
pub async fn rehearse(
    plan: &Plan,
    id: &DeviceId,
    credential: &Credential,
    registrar: &Registrar,
    records: &Registrations,
) -> Result<Rehearsal, RehearsalError> {
    let (device, expected) = find(plan, id)?;
    let registration_id = RegistrationId::from(id.clone());
    let of_marker = |(path, error)| RehearsalError::Marker { path, error };
    let mut marker = RehearsalMarker::open(plan.path(), id.as_str()).map_err(of_marker)?;
    let existing = match records.find(&registration_id).await {
        Ok(existing) => existing,
        Err(error) => {
            marker.discard();
            return Err(error.into());
        }
    };
    let is_kept = existing.is_some_and(|record| !marker.explains(&record));
    if !is_kept {
        marker.start().map_err(of_marker)?;
    }
    let registered = registrar.register(id, credential).await;
    let record = if is_kept { RehearsalRecord::Kept } else { remove(records, &registration_id).await };
    // The next rehearsal can remove a record that is left.
    if !matches!(record, RehearsalRecord::Left(_)) {
        marker.remove().map_err(of_marker)?;
    }
    match registered {
        Ok(assignment) => Ok(Rehearsal {
            device: id.clone(),
            id_scope: plan.header().instance.id_scope.clone(),
            differences: compare(plan, &device, &expected, &assignment),
            assigned_hub: assignment.assigned_hub,
            device_id: assignment.device_id,
            enrollment_group: assignment.enrollment_group,
            record,
        }),
        Err(error) => Err(RehearsalError::Registration { error: Box::new(error), record }),
    }
}

/// Finds a device that the plan moves.
fn find(plan: &Plan, id: &DeviceId) -> Result<(PlannedDevice, Expectation), RehearsalError> {
    for device in plan.devices()? {
        let device = device?;
        if device.id.as_str().eq_ignore_ascii_case(id.as_str()) {
            return match Expectation::new(&device) {
                Expectation::Unable(reason) => Err(RehearsalError::NotMoved { id: id.clone(), reason }),
                expected => Ok((device, expected)),
            };
        }
    }
    Err(RehearsalError::NotInPlan(id.clone()))
}

/// Removes the record of a registration. Also a registration that failed may have left one.
async fn remove(records: &Registrations, id: &RegistrationId) -> RehearsalRecord {
    let removed = async {
        let Some(record) = records.find(id).await? else { return Ok(RehearsalRecord::None) };
        // Unless the device itself has registered since.
        let etag: Option<&Etag> = record.etag.as_ref();
        records.delete(id, etag).await?;
        Ok::<_, Error>(RehearsalRecord::Removed)
    };
    removed.await.unwrap_or_else(|error| RehearsalRecord::Left(error.to_string()))
}

/// Returns what differs from the plan.
fn compare(plan: &Plan, device: &PlannedDevice, expected: &Expectation, assignment: &Assignment) -> Vec<String> {
    let header = plan.header();
    let mut differences = Vec::new();
    let found = &assignment.device_id;
    if found != device.id.as_str() {
        differences.push(format!("its ID at the hub is {found}, and the application has it as {}", device.id));
    }
    let hubs = &header.instance.iot_hubs;
    if !hubs.iter().any(|hub| hub.eq_ignore_ascii_case(&assignment.assigned_hub)) {
        differences
            .push(format!("it was assigned to {}, which is not among the hubs of the plan", assignment.assigned_hub));
    }
    let group = assignment.enrollment_group.as_deref();
    let moved = |id: &str| {
        let mut groups = header.groups.iter().filter(|group| group.action != GroupAction::None);
        groups.find(|group| group.id.as_str().eq_ignore_ascii_case(id))
    };
    let is_moved = |id: &str| moved(id).is_some();
    let is_x509_group =
        |id: &str| moved(id).is_some_and(|group| matches!(group.attestation, GroupAttestation::X509 { .. }));
    match (expected, group) {
        (Expectation::SymmetricGroup(planned), Some(found)) if !planned.eq_ignore_ascii_case(found) => {
            differences.push(format!("the enrollment group {found} admitted it, and the plan has {planned}"));
        }
        (Expectation::X509Group, Some(found)) if is_moved(found) && !is_x509_group(found) => {
            differences.push(format!(
                "the enrollment group {found} of symmetric keys admitted it, and the plan has it presumably in an X.509 group"
            ));
        }
        (Expectation::X509Group, Some(found)) if !is_x509_group(found) => {
            differences.push(format!("the enrollment group {found} admitted it, which the plan does not move"));
        }
        (Expectation::SymmetricGroup(_) | Expectation::X509Group, None) => {
            differences
                .push("the service names no enrollment group that admitted it, and the plan has it in one".to_owned());
        }
        (Expectation::Individual(_), Some(found)) => {
            differences
                .push(format!("the enrollment group {found} admitted it, and the plan has an individual enrollment"));
        }
        _ => {}
    }
    differences
}
