//! The emulator's clock, which tests can set.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use crate::certificate::Timestamp;

/// The emulator's clock: validity of certificates, time stamps and throttling depend on it.
///
/// Clones share one clock, so a test can keep a clone and advance it.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use iot_enroll::emulator::Clock;
///
/// let clock = Clock::frozen(SystemTime::UNIX_EPOCH);
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(60));
/// ```
#[derive(Debug, Clone)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    setting: Mutex<Setting>,
    started: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Setting {
    /// `None` follows the system clock.
    frozen: Option<SystemTime>,
    /// The sum of all advances.
    advanced: Duration,
}

impl Clock {
    /// Creates a clock that follows the system clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(None)
    }

    /// Creates a clock that stands still at a time; only [`advance`](Self::advance) moves it.
    #[must_use]
    pub fn frozen(at: impl Into<SystemTime>) -> Self {
        Self::new(Some(at.into()))
    }

    fn new(frozen: Option<SystemTime>) -> Self {
        let setting = Setting { frozen, advanced: Duration::ZERO };
        Self(Arc::new(Inner { setting: Mutex::new(setting), started: Instant::now() }))
    }

    /// Returns the current time, at most the end of the year 9999.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.timestamp().into()
    }

    /// Advances the clock.
    pub fn advance(&self, by: Duration) {
        let mut setting = self.0.setting.lock().unwrap_or_else(PoisonError::into_inner);
        setting.advanced = setting.advanced.saturating_add(by);
    }

    /// Returns the current time.
    pub(super) fn timestamp(&self) -> Timestamp {
        let setting = self.setting();
        setting.frozen.map_or_else(Timestamp::now, Timestamp::from) + setting.advanced
    }

    /// Returns the time since the clock was created. It is monotonic, even if the system clock is set back.
    pub(super) fn elapsed(&self) -> Duration {
        let setting = self.setting();
        let elapsed = if setting.frozen.is_some() { Duration::ZERO } else { self.0.started.elapsed() };
        elapsed.saturating_add(setting.advanced)
    }

    fn setting(&self) -> Setting {
        *self.0.setting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}
