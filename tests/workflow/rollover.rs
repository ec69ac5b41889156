//! Rolling over from one root to another, from every state that a group can be in.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::support::lab::{DEVICE, Lab, group_id, name, set};
use iot_enroll::{
    central::{CertificateEntry, NewAttestation, NewEnrollmentGroup},
    certificate::{
        Certificate, DeviceId, Timestamp, chain,
        files::{self, FileSet},
        fleet::FleetDevice,
    },
    emulator::FaultKind,
    workflow::{
        AuthoritySource, FleetRequest, Outcome, ProvisionError, RetireReport, RetireRequest, RolloverError,
        RolloverReport, RolloverRequest, Step, WorkflowEvent, retire, rollover,
    },
};

use CertificateEntry::{Primary, Secondary};

const NEW: &str = "root2027";

fn request(lab: &Lab) -> RolloverRequest<'static> {
    RolloverRequest::new(lab.request().group, AuthoritySource::Root(name(NEW)), new_devices(lab))
        .devices([DEVICE.parse().expect("an id")])
        .directory(lab.path())
}

fn new_devices(lab: &Lab) -> PathBuf {
    lab.path().join(NEW)
}

/// A group that is verified on the old root, with a device.
async fn provisioned() -> Lab {
    let lab = Lab::start().await;
    lab.run(&lab.request()).await.expect("provisioned");
    lab
}

async fn roll(lab: &Lab, request: &RolloverRequest<'_>) -> Result<RolloverReport, RolloverError> {
    rollover(&lab.client(), request, &mut |_| ()).await
}

async fn end(lab: &Lab, stays: &Certificate, dry_run: bool) -> Result<RetireReport, RolloverError> {
    let request = RetireRequest::new(lab.request().group, stays.clone()).dry_run(dry_run);
    retire(&lab.client(), &request, &mut |_| ()).await
}

/// Returns every file below a directory.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.append(&mut contents(&path));
        } else {
            let content = fs::read(&path).expect("read");
            found.insert(path, content);
        }
    }
    found
}

fn root(lab: &Lab, called: &str) -> Certificate {
    files::read_certificates(&set(lab.path(), called).certificate()).expect("a root").swap_remove(0)
}

/// What the entries hold, and whether it is verified.
async fn entries(lab: &Lab) -> [Option<(String, bool)>; 2] {
    let state = async |entry| {
        let found = lab.entry(entry).await?;
        Some((found.sha1_thumbprint?.to_string(), found.verified))
    };
    [state(Primary).await, state(Secondary).await]
}

fn verified(root: &Certificate) -> (String, bool) {
    (root.sha1_thumbprint().to_string(), true)
}

#[tokio::test]
async fn both_roots_are_verified_until_the_old_one_is_retired() {
    let lab = provisioned().await;
    let old = root(&lab, crate::support::lab::ROOT);
    let before = fs::read(set(lab.path(), DEVICE).certificate()).expect("read");

    let report = roll(&lab, &request(&lab)).await.expect("rolled over");
    let new = root(&lab, NEW);
    assert_eq!(entries(&lab).await, [Some(verified(&old)), Some(verified(&new))]);
    assert_eq!((report.from.entry, report.from.sha1_thumbprint), (Primary, Some(old.sha1_thumbprint())));
    assert_eq!((report.to.entry, report.to.sha1_thumbprint), (Secondary, Some(new.sha1_thumbprint())));
    assert!(report.from.verified && report.to.verified);
    // The device has both certificates, and the old one is as it was.
    assert_eq!(fs::read(set(lab.path(), DEVICE).certificate()).expect("read"), before);
    let issued = files::read_certificates(&set(&new_devices(&lab), DEVICE).fullchain()).expect("a chain");
    assert_eq!(issued[0].subject().common_name(), Some(DEVICE));
    chain::verify(&issued, &new, Timestamp::now()).expect("a chain to the new root");

    let planned = end(&lab, &new, true).await.expect("a plan");
    assert!(!planned.retired && planned.steps.iter().any(|step| step.outcome == Outcome::Planned));
    assert_eq!(entries(&lab).await, [Some(verified(&old)), Some(verified(&new))]);
    let retired = end(&lab, &new, false).await.expect("retired");
    assert!(retired.retired);
    assert_eq!(entries(&lab).await, [None, Some(verified(&new))]);
    let again = end(&lab, &new, false).await.expect("retired before");
    assert!(again.retired && again.steps.iter().all(|step| step.outcome == Outcome::Unchanged));
    // And on to the next one, by the entry that is free now.
    let next =
        request(&lab).authority(AuthoritySource::Root(name("root2028"))).device_directory(lab.path().join("root2028"));
    let report = roll(&lab, &next).await.expect("rolled over");
    assert_eq!((report.from.entry, report.to.entry), (Secondary, Primary));
}

#[tokio::test]
async fn a_second_run_changes_nothing_and_a_dry_run_neither() {
    let lab = provisioned().await;
    let dry = request(&lab).dry_run(true);
    let before = (lab.service().await, contents(lab.path()));
    let report = roll(&lab, &dry).await.expect("a plan");
    assert!(!report.to.verified);
    assert_eq!((lab.service().await, contents(lab.path())), before);

    roll(&lab, &request(&lab)).await.expect("rolled over");
    let before = (lab.service().await, contents(lab.path()));
    let report = roll(&lab, &request(&lab)).await.expect("rolled over before");
    assert!(report.steps.iter().all(|step| step.outcome == Outcome::Unchanged), "{:?}", report.steps);
    assert_eq!((lab.service().await, contents(lab.path())), before);
}

#[tokio::test]
async fn a_run_that_was_broken_off_at_any_request_is_finished_by_the_next() {
    let lab = provisioned().await;
    let before = lab.emulator.requests().len();
    roll(&lab, &request(&lab)).await.expect("rolled over");
    let whole = lab.emulator.requests().len() - before;
    for number in 0..whole {
        let lab = provisioned().await;
        let old = root(&lab, crate::support::lab::ROOT);
        lab.fault_at(number, &FaultKind::Status { status: 403, retry_after: None }, 1);
        let _ = roll(&lab, &request(&lab)).await;
        // Devices can always connect with the old root.
        assert_eq!(entries(&lab).await[0], Some(verified(&old)), "request {number}");
        let report = roll(&lab, &request(&lab)).await.expect("rolled over");
        assert!(report.to.verified && report.devices.len() == 1, "request {number}");
        assert_eq!(entries(&lab).await, [Some(verified(&old)), Some(verified(&root(&lab, NEW)))]);
    }
}

#[tokio::test]
async fn the_old_root_is_not_retired_while_the_new_one_is_not_verified() {
    let lab = provisioned().await;
    let old = root(&lab, crate::support::lab::ROOT);
    let new = crate::support::lab::new_root(NEW);
    let needed = |result: Result<RetireReport, RolloverError>, expected: Option<CertificateEntry>| match result {
        Err(RolloverError::Needed { entry, .. }) => assert_eq!(entry, expected),
        other => panic!("{other:?}"),
    };
    needed(end(&lab, &new.certificate, false).await, None);
    lab.set(Secondary, &new.certificate, false).await;
    needed(end(&lab, &new.certificate, false).await, Some(Secondary));
    needed(end(&lab, &new.certificate, true).await, Some(Secondary));
    assert_eq!(entries(&lab).await[0], Some(verified(&old)));
    // A certificate that is no authority, or has run out, is nothing to stay with.
    let device =
        files::read_certificates(&set(lab.path(), DEVICE).certificate()).expect("a certificate").swap_remove(0);
    assert!(matches!(end(&lab, &device, false).await, Err(RolloverError::Unfit { .. })));
    assert_eq!(entries(&lab).await[0], Some(verified(&old)));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_reported_when_an_entry_that_was_emptied_is_filled_by_somebody_else() {
    let lab = provisioned().await;
    roll(&lab, &request(&lab)).await.expect("rolled over");
    let other = crate::support::lab::new_root("other");
    let fill = |event: WorkflowEvent<'_>| {
        if matches!(event, WorkflowEvent::Finished(report) if report.step == Step::Retire) {
            let filled = lab.set(Primary, &other.certificate, true);
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(filled));
        }
    };
    let retired = retire(&lab.client(), &RetireRequest::new(lab.request().group, root(&lab, NEW)), &mut { fill }).await;
    let error = retired.expect_err("not retired");
    assert!(matches!(error, RolloverError::NotRetired { entry: Primary, .. }), "{error}");
}

#[tokio::test]
async fn a_rollover_needs_a_verified_entry_and_a_free_one() {
    let lab = Lab::start().await;
    assert!(matches!(roll(&lab, &request(&lab)).await, Err(RolloverError::Service(error)) if error.is_not_found()));
    lab.group(&NewEnrollmentGroup::x509("Mine")).await;
    assert!(matches!(roll(&lab, &request(&lab)).await, Err(RolloverError::NotVerified { .. })));
    let others = ["one", "two"].map(crate::support::lab::new_root);
    lab.set(Primary, &others[0].certificate, false).await;
    assert!(matches!(roll(&lab, &request(&lab)).await, Err(RolloverError::NotVerified { .. })));
    lab.set(Secondary, &others[1].certificate, true).await;
    assert!(matches!(roll(&lab, &request(&lab)).await, Err(RolloverError::BothTaken { .. })));
    assert!(!set(lab.path(), NEW).certificate().exists(), "nothing is made");

    let lab = provisioned().await;
    let same = request(&lab).authority(AuthoritySource::Root(name(crate::support::lab::ROOT)));
    assert!(matches!(roll(&lab, &same).await, Err(RolloverError::OnlyCertificate { entry: Primary, .. })));
}

#[tokio::test]
async fn new_files_of_another_root_stop_it_with_nothing_done() {
    let lab = provisioned().await;
    let wrong = request(&lab).device_directory(lab.path().to_owned());
    let before = (lab.service().await, contents(lab.path()));
    let error = roll(&lab, &wrong).await.expect_err("the old files are there");
    assert!(matches!(error, RolloverError::Provision(ProvisionError::Device { .. })), "{error}");
    assert_eq!((lab.service().await, contents(lab.path())), before);
}

#[tokio::test]
async fn keys_are_kept_when_asked_for() {
    let lab = provisioned().await;
    let kept = request(&lab).keep_keys(true);
    let report = roll(&lab, &kept).await.expect("rolled over");
    let (old, new) = (set(lab.path(), DEVICE), set(&new_devices(&lab), DEVICE));
    let read = |set: &FileSet| files::read_certificates(&set.certificate()).expect("read").swap_remove(0);
    assert_eq!(read(&old).public_key(), read(&new).public_key());
    assert_ne!(read(&old).sha1_thumbprint(), read(&new).sha1_thumbprint());
    assert!(!new.private_key().exists(), "the key stays in its file");
    assert_eq!(report.devices[0].record.private_key, Some(old.private_key()));
    let again = roll(&lab, &kept).await.expect("rolled over before");
    assert!(again.steps.iter().all(|step| step.outcome == Outcome::Unchanged));
    // A certificate for a new key is none for the old one.
    let other = request(&lab).device_directory(lab.path().join("other"));
    roll(&lab, &other).await.expect("rolled over with a new key");
    let error = roll(&lab, &other.keep_keys(true)).await.expect_err("another key");
    assert!(matches!(error, RolloverError::Provision(ProvisionError::Device { .. })), "{error}");
    // A key of another certificate is found out before anything is done.
    fs::copy(set(lab.path(), NEW).private_key(), old.private_key()).expect("copied");
    let wrong = kept.device_directory(lab.path().join("third"));
    let error = roll(&lab, &wrong).await.expect_err("a wrong key");
    assert!(matches!(error, RolloverError::Provision(ProvisionError::Device { .. })), "{error}");
}

#[tokio::test]
async fn missing_keys_and_unusable_directories_stop_the_rollover_before_any_change() {
    let lab = provisioned().await;
    let before = (lab.service().await, contents(lab.path()));
    let ghost = request(&lab).keep_keys(true).devices(vec!["ghost".parse().expect("an id")]);
    roll(&lab, &ghost).await.expect_err("no such device");
    let twice = request(&lab).devices(vec![DEVICE.parse().expect("an id"); 2]);
    let error = roll(&lab, &twice).await.expect_err("twice");
    assert!(matches!(error, RolloverError::Provision(ProvisionError::DuplicateDevice { .. })), "{error}");
    let file = set(lab.path(), DEVICE).certificate();
    let in_a_file = request(&lab).device_directory(file.join("directory"));
    roll(&lab, &in_a_file).await.expect_err("no directory can be created there");
    assert_eq!((lab.service().await, contents(lab.path())), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_reported_when_the_new_certificate_goes_while_the_old_one_is_removed() {
    let lab = provisioned().await;
    roll(&lab, &request(&lab)).await.expect("rolled over");
    let group = group_id();
    let client = lab.client();
    let remove = |event: WorkflowEvent<'_>| {
        if matches!(event, WorkflowEvent::Finished(report) if report.step == Step::Retire) {
            let groups = client.enrollment_groups();
            let removed = groups.delete_certificate(&group, Secondary);
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(removed)).expect("removed");
        }
    };
    let error = retire(&lab.client(), &RetireRequest::new(group.clone().into(), root(&lab, NEW)), &mut { remove })
        .await
        .expect_err("both gone");
    assert!(matches!(error, RolloverError::LeftWithout { entry: Primary, .. }), "{error}");
}

#[tokio::test]
async fn a_group_of_symmetric_keys_is_reported_from_one_that_is_not_verified() {
    let lab = Lab::start().await;
    let keys = NewEnrollmentGroup::x509("Keys").attestation(NewAttestation::SymmetricKey(None));
    lab.group(&keys).await;
    let error = roll(&lab, &request(&lab)).await.expect_err("no certificates");
    assert!(matches!(error, RolloverError::Provision(ProvisionError::Attestation { .. })), "{error}");
}

#[tokio::test]
async fn a_fleet_is_reissued_and_a_second_run_finds_it() {
    let lab = provisioned().await;
    let devices = || -> Result<iot_enroll::workflow::FleetDevices, _> {
        Ok(Box::new((0..5).map(|number| Ok(FleetDevice::new(DeviceId::new(format!("d-{number}"))?)))))
    };
    let fleet = FleetRequest::new(new_devices(&lab), 5, devices);
    let with_fleet = request(&lab).devices([]).fleet(fleet);
    let made = roll(&lab, &with_fleet).await.expect("rolled over").fleet.expect("a fleet");
    assert_eq!((made.devices, made.found), (5, 0));
    let chain = files::read_certificates(&made.directory.join("0000/d-4_fullchain.pem")).expect("a chain");
    chain::verify(&chain, &root(&lab, NEW), Timestamp::now()).expect("a chain to the new root");
    let report = roll(&lab, &with_fleet).await.expect("rolled over");
    assert_eq!(report.fleet.map(|fleet| (fleet.devices, fleet.found)), Some((5, 5)));
    assert!(report.steps.iter().filter(|step| step.step == Step::Fleet).all(|step| step.outcome == Outcome::Unchanged));
}
