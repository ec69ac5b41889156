//! Times as text: RFC 3339 for programs, a readable form for messages.

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::format_description};

/// Formats a time as RFC 3339 in UTC, such as `2026-11-23T06:05:50Z`.
#[must_use]
pub fn rfc3339(time: OffsetDateTime) -> String {
    time.to_offset(UtcOffset::UTC).format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

/// Formats a time for messages, such as `2026-11-23 06:05:50 UTC`.
pub(crate) fn moment(time: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    time.to_offset(UtcOffset::UTC).format(format).unwrap_or_else(|_| time.to_string())
}
