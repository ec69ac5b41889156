//! The move from an IoT Central application to an instance of the Device Provisioning Service, with the device keys unchanged.
//!
//! A [`Plan`] is a file. [`make_plan`] writes it and changes nothing at the services; everything else reads it. Devices may be
//! many, so they are never all in memory: [`Plan::read`] checks the whole file and keeps its [`PlanHeader`], and
//! [`Plan::devices`] reads the devices one by one.

mod apply;
mod apply_devices;
mod apply_groups;
mod apply_report;
mod ca_files;
mod decision;
mod device_decision;
mod drift;
mod fingerprint;
mod inspection;
mod listed_devices;
mod make_plan;
mod move_check;
mod move_devices;
mod move_request;
mod mover;
mod moves;
mod partial;
mod plan;
mod plan_error;
mod plan_file;
mod plan_report;
mod readiness;
mod rehearsal_marker;
mod rehearse;
mod status;
mod target;

pub use apply::{ApplyError, ApplyRequest, apply_plan};
pub use apply_report::{ApplyReport, ItemFailure, ItemKind};
pub use fingerprint::KeyFingerprint;
pub use make_plan::{MakePlanError, PlanEvent, PlanRequest, make_plan};
pub use move_devices::{PreparedMove, prepare_move};
pub use move_request::{MoveError, MoveReport, MoveRequest, MoveTargets, Resend};
pub use plan::{
    CertificateAction, CertificateObstacle, DeviceAction, DeviceAdmission, DeviceCounts, DeviceObstacle, GroupAction,
    GroupAttestation, GroupObstacle, PLAN_VERSION, PlanHeader, PlannedApplication, PlannedCertificate, PlannedDevice,
    PlannedEntry, PlannedGroup, PlannedInstance, PlannedKeys,
};
pub use plan_error::PlanError;
pub use plan_file::{Plan, PlannedDevices};
pub use plan_report::{ObstacleCount, PlanReport, UnreadableFile};
pub use rehearse::{Rehearsal, RehearsalError, RehearsalRecord, rehearse};
pub use status::{ArrivalCounts, ArrivalError, ArrivalState, Arrivals, DeviceArrival};
