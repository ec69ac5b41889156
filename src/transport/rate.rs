//! The rate limit: how many requests a second go out, over all clones of a client, and how that gives way to a service
//! that takes fewer.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::clock::Clock;

/// How long the pace takes to rise from nothing to its limit again.
const RECOVERY: Duration = Duration::from_secs(30);

/// How late a timer may be: tokio's counts in milliseconds, and a busy machine adds some.
const TIMER: Duration = Duration::from_millis(20);

/// The slowest pace, as a part of the limit.
const SLOWEST: f64 = 1.0 / 64.0;

/// Lets requests through one by one, evenly spaced. A burst would be refused by the service, which counts by the second.
///
/// When the service refuses a request nevertheless (429), others use the application too: the pace is halved, and rises
/// again by a steady amount each second (additive increase, multiplicative decrease, as in RFC 5681).
///
/// governor, which has fixed quotas, cannot change its pace; and it counts from the moment a request is let through, so
/// that a timer's lateness lowers the rate. Here a request that waited keeps the time it was promised.
pub(crate) struct Rate {
    clock: Arc<dyn Clock>,
    /// Requests a second.
    limit: f64,
    /// Requests wait in the order they came.
    queue: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// All times are those of [`Clock::elapsed`].
struct State {
    /// When the next request may go.
    next: Duration,
    /// Until when the service has asked everybody to wait.
    paused_until: Duration,
    /// When the pace was lowered.
    lowered_at: Duration,
    /// To what part of the limit. It rises from there once the pause is over.
    lowered_to: f64,
}

impl Rate {
    pub(crate) fn new(per_second: NonZeroU32, clock: Arc<dyn Clock>) -> Self {
        let state =
            State { next: Duration::ZERO, paused_until: Duration::ZERO, lowered_at: Duration::ZERO, lowered_to: 1.0 };
        Self { clock, limit: f64::from(per_second.get()), queue: tokio::sync::Mutex::new(()), state: Mutex::new(state) }
    }

    /// Waits until it is this request that goes next.
    pub(crate) async fn queue(&self) -> Turn<'_> {
        Turn { rate: self, _queue: self.queue.lock().await }
    }

    /// Holds every request back for this long, since the service refused one that was sent at that time, and lowers the
    /// pace: once for all the requests that were already on their way.
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

/// The head of the queue.
pub(crate) struct Turn<'a> {
    rate: &'a Rate,
    _queue: tokio::sync::MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// Waits for the time to send, and gives it.
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
    /// How long to wait; nothing when a request may go now, which it then does.
    fn claim(&mut self, now: Duration, limit: f64) -> Option<Duration> {
        let due = self.next.max(self.paused_until);
        let wait = due.saturating_sub(now);
        if wait > Duration::ZERO {
            return Some(wait);
        }
        let interval = Duration::from_secs_f64(1.0 / (limit * self.pace(now)));
        // One that waited comes late by as much as its timer; had it been longer, nobody waited.
        let promised = if now.saturating_sub(due) < interval.max(TIMER) { due } else { now };
        self.next = promised + interval;
        None
    }

    /// The part of the limit that is used now.
    fn pace(&self, now: Duration) -> f64 {
        let rising = now.saturating_sub(self.lowered_at.max(self.paused_until));
        (self.lowered_to + rising.as_secs_f64() / RECOVERY.as_secs_f64()).min(1.0)
    }
}
