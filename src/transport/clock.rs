//! Time, as the clients see it.

use std::{
    pin::Pin,
    time::{Duration, SystemTime},
};

/// A source of time. Clients wait by it for their rate limit and between retries.
///
/// Tests replace it with the `clock` setter of a client builder, so that they need not wait.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time since some fixed moment. It never goes back.
    fn elapsed(&self) -> Duration;

    /// Returns the date and time, to which `Retry-After` and the expiry of tokens are compared.
    fn now(&self) -> SystemTime;

    /// Waits for this long.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The machine's clock, with tokio's timer.
#[derive(Debug)]
pub(crate) struct SystemClock(tokio::time::Instant);

impl SystemClock {
    pub(crate) fn new() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock for SystemClock {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}
