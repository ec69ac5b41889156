//! The emulator's clock, which tests can set.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

/// The form of the times of the Device Provisioning Service, as in `2020-12-05T10:00:00.0000000Z`.
const TIMESTAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:7]Z");

/// The time as the emulator sees it: validity of certificates, time stamps and throttling go by it.
///
/// Clones are the same clock, so that a test keeps one and moves it.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Reading>);

#[derive(Debug)]
struct Reading {
    /// What the clock is set to.
    setting: Mutex<Setting>,
    started: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Setting {
    /// `None` follows the system's clock.
    frozen: Option<OffsetDateTime>,
    /// How far the clock was moved on.
    advanced: Duration,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(None)
    }

    /// A clock that stands still, and moves only by [`advance`](Self::advance).
    #[must_use]
    pub fn frozen(at: OffsetDateTime) -> Self {
        Self::new(Some(at))
    }

    fn new(frozen: Option<OffsetDateTime>) -> Self {
        let setting = Setting { frozen, advanced: Duration::ZERO };
        Self(Arc::new(Reading { setting: Mutex::new(setting), started: Instant::now() }))
    }

    /// The time it shows. It stops at the last moment that can be represented.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        let setting = self.setting();
        let at = setting.frozen.unwrap_or_else(OffsetDateTime::now_utc);
        time::Duration::try_from(setting.advanced)
            .ok()
            .and_then(|advanced| at.checked_add(advanced))
            .unwrap_or_else(|| time::PrimitiveDateTime::MAX.assume_utc())
    }

    /// Moves it on by so much.
    pub fn advance(&self, by: Duration) {
        let mut setting = self.0.setting.lock().unwrap_or_else(PoisonError::into_inner);
        setting.advanced = setting.advanced.saturating_add(by);
    }

    /// The time since the clock was made, which does not go back when the system's clock is set.
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

/// The time as the Device Provisioning Service writes it.
pub(super) fn timestamp(time: OffsetDateTime) -> String {
    // Every component of the format is there, and years before 10,000 are written.
    time.to_offset(UtcOffset::UTC).format(TIMESTAMP).unwrap_or_default()
}
