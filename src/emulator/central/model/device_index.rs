//! All devices, in the two orders in which they are listed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use serde::{Deserialize, Serialize, Serializer};

use super::{device::Device, device_properties::id_key, order::Order, resource::after_id};

/// The devices by ID, and an index of their display names. A page in either order takes time in proportion to its own
/// length, not to the number of devices.
///
/// IDs are compared without regard to case, as the Device Provisioning Service compares registration IDs. A device
/// keeps the spelling that it was created with.
///
/// Devices are shared, so that a search can look at them without the lock. Changing a device copies it if a search
/// holds it.
#[derive(Default, Deserialize)]
#[serde(from = "Vec<Device>")]
pub(crate) struct DeviceIndex {
    /// By the key of the ID.
    by_id: BTreeMap<String, Arc<Device>>,
    /// The display name and the key of the ID of each device.
    by_name: BTreeSet<(String, String)>,
}

/// A list of all devices.
impl Serialize for DeviceIndex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.by_id.values().map(Arc::as_ref))
    }
}

impl From<Vec<Device>> for DeviceIndex {
    fn from(devices: Vec<Device>) -> Self {
        let mut index = Self::default();
        for device in devices {
            index.insert(device);
        }
        index
    }
}

impl DeviceIndex {
    pub(crate) fn get(&self, id: &str) -> Option<&Device> {
        self.by_id.get(&id_key(id)).map(Arc::as_ref)
    }

    /// Returns a device to change. Its ID and display name are index keys and must stay.
    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Device> {
        self.by_id.get_mut(&id_key(id)).map(Arc::make_mut)
    }

    /// Adds a device, or replaces the one with its ID.
    pub(crate) fn insert(&mut self, mut device: Device) {
        let name = name_key(&device);
        if let Some(previous) = self.by_id.get(&name.1) {
            device.properties.id.clone_from(&previous.properties.id);
        }
        let previous = self.by_id.insert(name.1.clone(), Arc::new(device)).map(|previous| name_key(&previous));
        if previous.as_ref() != Some(&name) {
            if let Some(previous) = previous {
                self.by_name.remove(&previous);
            }
            self.by_name.insert(name);
        }
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Arc<Device>> {
        let removed = self.by_id.remove(&id_key(id))?;
        self.by_name.remove(&name_key(&removed));
        Some(removed)
    }

    /// Returns the devices after a sort key, in order.
    pub(crate) fn after(&self, order: Order, after: Option<&[String]>) -> Box<dyn Iterator<Item = &Arc<Device>> + '_> {
        let name = || match after {
            Some([name, id]) => Bound::Excluded((name.clone(), id.clone())),
            _ => Bound::Unbounded,
        };
        let device = |(_, id): &(String, String)| self.by_id.get(id);
        match order {
            Order::Id => Box::new(after_id(&self.by_id, after).map(|(_, device)| device)),
            Order::DisplayName => Box::new(self.by_name.range((name(), Bound::Unbounded)).filter_map(device)),
            Order::DisplayNameDescending => {
                Box::new(self.by_name.range((Bound::Unbounded, name())).rev().filter_map(device))
            }
        }
    }
}

fn name_key(device: &Device) -> (String, String) {
    (device.properties.display_name.clone(), id_key(&device.properties.id))
}
