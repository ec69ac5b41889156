//! Organizations, by which an application parts its devices.
//!
//! Their ids follow the published pattern, `^(?!-)[a-z0-9-]{1,48}[a-z0-9]$`: 2 to 49 lower-case letters, digits and hyphens, no
//! hyphen first or last.
//!
//! Choice: the emulator keeps no organizations, so that every such id is taken. None may be named twice.

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
        if id.len() < 2 || !consists_of(id, 49, fits) || id.starts_with('-') || id.ends_with('-') {
            return Err(format!(
                "{id:?} is no id of an organization: use 2 to 49 lower-case letters, digits and hyphens, no hyphen first or last"
            ));
        }
        if !seen.insert(id) {
            return Err(format!("{id:?} is there twice"));
        }
    }
    Ok(())
}
