//! The requests that the emulator received, for tests to inspect.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// The number of requests that are kept. The oldest is dropped first.
const CAPACITY: usize = 10_000;

/// The number of characters of a path that are kept.
const MAX_PATH: usize = 512;

/// A request that the emulator received, without its headers, query and body, which hold secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestRecord {
    /// The method, in upper case.
    pub method: String,
    /// The path as it was sent: percent-encoded, without the query.
    pub path: String,
    /// The status of the response. `None` if a fault closed the connection.
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

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn all(&self) -> Vec<RequestRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
