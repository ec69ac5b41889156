//! The timestamps of the Device Provisioning Service.

use time::{format_description::BorrowedFormatItem, macros::format_description};

use crate::certificate::Timestamp;

/// RFC 3339 with always seven digits of a second, as in `2020-12-05T10:00:00.0000000Z`.
const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:7]Z");

/// Formats a time as the service does.
pub(crate) fn timestamp(time: Timestamp) -> String {
    // Formatting cannot fail: the time has all components, and the format covers all years.
    time.date_time().format(FORMAT).unwrap_or_default()
}
