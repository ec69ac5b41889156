//! Device groups.
//!
//! # Where the documentation is silent
//! - **The query** is parsed when the group is set; a syntax error is 422 with its position. [`GroupQuery`] has the
//!   grammar. Only the query decides which devices belong to the group. The group's organizations decide who sees it,
//!   and here every token sees everything.
//! - **Null in a patch** removes the description or organizations.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    condition::SyntaxError,
    document::Document,
    group_query::GroupQuery,
    organization::read_organizations,
    resource::{self, NAME_RULE, Resource, is_name},
};
use crate::emulator::{api_error::ApiError, etag::Etag, fields::Fields};

/// A device group.
#[derive(Serialize, Deserialize)]
pub(crate) struct DeviceGroup {
    display_name: String,
    description: Option<String>,
    filter: ParsedQuery,
    organizations: Vec<String>,
}

/// A query and its text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct ParsedQuery {
    text: String,
    query: Arc<GroupQuery>,
}

impl TryFrom<String> for ParsedQuery {
    type Error = SyntaxError;

    fn try_from(text: String) -> Result<Self, SyntaxError> {
        Ok(Self { query: Arc::new(GroupQuery::parse(&text)?), text })
    }
}

impl From<ParsedQuery> for String {
    fn from(query: ParsedQuery) -> Self {
        query.text
    }
}

impl DeviceGroup {
    pub(crate) fn query(&self) -> Arc<GroupQuery> {
        Arc::clone(&self.filter.query)
    }
}

impl Resource for DeviceGroup {
    const NAME: &'static str = "device group";
    const ID_RULE: &'static str = NAME_RULE;

    fn is_id(text: &str) -> bool {
        is_name(text)
    }
}

impl Document for DeviceGroup {
    const COLLECTION: &'static str = "deviceGroups";
    const NULLABLE: Option<&'static [&'static str]> = Some(&["description", "organizations"]);

    type Body = Self;

    fn read(fields: &mut Fields, id: &str) -> Result<Self, ApiError> {
        let filter = fields.required("filter", Fields::string)?;
        resource::read_id::<Self>(fields, id)?;
        let filter = ParsedQuery::try_from(filter).map_err(|error| fields.invalid("filter", error))?;
        Ok(Self {
            display_name: fields.required("displayName", Fields::string)?,
            description: fields.string("description")?,
            filter,
            organizations: read_organizations(fields)?,
        })
    }

    fn from_body(body: Self, _: Option<&Self>) -> Result<Self, ApiError> {
        Ok(body)
    }

    fn show(&self, id: &str, etag: &Etag) -> Value {
        let mut shown = json!({
            "id": id,
            "displayName": self.display_name,
            "filter": self.filter.text,
            "etag": etag.encoded(),
        });
        if let Some(description) = &self.description {
            shown["description"] = json!(description);
        }
        if !self.organizations.is_empty() {
            shown["organizations"] = json!(self.organizations);
        }
        shown
    }
}
