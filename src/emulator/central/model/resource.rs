//! The IDs of resources.

use std::{
    collections::{BTreeMap, btree_map::Range},
    ops::Bound,
};

use crate::emulator::fields::{FieldError, Fields};

/// The rule for the IDs of device groups: `^[a-zA-Z0-9_-]+$` in the API description. Those of deployment manifests
/// follow it too, by choice.
pub(crate) const NAME_RULE: &str = "1 to 255 letters, digits, hyphens and underscores";

/// A kind of resource that has an ID.
pub(crate) trait Resource: Sized {
    /// The name of the kind, in lower case.
    const NAME: &'static str;
    /// The rule of [`is_id`](Self::is_id), for error messages.
    const ID_RULE: &'static str;

    /// Returns whether a text follows the rule for IDs.
    fn is_id(text: &str) -> bool;

    /// Returns whether two IDs name the same resource.
    fn is_same_id(one: &str, other: &str) -> bool {
        one == other
    }
}

/// Removes the field `id`, which may only repeat the ID in the path.
pub(crate) fn read_id<R: Resource>(fields: &mut Fields, id: &str) -> Result<(), FieldError> {
    match fields.string("id")?.filter(|given| !R::is_same_id(given, id)) {
        Some(other) => Err(fields.invalid("id", format_args!("found {other:?}, but the path has {id:?}"))),
        None => Ok(()),
    }
}

/// Describes an ID that is against the rule.
pub(crate) fn invalid_id<R: Resource>(id: &str) -> String {
    format!("{id:?} is not a valid {} ID: use {}", R::NAME, R::ID_RULE)
}

/// Returns whether a text follows [`NAME_RULE`].
pub(crate) fn is_name(text: &str) -> bool {
    consists_of(text, 255, |byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Returns whether a text has 1 to `max` bytes that are all allowed.
pub(crate) fn consists_of(text: &str, max: usize, is_allowed: impl Fn(u8) -> bool) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Returns the part of a collection after a sort key, which is an ID.
pub(crate) fn after_id<'a, T>(all: &'a BTreeMap<String, T>, after: Option<&[String]>) -> Range<'a, String, T> {
    let start = after.and_then(<[String]>::first).map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_str()));
    all.range::<str, _>((start, Bound::Unbounded))
}
