//! Organizations, by which an application parts its devices.
//!
//! Choice: the emulator keeps no organizations, so that each plausible id is taken: 1 to 48 lower-case letters, digits and
//! hyphens, with a letter or digit first and last. None may be named twice.

use std::collections::HashSet;

use super::{error::ApiError, id::consists_of, json::Fields};

/// The field `organizations`; none where it is missing.
pub(super) fn read(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let organizations = fields.strings("organizations")?.unwrap_or_default();
    check(&organizations).map_err(|why| fields.refuse("organizations", why))?;
    Ok(organizations)
}

/// Says what is wrong with the ids.
pub(super) fn check(organizations: &[String]) -> Result<(), String> {
    let mut seen = HashSet::new();
    for id in organizations {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !consists_of(id, 48, fits) || id.starts_with('-') || id.ends_with('-') {
            return Err(format!(
                "{id:?} is no id of an organization: use 1 to 48 lower-case letters, digits and hyphens, no hyphen first or last"
            ));
        }
        if !seen.insert(id) {
            return Err(format!("{id:?} is there twice"));
        }
    }
    Ok(())
}
