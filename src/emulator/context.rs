//! The context of all requests: settings, clock and state.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use governor::{
    Quota, RateLimiter,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

use super::{central::model::DeviceKeys, clock::Clock, fault::Faults, request_log::RequestLog, state::Store};

/// What all requests share.
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) clock: Clock,
    /// The expected `Authorization` header. Secret: neither printed nor logged.
    pub(super) token: String,
    pub(super) id_scope: String,
    /// The URL of the listener, without a path.
    pub(super) endpoint: String,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    pub(super) page_size: usize,
    /// Authenticates skip tokens.
    pub(super) page_key: hmac::Key,
    /// Derives the keys of devices. Secret.
    pub(super) device_keys: DeviceKeys,
    /// The IoT hub that devices are assigned to.
    pub(super) assigned_hub: String,
    /// The number of polls that are answered with `assigning`.
    pub(super) assign_after: u32,
    /// The time between polls that devices are asked to wait, in seconds.
    pub(super) registration_retry_after: u64,
    pub(super) read_timeout: Duration,
    pub(super) throttle: Option<Throttle>,
    pub(super) faults: Faults,
    pub(super) log: RequestLog,
}

pub(super) type SharedContext = Arc<Context>;

/// The rate limit of the IoT Central API, across all tokens.
pub(super) type Throttle = RateLimiter<NotKeyed, InMemoryState, RateClock, NoOpMiddleware<Duration>>;

/// Creates a rate limit.
pub(super) fn throttle(per_second: std::num::NonZeroU32, clock: &Clock) -> Throttle {
    RateLimiter::direct_with_clock(Quota::per_second(per_second), RateClock(clock.clone()))
}

/// Adapts the emulator's clock to the rate limiter.
pub(super) struct RateClock(Clock);

impl governor::clock::Clock for RateClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
