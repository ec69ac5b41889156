//! Timestamps: their range, their text, and conversions to the times of the system.

use std::time::{Duration, SystemTime};

use iot_enroll::certificate::Timestamp;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_text_is_rfc_3339_in_utc() {
    for (text, printed) in [
        ("2026-11-23T06:05:50Z", "2026-11-23T06:05:50Z"),
        ("2026-11-23T06:05:50.250000000Z", "2026-11-23T06:05:50.25Z"),
        ("2026-11-23T00:05:50-06:00", "2026-11-23T06:05:50Z"),
        ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z"),
    ] {
        assert_eq!(time(text).to_string(), printed);
        assert_eq!(time(printed), time(text));
    }
    for text in ["", "2026-11-23", "2026-11-23T06:05:50", "2026-02-30T00:00:00Z", "yesterday"] {
        assert!(text.parse::<Timestamp>().expect_err(text).to_string().contains("RFC 3339"));
    }
    // The offset leads out of the range.
    for text in ["0000-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"] {
        assert!(text.parse::<Timestamp>().is_err(), "{text}");
    }
    assert_eq!(format!("{:>22}", time("2026-11-23T06:05:50Z")), "  2026-11-23T06:05:50Z");
}

#[test]
fn sums_and_conversions_stay_in_the_range() {
    let (first, last) = (Timestamp::MIN, Timestamp::MAX);
    assert_eq!((time("0000-01-01T00:00:00Z"), time("9999-12-31T23:59:59.999999999Z")), (first, last));
    for duration in [Duration::from_nanos(1), Duration::from_secs(1), Duration::MAX] {
        assert_eq!(last + duration, last);
        assert_eq!(first - duration, first);
        assert_eq!(last.checked_add(duration), None);
        assert!(first + duration > first && last - duration < last);
    }
    for seconds in [first.unix_seconds() - 1, last.unix_seconds() + 1, i64::MIN, i64::MAX] {
        assert_eq!(Timestamp::from_unix_seconds(seconds), None);
    }
    for seconds in [first.unix_seconds(), -1, 0, 1_905_251_445, last.unix_seconds()] {
        assert_eq!(Timestamp::from_unix_seconds(seconds).map(Timestamp::unix_seconds), Some(seconds));
    }
    assert_eq!(last.duration_since(last - Duration::from_secs(9)), Duration::from_secs(9));
    assert_eq!(first.duration_since(last), Duration::ZERO);
    let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    for system in [SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH - century, SystemTime::UNIX_EPOCH + century] {
        assert_eq!(SystemTime::from(Timestamp::from(system)), system);
    }
    assert_eq!(Timestamp::from(SystemTime::UNIX_EPOCH - Duration::from_millis(1)).unix_seconds(), -1);
    // Not every platform has times so far away.
    let far = |system: Option<SystemTime>, end| assert!(system.is_none_or(|system| Timestamp::from(system) == end));
    far(SystemTime::UNIX_EPOCH.checked_add(century * 100), last);
    far(SystemTime::UNIX_EPOCH.checked_sub(century * 100), first);
}

#[cfg(feature = "cli")]
#[test]
fn json_has_the_text() {
    let found = time("2026-11-23T06:05:50Z");
    let json = serde_json::to_string(&found).expect("JSON");
    assert_eq!(json, "\"2026-11-23T06:05:50Z\"");
    assert_eq!(serde_json::from_str::<Timestamp>(&json).expect("a time"), found);
    assert!(serde_json::from_str::<Timestamp>("\"soon\"").is_err());
}
