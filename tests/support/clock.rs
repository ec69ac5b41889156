//! A clock that nobody waits for: sleeping moves it on.
#![allow(dead_code, reason = "each test uses its part")]

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use iot_enroll::central::Clock;

/// Shows what was slept.
#[derive(Default)]
pub(crate) struct ManualClock {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    elapsed: Duration,
    sleeps: Vec<Duration>,
}

impl ManualClock {
    /// The date at which it begins: 2026-01-01T00:00:00Z.
    pub(crate) const BEGIN: Duration = Duration::from_secs(1_767_225_600);

    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Every time slept, but for the milliseconds between requests.
    pub(crate) fn sleeps(&self) -> Vec<Duration> {
        let state = self.state.lock().expect("clock");
        state.sleeps.iter().copied().filter(|sleep| *sleep > Duration::from_millis(100)).collect()
    }
}

impl Clock for ManualClock {
    fn elapsed(&self) -> Duration {
        self.state.lock().expect("clock").elapsed
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Self::BEGIN + self.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            let mut state = state.lock().expect("clock");
            state.elapsed += duration;
            state.sleeps.push(duration);
        })
    }
}
