//! The state of the emulated services, behind one lock.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{
    central::model::{
        CommandHistory, DeploymentManifest, DeviceGroup, DeviceIndex, DeviceTemplate, EnrollmentGroup, Organization,
        Versioned,
    },
    dps::{model::Instance, registration::Registration},
};

/// The state and its lock. One lock guards all of it, so that every request sees and leaves it consistent. Nothing
/// waits while it holds the lock.
#[derive(Default)]
pub(super) struct Store(Mutex<State>);

/// All resources by ID. Collections list them in this order. Those without a remark belong to the application.
///
/// The state file has all of it.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) commands: CommandHistory,
    pub(super) deployment_manifests: BTreeMap<String, Versioned<DeploymentManifest>>,
    pub(super) device_groups: BTreeMap<String, Versioned<DeviceGroup>>,
    pub(super) device_templates: BTreeMap<String, Versioned<DeviceTemplate>>,
    pub(super) devices: DeviceIndex,
    pub(super) enrollment_groups: BTreeMap<String, Versioned<EnrollmentGroup>>,
    pub(super) organizations: BTreeMap<String, Versioned<Organization>>,
    /// The registrations of the application's devices, by registration ID in lower case.
    pub(super) registrations: BTreeMap<String, Box<Registration>>,
    /// The resources of the DPS instance.
    pub(super) instance: Instance,
}

impl Store {
    pub(super) fn new(state: State) -> Self {
        Self(Mutex::new(state))
    }

    /// Runs one request's part on the state. It must change the state in one step, after everything that can fail.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // The rule above keeps the state consistent even if a holder of the lock panicked.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
