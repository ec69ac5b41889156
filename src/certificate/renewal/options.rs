//! What a renewal changes.

use super::threshold::RenewalThreshold;
use crate::certificate::{Lifetime, Timestamp};

/// What a renewal changes.
///
/// By default a certificate is renewed at once, for the same key and the same lifetime as before.
#[derive(Debug, Clone, Copy, Default)]
pub struct RenewalOptions {
    pub(super) lifetime: Option<Lifetime>,
    pub(super) has_new_key: bool,
    pub(super) threshold: Option<RenewalThreshold>,
    pub(super) is_dry_run: bool,
    time: Option<Timestamp>,
}

impl RenewalOptions {
    /// Returns the default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the lifetime. `None` restores that of the old certificate.
    #[must_use]
    pub fn lifetime(mut self, lifetime: impl Into<Option<Lifetime>>) -> Self {
        self.lifetime = lifetime.into();
        self
    }

    /// Generates a new key of the same kind and size.
    #[must_use]
    pub fn new_key(mut self) -> Self {
        self.has_new_key = true;
        self
    }

    /// Renews a certificate only if this threshold is reached.
    #[must_use]
    pub fn threshold(mut self, threshold: impl Into<Option<RenewalThreshold>>) -> Self {
        self.threshold = threshold.into();
        self
    }

    /// Does everything except for writing files.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.is_dry_run = true;
        self
    }

    /// Fixes the time of renewal, for reproducible results or another clock.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// Returns the time of renewal: the fixed one, otherwise the current time.
    #[must_use]
    pub fn issue_time(&self) -> Timestamp {
        self.time.unwrap_or_else(Timestamp::now)
    }

    /// Returns the options for a certificate whose key stays the same.
    pub(super) fn with_same_key(mut self) -> Self {
        self.has_new_key = false;
        self
    }
}
