//! The pace of requests: even, kept under load, lower while the service refuses, and whole again.

use std::{
    num::NonZeroU32,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use crate::support::{
    client::builder,
    clock::ManualClock,
    server::{Reply, Server},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use iot_enroll::central::{
    Authorization, AuthorizationError, Client, Clock, Devices, Error, NewDevice, RetryPolicy, Secret, TokenCredential,
};
use serde_json::json;
use tokio::sync::watch;

const SECOND: Duration = Duration::from_secs(1);

fn device() -> Reply {
    Reply::json(200, &json!({ "id": "d" }))
}

fn rate(per_second: u32) -> NonZeroU32 {
    NonZeroU32::new(per_second).expect("a rate")
}

fn client(server: &Server, clock: &Arc<ManualClock>, per_second: u32) -> Client {
    builder(&server.url(), clock).rate(rate(per_second)).build().expect("a client")
}

/// Creates so many devices with so many calls in flight.
async fn create(devices: &Devices, count: u32, in_flight: usize) -> Result<(), Error> {
    let calls = stream::iter(0..count).map(|number| async move {
        let id = format!("d{number}").parse().expect("an id");
        devices.replace(&id, &NewDevice::default()).await.map(drop)
    });
    calls.buffer_unordered(in_flight).try_collect().await
}

#[tokio::test]
async fn bulk_work_sends_each_call_once_at_the_rate() {
    let (server, clock) = (Server::start((0..200).map(|_| device())), ManualClock::new());
    create(&client(&server, &clock, 20).devices(), 200, 32).await.expect("created");
    let mut log = server.log();
    log.sort();
    log.dedup();
    assert_eq!((log.len(), server.requests().len()), (200, 200));
    let elapsed = clock.elapsed();
    assert!((9 * SECOND..10 * SECOND).contains(&elapsed), "199 intervals of 0.05 s: {elapsed:?}");
}

#[tokio::test]
async fn the_default_is_the_twenty_requests_a_second_that_an_application_takes() {
    let (server, clock) = (Server::start((0..41).map(|_| device())), ManualClock::new());
    let client = builder(&server.url(), &clock).build().expect("a client");
    create(&client.devices(), 41, 8).await.expect("created");
    assert_eq!(clock.elapsed(), 2 * SECOND, "40 intervals of 0.05 s");
}

/// A clock whose sleeps take longer than they were asked to, as timers do.
#[derive(Default)]
struct LateClock(Arc<Mutex<Duration>>);

const LATE: Duration = Duration::from_millis(2);

impl Clock for LateClock {
    fn elapsed(&self) -> Duration {
        *self.0.lock().expect("clock")
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + ManualClock::BEGIN + self.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let elapsed = Arc::clone(&self.0);
        Box::pin(async move { *elapsed.lock().expect("clock") += duration + LATE })
    }
}

#[tokio::test]
async fn a_rate_is_sustained_though_timers_are_late() {
    for per_second in [20, 100, 400] {
        let (server, clock) = (Server::start((0..300).map(|_| device())), Arc::new(LateClock::default()));
        let builder = builder(&server.url(), &ManualClock::new()).clock(Arc::clone(&clock) as Arc<_>);
        let client = builder.rate(rate(per_second)).build().expect("a client");
        create(&client.devices(), 300, 16).await.expect("created");
        let sustained = 299.0 / clock.elapsed().as_secs_f64();
        let wanted = f64::from(per_second);
        assert!((0.95 * wanted..=1.02 * wanted).contains(&sustained), "{sustained} of {wanted}");
    }
}

#[tokio::test]
async fn idle_time_does_not_permit_a_burst() {
    let (server, clock) = (Server::start((0..40).map(|_| device())), ManualClock::new());
    let devices = client(&server, &clock, 10).devices();
    create(&devices, 10, 1).await.expect("created");
    clock.sleep(60 * SECOND).await;
    let begun = clock.elapsed();
    create(&devices, 21, 8).await.expect("created");
    assert!(clock.elapsed() >= begun + 2 * SECOND, "no burst after a pause");
}

/// How long so many calls take, one after another.
async fn takes(devices: &Devices, clock: &ManualClock, count: u32) -> Duration {
    let begun = clock.elapsed();
    create(devices, count, 1).await.expect("created");
    clock.elapsed().saturating_sub(begun)
}

#[tokio::test]
async fn a_refusal_lowers_the_pace_which_then_rises_slowly() {
    let server = Server::start((0..20).map(|_| device()).chain([Reply::throttled("1")]));
    let clock = ManualClock::new();
    let devices = client(&server, &clock, 20).devices();
    create(&devices, 20, 1).await.expect("created");
    (0..2000).for_each(|_| server.then(device()));
    takes(&devices, &clock, 1).await;
    // An interval is 0.05 s at the full pace.
    let after = takes(&devices, &clock, 10).await;
    assert!(after > SECOND * 9 / 10 && after <= SECOND * 11 / 10, "half the pace: {after:?}");
    let later = takes(&devices, &clock, 60).await;
    assert!(later < 60 * SECOND / 10 && later > 60 * SECOND / 20, "rising: {later:?}");
    takes(&devices, &clock, 300).await;
    let whole = takes(&devices, &clock, 20).await;
    assert!((SECOND * 99 / 100..=SECOND * 101 / 100).contains(&whole), "whole again: {whole:?}");
}

#[tokio::test]
async fn refusals_of_requests_that_were_under_way_together_count_once() {
    let server = Server::start((0..8).map(|_| Reply::throttled("1")).chain((0..200).map(|_| device())));
    let clock = ManualClock::new();
    // All eight are in flight at once: the clock moves only because of the rate limit.
    let devices = client(&server, &clock, 1000).devices();
    create(&devices, 8, 8).await.expect("created");
    let after = takes(&devices, &clock, 100).await;
    assert!(after < SECOND, "far from a half eight times over: {after:?}");
}

#[tokio::test]
async fn bulk_work_finishes_though_the_service_takes_less_than_its_limit() {
    let server = Server::start([]);
    // Every fifth request is refused at first.
    for number in 0..400 {
        server.then(if number % 5 == 0 && number < 100 { Reply::throttled("1") } else { device() });
    }
    let clock = ManualClock::new();
    create(&client(&server, &clock, 20).devices(), 200, 32).await.expect("created");
    let created: Vec<_> = server.log();
    assert_eq!(created.len(), 220, "200 and the 20 that were refused");
    let mut distinct = created.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 200);
}

/// A credential that takes its time.
struct Slow(watch::Receiver<bool>);

impl TokenCredential for Slow {
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<Secret, AuthorizationError>> + Send + '_>> {
        let mut ready = self.0.clone();
        Box::pin(async move {
            ready.wait_for(|ready| *ready).await.expect("the test goes on");
            Ok("token".into())
        })
    }
}

#[tokio::test]
async fn requests_that_waited_for_a_token_do_not_go_as_a_burst() {
    let (server, clock) = (Server::start((0..20).map(|_| device())), ManualClock::new());
    let (ready, wait) = watch::channel(false);
    let builder = builder(&server.url(), &clock).authorization(Authorization::from_credential(Slow(wait)));
    let devices = builder.rate(rate(10)).build().expect("a client").devices();
    let work = tokio::spawn(async move { create(&devices, 20, 20).await });
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(clock.elapsed(), Duration::ZERO, "no turn passes while there is no token");
    ready.send_replace(true);
    work.await.expect("no panic").expect("created");
    assert!(clock.elapsed() >= SECOND * 19 / 10, "{:?}", clock.elapsed());
}

#[tokio::test]
async fn a_call_that_waits_long_for_its_turn_still_has_its_attempts() {
    let (server, clock) = (Server::start([Reply::throttled("1"), device()]), ManualClock::new());
    let (ready, wait) = watch::channel(false);
    let builder = builder(&server.url(), &clock).authorization(Authorization::from_credential(Slow(wait)));
    let policy = RetryPolicy::new().budget(5 * SECOND);
    let devices = builder.retry(policy).build().expect("a client").devices();
    let work = tokio::spawn(async move { create(&devices, 1, 1).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    clock.sleep(60 * SECOND).await;
    ready.send_replace(true);
    work.await.expect("no panic").expect("the time before the first attempt is not part of the budget");
    assert_eq!(server.requests().len(), 2);
}
