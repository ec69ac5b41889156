//! Points in time, and their text forms: RFC 3339 for programs, a readable form for messages.

use std::{
    fmt,
    ops::{Add, Sub},
    str::FromStr,
    time::{Duration, SystemTime},
};

use time::{
    OffsetDateTime, UtcOffset,
    format_description::well_known::Rfc3339,
    macros::{datetime, format_description},
};

#[cfg(feature = "serde")]
use super::serde_text::impl_serde_as_text;

/// A point in time from year 0 to year 9999, the years that RFC 3339 and X.509 can express, with nanoseconds.
///
/// [`Display`](fmt::Display) writes RFC 3339 in UTC, without fractions of a second if there are none. [`FromStr`] reads
/// RFC 3339 with any offset from UTC.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use iot_enroll::certificate::Timestamp;
///
/// let time: Timestamp = "2026-11-23T07:05:50+01:00".parse()?;
/// assert_eq!(time.to_string(), "2026-11-23T06:05:50Z");
/// assert_eq!((time + Duration::from_secs(10)).to_string(), "2026-11-23T06:06:00Z");
/// assert_eq!(SystemTime::from(time), SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_413_950));
/// # Ok::<(), iot_enroll::certificate::TimestampError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(
    /// In UTC, from [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    OffsetDateTime,
);

impl Timestamp {
    /// 1970-01-01T00:00:00Z, from which [`unix_seconds`](Self::unix_seconds) count.
    pub const UNIX_EPOCH: Self = Self(OffsetDateTime::UNIX_EPOCH);

    /// The start of the year 0.
    pub const MIN: Self = Self(datetime!(0000-01-01 0:00 UTC));

    /// The last nanosecond of the year 9999.
    pub const MAX: Self = Self(datetime!(9999-12-31 23:59:59.999_999_999 UTC));

    /// Returns the current time by the clock of the system.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Returns the time that many seconds after [`UNIX_EPOCH`](Self::UNIX_EPOCH), or `None` outside the years 0 to 9999.
    #[must_use]
    pub const fn from_unix_seconds(seconds: i64) -> Option<Self> {
        if seconds < Self::MIN.unix_seconds() || seconds > Self::MAX.unix_seconds() {
            return None;
        }
        match OffsetDateTime::from_unix_timestamp(seconds) {
            Ok(time) => Some(Self(time)),
            Err(_) => None,
        }
    }

    /// Returns the seconds since [`UNIX_EPOCH`](Self::UNIX_EPOCH), rounded down.
    #[must_use]
    pub const fn unix_seconds(self) -> i64 {
        self.0.unix_timestamp()
    }

    /// Returns the time since an earlier one. It is zero if `earlier` is not earlier.
    #[must_use]
    pub fn duration_since(self, earlier: Self) -> Duration {
        (self.0 - earlier.0).try_into().unwrap_or_default()
    }

    /// Returns the sum, or `None` if it is past [`MAX`](Self::MAX).
    #[must_use]
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration.try_into().ok()?).and_then(Self::from_date_time)
    }

    /// Converts a time with any offset from UTC. Returns `None` outside the years 0 to 9999.
    pub(crate) fn from_date_time(time: OffsetDateTime) -> Option<Self> {
        let time = Self(time.checked_to_offset(UtcOffset::UTC)?);
        (Self::MIN..=Self::MAX).contains(&time).then_some(time)
    }

    /// Returns the date and time in UTC.
    #[cfg(feature = "issue")]
    pub(crate) fn date_time(self) -> OffsetDateTime {
        self.0
    }

    /// Returns the day in UTC.
    #[cfg(feature = "issue")]
    pub(crate) fn date(self) -> time::Date {
        self.0.date()
    }

    /// Returns the time rounded down to a second.
    #[cfg(feature = "issue")]
    pub(super) fn whole_second(self) -> Self {
        Self(self.0.replace_nanosecond(0).unwrap_or(self.0))
    }

    /// Returns the whole days since another time, rounded towards zero; negative if the other is later.
    #[cfg(feature = "cli")]
    pub(crate) fn days_since(self, other: Self) -> i64 {
        (self.0 - other.0).whole_days()
    }
}

/// Adds a duration. The sum is at most [`Timestamp::MAX`].
impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self.checked_add(duration).unwrap_or(Self::MAX)
    }
}

/// Subtracts a duration. The difference is at least [`Timestamp::MIN`].
impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let difference = duration.try_into().ok().and_then(|duration| self.0.checked_sub(duration));
        difference.and_then(Self::from_date_time).unwrap_or(Self::MIN)
    }
}

/// Converts a time of the system. A time before [`Timestamp::MIN`] or after [`Timestamp::MAX`] becomes that.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Self::UNIX_EPOCH + since,
            Err(before) => Self::UNIX_EPOCH - before.duration(),
        }
    }
}

/// Converts to a time of the system. A time that the platform cannot express, such as one before 1601 on Windows, becomes
/// [`SystemTime::UNIX_EPOCH`].
impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let since = time.0 - OffsetDateTime::UNIX_EPOCH;
        let sum = if since.is_negative() {
            Self::UNIX_EPOCH.checked_sub(since.unsigned_abs())
        } else {
            Self::UNIX_EPOCH.checked_add(since.unsigned_abs())
        };
        sum.unwrap_or(Self::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        OffsetDateTime::parse(text, &Rfc3339).ok().and_then(Self::from_date_time).ok_or(TimestampError(()))
    }
}

#[cfg(feature = "serde")]
impl_serde_as_text!(Timestamp);

/// The error for a text that is not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a time in RFC 3339, such as 2026-11-23T06:05:50Z")]
pub struct TimestampError(());

/// Formats a time for messages, such as `2026-11-23 06:05:50 UTC`.
pub(crate) fn moment(time: Timestamp) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    time.0.format(format).unwrap_or_else(|_| time.to_string())
}
