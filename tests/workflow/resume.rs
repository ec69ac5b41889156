//! Provisioning that is killed, or whose requests fail: the next run finishes it.

use std::{future::poll_fn, panic::resume_unwind, pin::pin, task::Poll, time::Duration};

use crate::support::lab::{DEVICE, Lab, ROOT, files as all_files, new_root, set};
use iot_enroll::{
    central::{CertificateEntry, NewEnrollmentGroup, RetryPolicy},
    certificate::{Certificate, Thumbprint, Timestamp, chain, files},
    emulator::FaultKind,
    workflow::{Outcome, ProvisionError, ProvisionReport, ProvisionRequest, provision},
};
use proptest::prelude::*;

/// Requests of a run from nothing: group, its creation, both entries, the certificate, the code, the proof, the entry.
const REQUESTS: usize = 8;

/// Events of a run from nothing: the begin and end of eight steps.
const EVENTS: usize = 16;

/// How a run is disturbed.
#[derive(Debug, Clone)]
enum Disturbance {
    /// The process is killed at the event with this number.
    KilledAtEvent(usize),
    /// The process is killed at the wait with this number.
    KilledAtWait(usize),
    /// So many requests from the one with this number on go wrong.
    Fault { at: usize, kind: FaultKind, times: u32 },
}

use Disturbance::{Fault, KilledAtEvent, KilledAtWait};

fn kinds() -> Vec<FaultKind> {
    let status =
        |status, seconds: Option<u64>| FaultKind::Status { status, retry_after: seconds.map(Duration::from_secs) };
    vec![
        FaultKind::CloseBeforeHandling,
        FaultKind::CloseAfterHandling,
        FaultKind::TruncateBody,
        FaultKind::NotJson,
        status(500, None),
        status(503, None),
        status(503, Some(2)),
        status(429, Some(0)),
        status(429, Some(1)),
        status(403, None),
    ]
}

/// Runs with a disturbance; returns nothing if the run was killed.
async fn run(
    lab: &Lab,
    request: ProvisionRequest<'static>,
    disturbance: Option<Disturbance>,
) -> Option<Result<ProvisionReport, ProvisionError>> {
    let client = lab.client();
    match disturbance {
        Some(KilledAtEvent(number)) => {
            let mut left = number;
            let task = tokio::spawn(async move {
                provision(&client, &request, &mut |_| {
                    left = left.checked_sub(1).unwrap_or_else(|| resume_unwind(Box::new("killed")));
                })
                .await
            });
            task.await.ok()
        }
        Some(KilledAtWait(number)) => {
            let mut left = number;
            let observer = &mut |_: iot_enroll::workflow::WorkflowEvent<'_>| ();
            let mut running = pin!(provision(&client, &request, observer));
            poll_fn(|context| match running.as_mut().poll(context) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending if left == 0 => Poll::Ready(None),
                Poll::Pending => {
                    left -= 1;
                    Poll::Pending
                }
            })
            .await
        }
        Some(Fault { at, kind, times }) => {
            lab.fault_at(at, &kind, times);
            let result = lab.run(&request).await;
            lab.emulator.clear_faults();
            Some(result)
        }
        None => Some(lab.run(&request).await),
    }
}

fn root_of(lab: &Lab) -> Option<Thumbprint> {
    let file = std::fs::read(set(lab.path(), ROOT).certificate()).ok()?;
    Some(Certificate::read(&file).expect("a whole certificate").sha1_thumbprint())
}

/// A run without disturbance ends verified, by the root that was there, with everything in its place, and leaves nothing
/// to do.
async fn finishes(lab: &Lab, request: impl Fn() -> ProvisionRequest<'static>, after: &str) {
    let root = root_of(lab);
    let report = lab.run(&request()).await.unwrap_or_else(|error| panic!("after {after}: {error}"));
    assert!(report.verified, "after {after}");
    assert!(root.is_none() || report.sha1_thumbprint == root, "after {after}: the root was replaced");
    assert_eq!(report.sha1_thumbprint, root_of(lab), "after {after}");
    let entry = lab.entry(report.entry).await.expect("a certificate");
    assert_eq!((entry.verified, entry.sha1_thumbprint), (true, root_of(lab)), "after {after}");
    let authority = files::read_certificates(&set(lab.path(), ROOT).certificate()).expect("a root");
    let device = files::read_certificates(&set(lab.path(), DEVICE).fullchain()).expect("a chain");
    chain::verify(&device, &authority[0], Timestamp::now()).expect("of this root");
    let names: Vec<_> = all_files(lab.path()).into_keys().collect();
    let expected = [ROOT, "sampleDevice01"]
        .map(|stem| ["_cert.pem", "_fullchain.pem", "_key.pem"].map(|it| format!("{stem}{it}")));
    assert_eq!(names, expected.concat(), "after {after}");
    let again = lab.run_without_a_change(&request()).await.expect("nothing to do");
    assert!(again.steps.iter().all(|step| step.outcome == Outcome::Unchanged), "after {after}: {again:?}");
}

#[tokio::test]
async fn killed_at_any_event_it_is_finished_by_the_next_run() {
    for number in 0..EVENTS {
        for attest in [false, true] {
            let lab = Lab::start().await;
            let request = || lab.request().skip_proof(attest);
            let ended = run(&lab, request(), Some(KilledAtEvent(number))).await;
            // Attesting has three steps less.
            assert_eq!(ended.is_none(), number < if attest { EVENTS - 6 } else { EVENTS });
            finishes(&lab, request, &format!("event {number}, attest {attest}")).await;
        }
    }
}

#[tokio::test]
async fn killed_while_waiting_it_is_finished_by_the_next_run() {
    let mut number = 0;
    loop {
        let lab = Lab::start().await;
        let ended = run(&lab, lab.request(), Some(KilledAtWait(number))).await;
        finishes(&lab, || lab.request(), &format!("wait {number}")).await;
        if ended.is_some() {
            break;
        }
        number += 1;
    }
    assert!(number >= REQUESTS, "it waits for each answer: {number}");
}

#[tokio::test]
async fn killed_while_replacing_it_is_finished_by_the_next_run() {
    for number in 0..EVENTS {
        let lab = Lab::start().await;
        lab.holding(&new_root("theirs").certificate, true).await;
        let request = || lab.request().replace(true);
        run(&lab, request(), Some(KilledAtEvent(number))).await;
        finishes(&lab, request, &format!("event {number}")).await;
    }
}

#[track_caller]
fn is_clear(lab: &Lab, error: &ProvisionError, what: &str) {
    let message = error.to_string();
    assert!(message.contains("myx509eg"), "{what}: it says where: {message}");
    assert!(!message.contains(lab.emulator.token()) && !message.contains("sig="), "{what}: {message}");
}

/// Every fault at every request, so many times in a row. One that passes is got over in the same run.
async fn every_fault(times: u32, replacing: bool, attest: bool) {
    for kind in kinds() {
        let passes = times == 1 && !matches!(kind, FaultKind::NotJson | FaultKind::Status { status: 403, .. });
        for at in 0..REQUESTS {
            let lab = Lab::start().await;
            if replacing {
                lab.holding(&new_root("theirs").certificate, true).await;
            }
            let request = || lab.request().replace(replacing).skip_proof(attest);
            let what = format!("{times} × {kind:?} at {at}");
            let disturbance = Fault { at, kind: kind.clone(), times };
            match run(&lab, request(), Some(disturbance)).await.expect("not killed") {
                Ok(report) => assert!(report.verified, "{what}"),
                Err(error) if passes => panic!("{what}: {error}"),
                Err(error) => is_clear(&lab, &error, &what),
            }
            finishes(&lab, request, &what).await;
        }
    }
}

#[tokio::test]
async fn one_fault_at_any_request_is_recovered_or_reported_and_the_next_run_finishes() {
    every_fault(1, false, false).await;
}

#[tokio::test]
async fn one_fault_at_any_request_while_replacing_is_recovered_or_reported_and_the_next_run_finishes() {
    every_fault(1, true, false).await;
}

#[tokio::test]
async fn one_fault_at_any_request_while_attesting_is_recovered_or_reported_and_the_next_run_finishes() {
    every_fault(1, true, true).await;
}

#[tokio::test]
async fn a_service_that_fails_for_good_from_any_request_on_is_reported_and_the_next_run_finishes() {
    every_fault(100, false, false).await;
}

#[tokio::test]
async fn without_retries_a_lost_answer_to_the_upload_is_found_in_the_entry() {
    let lab = Lab::start().await;
    lab.group(&NewEnrollmentGroup::x509("Mine")).await;
    // The group, the entries, the entries again after the root was created, then the upload.
    lab.fault_at(5, &FaultKind::CloseAfterHandling, 1);
    let client = lab.builder().retry(RetryPolicy::none()).build().expect("a client");
    let report = provision(&client, &lab.request(), &mut |_| ()).await.expect("provisioned");
    assert!(report.verified);
    let uploads =
        lab.emulator.requests().iter().filter(|it| it.method == "PUT" && it.path.ends_with("primary")).count();
    assert_eq!(uploads, 1, "it was not sent again");
}

#[tokio::test]
async fn without_retries_an_upload_that_never_arrived_is_reported() {
    let lab = Lab::start().await;
    lab.group(&NewEnrollmentGroup::x509("Mine")).await;
    lab.fault_at(5, &FaultKind::CloseBeforeHandling, 1);
    let client = lab.builder().retry(RetryPolicy::none()).build().expect("a client");
    let error = provision(&client, &lab.request(), &mut |_| ()).await.expect_err("lost");
    is_clear(&lab, &error, "an upload that was lost");
    assert_eq!(lab.entry(CertificateEntry::Primary).await, None);
    finishes(&lab, || lab.request(), "an upload that was lost").await;
}

#[tokio::test]
async fn two_concurrent_runs_leave_one_root_and_a_state_that_can_be_resumed() {
    let lab = Lab::start().await;
    let (one, other) = (lab.request(), lab.request());
    let (one, other) = tokio::join!(lab.run(&one), lab.run(&other));
    let thumbprints: Vec<_> = [one, other].into_iter().flatten().map(|report| report.sha1_thumbprint).collect();
    assert!(thumbprints.iter().all(|thumbprint| *thumbprint == root_of(&lab)), "{thumbprints:?}");
    finishes(&lab, || lab.request(), "two at once").await;
}

fn disturbance() -> impl Strategy<Value = Disturbance> {
    prop_oneof![
        (0..EVENTS).prop_map(KilledAtEvent),
        (0..40usize).prop_map(KilledAtWait),
        (0..REQUESTS, prop::sample::select(kinds()), prop_oneof![Just(1u32), Just(2), Just(100)])
            .prop_map(|(at, kind, times)| Fault { at, kind, times }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_faults_in_up_to_four_runs_the_next_one_finishes_with_the_first_root(
        disturbances in prop::collection::vec(disturbance(), 1..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let lab = Lab::start().await;
            let mut root = None;
            for disturbance in &disturbances {
                run(&lab, lab.request(), Some(disturbance.clone())).await;
                let found = root_of(&lab);
                assert!(root.is_none() || root == found, "the root was replaced");
                root = found;
            }
            finishes(&lab, || lab.request(), &format!("{disturbances:?}")).await;
        });
    }
}
