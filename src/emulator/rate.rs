//! The rate limits of the services.

use std::{num::NonZeroU32, time::Duration};

use axum::http::StatusCode;
use governor::{
    Quota, RateLimiter,
    clock::Clock as _,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

use super::{
    api_error::{ApiError, RetryAfter},
    clock::Clock,
    fault::whole_seconds,
};

/// The rate limit of one service, across all its callers.
pub(super) struct RateLimit(Option<RateLimiter<NotKeyed, InMemoryState, RateClock, NoOpMiddleware<Duration>>>);

impl RateLimit {
    /// Creates a limit in requests per second. `None` is no limit.
    pub(super) fn new(per_second: Option<NonZeroU32>, clock: &Clock) -> Self {
        let limiter = |rate| RateLimiter::direct_with_clock(Quota::per_second(rate), RateClock(clock.clone()));
        Self(per_second.map(limiter))
    }

    /// Counts a request. Over the limit it is an error (429) with the time to wait.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        let Some(limiter) = &self.0 else { return Ok(()) };
        limiter.check().map_err(|exceeded| {
            let wait = whole_seconds(exceeded.wait_time_from(limiter.clock().now())).max(1);
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many requests; wait, and send fewer at a time")
                .retry_after(Some(RetryAfter::Seconds(wait)))
        })
    }
}

/// Adapts the emulator's clock to the rate limiter.
struct RateClock(Clock);

impl governor::clock::Clock for RateClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
