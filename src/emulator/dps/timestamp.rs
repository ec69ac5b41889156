//! The timestamps of the Device Provisioning Service.

use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

/// RFC 3339 with always seven digits of a second, as in `2020-12-05T10:00:00.0000000Z`.
const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:7]Z");

/// Formats a time as the service does.
pub(crate) fn timestamp(time: OffsetDateTime) -> String {
    // Formatting cannot fail: the time has all components, and the format covers all years.
    time.to_offset(UtcOffset::UTC).format(FORMAT).unwrap_or_default()
}
