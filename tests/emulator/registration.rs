//! The Device Provisioning Service: which devices it admits, and its responses.

use crate::support::{DAY, caller, rcgen_pem::rcgen_key};
use std::{fs, path::Path, time::Duration};

use crate::support::caller::{Answer, Caller, Identity, check_time};
use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::{
    certificate::{
        Certificate, CertificateAuthority, CommonName, DeviceId, IssueOptions, IssuedCertificate, KeyAlgorithm,
        Lifetime, Timestamp,
    },
    emulator::{Builder, Clock, DeviceProperties, Emulator, Fault, FaultKind},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use serde_json::{Value, json};

const ID: &str = "sensor-1";
const HOUR: Duration = Duration::from_secs(3600);

// Helpers

/// An emulator with TLS, an X.509 group `g` and a root.
struct Lab {
    emulator: Emulator,
    root: CertificateAuthority,
}

impl Lab {
    /// Starts an emulator in which the group has the verified root.
    async fn start() -> Self {
        Self::with(Emulator::builder()).await
    }

    async fn with(builder: Builder) -> Self {
        let lab = Self::empty(builder).await;
        lab.enroll("g", "primary", lab.root.certificate(), true).await;
        lab
    }

    /// Starts an emulator without a group.
    async fn empty(builder: Builder) -> Self {
        let builder = builder.tls(true).registration_retry_after(Duration::ZERO);
        Self { emulator: builder.start().await.expect("a free loopback port"), root: new_root("Root") }
    }

    async fn api(&self, method: &str, path: &str, body: Value) -> Answer {
        Caller::new(&self.emulator).api(method, path, Some(&body)).await
    }

    /// Sets a certificate of a group, which is created if missing.
    async fn enroll(&self, group: &str, entry: &str, certificate: &Certificate, verified: bool) {
        let attestation = json!({ "type": "x509" });
        let body = json!({ "displayName": "Devices", "type": "iot", "attestation": attestation });
        self.api("PUT", &format!("/enrollmentGroups/{group}"), body).await.expect(200);
        let body = json!({ "certificate": certificate.to_base64_pem(), "verified": verified });
        self.api("PUT", &format!("/enrollmentGroups/{group}/certificates/{entry}"), body).await.expect(200);
    }

    async fn set_enabled(&self, path: &str, enabled: bool) {
        let token = format!(
            "Authorization: {}\r\nContent-Type: application/merge-patch+json\r\nContent-Length: {}\r\n",
            self.emulator.token(),
            json!({ "enabled": enabled }).to_string().len()
        );
        let path = format!("/api{path}?api-version=2022-07-31");
        let request = caller::request(&self.emulator, "PATCH", &path, &token, None);
        let answer =
            Caller::new(&self.emulator).exchange(&(request + &json!({ "enabled": enabled }).to_string())).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    async fn device(&self, id: &str) -> Answer {
        Caller::new(&self.emulator).api("GET", &format!("/devices/{id}"), None).await
    }

    fn issue(&self, id: &str) -> IssuedCertificate {
        self.root.issue_device(&device_id(id), &IssueOptions::default()).expect("a certificate")
    }

    /// Returns the device [`ID`] with a certificate that the root issued.
    fn sensor(&self) -> Caller<'_> {
        self.presenting(&self.issue(ID))
    }

    fn presenting(&self, issued: &IssuedCertificate) -> Caller<'_> {
        Caller::presenting(&self.emulator, Identity::of(issued))
    }

    /// Returns a device certificate, signed by the root, that the library would not issue.
    fn odd(&self, change: impl FnOnce(&mut CertificateParams), key: &KeyPair) -> Identity {
        Identity::from_der(vec![odd_leaf(&self.root, change, key)], key.serialize_der())
    }
}

fn odd_leaf(issuer: &CertificateAuthority, change: impl FnOnce(&mut CertificateParams), key: &KeyPair) -> Vec<u8> {
    let named = |name: &str| {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters
    };
    let issuer_key = rcgen_key(issuer.key());
    let issuer = Issuer::new(named(issuer.certificate().subject().common_name().expect("a name")), issuer_key);
    let mut parameters = named(ID);
    change(&mut parameters);
    parameters.signed_by(key, &issuer).expect("a certificate").der().to_vec()
}

fn new_root(name: &str) -> CertificateAuthority {
    let options = IssueOptions::default();
    CertificateAuthority::new_root(&common_name(name), &options)
        .expect("a root")
        .into_authority(options.issue_time())
        .expect("one")
}

fn intermediate(root: &CertificateAuthority) -> CertificateAuthority {
    let options = IssueOptions::default();
    let issued = root.issue_intermediate(&common_name("Intermediate"), &options).expect("an intermediate");
    issued.into_authority(options.issue_time()).expect("an authority")
}

fn common_name(text: &str) -> CommonName {
    CommonName::new(text).expect("a common name")
}

fn device_id(text: &str) -> DeviceId {
    DeviceId::new(text).expect("an id")
}

// A whole registration

#[tokio::test]
async fn a_device_of_a_verified_root_is_assigned_and_exists_in_the_application() {
    let lab = Lab::start().await;
    let issued = lab.issue(ID);
    let sensor = lab.presenting(&issued);
    let begun = sensor.register(ID).await.expect(202);
    let operation = begun.text("/operationId");
    assert_eq!(begun.body, json!({ "operationId": operation, "status": "assigning" }));
    assert_eq!(begun.header("retry-after"), Some("0"));
    let scope = lab.emulator.id_scope();
    let location = format!(
        "https://{}/{scope}/registrations/{ID}/operations/{operation}?{}",
        lab.emulator.address(),
        caller::VERSION
    );
    assert_eq!(begun.header("location"), Some(location.as_str()));
    assert_eq!(sensor.look_up(ID).await.expect(200).text("/status"), "assigning");
    lab.device(ID).await.expect(404);

    let going_on = sensor.poll(ID, &operation).await.expect(202);
    assert_eq!(going_on.body, begun.body);
    assert_eq!(going_on.header("retry-after"), Some("0"));

    let done = sensor.poll(ID, &operation).await.expect(200);
    assert_eq!((done.text("/operationId"), done.text("/status")), (operation.clone(), "assigned".to_owned()));
    let state = &done.body["registrationState"];
    for (field, expected) in
        [("registrationId", ID), ("deviceId", ID), ("status", "assigned"), ("substatus", "initialAssignment")]
    {
        assert_eq!(state[field], expected, "{state}");
    }
    check_time(&state["createdDateTimeUtc"]);
    check_time(&state["lastUpdatedDateTimeUtc"]);
    assert!(state["etag"].as_str().is_some_and(|etag| !etag.is_empty()), "{state}");
    let hub = state["assignedHub"].as_str().expect("a hub");
    assert!(hub.starts_with("iotc-") && hub.ends_with(".azure-devices.net"), "{hub}");
    let x509 = &state["x509"];
    assert_eq!(x509["enrollmentGroupId"], "g");
    assert_eq!(x509["certificateInfo"]["subjectName"], format!("CN={ID}"));
    assert_eq!(x509["certificateInfo"]["sha1Thumbprint"], issued.certificate.sha1_thumbprint().to_string());
    let signer = lab.root.certificate().sha256_thumbprint().to_string();
    assert_eq!(x509["signingCertificateInfo"]["sha256Thumbprint"], signer);

    assert_eq!(sensor.poll(ID, &operation).await.expect(200).body, done.body, "it may be asked again");
    assert_eq!(&sensor.look_up(ID).await.expect(200).body, state);
    let device = lab.device(ID).await.expect(200);
    for (field, expected) in [
        ("displayName", json!(ID)),
        ("enabled", json!(true)),
        ("provisioned", json!(true)),
        ("simulated", json!(false)),
        ("template", Value::Null),
    ] {
        assert_eq!(device.body[field], expected, "{field}");
    }
    let other = lab.presenting(&lab.issue("sensor-2")).assigned("sensor-2").await;
    assert_eq!(other.text("/registrationState/assignedHub"), hub, "one emulator has one hub");
}

#[tokio::test]
async fn the_number_of_polls_before_the_assignment_is_configurable() {
    let lab = Lab::with(Emulator::builder().assign_after(0)).await;
    let sensor = lab.sensor();
    let operation = sensor.register(ID).await.expect(202).text("/operationId");
    assert_eq!(lab.device(ID).await.expect(200).body["provisioned"], true);
    sensor.poll(ID, &operation).await.expect(200);

    let lab = Lab::with(Emulator::builder().assign_after(3)).await;
    let sensor = lab.sensor();
    let operation = sensor.register(ID).await.expect(202).text("/operationId");
    for status in [202, 202, 202, 200] {
        sensor.poll(ID, &operation).await.expect(status);
    }
}

#[tokio::test]
async fn the_time_between_polls_is_in_whole_seconds() {
    let builder = Emulator::builder().tls(true);
    for (builder, expected) in
        [(builder.clone(), "1"), (builder.registration_retry_after(Duration::from_millis(2500)), "3")]
    {
        let lab = Lab { emulator: builder.start().await.expect("started"), root: new_root("Root") };
        lab.enroll("g", "primary", lab.root.certificate(), true).await;
        assert_eq!(lab.sensor().register(ID).await.expect(202).header("retry-after"), Some(expected));
    }
}

#[tokio::test]
async fn exactly_the_versions_of_devices_are_accepted() {
    let lab = Lab::start().await;
    let sensor = lab.sensor();
    let body = json!({ "registrationId": ID, "payload": { "any": [1] }, "unknown": true });
    let path = format!("/{}/registrations/{ID}/register", lab.emulator.id_scope());
    for version in ["2019-03-31", "2021-06-01", "2021-10-01", "2025-07-01-preview", "2026-11-01"] {
        let path = format!("{path}?api-version={version}&forceRegistration=true&more=1");
        let answer = sensor.send("PUT", &path, "", Some(&body)).await.expect(202);
        assert!(answer.header("location").is_some_and(|location| location.ends_with(version)));
    }
    let twice = format!("{path}?api-version=2021-06-01&api-version=2021-06-01");
    sensor.send("PUT", &twice, "", Some(&body)).await.expect(202);
    for query in ["", "?api-version=2022-07-31", "?api-version=2021-06-01&api-version=2019-03-31", "?api-version="] {
        sensor.send("PUT", &format!("{path}{query}"), "", Some(&body)).await.refused(400, 400_004, "api-version");
    }
}

// Admission by certificate

#[tokio::test]
async fn a_chain_may_lead_to_a_root_or_an_intermediate_in_either_entry() {
    let lab = Lab::empty(Emulator::builder()).await;
    let authority = intermediate(&lab.root);
    let issued = authority.issue_device(&device_id(ID), &IssueOptions::default()).expect("a certificate");
    let alone = || Identity::new(std::slice::from_ref(&issued.certificate), &issued.key);
    for (entry, enrolled, identity) in [
        ("secondary", lab.root.certificate(), Identity::of(&issued)),
        ("primary", authority.certificate(), Identity::of(&issued)),
        ("secondary", authority.certificate(), alone()),
    ] {
        lab.enroll(&format!("g-{entry}"), entry, enrolled, true).await;
        Caller::presenting(&lab.emulator, identity).assigned(ID).await;
        for path in [format!("/enrollmentGroups/g-{entry}"), format!("/devices/{ID}")] {
            Caller::new(&lab.emulator).api("DELETE", &path, None).await.expect(204);
        }
    }
}

#[tokio::test]
async fn a_proof_of_possession_admits_devices() {
    let lab = Lab::empty(Emulator::builder()).await;
    lab.enroll("g", "primary", lab.root.certificate(), false).await;
    lab.sensor().register(ID).await.refused(401, 401_002, "CA certificate not found.");
    let entry = "/enrollmentGroups/g/certificates/primary";
    let code = lab.api("POST", &format!("{entry}/generateVerificationCode"), Value::Null).await;
    let code = common_name(&code.expect(200).text("/verificationCode"));
    let proof = lab.root.issue_verification(&code, &IssueOptions::default()).expect("a proof");
    let body = json!({ "certificate": proof.certificate.to_base64_pem() });
    lab.api("POST", &format!("{entry}/verify"), body).await.expect(204);
    lab.sensor().assigned(ID).await;
}

#[tokio::test]
async fn every_supported_key_algorithm_is_accepted() {
    let lab = Lab::start().await;
    for (number, algorithm) in [KeyAlgorithm::EcP384, KeyAlgorithm::Rsa2048].into_iter().enumerate() {
        let (id, options) = (format!("key-{number}"), IssueOptions::new().algorithm(algorithm));
        let issued = lab.root.issue_device(&device_id(&id), &options).expect("a certificate");
        lab.presenting(&issued).assigned(&id).await;
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("a key");
    Caller::presenting(&lab.emulator, lab.odd(|_| {}, &key)).assigned(ID).await;
}

#[tokio::test]
async fn ids_ignore_case() {
    let lab = Lab::start().await;
    let sensor = lab.sensor();
    let body = json!({ "registrationId": "Sensor-1" });
    let begun = sensor.send("PUT", &sensor.path("SENSOR-1", "/register"), "", Some(&body)).await.expect(202);
    let operation = begun.text("/operationId");
    sensor.poll("sensor-1", &operation).await.expect(202);
    assert_eq!(sensor.poll("sEnsor-1", &operation).await.expect(200).text("/registrationState/deviceId"), "SENSOR-1");
}

#[tokio::test]
async fn an_individual_attestation_admits_its_device_without_a_group() {
    let lab = Lab::empty(Emulator::builder()).await;
    let issued: Vec<_> = (0..2)
        .map(|_| CertificateAuthority::self_signed_device(&device_id(ID), &IssueOptions::default()).expect("one"))
        .collect();
    lab.api("PUT", &format!("/devices/{ID}"), json!({ "displayName": "Mine" })).await.expect(200);
    lab.presenting(&issued[0]).register(ID).await.refused(401, 401_002, "CA certificate not found.");
    let thumbprint = issued[0].certificate.sha1_thumbprint().to_string();
    let certificates = json!({
        "primary": { "info": { "sha1Thumbprint": thumbprint } },
        "secondary": { "certificate": issued[1].certificate.to_base64_pem() },
    });
    let body = json!({ "type": "x509", "x509": { "clientCertificates": certificates } });
    lab.api("PUT", &format!("/devices/{ID}/attestation"), body).await.expect(200);
    for issued in &issued {
        let done = lab.presenting(issued).assigned(ID).await;
        let x509 = &done.body["registrationState"]["x509"];
        assert_eq!(x509["certificateInfo"]["sha1Thumbprint"], issued.certificate.sha1_thumbprint().to_string());
        assert_eq!(x509["enrollmentGroupId"], Value::Null);
    }
    let device = lab.device(ID).await.expect(200);
    assert_eq!((&device.body["displayName"], &device.body["provisioned"]), (&json!("Mine"), &json!(true)));
}

#[tokio::test]
async fn an_individual_attestation_takes_precedence_over_groups() {
    let lab = Lab::start().await;
    lab.api("PUT", &format!("/devices/{ID}"), json!({})).await.expect(200);
    let other = CertificateAuthority::self_signed_device(&device_id(ID), &IssueOptions::default()).expect("one");
    let certificate = json!({ "primary": { "certificate": other.certificate.to_base64_pem() } });
    let tpm = json!({ "endorsementKey": "AAAA" });
    for (attestation, message) in [
        (json!({ "type": "x509", "x509": { "clientCertificates": certificate } }), "Invalid certificate."),
        (json!({ "type": "symmetricKey" }), "Unauthorized"),
        (json!({ "type": "tpm", "tpm": tpm }), "Unauthorized"),
    ] {
        lab.api("PUT", &format!("/devices/{ID}/attestation"), attestation).await.expect(200);
        lab.sensor().register(ID).await.refused(401, 401_002, message);
    }
}

// Refusals of certificates

#[tokio::test]
async fn a_device_without_certificate_and_token_is_refused() {
    let lab = Lab::start().await;
    let nobody = Caller::new(&lab.emulator);
    nobody.register(ID).await.refused(401, 401_002, "Unauthorized");
    nobody.look_up(ID).await.refused(401, 401_002, "Unauthorized");
    nobody.poll(ID, "any").await.refused(401, 401_002, "Unauthorized");
}

#[tokio::test]
async fn an_incomplete_or_foreign_chain_is_refused() {
    let lab = Lab::start().await;
    let authority = intermediate(&lab.root);
    let issued = authority.issue_device(&device_id(ID), &IssueOptions::default()).expect("a certificate");
    let alone = Identity::new(std::slice::from_ref(&issued.certificate), &issued.key);
    let elsewhere = new_root("Elsewhere").issue_device(&device_id(ID), &IssueOptions::default()).expect("one");
    // The same name is not enough.
    let namesake = new_root("Root").issue_device(&device_id(ID), &IssueOptions::default()).expect("one");
    let own = CertificateAuthority::self_signed_device(&device_id(ID), &IssueOptions::default()).expect("one");
    // A copy of another client's certificate may be sent as an intermediate.
    let borrowed = Identity::new(&[own.certificate.clone(), lab.root.certificate().clone()], &own.key);
    let identities = [alone, Identity::of(&elsewhere), Identity::of(&namesake), Identity::of(&own), borrowed];
    for identity in identities {
        let caller = Caller::presenting(&lab.emulator, identity);
        caller.register(ID).await.refused(401, 401_002, "CA certificate not found.");
    }
    Caller::presenting(&lab.emulator, Identity::of(&issued)).assigned(ID).await;
}

#[tokio::test]
async fn an_unverified_or_deleted_entry_admits_no_device() {
    let lab = Lab::empty(Emulator::builder()).await;
    lab.sensor().register(ID).await.refused(401, 401_002, "CA certificate not found.");
    lab.enroll("g", "primary", lab.root.certificate(), false).await;
    lab.sensor().register(ID).await.refused(401, 401_002, "CA certificate not found.");
    lab.enroll("g", "primary", lab.root.certificate(), true).await;
    lab.sensor().register(ID).await.expect(202);
    let entry = "/enrollmentGroups/g/certificates/primary";
    Caller::new(&lab.emulator).api("DELETE", entry, None).await.expect(204);
    lab.sensor().register(ID).await.refused(401, 401_002, "CA certificate not found.");
}

#[tokio::test]
async fn a_disabled_group_or_device_is_refused_at_every_step_until_it_is_enabled() {
    let lab = Lab::start().await;
    let sensor = lab.sensor();
    let operation = sensor.register(ID).await.expect(202).text("/operationId");
    sensor.poll(ID, &operation).await.expect(202);
    lab.set_enabled("/enrollmentGroups/g", false).await;
    sensor.poll(ID, &operation).await.refused(401, 401_002, "Unauthorized");
    sensor.register(ID).await.refused(401, 401_002, "Unauthorized");
    sensor.look_up(ID).await.refused(401, 401_002, "Unauthorized");
    lab.device(ID).await.expect(404);
    lab.set_enabled("/enrollmentGroups/g", true).await;
    sensor.poll(ID, &operation).await.expect(200);

    lab.set_enabled(&format!("/devices/{ID}"), false).await;
    sensor.register(ID).await.refused(401, 401_002, "Unauthorized");
    sensor.poll(ID, &operation).await.refused(401, 401_002, "Unauthorized");
    lab.set_enabled(&format!("/devices/{ID}"), true).await;
    sensor.assigned(ID).await;
}

#[tokio::test]
async fn an_enabled_group_admits_a_device_despite_a_disabled_one() {
    let lab = Lab::start().await;
    lab.enroll("other", "primary", lab.root.certificate(), true).await;
    lab.set_enabled("/enrollmentGroups/g", false).await;
    assert_eq!(lab.sensor().assigned(ID).await.text("/registrationState/x509/enrollmentGroupId"), "other");
}

#[tokio::test]
async fn the_validity_of_a_device_certificate_depends_on_the_emulators_clock() {
    let now = Timestamp::now();
    let clock = Clock::frozen(now);
    let lab = Lab::with(Emulator::builder().clock(clock.clone())).await;
    let options = |days| IssueOptions::new().at(now + DAY * days).lifetime(Lifetime::Days(1));
    let issue = |days| lab.root.issue_device(&device_id(ID), &options(days)).expect("a certificate");
    let (today, later) = (issue(0), issue(10));
    lab.presenting(&later).register(ID).await.refused(401, 401_002, "Invalid certificate.");
    lab.presenting(&today).assigned(ID).await;
    clock.advance(25 * HOUR);
    lab.presenting(&today).register(ID).await.refused(401, 401_002, "Invalid certificate.");
    clock.advance(9 * 24 * HOUR);
    lab.presenting(&later).assigned(ID).await;
}

#[tokio::test]
async fn an_expired_ca_admits_no_device() {
    let now = Timestamp::now();
    let clock = Clock::frozen(now);
    let lab = Lab::with(Emulator::builder().clock(clock.clone())).await;
    let options = IssueOptions::new().lifetime(Lifetime::Days(1));
    let authority = lab.root.issue_intermediate(&common_name("Short"), &options).expect("an intermediate");
    let authority = authority.into_authority(options.issue_time()).expect("an authority");
    // The leaf outlives its issuer, which the library would not allow.
    let key = KeyPair::generate().expect("a key");
    let (leaf, der) = (odd_leaf(&authority, |_| {}, &key), authority.certificate().der().to_vec());
    let sensor = Caller::presenting(&lab.emulator, Identity::from_der(vec![leaf, der], key.serialize_der()));
    sensor.register(ID).await.expect(202);
    clock.advance(25 * HOUR);
    sensor.register(ID).await.refused(401, 401_002, "CA certificate not found.");
}

#[tokio::test]
async fn a_certificate_not_for_clients_or_with_an_unsupported_key_is_refused() {
    let lab = Lab::start().await;
    let key = KeyPair::generate().expect("a key");
    let server = lab.odd(|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], &key);
    let edwards = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    for identity in [server, lab.odd(|_| {}, &edwards)] {
        let caller = Caller::presenting(&lab.emulator, identity);
        caller.register(ID).await.refused(401, 401_002, "Invalid certificate.");
    }
    Caller::presenting(&lab.emulator, lab.odd(|_| {}, &key)).assigned(ID).await;
}

#[tokio::test]
async fn a_ca_certificate_is_admitted_as_a_device_even_the_enrolled_one() {
    let lab = Lab::start().await;
    let key = KeyPair::generate().expect("a key");
    let authority = lab.odd(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), &key);
    Caller::presenting(&lab.emulator, authority).assigned(ID).await;
    let own = Identity::new(std::slice::from_ref(lab.root.certificate()), lab.root.key());
    Caller::presenting(&lab.emulator, own).assigned("Root").await;
}

#[tokio::test]
async fn a_common_name_other_than_the_registration_id_is_refused() {
    let lab = Lab::start().await;
    for id in ["sensor-2", "sensor-11", "ensor-1"] {
        lab.sensor().register(id).await.refused(401, 401_002, "Unauthorized");
    }
    let key = KeyPair::generate().expect("a key");
    let nameless = lab.odd(|leaf| leaf.distinguished_name = DistinguishedName::new(), &key);
    Caller::presenting(&lab.emulator, nameless).register(ID).await.refused(401, 401_002, "Unauthorized");
}

// Checks of requests

#[tokio::test]
async fn an_unknown_id_scope_is_not_found() {
    let lab = Lab::start().await;
    let path = format!("/0ne00000000/registrations/{ID}/register?{}", caller::VERSION);
    let body = json!({ "registrationId": ID });
    lab.sensor().send("PUT", &path, "", Some(&body)).await.refused(404, 404_201, "Id scope not found.");
}

#[tokio::test]
async fn the_id_scope_ignores_case() {
    let lab = Lab::start().await;
    let body = json!({ "registrationId": ID });
    for scope in [lab.emulator.id_scope().to_ascii_lowercase(), lab.emulator.id_scope().to_ascii_uppercase()] {
        let path = format!("/{scope}/registrations/{ID}/register?{}", caller::VERSION);
        lab.sensor().send("PUT", &path, "", Some(&body)).await.expect(202);
    }
}

#[tokio::test]
async fn a_malformed_registration_id_is_refused() {
    let lab = Lab::start().await;
    let sensor = lab.sensor();
    let long = "a".repeat(129);
    for id in ["-sensor", "sensor.", "sens%20or", "sens%2For", "s%C3%A9nsor", &long] {
        sensor.register(id).await.refused(400, 400_004, "not a valid registration ID");
    }
    // All of these are valid IDs, but differ from the common name.
    for id in ["a.b_c:d-e", &long[1..]] {
        sensor.register(id).await.refused(401, 401_002, "Unauthorized");
    }
}

#[tokio::test]
async fn the_body_of_a_registration_is_checked() {
    let lab = Lab::start().await;
    let sensor = lab.sensor();
    let path = sensor.path(ID, "/register");
    for (body, message) in [
        (json!({}), "registrationId"),
        (json!({ "registrationId": "sensor-2" }), "registrationId"),
        (json!({ "registrationId": 1 }), "registrationId"),
        (json!([]), "object"),
        (json!({ "registrationId": ID, "tpm": { "endorsementKey": "AAAA" } }), "tpm"),
    ] {
        sensor.send("PUT", &path, "", Some(&body)).await.refused(400, 400_004, message);
    }
    let plain = "Content-Type: text/plain\r\nContent-Length: 2\r\n";
    sensor.send("PUT", &path, plain, None).await.refused(415, 415_000, "Content-Type");
    let broken = "Content-Type: application/json\r\nContent-Length: 0\r\n";
    sensor.send("PUT", &path, broken, None).await.refused(400, 400_004, "not JSON");
    sensor.send("GET", &path, "", None).await.refused(405, 405_000, "GET");
    sensor.send("GET", &sensor.path(ID, "/more"), "", None).await.refused(404, 404_000, "does not exist");
    assert_eq!(sensor.send("GET", "/elsewhere", "", None).await.expect(404).text("/error/code"), "NotFound");
}

// Operations and registrations

#[tokio::test]
async fn an_operation_is_shown_only_to_its_device_with_its_certificate() {
    let lab = Lab::start().await;
    let sensor = lab.sensor();
    let operation = sensor.register(ID).await.expect(202).text("/operationId");
    sensor.poll(ID, "4.0.unknown").await.refused(404, 404_202, "not found");
    sensor.poll("sensor-2", &operation).await.refused(401, 401_002, "Unauthorized");
    let other = lab.presenting(&lab.issue("sensor-2"));
    other.poll("sensor-2", &operation).await.refused(404, 404_202, "not found");
    other.poll(ID, &operation).await.refused(401, 401_002, "Unauthorized");
    // Another valid certificate.
    lab.sensor().poll(ID, &operation).await.refused(401, 401_002, "Unauthorized");
    for status in [202, 200] {
        sensor.poll(ID, &operation).await.expect(status);
    }
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_operation_and_a_new_registration_a_new_one() {
    let lab = Lab::start().await;
    let sensor = lab.sensor();
    let operation = sensor.register(ID).await.expect(202).text("/operationId");
    assert_eq!(sensor.register(ID).await.expect(202).text("/operationId"), operation);
    let (hexadecimal, uuid) = operation.strip_prefix("4.").and_then(|rest| rest.split_once('.')).expect("its form");
    assert_eq!((hexadecimal.len(), uuid.len()), (16, 36));
    let first = sensor.assigned(ID).await;
    let again = sensor.register(ID).await.expect(202).text("/operationId");
    assert_ne!(again, operation);
    sensor.poll(ID, &operation).await.refused(404, 404_202, "not found");
    let second = sensor.assigned(ID).await;
    let created = "/registrationState/createdDateTimeUtc";
    assert_eq!(first.text(created), second.text(created));
    assert_ne!(first.text("/registrationState/etag"), second.text("/registrationState/etag"));
    // A new certificate starts a new operation.
    let renewed = lab.sensor();
    let one = sensor.register(ID).await.expect(202).text("/operationId");
    assert_ne!(renewed.register(ID).await.expect(202).text("/operationId"), one);
    renewed.assigned(ID).await;
}

#[tokio::test]
async fn a_registration_ends_with_its_device_and_can_be_repeated() {
    let lab = Lab::start().await;
    let sensor = lab.sensor();
    sensor.look_up(ID).await.refused(404, 404_202, "not found");
    let operation = sensor.assigned(ID).await.text("/operationId");
    Caller::new(&lab.emulator).api("DELETE", &format!("/devices/{ID}"), None).await.expect(204);
    sensor.look_up(ID).await.refused(404, 404_202, "not found");
    sensor.poll(ID, &operation).await.refused(404, 404_202, "not found");
    // A device that was created again by the API has not registered.
    lab.api("PUT", &format!("/devices/{ID}"), json!({})).await.expect(200);
    sensor.look_up(ID).await.refused(404, 404_202, "not found");
    sensor.assigned(ID).await;
    assert_eq!(lab.device(ID).await.expect(200).body["provisioned"], true);
}

#[tokio::test]
async fn an_existing_device_keeps_its_properties() {
    let lab = Lab::start().await;
    let body = json!({ "displayName": "Boiler", "template": "dtmi:contoso:Boiler;1", "organizations": ["north"] });
    let before = lab.api("PUT", &format!("/devices/{ID}"), body).await.expect(200).body;
    let sensor = lab.sensor();
    sensor.assigned(ID).await;
    let after = lab.device(ID).await.expect(200).body;
    let mut expected = before.clone();
    (expected["provisioned"], expected["etag"]) = (json!(true), after["etag"].clone());
    assert_eq!(after, expected);
    assert_ne!(after["etag"], before["etag"], "it has changed");
    sensor.assigned(ID).await;
    assert_eq!(lab.device(ID).await.expect(200).body, after, "it has not changed again");
}

#[tokio::test]
async fn the_model_id_of_a_device_becomes_its_template() {
    let lab = Lab::start().await;
    let sensor = lab.sensor();
    for (model, expected) in
        [("dtmi:contoso:One;1", "dtmi:contoso:One;1"), ("dtmi:contoso:Two;1", "dtmi:contoso:One;1")]
    {
        let body = json!({ "registrationId": ID, "payload": { "modelId": model } });
        sensor.send("PUT", &sensor.path(ID, "/register"), "", Some(&body)).await.expect(202);
        sensor.assigned(ID).await;
        assert_eq!(lab.device(ID).await.expect(200).text("/template"), expected);
    }
}

#[tokio::test]
async fn a_device_of_a_group_for_iot_edge_is_an_iot_edge_device() {
    let lab = Lab::start().await;
    let body = json!({ "displayName": "Edge", "type": "iotEdge", "attestation": { "type": "x509" } });
    lab.api("PUT", "/enrollmentGroups/g", body).await.expect(200);
    lab.sensor().assigned(ID).await;
    let authorization = format!("Authorization: {}\r\n", lab.emulator.token());
    let path = format!("/api/devices/{ID}?api-version=2022-10-31-preview");
    let device = Caller::new(&lab.emulator).send("GET", &path, &authorization, None).await.expect(200);
    assert_eq!(device.body["type"], json!(["iotEdge"]));
}

#[tokio::test]
async fn faults_of_registrations_have_the_form_of_the_service() {
    let lab = Lab::start().await;
    let sensor = lab.sensor();
    let inject = |fault: Fault| lab.emulator.inject(fault.path_contains("/registrations/")).expect("a fault");
    for (status, code) in [(429, 429_001), (503, 503_000)] {
        inject(Fault::new(FaultKind::Status { status, retry_after: Some(Duration::from_secs(7)) }));
        let answer = sensor.register(ID).await.refused(status, code, "");
        assert_eq!(answer.header("retry-after"), Some("7"));
    }
    inject(Fault::new(FaultKind::CloseAfterHandling));
    let path = sensor.path(ID, "/register");
    let request = caller::request(&lab.emulator, "PUT", &path, "", Some(&json!({ "registrationId": ID })));
    assert_eq!(sensor.exchange(&request).await, "");
    assert_eq!(sensor.look_up(ID).await.expect(200).text("/status"), "assigning", "it was carried out");
    sensor.assigned(ID).await;
}

// Admission by symmetric key

/// Starts an emulator with a symmetric-key group and returns the keys of the group.
async fn keyed(builder: Builder) -> (Emulator, [Vec<u8>; 2]) {
    let emulator = builder.registration_retry_after(Duration::ZERO).start().await.expect("a free loopback port");
    let body = json!({ "displayName": "Keys", "type": "iot", "attestation": { "type": "symmetricKey" } });
    let group = Caller::new(&emulator).api("PUT", "/enrollmentGroups/keys", Some(&body)).await.expect(200);
    let keys = ["primaryKey", "secondaryKey"].map(|name| {
        let key = group.text(&format!("/attestation/symmetricKey/{name}"));
        BASE64_STANDARD.decode(key).expect("base64")
    });
    (emulator, keys)
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn encoded(text: &str) -> String {
    text.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

/// Returns the `Authorization` header with a token for a resource.
fn sas(resource: &str, key: &[u8], expiry: i64) -> String {
    let resource = resource.replace('/', "%2f");
    let signature = encoded(&BASE64_STANDARD.encode(mac(key, &format!("{resource}\n{expiry}"))));
    format!("Authorization: SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn=registration\r\n")
}

fn in_an_hour() -> i64 {
    Timestamp::now().unix_seconds() + 3600
}

/// The device [`ID`] with a token that its key signs.
struct Keyed<'a> {
    caller: Caller<'a>,
    authorization: String,
}

impl<'a> Keyed<'a> {
    fn new(emulator: &'a Emulator, key: &[u8]) -> Self {
        let resource = format!("{}/registrations/{ID}", emulator.id_scope());
        Self::with(emulator, sas(&resource, key, in_an_hour()))
    }

    fn with(emulator: &'a Emulator, authorization: String) -> Self {
        Self { caller: Caller::new(emulator), authorization }
    }

    async fn register(&self) -> Answer {
        let (path, body) = (self.caller.path(ID, "/register"), json!({ "registrationId": ID }));
        self.caller.send("PUT", &path, &self.authorization, Some(&body)).await
    }

    async fn poll(&self, operation: &str) -> Answer {
        let path = self.caller.path(ID, &format!("/operations/{operation}"));
        self.caller.send("GET", &path, &self.authorization, None).await
    }

    async fn assigned(&self) -> Answer {
        let operation = self.register().await.expect(202).text("/operationId");
        self.poll(&operation).await.expect(202);
        self.poll(&operation).await.expect(200)
    }
}

#[tokio::test]
async fn keys_derived_from_a_group_admit_devices_with_and_without_tls() {
    for tls in [false, true] {
        let (emulator, keys) = keyed(Emulator::builder().tls(tls)).await;
        for key in keys {
            let done = Keyed::new(&emulator, &mac(&key, ID)).assigned().await;
            let state = &done.body["registrationState"];
            assert_eq!((&state["deviceId"], &state["status"]), (&json!(ID), &json!("assigned")));
            assert_eq!(state["symmetricKey"], json!({ "enrollmentGroupId": "keys" }));
            assert_eq!(state["x509"], Value::Null);
        }
        let device = Caller::new(&emulator).api("GET", &format!("/devices/{ID}"), None).await.expect(200);
        assert_eq!(device.body["provisioned"], true);
    }
}

#[tokio::test]
async fn a_key_is_derived_for_the_id_as_it_is_sent_or_in_lower_case() {
    let (emulator, [key, _]) = keyed(Emulator::builder()).await;
    let caller = Caller::new(&emulator);
    let body = json!({ "registrationId": "Sensor-1" });
    for (derived_for, status) in [("Sensor-1", 202), ("sensor-1", 202), ("SENSOR-1", 401)] {
        let resource = format!("{}/registrations/Sensor-1", emulator.id_scope());
        let token = sas(&resource, &mac(&key, derived_for), in_an_hour());
        caller.send("PUT", &caller.path("Sensor-1", "/register"), &token, Some(&body)).await.expect(status);
    }
}

#[tokio::test]
async fn an_individual_key_admits_its_device_and_no_other_key_does() {
    let (emulator, [group, _]) = keyed(Emulator::builder()).await;
    let own = |byte: u8| vec![byte; 32];
    let keys = json!({ "primaryKey": BASE64_STANDARD.encode(own(1)), "secondaryKey": BASE64_STANDARD.encode(own(2)) });
    let attestation = json!({ "type": "symmetricKey", "symmetricKey": keys });
    let caller = Caller::new(&emulator);
    caller.api("PUT", &format!("/devices/{ID}"), Some(&json!({}))).await.expect(200);
    caller.api("PUT", &format!("/devices/{ID}/attestation"), Some(&attestation)).await.expect(200);
    for key in [own(1), own(2)] {
        let done = Keyed::new(&emulator, &key).assigned().await;
        assert_eq!(done.body["registrationState"]["symmetricKey"], json!({}));
    }
    for key in [own(3), mac(&group, ID)] {
        Keyed::new(&emulator, &key).register().await.refused(401, 401_000, "Unauthorized");
    }
    let certificate = lab_certificate();
    let attestation = json!({ "type": "x509", "x509": { "clientCertificates": { "primary": certificate } } });
    caller.api("PUT", &format!("/devices/{ID}/attestation"), Some(&attestation)).await.expect(200);
    Keyed::new(&emulator, &own(1)).register().await.refused(401, 401_002, "Unauthorized");
}

fn lab_certificate() -> Value {
    let issued = CertificateAuthority::self_signed_device(&device_id(ID), &IssueOptions::default()).expect("one");
    json!({ "certificate": issued.certificate.to_base64_pem() })
}

#[tokio::test]
async fn the_credentials_shown_by_the_application_admit_a_device() {
    let (emulator, _) = keyed(Emulator::builder()).await;
    let caller = Caller::new(&emulator);
    caller.api("PUT", &format!("/devices/{ID}"), Some(&json!({}))).await.expect(200);
    let shown = caller.api("GET", &format!("/devices/{ID}/credentials"), None).await.expect(200);
    assert_eq!(shown.text("/idScope"), emulator.id_scope());
    for name in ["primaryKey", "secondaryKey"] {
        let key = BASE64_STANDARD.decode(shown.text(&format!("/symmetricKey/{name}"))).expect("base64");
        Keyed::new(&emulator, &key).assigned().await;
    }
}

#[tokio::test]
async fn a_token_with_any_wrong_part_is_refused() {
    let clock = Clock::frozen(Timestamp::now());
    let (emulator, [group, _]) = keyed(Emulator::builder().clock(clock.clone())).await;
    let key = mac(&group, ID);
    let scope = emulator.id_scope();
    let resource = format!("{scope}/registrations/{ID}");
    let good = sas(&resource, &key, in_an_hour());
    let refused = [
        sas(&resource, &group, in_an_hour()),
        sas(&resource, &mac(&group, "sensor-2"), in_an_hour()),
        sas(&resource, b"", in_an_hour()),
        sas(&resource, &key, Timestamp::now().unix_seconds() - 1),
        sas(&format!("{scope}/registrations/sensor-2"), &key, in_an_hour()),
        sas(&format!("0ne00000000/registrations/{ID}"), &key, in_an_hour()),
        sas(scope, &key, in_an_hour()),
        good.replace("skn=registration", "skn=owner"),
        good.replace("skn=registration", "skn="),
        good.replace("SharedAccessSignature ", "Bearer "),
        good.replace("&sig=", "&sig=AAAA"),
        good.replace("&se=", "&se=1"),
        good.replace("\r\n", "&skn=registration\r\n"),
        format!("Authorization: {}\r\n", emulator.token()),
        "Authorization: \r\n".to_owned(),
        "Authorization: SharedAccessSignature \r\n".to_owned(),
    ];
    for authorization in refused {
        let text = authorization.clone();
        let answer = Keyed::with(&emulator, authorization).register().await;
        assert_eq!(answer.status, 401, "{text}");
        answer.refused(401, 401_000, "Unauthorized");
    }
    // The Python SDK omits the policy.
    Keyed::with(&emulator, good.replace("&skn=registration", "")).register().await.expect(202);
    // The order of the parts is free, and the characters of base64 need no escaping.
    let turned = {
        let text = good.trim_end().strip_prefix("Authorization: SharedAccessSignature ").expect("a token");
        let parts: Vec<_> = text.split('&').rev().collect();
        let plain = parts.join("&").replace("%2B", "+").replace("%3D", "=");
        format!("Authorization: SharedAccessSignature {plain}\r\n")
    };
    let keyed = Keyed::with(&emulator, turned);
    let operation = keyed.register().await.expect(202).text("/operationId");
    clock.advance(HOUR + Duration::from_secs(1));
    keyed.poll(&operation).await.refused(401, 401_000, "Unauthorized");
}

#[tokio::test]
async fn a_disabled_symmetric_key_group_or_device_is_refused() {
    let (emulator, [group, _]) = keyed(Emulator::builder()).await;
    let body = |enabled| json!({ "displayName": "Keys", "type": "iot", "enabled": enabled, "attestation": { "type": "symmetricKey" } });
    let caller = Caller::new(&emulator);
    let keyed = Keyed::new(&emulator, &mac(&group, ID));
    caller.api("PUT", "/enrollmentGroups/keys", Some(&body(false))).await.expect(200);
    keyed.register().await.refused(401, 401_002, "Unauthorized");
    caller.api("PUT", "/enrollmentGroups/keys", Some(&body(true))).await.expect(200);
    keyed.assigned().await;
    emulator.add_devices([DeviceProperties::new(ID).enabled(false)]).expect("a device");
    keyed.register().await.refused(401, 401_002, "Unauthorized");
}

#[tokio::test]
async fn a_token_cannot_poll_the_operation_of_a_certificate() {
    let lab = Lab::start().await;
    let body = json!({ "displayName": "Keys", "type": "iot", "attestation": { "type": "symmetricKey" } });
    let group = lab.api("PUT", "/enrollmentGroups/keys", body).await.expect(200);
    let key = BASE64_STANDARD.decode(group.text("/attestation/symmetricKey/primaryKey")).expect("base64");
    let operation = lab.sensor().register(ID).await.expect(202).text("/operationId");
    Keyed::new(&lab.emulator, &mac(&key, ID)).poll(&operation).await.refused(401, 401_002, "Unauthorized");
}

// Certificates and TLS client of openssl

/// Runs openssl in a directory. It must succeed.
fn openssl(directory: &Path, arguments: &str) -> Option<()> {
    let output = crate::support::openssl(directory, &arguments.split(' ').collect::<Vec<_>>())?;
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// Sends a request with `openssl s_client` and returns the response.
fn s_client(directory: &Path, emulator: &Emulator, options: &str, request: &str) -> Answer {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let address = emulator.address().to_string();
    let mut child = Command::new("openssl")
        .current_dir(directory)
        .args(["s_client", "-quiet", "-connect", &address, "-CAfile", "ca.pem", "-verify_return_error"])
        .args(options.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    child.stdin.take().expect("a pipe").write_all(request.as_bytes()).expect("sent");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.starts_with("HTTP/1.1 "), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Answer::read(&text)
}

/// Issues a root, an intermediate and leaves with openssl. `None` without openssl.
fn created_by_openssl(directory: &Path) -> Option<()> {
    fs::write(directory.join("ca.ext"), "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n")
        .expect("written");
    fs::write(directory.join("leaf.ext"), "extendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\n").expect("written");
    let request = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(directory, &format!("req -x509 {request} -keyout root.key -out root.pem -days 2 -subj /CN=Root"))?;
    for (name, subject, issuer, extensions) in [
        ("intermediate", "/O=Lab/CN=Intermediate", "root", "-extfile ca.ext"),
        ("leaf", "/CN=sensor-1", "intermediate", "-extfile leaf.ext"),
        // Without extensions openssl issues a version 1 certificate, and many of those are in use.
        ("plain", "/CN=sensor-1", "intermediate", ""),
    ] {
        openssl(directory, &format!("req -new {request} -keyout {name}.key -out {name}.csr -subj {subject}"))?;
        let signing = format!("x509 -req -in {name}.csr -CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial");
        openssl(directory, format!("{signing} -days 1 -out {name}.pem {extensions}").trim_end())?;
    }
    Some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_certificates_and_client_are_admitted_under_an_uploaded_intermediate() {
    let lab = Lab::empty(Emulator::builder().assign_after(0)).await;
    let directory = crate::support::temporary_directory();
    let directory = directory.path();
    if created_by_openssl(directory).is_none() {
        return;
    }
    fs::write(directory.join("ca.pem"), lab.emulator.ca_pem().expect("PEM")).expect("written");
    let read = |name: &str| Certificate::read(&fs::read(directory.join(name)).expect("read")).expect("a certificate");
    let caller = Caller::new(&lab.emulator);
    let body = json!({ "registrationId": ID });
    let put = caller::request(&lab.emulator, "PUT", &caller.path(ID, "/register"), "", Some(&body));

    let whole = "-cert leaf.pem -key leaf.key -cert_chain intermediate.pem";
    let alone = "-cert leaf.pem -key leaf.key";
    let refused = s_client(directory, &lab.emulator, whole, &put).refused(401, 401_002, "CA certificate not found.");
    assert!(refused.header("x-ms-request-id").is_some());
    lab.enroll("g", "primary", &read("intermediate.pem"), true).await;
    for options in [whole, alone, "-tls1_2 -cert plain.pem -key plain.key", "-tls1_3 -cert plain.pem -key plain.key"] {
        let operation = s_client(directory, &lab.emulator, options, &put).expect(202).text("/operationId");
        let path = caller.path(ID, &format!("/operations/{operation}"));
        let get = caller::request(&lab.emulator, "GET", &path, "", None);
        let done = s_client(directory, &lab.emulator, options, &get).expect(200);
        assert_eq!(done.text("/registrationState/deviceId"), ID);
    }
    assert_eq!(lab.device(ID).await.expect(200).body["provisioned"], true);

    // If the root is enrolled instead, the client must send the intermediate.
    lab.enroll("g", "primary", &read("root.pem"), true).await;
    s_client(directory, &lab.emulator, alone, &put).refused(401, 401_002, "CA certificate not found.");
    s_client(directory, &lab.emulator, whole, &put).expect(202);
    s_client(directory, &lab.emulator, "-quiet", &put).refused(401, 401_002, "Unauthorized");
}
