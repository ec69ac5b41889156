//! How long new certificates are valid.

use std::fmt;

use time::{Duration, OffsetDateTime};

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
    pub(super) fn end(self, from: OffsetDateTime) -> Option<OffsetDateTime> {
        let end = match self {
            Self::Days(days) => from.checked_add(Duration::days(days.into())),
            Self::Years(years) => {
                let year = from.year() + i32::from(years);
                // 29 February becomes 28 February.
                from.replace_year(year).or_else(|_| from.replace_day(28).and_then(|day| day.replace_year(year))).ok()
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
