//! Device groups: queries over devices that the application keeps under a name.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    change::{Change, json_of, object},
    client::Client,
    devices::{self, Device},
    id::{DeviceGroupId, Etag},
};
use crate::transport::{Call, Error, Listing, items};

const COLLECTION: &str = "deviceGroups";

/// The device groups of an application: `/deviceGroups` of the API.
///
/// ```no_run
/// use futures_util::TryStreamExt;
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
/// Every call fails with [`Error`], which names the call; what may be tried again has been
/// ([`RetryPolicy`](super::RetryPolicy)).
#[derive(Debug, Clone)]
pub struct DeviceGroups {
    client: Client,
}

impl Client {
    /// The device groups of the application.
    #[must_use]
    pub fn device_groups(&self) -> DeviceGroups {
        DeviceGroups { client: self.clone() }
    }
}

impl DeviceGroups {
    /// Every device group.
    #[must_use]
    pub fn list(&self) -> Listing<DeviceGroup> {
        items(self.client.rest().clone(), Call::get(&[COLLECTION]), None)
    }

    /// One device group.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where there is none by this id.
    pub async fn get(&self, id: &DeviceGroupId) -> Result<DeviceGroup, Error> {
        self.client.rest().read(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// One device group, or nothing where there is none by this id.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find(&self, id: &DeviceGroupId) -> Result<Option<DeviceGroup>, Error> {
        self.client.rest().find(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Creates a device group, or **replaces** the one that has this id: the service's PUT does either.
    ///
    /// # Errors
    /// [`Error`]; its status is 412 where the group has an etag and was changed since, and it is [`Error::Lost`] where
    /// that was perhaps this very call.
    pub async fn create(&self, id: &DeviceGroupId, group: &NewDeviceGroup) -> Result<DeviceGroup, Error> {
        self.client.rest().read(&Call::put(&[COLLECTION, id.as_str()], &group.body())).await
    }

    /// Changes what the update names and leaves the rest (JSON merge patch, RFC 7396).
    ///
    /// # Errors
    /// [`Error`]; its status is 412 where the update has an etag and the group was changed meanwhile, and it is
    /// [`Error::Lost`] where that was perhaps this very call.
    pub async fn update(&self, id: &DeviceGroupId, update: &DeviceGroupUpdate) -> Result<DeviceGroup, Error> {
        self.client.rest().read(&Call::merge_patch(&[COLLECTION, id.as_str()], &update.body())).await
    }

    /// Deletes a device group. Its devices stay.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where there was none.
    pub async fn delete(&self, id: &DeviceGroupId) -> Result<(), Error> {
        self.client.rest().carry_out(&Call::delete(&[COLLECTION, id.as_str()])).await
    }

    /// The devices that meet a group's query now.
    #[must_use]
    pub fn devices(&self, id: &DeviceGroupId) -> Listing<Device> {
        items(self.client.rest().clone(), Call::get(&[COLLECTION, id.as_str(), devices::COLLECTION]), None)
    }
}

/// A device group, as the service describes it. It is serialised as the service does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DeviceGroup {
    /// Its id.
    pub id: DeviceGroupId,
    /// Its name, as people see it.
    pub display_name: String,
    /// Its query, such as `SELECT * FROM devices WHERE $provisioned = true`.
    pub filter: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The ids of its organizations.
    #[serde(default, deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,
    /// Its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<Etag>,
}

/// A list that may be null.
pub(super) fn or_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A device group to be.
#[derive(Debug, Clone)]
pub struct NewDeviceGroup {
    /// Its name, as people see it.
    pub display_name: String,
    /// Its query, such as `SELECT * FROM devices WHERE $provisioned = true`.
    pub filter: String,
    /// What it is for.
    pub description: Option<String>,
    /// The ids of its organizations. Named to the service where there are any.
    pub organizations: Vec<String>,
    /// The state of the group that this replaces: the service refuses with 412 if it has changed since.
    pub etag: Option<Etag>,
}

impl NewDeviceGroup {
    /// A device group with this name and query.
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

/// A change to a device group: what is named is changed, the rest is left.
#[derive(Debug, Clone, Default)]
pub struct DeviceGroupUpdate {
    /// The new name.
    pub display_name: Option<String>,
    /// The new query.
    pub filter: Option<String>,
    /// What it is for.
    pub description: Change<String>,
    /// The ids of its organizations, all of them.
    pub organizations: Option<Vec<String>>,
    /// The state of the group that this changes: the service refuses with 412 if it has changed since.
    pub etag: Option<Etag>,
}

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
