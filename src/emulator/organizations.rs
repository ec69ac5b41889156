//! Organizations, by which an application parts its devices: model and rules.
//!
//! Their ids follow the published pattern, `^(?!-)[a-z0-9-]{1,48}[a-z0-9]$`: 2 to 49 lower-case letters, digits and hyphens, no
//! hyphen first or last.
//!
//! # Where the documentation is silent
//! - **What is assigned to an organization**, devices and others, may name one that does not exist; none may be named twice.
//!   A parent need not exist either. Every token sees everything.
//! - **No etag** is shown, as none is described.
//! - **Null in a patch** takes the parent away.

use std::collections::{BTreeMap, HashSet};

use axum::Router;
use serde_json::{Value, json};

use super::{
    application::Shared,
    document::{self, Document},
    error::ApiError,
    id::{Id, Resource, consists_of},
    json::Fields,
    store::{Etag, State as Everything},
};

/// The rule for the ids.
const ID_RULE: &str = "2 to 49 lower-case letters, digits and hyphens, no hyphen first or last";

/// The routes of the resource, below `/api`.
pub(super) fn routes() -> Router<Shared> {
    document::routes::<Organization>()
}

/// An organization as it is kept.
pub(super) struct Organization {
    id: String,
    content: Content,
    etag: Etag,
}

/// What a body says of an organization.
pub(super) struct Content {
    display_name: String,
    parent: Option<String>,
}

impl Resource for Organization {
    const NAME: &'static str = "organization";
    const ID_RULE: &'static str = ID_RULE;

    fn is_id(text: &str) -> bool {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        text.len() >= 2 && consists_of(text, 49, fits) && !text.starts_with('-') && !text.ends_with('-')
    }

    fn find<'a>(state: &'a mut Everything, id: &str) -> Option<&'a mut Self> {
        state.organizations.get_mut(id)
    }
}

impl Document for Organization {
    const COLLECTION: &'static str = "organizations";
    const NULLABLE: &'static [&'static str] = &["parent"];

    type Content = Content;

    fn read(fields: &mut Fields, id: &Id<Self>) -> Result<Content, ApiError> {
        document::read_id(fields, id)?;
        let display_name = fields.required("displayName", Fields::string)?;
        let parent = fields.string("parent")?;
        if let Some(parent) = parent.as_ref().filter(|parent| !Self::is_id(parent)) {
            return Err(fields.refuse("parent", refusal(parent)));
        }
        Ok(Content { display_name, parent })
    }

    fn new(id: String, content: Content, etag: Etag) -> Self {
        Self { id, content, etag }
    }

    fn all(state: &mut Everything) -> &mut BTreeMap<String, Self> {
        &mut state.organizations
    }

    fn etag(&self) -> &Etag {
        &self.etag
    }

    fn show(&self) -> Value {
        let mut shown = json!({ "id": self.id, "displayName": self.content.display_name });
        if let Some(parent) = &self.content.parent {
            shown["parent"] = json!(parent);
        }
        shown
    }
}

fn refusal(id: &str) -> String {
    format!("{id:?} is no id of an organization: use {ID_RULE}")
}

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
        if !Organization::is_id(id) {
            return Err(refusal(id));
        }
        if !seen.insert(id) {
            return Err(format!("{id:?} is there twice"));
        }
    }
    Ok(())
}
