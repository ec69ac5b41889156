//! When a certificate is due for renewal.

use std::time::Duration;

use crate::certificate::{Certificate, Timestamp};

/// How long before its end a certificate is due for renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RenewalThreshold {
    /// That long before the end of its validity.
    Remaining(Duration),
    /// When this percentage of its lifetime is left: with 33, a certificate for 90 days is due 29.7 days before its end.
    Percent(u8),
}

impl RenewalThreshold {
    /// Returns the time from which a certificate is due.
    #[must_use]
    pub fn due_at(self, certificate: &Certificate) -> Timestamp {
        let remaining = match self {
            Self::Remaining(remaining) => remaining,
            Self::Percent(percent) => {
                let lifetime = certificate.not_after().duration_since(certificate.not_before());
                // A lifetime has less than 2⁶⁴ / 100 seconds.
                Duration::from_secs(lifetime.as_secs() * u64::from(percent) / 100)
            }
        };
        certificate.not_after() - remaining
    }

    /// Returns whether a certificate is due at that time, or has expired.
    #[must_use]
    pub fn is_reached(self, certificate: &Certificate, at: Timestamp) -> bool {
        at >= self.due_at(certificate)
    }
}
