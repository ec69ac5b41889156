//! Enrollment groups: many devices that prove their identity by the same CA or key.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value, json};

use super::{
    attestation::{Attestation, CaReferences, NewAttestation},
    bulk::{BulkError, BulkMode},
    client::Client,
    id::EnrollmentGroupId,
    query::Query,
    record::{ATTESTATION, CREATED, ETAG, Record, UPDATED, remove_twin_metadata, take, take_required, take_time},
    settings::EnrollmentSettings,
    update::{Edit, Path},
};
use crate::{
    certificate::Timestamp,
    transport::{Call, Error, Etag, Listing, items, json_of, pages, setters},
};

const COLLECTION: &str = "enrollmentGroups";
const ID: &str = "enrollmentGroupId";

/// The enrollment groups of an instance: `/enrollmentGroups` of the API.
///
/// ```no_run
/// use iot_enroll::dps::service::{CaReferences, Client, EnrollmentGroupUpdate, EnrollmentSettings, NewEnrollmentGroup};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let groups = client.enrollment_groups();
/// let id = "myx509eg".parse()?;
/// let group = groups.create(&id, &NewEnrollmentGroup::new(CaReferences::primary("root-2026".parse()?))).await?;
/// let update = EnrollmentGroupUpdate::new().settings(EnrollmentSettings::new().enabled(false)).etag(group.etag);
/// groups.update(&id, &update).await?;
/// let all: Vec<_> = groups.list(&Default::default()).try_collect().await?;
/// # Ok(())
/// # }
/// ```
///
/// Failed calls are retried by the client's [`RetryPolicy`](super::RetryPolicy).
#[derive(Debug, Clone)]
pub struct EnrollmentGroups {
    client: Client,
}

impl Client {
    /// Returns the enrollment groups of the instance.
    #[must_use]
    pub fn enrollment_groups(&self) -> EnrollmentGroups {
        EnrollmentGroups { client: self.clone() }
    }
}

impl EnrollmentGroups {
    /// Lists the enrollment groups that match a query.
    pub fn list(&self, query: &Query) -> Listing<EnrollmentGroup> {
        items(self.client.rest().clone(), query.call(COLLECTION), query.limit)
    }

    /// Does the same as [`list`](Self::list), page by page.
    pub fn list_pages(&self, query: &Query) -> Listing<Vec<EnrollmentGroup>> {
        pages(self.client.rest().clone(), query.call(COLLECTION), query.limit)
    }

    /// Reads an enrollment group.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the enrollment group does not exist.
    pub async fn get(&self, id: &EnrollmentGroupId) -> Result<EnrollmentGroup, Error> {
        self.client.rest().read(&Call::get(&path(id))).await
    }

    /// Reads an enrollment group. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find(&self, id: &EnrollmentGroupId) -> Result<Option<EnrollmentGroup>, Error> {
        self.client.rest().find(&Call::get(&path(id))).await
    }

    /// Creates an enrollment group. If the answer is lost, the enrollment group is read, and returned if it has what was
    /// sent.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the enrollment group exists, or another [`Error`].
    pub async fn create(&self, id: &EnrollmentGroupId, group: &NewEnrollmentGroup) -> Result<EnrollmentGroup, Error> {
        self.client.create(path(id), &group.edit(id)).await
    }

    /// Changes what the update names and keeps the rest, also members that this client does not know.
    ///
    /// The enrollment group is read, changed and written back. If another client changes it in between, the update starts
    /// again, unless it has an etag. An enrollment group with [`SigningCertificates`](Attestation::SigningCertificates)
    /// can only be updated together with its attestation, because the service does not return these certificates.
    ///
    /// # Errors
    /// [`Error::WouldRemove`] if the update would remove a certificate, or another [`Error`]. If the update has an etag
    /// that is not the enrollment group's current one, the status is 412, or the error is [`Error::OutcomeUnknown`] if an
    /// answer was lost before.
    pub async fn update(
        &self,
        id: &EnrollmentGroupId,
        update: &EnrollmentGroupUpdate,
    ) -> Result<EnrollmentGroup, Error> {
        let EnrollmentGroupUpdate { attestation, settings, etag } = update;
        let edit = Edit { attestation: attestation.as_ref(), settings: Some(settings), members: Vec::new() };
        self.client.update(path(id), &edit, etag.as_ref()).await
    }

    /// Deletes an enrollment group. With an etag, only if it still has that etag. Devices can no longer register through
    /// it.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the enrollment group does not exist. If the
    /// etag is not the current one, the status is 412.
    pub async fn delete(&self, id: &EnrollmentGroupId, etag: Option<&Etag>) -> Result<(), Error> {
        self.client.delete(path(id), etag).await
    }

    /// Reads how the devices of an enrollment group prove their identity, with the symmetric keys if it has any.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the enrollment group does not exist.
    pub async fn attestation(&self, id: &EnrollmentGroupId) -> Result<Attestation, Error> {
        self.client.attestation(path(id)).await
    }

    /// Creates up to [`MAX_BULK`](super::MAX_BULK) enrollment groups with one call. Returns those that failed.
    ///
    /// # Errors
    /// [`Error::TooManyItems`], or another [`Error`] that concerns all of them. If
    /// [`answer_was_lost`](Error::answer_was_lost), some may be created.
    pub async fn create_many(
        &self,
        groups: &[(EnrollmentGroupId, NewEnrollmentGroup)],
    ) -> Result<Vec<BulkError>, Error> {
        let edits: Vec<_> = groups.iter().map(|(id, group)| group.edit(id)).collect();
        let (records, secrets) = edits.iter().map(|edit| (edit.to_record().into(), edit.secrets())).unzip();
        let secrets: Vec<Vec<_>> = secrets;
        self.client.bulk(COLLECTION, BulkMode::Create, records, secrets.concat()).await
    }

    /// Deletes up to [`MAX_BULK`](super::MAX_BULK) enrollment groups with one call. Returns those that failed.
    ///
    /// # Errors
    /// [`Error::TooManyItems`], or another [`Error`] that concerns all of them. If
    /// [`answer_was_lost`](Error::answer_was_lost), some may be deleted.
    pub async fn delete_many(&self, ids: &[EnrollmentGroupId]) -> Result<Vec<BulkError>, Error> {
        // The API requires an attestation in every record.
        let records = ids.iter().map(|id| json!({ ID: id, ATTESTATION: { "type": "none" } })).collect();
        self.client.bulk(COLLECTION, BulkMode::Delete, records, Vec::new()).await
    }
}

fn path(id: &EnrollmentGroupId) -> Path<'_> {
    [COLLECTION, id.as_str()]
}

/// An enrollment group. It serializes to the service's JSON without symmetric keys.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EnrollmentGroup {
    /// The ID.
    pub id: EnrollmentGroupId,
    /// How its devices prove their identity.
    pub attestation: Attestation,
    /// Its settings, without the metadata that the service adds to twins.
    pub settings: EnrollmentSettings,
    /// The version of the record, with the quotation marks that the service gives it.
    pub etag: Option<Etag>,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Option<Timestamp>,
    /// The members that this client does not know. Updates keep them.
    pub other: Map<String, Value>,
}

impl EnrollmentGroup {
    /// Returns whether devices can register through it.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        // The API's default.
        self.settings.enabled.unwrap_or(true)
    }

    /// Returns the names of the CA certificates that it admits devices by, if it has any.
    #[must_use]
    pub fn ca_references(&self) -> Option<&CaReferences> {
        self.attestation.ca_references()
    }

    fn take(mut record: Record) -> Result<Self, String> {
        remove_twin_metadata(&mut record);
        Ok(Self {
            id: take_required(&mut record, ID)?,
            attestation: take_required(&mut record, ATTESTATION)?,
            settings: EnrollmentSettings::take(&mut record)?,
            etag: take(&mut record, ETAG)?,
            created_at: take_time(&mut record, CREATED)?,
            updated_at: take_time(&mut record, UPDATED)?,
            other: record,
        })
    }
}

impl<'de> Deserialize<'de> for EnrollmentGroup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::take(Record::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for EnrollmentGroup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut record = self.other.clone();
        self.settings.print(&mut record);
        let members = [
            (ID, Some(json!(self.id))),
            (ATTESTATION, Some(json!(self.attestation))),
            (ETAG, json_of(self.etag.as_ref())),
            (CREATED, json_of(self.created_at.as_ref())),
            (UPDATED, json_of(self.updated_at.as_ref())),
        ];
        record.extend(members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        record.serialize(serializer)
    }
}

/// An enrollment group to create.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewEnrollmentGroup {
    /// How its devices prove their identity.
    pub attestation: NewAttestation,
    /// Its settings.
    pub settings: EnrollmentSettings,
}

impl NewEnrollmentGroup {
    /// Returns a group with the settings that the service chooses.
    #[must_use]
    pub fn new(attestation: impl Into<NewAttestation>) -> Self {
        Self { attestation: attestation.into(), settings: EnrollmentSettings::default() }
    }

    fn edit(&self, id: &EnrollmentGroupId) -> Edit<'_> {
        let members = vec![(ID, json!(id))];
        Edit { attestation: Some(&self.attestation), settings: Some(&self.settings), members }
    }
}

setters!(NewEnrollmentGroup { settings: EnrollmentSettings });

/// A change to an enrollment group. What is not set keeps its value.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EnrollmentGroupUpdate {
    /// How its devices prove their identity.
    pub attestation: Option<NewAttestation>,
    /// Its settings.
    pub settings: EnrollmentSettings,
    /// The version of the enrollment group to change. The service refuses to change another version (412).
    pub etag: Option<Etag>,
}

impl EnrollmentGroupUpdate {
    /// Returns an update that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

setters!(EnrollmentGroupUpdate {
    attestation: Option<NewAttestation>,
    settings: EnrollmentSettings,
    etag: Option<Etag>,
});
