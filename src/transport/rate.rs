//! The rate limit: how many requests per second all clones of a client send, and how it adapts to a service that
//! accepts fewer.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::clock::Clock;

/// How long the pace takes to rise from zero to the limit.
const RECOVERY: Duration = Duration::from_secs(30);

/// How late a timer may fire: tokio's has a resolution of a millisecond, and a busy machine adds to it.
const TIMER: Duration = Duration::from_millis(20);

/// The slowest pace, as a fraction of the limit.
const SLOWEST: f64 = 1.0 / 64.0;

/// Lets requests through one by one, evenly spaced, because a service that counts per second refuses bursts.
///
/// If the service throttles a request all the same (429), other clients share its limit: the pace is halved, then rises
/// by a constant amount per second (additive increase, multiplicative decrease, as in RFC 5681).
///
/// The crate governor does not fit: its quotas cannot change, and it counts from the moment that a request is let
/// through, so that late timers lower the rate. Here a request that waited counts from the time it was scheduled for.
pub(crate) struct Rate {
    clock: Arc<dyn Clock>,
    /// Requests per second.
    limit: f64,
    /// Keeps waiting requests in order.
    queue: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// The state of the limiter. All times are those of [`Clock::elapsed`].
struct State {
    /// When the next request may be sent.
    next: Duration,
    /// Until when the service asked to wait.
    paused_until: Duration,
    /// When the pace was lowered.
    lowered_at: Duration,
    /// To what fraction of the limit. The pace rises from there once the pause is over.
    lowered_to: f64,
}

impl Rate {
    pub(crate) fn new(per_second: NonZeroU32, clock: Arc<dyn Clock>) -> Self {
        let state =
            State { next: Duration::ZERO, paused_until: Duration::ZERO, lowered_at: Duration::ZERO, lowered_to: 1.0 };
        Self { clock, limit: f64::from(per_second.get()), queue: tokio::sync::Mutex::new(()), state: Mutex::new(state) }
    }

    /// Waits for the requests that came before.
    pub(crate) async fn queue(&self) -> Turn<'_> {
        Turn { rate: self, _queue: self.queue.lock().await }
    }

    /// Pauses all requests for `wait` and lowers the pace, because the service throttled a request that was sent at
    /// `sent`. The pace is lowered once for all requests that were in flight.
    pub(crate) fn throttled(&self, sent: Duration, wait: Duration) {
        let now = self.clock.elapsed();
        self.with(|state| {
            if sent >= state.lowered_at {
                state.lowered_to = (state.pace(now) / 2.0).max(SLOWEST);
                state.lowered_at = now;
            }
            state.paused_until = state.paused_until.max(now.saturating_add(wait));
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The right of the first request in the queue to be sent next.
pub(crate) struct Turn<'a> {
    rate: &'a Rate,
    _queue: tokio::sync::MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// Waits until the request may be sent. Returns the time.
    pub(crate) async fn wait(self) -> Duration {
        let clock = &self.rate.clock;
        loop {
            let now = clock.elapsed();
            match self.rate.with(|state| state.claim(now, self.rate.limit)) {
                Some(wait) => clock.sleep(wait).await,
                None => return now,
            }
        }
    }
}

impl State {
    /// Claims the next slot. Returns how long to wait if it is not due yet.
    fn claim(&mut self, now: Duration, limit: f64) -> Option<Duration> {
        let due = self.next.max(self.paused_until);
        let wait = due.saturating_sub(now);
        if wait > Duration::ZERO {
            return Some(wait);
        }
        let interval = Duration::from_secs_f64(1.0 / (limit * self.pace(now)));
        // A request that waited is late by as much as its timer. A longer gap means that no request waited.
        let scheduled = if now.saturating_sub(due) < interval.max(TIMER) { due } else { now };
        self.next = scheduled + interval;
        None
    }

    /// Returns the current pace as a fraction of the limit.
    fn pace(&self, now: Duration) -> f64 {
        let rising = now.saturating_sub(self.lowered_at.max(self.paused_until));
        (self.lowered_to + rising.as_secs_f64() / RECOVERY.as_secs_f64()).min(1.0)
    }
}
