//! The clock of the emulator.

use std::time::{Duration, SystemTime};

use iot_enroll::emulator::{Clock, Emulator};

use crate::support::app::App;

/// The last second of the year 9999, since 1970.
const END: u64 = 253_402_300_799;

#[test]
fn clones_share_one_clock() {
    let clock = Clock::frozen(SystemTime::UNIX_EPOCH);
    clock.clone().advance(Duration::from_secs(60));
    assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(60));
    let system = Clock::system();
    system.advance(Duration::from_secs(3600));
    assert!(system.now() > SystemTime::now() + Duration::from_secs(3500));
}

#[tokio::test]
async fn times_out_of_range_are_clamped() {
    let second = Duration::from_secs(1);
    let late = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(END * 2)).expect("a time");
    let early = SystemTime::UNIX_EPOCH - second;
    for (frozen, advance, expected) in [
        (late, Duration::ZERO, Duration::from_secs(END)),
        (SystemTime::UNIX_EPOCH, Duration::MAX, Duration::from_secs(END)),
        (early, second * 3, second * 2),
    ] {
        let clock = Clock::frozen(frozen);
        clock.advance(advance);
        let since = clock.now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        assert_eq!(since.as_secs(), expected.as_secs());
        // An error has the time as an HTTP date.
        App::with(Emulator::builder().clock(clock)).await.get("/enrollmentGroups/missing").await.expect(404);
    }
    let error = App::with(Emulator::builder().clock(Clock::frozen(early))).await.get("/enrollmentGroups/x").await;
    assert_eq!(error.expect(404).text("/error/time"), "Thu, 01 Jan 1970 00:00:00 GMT");
}
