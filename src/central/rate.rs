//! The rate limit: how many requests a second go out, over all clones of a client.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock as GovernorClock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};

use super::clock::Clock;

/// Lets requests through one by one, evenly spaced. A burst would be refused by the service, which counts by the second.
pub(super) struct Rate {
    clock: Arc<dyn Clock>,
    limiter: RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Nanos>>,
    /// Requests wait in the order they came.
    queue: tokio::sync::Mutex<()>,
    /// Until when the service has asked everybody to wait.
    paused_until: Mutex<Duration>,
}

impl Rate {
    pub(super) fn new(per_second: NonZeroU32, clock: Arc<dyn Clock>) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(NonZeroU32::MIN);
        Self {
            limiter: RateLimiter::direct_with_clock(quota, Ticks(Arc::clone(&clock))),
            clock,
            queue: tokio::sync::Mutex::new(()),
            paused_until: Mutex::new(Duration::ZERO),
        }
    }

    /// Waits for this request's turn.
    pub(super) async fn turn(&self) {
        let _place = self.queue.lock().await;
        loop {
            let pause = self.paused_until().saturating_sub(self.clock.elapsed());
            let wait = if pause > Duration::ZERO {
                pause
            } else {
                match self.limiter.check() {
                    Ok(()) => return,
                    Err(refused) => refused.wait_time_from(GovernorClock::now(&Ticks(Arc::clone(&self.clock)))),
                }
            };
            self.clock.sleep(wait).await;
        }
    }

    /// Holds every request back for this long.
    pub(super) fn pause(&self, wait: Duration) {
        let until = self.clock.elapsed().saturating_add(wait);
        let mut paused = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        *paused = until.max(*paused);
    }

    fn paused_until(&self) -> Duration {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client's clock as governor reads it.
#[derive(Clone)]
struct Ticks(Arc<dyn Clock>);

impl GovernorClock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}
