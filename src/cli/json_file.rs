//! JSON files with the request bodies of the REST API.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    input::{parse_json, read_up_to},
    output::Output,
};
use crate::central::Change;

/// The maximum size of a file. Request bodies are far smaller.
const MAX_MEBIBYTES: u64 = 16;

/// A file with a JSON object. Its members are taken one by one; [`finish`](Self::finish) refuses the rest.
pub(super) struct JsonFile {
    path: PathBuf,
    pub(super) members: Map<String, Value>,
}

impl JsonFile {
    /// Reads a file. `-` is standard input, which can be read only once.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = read_up_to(path, MAX_MEBIBYTES, "request bodies are smaller")?;
        Ok(Self { path: path.to_owned(), members: parse_json(path, &bytes, "a JSON object")? })
    }

    /// Takes a member. `expected` names its type. null is an error: in a merge patch it differs from a missing member.
    pub(super) fn take<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> anyhow::Result<Option<T>> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(Value::Null) => self.refuse(format_args!("{name} is null: omit it or give it a value")),
            Some(value) => match serde_json::from_value(value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => self.refuse(format_args!("{name} must be {expected}")),
            },
        }
    }

    pub(super) fn take_string(&mut self, name: &str) -> anyhow::Result<Option<String>> {
        self.take(name, "a string")
    }

    pub(super) fn take_bool(&mut self, name: &str) -> anyhow::Result<Option<bool>> {
        self.take(name, "true or false")
    }

    pub(super) fn take_strings(&mut self, name: &str) -> anyhow::Result<Option<Vec<String>>> {
        self.take(name, "a list of strings")
    }

    /// Takes a string of a merge patch, which null clears.
    pub(super) fn take_change(&mut self, name: &str) -> anyhow::Result<Change<String>> {
        if self.members.get(name).is_some_and(Value::is_null) {
            self.members.remove(name);
            return Ok(Change::Clear);
        }
        Ok(self.take_string(name)?.map_or(Change::Keep, Change::Set))
    }

    /// Takes the ID, which must be that of the command if the file has one.
    pub(super) fn take_id(&mut self, id: &str) -> anyhow::Result<()> {
        match self.members.remove("id") {
            Some(found) if found != id => {
                self.refuse(format_args!("its id is {found}, but the command names {id:?}: correct one of them"))
            }
            _ => Ok(()),
        }
    }

    /// Drops a member that only the service sets.
    pub(super) fn drop_read_only(&mut self, name: &str, output: &Output) {
        if self.members.remove(name).is_some() {
            output.note(format_args!("{}: ignored {name}, which only the service sets", self.path.display()));
        }
    }

    /// Refuses members that were not taken.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self.members.keys().next() {
            Some(name) => self.refuse(format_args!("unknown member {name:?}")),
            None => Ok(()),
        }
    }

    pub(super) fn refuse<T>(&self, why: impl std::fmt::Display) -> anyhow::Result<T> {
        bail!("{}: {why}", self.path.display())
    }
}
