//! The options of a new certificate.

use super::{KeyAlgorithm, Lifetime, Timestamp};

/// The options of a new certificate.
///
/// The default is a P-256 key, the lifetime of the [`Profile`](super::Profile), and the current time as the time of issue.
/// The clock is read at each use, so that one value can serve a program that runs for months.
///
/// ```
/// use iot_enroll::certificate::{IssueOptions, KeyAlgorithm, Lifetime};
///
/// let options = IssueOptions::new().algorithm(KeyAlgorithm::EcP384).lifetime(Lifetime::Days(30));
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct IssueOptions {
    algorithm: KeyAlgorithm,
    lifetime: Option<Lifetime>,
    time: Option<Timestamp>,
}

impl IssueOptions {
    /// Returns the default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the kind of key.
    #[must_use]
    pub fn algorithm(mut self, algorithm: KeyAlgorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Sets the lifetime. `None` restores the default of the [`Profile`](super::Profile).
    #[must_use]
    pub fn lifetime(mut self, lifetime: impl Into<Option<Lifetime>>) -> Self {
        self.lifetime = lifetime.into();
        self
    }

    /// Fixes the time of issue, for reproducible results or another clock.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// Returns the time of issue: the fixed one, otherwise the current time.
    #[must_use]
    pub fn issue_time(&self) -> Timestamp {
        self.time.unwrap_or_else(Timestamp::now)
    }

    /// Returns the options with the time of issue fixed, so that all steps of one operation use the same.
    pub(super) fn with_fixed_time(self) -> Self {
        self.at(self.issue_time())
    }

    pub(super) fn has_fixed_time(&self) -> bool {
        self.time.is_some()
    }

    pub(super) fn key_algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    pub(super) fn lifetime_or(&self, default: Lifetime) -> Lifetime {
        self.lifetime.unwrap_or(default)
    }
}
