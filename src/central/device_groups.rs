//! Device groups: named queries over devices.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    client::Client,
    devices::{self, Device},
    id::DeviceGroupId,
};
use crate::transport::{Call, Change, Error, Etag, Listing, items, json_of, object, setters};

const COLLECTION: &str = "deviceGroups";

/// The device groups of an application: `/deviceGroups` of the API.
///
/// ```no_run
/// use iot_enroll::central::{Client, NewDeviceGroup};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let groups = client.device_groups();
/// let id = "group1".parse()?;
/// let query = r#"SELECT * FROM devices WHERE $template = "dtmi:modelDefinition:dtdlv2" AND $provisioned = true"#;
/// groups.create(&id, &NewDeviceGroup::new("Device group 1", query)).await?;
/// let devices: Vec<_> = groups.devices(&id).try_collect().await?;
/// # Ok(())
/// # }
/// ```
///
/// Failed calls are retried by the client's [`RetryPolicy`](super::RetryPolicy).
#[derive(Debug, Clone)]
pub struct DeviceGroups {
    client: Client,
}

impl Client {
    /// Returns the device groups of the application.
    #[must_use]
    pub fn device_groups(&self) -> DeviceGroups {
        DeviceGroups { client: self.clone() }
    }
}

impl DeviceGroups {
    /// Lists all device groups.
    pub fn list(&self) -> Listing<DeviceGroup> {
        items(self.client.rest().clone(), Call::get(&[COLLECTION]), None)
    }

    /// Reads a device group.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the device group does not exist.
    pub async fn get(&self, id: &DeviceGroupId) -> Result<DeviceGroup, Error> {
        self.client.rest().read(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Reads a device group. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find(&self, id: &DeviceGroupId) -> Result<Option<DeviceGroup>, Error> {
        self.client.rest().find(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Creates a device group. Sends two requests: one to see that it does not exist, and one to create it.
    ///
    /// The API has no conditional create. A device group that another client creates between the two requests is
    /// replaced.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the device group exists, or another [`Error`].
    pub async fn create(&self, id: &DeviceGroupId, group: &NewDeviceGroup) -> Result<DeviceGroup, Error> {
        self.client.create(&Self::put(id, group)).await
    }

    /// Replaces a device group, or creates it if missing. To change an existing device group, [`update`](Self::update)
    /// it.
    ///
    /// # Errors
    /// [`Error`]. If the new device group has an etag that is not the current one, the status is 412, or the error is
    /// [`Error::OutcomeUnknown`] if an answer was lost before.
    pub async fn replace(&self, id: &DeviceGroupId, group: &NewDeviceGroup) -> Result<DeviceGroup, Error> {
        self.client.rest().read(&Self::put(id, group)).await
    }

    fn put(id: &DeviceGroupId, group: &NewDeviceGroup) -> Call {
        Call::put(&[COLLECTION, id.as_str()], &group.body())
    }

    /// Changes the fields that the update names and keeps the rest (JSON merge patch, RFC 7396).
    ///
    /// # Errors
    /// [`Error`]. If the update has an etag that is not the device group's current one, the status is 412, or the error
    /// is [`Error::OutcomeUnknown`] if an answer was lost before.
    pub async fn update(&self, id: &DeviceGroupId, update: &DeviceGroupUpdate) -> Result<DeviceGroup, Error> {
        self.client.rest().read(&Call::merge_patch(&[COLLECTION, id.as_str()], &update.body())).await
    }

    /// Deletes a device group. Its devices remain.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the device group does not exist.
    pub async fn delete(&self, id: &DeviceGroupId) -> Result<(), Error> {
        self.client.rest().execute(&Call::delete(&[COLLECTION, id.as_str()])).await
    }

    /// Lists the devices that match a group's query now.
    pub fn devices(&self, id: &DeviceGroupId) -> Listing<Device> {
        items(self.client.rest().clone(), Call::get(&[COLLECTION, id.as_str(), devices::COLLECTION]), None)
    }
}

/// A device group. It serializes to the service's JSON.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DeviceGroup {
    /// The ID.
    pub id: DeviceGroupId,
    /// The display name.
    pub display_name: String,
    /// The query, such as `SELECT * FROM devices WHERE $provisioned = true`.
    pub filter: String,
    /// A description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The IDs of its organizations.
    #[serde(default, deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,
    /// The version of the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<Etag>,
}

/// Reads a list that may be null.
pub(super) fn or_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The fields of a device group to create.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewDeviceGroup {
    /// The display name.
    pub display_name: String,
    /// The query, such as `SELECT * FROM devices WHERE $provisioned = true`.
    pub filter: String,
    /// A description.
    pub description: Option<String>,
    /// The IDs of its organizations. Sent if there are any.
    pub organizations: Vec<String>,
    /// The version of the device group to replace. The service refuses to replace another version (412).
    pub etag: Option<Etag>,
}

impl NewDeviceGroup {
    /// Returns a device group with this display name and query.
    #[must_use]
    pub fn new(display_name: impl Into<String>, filter: impl Into<String>) -> Self {
        Self {
            display_name: display_name.into(),
            filter: filter.into(),
            description: None,
            organizations: Vec::new(),
            etag: None,
        }
    }

    fn body(&self) -> Value {
        object([
            ("displayName", Some(json!(self.display_name))),
            ("filter", Some(json!(self.filter))),
            ("description", json_of(self.description.as_ref())),
            ("organizations", (!self.organizations.is_empty()).then(|| json!(self.organizations))),
            ("etag", json_of(self.etag.as_ref())),
        ])
    }
}

setters!(NewDeviceGroup {
    description: Option<String>,
    organizations: Vec<String>,
    etag: Option<Etag>,
});

/// A change to a device group. Fields that are not set keep their value.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeviceGroupUpdate {
    /// The display name.
    pub display_name: Option<String>,
    /// The query.
    pub filter: Option<String>,
    /// A description.
    pub description: Change<String>,
    /// The IDs of all its organizations.
    pub organizations: Option<Vec<String>>,
    /// The version of the device group to change. The service refuses to change another version (412).
    pub etag: Option<Etag>,
}

setters!(DeviceGroupUpdate {
    display_name: Option<String>,
    filter: Option<String>,
    description: Change<String>,
    organizations: Option<Vec<String>>,
    etag: Option<Etag>,
});

impl DeviceGroupUpdate {
    fn body(&self) -> Value {
        object([
            ("displayName", json_of(self.display_name.as_ref())),
            ("filter", json_of(self.filter.as_ref())),
            ("description", self.description.body(|it| json!(it))),
            ("organizations", json_of(self.organizations.as_ref())),
            ("etag", json_of(self.etag.as_ref())),
        ])
    }
}
