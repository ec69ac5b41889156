//! Rollover at the Device Provisioning Service: two CAs at a time, then the new one.

use crate::{
    dps_lab::{DpsLab, group_id, is_change},
    support::{
        lab::{name, new_root, set},
        server::{Reply, Server},
    },
};
use futures_util::future::join_all;
use iot_enroll::{
    central::CertificateEntry,
    certificate::{Certificate, CertificateAuthority, IssueOptions, Timestamp, files},
    dps::service::{CaReferences, EnrollmentGroupUpdate, NewAttestation, NewCertificates, NewEnrollmentGroup},
    emulator::FaultKind,
    workflow::{
        AuthoritySource, Outcome, RetireReport, RetireRequest, RolloverError, RolloverReport, RolloverRequest, Step,
        retire, rollover,
    },
};

use serde_json::{Value, json};

use CertificateEntry::{Primary, Secondary};

const NEW: &str = "root2027";

fn read_root(lab: &DpsLab, root: &str) -> Certificate {
    files::read_certificates(&set(lab.path(), root).certificate()).expect("a root").swap_remove(0)
}

/// An instance whose group is verified on the first root.
async fn provisioned() -> DpsLab {
    let lab = DpsLab::start().await;
    lab.run(&lab.request()).await.expect("provisioned");
    lab
}

fn request(lab: &DpsLab) -> RolloverRequest<'static> {
    let lab_request = lab.request();
    RolloverRequest::new(lab_request.group, AuthoritySource::Root(name(NEW)), lab.path().join("new"))
        .devices(lab_request.devices)
        .directory(lab.path())
}

async fn roll(lab: &DpsLab) -> Result<RolloverReport, RolloverError> {
    rollover(&lab.instance(), &request(lab), &mut |_| ()).await
}

async fn end(lab: &DpsLab, stays: &Certificate) -> Result<RetireReport, RolloverError> {
    retire(&lab.instance(), &RetireRequest::new(lab.request().group, stays.clone()), &mut |_| ()).await
}

#[tokio::test]
async fn a_group_rolls_over_to_the_next_root_and_leaves_the_old_one() {
    let lab = provisioned().await;
    let old = read_root(&lab, crate::support::lab::ROOT);
    let report = roll(&lab).await.expect("rolled over");
    let new = read_root(&lab, NEW);
    assert_eq!((report.from.entry, report.to.entry), (Primary, Secondary));
    assert!(report.from.verified && report.to.verified);
    assert_eq!(report.from.sha1_thumbprint, Some(old.sha1_thumbprint()));
    assert!(report.to.certificate_name.is_some() && report.to.certificate_name != report.from.certificate_name);
    let both = [Some((old.sha1_thumbprint(), true)), Some((new.sha1_thumbprint(), true))];
    assert_eq!(lab.entries().await, both);

    // Again, it changes nothing.
    let count = lab.emulator.requests().len();
    let again = roll(&lab).await.expect("rolled over");
    assert!(again.steps.iter().all(|it| it.outcome == Outcome::Unchanged), "{again:?}");
    assert!(!lab.emulator.requests().split_off(count).iter().any(is_change));

    let retired = end(&lab, &new).await.expect("retired");
    assert!(retired.retired);
    assert_eq!((retired.from.sha1_thumbprint, retired.to.entry), (Some(old.sha1_thumbprint()), Primary));
    assert_eq!(lab.entries().await, [Some((new.sha1_thumbprint(), true)), None], "a group has a primary certificate");
    let left = lab.certificates().await;
    assert!(left.len() == 1 && left[0].is(&new), "the old certificate is deleted: {left:?}");
    let again = end(&lab, &new).await.expect("retired");
    assert!(again.steps.iter().all(|it| it.outcome == Outcome::Unchanged), "{again:?}");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let lab = provisioned().await;
    let before = lab.state().await;
    let planned = rollover(&lab.instance(), &request(&lab).dry_run(true), &mut |_| ()).await.expect("a plan");
    assert!(planned.steps.iter().any(|it| it.step == Step::Group && it.outcome == Outcome::Planned), "{planned:?}");
    assert_eq!(lab.state().await, before);
    roll(&lab).await.expect("rolled over");
    let before = lab.state().await;
    let plan = RetireRequest::new(lab.request().group, read_root(&lab, NEW)).dry_run(true);
    let planned = retire(&lab.instance(), &plan, &mut |_| ()).await.expect("a plan");
    assert!(!planned.retired);
    assert_eq!(lab.state().await, before);
}

#[tokio::test]
async fn retiring_the_secondary_leaves_the_primary() {
    let lab = provisioned().await;
    roll(&lab).await.expect("rolled over");
    let old = read_root(&lab, crate::support::lab::ROOT);
    let retired = end(&lab, &old).await.expect("the rollover is taken back");
    assert_eq!((retired.from.entry, retired.to.entry), (Secondary, Primary));
    assert_eq!(lab.entries().await, [Some((old.sha1_thumbprint(), true)), None]);
    assert_eq!(lab.certificates().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_runs_converge() {
    let lab = provisioned().await;
    for report in join_all((0..4).map(|_| roll(&lab))).await {
        assert!(report.expect("rolled over").to.verified);
    }
    let new = read_root(&lab, NEW);
    for report in join_all((0..4).map(|_| end(&lab, &new))).await {
        assert!(report.expect("retired").retired);
    }
    assert_eq!(lab.entries().await, [Some((new.sha1_thumbprint(), true)), None]);
    assert_eq!(lab.certificates().await.len(), 1);
}

#[tokio::test]
async fn nothing_is_removed_while_no_device_could_connect() {
    let lab = provisioned().await;
    let stranger = new_root("stranger").certificate;
    let before = lab.state().await;
    let error = end(&lab, &stranger).await.expect_err("it is in no entry");
    assert!(matches!(error, RolloverError::Needed { entry: None, .. }), "{error}");
    // An unverified one in the other entry.
    let unverified = lab.upload("unverified", &stranger, false).await;
    let primary = lab.group().await.expect("the group").ca_references().expect("references").primary.clone();
    let references = CaReferences { primary, secondary: Some(unverified) };
    let update = EnrollmentGroupUpdate::new().attestation(Some(references.into()));
    lab.instance().client().enrollment_groups().update(&group_id(), &update).await.expect("updated");
    let error = end(&lab, &stranger).await.expect_err("it is not verified");
    assert!(matches!(error, RolloverError::Needed { entry: Some(Secondary), .. }), "{error}");
    assert_ne!(lab.state().await, before);
    assert_eq!(lab.entries().await[0].map(|(_, verified)| verified), Some(true));
}

#[tokio::test]
async fn a_group_without_a_verified_ca_cannot_be_rolled_over() {
    let lab = DpsLab::start().await;
    let missing = roll(&lab).await.expect_err("no group");
    assert!(matches!(&missing, RolloverError::Service(error) if error.is_not_found()), "{missing}");
    let name = lab.upload("unverified", &new_root("theirs").certificate, false).await;
    lab.create_group("myx509eg", &name).await;
    assert!(matches!(roll(&lab).await, Err(RolloverError::NotVerified { .. })));
}

#[tokio::test]
async fn a_rollover_that_fails_at_any_request_is_finished_by_the_next() {
    for kind in [FaultKind::CloseAfterHandling, FaultKind::CloseBeforeHandling] {
        for at in 0.. {
            let lab = provisioned().await;
            lab.fault_at(at, &kind, 1);
            let instance = lab.instance_without_retries();
            let count = lab.emulator.requests().len();
            let _ = rollover(&instance, &request(&lab), &mut |_| ()).await;
            let sent = lab.emulator.requests().len() - count;
            lab.emulator.clear_faults();
            let report = roll(&lab).await.unwrap_or_else(|error| panic!("{kind:?} at {at}: {error}"));
            assert!(report.from.verified && report.to.verified, "{kind:?} at {at}");
            assert_eq!(lab.certificates().await.len(), 2, "{kind:?} at {at}");
            if sent <= at {
                break;
            }
        }
    }
}

#[tokio::test]
async fn an_end_that_fails_at_any_request_is_finished_by_the_next() {
    for kind in [FaultKind::CloseAfterHandling, FaultKind::CloseBeforeHandling] {
        for at in 0.. {
            let lab = provisioned().await;
            roll(&lab).await.expect("rolled over");
            let new = read_root(&lab, NEW);
            lab.fault_at(at, &kind, 1);
            let count = lab.emulator.requests().len();
            let retired = RetireRequest::new(lab.request().group, new.clone());
            let _ = retire(&lab.instance_without_retries(), &retired, &mut |_| ()).await;
            let sent = lab.emulator.requests().len() - count;
            lab.emulator.clear_faults();
            let report = end(&lab, &new).await.unwrap_or_else(|error| panic!("{kind:?} at {at}: {error}"));
            assert!(report.retired, "{kind:?} at {at}");
            assert_eq!(lab.entries().await, [Some((new.sha1_thumbprint(), true)), None], "{kind:?} at {at}");
            // The old certificate stays if the run ended between the two changes: no record says that it was the old one.
            let left = lab.certificates().await;
            assert!(left.iter().any(|it| it.is(&new)) && left.len() <= 2, "{kind:?} at {at}");
            if let Some(old) = left.iter().find(|it| !it.is(&new)) {
                let step = report.steps.iter().find(|it| it.step == Step::Retire).expect("the step");
                assert!(step.detail.contains(old.name.as_str()), "{step:?}");
            }
            if sent <= at {
                break;
            }
        }
    }
}

/// The answers of an instance in which another group refers to the old certificate as well.
fn shared_by_another_group(old: &Certificate, new: &Certificate) -> Vec<Reply> {
    let certificate = |name: &str, certificate: &Certificate| {
        let thumbprint = certificate.sha1_thumbprint().to_string();
        json!({ "name": name, "etag": "AAA=", "properties": { "thumbprint": thumbprint, "isVerified": true } })
    };
    let certificates = Reply::json(200, &json!({ "value": [certificate("old", old), certificate("new", new)] }));
    let group = |id: &str, references: &Value| {
        json!({
            "enrollmentGroupId": id, "etag": "\"g1\"",
            "attestation": { "type": "x509", "x509": { "caReferences": references } },
        })
    };
    let both = group("myx509eg", &json!({ "primary": "old", "secondary": "new" }));
    let after = group("myx509eg", &json!({ "primary": "new" }));
    let other = group("the-other", &json!({ "primary": "OLD" }));
    let found = |group: &Value| Reply::json(200, group);
    let query = Reply::json(200, &json!([after, other]));
    let again = Reply::json(200, &json!({ "value": [certificate("old", old), certificate("new", new)] }));
    let one = Reply::json(200, &certificate("old", old));
    // Both entries; the group as it is changed; all groups; the old certificate; both entries again.
    vec![found(&both), certificates, found(&both), found(&after), query, one, found(&after), again]
}

#[tokio::test]
async fn a_certificate_that_another_group_refers_to_is_kept() {
    let (old, new) = (new_root("old").certificate, new_root("new").certificate);
    let server = Server::start(shared_by_another_group(&old, &new));
    let instance = DpsLab::start().await.instance_at(&server.url());
    let request = RetireRequest::new("myx509eg".parse().expect("an id"), new);
    let report = retire(&instance, &request, &mut |_| ()).await.expect("retired");
    let log = server.log();
    assert!(log.iter().all(|it| !it.starts_with("DELETE")), "{log:?}");
    let step = report.steps.iter().find(|it| it.step == Step::Retire).expect("the step");
    assert!(report.retired && step.detail.contains("kept") && step.detail.contains("the-other"), "{step:?}");
}

#[tokio::test]
async fn a_certificate_that_may_be_above_the_own_certificates_of_a_group_is_kept() {
    let lab = provisioned().await;
    let old = read_root(&lab, crate::support::lab::ROOT);
    let files = set(lab.path(), crate::support::lab::ROOT);
    let key = files::read_key(&files.private_key(), None).expect("a key");
    let authority = CertificateAuthority::new(vec![old.clone()], key, Timestamp::now()).expect("a CA");
    let line = authority.issue_intermediate(&name("line"), &IssueOptions::default()).expect("an intermediate");
    let groups = lab.instance().client().enrollment_groups();
    for (id, own) in [("plant", line.certificate), ("apart", new_root("apart").certificate)] {
        let group = NewEnrollmentGroup::new(NewAttestation::SigningCertificates(NewCertificates::new(own)));
        groups.create(&id.parse().expect("an id"), &group).await.expect("created");
    }
    roll(&lab).await.expect("rolled over");
    let new = read_root(&lab, NEW);
    for _ in 0..2 {
        let report = end(&lab, &new).await.expect("retired");
        let step = report.steps.iter().find(|it| it.step == Step::Retire).expect("the step");
        assert!(!step.detail.contains("deleted"), "{step:?}");
        assert!(lab.certificates().await.iter().any(|it| it.is(&old)), "{step:?}");
    }
    // The certificates of the other group are a root, which needs no other.
    groups.delete(&"plant".parse().expect("an id"), None).await.expect("deleted");
    let report = end(&lab, &new).await.expect("retired");
    let step = report.steps.iter().find(|it| it.step == Step::Retire).expect("the step");
    assert!(step.detail.contains("can be deleted"), "{step:?}");
}

#[tokio::test]
async fn devices_whose_enrollments_are_for_their_old_certificates_are_reported() {
    let lab = DpsLab::start().await;
    lab.run(&lab.request().create_devices(true)).await.expect("provisioned");
    let report = roll(&lab).await.expect("rolled over");
    let [refused] = &report.refused[..] else { panic!("{report:?}") };
    assert!(refused.id == crate::support::lab::DEVICE && refused.reason.contains("another certificate"), "{refused:?}");
    let failed: Vec<_> = report.steps.iter().filter(|it| it.outcome == Outcome::Failed).collect();
    assert!(matches!(&failed[..], [it] if it.step == Step::Device), "{failed:?}");
}

/// The answers of an instance whose group has the new certificate as secondary, and a primary one that is named only.
fn with_primary(name: &str, certificates: &[Value]) -> [Reply; 2] {
    with_references(&json!({ "primary": name, "secondary": "new" }), certificates)
}

fn with_references(references: &Value, certificates: &[Value]) -> [Reply; 2] {
    let attestation = json!({ "type": "x509", "x509": { "caReferences": references } });
    let group = json!({ "enrollmentGroupId": "myx509eg", "etag": "\"g1\"", "attestation": attestation });
    [Reply::json(200, &group), Reply::json(200, &json!({ "value": certificates }))]
}

#[tokio::test]
async fn an_entry_whose_certificate_cannot_be_read_is_not_empty() {
    let new = new_root("new").certificate;
    let thumbprint = new.sha1_thumbprint().to_string();
    let stays = json!({ "name": "new", "etag": "A=", "properties": { "thumbprint": thumbprint, "isVerified": true } });
    let bare = json!({ "name": "bare", "etag": "A=", "properties": { "isVerified": true } });
    let request = RetireRequest::new("myx509eg".parse().expect("an id"), new);
    let lab = DpsLab::start().await;
    let server = Server::start(with_primary("bare", &[stays.clone(), bare]));
    let error = retire(&lab.instance_at(&server.url()), &request, &mut |_| ()).await.expect_err("it is not known");
    assert!(error.to_string().contains("bare"), "{error}");

    // A reference to nothing is removed, and what the group has then is read.
    let gone = || with_primary("gone", std::slice::from_ref(&stays));
    let [group, _] = gone();
    let [changed, _] = gone();
    let replies = gone().into_iter().chain([group, changed]).chain(gone());
    let server = Server::start(replies);
    let error = retire(&lab.instance_at(&server.url()), &request, &mut |_| ()).await.expect_err("it is still there");
    assert!(matches!(&error, RolloverError::RefersAgain { name, .. } if name == "gone"), "{error}: {:?}", server.log());

    let after = || with_references(&json!({ "primary": "new" }), std::slice::from_ref(&stays));
    let [[group, _], [changed, _]] = [gone(), after()];
    let server = Server::start(gone().into_iter().chain([group, changed]).chain(after()));
    let report = retire(&lab.instance_at(&server.url()), &request, &mut |_| ()).await.expect("retired");
    let step = report.steps.iter().find(|it| it.step == Step::Retire).expect("the step");
    assert!(step.outcome == Outcome::Done && step.detail.contains("gone"), "{step:?}");
    let removed = &server.requests()[3];
    assert_eq!(removed.json()["attestation"]["x509"]["caReferences"], json!({ "primary": "new" }));
}
