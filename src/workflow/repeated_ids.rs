//! Device IDs that occur more than once in a file.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

/// Returns eight bytes that stand for an ID, to recognize it among the IDs of a fleet. IDs are compared without case.
pub(crate) fn id_hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.to_ascii_lowercase().hash(&mut hasher);
    hasher.finish()
}

/// The IDs of a file while it is read for the first time.
#[derive(Default)]
pub(crate) struct IdCollector {
    seen: HashSet<u64>,
    repeated: HashSet<u64>,
}

impl IdCollector {
    /// Adds the ID of a row.
    pub(crate) fn add(&mut self, id: &str) {
        let hash = id_hash(id);
        if !self.seen.insert(hash) {
            self.repeated.insert(hash);
        }
    }

    /// Returns the IDs that occurred more than once.
    pub(crate) fn repeated(self) -> RepeatedIds {
        RepeatedIds { repeated: self.repeated, first_lines: HashMap::new() }
    }
}

/// The IDs that occur more than once in a file.
#[derive(Debug, Clone)]
pub(crate) struct RepeatedIds {
    repeated: HashSet<u64>,
    first_lines: HashMap<u64, u64>,
}

impl RepeatedIds {
    /// Returns why a row cannot be used if an earlier row has the same ID. Rows have to be passed in their order.
    pub(crate) fn problem(&mut self, id: &str, line: u64) -> Option<String> {
        let hash = id_hash(id);
        if !self.repeated.contains(&hash) {
            return None;
        }
        let first = *self.first_lines.entry(hash).or_insert(line);
        (first < line).then(|| format!("line {first} has the same id"))
    }
}
