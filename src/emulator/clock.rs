//! The emulator's clock, which tests can set.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use time::{OffsetDateTime, PrimitiveDateTime};

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
        self.now_utc().into()
    }

    /// Advances the clock.
    pub fn advance(&self, by: Duration) {
        let mut setting = self.0.setting.lock().unwrap_or_else(PoisonError::into_inner);
        setting.advanced = setting.advanced.saturating_add(by);
    }

    /// Returns the current time in UTC.
    pub(super) fn now_utc(&self) -> OffsetDateTime {
        let setting = self.setting();
        later(to_utc(setting.frozen.unwrap_or_else(SystemTime::now)), setting.advanced)
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

/// Returns the sum of a time and a duration, at most the end of the year 9999.
pub(super) fn later(time: OffsetDateTime, by: Duration) -> OffsetDateTime {
    let by = time::Duration::try_from(by).ok();
    by.and_then(|by| time.checked_add(by)).unwrap_or(PrimitiveDateTime::MAX.assume_utc())
}

fn to_utc(time: SystemTime) -> OffsetDateTime {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => later(OffsetDateTime::UNIX_EPOCH, since),
        Err(before) => {
            let before = time::Duration::try_from(before.duration()).ok();
            let time = before.and_then(|before| OffsetDateTime::UNIX_EPOCH.checked_sub(before));
            time.unwrap_or(PrimitiveDateTime::MIN.assume_utc())
        }
    }
}
