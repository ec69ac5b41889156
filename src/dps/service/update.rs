//! Creating and updating enrollments.
//!
//! The service has no partial update: a PUT replaces the whole record. An update therefore reads the record, changes what
//! is named, and writes all of it back on condition that it did not change in between.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    attestation::NewAttestation,
    client::Client,
    record::{
        ATTESTATION, ETAG, Record, covers, edit_object, fill, hidden_member, remove_read_only, remove_twin_metadata,
    },
    settings::{EnrollmentSettings, function_url},
};
use crate::transport::{Call, Error, Etag, Secret, conflict_delays};

/// How often an update is started again because another client changed the record in between.
const MAX_CONFLICTS: u32 = 8;

/// The path of an enrollment: its collection and its ID.
pub(super) type Path<'a> = [&'a str; 2];

/// What to write into a record.
#[derive(Default)]
pub(super) struct Edit<'a> {
    pub(super) attestation: Option<&'a NewAttestation>,
    pub(super) settings: Option<&'a EnrollmentSettings>,
    /// Members of this kind of enrollment.
    pub(super) members: Vec<(&'static str, Value)>,
}

impl Edit<'_> {
    pub(super) fn apply(&self, record: &mut Record) {
        if let Some(attestation) = self.attestation {
            edit_object(record, ATTESTATION, |record| attestation.apply(record));
        }
        if let Some(settings) = self.settings {
            settings.apply(record);
        }
        for (name, value) in &self.members {
            record.insert((*name).to_owned(), value.clone());
        }
    }

    /// Returns the record of a new enrollment.
    pub(super) fn to_record(&self) -> Record {
        let mut record = Map::new();
        self.apply(&mut record);
        record
    }

    pub(super) fn secrets(&self) -> Vec<Secret> {
        let attestation = self.attestation.into_iter().flat_map(NewAttestation::secrets);
        attestation.chain(self.settings.into_iter().flat_map(EnrollmentSettings::secrets)).collect()
    }
}

impl Client {
    /// Creates an enrollment.
    pub(super) async fn create<T: DeserializeOwned>(&self, path: Path<'_>, edit: &Edit<'_>) -> Result<T, Error> {
        let record = edit.to_record();
        let call = Call::put(&path, &record).creating().with_secrets(edit.secrets());
        match self.rest().read(&call).await {
            Err(error @ Error::OutcomeUnknown { .. }) => self.settle(path, record, error).await,
            // The service refuses a CA that another enrollment has with the same status.
            Err(error) if error.status() == Some(409) => match self.rest().find::<Record>(&Call::get(&path)).await {
                Ok(Some(_)) => Err(Error::AlreadyExists { operation: call.operation() }),
                _ => Err(error),
            },
            result => result,
        }
    }

    /// Changes an enrollment. With an etag, only if the enrollment still has it.
    pub(super) async fn update<T: DeserializeOwned>(
        &self,
        path: Path<'_>,
        edit: &Edit<'_>,
        etag: Option<&Etag>,
    ) -> Result<T, Error> {
        let (mut conflicts, mut delays) = (0, conflict_delays(MAX_CONFLICTS));
        loop {
            let mut record: Record = self.rest().read(&Call::get(&path)).await?;
            let current = record.get(ETAG).and_then(Value::as_str).map(Etag::new);
            let mut secrets = edit.secrets();
            secrets.extend(function_url(&record));
            match edit.attestation {
                None => secrets.extend(self.complete(path, &mut record).await?),
                Some(new) => {
                    if let Some(member) = record.get(ATTESTATION).and_then(|found| new.omitted_member(found)) {
                        return Err(would_remove(path, member));
                    }
                }
            }
            remove_read_only(&mut record);
            edit.apply(&mut record);
            // Without `If-Match` the service creates. `*` matches any version.
            let condition = etag.cloned().or(current).unwrap_or_else(|| Etag::new("*"));
            let call = Call::put(&path, &record).with_if_match(Some(&condition)).with_secrets(secrets);
            match self.rest().read(&call).await {
                Err(error @ Error::OutcomeUnknown { .. }) => return self.settle(path, record, error).await,
                Err(error) if error.status() == Some(412) && etag.is_none() => {
                    conflicts += 1;
                    let Some(delay) = delays.next() else {
                        return Err(Error::Contention { operation: call.operation(), attempts: conflicts });
                    };
                    self.rest().sleep(delay).await;
                }
                result => return result,
            }
        }
    }

    /// Deletes an enrollment. With an etag, only if the enrollment still has it.
    pub(super) async fn delete(&self, path: Path<'_>, etag: Option<&Etag>) -> Result<(), Error> {
        self.rest().execute(&Call::delete(&path).with_if_match(etag)).await
    }

    /// Reads the attestation of an enrollment, with its keys.
    pub(super) async fn attestation<T: DeserializeOwned>(&self, path: Path<'_>) -> Result<T, Error> {
        let [collection, id] = path;
        self.rest().read(&Call::post_empty(&[collection, id, "attestationmechanism"]).reading_keys()).await
    }

    /// Adds to a record what reading it does not return, so that writing it back does not remove that. Returns the keys
    /// among it.
    ///
    /// The service is known to return symmetric keys by `attestationmechanism`, and not known to return certificates.
    /// Whether it keeps a certificate that is written back without its body is not documented, so such an update is
    /// refused.
    async fn complete(&self, path: Path<'_>, record: &mut Record) -> Result<Vec<Secret>, Error> {
        let Some(attestation) = record.get_mut(ATTESTATION) else { return Ok(Vec::new()) };
        if hidden_member(attestation).is_some() {
            fill(attestation, self.attestation(path).await?);
        }
        if let Some(member) = hidden_member(attestation) {
            return Err(would_remove(path, member));
        }
        let keys = attestation.get("symmetricKey").and_then(Value::as_object);
        Ok(keys.into_iter().flat_map(Map::values).filter_map(Value::as_str).map(Secret::from).collect())
    }

    /// Reads an enrollment after a change whose answer was lost. Returns it if it has what was sent, and the error if not.
    async fn settle<T: DeserializeOwned>(&self, path: Path<'_>, sent: Record, error: Error) -> Result<T, Error> {
        let Ok(mut found) = self.rest().read::<Record>(&Call::get(&path)).await else { return Err(error) };
        remove_twin_metadata(&mut found);
        if let Some(attestation) = found.get_mut(ATTESTATION)
            && hidden_member(attestation).is_some()
            && let Ok(complete) = self.attestation(path).await
        {
            fill(attestation, complete);
        }
        if covers(&found.into(), &sent.into()) { self.rest().read(&Call::get(&path)).await } else { Err(error) }
    }
}

fn would_remove(path: Path<'_>, member: String) -> Error {
    Error::WouldRemove { operation: Call::put(&path, &()).operation(), member }
}
