//! The initial twin of an enrollment.
//!
//! # Where the documentation is silent
//! - **Collections in answers** (`tags`, `desired`, `optionalDeviceInformation`) have the members `version`, `count` and
//!   `metadata` beside their own. In a body they are ignored, so that an answer can be sent back.

use serde_json::{Value, json};

use crate::{
    certificate::Timestamp,
    emulator::{
        dps::timestamp::timestamp,
        fields::{FieldError, Fields},
    },
};

/// The members of a collection that the service sets.
const SERVICE_MEMBERS: [&str; 3] = ["version", "count", "metadata"];

/// Removes a collection and its members that the service sets.
pub(crate) fn read_collection(fields: &mut Fields, name: &str) -> Result<Option<Value>, FieldError> {
    let mut collection = fields.any_object(name)?;
    if let Some(Value::Object(members)) = &mut collection {
        members.retain(|name, _| !SERVICE_MEMBERS.contains(&name.as_str()));
    }
    Ok(collection)
}

/// Removes the field `initialTwin`.
pub(crate) fn read_initial_twin(fields: &mut Fields) -> Result<Option<Value>, FieldError> {
    let Some(fields) = fields.object("initialTwin")? else { return Ok(None) };
    let mut fields = fields.without_nulls();
    let mut twin = json!({});
    if let Some(tags) = read_collection(&mut fields, "tags")? {
        twin["tags"] = tags;
    }
    if let Some(properties) = fields.object("properties")? {
        let mut properties = properties.without_nulls();
        twin["properties"] = json!({});
        if let Some(desired) = read_collection(&mut properties, "desired")? {
            twin["properties"]["desired"] = desired;
        }
        properties.finish()?;
    }
    fields.finish()?;
    Ok(Some(twin))
}

/// Adds the members that the service sets to a collection in an answer.
pub(crate) fn show_collection(collection: &mut Value, updated: Timestamp) {
    if let Value::Object(members) = collection {
        let count = members.len();
        members.insert("version".to_owned(), json!(1));
        members.insert("count".to_owned(), json!(count));
        let metadata = json!({ "lastUpdated": timestamp(updated), "lastUpdatedVersion": 1 });
        members.insert("metadata".to_owned(), metadata);
    }
}
