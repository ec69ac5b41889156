//! Enrollments as the JSON that the service returns. An update changes this JSON, so that it keeps members that the client
//! does not know.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::certificate::{Certificate, Thumbprint, Timestamp};

pub(super) type Record = Map<String, Value>;

pub(super) const ATTESTATION: &str = "attestation";
pub(super) const ETAG: &str = "etag";
pub(super) const CREATED: &str = "createdDateTimeUtc";
pub(super) const UPDATED: &str = "lastUpdatedDateTimeUtc";
pub(super) const REGISTRATION_STATE: &str = "registrationState";
pub(super) const DEVICE_INFORMATION: &str = "optionalDeviceInformation";

/// The members that the service sets.
const READ_ONLY: [&str; 4] = [ETAG, CREATED, UPDATED, REGISTRATION_STATE];

/// The pairs of certificates whose bodies the service does not return.
const CERTIFICATES: [&str; 2] = ["signingCertificates", "clientCertificates"];

const ENTRIES: [&str; 2] = ["primary", "secondary"];

/// Takes a member out of a record. A member that is `null` counts as missing.
pub(super) fn take<T: DeserializeOwned>(record: &mut Record, name: &str) -> Result<Option<T>, String> {
    match record.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value).map(Some).map_err(|error| format!("member {name}: {error}")),
    }
}

/// Takes a time out of a record.
pub(super) fn take_time(record: &mut Record, name: &str) -> Result<Option<Timestamp>, String> {
    Ok(take::<String>(record, name)?.and_then(|text| parse_time(&text)))
}

/// Parses a time, in UTC if it has no offset. Returns `None` for other text, since no decision depends on these times.
fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().or_else(|_| format!("{text}Z").parse()).ok()
}

/// Deserializes a time that is only shown.
pub(super) fn shown_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| parse_time(&text)))
}

/// Takes a member out of a record that every record has.
pub(super) fn take_required<T: DeserializeOwned>(record: &mut Record, name: &str) -> Result<T, String> {
    take(record, name)?.ok_or_else(|| format!("missing field `{name}`"))
}

/// Edits a member that is an object. Creates it if missing.
pub(super) fn edit_object(record: &mut Record, name: &str, edit: impl FnOnce(&mut Record)) {
    let mut object = match record.remove(name) {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    };
    edit(&mut object);
    record.insert(name.to_owned(), object.into());
}

/// Removes what the service adds to a record: the members that it sets, the metadata of twins, and the descriptions of
/// certificates.
pub(super) fn remove_read_only(record: &mut Record) {
    for name in READ_ONLY {
        record.remove(name);
    }
    remove_twin_metadata(record);
    if let Some(attestation) = record.get_mut(ATTESTATION) {
        for (_, entry) in certificate_entries(attestation) {
            entry.remove("info");
        }
    }
}

/// Removes the metadata that the service adds to twins.
pub(super) fn remove_twin_metadata(record: &mut Record) {
    if let Some(twin) = record.get_mut("initialTwin") {
        for collection in ["/tags", "/properties/desired"] {
            twin.pointer_mut(collection).map(remove_metadata);
        }
    }
    record.get_mut(DEVICE_INFORMATION).map(remove_metadata);
}

/// Removes the metadata of a `TwinCollection`. The service returns it under names that tags and properties may have too, so
/// a member with such a name stays if its value has another type.
fn remove_metadata(collection: &mut Value) {
    let Value::Object(collection) = collection else { return };
    collection.retain(|name, value| match name.as_str() {
        "$version" | "$metadata" => false,
        "version" | "count" => !(value.is_null() || value.is_i64() || value.is_u64()),
        "metadata" => match value {
            Value::Null => false,
            Value::Object(metadata) => {
                !metadata.is_empty()
                    && !metadata.keys().any(|key| key.trim_start_matches('$').starts_with("lastUpdated"))
            }
            _ => true,
        },
        _ => true,
    });
}

/// Returns the certificates in an attestation, with their names such as `signingCertificates.primary`.
fn certificate_entries(attestation: &mut Value) -> impl Iterator<Item = (String, &mut Record)> {
    let x509 = attestation.get_mut("x509").and_then(Value::as_object_mut);
    let pairs = x509.into_iter().flatten().filter(|(name, _)| CERTIFICATES.contains(&name.as_str()));
    pairs.flat_map(|(pair, value)| {
        let entries = value.as_object_mut().into_iter().flatten();
        entries
            .filter(|(name, _)| ENTRIES.contains(&name.as_str()))
            .filter_map(move |(name, entry)| Some((format!("{pair}.{name}"), entry.as_object_mut()?)))
    })
}

/// Returns what an update would remove from an attestation because the service does not return it, if there is any.
pub(super) fn hidden_member(attestation: &mut Value) -> Option<String> {
    let present = |value: Option<&Value>| value.and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    match attestation.get("type").and_then(Value::as_str) {
        Some("symmetricKey") => {
            let key = |name| present(attestation.pointer(&format!("/symmetricKey/{name}")));
            (!key("primaryKey") || !key("secondaryKey")).then(|| "the symmetric keys".to_owned())
        }
        Some("tpm") => (!present(attestation.pointer("/tpm/endorsementKey"))).then(|| "the endorsement key".to_owned()),
        _ => {
            let mut entries = certificate_entries(attestation);
            let (name, _) = entries.find(|(_, entry)| !entry.is_empty() && !present(entry.get("certificate")))?;
            Some(format!("the certificate in {name}"))
        }
    }
}

/// Adds the members of `source` that `target` does not have, also in nested objects.
pub(super) fn fill(target: &mut Value, source: Value) {
    match (target, source) {
        (Value::Object(target), Value::Object(source)) => {
            for (name, value) in source {
                fill(target.entry(name).or_insert(Value::Null), value);
            }
        }
        (target @ Value::Null, source) => *target = source,
        (Value::String(target), Value::String(source)) if target.is_empty() => *target = source,
        _ => {}
    }
}

/// Returns whether a record that was read has everything that was sent.
pub(super) fn covers(found: &Value, sent: &Value) -> bool {
    match (found, sent) {
        (Value::Object(found), Value::Object(sent)) => sent.iter().all(|(name, sent)| match (found.get(name), sent) {
            (Some(found), sent) => covers(found, sent),
            (None, Value::String(body)) if name == "certificate" => describes(found.get("info"), body),
            (None, Value::Object(sent)) => sent.is_empty(),
            (None, Value::Array(sent)) => sent.is_empty(),
            (None, sent) => sent.is_null(),
        }),
        (found, sent) => found == sent,
    }
}

/// Returns whether the description of a certificate is that of this one.
fn describes(info: Option<&Value>, body: &str) -> bool {
    let described = info.and_then(|info| info.get("sha1Thumbprint")?.as_str()?.parse::<Thumbprint>().ok());
    let sent = Certificate::read(body.as_bytes()).ok().map(|certificate| certificate.sha1_thumbprint());
    described.is_some() && described == sent
}
