//! Provisioning, from every state that a service and a directory can be in.

use std::{fs, path::PathBuf};

use crate::support::{
    DAY,
    clock::ManualClock,
    lab::{DEVICE, Lab, ROOT, days_ago, files, name, new_root, set, write},
    server::{Reply, Request, Server},
};
use iot_enroll::{
    central::{Authorization, CertificateEntry, Client, DeviceType, Endpoint, NewAttestation, NewEnrollmentGroup},
    certificate::{
        Certificate, CertificateAuthority, DeviceId, IssueOptions, KeyAlgorithm, Lifetime, Thumbprint, Timestamp,
        chain,
        files::{self, FileError},
    },
    workflow::{
        AuthoritySource, Outcome, ProvisionError, ProvisionReport, ProvisionRequest, Step, WorkflowEvent, provision,
    },
};
use serde_json::{Value, json};

use CertificateEntry::{Primary, Secondary};
use Outcome::{Done, Planned, Unchanged};

/// A report's steps and what became of them, as `step outcome`.
fn steps(report: &ProvisionReport) -> Vec<(Step, Outcome)> {
    report.steps.iter().map(|it| (it.step, it.outcome)).collect()
}

const PROVED: [(Step, Outcome); 4] =
    [(Step::Code, Done), (Step::Proof, Done), (Step::Verify, Done), (Step::Confirm, Done)];

/// These steps, then the proof, then a device.
fn then_proved(begin: &[(Step, Outcome)], device: Outcome) -> Vec<(Step, Outcome)> {
    [begin, &PROVED, &[(Step::Device, device)]].concat()
}

fn device(id: &str) -> DeviceId {
    DeviceId::new(id).expect("an id")
}

fn read(path: PathBuf) -> Certificate {
    Certificate::read(&fs::read(path).expect("read")).expect("a certificate")
}

#[track_caller]
fn chains_to(lab: &Lab, id: &str, authority: &Certificate) {
    let chain = files::read_certificates(&set(lab.path(), id).fullchain()).expect("a chain");
    assert_eq!(chain[0].subject().common_name(), Some(id));
    chain::verify(&chain, authority, Timestamp::now()).expect("a chain that leads to the authority");
}

#[tokio::test]
async fn a_new_group_is_verified_and_every_step_is_reported() {
    let lab = Lab::start().await;
    let mut events = Vec::new();
    let report = provision(&lab.client(), &lab.request(), &mut |event| {
        events.push(match event {
            WorkflowEvent::Started(step, text) => {
                assert!(!text.is_empty());
                (step, None)
            }
            WorkflowEvent::Finished(report) => (report.step, Some(report.clone())),
            _ => panic!("{event:?}"),
        });
    })
    .await
    .expect("provisioned");
    let begin = [(Step::Root, Done), (Step::Group, Done), (Step::Certificate, Done)];
    assert_eq!(steps(&report), then_proved(&begin, Done));
    let reported: Vec<_> = events.iter().filter_map(|(_, report)| report.clone()).collect();
    assert_eq!(reported, report.steps);
    for (index, (step, finished)) in events.iter().enumerate() {
        assert_eq!(finished.is_some(), index % 2 == 1, "each step is reported when it starts and when it finishes");
        assert_eq!(*step, events[index / 2 * 2].0);
    }

    let root = read(set(lab.path(), ROOT).certificate());
    assert_eq!((report.group.as_str(), report.entry, report.verified), ("myx509eg", Primary, true));
    assert_eq!(report.sha1_thumbprint, Some(root.sha1_thumbprint()));
    let entry = lab.entry(Primary).await.expect("a certificate");
    assert_eq!((entry.verified, entry.sha1_thumbprint), (true, Some(root.sha1_thumbprint())));
    chains_to(&lab, DEVICE, &root);
    let json = serde_json::to_value(&report).expect("JSON");
    let fields: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(fields, ["devices", "entry", "group", "sha1Thumbprint", "steps", "verified"]);
    assert_eq!(json["sha1Thumbprint"], root.sha1_thumbprint().to_string());
    assert_eq!(json["steps"][0], json!({ "step": "root", "outcome": "done", "detail": report.steps[0].detail }));
    assert_eq!(json["devices"][0]["id"], DEVICE);
    assert_eq!(
        json["devices"][0]["sha1Thumbprint"],
        read(set(lab.path(), DEVICE).certificate()).sha1_thumbprint().to_string()
    );
    assert_eq!(json["devices"][0]["pfx"], Value::Null);
    let service = lab.service().await;
    assert_eq!((&service[0]["displayName"], &service[0]["type"]), (&json!("myx509eg"), &json!("iot")));
}

#[tokio::test]
async fn the_options_reach_the_group_and_the_certificates() {
    let lab = Lab::start().await;
    let request = lab
        .request()
        .display_name("Gateways".to_owned())
        .device_type(DeviceType::IotEdge)
        .devices(vec![device("a"), device("b")])
        .device_lifetime(Lifetime::Days(3))
        .algorithm(KeyAlgorithm::EcP384);
    let report = lab.run(&request).await.expect("provisioned");
    assert_eq!(report.devices.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let service = lab.service().await;
    assert_eq!((&service[0]["displayName"], &service[0]["type"]), (&json!("Gateways"), &json!("iotEdge")));
    let root = read(set(lab.path(), ROOT).certificate());
    for id in ["a", "b"] {
        chains_to(&lab, id, &root);
        let certificate = read(set(lab.path(), id).certificate());
        let left = certificate.not_after().duration_since(Timestamp::now());
        assert!((2..=3).contains(&(left.as_secs() / DAY.as_secs())), "{left:?}");
    }
    assert!(root.not_after().duration_since(Timestamp::now()) > DAY * 3000, "the lifetime is the devices'");
    for made in [ROOT, "a"] {
        let key = fs::read_to_string(set(lab.path(), made).private_key()).expect("read");
        assert!(key.len() > 250, "a key on P-384 is longer than one on P-256: {}", key.len());
    }
}

#[tokio::test]
async fn a_second_run_changes_nothing() {
    let lab = Lab::start().await;
    let first = lab.run(&lab.request()).await.expect("provisioned");
    let second = lab.run_without_a_change(&lab.request()).await.expect("provisioned");
    let expected = [Step::Root, Step::Group, Step::Certificate, Step::Device].map(|step| (step, Unchanged));
    assert_eq!(steps(&second), expected);
    assert_eq!((second.verified, second.sha1_thumbprint), (true, first.sha1_thumbprint));
    assert_eq!(second.devices, first.devices);
}

#[tokio::test]
async fn only_a_device_that_is_added_later_is_created() {
    let lab = Lab::start().await;
    lab.run(&lab.request()).await.expect("provisioned");
    let (service, before) = (lab.service().await, files(lab.path()));
    let request = lab.request().devices(vec![device(DEVICE), device("another")]);
    let report = lab.run(&request).await.expect("provisioned");
    assert_eq!(steps(&report)[3..], [(Step::Device, Unchanged), (Step::Device, Done)]);
    assert_eq!(lab.service().await, service);
    let after = files(lab.path());
    assert!(before.iter().all(|(name, content)| after.get(name) == Some(content)));
    chains_to(&lab, "another", &read(set(lab.path(), ROOT).certificate()));
}

#[track_caller]
fn refused_for_another(
    result: Result<ProvisionReport, ProvisionError>,
    theirs: Thumbprint,
    ours: Option<Thumbprint>,
    was_verified: bool,
) {
    let error = result.expect_err("another certificate is in the entry");
    let message = error.to_string();
    let ProvisionError::OtherCertificate { found, ours: reported, verified, entry, .. } = error else {
        panic!("{message}")
    };
    assert_eq!((found, reported, verified, entry), (theirs, ours, was_verified, Primary));
    assert!(message.contains(&theirs.to_string()), "{message}");
    assert!(ours.is_none_or(|ours| message.contains(&ours.to_string())), "{message}");
    assert!(message.contains("secondary"), "the way out is named: {message}");
    assert_eq!(message.contains("another verified"), was_verified, "{message}");
}

#[tokio::test]
async fn another_certificate_in_the_entry_stops_it_before_anything_is_changed() {
    for verified in [false, true] {
        let lab = Lab::start().await;
        let theirs = new_root("theirs").certificate;
        lab.holding(&theirs, verified).await;
        // Neither is a root made for nothing.
        let result = lab.run_without_a_change(&lab.request()).await;
        refused_for_another(result, theirs.sha1_thumbprint(), None, verified);
        let ours = lab.write_root();
        let result = lab.run_without_a_change(&lab.request()).await;
        refused_for_another(result, theirs.sha1_thumbprint(), Some(ours.sha1_thumbprint()), verified);
        let attested = lab.request().skip_proof(true);
        let result = lab.run_without_a_change(&attested).await;
        refused_for_another(result, theirs.sha1_thumbprint(), Some(ours.sha1_thumbprint()), verified);
    }
}

#[tokio::test]
async fn replace_puts_ours_in_the_place_of_another_certificate() {
    for (verified, attest) in [(false, false), (true, false), (true, true)] {
        let lab = Lab::start().await;
        lab.holding(&new_root("theirs").certificate, verified).await;
        let report = lab.run(&lab.request().replace(true).skip_proof(attest)).await.expect("replaced");
        let entry = lab.entry(Primary).await.expect("a certificate");
        assert_eq!((entry.verified, entry.sha1_thumbprint), (true, report.sha1_thumbprint));
        assert_eq!(entry.sha1_thumbprint, Some(read(set(lab.path(), ROOT).certificate()).sha1_thumbprint()));
    }
}

#[tokio::test]
async fn replace_does_not_touch_our_own_certificate() {
    let lab = Lab::start().await;
    lab.run(&lab.request()).await.expect("provisioned");
    let report = lab.run_without_a_change(&lab.request().replace(true)).await;
    assert!(report.expect("provisioned").verified);
}

#[tokio::test]
async fn the_other_entry_takes_ours_and_leaves_theirs() {
    let lab = Lab::start().await;
    let theirs = new_root("theirs").certificate;
    lab.holding(&theirs, true).await;
    let before = lab.entry(Primary).await;
    let beside = lab.request().entry(Secondary).add_ca(true);
    let report = lab.run(&beside).await.expect("provisioned");
    assert_eq!(report.entry, Secondary);
    let entry = lab.entry(Secondary).await.expect("a certificate");
    assert_eq!((entry.verified, entry.sha1_thumbprint), (true, report.sha1_thumbprint));
    assert_eq!(lab.entry(Primary).await, before);
}

#[tokio::test]
async fn an_unverified_certificate_of_ours_is_proved_and_not_uploaded_again() {
    let lab = Lab::start().await;
    let root = lab.write_root();
    lab.holding(&root, false).await;
    let report = lab.run(&lab.request()).await.expect("provisioned");
    let begin = [Step::Root, Step::Group, Step::Certificate].map(|step| (step, Unchanged));
    assert_eq!(steps(&report), then_proved(&begin, Done));
    let uploads =
        lab.emulator.requests().iter().filter(|it| it.method == "PUT" && it.path.ends_with("primary")).count();
    assert_eq!(uploads, 1, "the one of this test");
    assert!(lab.entry(Primary).await.expect("a certificate").verified);
}

#[tokio::test]
async fn attesting_uploads_as_verified_without_a_proof() {
    for begun in [false, true] {
        let lab = Lab::start().await;
        if begun {
            let root = lab.write_root();
            lab.holding(&root, false).await;
        }
        let report = lab.run(&lab.request().skip_proof(true)).await.expect("provisioned");
        assert_eq!(steps(&report)[2..], [(Step::Certificate, Done), (Step::Confirm, Done), (Step::Device, Done)]);
        assert!(report.steps[2].detail.contains("attested"), "{}", report.steps[2].detail);
        let entry = lab.entry(Primary).await.expect("a certificate");
        assert_eq!((entry.verified, entry.sha1_thumbprint), (true, report.sha1_thumbprint));
        assert!(lab.emulator.requests().iter().all(|request| request.method != "POST"));
    }
}

/// The outcomes of a dry run and of the run after it: what is planned is what is done.
async fn dry_then_wet(lab: &Lab, request: ProvisionRequest<'static>) -> ProvisionReport {
    let dry = request.dry_run(true);
    let planned = lab.run_without_a_change(&dry).await.expect("a plan");
    let done = lab.run(&dry.dry_run(false)).await.expect("provisioned");
    let expected: Vec<_> =
        steps(&done).into_iter().map(|(step, it)| (step, if it == Done { Planned } else { it })).collect();
    assert_eq!(steps(&planned), expected);
    assert!(planned.steps.iter().all(|it| !it.detail.is_empty()));
    planned
}

#[tokio::test]
async fn a_dry_run_reads_and_plans_what_the_run_after_it_does() {
    let lab = Lab::start().await;
    let planned = dry_then_wet(&lab, lab.request()).await;
    assert_eq!((planned.verified, planned.sha1_thumbprint, planned.devices.len()), (false, None, 0));
    // Verified by now.
    let planned = dry_then_wet(&lab, lab.request()).await;
    assert!(planned.verified && planned.sha1_thumbprint.is_some() && planned.devices.len() == 1);

    for attest in [false, true] {
        let lab = Lab::start().await;
        lab.group(&NewEnrollmentGroup::x509("Mine")).await;
        let planned = dry_then_wet(&lab, lab.request().skip_proof(attest)).await;
        assert!(!planned.verified);

        let lab = Lab::start().await;
        let root = lab.write_root();
        lab.holding(&root, false).await;
        let planned = dry_then_wet(&lab, lab.request().skip_proof(attest)).await;
        assert_eq!((planned.verified, planned.sha1_thumbprint), (false, Some(root.sha1_thumbprint())));

        let lab = Lab::start().await;
        lab.holding(&new_root("theirs").certificate, true).await;
        let refused = lab.run_without_a_change(&lab.request().dry_run(true).skip_proof(attest)).await;
        assert!(matches!(refused, Err(ProvisionError::OtherCertificate { .. })), "{refused:?}");
        let planned = dry_then_wet(&lab, lab.request().replace(true).skip_proof(attest)).await;
        assert!(!planned.verified);
    }
}

#[tokio::test]
async fn a_group_with_symmetric_keys_stops_it() {
    let lab = Lab::start().await;
    let attestation = NewAttestation::SymmetricKey(None);
    lab.group(&NewEnrollmentGroup::x509("Keys").attestation(attestation)).await;
    for (dry_run, replace) in [(false, false), (true, false), (false, true)] {
        let request = lab.request().dry_run(dry_run).replace(replace);
        let error = lab.run_without_a_change(&request).await.expect_err("no certificates there");
        assert!(matches!(&error, ProvisionError::Attestation { found, .. } if found == "symmetricKey"), "{error}");
        let message = error.to_string();
        assert!(message.contains("myx509eg") && message.contains("symmetricKey"), "{message}");
    }
}

#[tokio::test]
async fn a_group_for_other_devices_stops_it_where_the_kind_was_named() {
    let lab = Lab::start().await;
    lab.group(&NewEnrollmentGroup::x509("Edge").device_type(DeviceType::IotEdge)).await;
    let named = lab.request().device_type(DeviceType::Iot);
    let error = lab.run_without_a_change(&named).await.expect_err("the group is for others");
    assert!(matches!(error, ProvisionError::DeviceType { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("iotEdge devices") && message.contains("iot devices"), "{message}");
    assert!(lab.run(&lab.request()).await.expect("any kind will do").verified);
}

#[tokio::test]
async fn a_disabled_group_is_provisioned_with_a_warning() {
    let lab = Lab::start().await;
    lab.group(&NewEnrollmentGroup::x509("Off").enabled(false)).await;
    let report = lab.run(&lab.request()).await.expect("provisioned");
    assert!(report.steps[1].detail.contains("disabled"), "{}", report.steps[1].detail);
    assert!(!report.steps[0].detail.contains("disabled"));
    assert_eq!(lab.service().await[0]["enabled"], false, "it is not for us to enable it");
}

/// Writes a CA to another directory, and returns the request that names its files.
fn own_authority(lab: &Lab, certificate: PathBuf, key: PathBuf) -> ProvisionRequest<'static> {
    lab.request().authority(AuthoritySource::Files { certificate, key })
}

#[tokio::test]
async fn an_own_root_is_enrolled_and_signs_the_devices() {
    let (lab, elsewhere) = (Lab::start().await, crate::support::temporary_directory());
    let root = new_root("Contoso Root");
    write(elsewhere.path(), "Contoso Root", &root);
    let own = set(elsewhere.path(), "Contoso Root");
    let report = lab.run(&own_authority(&lab, own.certificate(), own.private_key())).await.expect("provisioned");
    let begin = [(Step::Root, Unchanged), (Step::Group, Done), (Step::Certificate, Done)];
    assert_eq!(steps(&report), then_proved(&begin, Done));
    assert_eq!(report.sha1_thumbprint, Some(root.certificate.sha1_thumbprint()));
    chains_to(&lab, DEVICE, &root.certificate);
    assert_eq!(files(lab.path()).len(), 3, "the device's, and none of the root's");
}

#[tokio::test]
async fn an_own_intermediate_is_enrolled_and_its_chain_goes_to_the_devices() {
    let (lab, elsewhere) = (Lab::start().await, crate::support::temporary_directory());
    let root = new_root("Contoso Root");
    let root_certificate = root.certificate.clone();
    let root = root.into_authority(Timestamp::now()).expect("an authority");
    let issued = root.issue_intermediate(&name("Contoso Issuing"), &IssueOptions::default()).expect("issued");
    write(elsewhere.path(), "Contoso Issuing", &issued);
    let own = set(elsewhere.path(), "Contoso Issuing");
    let report = lab.run(&own_authority(&lab, own.fullchain(), own.private_key())).await.expect("provisioned");
    assert_eq!(report.sha1_thumbprint, Some(issued.certificate.sha1_thumbprint()));
    let entry = lab.entry(Primary).await.expect("a certificate");
    assert_eq!((entry.verified, entry.sha1_thumbprint), (true, report.sha1_thumbprint));
    chains_to(&lab, DEVICE, &issued.certificate);
    let chain = files::read_certificates(&set(lab.path(), DEVICE).fullchain()).expect("a chain");
    assert_eq!(chain[1..], [issued.certificate, root_certificate]);
}

#[tokio::test]
async fn an_own_authority_with_an_encrypted_key_needs_its_password() {
    let lab = Lab::start().await;
    let fixture = |name: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/authorities").join(name);
    let request = || own_authority(&lab, fixture("ec-pkcs8_cert.pem"), fixture("ec-pkcs8_key_aes.pem"));
    for key_password in [None, Some("wrong")] {
        let request = request().key_password(key_password);
        let error = lab.run_without_a_change(&request).await.expect_err("the key is encrypted");
        assert!(matches!(error, ProvisionError::Files(FileError::Key { .. })), "{error}");
    }
    let request = request().key_password("fixture");
    lab.run(&request).await.expect("provisioned");
    chains_to(&lab, DEVICE, &read(fixture("ec-pkcs8_cert.pem")));
}

#[tokio::test]
async fn an_own_authority_that_is_none_stops_it() {
    let (lab, elsewhere) = (Lab::start().await, crate::support::temporary_directory());
    let root = new_root("root");
    write(elsewhere.path(), "root", &root);
    write(elsewhere.path(), "other", &new_root("other"));
    let authority = root.into_authority(Timestamp::now()).expect("an authority");
    write(
        elsewhere.path(),
        "leaf",
        &authority.issue_device(&device("leaf"), &IssueOptions::default()).expect("issued"),
    );
    write(elsewhere.path(), "old", &CertificateAuthority::new_root(&name("old"), &days_ago(9, 1)).expect("a root"));
    for (certificate, key) in [("root", "other"), ("leaf", "leaf"), ("old", "old"), ("missing", "root")] {
        let (certificate, key) =
            (set(elsewhere.path(), certificate).certificate(), set(elsewhere.path(), key).private_key());
        let error = lab.run_without_a_change(&own_authority(&lab, certificate.clone(), key)).await.expect_err("unfit");
        assert!(error.to_string().contains(&certificate.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_root_of_which_only_a_part_is_there_stops_it() {
    for gone in ["_cert.pem", "_key.pem"] {
        let lab = Lab::start().await;
        lab.write_root();
        fs::remove_file(lab.path().join(format!("{ROOT}{gone}"))).expect("removed");
        let error = lab.run_without_a_change(&lab.request()).await.expect_err("a part");
        assert!(matches!(error, ProvisionError::Files(FileError::Incomplete { .. })), "{error}");
    }
}

#[tokio::test]
async fn device_files_of_no_use_stop_it_before_anything_is_changed() {
    let now = Timestamp::now();
    let id = device(DEVICE);
    let default = IssueOptions::default();
    for case in [
        "another authority",
        "expired",
        "another id",
        "not signed",
        "no key",
        "no certificate",
        "no chain",
        "another key",
    ] {
        let lab = Lab::start().await;
        let old = days_ago(30, 3650);
        let root = CertificateAuthority::new_root(&name(ROOT), &old).expect("a root");
        write(lab.path(), ROOT, &root);
        let root = root.into_authority(now).expect("an authority");
        let issued = match case {
            "another authority" => {
                let other = new_root(ROOT).into_authority(now).expect("an authority");
                other.issue_device(&id, &default)
            }
            "expired" => root.issue_device(&id, &days_ago(9, 1)),
            "another id" => root.issue_device(&device("sampleDevice01"), &default),
            "not signed" => CertificateAuthority::self_signed_device(&id, &default),
            _ => root.issue_device(&id, &default),
        };
        write(lab.path(), DEVICE, &issued.expect("issued"));
        let own = set(lab.path(), DEVICE);
        match case {
            "no key" => fs::remove_file(own.private_key()).expect("removed"),
            "no chain" => fs::remove_file(own.fullchain()).expect("removed"),
            "no certificate" => fs::remove_file(own.certificate()).expect("removed"),
            "another key" => drop(fs::copy(set(lab.path(), ROOT).private_key(), own.private_key()).expect("copied")),
            _ => {}
        }
        let error = lab.run_without_a_change(&lab.request()).await.expect_err(case);
        assert!(error.to_string().contains("sampleDevice01"), "{case}: the files are named: {error}");
        let dry = lab.request().dry_run(true);
        lab.run_without_a_change(&dry).await.expect_err("a dry run fails too");
    }
}

#[tokio::test]
async fn device_files_without_their_root_stop_it() {
    let lab = Lab::start().await;
    let root = new_root(ROOT).into_authority(Timestamp::now()).expect("an authority");
    write(lab.path(), DEVICE, &root.issue_device(&device(DEVICE), &IssueOptions::default()).expect("issued"));
    let error = lab.run_without_a_change(&lab.request()).await.expect_err("whose are they?");
    assert!(matches!(error, ProvisionError::Device { .. }) && error.to_string().contains(ROOT), "{error}");
}

#[tokio::test]
async fn names_with_the_same_files_stop_it() {
    let lab = Lab::start().await;
    for devices in [vec!["sample-device", "sampleDevice"], vec!["other", "my-testrootcert"]] {
        let root = if devices[1] == "my-testrootcert" { "my testrootcert" } else { ROOT };
        let request =
            lab.request().authority(AuthoritySource::Root(name(root))).devices(devices.iter().map(|id| device(id)));
        let error = lab.run_without_a_change(&request).await.expect_err("the same files");
        let message = error.to_string();
        assert!(matches!(error, ProvisionError::SameFiles { .. }) && message.contains(devices[1]), "{message}");
    }
}

#[tokio::test]
async fn a_device_that_is_named_twice_stops_it() {
    let lab = Lab::start().await;
    let request = lab.request().devices(vec![device(DEVICE), device(DEVICE)]);
    let error = lab.run_without_a_change(&request).await.expect_err("named twice");
    assert!(matches!(error, ProvisionError::DuplicateDevice { .. }), "{error}");
}

/// Runs against a service with scripted answers.
async fn against(
    script: Vec<Reply>,
    lab: &Lab,
    request: &ProvisionRequest<'_>,
) -> (Result<ProvisionReport, ProvisionError>, Vec<Request>) {
    let server = Server::start(script);
    let client = Client::builder(server.url().parse::<Endpoint>().expect("an endpoint"))
        .authorization(Authorization::parse(lab.emulator.token().to_owned()).expect("a token"))
        .clock(ManualClock::new())
        .build()
        .expect("a client");
    let result = provision(&client, request, &mut |_| ()).await;
    (result, server.requests())
}

fn group() -> Value {
    json!({
        "id": "myx509eg", "displayName": "Mine", "enabled": true, "type": "iot", "etag": "g1",
        "attestation": { "type": "x509", "x509": { "signingCertificates": {} } },
    })
}

/// An entry without a certificate.
fn empty() -> Reply {
    Reply::error(404, "NotFound", "none")
}

fn signing(certificate: &Certificate, verified: bool) -> Value {
    let thumbprint = certificate.sha1_thumbprint().to_string();
    json!({ "verified": verified, "info": { "sha1Thumbprint": thumbprint }, "etag": "e1" })
}

#[tokio::test]
async fn a_proof_that_the_service_takes_is_not_enough_the_entry_has_to_be_verified_and_ours() {
    let lab = Lab::start().await;
    let (ours, theirs) = (lab.write_root(), new_root("theirs").certificate);
    // Another run may have uploaded ours again, so it is proved again, a few times.
    for (state, verified, proofs) in [(signing(&ours, false), false, 5), (signing(&theirs, true), true, 1)] {
        let mut script = vec![Reply::json(200, &group()), Reply::json(200, &signing(&ours, false)), empty()];
        for _ in 0..proofs {
            script.extend([
                Reply::json(200, &json!({ "verificationCode": "CODE" })),
                Reply::no_content(),
                Reply::json(200, &state),
            ]);
        }
        let (result, requests) = against(script, &lab, &lab.request()).await;
        let error = result.expect_err("not confirmed");
        assert!(matches!(error, ProvisionError::NotConfirmed { verified: it, .. } if it == verified), "{error}");
        assert_eq!(requests.len(), 3 + 3 * proofs);
    }
    assert_eq!(files(lab.path()).len(), 3, "no device is made for an entry that is not verified");
}

#[tokio::test]
async fn an_upload_that_the_service_does_not_take_as_attested_is_proved() {
    let lab = Lab::start().await;
    let ours = lab.write_root();
    let script = vec![
        Reply::json(200, &group()),
        empty(),
        empty(),
        Reply::json(200, &signing(&ours, false)),
        Reply::json(200, &json!({ "verificationCode": "CODE" })),
        Reply::no_content(),
        Reply::json(200, &signing(&ours, true)),
    ];
    let (result, _) = against(script, &lab, &lab.request().skip_proof(true)).await;
    assert!(result.expect("provisioned").verified);
}

#[tokio::test]
async fn an_entry_that_changes_between_reading_and_replacing_is_left() {
    let lab = Lab::start().await;
    let (ours, theirs) = (lab.write_root(), new_root("theirs").certificate);
    let replace = lab.request().replace(true);
    let begin = || {
        vec![
            Reply::json(200, &group()),
            Reply::json(200, &signing(&theirs, true)),
            empty(),
            Reply::error(412, "PreconditionFailed", "the etag does not match"),
        ]
    };
    let script = begin().into_iter().chain([Reply::json(200, &signing(&theirs, true))]).collect();
    let (result, requests) = against(script, &lab, &replace).await;
    assert!(matches!(&result, Err(ProvisionError::Service(error)) if error.status() == Some(412)), "{result:?}");
    let puts: Vec<_> = requests.iter().filter(|request| request.method == "PUT").map(Request::json).collect();
    assert_eq!(
        puts.iter().map(|body| &body["etag"]).collect::<Vec<_>>(),
        ["e1"],
        "once, in the place of what was read"
    );
    // A second process with the same root was quicker.
    let script =
        begin().into_iter().chain([Reply::json(200, &signing(&ours, true)), Reply::json(200, &signing(&ours, true))]);
    let (result, _) = against(script.collect(), &lab, &replace).await;
    assert!(result.expect("provisioned").verified);
}

#[tokio::test]
async fn a_code_that_is_no_common_name_is_reported_and_not_signed() {
    let lab = Lab::start().await;
    let ours = lab.write_root();
    let long = "C".repeat(65);
    for code in [long.as_str(), "", "a\nb"] {
        let script = vec![
            Reply::json(200, &group()),
            Reply::json(200, &signing(&ours, false)),
            empty(),
            Reply::json(200, &json!({ "verificationCode": code })),
        ];
        let (result, _) = against(script, &lab, &lab.request()).await;
        assert!(matches!(result, Err(ProvisionError::Code(_))), "{result:?}");
    }
}

#[tokio::test]
async fn a_service_that_refuses_the_first_call_leaves_no_files() {
    let lab = Lab::start().await;
    for status in [401, 403, 422] {
        let (result, _) = against(vec![Reply::error(status, "Refused", "no")], &lab, &lab.request()).await;
        assert!(matches!(&result, Err(ProvisionError::Service(error)) if error.status() == Some(status)), "{result:?}");
    }
    assert_eq!(files(lab.path()).len(), 0);
}
