//! What is tried again, when, and what a lost answer leads to; and the rate that all clones keep.

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
use iot_enroll::{
    central::{
        CertificateEntry, Clock, EnrollmentGroupId, EnrollmentGroupUpdate, EnrollmentGroups, Error, Etag,
        NetworkFailure, NewEnrollmentGroup, Possession, RetryPolicy,
    },
    certificate::Certificate,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

const SECOND: Duration = Duration::from_secs(1);
const PRIMARY: CertificateEntry = CertificateEntry::Primary;

fn id() -> EnrollmentGroupId {
    "g".parse().expect("an id")
}

fn certificate() -> Certificate {
    Certificate::read(include_bytes!("../../fixtures/authorities/ec-sec1_cert.pem")).expect("a certificate")
}

fn group() -> Value {
    json!({ "id": "g", "displayName": "n", "type": "iot", "attestation": { "type": "x509" }, "etag": "e2" })
}

fn entry(verified: bool) -> Value {
    json!({ "verified": verified, "info": { "sha1Thumbprint": "644543467786B60C14DFE6B7C968A1990CF63EAC" } })
}

/// The groups behind a scripted server, with a clock that nobody waits for.
fn scripted(script: impl IntoIterator<Item = Reply>) -> (Server, EnrollmentGroups, Arc<ManualClock>) {
    let (server, clock) = (Server::start(script), ManualClock::new());
    let groups = builder(&server.url(), &clock).build().expect("a client").enrollment_groups();
    (server, groups, clock)
}

fn status(status: u16) -> Reply {
    Reply::error(status, "Code", "said")
}

#[tokio::test]
async fn a_get_is_tried_again_after_server_errors_and_broken_connections() {
    let cut = Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"id\":".to_vec());
    let script = [status(500), status(503), Reply::lost(), cut, Reply::json(200, &group())];
    let (server, groups, clock) = scripted(script);
    assert_eq!(groups.get(&id()).await.expect("a group").display_name, "n");
    assert_eq!(server.log(), ["GET enrollmentGroups/g"; 5]);
    let sleeps = clock.sleeps();
    assert_eq!(sleeps.len(), 4);
    for (index, sleep) in (0..).zip(&sleeps) {
        let least = Duration::from_millis(500) * 2_u32.pow(index);
        assert!((least..=least * 2).contains(sleep), "doubling, with up to as much again: {sleeps:?}");
    }
}

#[tokio::test]
async fn put_patch_delete_and_code_requests_are_retried() {
    let (server, groups, _) = scripted([status(502), Reply::json(200, &group())]);
    groups.replace(&id(), &NewEnrollmentGroup::x509("n")).await.expect("created");
    server.then(Reply::lost());
    server.then(Reply::json(200, &group()));
    groups.update(&id(), &EnrollmentGroupUpdate::default()).await.expect("updated");
    server.then(status(504));
    server.then(Reply::no_content());
    groups.delete(&id()).await.expect("deleted");
    server.then(Reply::lost());
    server.then(Reply::json(200, &json!({ "verificationCode": "second" })));
    let code = groups.generate_verification_code(&id(), PRIMARY).await.expect("a code");
    assert_eq!(code.code, "second");
    assert_eq!(server.requests().len(), 8);
}

#[tokio::test]
async fn refusals_are_not_tried_again() {
    for refused in [400, 401, 403, 404, 409, 412, 422, 501] {
        let (server, groups, clock) = scripted([status(refused)]);
        let error = groups.get(&id()).await.expect_err("refused");
        assert_eq!((error.status(), server.requests().len()), (Some(refused), 1), "{error}");
        assert!(clock.sleeps().is_empty());
    }
}

#[tokio::test]
async fn attempts_end_and_the_error_counts_them() {
    let (server, groups, _) = scripted((0..9).map(|_| status(500)));
    let error = groups.get(&id()).await.expect_err("broken");
    assert_eq!(server.requests().len(), 6);
    assert!(error.to_string().contains("500 after 6 attempts (code Code): said"), "{error}");

    let server = Server::start([status(500)]);
    let client = builder(&server.url(), &ManualClock::new()).retry(RetryPolicy::none()).build().expect("a client");
    assert_eq!(client.enrollment_groups().get(&id()).await.expect_err("broken").status(), Some(500));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn the_budget_ends_attempts_too() {
    let server = Server::start((0..9).map(|_| status(500)));
    let policy = RetryPolicy::new().budget(2 * SECOND);
    let clock = ManualClock::new();
    let client = builder(&server.url(), &clock).retry(policy).build().expect("a client");
    client.enrollment_groups().get(&id()).await.expect_err("broken");
    assert!(clock.sleeps().iter().sum::<Duration>() <= 2 * SECOND, "{:?}", clock.sleeps());
    assert!((2..=3).contains(&server.requests().len()));
}

#[tokio::test]
async fn a_host_that_takes_no_connection_is_reported_after_three_attempts() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port");
    let clock = ManualClock::new();
    let client = builder(&format!("http://{free}"), &clock).build().expect("a client");
    let error = client.enrollment_groups().delete(&id()).await.expect_err("nobody there");
    let Error::Network(error) = error else { panic!("{error}") };
    assert_eq!((error.failure, error.attempts, error.answer_was_lost), (NetworkFailure::Connect, 3, false));
    let text = error.to_string();
    assert!(text.contains(&format!("cannot connect to {free} after 3 attempts")) && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_time_out() {
    let server = Server::start([Reply::Silence]);
    let builder = builder(&server.url(), &ManualClock::new()).retry(RetryPolicy::none());
    let groups = builder.timeout(Duration::from_millis(50)).build().expect("a client").enrollment_groups();
    let error = groups.delete(&id()).await.expect_err("silence");
    assert!(error.answer_was_lost());
    let Error::Network(error) = error else { panic!("{error}") };
    assert_eq!(error.failure, NetworkFailure::TimedOut);
}

#[tokio::test]
async fn a_throttled_call_waits_as_long_as_the_service_asks_for_every_method() {
    let (server, groups, clock) = scripted([Reply::throttled("7"), Reply::no_content()]);
    groups.verify_certificate(&id(), PRIMARY, &certificate()).await.expect("verified");
    assert_eq!(server.log(), ["POST enrollmentGroups/g/certificates/primary/verify"; 2]);
    assert_eq!(clock.sleeps(), [7 * SECOND]);
}

#[tokio::test]
async fn retry_after_may_be_a_date() {
    let date = httpdate_after(ManualClock::BEGIN + 30 * SECOND);
    let (_server, groups, clock) = scripted([Reply::throttled(&date), Reply::json(200, &group())]);
    groups.get(&id()).await.expect("a group");
    let [slept] = clock.sleeps()[..] else { panic!("one wait") };
    assert!((29 * SECOND..=30 * SECOND).contains(&slept), "{slept:?}");
}

#[tokio::test]
async fn a_past_date_and_nonsense_leave_the_default_wait() {
    for value in ["Thu, 01 Jan 1970 00:00:00 GMT", "soon", "-5", "1.5", ""] {
        let (_server, groups, clock) = scripted([Reply::throttled(value), Reply::json(200, &group())]);
        groups.get(&id()).await.expect("a group");
        let [slept] = clock.sleeps()[..] else { panic!("one wait") };
        assert!((SECOND / 2..=SECOND).contains(&slept), "{value:?}: {slept:?}");
    }
}

#[tokio::test]
async fn an_absurd_wait_is_an_error_that_says_so() {
    for (value, said) in [
        ("86400", "it asks to wait 86400 s, longer than the limit of 120 s"),
        ("99999999999999999999999999", "longer than can be counted"),
        ("18446744073709551615", "it asks to wait 18446744073709551615 s"),
    ] {
        let (server, groups, clock) = scripted([Reply::throttled(value)]);
        let error = groups.get(&id()).await.expect_err("too long");
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!((error.status(), server.requests().len(), clock.sleeps().len()), (Some(429), 1, 0));
    }
}

#[tokio::test]
async fn a_delete_that_finds_nothing_after_a_lost_answer_is_done() {
    for failure in [Reply::lost(), status(503)] {
        let (server, groups, _) = scripted([failure, status(404)]);
        groups.delete(&id()).await.expect("gone");
        assert_eq!(server.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_delete_that_was_only_throttled_still_reports_404() {
    let (_server, groups, _) = scripted([Reply::throttled("1"), status(404)]);
    assert!(groups.delete(&id()).await.expect_err("none").is_not_found());
}

#[tokio::test]
async fn a_guarded_change_whose_answer_was_lost_is_not_reported_as_a_conflict() {
    let etag = Some(Etag::new("e1"));
    let update = EnrollmentGroupUpdate::default().etag(etag.clone());
    let (_server, groups, _) = scripted([Reply::lost(), status(412)]);
    let error = groups.update(&id(), &update).await.expect_err("unclear");
    assert!(
        matches!(error, Error::OutcomeUnknown { .. }) && error.answer_was_lost() && error.status().is_none(),
        "{error}"
    );

    let (_server, groups, _) = scripted([Reply::lost(), status(412)]);
    let error = groups.set_certificate(&id(), PRIMARY, &certificate(), Possession::ToBeProven, etag.as_ref()).await;
    assert!(matches!(error, Err(Error::OutcomeUnknown { .. })));

    let (_server, groups, _) = scripted([Reply::throttled("1"), status(412)]);
    let error = groups.update(&id(), &update).await.expect_err("a conflict");
    assert_eq!((error.status(), error.answer_was_lost()), (Some(412), false), "throttled is not carried out");
}

#[tokio::test]
async fn a_loss_is_remembered_when_a_later_attempt_fails_otherwise() {
    let (_server, groups, _) = scripted([Reply::lost(), status(403)]);
    let error = groups.replace(&id(), &NewEnrollmentGroup::x509("n")).await.expect_err("refused");
    assert_eq!((error.status(), error.answer_was_lost()), (Some(403), true));
}

#[tokio::test]
async fn a_proof_whose_answer_was_lost_is_done_when_the_entry_is_verified() {
    let (server, groups, _) = scripted([Reply::lost(), Reply::json(200, &entry(true))]);
    groups.verify_certificate(&id(), PRIMARY, &certificate()).await.expect("verified");
    let log = ["POST enrollmentGroups/g/certificates/primary/verify", "GET enrollmentGroups/g/certificates/primary"];
    assert_eq!(server.log(), log);
}

#[tokio::test]
async fn a_proof_whose_answer_was_lost_is_sent_again_when_the_entry_is_not_verified() {
    let (server, groups, clock) = scripted([status(500), Reply::json(200, &entry(false)), Reply::no_content()]);
    groups.verify_certificate(&id(), PRIMARY, &certificate()).await.expect("verified");
    let methods: Vec<_> = server.requests().into_iter().map(|request| request.method).collect();
    assert_eq!((methods.join(" ").as_str(), clock.sleeps().len()), ("POST GET POST", 1));
}

#[tokio::test]
async fn a_repeated_proof_that_is_refused_is_done_when_the_first_was_carried_out_late() {
    let script = [Reply::lost(), Reply::json(200, &entry(false)), status(422), Reply::json(200, &entry(true))];
    let (server, groups, _) = scripted(script);
    groups.verify_certificate(&id(), PRIMARY, &certificate()).await.expect("verified");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_repeated_proof_that_is_refused_for_good_is_an_error() {
    let script = [Reply::lost(), Reply::json(200, &entry(false)), status(422), Reply::json(200, &entry(false))];
    let (server, groups, _) = scripted(script);
    let error = groups.verify_certificate(&id(), PRIMARY, &certificate()).await.expect_err("refused");
    assert_eq!((error.status(), server.requests().len()), (Some(422), 4));
}

#[tokio::test]
async fn a_refused_proof_is_not_repeated_and_nothing_is_read() {
    let (server, groups, _) = scripted([status(422)]);
    let error = groups.verify_certificate(&id(), PRIMARY, &certificate()).await.expect_err("refused");
    assert_eq!((error.status(), error.answer_was_lost(), server.requests().len()), (Some(422), false, 1));
}

#[tokio::test]
async fn a_lost_proof_whose_state_cannot_be_read_is_reported_as_lost() {
    let (server, groups, _) = scripted([Reply::lost(), status(403)]);
    let error = groups.verify_certificate(&id(), PRIMARY, &certificate()).await.expect_err("unclear");
    assert!(error.answer_was_lost() && matches!(error, Error::Network(_)), "{error}");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn proofs_that_keep_getting_lost_end_within_the_limits() {
    let script = (0..9).flat_map(|_| [Reply::lost(), Reply::json(200, &entry(false))]);
    let (server, groups, _) = scripted(script);
    let error = groups.verify_certificate(&id(), PRIMARY, &certificate()).await.expect_err("lost");
    assert!(error.answer_was_lost());
    assert_eq!(server.requests().iter().filter(|request| request.method == "POST").count(), 6);
}

/// Time stands still but for the waits, so the elapsed time is what the limit made the requests wait.
#[tokio::test]
async fn clones_share_one_rate() {
    let (server, clock) = (Server::start((0..21).map(|_| Reply::json(200, &group()))), ManualClock::new());
    let client = builder(&server.url(), &clock).rate(NonZeroU32::new(10).expect("a rate")).build().expect("a client");
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..21 {
        let groups = client.clone().enrollment_groups();
        calls.spawn(async move { groups.get(&id()).await });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("no panic").expect("a group");
    }
    assert_eq!(server.requests().len(), 21);
    let elapsed = clock.elapsed();
    assert!((2 * SECOND..=2 * SECOND + SECOND / 100).contains(&elapsed), "20 intervals of 0.1 s: {elapsed:?}");
}

#[tokio::test]
async fn repetitions_count_in_the_rate() {
    let (server, clock) = (Server::start([status(500), Reply::json(200, &group())]), ManualClock::new());
    let rate = NonZeroU32::MIN;
    let policy = RetryPolicy::new().first_delay(Duration::from_millis(1));
    let client = builder(&server.url(), &clock).rate(rate).retry(policy).build().expect("a client");
    client.enrollment_groups().get(&id()).await.expect("a group");
    let elapsed = clock.elapsed();
    assert!(elapsed >= SECOND, "the second request keeps its distance: {elapsed:?}");
}

/// A clock that stands still, in whose long sleeps everybody stays until they are let go.
struct HeldClock {
    now: Mutex<Duration>,
    held: Arc<Notify>,
    go: watch::Sender<bool>,
}

impl Clock for HeldClock {
    fn elapsed(&self) -> Duration {
        *self.now.lock().expect("clock")
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        *self.now.lock().expect("clock") += duration;
        let (held, mut go) = (Arc::clone(&self.held), self.go.subscribe());
        Box::pin(async move {
            if duration > 10 * SECOND {
                held.notify_one();
                go.wait_for(|go| *go).await.map(drop).expect("the test goes on");
            }
        })
    }
}

#[tokio::test]
async fn one_throttled_call_makes_every_clone_wait() {
    let server = Server::start([Reply::throttled("50"), Reply::json(200, &group()), Reply::json(200, &group())]);
    let held = Arc::new(Notify::new());
    let clock = Arc::new(HeldClock { now: Mutex::default(), held: Arc::clone(&held), go: watch::Sender::new(false) });
    let client =
        builder(&server.url(), &ManualClock::new()).clock(Arc::clone(&clock) as Arc<_>).build().expect("a client");
    let get = |groups: EnrollmentGroups| tokio::spawn(async move { groups.get(&id()).await });
    let first = get(client.enrollment_groups());
    held.notified().await;
    let second = get(client.clone().enrollment_groups());
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(!second.is_finished() && server.requests().len() == 1, "the other clone waits too");
    clock.go.send_replace(true);
    first.await.expect("no panic").expect("a group");
    second.await.expect("no panic").expect("a group");
    assert_eq!(server.requests().len(), 3);
}

/// A date in the form of RFC 9110 section 5.6.7.
fn httpdate_after(since_epoch: Duration) -> String {
    let date = time::OffsetDateTime::from(SystemTime::UNIX_EPOCH + since_epoch);
    let form = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    date.format(form).expect("a date")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_retry_after_is_kept_or_reported_and_never_waited_for_past_the_budget(
        value in prop_oneof![
            "[0-9]{1,30}",
            (0_u64..200_000_000_000).prop_map(|at| httpdate_after(Duration::from_secs(at))),
            "[ -~]{0,40}",
        ],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let outcome = runtime.block_on(async {
            let (_server, groups, clock) = scripted([Reply::throttled(&value), Reply::json(200, &group())]);
            (groups.get(&id()).await.map(drop), clock.sleeps())
        });
        match outcome {
            (Ok(()), sleeps) => {
                prop_assert_eq!(sleeps.len(), 1);
                prop_assert!(sleeps[0] <= 120 * SECOND);
                if let Ok(asked) = value.parse::<u64>() {
                    prop_assert!(sleeps[0] >= Duration::from_secs(asked));
                }
            }
            (Err(error), sleeps) => {
                prop_assert_eq!(error.status(), Some(429));
                prop_assert!(sleeps.is_empty());
                prop_assert!(error.to_string().contains("it asks to wait"), "{}", error);
            }
        }
    }
}
