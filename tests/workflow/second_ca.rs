//! A second CA in a group: only on request, so that an old command cannot bring back a retired root.

use crate::support::lab::{DEVICE, Lab, ROOT, name, new_root, set};
use iot_enroll::{
    central::{CertificateEntry, NewEnrollmentGroup},
    certificate::files,
    workflow::{
        AuthoritySource, Outcome, ProvisionError, ProvisionReport, RetireRequest, RolloverRequest, retire, rollover,
    },
};

use CertificateEntry::{Primary, Secondary};

const NEW: &str = "root2027";

/// A group that went from [`ROOT`] in its primary entry to [`NEW`] in its secondary one, and the device with it.
async fn rolled_over() -> Lab {
    let lab = Lab::start().await;
    lab.run(&lab.request()).await.expect("provisioned");
    let authority = AuthoritySource::Root(name(NEW));
    let request = RolloverRequest::new(lab.request().group, authority, lab.path().join(NEW))
        .devices([DEVICE.parse().expect("an id")])
        .directory(lab.path());
    rollover(&lab.client(), &request, &mut |_| ()).await.expect("rolled over");
    lab
}

async fn retired() -> Lab {
    let lab = rolled_over().await;
    let stays = files::read_certificates(&set(lab.path(), NEW).certificate()).expect("a root").swap_remove(0);
    let retired =
        retire(&lab.client(), &RetireRequest::new(lab.request().group, stays), &mut |_| ()).await.expect("retired");
    assert!(retired.retired);
    // The emulator keeps what a test compares below the lab's directory only.
    std::fs::rename(lab.path().join(NEW), lab.path().join(".devices")).expect("renamed");
    lab
}

#[track_caller]
fn refused(result: Result<ProvisionReport, ProvisionError>, expected: CertificateEntry) {
    let error = result.expect_err("another CA is verified");
    let message = error.to_string();
    let ProvisionError::BesideOther { entry, found, .. } = error else { panic!("{message}") };
    assert_eq!(entry, expected, "{message}");
    assert!(message.contains(&found.to_string()) && message.contains("myx509eg"), "{message}");
}

#[tokio::test]
async fn an_old_request_does_not_enroll_the_retired_root_again() {
    let lab = Box::pin(retired()).await;
    let requests = [
        lab.request(),
        lab.request().dry_run(true),
        lab.request().skip_proof(true),
        lab.request().replace(true),
        lab.request().entry(Primary),
    ];
    for request in requests {
        refused(lab.run_without_a_change(&request).await, Primary);
    }
    // Nor does it create a root in its place where the files are gone.
    let gone = lab.request().authority(AuthoritySource::Root(name("gone"))).devices([]);
    refused(lab.run_without_a_change(&gone).await, Primary);
    let report = lab.run(&lab.request().add_ca(true)).await.expect("on request");
    assert_eq!((report.entry, report.verified), (Primary, true));
}

#[tokio::test]
async fn the_new_root_is_found_in_whichever_entry_it_is() {
    let lab = Box::pin(retired()).await;
    let new = lab.request().authority(AuthoritySource::Root(name(NEW))).devices([]);
    let report = lab.run_without_a_change(&new).await.expect("verified already");
    assert_eq!((report.entry, report.verified), (Secondary, true));
    let explicit = new.entry(Secondary);
    assert!(lab.run_without_a_change(&explicit).await.expect("verified already").verified);
    let wrong = explicit.entry(Primary);
    let error = lab.run_without_a_change(&wrong).await.expect_err("it is in the other one");
    assert!(matches!(error, ProvisionError::InOtherEntry { entry: Primary, .. }), "{error}");
    assert!(error.to_string().contains("use the secondary entry"), "{error}");
}

#[tokio::test]
async fn both_commands_are_idempotent_while_both_roots_are_verified() {
    let lab = rolled_over().await;
    for (root, devices, entry) in [(ROOT, lab.request().devices, Primary), (NEW, Vec::new(), Secondary)] {
        let request = lab.request().authority(AuthoritySource::Root(name(root))).devices(devices);
        let report = lab.run(&request).await.expect("provisioned before");
        assert_eq!(report.entry, entry);
        assert!(report.steps.iter().all(|step| step.outcome == Outcome::Unchanged), "{:?}", report.steps);
    }
}

#[tokio::test]
async fn a_ca_that_is_not_verified_yet_is_not_proved_beside_a_verified_one() {
    let lab = Lab::start().await;
    let (ours, theirs) = (lab.write_root(), new_root("theirs").certificate);
    lab.holding(&ours, false).await;
    lab.set(Secondary, &theirs, true).await;
    refused(lab.run_without_a_change(&lab.request()).await, Primary);
    refused(lab.run_without_a_change(&lab.request().skip_proof(true)).await, Primary);
    // Once it is verified, nothing is enrolled.
    lab.run(&lab.request().add_ca(true)).await.expect("on request");
    lab.run(&lab.request()).await.expect("verified already");
}

#[tokio::test]
async fn another_certificate_that_is_not_verified_is_no_obstacle() {
    let lab = Lab::start().await;
    lab.group(&NewEnrollmentGroup::x509("Mine")).await;
    lab.set(Secondary, &new_root("theirs").certificate, false).await;
    let report = lab.run(&lab.request()).await.expect("provisioned");
    assert_eq!((report.entry, report.verified), (Primary, true));
}
