//! Bodies of requests, and the setters of option structs.

use serde_json::{Map, Value, json};

/// A change to an optional field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Change<T> {
    /// Keeps the value.
    #[default]
    Keep,
    /// Removes the value: `null` in the merge patch (RFC 7396).
    Clear,
    /// Sets a new value.
    Set(T),
}

impl<T> Change<T> {
    /// Returns the field's value in the patch, if the patch names the field.
    pub(crate) fn body(&self, value: impl FnOnce(&T) -> Value) -> Option<Value> {
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

/// Returns an object of the fields that have a value.
pub(crate) fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let present = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    present.collect::<Map<_, _>>().into()
}

/// Returns a value as JSON, if there is one.
pub(crate) fn json_of<T: serde::Serialize>(value: Option<&T>) -> Option<Value> {
    value.map(|it| json!(it))
}

/// Defines a setter for each field. A setter takes the field's type or anything that converts into it, so that
/// `.etag(etag)` takes an `Etag` and an `Option<Etag>`.
macro_rules! setters {
    ($name:ident $(<$lifetime:lifetime>)? { $($field:ident: $type:ty),* $(,)? }) => {
        impl $(<$lifetime>)? $name $(<$lifetime>)? {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, value: impl Into<$type>) -> Self {
                    self.$field = value.into();
                    self
                }
            )*
        }
    };
}
pub(crate) use setters;
