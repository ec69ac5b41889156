//! Time, as the client sees it.

use std::{
    pin::Pin,
    time::{Duration, SystemTime},
};

/// A source of time and of waiting.
///
/// The client waits for its rate limit and between attempts. A test gives it a clock of its own
/// ([`ClientBuilder::clock`](super::ClientBuilder::clock)) and need not wait.
pub trait Clock: Send + Sync + 'static {
    /// The time since some fixed moment. Never goes back.
    fn elapsed(&self) -> Duration;

    /// The date, to which `Retry-After` and a token's expiry are compared.
    fn now(&self) -> SystemTime;

    /// Ends when this much time has passed.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The clock of the machine, by way of tokio.
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
