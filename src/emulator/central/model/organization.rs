//! Organizations, which divide the devices of an application.
//!
//! IDs follow the published pattern `^(?!-)[a-z0-9-]{1,48}[a-z0-9]$`.
//!
//! # Where the documentation is silent
//! - **Existence**: a device or another resource may name an organization that does not exist, but none twice. The
//!   parent of an organization need not exist either. Every token sees everything.
//! - **Etags** are not shown, since none are documented.
//! - **Null in a patch** removes the parent.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    document::Document,
    resource::{self, Resource, consists_of, invalid_id},
};
use crate::emulator::{
    api_error::ApiError,
    etag::Etag,
    fields::{FieldError, Fields},
};

/// An organization.
#[derive(Serialize, Deserialize)]
pub(crate) struct Organization {
    display_name: String,
    parent: Option<String>,
}

impl Resource for Organization {
    const NAME: &'static str = "organization";
    const ID_RULE: &'static str = "2 to 49 lower-case letters, digits and hyphens, no hyphen first or last";

    fn is_id(text: &str) -> bool {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        text.len() >= 2 && consists_of(text, 49, is_allowed) && !text.starts_with('-') && !text.ends_with('-')
    }
}

impl Document for Organization {
    const COLLECTION: &'static str = "organizations";
    const NULLABLE: Option<&'static [&'static str]> = Some(&["parent"]);

    type Body = Self;

    fn read(fields: &mut Fields, id: &str) -> Result<Self, ApiError> {
        resource::read_id::<Self>(fields, id)?;
        let display_name = fields.required("displayName", Fields::string)?;
        let parent = fields.string("parent")?;
        if let Some(parent) = parent.as_ref().filter(|parent| !Self::is_id(parent)) {
            return Err(fields.invalid("parent", invalid_id::<Self>(parent)).into());
        }
        Ok(Self { display_name, parent })
    }

    fn from_body(body: Self, _: Option<&Self>) -> Result<Self, ApiError> {
        Ok(body)
    }

    fn show(&self, id: &str, _: &Etag) -> Value {
        let mut shown = json!({ "id": id, "displayName": self.display_name });
        if let Some(parent) = &self.parent {
            shown["parent"] = json!(parent);
        }
        shown
    }
}

/// Removes the field `organizations`. A missing field is an empty list.
pub(crate) fn read_organizations(fields: &mut Fields) -> Result<Vec<String>, FieldError> {
    let organizations = fields.strings("organizations")?.unwrap_or_default();
    check_organizations(&organizations).map_err(|problem| fields.invalid("organizations", problem))?;
    Ok(organizations)
}

/// Checks that every ID is valid and listed once, and describes the problem otherwise.
pub(crate) fn check_organizations(ids: &[String]) -> Result<(), String> {
    let mut seen = HashSet::new();
    for id in ids {
        if !Organization::is_id(id) {
            return Err(invalid_id::<Organization>(id));
        }
        if !seen.insert(id) {
            return Err(format!("{id:?} is listed twice"));
        }
    }
    Ok(())
}
