//! The recent requests and responses with their headers and bodies, for tests that run in another process.
//!
//! What is kept is bounded: [`MAX_EXCHANGES`], bodies up to [`MAX_BODY`] each, and [`MAX_SIZE`] in all. The oldest is dropped
//! first. Secrets are removed when the exchanges are shown, not here.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use axum::{
    body::Bytes,
    http::{HeaderMap, StatusCode},
};

use serde_json::Value;

use crate::certificate::Timestamp;

/// The number of exchanges that are kept.
const MAX_EXCHANGES: usize = 1000;

/// The maximum size of a body that is kept, in bytes.
const MAX_BODY: usize = 64 << 10;

/// The maximum size of all heads and bodies that are kept, in bytes.
const MAX_SIZE: usize = 8 << 20;

/// A request and its response.
#[derive(Clone)]
pub(super) struct Exchange {
    /// `http`, or `mqtt` for a request that has the method and the path that it would have over HTTP.
    pub(super) protocol: &'static str,
    pub(super) time: Timestamp,
    pub(super) method: String,
    /// The path as it was sent.
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: RecordedBody,
    /// `None` if a fault closed the connection.
    pub(super) response: Option<ResponseRecord>,
}

#[derive(Clone)]
pub(super) struct ResponseRecord {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: RecordedBody,
}

/// A body that is recorded.
#[derive(Clone)]
pub(super) enum RecordedBody {
    /// There is none, or the emulator refused the request before it read the body.
    None,
    Bytes(Bytes),
    /// A body that is too large to be kept, with its size in bytes.
    TooLarge(usize),
}

impl RecordedBody {
    pub(super) fn new(bytes: Option<Bytes>) -> Self {
        match bytes {
            Some(bytes) if bytes.len() > MAX_BODY => Self::TooLarge(bytes.len()),
            Some(bytes) if !bytes.is_empty() => Self::Bytes(bytes),
            _ => Self::None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::None | Self::TooLarge(_) => 0,
        }
    }
}

impl Exchange {
    /// Records a request over MQTT. `response` is its status and body.
    pub(super) fn over_mqtt(
        method: &str,
        path: &str,
        body: &[u8],
        response: Option<(u16, &Value)>,
        time: Timestamp,
    ) -> Self {
        let response = response.and_then(|(status, body)| {
            let body = if body.is_null() { None } else { serde_json::to_vec(body).ok() };
            Some(ResponseRecord {
                status: StatusCode::from_u16(status).ok()?,
                headers: HeaderMap::new(),
                body: RecordedBody::new(body.map(Bytes::from)),
            })
        });
        Self {
            protocol: "mqtt",
            time,
            method: method.to_owned(),
            path: path.to_owned(),
            query: None,
            headers: HeaderMap::new(),
            body: RecordedBody::new(Some(Bytes::copy_from_slice(body))),
            response,
        }
    }

    fn size(&self) -> usize {
        let of_headers = |headers: &HeaderMap| -> usize {
            headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
        };
        let response = self.response.as_ref().map_or(0, |found| of_headers(&found.headers) + found.body.len());
        let target = self.path.len() + self.query.as_ref().map_or(0, String::len);
        target + of_headers(&self.headers) + self.body.len() + response
    }
}

/// Where the reader of a request's body leaves it for the record.
#[derive(Clone, Default)]
pub(super) struct BodyRecorder(Arc<OnceLock<Bytes>>);

impl BodyRecorder {
    /// Keeps a body. Sharing the bytes costs no copy.
    pub(super) fn keep(&self, body: &Bytes) {
        let _ = self.0.set(body.clone());
    }

    pub(super) fn body(&self) -> RecordedBody {
        RecordedBody::new(self.0.get().cloned())
    }
}

/// The recent exchanges, the oldest first.
#[derive(Default)]
pub(super) struct ExchangeLog(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    exchanges: VecDeque<Exchange>,
    /// The size of all exchanges.
    size: usize,
}

impl ExchangeLog {
    pub(super) fn add(&self, exchange: Exchange) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.size += exchange.size();
        kept.exchanges.push_back(exchange);
        while kept.exchanges.len() > MAX_EXCHANGES || kept.size > MAX_SIZE {
            let Some(oldest) = kept.exchanges.pop_front() else { break };
            kept.size -= oldest.size();
        }
    }

    pub(super) fn all(&self) -> Vec<Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).exchanges.iter().cloned().collect()
    }

    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Kept::default();
    }
}
