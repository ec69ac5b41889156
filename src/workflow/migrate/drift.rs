//! What has changed at the application since the plan was made.

use std::collections::HashMap;

use futures_util::TryStreamExt;

use super::{
    super::repeated_ids::id_hash,
    decision::describe_group,
    listed_devices::ListError,
    plan::{DeviceAction, DeviceAdmission, GroupAttestation, PlannedDevice, PlannedGroup, PlannedKeys},
    plan_file::Plan,
};
use crate::{
    central::{Client, Device, DeviceQuery, EnrollmentGroup},
    certificate::Thumbprint,
};

/// Returns what has changed of a group since the plan was made. `now` is the group as it is.
pub(super) fn group_drift(planned: &PlannedGroup, now: Option<&EnrollmentGroup>, plan_id: &str) -> Option<String> {
    let Some(now) = now else { return Some("the application has no such group any more".to_owned()) };
    let now = describe_group(now.clone(), plan_id, false);
    let changed = |what: &str| Some(format!("{what} changed at the application since the plan was made"));
    let status = |enabled: bool| if enabled { "enabled" } else { "disabled" };
    if planned.kind() != now.kind() {
        return changed("the kind of attestation");
    }
    if planned.enabled != now.enabled {
        let (then, now) = (status(planned.enabled), status(now.enabled));
        return Some(format!("it was {then} when the plan was made, and is {now} at the application now"));
    }
    if planned.device_type != now.device_type {
        return changed("the type of its devices");
    }
    match (&planned.attestation, &now.attestation) {
        (GroupAttestation::SymmetricKey(then), GroupAttestation::SymmetricKey(now))
            if then.fingerprint != now.fingerprint =>
        {
            changed("its keys")
        }
        (
            GroupAttestation::X509 { primary, secondary },
            GroupAttestation::X509 { primary: primary_now, secondary: secondary_now },
        ) => match (primary == primary_now, secondary == secondary_now) {
            (true, true) => None,
            (false, _) => changed("its primary certificate"),
            (true, false) => changed("its secondary certificate"),
        },
        _ => None,
    }
}

/// Returns what has changed of a device's attestation since the plan was made.
pub(super) fn admission_drift(planned: &DeviceAdmission, now: &DeviceAdmission) -> Option<&'static str> {
    let is_same_key = |then: &PlannedKeys, now: &PlannedKeys| then.fingerprint == now.fingerprint;
    let sorted = |one: Option<Thumbprint>, other: Option<Thumbprint>| (one.max(other), one.min(other));
    let is_same = match (planned, now) {
        (DeviceAdmission::SymmetricKey(then), DeviceAdmission::SymmetricKey(now)) => {
            if !is_same_key(then, now) {
                return Some("its keys changed at the application since the plan was made");
            }
            true
        }
        (
            DeviceAdmission::SymmetricGroup { group, keys },
            DeviceAdmission::SymmetricGroup { group: group_now, keys: keys_now },
        ) => {
            let is_same_keys = match (keys, keys_now) {
                (Some(then), Some(now)) => is_same_key(then, now),
                (None, None) => true,
                _ => false,
            };
            group == group_now && is_same_keys
        }
        (
            DeviceAdmission::X509 { primary, secondary, .. },
            DeviceAdmission::X509 { primary: primary_now, secondary: secondary_now, .. },
        ) => {
            if sorted(*primary, *secondary) != sorted(*primary_now, *secondary_now) {
                return Some("its certificates changed at the application since the plan was made");
            }
            true
        }
        (DeviceAdmission::Tpm { endorsement_key }, DeviceAdmission::Tpm { endorsement_key: now }) => {
            endorsement_key == now
        }
        (DeviceAdmission::X509Group { .. }, DeviceAdmission::X509Group { .. }) => true,
        _ => false,
    };
    (!is_same).then_some("its attestation changed at the application since the plan was made")
}

/// What the list of devices tells about the devices of a plan.
#[derive(Default)]
pub(super) struct DeviceDrift {
    /// The devices that have changed, by the hashes of their IDs.
    changed: HashMap<u64, &'static str>,
    /// The IDs of those among them that a group admits by the plan.
    pub(super) covered: Vec<(String, &'static str)>,
    /// The number of devices that the plan does not have.
    pub(super) new: u64,
}

/// A device of the plan.
struct Planned {
    enabled: bool,
    simulated: bool,
    action: DeviceAction,
    is_listed: bool,
}

impl DeviceDrift {
    /// Lists the devices of the application, and compares them with those of the plan.
    pub(super) async fn read(application: &Client, plan: &Plan) -> Result<Self, ListError> {
        let mut planned = HashMap::new();
        for device in plan.devices()? {
            let device = device?;
            planned.insert(id_hash(device.id.as_str()), Planned::new(&device));
        }
        let mut drift = Self::default();
        let mut listed = application.devices().list(&DeviceQuery::new()).into_stream();
        while let Some(device) = listed.try_next().await? {
            drift.compare(&mut planned, &device);
        }
        let is_gone = |planned: &Planned| !planned.is_listed && planned.action == DeviceAction::Enroll;
        let gone = planned.into_iter().filter(|(_, planned)| is_gone(planned));
        drift.changed.extend(gone.map(|(hash, _)| (hash, "the application does not have it any more")));
        Ok(drift)
    }

    fn compare(&mut self, planned: &mut HashMap<u64, Planned>, device: &Device) {
        let hash = id_hash(device.id.as_str());
        let Some(planned) = planned.get_mut(&hash) else {
            self.new += 1;
            return;
        };
        planned.is_listed = true;
        let change = match (planned.enabled, device.enabled) {
            (true, false) => "it was enabled when the plan was made, and is disabled at the application now",
            (false, true) => "it was disabled when the plan was made, and is enabled at the application now",
            _ if planned.simulated != device.simulated => "whether it is simulated changed since the plan was made",
            _ => return,
        };
        if planned.action == DeviceAction::Covered {
            self.covered.push((device.id.to_string(), change));
        }
        self.changed.insert(hash, change);
    }

    /// Returns what has changed of a device.
    pub(super) fn of(&self, id: &str) -> Option<&'static str> {
        self.changed.get(&id_hash(id)).copied()
    }
}

impl Planned {
    fn new(device: &PlannedDevice) -> Self {
        Self {
            enabled: device.enabled,
            simulated: matches!(device.admission, DeviceAdmission::Simulated),
            action: device.action,
            is_listed: false,
        }
    }
}
