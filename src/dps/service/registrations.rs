//! Registration records: which devices registered, and where they were assigned.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    client::Client,
    id::{EnrollmentGroupId, RegistrationId},
    query::Query,
    record::shown_time,
};
use crate::{
    certificate::Timestamp,
    transport::{Call, Error, Etag, Listing, items, pages},
};

const COLLECTION: &str = "registrations";

/// The registration records of an instance: `/registrations` of the API.
///
/// Failed calls are retried by the client's [`RetryPolicy`](super::RetryPolicy).
#[derive(Debug, Clone)]
pub struct Registrations {
    client: Client,
}

impl Client {
    /// Returns the registration records of the instance.
    #[must_use]
    pub fn registrations(&self) -> Registrations {
        Registrations { client: self.clone() }
    }
}

impl Registrations {
    /// Lists the registration records of an enrollment group. Of the query, only page size and limit count.
    pub fn list(&self, group: &EnrollmentGroupId, query: &Query) -> Listing<RegistrationState> {
        items(self.client.rest().clone(), first(group, query), query.limit)
    }

    /// Does the same as [`list`](Self::list), page by page.
    pub fn list_pages(&self, group: &EnrollmentGroupId, query: &Query) -> Listing<Vec<RegistrationState>> {
        pages(self.client.rest().clone(), first(group, query), query.limit)
    }

    /// Reads the registration record of a device.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the device has not registered.
    pub async fn get(&self, id: &RegistrationId) -> Result<RegistrationState, Error> {
        self.client.rest().read(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Reads the registration record of a device. Returns `None` if the device has not registered.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find(&self, id: &RegistrationId) -> Result<Option<RegistrationState>, Error> {
        self.client.rest().find(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Deletes the registration record of a device. With an etag, only if the record still has it.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the device has not registered. If the etag
    /// is not the current one, the status is 412.
    pub async fn delete(&self, id: &RegistrationId, etag: Option<&Etag>) -> Result<(), Error> {
        self.client.rest().execute(&Call::delete(&[COLLECTION, id.as_str()]).with_if_match(etag)).await
    }
}

fn first(group: &EnrollmentGroupId, query: &Query) -> Call {
    query.paged(Call::post_empty(&[COLLECTION, group.as_str(), "query"]))
}

/// The registration record of a device.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RegistrationState {
    /// The registration ID. The record inside an individual enrollment may omit it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration_id: Option<RegistrationId>,
    /// How far the registration came.
    #[serde(default)]
    pub status: RegistrationStatus,
    /// Why the device is assigned to its hub, such as `initialAssignment`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub substatus: Option<String>,
    /// The host name of the IoT Hub that the device is assigned to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned_hub: Option<String>,
    /// The device ID in that hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The error code of a failed registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<i64>,
    /// The error message of a failed registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// When the device first registered.
    #[serde(
        rename = "createdDateTimeUtc",
        default,
        deserialize_with = "shown_time",
        skip_serializing_if = "Option::is_none"
    )]
    pub created_at: Option<Timestamp>,
    /// When the record last changed.
    #[serde(
        rename = "lastUpdatedDateTimeUtc",
        default,
        deserialize_with = "shown_time",
        skip_serializing_if = "Option::is_none"
    )]
    pub updated_at: Option<Timestamp>,
    /// The version of the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<Etag>,
    /// The members that this client does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How far a registration came.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum RegistrationStatus {
    /// `unassigned`: the device has not registered.
    #[default]
    Unassigned,
    /// `assigning`: the service is assigning the device to a hub.
    Assigning,
    /// `assigned`: the device is assigned to a hub.
    Assigned,
    /// `failed`: the registration failed.
    Failed,
    /// `disabled`: the enrollment does not let the device register.
    Disabled,
    /// A status that this client does not know.
    Other(String),
}

impl RegistrationStatus {
    /// Returns the status as the service writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unassigned => "unassigned",
            Self::Assigning => "assigning",
            Self::Assigned => "assigned",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for RegistrationStatus {
    fn from(text: String) -> Self {
        match text.as_str() {
            "unassigned" => Self::Unassigned,
            "assigning" => Self::Assigning,
            "assigned" => Self::Assigned,
            "failed" => Self::Failed,
            "disabled" => Self::Disabled,
            _ => Self::Other(text),
        }
    }
}

impl From<RegistrationStatus> for String {
    fn from(status: RegistrationStatus) -> Self {
        status.as_str().to_owned()
    }
}

impl fmt::Display for RegistrationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
