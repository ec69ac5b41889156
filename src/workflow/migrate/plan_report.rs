//! The result of making a plan.

use std::path::PathBuf;

use serde::Serialize;

use super::plan::{DeviceObstacle, PlanHeader, PlannedDevice};

/// How many devices are named for each obstacle.
const NAMED: usize = 10;

/// The result of making a plan. It serializes without the devices, of which there may be many.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PlanReport {
    /// The file of the plan.
    #[serde(serialize_with = "crate::workflow::record::lossy_path")]
    pub plan: PathBuf,
    /// Everything of the plan but its devices.
    #[serde(flatten)]
    pub header: PlanHeader,
    /// Why devices are not moved, or not all of them.
    pub device_obstacles: Vec<ObstacleCount>,
    /// The files in the directory that look like certificates and could not be read.
    pub unreadable: Vec<UnreadableFile>,
    /// Whether the instance has no linked hub, so that no device can be assigned yet.
    pub has_no_hub: bool,
    /// Whether the application does not tell which devices run IoT Edge.
    pub edge_unknown: bool,
}

/// The devices with the same obstacle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ObstacleCount {
    /// The obstacle.
    pub reason: DeviceObstacle,
    /// What it means.
    pub message: String,
    /// The number of devices.
    pub count: u64,
    /// The first ones.
    pub devices: Vec<String>,
}

/// A file that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnreadableFile {
    /// The file.
    #[serde(serialize_with = "crate::workflow::record::lossy_path")]
    pub file: PathBuf,
    /// Why it could not be read.
    pub reason: String,
}

/// Counts the obstacle of a device, if it has one.
pub(super) fn count_obstacle(device: &PlannedDevice, obstacles: &mut Vec<ObstacleCount>) {
    let Some(reason) = device.obstacle else { return };
    let position = obstacles.iter().position(|it| it.reason == reason).unwrap_or_else(|| {
        let message = reason.to_string();
        obstacles.push(ObstacleCount { reason, message, count: 0, devices: Vec::new() });
        obstacles.len() - 1
    });
    let obstacle = &mut obstacles[position];
    obstacle.count += 1;
    if obstacle.devices.len() < NAMED {
        obstacle.devices.push(device.id.to_string());
    }
}
