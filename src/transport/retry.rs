//! Which failures are retried, and when.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::network::NetworkFailure;

/// How often a failed connection is retried. Few times, so that a wrong address is reported soon.
const CONNECT_RETRIES: u32 = 2;

/// Limits how often and for how long a failed call is retried.
///
/// A call that fails with 429 is always retried, since the service has not carried it out. A call that can be repeated
/// is retried after 500, 502, 503 and 504, time-outs and broken connections too. The delay doubles with each retry and
/// is randomized, so that clients do not return together. A longer delay that the service asks for (`Retry-After`) is
/// kept.
///
/// ```
/// use std::time::Duration;
/// use iot_enroll::transport::RetryPolicy;
///
/// let policy = RetryPolicy::new().retries(2).budget(Duration::from_secs(30));
/// ```
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    retries: usize,
    first_delay: Duration,
    max_delay: Duration,
    pub(crate) budget: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 5,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(20),
            budget: Duration::from_secs(120),
        }
    }
}

impl RetryPolicy {
    /// Returns the default policy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a policy without retries.
    #[must_use]
    pub fn none() -> Self {
        Self::new().retries(0)
    }

    /// Sets how many times a call is retried at most. Default: 5.
    #[must_use]
    pub fn retries(mut self, retries: usize) -> Self {
        self.retries = retries;
        self
    }

    /// Sets the delay before the first retry, to which a random time of up to the same length is added. Default: 0.5 s.
    #[must_use]
    pub fn first_delay(mut self, delay: Duration) -> Self {
        self.first_delay = delay;
        self
    }

    /// Sets the longest delay before a retry, without its random part. Default: 20 s.
    #[must_use]
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Sets the time, counted from the first attempt, after which no other attempt starts. Default: 2 minutes.
    ///
    /// If the service asks to wait past it, the call fails at once and its error says so.
    #[must_use]
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }
}

/// Returns the delays before an update is started again because another client changed the resource in between. They are
/// randomized, so that the same clients do not meet again.
pub(crate) fn conflict_delays(count: u32) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(2))
        .with_max_times(count as usize)
        .with_jitter()
        .build()
}

/// When a failed request can be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Always: the request is idempotent.
    Safe,
    /// Only if the service has certainly not carried it out.
    Unsent,
}

/// How an attempt failed, to decide whether to retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptFailure {
    /// No answer arrived.
    Network(NetworkFailure),
    /// An answer with this status, and the delay that it asks for.
    Status(u16, Option<Duration>),
    /// Anything that a retry cannot change.
    Final,
}

/// The attempts at one call.
pub(crate) struct Attempts {
    delays: ExponentialBackoff,
    budget: Duration,
    /// When the first and the last attempt started.
    first: Duration,
    last: Duration,
    count: u32,
}

impl Attempts {
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        let delays = ExponentialBuilder::new()
            .with_min_delay(policy.first_delay)
            .with_max_delay(policy.max_delay)
            .with_max_times(policy.retries)
            .with_jitter()
            .build();
        Self { delays, budget: policy.budget, first: Duration::ZERO, last: Duration::ZERO, count: 0 }
    }

    /// Counts an attempt that starts `now`, by [`Clock::elapsed`](super::Clock::elapsed). The budget starts with the
    /// first attempt: the time before, spent waiting for the rate limit, is not part of it.
    pub(crate) fn begin(&mut self, now: Duration) {
        if self.count == 0 {
            self.first = now;
        }
        self.last = now;
        self.count += 1;
    }

    /// Returns when the last attempt started.
    pub(crate) fn last(&self) -> Duration {
        self.last
    }

    /// Returns how many attempts were started.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Returns the delay before the next attempt, or `None` if the failure is final.
    pub(crate) fn next(&mut self, failure: AttemptFailure, repeat: Repeat, now: Duration) -> Option<Duration> {
        let (again, asked) = match failure {
            AttemptFailure::Network(NetworkFailure::Connect) => (self.count <= CONNECT_RETRIES, None),
            AttemptFailure::Network(NetworkFailure::TimedOut | NetworkFailure::Broken) => {
                (repeat == Repeat::Safe, None)
            }
            AttemptFailure::Status(429, asked) => (true, asked),
            AttemptFailure::Status(500 | 502 | 503 | 504, asked) => (repeat == Repeat::Safe, asked),
            AttemptFailure::Network(
                NetworkFailure::Tls
                | NetworkFailure::CertificateOutOfTime
                | NetworkFailure::Request
                | NetworkFailure::NotHttp,
            )
            | AttemptFailure::Status(..)
            | AttemptFailure::Final => (false, None),
        };
        let wait = if again { self.delays.next()?.max(asked.unwrap_or_default()) } else { return None };
        self.allow(wait, now)
    }

    /// Returns the delay if it ends within the budget.
    pub(crate) fn allow(&self, wait: Duration, now: Duration) -> Option<Duration> {
        (now.saturating_add(wait) <= self.first.saturating_add(self.budget)).then_some(wait)
    }
}
