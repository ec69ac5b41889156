//! Which failures are tried again, and when.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::network::NetworkFailure;

/// A host that is not there is seldom there a moment later: a wrong address should be reported soon.
const CONNECT_RETRIES: u32 = 2;

/// How often and how long a call is tried again.
///
/// Tried again are answers 429 (for every method, since the service has done nothing), and for calls that may be repeated
/// also 500, 502, 503, 504, time-outs and broken connections. Waiting times double, and have a random part so that
/// clients do not return together; where the service asks for a longer time (`Retry-After`), that counts.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// How many times a call is repeated at most. 5 by default; 0 turns repeating off.
    pub retries: usize,
    /// The first waiting time, to which up to as much again is added at random. 0.5 s by default.
    pub first_delay: Duration,
    /// The longest waiting time, random part left aside. 20 s by default.
    pub longest_delay: Duration,
    /// The time from the first attempt after which no other begins. 2 minutes by default. A service that asks to wait
    /// past it is not waited for: the call fails and says so.
    pub budget: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 5,
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(20),
            budget: Duration::from_secs(120),
        }
    }
}

impl RetryPolicy {
    /// Every call is tried once.
    #[must_use]
    pub fn none() -> Self {
        Self { retries: 0, ..Self::default() }
    }
}

/// Whether a request that may have been carried out can be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Twice has the effect of once.
    Safe,
    /// Only when it surely was not carried out.
    Unsent,
}

/// How an attempt failed, to decide whether to retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptFailure {
    /// No answer.
    Network(NetworkFailure),
    /// An answer with this status, which asks to wait so long.
    Status(u16, Option<Duration>),
    /// Anything that a retry cannot change.
    Final,
}

/// The attempts at one call.
pub(crate) struct Attempts {
    delays: ExponentialBackoff,
    budget: Duration,
    /// When the first and the last of them began.
    first: Duration,
    last: Duration,
    count: u32,
}

impl Attempts {
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        let delays = ExponentialBuilder::new()
            .with_min_delay(policy.first_delay)
            .with_max_delay(policy.longest_delay)
            .with_max_times(policy.retries)
            .with_jitter()
            .build();
        Self { delays, budget: policy.budget, first: Duration::ZERO, last: Duration::ZERO, count: 0 }
    }

    /// Counts one more attempt. `now` as [`Clock::elapsed`](super::Clock::elapsed) gives it: the time a call waits for
    /// its first turn is not part of its budget.
    pub(crate) fn begin(&mut self, now: Duration) {
        if self.count == 0 {
            self.first = now;
        }
        self.last = now;
        self.count += 1;
    }

    /// When the last one began.
    pub(crate) fn last(&self) -> Duration {
        self.last
    }

    /// How many were begun.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// How long to wait before the next attempt; nothing when this failure is to be reported.
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

    /// This waiting time, if the budget has room for it.
    pub(crate) fn allow(&self, wait: Duration, now: Duration) -> Option<Duration> {
        (now.saturating_add(wait) <= self.first.saturating_add(self.budget)).then_some(wait)
    }
}
