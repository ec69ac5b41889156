//! Which requests came, for tests to look at.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// The most requests that are remembered; older ones are forgotten first.
const CAPACITY: usize = 10_000;

/// The most characters of a path that are remembered.
const MAX_PATH: usize = 512;

/// A request as the emulator saw it: nothing of its headers, query or body, which hold secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestRecord {
    /// The method, in capitals.
    pub method: String,
    /// The path as it was sent, percent-encoded, without the query.
    pub path: String,
    /// The status of the answer; `None` where a fault closed the connection instead.
    pub status: Option<u16>,
}

#[derive(Default)]
pub(super) struct RequestLog(Mutex<VecDeque<RequestRecord>>);

impl RequestLog {
    pub(super) fn add(&self, method: &str, path: &str, status: Option<u16>) {
        let record = RequestRecord { method: method.to_owned(), path: path.chars().take(MAX_PATH).collect(), status };
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == CAPACITY {
            log.pop_front();
        }
        log.push_back(record);
    }

    pub(super) fn all(&self) -> Vec<RequestRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
