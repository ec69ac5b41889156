//! JSON objects, read and checked field by field.

use std::{fmt::Display, ops::RangeInclusive};

use serde_json::{Map, Value};

/// A field that is missing, unknown or invalid: its path and the problem.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct FieldError(String);

impl FieldError {
    pub(super) fn new(path: &str, problem: impl Display) -> Self {
        Self(format!("{path}: {problem}"))
    }
}

/// The members of a JSON object. Readers remove what they read, so that the members left at the end are unknown.
///
/// Not serde's derive, which accepts an array for a structure, an object for a variant and null for an absent field.
/// The contract allows none of these.
///
/// Choice: unknown members are errors. A misspelt member would otherwise be ignored silently.
pub(super) struct Fields {
    path: String,
    members: Map<String, Value>,
}

impl Fields {
    /// Takes the members of a body.
    pub(super) fn from_body(value: Value) -> Result<Self, FieldError> {
        match value {
            Value::Object(members) => Ok(Self { path: String::new(), members }),
            other => Err(FieldError::new("the body", format_args!("expected an object, found {}", kind(&other)))),
        }
    }

    /// Removes all members that are null. For the Device Provisioning Service, whose SDKs send null for an absent member.
    pub(super) fn without_nulls(mut self) -> Self {
        self.members.retain(|_, value| !value.is_null());
        self
    }

    /// Removes a string.
    pub(super) fn string(&mut self, name: &str) -> Result<Option<String>, FieldError> {
        self.take(name, "a string", |value| match value {
            Value::String(text) => Ok(text),
            other => Err(other),
        })
    }

    /// Removes a boolean.
    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, FieldError> {
        self.take(name, "true or false", |value| value.as_bool().ok_or(value))
    }

    /// Removes an integer of a range.
    pub(super) fn integer(&mut self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, FieldError> {
        let (min, max) = (range.start(), range.end());
        let number = self.take(name, &format!("an integer from {min} to {max}"), |value| {
            if value.is_number() { Ok(value.as_u64().filter(|number| range.contains(number))) } else { Err(value) }
        })?;
        match number {
            Some(None) => Err(self.invalid(name, format_args!("expected an integer from {min} to {max}"))),
            Some(found) => Ok(found),
            None => Ok(None),
        }
    }

    /// Removes an object.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, FieldError> {
        let path = self.path_of(name);
        self.take(name, "an object", |value| match value {
            Value::Object(members) => Ok(Self { path, members }),
            other => Err(other),
        })
    }

    /// Removes an object without checking its members.
    pub(super) fn any_object(&mut self, name: &str) -> Result<Option<Value>, FieldError> {
        self.take(name, "an object", |value| if value.is_object() { Ok(value) } else { Err(value) })
    }

    /// Removes an array of strings.
    pub(super) fn strings(&mut self, name: &str) -> Result<Option<Vec<String>>, FieldError> {
        self.take(name, "an array of strings", |value| {
            let all = value.as_array().and_then(|all| all.iter().map(|one| one.as_str().map(str::to_owned)).collect());
            all.ok_or(value)
        })
    }

    /// Removes an array of objects.
    pub(super) fn objects(&mut self, name: &str) -> Result<Option<Vec<Self>>, FieldError> {
        let path = self.path_of(name);
        self.take(name, "an array of objects", |value| {
            let Value::Array(all) = value else { return Err(value) };
            if !all.iter().all(Value::is_object) {
                return Err(Value::Array(all));
            }
            let objects = all.into_iter().enumerate().filter_map(|(position, object)| match object {
                Value::Object(members) => Some(Self { path: format!("{path}[{position}]"), members }),
                _ => None,
            });
            Ok(objects.collect())
        })
    }

    /// Removes a value of any type.
    pub(super) fn any(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name)
    }

    /// Returns whether the field is present.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Returns whether the field is present and null.
    pub(super) fn is_null(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(Value::is_null)
    }

    /// Removes a string that `parse` accepts. `expected` lists the accepted strings for the error message.
    pub(super) fn choice<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, FieldError> {
        let Some(text) = self.string(name)? else { return Ok(None) };
        parse(&text).map(Some).ok_or_else(|| self.invalid(name, format_args!("expected {expected}, found {text:?}")))
    }

    /// Removes a required field with one of the other readers.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self, &str) -> Result<Option<T>, FieldError>,
    ) -> Result<T, FieldError> {
        read(self, name)?.ok_or_else(|| self.invalid(name, "is missing"))
    }

    /// Returns an error if any field is left.
    pub(super) fn finish(self) -> Result<(), FieldError> {
        match self.members.keys().next() {
            Some(name) => Err(self.invalid(name, "is an unknown field")),
            None => Ok(()),
        }
    }

    /// Creates the error for an invalid field.
    pub(super) fn invalid(&self, name: &str, problem: impl Display) -> FieldError {
        FieldError::new(&self.path_of(name), problem)
    }

    /// Returns the path of the object. Empty for that of a body.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(Value) -> Result<T, Value>,
    ) -> Result<Option<T>, FieldError> {
        let Some(value) = self.members.remove(name) else { return Ok(None) };
        read(value)
            .map(Some)
            .map_err(|other| self.invalid(name, format_args!("expected {expected}, found {}", kind(&other))))
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// Names the type of a value. The content may be secret.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
