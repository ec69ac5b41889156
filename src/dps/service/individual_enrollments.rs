//! Individual enrollments: one device each.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value, json};

use super::{
    attestation::{Attestation, NewAttestation},
    bulk::{BulkError, BulkMode},
    client::Client,
    id::RegistrationId,
    query::Query,
    record::{
        ATTESTATION, CREATED, DEVICE_INFORMATION, ETAG, REGISTRATION_STATE, Record, UPDATED, remove_twin_metadata,
        take, take_required, take_time,
    },
    registrations::RegistrationState,
    settings::EnrollmentSettings,
    update::{Edit, Path},
};
use crate::{
    certificate::Timestamp,
    transport::{Call, Error, Etag, Listing, items, json_of, pages, setters},
};

const COLLECTION: &str = "enrollments";
const ID: &str = "registrationId";
const DEVICE_ID: &str = "deviceId";

/// The individual enrollments of an instance: `/enrollments` of the API.
///
/// ```no_run
/// use iot_enroll::{
///     certificate::Certificate,
///     dps::service::{Client, NewAttestation, NewCertificates, NewIndividualEnrollment},
/// };
///
/// # async fn example(client: Client, certificate: Certificate) -> Result<(), Box<dyn std::error::Error>> {
/// let enrollments = client.individual_enrollments();
/// let attestation = NewAttestation::ClientCertificates(NewCertificates::new(certificate));
/// enrollments.create(&"sensor-1".parse()?, &NewIndividualEnrollment::new(attestation)).await?;
/// # Ok(())
/// # }
/// ```
///
/// Failed calls are retried by the client's [`RetryPolicy`](super::RetryPolicy). For bulk work, create up to
/// [`MAX_BULK`](super::MAX_BULK) with one call: the service limits calls, not enrollments.
#[derive(Debug, Clone)]
pub struct IndividualEnrollments {
    client: Client,
}

impl Client {
    /// Returns the individual enrollments of the instance.
    #[must_use]
    pub fn individual_enrollments(&self) -> IndividualEnrollments {
        IndividualEnrollments { client: self.clone() }
    }
}

impl IndividualEnrollments {
    /// Lists the individual enrollments that match a query.
    pub fn list(&self, query: &Query) -> Listing<IndividualEnrollment> {
        items(self.client.rest().clone(), query.call(COLLECTION), query.limit)
    }

    /// Does the same as [`list`](Self::list), page by page.
    pub fn list_pages(&self, query: &Query) -> Listing<Vec<IndividualEnrollment>> {
        pages(self.client.rest().clone(), query.call(COLLECTION), query.limit)
    }

    /// Reads an individual enrollment.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the individual enrollment does not exist.
    pub async fn get(&self, id: &RegistrationId) -> Result<IndividualEnrollment, Error> {
        self.client.rest().read(&Call::get(&path(id))).await
    }

    /// Reads an individual enrollment. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find(&self, id: &RegistrationId) -> Result<Option<IndividualEnrollment>, Error> {
        self.client.rest().find(&Call::get(&path(id))).await
    }

    /// Creates an individual enrollment. If the answer is lost, the individual enrollment is read, and returned if it has
    /// what was sent.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the individual enrollment exists, or another [`Error`].
    pub async fn create(
        &self,
        id: &RegistrationId,
        enrollment: &NewIndividualEnrollment,
    ) -> Result<IndividualEnrollment, Error> {
        self.client.create(path(id), &enrollment.edit(id)).await
    }

    /// Changes what the update names and keeps the rest, also members that this client does not know.
    ///
    /// The individual enrollment is read, changed and written back. If another client changes it in between, the update
    /// starts again, unless it has an etag. An individual enrollment with
    /// [`ClientCertificates`](Attestation::ClientCertificates) can only be updated together with its attestation, because
    /// the service does not return these certificates.
    ///
    /// # Errors
    /// [`Error::WouldRemove`] if the update would remove a certificate, or another [`Error`]. If the update has an etag
    /// that is not the individual enrollment's current one, the status is 412, or the error is [`Error::OutcomeUnknown`]
    /// if an answer was lost before.
    pub async fn update(
        &self,
        id: &RegistrationId,
        update: &IndividualEnrollmentUpdate,
    ) -> Result<IndividualEnrollment, Error> {
        let IndividualEnrollmentUpdate { attestation, device_id, device_information, settings, etag } = update;
        let members = members(device_id.as_ref(), device_information.as_ref());
        let edit = Edit { attestation: attestation.as_ref(), settings: Some(settings), members };
        self.client.update(path(id), &edit, etag.as_ref()).await
    }

    /// Deletes an individual enrollment. With an etag, only if it still has that etag.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the individual enrollment does not exist. If
    /// the etag is not the current one, the status is 412.
    pub async fn delete(&self, id: &RegistrationId, etag: Option<&Etag>) -> Result<(), Error> {
        self.client.delete(path(id), etag).await
    }

    /// Reads how the device proves its identity, with the symmetric keys if it has any.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the individual enrollment does not exist.
    pub async fn attestation(&self, id: &RegistrationId) -> Result<Attestation, Error> {
        self.client.attestation(path(id)).await
    }

    /// Creates up to [`MAX_BULK`](super::MAX_BULK) individual enrollments with one call. Returns those that failed.
    ///
    /// # Errors
    /// [`Error::TooManyItems`], or another [`Error`] that concerns all of them. If
    /// [`answer_was_lost`](Error::answer_was_lost), some may be created.
    pub async fn create_many(
        &self,
        enrollments: &[(RegistrationId, NewIndividualEnrollment)],
    ) -> Result<Vec<BulkError>, Error> {
        let edits: Vec<_> = enrollments.iter().map(|(id, enrollment)| enrollment.edit(id)).collect();
        let (records, secrets) = edits.iter().map(|edit| (edit.to_record().into(), edit.secrets())).unzip();
        let secrets: Vec<Vec<_>> = secrets;
        self.client.bulk(COLLECTION, BulkMode::Create, records, secrets.concat()).await
    }

    /// Deletes up to [`MAX_BULK`](super::MAX_BULK) individual enrollments with one call. Returns those that failed.
    ///
    /// # Errors
    /// [`Error::TooManyItems`], or another [`Error`] that concerns all of them. If
    /// [`answer_was_lost`](Error::answer_was_lost), some may be deleted.
    pub async fn delete_many(&self, ids: &[RegistrationId]) -> Result<Vec<BulkError>, Error> {
        // The API requires an attestation in every record.
        let records = ids.iter().map(|id| json!({ ID: id, ATTESTATION: { "type": "none" } })).collect();
        self.client.bulk(COLLECTION, BulkMode::Delete, records, Vec::new()).await
    }
}

fn path(id: &RegistrationId) -> Path<'_> {
    [COLLECTION, id.as_str()]
}

fn members(device_id: Option<&String>, device_information: Option<&Map<String, Value>>) -> Vec<(&'static str, Value)> {
    let members = [(DEVICE_ID, json_of(device_id)), (DEVICE_INFORMATION, json_of(device_information))];
    members.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// An individual enrollment. It serializes to the service's JSON without symmetric keys.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IndividualEnrollment {
    /// The registration ID.
    pub id: RegistrationId,
    /// The ID that the device gets in its hub. `None` means the registration ID.
    pub device_id: Option<String>,
    /// How the device proves its identity.
    pub attestation: Attestation,
    /// Its settings, without the metadata that the service adds to twins.
    pub settings: EnrollmentSettings,
    /// Whether and where the device registered.
    pub registration_state: Option<RegistrationState>,
    /// Information that the device is given when it registers.
    pub device_information: Option<Map<String, Value>>,
    /// The version of the record, with the quotation marks that the service gives it.
    pub etag: Option<Etag>,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Option<Timestamp>,
    /// The members that this client does not know. Updates keep them.
    pub other: Map<String, Value>,
}

impl IndividualEnrollment {
    /// Returns whether the device can register.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        // The API's default.
        self.settings.enabled.unwrap_or(true)
    }

    fn take(mut record: Record) -> Result<Self, String> {
        remove_twin_metadata(&mut record);
        Ok(Self {
            id: take_required(&mut record, ID)?,
            device_id: take(&mut record, DEVICE_ID)?,
            attestation: take_required(&mut record, ATTESTATION)?,
            settings: EnrollmentSettings::take(&mut record)?,
            registration_state: take(&mut record, REGISTRATION_STATE)?,
            device_information: take(&mut record, DEVICE_INFORMATION)?,
            etag: take(&mut record, ETAG)?,
            created_at: take_time(&mut record, CREATED)?,
            updated_at: take_time(&mut record, UPDATED)?,
            other: record,
        })
    }
}

impl<'de> Deserialize<'de> for IndividualEnrollment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::take(Record::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for IndividualEnrollment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut record = self.other.clone();
        self.settings.print(&mut record);
        let members = [
            (ID, Some(json!(self.id))),
            (DEVICE_ID, json_of(self.device_id.as_ref())),
            (ATTESTATION, Some(json!(self.attestation))),
            (REGISTRATION_STATE, json_of(self.registration_state.as_ref())),
            (DEVICE_INFORMATION, json_of(self.device_information.as_ref())),
            (ETAG, json_of(self.etag.as_ref())),
            (CREATED, json_of(self.created_at.as_ref())),
            (UPDATED, json_of(self.updated_at.as_ref())),
        ];
        record.extend(members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        record.serialize(serializer)
    }
}

/// An individual enrollment to create.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewIndividualEnrollment {
    /// How the device proves its identity.
    pub attestation: NewAttestation,
    /// The ID that the device gets in its hub. `None` means the registration ID.
    pub device_id: Option<String>,
    /// Information that the device is given when it registers.
    pub device_information: Option<Map<String, Value>>,
    /// Its settings.
    pub settings: EnrollmentSettings,
}

impl NewIndividualEnrollment {
    /// Returns an individual enrollment with the settings that the service chooses.
    #[must_use]
    pub fn new(attestation: impl Into<NewAttestation>) -> Self {
        Self {
            attestation: attestation.into(),
            device_id: None,
            device_information: None,
            settings: EnrollmentSettings::default(),
        }
    }

    fn edit(&self, id: &RegistrationId) -> Edit<'_> {
        let mut members = members(self.device_id.as_ref(), self.device_information.as_ref());
        members.push((ID, json!(id)));
        Edit { attestation: Some(&self.attestation), settings: Some(&self.settings), members }
    }
}

setters!(NewIndividualEnrollment {
    device_id: Option<String>,
    device_information: Option<Map<String, Value>>,
    settings: EnrollmentSettings,
});

/// A change to an individual enrollment. What is not set keeps its value.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct IndividualEnrollmentUpdate {
    /// How the device proves its identity.
    pub attestation: Option<NewAttestation>,
    /// The ID that the device gets in its hub.
    pub device_id: Option<String>,
    /// Information that the device is given when it registers.
    pub device_information: Option<Map<String, Value>>,
    /// Its settings.
    pub settings: EnrollmentSettings,
    /// The version of the individual enrollment to change. The service refuses to change another version (412).
    pub etag: Option<Etag>,
}

impl IndividualEnrollmentUpdate {
    /// Returns an update that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

setters!(IndividualEnrollmentUpdate {
    attestation: Option<NewAttestation>,
    device_id: Option<String>,
    device_information: Option<Map<String, Value>>,
    settings: EnrollmentSettings,
    etag: Option<Etag>,
});
