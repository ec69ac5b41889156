//! How long new certificates are valid.

use std::{fmt, time::Duration};

use super::Timestamp;

/// How long a new certificate is valid, counted from the time of issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lifetime {
    /// A number of days of 24 hours.
    Days(u32),
    /// A number of calendar years: the certificate ends on the same day of a later year.
    Years(u16),
}

impl Lifetime {
    /// Returns the end of a lifetime that starts at `from`. `None` if it is past the year 9999, the last that X.509
    /// can express (RFC 5280 section 4.1.2.5), or not after `from`.
    pub(super) fn end(self, from: Timestamp) -> Option<Timestamp> {
        let end = match self {
            Self::Days(days) => from.checked_add(Duration::from_secs(u64::from(days) * 24 * 60 * 60)),
            Self::Years(years) => {
                let start = from.date_time();
                let year = start.year() + i32::from(years);
                // 29 February becomes 28 February.
                let end = start.replace_year(year).or_else(|_| start.replace_day(28)?.replace_year(year));
                end.ok().and_then(Timestamp::from_date_time)
            }
        };
        end.filter(|&end| end > from)
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Days(days) => write!(f, "{days} days"),
            Self::Years(years) => write!(f, "{years} years"),
        }
    }
}
