//! What a merge patch does to a field that can also be emptied.

use serde_json::{Map, Value, json};

/// What a change does to a field that can be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Change<T> {
    /// Leaves it.
    #[default]
    Keep,
    /// Empties it: `null` in the merge patch (RFC 7396).
    Clear,
    /// Gives it this value.
    Set(T),
}

impl<T> Change<T> {
    /// What the patch says, if it says anything.
    pub(super) fn body(&self, value: impl FnOnce(&T) -> Value) -> Option<Value> {
        match self {
            Self::Keep => None,
            Self::Clear => Some(Value::Null),
            Self::Set(it) => Some(value(it)),
        }
    }
}

impl<T> From<T> for Change<T> {
    fn from(value: T) -> Self {
        Self::Set(value)
    }
}

/// An object of those fields that have a value.
pub(super) fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let present = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    present.collect::<Map<_, _>>().into()
}

/// A value as JSON, if there is one.
pub(super) fn json_of<T: serde::Serialize>(value: Option<&T>) -> Option<Value> {
    value.map(|it| json!(it))
}
