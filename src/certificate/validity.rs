//! The validity period of certificates.

use std::fmt;

use super::{Timestamp, timestamp::moment};

/// The validity period of a certificate (RFC 5280 section 4.1.2.5), both ends included.
///
/// [`Display`](fmt::Display) writes `2026-11-23 06:05:50 UTC to 2027-11-23 06:10:50 UTC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Validity {
    /// The first moment of the period.
    pub not_before: Timestamp,
    /// The last moment of the period.
    pub not_after: Timestamp,
}

impl Validity {
    /// Returns whether a time lies in the period.
    #[must_use]
    pub fn contains(&self, time: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&time)
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", moment(self.not_before), moment(self.not_after))
    }
}
