//! Provisioning at the Device Provisioning Service, from every state that an instance and a directory can be in.

use std::{fs, future::poll_fn, panic::resume_unwind, pin::pin, task::Poll, time::Duration};

use crate::{
    dps_lab::{DpsLab, group_id, is_change},
    support::lab::{DEVICE, ROOT, name, new_root, set, write},
};
use futures_util::future::join_all;
use iot_enroll::{
    central::{CertificateEntry, DeviceType},
    certificate::{Certificate, DeviceId, Timestamp, chain, files, fleet::FleetDevice},
    dps::{
        device::{Cause, Credential, DeviceCertificate},
        service::{
            Attestation, EnrollmentGroupUpdate, EnrollmentSettings, NewAttestation, NewCertificates,
            NewEnrollmentGroup, NewIndividualEnrollment,
        },
    },
    emulator::{Emulator, FaultKind},
    workflow::{
        AuthoritySource, FleetRequest, Outcome, ProvisionError, ProvisionReport, ProvisionRequest, Registrar, Step,
        WorkflowEvent, provision, read_entries,
    },
};

use CertificateEntry::{Primary, Secondary};
use Outcome::{Done, Planned, Unchanged};

fn steps(report: &ProvisionReport) -> Vec<(Step, Outcome)> {
    report.steps.iter().map(|it| (it.step, it.outcome)).collect()
}

fn device(id: &str) -> DeviceId {
    DeviceId::new(id).expect("an id")
}

fn root(lab: &DpsLab) -> Certificate {
    Certificate::read(&fs::read(set(lab.path(), ROOT).certificate()).expect("a file")).expect("a certificate")
}

fn registering() -> iot_enroll::emulator::Builder {
    Emulator::builder().tls(true).registration_retry_after(Duration::ZERO)
}

fn credential(lab: &DpsLab, id: &str) -> Credential {
    let chain = files::read_certificates(&set(lab.path(), id).fullchain()).expect("a chain");
    let key = files::read_key(&set(lab.path(), id).private_key(), None).expect("a key");
    DeviceCertificate::new(chain, &key).expect("a credential").into()
}

#[tokio::test]
async fn a_new_instance_is_provisioned_up_to_an_assigned_device() {
    let lab = DpsLab::with(registering()).await;
    let report = lab.run(&lab.request().register(lab.registration())).await.expect("provisioned");
    let expected = [
        Step::Root,
        Step::Certificate,
        Step::Code,
        Step::Proof,
        Step::Verify,
        Step::Confirm,
        Step::Group,
        Step::Device,
        Step::Register,
    ];
    let done: Vec<_> =
        steps(&report).into_iter().filter(|(_, outcome)| *outcome == Done).map(|(step, _)| step).collect();
    assert_eq!(done, expected);
    assert!(report.refused.is_empty() && report.devices[0].assigned_hub.is_some(), "{report:?}");
    let ours = root(&lab).sha1_thumbprint();
    assert_eq!((report.verified, report.entry, report.sha1_thumbprint), (true, Primary, Some(ours)));
    assert_eq!(lab.entries().await, [Some((ours, true)), None]);
    let certificate = lab.certificates().await.swap_remove(0);
    assert_eq!(report.certificate_name.as_ref(), Some(&certificate.name));
    let name = certificate.name.as_str();
    assert!(name.starts_with(&format!("{ROOT}-")) && ours.to_string().starts_with(&name[ROOT.len() + 1..]), "{name}");
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!((&json["group"], &json["certificateName"]), (&"myx509eg".into(), &name.into()));
}

#[tokio::test]
async fn a_second_run_changes_nothing() {
    let lab = DpsLab::start().await;
    let request = lab.request().create_devices(true);
    let first = lab.run(&request).await.expect("provisioned");
    let second = lab.run_without_a_change(&request).await.expect("provisioned");
    assert!(second.steps.iter().all(|it| it.outcome == Unchanged), "{second:?}");
    assert_eq!(
        (second.verified, second.sha1_thumbprint, &second.devices),
        (true, first.sha1_thumbprint, &first.devices)
    );
    assert_eq!(second.certificate_name, first.certificate_name);
}

#[tokio::test]
async fn the_steps_happen_in_an_order_that_never_admits_an_unverified_ca() {
    let lab = DpsLab::start().await;
    lab.run(&lab.request()).await.expect("provisioned");
    let changes: Vec<_> = lab.emulator.requests().into_iter().filter(is_change).collect();
    let last: Vec<_> = changes.iter().map(|it| it.path.rsplit('/').next().expect("a segment")).collect();
    assert_eq!(last[1..], ["generateVerificationCode", "verify", "myx509eg"], "{changes:?}");
    assert!(changes.iter().all(|it| it.status == Some(200)), "{changes:?}");
}

#[tokio::test]
async fn a_given_certificate_name_is_used_and_a_taken_one_is_refused() {
    let lab = DpsLab::start().await;
    for verified in [false, true] {
        let taken = lab.upload(&format!("Taken-{verified}"), &new_root("theirs").certificate, verified).await;
        let lower: iot_enroll::dps::DpsCertificateName = taken.as_str().to_lowercase().parse().expect("a name");
        let result = lab.run_without_a_change(&lab.request().certificate_name(lower)).await;
        let Err(ProvisionError::CertificateNameTaken { name, verified: found, .. }) = &result else {
            panic!("{result:?}")
        };
        assert_eq!((name.as_str(), *found), (taken.as_str(), verified));
    }
    let name: iot_enroll::dps::DpsCertificateName = "my.root_1".parse().expect("a name");
    let report = lab.run(&lab.request().certificate_name(name.clone())).await.expect("provisioned");
    assert_eq!(report.certificate_name, Some(name.clone()));
    assert_eq!(lab.group().await.expect("the group").ca_references().expect("references").primary, Some(name));
}

#[tokio::test]
async fn any_common_name_makes_a_valid_certificate_name() {
    let lab = DpsLab::start().await;
    for (number, text) in ["Contoso Root CA (2026), für alle", &"x".repeat(64), "-"].into_iter().enumerate() {
        let issued = new_root(text);
        let files = ["cert.pem", "key.pem"].map(|it| lab.path().join(format!("{number}-{it}")));
        fs::write(&files[0], issued.certificate.to_pem()).expect("written");
        fs::write(&files[1], issued.key.to_pem().expect("PEM").as_bytes()).expect("written");
        let [certificate, key] = files;
        let group = format!("group-{number}").parse().expect("an id");
        let request = ProvisionRequest::new(group, AuthoritySource::Files { certificate, key });
        let request = request.device_type(DeviceType::IotEdge).directory(lab.path());
        let report = lab.run(&request).await.expect("provisioned");
        let name = report.certificate_name.expect("a name");
        assert!(name.as_str().len() <= 64, "{name}");
        let id = report.group.as_str().parse().expect("an id");
        let group = lab.instance().client().enrollment_groups().get(&id).await.expect("the group");
        assert_eq!(
            (group.settings.iot_edge, group.ca_references().and_then(|it| it.primary.clone())),
            (Some(true), Some(name))
        );
    }
}

#[tokio::test]
async fn a_certificate_is_found_by_its_thumbprint_under_any_name() {
    for verified in [false, true] {
        let lab = DpsLab::start().await;
        let ours = lab.write_root();
        lab.upload("theirs", &new_root("theirs").certificate, true).await;
        let name = lab.upload("somebody-s-choice", &ours, verified).await;
        let report = lab.run(&lab.request()).await.expect("provisioned");
        assert_eq!(report.certificate_name, Some(name));
        let outcome = report.steps.iter().find(|it| it.step == Step::Certificate).map(|it| it.outcome);
        assert_eq!(outcome, Some(Unchanged), "it is not uploaded again");
        assert_eq!(report.steps.iter().any(|it| it.step == Step::Verify), !verified);
        assert_eq!(lab.entries().await, [Some((ours.sha1_thumbprint(), true)), None]);
        assert_eq!(lab.certificates().await.len(), 2);
    }
}

#[tokio::test]
async fn attesting_uploads_as_verified_without_a_proof() {
    for begun in [false, true] {
        let lab = DpsLab::start().await;
        if begun {
            let ours = lab.write_root();
            lab.upload("begun", &ours, false).await;
        }
        let report = lab.run(&lab.request().skip_proof(true)).await.expect("provisioned");
        assert!(report.verified && report.steps.iter().all(|it| it.step != Step::Code));
        assert_eq!(lab.certificates().await.len(), 1);
        assert_eq!(lab.entries().await, [Some((root(&lab).sha1_thumbprint(), true)), None]);
    }
}

/// A group with another verified CA, as its primary certificate.
async fn with_another_ca() -> (DpsLab, Certificate) {
    let lab = DpsLab::start().await;
    let theirs = new_root("theirs").certificate;
    let name = lab.upload("theirs", &theirs, true).await;
    lab.create_group("myx509eg", &name).await;
    (lab, theirs)
}

#[tokio::test]
async fn another_ca_in_the_entry_is_refused_and_replaced_only_on_request() {
    let (lab, theirs) = with_another_ca().await;
    let result = lab.run_without_a_change(&lab.request()).await;
    let Err(ProvisionError::OtherCertificate { found, verified: true, .. }) = &result else { panic!("{result:?}") };
    assert_eq!(*found, theirs.sha1_thumbprint());
    let ours = lab.write_root();
    assert!(matches!(lab.run_without_a_change(&lab.request()).await, Err(ProvisionError::OtherCertificate { .. })));
    lab.run(&lab.request().replace(true)).await.expect("replaced");
    assert_eq!(lab.entries().await, [Some((ours.sha1_thumbprint(), true)), None]);
    // The reference was switched, and the verified certificate was not touched.
    let kept = lab.certificates().await.into_iter().find(|it| it.name.as_str() == "theirs").expect("kept");
    assert!(kept.is_verified && kept.sha1_thumbprint == Some(theirs.sha1_thumbprint()));
}

#[tokio::test]
async fn a_ca_beside_another_needs_the_request_for_it() {
    let (lab, theirs) = with_another_ca().await;
    let beside = lab.request().entry(Secondary);
    let refused = lab.run_without_a_change(&beside).await;
    assert!(matches!(refused, Err(ProvisionError::BesideOther { .. })), "{refused:?}");
    let read = read_entries(&lab.instance(), &beside.group).await.expect("read").expect("the group");
    let [primary, secondary] = read.map(|it| (it.entry, it.verified, it.sha1_thumbprint));
    assert_eq!((primary, secondary), ((Primary, true, Some(theirs.sha1_thumbprint())), (Secondary, false, None)));
    let missing = read_entries(&lab.instance(), &"missing".parse().expect("an id")).await.expect("read");
    assert!(missing.is_none());
    let report = lab.run(&beside.add_ca(true)).await.expect("added");
    assert_eq!(report.entry, Secondary);
    let both = [Some((theirs.sha1_thumbprint(), true)), Some((root(&lab).sha1_thumbprint(), true))];
    assert_eq!(lab.entries().await, both);
    let found = lab.run_without_a_change(&lab.request()).await.expect("found in the secondary entry");
    assert_eq!(found.entry, Secondary);
    let elsewhere = lab.run_without_a_change(&lab.request().entry(Primary)).await;
    assert!(matches!(elsewhere, Err(ProvisionError::InOtherEntry { .. })), "{elsewhere:?}");
}

#[tokio::test]
async fn a_dry_run_plans_what_the_run_after_it_does() {
    for prepared in 0..3 {
        let lab = DpsLab::start().await;
        if prepared > 0 {
            let ours = lab.write_root();
            lab.upload("begun", &ours, prepared > 1).await;
        }
        for run in 0..2 {
            let dry = lab.request().dry_run(true);
            let planned = lab.run_without_a_change(&dry).await.expect("a plan");
            let done = lab.run(&dry.dry_run(false)).await.expect("provisioned");
            let expected: Vec<_> =
                steps(&done).into_iter().map(|(step, it)| (step, if it == Done { Planned } else { it })).collect();
            assert_eq!(steps(&planned), expected, "prepared {prepared}, run {run}");
            assert_eq!(planned.verified, run > 0, "only a group that refers to the CA admits its devices");
        }
    }
}

#[tokio::test]
async fn updating_a_group_keeps_what_the_request_does_not_name() {
    let lab = DpsLab::start().await;
    let name = lab.upload("theirs", &new_root("theirs").certificate, true).await;
    lab.create_group("myx509eg", &name).await;
    let hubs = lab.properties.iot_hubs.iter().map(|hub| hub.host_name.clone()).collect::<Vec<_>>();
    let settings = EnrollmentSettings::new().iot_hubs(hubs.clone()).iot_edge(true);
    let update = EnrollmentGroupUpdate::new().settings(settings);
    lab.instance().client().enrollment_groups().update(&group_id(), &update).await.expect("updated");
    let request = lab.request().replace(true);
    let other_type = lab.run_without_a_change(&request.clone().device_type(DeviceType::Iot)).await;
    assert!(matches!(other_type, Err(ProvisionError::DeviceType { .. })), "{other_type:?}");
    lab.run(&request.device_type(DeviceType::IotEdge)).await.expect("provisioned");
    let group = lab.group().await.expect("the group");
    assert_eq!((group.settings.iot_edge, group.settings.iot_hubs), (Some(true), Some(hubs)));
}

#[tokio::test]
async fn checks_stop_it_before_anything_is_changed() {
    let lab = DpsLab::start().await;
    let ours = lab.write_root();

    let mut inactive = DpsLab::start().await;
    inactive.properties.state = Some("Suspended".to_owned());
    let result = inactive.run_without_a_change(&inactive.request()).await;
    assert!(
        matches!(&result, Err(ProvisionError::InstanceNotActive { state, .. }) if state == "Suspended"),
        "{result:?}"
    );

    // The same CA in another group.
    let name = lab.upload("shared", &ours, true).await;
    lab.create_group("the-other", &name).await;
    let result = lab.run_without_a_change(&lab.request()).await;
    let Err(error @ ProvisionError::InOtherGroup { .. }) = result else { panic!("{result:?}") };
    assert!(error.to_string().contains("the-other"), "{error}");

    // IDs that differ in case only.
    let spelled = ProvisionRequest::new("The-Other".parse().expect("an id"), lab.request().authority);
    let result = lab.run_without_a_change(&spelled.directory(lab.path())).await;
    let Err(error @ ProvisionError::Spelling { .. }) = result else { panic!("{result:?}") };
    assert!(error.to_string().contains("the-other"), "{error}");
    let enrollment = NewIndividualEnrollment::new(NewAttestation::SymmetricKey(None));
    let enrollments = lab.instance().client().individual_enrollments();
    enrollments.create(&"Sample-Device-01".parse().expect("an id"), &enrollment).await.expect("created");
    let result = lab.run_without_a_change(&lab.request().create_devices(true)).await;
    let Err(error @ ProvisionError::Spelling { .. }) = result else { panic!("{result:?}") };
    assert!(error.to_string().contains("Sample-Device-01"), "{error}");

    // A group that has symmetric keys, and an ID that is not valid there.
    let keys = NewEnrollmentGroup::new(NewAttestation::SymmetricKey(None));
    lab.instance().client().enrollment_groups().create(&group_id(), &keys).await.expect("created");
    let result = lab.run_without_a_change(&lab.request()).await;
    assert!(matches!(&result, Err(ProvisionError::Attestation { found, .. }) if found == "symmetricKey"), "{result:?}");
    let invalid = ProvisionRequest::new("ends-with.".parse().expect("an id"), lab.request().authority);
    assert!(matches!(lab.run_without_a_change(&invalid).await, Err(ProvisionError::GroupId { .. })));
}

#[tokio::test]
async fn the_limits_of_an_instance_are_checked() {
    let lab = DpsLab::start().await;
    let theirs = new_root("theirs").certificate;
    for number in 0..25 {
        lab.upload(&format!("c{number}"), &theirs, true).await;
    }
    let result = lab.run_without_a_change(&lab.request()).await;
    let Err(error @ ProvisionError::TooManyCertificates { max: 25, .. }) = result else { panic!("{result:?}") };
    assert!(error.to_string().contains("no group needs c") && error.to_string().contains("c24"), "{error}");
    // A certificate that is there needs no more room.
    write(lab.path(), ROOT, &new_root(ROOT));
    let certificates = lab.instance().resource().certificates();
    let last = certificates.get(&"c24".parse().expect("a name")).await.expect("a certificate");
    certificates.delete(&last.name, &last.etag).await.expect("deleted");
    lab.upload("ours", &root(&lab), false).await;
    lab.run(&lab.request()).await.expect("provisioned");
}

#[tokio::test]
async fn the_limit_of_groups_concerns_only_new_groups() {
    let lab = DpsLab::start().await;
    lab.run(&lab.request()).await.expect("provisioned");
    let groups = lab.instance().client().enrollment_groups();
    let keys = NewEnrollmentGroup::new(NewAttestation::SymmetricKey(None));
    groups.create(&"keys".parse().expect("an id"), &keys).await.expect("created");
    for number in 1..100 {
        let own = NewCertificates::new(new_root(&format!("own {number}")).certificate);
        let group = NewEnrollmentGroup::new(NewAttestation::SigningCertificates(own));
        groups.create(&format!("g{number}").parse().expect("an id"), &group).await.expect("created");
    }
    lab.run_without_a_change(&lab.request()).await.expect("the group is there");
    let authority = AuthoritySource::Root(name("another"));
    let another = ProvisionRequest::new("another".parse().expect("an id"), authority).directory(lab.path());
    let result = lab.run_without_a_change(&another).await;
    assert!(matches!(result, Err(ProvisionError::TooManyGroups { max: 100, .. })), "{result:?}");
    // The CA of a group that has it as its own.
    let group = groups.find(&"g1".parse().expect("an id")).await.expect("an answer").expect("the group");
    assert!(matches!(group.attestation, Attestation::SigningCertificates(_)));
    let own = ProvisionRequest::new("g1".parse().expect("an id"), lab.request().authority).directory(lab.path());
    let result = lab.run_without_a_change(&own).await;
    assert!(matches!(result, Err(ProvisionError::Attestation { .. })), "{result:?}");
}

#[tokio::test]
async fn an_instance_without_a_hub_is_only_a_note() {
    let mut lab = DpsLab::start().await;
    lab.properties.iot_hubs.clear();
    let report = lab.run(&lab.request()).await.expect("provisioned");
    let note = report.steps.iter().find(|it| it.step == Step::Instance).expect("the step");
    assert!(note.detail.contains("no linked hub"), "{note:?}");
    assert!(report.obstacle.is_some_and(|obstacle| obstacle.contains("no linked hub")));
}

#[tokio::test]
async fn devices_become_individual_enrollments_and_existing_ones_stay() {
    let lab = DpsLab::with(registering()).await;
    let enrollments = lab.instance().client().individual_enrollments();
    lab.run(&lab.request().devices([device("d-3")]).create_devices(true)).await.expect("provisioned");
    let devices: Vec<_> = (1..=23).map(|number| device(&format!("d-{number}"))).collect();
    let request = lab.request().devices(devices).create_devices(true);
    let before = lab.emulator.requests().len();
    let report = lab.run(&request).await.expect("provisioned");
    let created = report.created.expect("counts");
    assert_eq!((created.created, created.existing), (22, 1));
    let bulk = lab.emulator.requests().split_off(before);
    let bulk = bulk.iter().filter(|it| it.method == "POST" && it.path == "/enrollments").count();
    assert_eq!(bulk, 3, "ten at a time");
    let found = enrollments.get(&"d-1".parse().expect("an id")).await.expect("the enrollment");
    let Attestation::ClientCertificates(own) = &found.attestation else { panic!("{found:?}") };
    let leaf = files::read_certificates(&set(lab.path(), "d-1").certificate()).expect("a certificate").swap_remove(0);
    assert_eq!(own.primary.as_ref().and_then(|it| it.sha1_thumbprint), Some(leaf.sha1_thumbprint()));
    let again = lab.run_without_a_change(&request).await.expect("provisioned");
    let counts = again.created.expect("counts");
    assert_eq!((counts.created, counts.existing), (0, 23));
    lab.registration().register(&device("d-1"), &credential(&lab, "d-1"), None).await.expect("registered");
}

/// The enrollment of a device for another certificate, and of one for symmetric keys.
async fn enroll_otherwise(lab: &DpsLab, certificate: &str, keys: &str) {
    let enrollments = lab.instance().client().individual_enrollments();
    let own = NewAttestation::ClientCertificates(NewCertificates::new(new_root("another").certificate));
    for (id, attestation) in [(certificate, own), (keys, NewAttestation::SymmetricKey(None))] {
        let enrollment = NewIndividualEnrollment::new(attestation);
        enrollments.create(&id.parse().expect("an id"), &enrollment).await.expect("created");
    }
}

#[tokio::test]
async fn an_enrollment_of_another_kind_is_not_mistaken_for_that_of_the_certificate() {
    let lab = DpsLab::start().await;
    enroll_otherwise(&lab, "y-1", "y-2").await;
    for (id, found) in [("y-1", "another certificate"), ("y-2", "symmetricKey")] {
        let request = lab.request().devices([device(id)]);
        let result = lab.run(&request.clone().create_devices(true)).await;
        let Err(ProvisionError::Create { id: failed, error, .. }) = &result else { panic!("{result:?}") };
        assert!(failed == id && error.to_string().contains(found), "{error}");
        // Without a request to create it, the device cannot connect all the same.
        let report = lab.run(&request).await.expect("provisioned");
        assert!(report.refused.len() == 1 && report.refused[0].reason.contains(found), "{report:?}");
        assert!(steps(&report).contains(&(Step::Device, Outcome::Failed)), "{report:?}");
    }
    // A certificate that was issued again.
    let request = lab.request().create_devices(true);
    lab.run(&request).await.expect("provisioned");
    let files = set(lab.path(), DEVICE);
    for path in [files.certificate(), files.private_key(), files.fullchain()] {
        fs::remove_file(path).expect("removed");
    }
    let result = lab.run(&request).await;
    assert!(matches!(&result, Err(ProvisionError::Create { id, .. }) if id == DEVICE), "{result:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrollment_that_another_client_creates_meanwhile_is_compared_too() {
    let lab = DpsLab::start().await;
    let request = lab.request().create_devices(true);
    let (instance, mut created) = (lab.instance(), None);
    let result = provision(&lab.instance(), &request, &mut |event| {
        if matches!(event, WorkflowEvent::Started(Step::Create, _)) {
            let client = instance.client().clone();
            created.get_or_insert_with(|| {
                let enrollment = NewIndividualEnrollment::new(NewAttestation::SymmetricKey(None));
                tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(async {
                        let id = DEVICE.parse().expect("an id");
                        client.individual_enrollments().create(&id, &enrollment).await.expect("created");
                    });
                });
            });
        }
    })
    .await;
    assert!(matches!(&result, Err(ProvisionError::Create { id, .. }) if id == DEVICE), "{result:?}");
}

#[tokio::test]
async fn a_fleet_is_enrolled_and_registers_at_the_instance() {
    let lab = DpsLab::with(registering()).await;
    let fleet = FleetRequest::new(lab.path().join("fleet"), 12, || {
        Ok(Box::new((1..=12).map(|number| Ok(FleetDevice::new(DeviceId::new(format!("d-{number}"))?)))))
    });
    let request = lab.request().fleet(fleet).create_devices(true).register(lab.registration());
    let report = lab.run(&request).await.expect("provisioned");
    assert!(report.refused.is_empty(), "{report:?}");
    let counts = report.created.expect("counts");
    assert_eq!((counts.created, counts.existing), (13, 0));
    assert_eq!(report.fleet.expect("a fleet").registered, Some(12));
    assert_eq!(lab.run(&request).await.expect("provisioned").created.map(|it| it.existing), Some(13));
}

/// A run without disturbance ends verified by the root that was there, and leaves nothing to do.
async fn finishes(lab: &DpsLab, request: impl Fn() -> ProvisionRequest<'static>, after: &str) {
    let found = fs::read(set(lab.path(), ROOT).certificate()).ok();
    let report = lab.run(&request()).await.unwrap_or_else(|error| panic!("after {after}: {error}"));
    let ours = root(lab);
    assert!(found.is_none_or(|found| Certificate::read(&found).expect("whole") == ours), "after {after}");
    assert_eq!((report.verified, report.sha1_thumbprint), (true, Some(ours.sha1_thumbprint())), "after {after}");
    assert!(lab.entries().await.contains(&Some((ours.sha1_thumbprint(), true))), "after {after}");
    let device = files::read_certificates(&set(lab.path(), DEVICE).fullchain()).expect("a chain");
    chain::verify(&device, &ours, Timestamp::now()).expect("of this root");
    let copies = lab.certificates().await.iter().filter(|it| it.is(&ours)).count();
    assert_eq!(copies, 1, "after {after}");
    let again = lab.run_without_a_change(&request()).await.expect("nothing to do");
    assert!(again.steps.iter().all(|it| it.outcome == Unchanged), "after {after}: {again:?}");
}

/// The number of requests of a run from nothing, with an individual enrollment.
async fn request_count() -> usize {
    let lab = DpsLab::start().await;
    let before = lab.emulator.requests().len();
    lab.run(&lab.request().create_devices(true)).await.expect("provisioned");
    lab.emulator.requests().len() - before
}

#[track_caller]
fn is_clear(lab: &DpsLab, error: &ProvisionError, what: &str) {
    let message = error.to_string();
    let connection = lab.emulator.dps_connection_string();
    let key = connection.split("SharedAccessKey=").nth(1).expect("a key");
    let is_clean = !message.contains(lab.emulator.arm_token()) && !message.contains(key) && !message.contains("sig=");
    assert!(is_clean && message.len() > 20, "{what}: {message}");
}

/// Every fault at every request, so many times in a row. One that passes is overcome in the same run.
async fn every_fault(kinds: &[FaultKind], times: u32) {
    for kind in kinds {
        let passes = times == 1 && !matches!(kind, FaultKind::NotJson | FaultKind::Status { status: 403, .. });
        for at in 0..request_count().await {
            let lab = DpsLab::start().await;
            let request = || lab.request().create_devices(true);
            let what = format!("{times} × {kind:?} at {at}");
            lab.fault_at(at, kind, times);
            let result = lab.run(&request()).await;
            lab.emulator.clear_faults();
            match result {
                Ok(report) => assert!(report.verified, "{what}"),
                Err(error) if passes => panic!("{what}: {error}"),
                Err(error) => is_clear(&lab, &error, &what),
            }
            finishes(&lab, request, &what).await;
        }
    }
}

fn status(status: u16) -> FaultKind {
    FaultKind::Status { status, retry_after: None }
}

#[tokio::test]
async fn a_lost_answer_to_any_request_is_overcome() {
    Box::pin(every_fault(&[FaultKind::CloseAfterHandling, FaultKind::TruncateBody], 1)).await;
}

#[tokio::test]
async fn an_error_at_any_request_is_overcome_or_reported() {
    Box::pin(every_fault(
        &[FaultKind::CloseBeforeHandling, status(503), status(429), status(403), FaultKind::NotJson],
        1,
    ))
    .await;
}

#[tokio::test]
async fn a_service_that_fails_for_good_from_any_request_on_is_reported_and_the_next_run_finishes() {
    Box::pin(every_fault(&[FaultKind::CloseAfterHandling, status(500)], 100)).await;
}

#[tokio::test]
async fn killed_at_any_event_it_is_finished_by_the_next_run() {
    for number in 0.. {
        let lab = DpsLab::start().await;
        let (instance, request) = (lab.instance(), lab.request().create_devices(true));
        let mut left: usize = number;
        let task = tokio::spawn(async move {
            provision(instance, &request, &mut |_| {
                left = left.checked_sub(1).unwrap_or_else(|| resume_unwind(Box::new("killed")));
            })
            .await
        });
        let is_killed = task.await.is_err();
        finishes(&lab, || lab.request().create_devices(true), &format!("event {number}")).await;
        if !is_killed {
            assert!(number > 16, "{number}");
            break;
        }
    }
}

#[tokio::test]
async fn killed_while_waiting_it_is_finished_by_the_next_run() {
    for number in 0.. {
        let lab = DpsLab::start().await;
        let (instance, request) = (lab.instance(), lab.request().create_devices(true));
        let mut left = number;
        let observer = &mut |_: WorkflowEvent<'_>| ();
        let ended = {
            let mut running = pin!(provision(&instance, &request, observer));
            poll_fn(|context| match running.as_mut().poll(context) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending if left == 0 => Poll::Ready(None),
                Poll::Pending => {
                    left -= 1;
                    Poll::Pending
                }
            })
            .await
        };
        finishes(&lab, || lab.request().create_devices(true), &format!("wait {number}")).await;
        if ended.is_some() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_runs_converge() {
    for _ in 0..3 {
        let lab = DpsLab::start().await;
        let requests: Vec<_> = (0..6).map(|_| lab.request().create_devices(true)).collect();
        let reports = join_all(requests.iter().map(|request| lab.run(request))).await;
        let ours = root(&lab).sha1_thumbprint();
        for report in reports {
            let report = report.expect("provisioned");
            assert_eq!((report.verified, report.sha1_thumbprint), (true, Some(ours)));
        }
        assert_eq!(lab.entries().await, [Some((ours, true)), None]);
        assert_eq!((lab.certificates().await.len(), lab.groups().await.len()), (1, 1));
        lab.run_without_a_change(&lab.request().create_devices(true)).await.expect("nothing is left to do");
    }
}

/// The causes that are found for a device that the instance refuses.
async fn causes(lab: &DpsLab, id: &str) -> Vec<&'static str> {
    let registrar = Registrar::new(lab.registration()).service(Some(lab.instance().into()));
    let error = registrar.register(&device(id), &credential(lab, id)).await.expect_err("refused");
    assert!(registrar.service_error().is_none(), "{:?}", registrar.service_error());
    error.diagnosis.causes.iter().map(Cause::name).collect()
}

#[tokio::test]
async fn a_refused_registration_is_explained_from_the_state_of_the_instance() {
    let lab = DpsLab::with(registering()).await;
    lab.run(&lab.request()).await.expect("provisioned");
    let instance = lab.instance();
    let groups = instance.client().enrollment_groups();
    let disabled = EnrollmentGroupUpdate::new().settings(EnrollmentSettings::new().enabled(false));
    groups.update(&group_id(), &disabled).await.expect("updated");
    assert_eq!(causes(&lab, DEVICE).await, ["group-disabled"]);

    groups.delete(&group_id(), None).await.expect("deleted");
    assert_eq!(causes(&lab, DEVICE).await, ["no-group-refers"]);

    let enrollments = instance.client().individual_enrollments();
    let other = NewIndividualEnrollment::new(NewAttestation::SymmetricKey(None));
    enrollments.create(&DEVICE.parse().expect("an id"), &other).await.expect("created");
    assert_eq!(causes(&lab, DEVICE).await, ["attestation-differs"]);
    enrollments.delete(&DEVICE.parse().expect("an id"), None).await.expect("deleted");
    let leaf = files::read_certificates(&set(lab.path(), DEVICE).certificate()).expect("a certificate").swap_remove(0);
    let own = NewAttestation::ClientCertificates(NewCertificates::new(leaf));
    let disabled = NewIndividualEnrollment::new(own).settings(EnrollmentSettings::new().enabled(false));
    enrollments.create(&DEVICE.parse().expect("an id"), &disabled).await.expect("created");
    assert_eq!(causes(&lab, DEVICE).await, ["device-disabled"]);
    enrollments.delete(&DEVICE.parse().expect("an id"), None).await.expect("deleted");

    let certificate = lab.certificates().await.swap_remove(0);
    let certificates = instance.resource().certificates();
    certificates.delete(&certificate.name, &certificate.etag).await.expect("deleted");
    assert_eq!(causes(&lab, DEVICE).await, ["nothing-enrolled"]);
    let name = lab.upload("unverified", &root(&lab), false).await;
    lab.create_group("myx509eg", &name).await;
    assert_eq!(causes(&lab, DEVICE).await, ["entry-not-verified"]);
}
