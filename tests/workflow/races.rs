//! Several runs at once on one group, directory and root.

use std::fs;

use crate::support::{
    clock::ManualClock,
    lab::{DEVICE, Lab, ROOT, files, new_root, set, write},
    server::{Reply, Server},
};
use futures_util::future::join_all;
use iot_enroll::{
    central::{Authorization, CertificateEntry, Client, Endpoint},
    certificate::{Certificate, IssueOptions, Timestamp, files as sets},
    workflow::{Outcome, ProvisionError, ProvisionReport, Step, WorkflowEvent, provision},
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_at_once_all_end_well_with_one_root() {
    for _ in 0..4 {
        let lab = Lab::start().await;
        let requests: Vec<_> = (0..8).map(|_| lab.request()).collect();
        let reports = join_all(requests.iter().map(|request| lab.run(request))).await;
        let root = sets::read_certificates(&set(lab.path(), ROOT).certificate()).expect("a root").swap_remove(0);
        for report in reports {
            let report = report.expect("provisioned");
            assert_eq!((report.verified, report.sha1_thumbprint), (true, Some(root.sha1_thumbprint())));
            assert_eq!(report.devices.len(), 1);
        }
        let entry = lab.entry(CertificateEntry::Primary).await.expect("a certificate");
        assert_eq!((entry.verified, entry.sha1_thumbprint), (true, Some(root.sha1_thumbprint())));
        assert_eq!(files(lab.path()).len(), 6);
        lab.run_without_a_change(&lab.request()).await.expect("nothing is left to do");
    }
}

/// Runs while another run writes files as soon as this one starts a step.
async fn overtaken(lab: &Lab, at: Step, by: impl Fn(&Lab) + Send + Sync) -> Result<ProvisionReport, ProvisionError> {
    let mut observer = |event: WorkflowEvent<'_>| {
        if matches!(event, WorkflowEvent::Started(step, _) if step == at) {
            by(lab);
        }
    };
    provision(&lab.client(), &lab.request(), &mut observer).await
}

#[tokio::test]
async fn a_root_that_another_run_created_first_is_used() {
    let lab = Lab::start().await;
    let root = new_root(ROOT);
    let thumbprint = root.certificate.sha1_thumbprint();
    let report = overtaken(&lab, Step::Root, |lab| write(lab.path(), ROOT, &root)).await.expect("provisioned");
    assert_eq!((report.sha1_thumbprint, report.steps[0].outcome), (Some(thumbprint), Outcome::Unchanged));
    let steps = |step| report.steps.iter().filter(|it| it.step == step).count();
    assert_eq!((steps(Step::Root), steps(Step::Group)), (1, 1));
    assert_eq!(lab.entry(CertificateEntry::Primary).await.expect("set").sha1_thumbprint, Some(thumbprint));
}

#[tokio::test]
async fn a_root_and_a_device_that_another_run_created_first_are_used() {
    let lab = Lab::start().await;
    let source = crate::support::temporary_directory();
    write(source.path(), ROOT, &new_root(ROOT));
    let authority = set(source.path(), ROOT).read_authority(None, Timestamp::now()).expect("an authority");
    let device = authority.issue_device(&DEVICE.parse().expect("an id"), &IssueOptions::default()).expect("issued");
    let report = overtaken(&lab, Step::Root, |lab| {
        for name in files(source.path()).keys() {
            fs::copy(source.path().join(name), lab.path().join(name)).expect("copied");
        }
        write(lab.path(), DEVICE, &device);
    })
    .await
    .expect("provisioned");
    assert_eq!(report.devices[0].record.sha1_thumbprint, device.certificate.sha1_thumbprint().to_string());
}

#[tokio::test]
async fn a_device_that_another_run_created_first_is_used() {
    let lab = Lab::start().await;
    lab.write_root();
    let root = set(lab.path(), ROOT).read_authority(None, Timestamp::now()).expect("an authority");
    let device = root.issue_device(&DEVICE.parse().expect("an id"), &IssueOptions::default()).expect("issued");
    let report = overtaken(&lab, Step::Device, |lab| write(lab.path(), DEVICE, &device)).await.expect("provisioned");
    assert_eq!(report.devices[0].record.sha1_thumbprint, device.certificate.sha1_thumbprint().to_string());
    let step = report.steps.last().expect("steps");
    assert_eq!((step.step, step.outcome), (Step::Device, Outcome::Unchanged));
}

#[tokio::test]
async fn a_device_of_another_root_that_appears_meanwhile_is_an_error() {
    let lab = Lab::start().await;
    lab.write_root();
    let other = new_root("other").into_authority(Timestamp::now()).expect("an authority");
    let device = other.issue_device(&DEVICE.parse().expect("an id"), &IssueOptions::default()).expect("issued");
    let error = overtaken(&lab, Step::Device, |lab| write(lab.path(), DEVICE, &device)).await.expect_err("not ours");
    assert!(matches!(error, ProvisionError::Device { .. }), "{error}");
}

/// A run against a service that answers so, with our root in the directory; and how often it asked for a code.
async fn against(lab: &Lab, script: Vec<Reply>) -> (Result<ProvisionReport, ProvisionError>, usize) {
    let server = Server::start(script);
    let client = Client::builder(server.url().parse::<Endpoint>().expect("an endpoint"))
        .authorization(Authorization::parse(lab.emulator.token().to_owned()).expect("a token"))
        .clock(ManualClock::new())
        .build()
        .expect("a client");
    let result = provision(&client, &lab.request(), &mut |_| ()).await;
    let codes = server.log().iter().filter(|call| call.ends_with("generateVerificationCode")).count();
    (result, codes)
}

fn begin(ours: &Certificate) -> Vec<Reply> {
    let group = json!({
        "id": "myx509eg", "displayName": "Mine", "enabled": true, "type": "iot", "etag": "g1",
        "attestation": { "type": "x509", "x509": { "signingCertificates": {} } },
    });
    vec![Reply::json(200, &group), Reply::json(200, &entry(ours, false)), Reply::error(404, "NotFound", "none")]
}

fn entry(certificate: &Certificate, verified: bool) -> Value {
    let thumbprint = certificate.sha1_thumbprint().to_string();
    json!({ "verified": verified, "info": { "sha1Thumbprint": thumbprint }, "etag": "e1" })
}

fn code() -> Reply {
    Reply::json(200, &json!({ "verificationCode": "CODE" }))
}

fn refusal() -> Reply {
    Reply::error(422, "UnprocessableEntity", "the code is not current")
}

#[tokio::test]
async fn a_refused_proof_is_settled_by_the_entry_that_another_run_verified() {
    let lab = Lab::start().await;
    let ours = lab.write_root();
    let rest = [code(), refusal(), Reply::json(200, &entry(&ours, true))];
    let (result, codes) = against(&lab, begin(&ours).into_iter().chain(rest).collect()).await;
    let report = result.expect("verified by the other");
    assert!(report.verified && codes == 1);
    let outcome = |step| report.steps.iter().find(|it| it.step == step).map(|it| it.outcome);
    assert_eq!((outcome(Step::Verify), outcome(Step::Confirm)), (Some(Outcome::Unchanged), Some(Outcome::Done)));
}

#[tokio::test]
async fn a_proof_for_a_code_that_another_run_replaced_is_made_again() {
    let lab = Lab::start().await;
    let ours = lab.write_root();
    let unverified = || Reply::json(200, &entry(&ours, false));
    let rest = [code(), refusal(), unverified(), code(), refusal(), unverified(), code(), Reply::no_content()];
    let script = begin(&ours).into_iter().chain(rest).chain([Reply::json(200, &entry(&ours, true))]).collect();
    let (result, codes) = against(&lab, script).await;
    let report = result.expect("verified");
    assert!(report.verified && codes == 3);
    let steps = |step| report.steps.iter().filter(|it| it.step == step).count();
    assert_eq!((steps(Step::Code), steps(Step::Proof), steps(Step::Verify), steps(Step::Confirm)), (1, 1, 1, 1));
}

#[tokio::test]
async fn a_proof_that_is_refused_for_good_is_reported_in_the_service_s_words() {
    let lab = Lab::start().await;
    let ours = lab.write_root();
    let mut script = begin(&ours);
    for _ in 0..10 {
        script.extend([code(), refusal(), Reply::json(200, &entry(&ours, false))]);
    }
    let (result, codes) = against(&lab, script).await;
    let error = result.expect_err("refused");
    assert!(matches!(&error, ProvisionError::Service(error) if error.status() == Some(422)), "{error}");
    assert!(error.to_string().contains("the code is not current"), "{error}");
    assert_eq!(codes, 5);
}

#[tokio::test]
async fn a_refused_proof_of_a_certificate_that_somebody_else_replaced_is_reported_as_that() {
    let lab = Lab::start().await;
    let (ours, theirs) = (lab.write_root(), new_root("theirs").certificate);
    let rest = [code(), refusal(), Reply::json(200, &entry(&theirs, true))];
    let (result, codes) = against(&lab, begin(&ours).into_iter().chain(rest).collect()).await;
    let error = result.expect_err("replaced");
    assert!(matches!(&error, ProvisionError::NotConfirmed { found, .. } if *found == Some(theirs.sha1_thumbprint())));
    assert_eq!(codes, 1);
}
