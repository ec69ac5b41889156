//! All devices, in the two orders in which they are listed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use super::{devices::Device, page};

/// The devices by id, and an index of their display names, so that a page in either order costs its own length and a
/// search, not a walk over all devices.
///
/// Ids are compared without regard to case, as the Device Provisioning Service compares registration ids; a device keeps
/// the spelling that it came with first.
///
/// Devices are shared, so that a search can look at them without the lock. A change makes a copy of one that is looked at.
#[derive(Default)]
pub(super) struct DeviceIndex {
    /// By the key of the id.
    by_id: BTreeMap<String, Arc<Device>>,
    /// Display name and key of the id of each device.
    by_name: BTreeSet<(String, String)>,
}

/// The order of a list of devices.
///
/// Choice: without `$orderby` devices come by id, which counts in lower case. Names are ordered by their characters' code points, equal ones by id;
/// descending is the reverse of ascending in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Id,
    DisplayName,
    DisplayNameDescending,
}

impl DeviceIndex {
    pub(super) fn get(&self, id: &str) -> Option<&Device> {
        self.by_id.get(&id_key(id)).map(Arc::as_ref)
    }

    /// The device, whose id and display name must not be changed in place.
    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Device> {
        self.by_id.get_mut(&id_key(id)).map(Arc::make_mut)
    }

    /// Adds a device or replaces the one with its id.
    pub(super) fn insert(&mut self, mut device: Device) {
        let name = name_key(&device);
        if let Some(former) = self.by_id.get(&name.1) {
            device.properties.id.clone_from(&former.properties.id);
        }
        let former = self.by_id.insert(name.1.clone(), Arc::new(device)).map(|former| name_key(&former));
        if former.as_ref() != Some(&name) {
            if let Some(former) = former {
                self.by_name.remove(&former);
            }
            self.by_name.insert(name);
        }
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Arc<Device>> {
        let removed = self.by_id.remove(&id_key(id))?;
        self.by_name.remove(&name_key(&removed));
        Some(removed)
    }

    /// The devices after this sort key, in order.
    pub(super) fn after(&self, order: Order, after: Option<&[String]>) -> Box<dyn Iterator<Item = &Arc<Device>> + '_> {
        let key = || match after {
            Some([name, id]) => Bound::Excluded((name.clone(), id.clone())),
            _ => Bound::Unbounded,
        };
        let device = |(_, id): &(String, String)| self.by_id.get(id);
        match order {
            Order::Id => Box::new(page::after_id(&self.by_id, after).map(|(_, device)| device)),
            Order::DisplayName => Box::new(self.by_name.range((key(), Bound::Unbounded)).filter_map(device)),
            Order::DisplayNameDescending => {
                Box::new(self.by_name.range((Bound::Unbounded, key())).rev().filter_map(device))
            }
        }
    }
}

impl Order {
    /// Where a device stands in the order.
    pub(super) fn key(self, device: &Device) -> Vec<String> {
        let (name, id) = name_key(device);
        if self == Self::Id { vec![id] } else { vec![name, id] }
    }
}

/// What ids are compared by.
pub(super) fn id_key(id: &str) -> String {
    id.to_ascii_lowercase()
}

fn name_key(device: &Device) -> (String, String) {
    (device.properties.display_name.clone(), id_key(&device.properties.id))
}
