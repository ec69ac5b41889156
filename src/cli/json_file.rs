//! JSON files with the bodies of the REST API.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{args::read_up_to, output::Output};

/// The most bytes of a file, in MiB.
const MAX_MEBIBYTES: u64 = 16;

/// A file that holds a JSON object.
pub(super) struct JsonFile {
    path: PathBuf,
    pub(super) members: Map<String, Value>,
}

impl JsonFile {
    /// Reads it; `-` is standard input, and so can be read once.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = read_up_to(path, MAX_MEBIBYTES, "no body of the REST API has")?;
        // Some editors begin files with a byte-order mark.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let members = serde_json::from_slice(bytes).with_context(|| unexpected(path))?;
        Ok(Self { path: path.to_owned(), members })
    }

    /// The members as what they describe. serde's derive takes an array for a structure too, which is ruled out by now.
    pub(super) fn into<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        serde_json::from_value(Value::Object(self.members)).with_context(|| unexpected(&self.path))
    }

    /// Refuses null for every member but these. serde takes it for an absent one, which in a merge patch is another thing.
    pub(super) fn only_nullable(&self, names: &[&str]) -> anyhow::Result<()> {
        match self.members.iter().find(|(name, value)| value.is_null() && !names.contains(&name.as_str())) {
            Some((name, _)) => self
                .refuse(format_args!("{name} is null, which has no meaning there: leave it out, or give it a value")),
            None => Ok(()),
        }
    }

    /// Takes the id away, which has to be the one that the command names.
    pub(super) fn take_id(&mut self, id: &str) -> anyhow::Result<()> {
        match self.members.remove("id") {
            Some(found) if found != id => {
                self.refuse(format_args!("its id is {found}, and the command names {id:?}: correct one of them"))
            }
            _ => Ok(()),
        }
    }

    /// Takes a member away that the service alone sets.
    pub(super) fn take_read_only(&mut self, name: &str, output: &Output) {
        if self.members.remove(name).is_some() {
            output.note(format_args!("{}: {name} is set by the service and was passed over", self.path.display()));
        }
    }

    pub(super) fn refuse<T>(&self, why: impl std::fmt::Display) -> anyhow::Result<T> {
        bail!("{}: {why}", self.path.display())
    }
}

fn unexpected(path: &Path) -> String {
    format!("{} is not what is expected", path.display())
}
