//! Operational certificates: which requests the emulator signs, and where it answers the chain.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::{
    certificate::{
        Certificate, CertificateRequest, IssueOptions, KeyAlgorithm, PrivateKey, PublicKeyAlgorithm, Timestamp, chain,
    },
    emulator::{Clock, Emulator},
};
use mqtt_proto::{QoS, v3::ConnectReturnCode};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P384_SHA384};
use serde_json::{Value, json};

use crate::mqtt::builder as mqtt_builder;
use crate::support::{
    DAY,
    caller::{Answer, Caller, Identity},
    instance::{DpsLab, ca_references, new_root},
    mqtt,
    openapi::OpenApi,
};

const ID: &str = "sensor-1";
const VERSION: &str = "2026-11-01";

/// An emulator whose instance admits a device by its certificate.
struct Lab {
    dps: DpsLab,
    identity: iot_enroll::certificate::IssuedCertificate,
}

impl Lab {
    async fn start() -> Self {
        Self::with(Emulator::builder()).await
    }

    async fn with(builder: iot_enroll::emulator::Builder) -> Self {
        let dps = DpsLab::with(builder.tls(true).registration_retry_after(Duration::ZERO)).await;
        let root = new_root("Root");
        dps.upload_verified("root", root.certificate()).await;
        dps.group("eg", &ca_references("root", None)).await.expect(200);
        let identity = root.issue_device(&ID.parse().expect("an id"), &IssueOptions::default()).expect("a certificate");
        Self { dps, identity }
    }

    fn device(&self) -> Device<'_> {
        Device {
            caller: Caller::presenting(&self.dps.emulator, Identity::of(&self.identity)).at_instance(),
            scope: self.dps.emulator.dps_id_scope(),
        }
    }
}

struct Device<'a> {
    caller: Caller<'a>,
    scope: &'a str,
}

impl Device<'_> {
    async fn send(&self, version: &str, method: &str, rest: &str, body: Option<&Value>) -> Answer {
        let path = format!("/{}/registrations/{ID}{rest}?api-version={version}", self.scope);
        let answer = self.caller.send(method, &path, "", body).await;
        if version == VERSION {
            let api = OpenApi::dps_device_issuing();
            // Null for an absent member is accepted, and not described.
            if answer.status < 300 && body.is_none_or(|body| body.get("csr") != Some(&Value::Null)) {
                let sent = body.map(ToString::to_string).unwrap_or_default();
                assert_eq!(api.check_request(method, &path, Some("application/json"), sent.as_bytes()), Ok(()));
            }
            let json = [("content-type", "application/json")];
            assert_eq!(api.check_response(method, &path, answer.status, &json, answer.text.as_bytes()), Ok(()));
        }
        answer
    }

    async fn register(&self, version: &str, csr: &Value) -> Answer {
        self.send(version, "PUT", "/register", Some(&json!({ "registrationId": ID, "csr": csr }))).await
    }

    async fn poll(&self, version: &str, registered: &Answer) -> Answer {
        self.send(version, "GET", &format!("/operations/{}", registered.text("/operationId")), None).await
    }

    /// Polls until the device is assigned.
    async fn assigned(&self, version: &str, registered: &Answer) -> Answer {
        loop {
            let answer = self.poll(version, registered).await;
            if answer.status != 202 {
                return answer.expect(200);
            }
        }
    }
}

/// A request of another library for these names, in DER.
fn request(names: &[(DnType, &str)], key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, name) in names {
        params.distinguished_name.push(kind.clone(), *name);
    }
    params.serialize_request(key).expect("a request").der().to_vec()
}

fn p384() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key")
}

fn encoded(der: &[u8]) -> Value {
    BASE64_STANDARD.encode(der).into()
}

/// The chain of an answer.
fn chain_of(answer: &Answer) -> Vec<Certificate> {
    chain_in(&answer.body["registrationState"])
}

fn chain_in(state: &Value) -> Vec<Certificate> {
    let chain = state["issuedCertificateChain"].as_array().expect("a chain");
    let read = |der: &Value| {
        let der = BASE64_STANDARD.decode(der.as_str().expect("text")).expect("base64");
        Certificate::from_der(&der).expect("a certificate")
    };
    chain.iter().map(read).collect()
}

#[tokio::test]
async fn a_request_is_signed_by_a_p384_ca_and_the_chain_is_answered_once() {
    let lab = Lab::start().await;
    let device = lab.device();
    let mut roots = Vec::new();
    for version in ["2025-07-01-preview", VERSION] {
        let key = p384();
        let der = request(&[(DnType::CommonName, ID)], &key);
        let registered = device.register(version, &encoded(&der)).await.expect(202);
        let first = device.assigned(version, &registered).await;
        let issued = chain_of(&first);
        let [leaf, issuing, root] = issued.as_slice() else { panic!("{issued:?}") };

        assert_eq!(leaf.subject().common_name(), Some(ID));
        assert_eq!(leaf.public_key(), CertificateRequest::from_der(&der).expect("a request").public_key());
        assert!(issued.iter().all(|it| *it.public_key_algorithm() == PublicKeyAlgorithm::EcP384));
        assert!(issued.iter().all(|it| it.signature_algorithm().to_string().contains("SHA384")), "{issued:?}");
        let path = chain::verify(&issued, root, Timestamp::now()).expect("a chain");
        assert_eq!(path, [leaf, issuing, root]);
        assert!(leaf.allows_client_authentication() && leaf.extended_key_usage().is_some());
        let days = leaf.not_after().duration_since(Timestamp::now()).as_secs().div_ceil(DAY.as_secs());
        assert_eq!(days, 30);
        roots.push(root.clone());

        // Neither the next poll nor a look-up has it.
        let again = device.poll(version, &registered).await.expect(200);
        assert_eq!(again.body["registrationState"]["issuedCertificateChain"], Value::Null);
        let state = device.send(version, "POST", "", Some(&json!({ "registrationId": ID }))).await.expect(200);
        assert_eq!(state.body["issuedCertificateChain"], Value::Null);
    }
    assert_eq!(roots[0], roots[1], "one CA issues all certificates");
}

#[tokio::test]
async fn a_request_that_the_service_would_refuse_is_400() {
    let lab = Lab::start().await;
    let device = lab.device();
    let good = request(&[(DnType::CommonName, ID)], &p384());
    let of = |algorithm| {
        let key = PrivateKey::generate(algorithm).expect("a key");
        let request = CertificateRequest::new(&ID.parse().expect("a name"), &key).expect("a request");
        encoded(request.der())
    };
    let mut forged = good.clone();
    *forged.last_mut().expect("bytes") ^= 1;
    let pem = CertificateRequest::from_der(&good).expect("a request").to_pem();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect::<Vec<_>>().join("\n");
    for (csr, message) in [
        (of(KeyAlgorithm::Rsa2048), "must be EC P-384, found RSA 2048"),
        (of(KeyAlgorithm::EcP256), "must be EC P-384, found EC P-256"),
        (encoded(&request(&[(DnType::CommonName, "other")], &p384())), "found \"other\""),
        (encoded(&request(&[(DnType::OrganizationName, ID)], &p384())), "has no common name"),
        (encoded(&forged), "not signed by the key in it"),
        (encoded(&good[..good.len() - 1]), "does not decode"),
        (encoded(&[&good[..], b"\0"].concat()), "does not decode"),
        (encoded(lab.identity.certificate.der()), "csr: "),
        (encoded(pem.as_bytes()), "does not decode"),
        (json!(pem), "it is PEM"),
        (json!(body), "not base64"),
        (json!("%%%"), "not base64"),
        (json!(""), "does not decode"),
        (json!(7), "expected a string"),
        (json!([]), "expected a string"),
    ] {
        device.register(VERSION, &csr).await.refused(400, 400_004, message);
    }
    // Nothing was registered by them.
    device.send(VERSION, "POST", "", Some(&json!({ "registrationId": ID }))).await.refused(404, 404_202, "");
    // Null is an absent member.
    device.register(VERSION, &Value::Null).await.expect(202);
}

#[tokio::test]
async fn versions_without_requests_and_look_ups_refuse_one() {
    let lab = Lab::start().await;
    let device = lab.device();
    let csr = encoded(&request(&[(DnType::CommonName, ID)], &p384()));
    for version in ["2019-03-31", "2021-06-01", "2021-10-01"] {
        device.register(version, &csr).await.refused(400, 400_004, "use 2025-07-01-preview or 2026-11-01");
    }
    let registered = device.register(VERSION, &csr).await.expect(202);
    device.assigned(VERSION, &registered).await;
    let body = json!({ "registrationId": ID, "csr": csr });
    for version in ["2021-06-01", VERSION] {
        device.send(version, "POST", "", Some(&body)).await.refused(400, 400_004, "register again");
    }
    // The body of a look-up may be absent, as before.
    device.send("2021-06-01", "POST", "", None).await.expect(200);
}

#[tokio::test]
async fn the_id_scope_of_the_application_issues_no_certificate() {
    let lab = Lab::start().await;
    let caller = Caller::new(&lab.dps.emulator);
    let body = json!({ "displayName": "Devices", "type": "iot", "attestation": { "type": "x509" } });
    caller.api("PUT", "/enrollmentGroups/g", Some(&body)).await.expect(200);
    let root = &lab.identity.issuers[0];
    let body = json!({ "certificate": root.to_base64_pem(), "verified": true });
    caller.api("PUT", "/enrollmentGroups/g/certificates/primary", Some(&body)).await.expect(200);

    let caller = Caller::presenting(&lab.dps.emulator, Identity::of(&lab.identity));
    let device = Device { caller, scope: lab.dps.emulator.id_scope() };
    let csr = encoded(&request(&[(DnType::CommonName, ID)], &p384()));
    let registered = device.register(VERSION, &csr).await.expect(202);
    let state = &device.assigned(VERSION, &registered).await.body["registrationState"];
    assert_eq!((&state["status"], &state["issuedCertificateChain"]), (&json!("assigned"), &Value::Null));
}

#[tokio::test]
async fn a_request_over_mqtt_and_websocket_is_signed_as_over_http() {
    let lab = Lab::with(mqtt_builder()).await;
    let key = p384();
    let csr = encoded(&request(&[(DnType::CommonName, ID)], &key));
    let scope = lab.dps.emulator.dps_id_scope();
    let body = json!({ "registrationId": ID, "csr": csr }).to_string();
    let caller = || Caller::presenting(&lab.dps.emulator, Identity::of(&lab.identity)).at_instance();
    for is_websocket in [false, true] {
        let open = |caller| async move {
            if is_websocket { mqtt::Device::open_websocket(&caller).await } else { mqtt::Device::open(&caller).await }
        };
        let mut device = open(caller()).await;
        let name = mqtt::user_name(scope, ID).replace("2019-03-31", VERSION);
        assert_eq!(device.connect(mqtt::connect(ID, &name, None)).await, ConnectReturnCode::Accepted);
        device.subscribe(&[(mqtt::RESPONSES, QoS::Level1)]).await;
        let operation = device.request(mqtt::REGISTER, &body).await.text("/operationId");
        // A poll takes no request.
        let topic = format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r&operationId={operation}");
        let refused = device.request(&topic, &body).await.expect(400, "$rid=r");
        assert!(refused.text("/message").contains("register again"), "{}", refused.body);
        let state = loop {
            let response = device.poll(&operation).await;
            if response.body["status"] == "assigned" {
                break response.body["registrationState"].clone();
            }
        };
        let issued = chain_in(&state);
        let expected = CertificateRequest::read(csr.as_str().expect("text").as_bytes()).expect("a request");
        assert_eq!((issued.len(), issued[0].public_key()), (3, expected.public_key()));
        let again = device.poll(&operation).await.body;
        assert_eq!(again["registrationState"]["issuedCertificateChain"], Value::Null);

        // An older version has no requests.
        let mut device = open(caller()).await.log_in(scope, ID, None).await;
        let refused = device.request(mqtt::REGISTER, &body).await.expect(400, "$rid=r");
        assert!(refused.text("/message").contains("api-version 2019-03-31"), "{}", refused.body);
    }
}

#[tokio::test]
async fn a_repeated_request_continues_its_registration_and_another_one_replaces_it() {
    let lab = Lab::start().await;
    let device = lab.device();
    let keys = [p384(), p384()];
    let requests = keys.each_ref().map(|key| request(&[(DnType::CommonName, ID)], key));
    let first = device.register(VERSION, &encoded(&requests[0])).await.expect(202);
    let again = device.register(VERSION, &encoded(&requests[0])).await.expect(202);
    assert_eq!(first.text("/operationId"), again.text("/operationId"));
    let second = device.register(VERSION, &encoded(&requests[1])).await.expect(202);
    assert_ne!(first.text("/operationId"), second.text("/operationId"));
    device.poll(VERSION, &first).await.refused(404, 404_202, "not found");
    let leaf = chain_of(&device.assigned(VERSION, &second).await).swap_remove(0);
    assert_eq!(leaf.public_key(), CertificateRequest::from_der(&requests[1]).expect("a request").public_key());
}

#[tokio::test]
async fn certificates_are_valid_by_the_emulator_s_clock_also_when_the_ca_has_expired() {
    let clock = Clock::system();
    let mut lab = Lab::with(Emulator::builder().clock(clock.clone())).await;
    let root = lab.identity.issuers[0].clone();
    let csr = encoded(&request(&[(DnType::CommonName, ID)], &p384()));
    let registered = lab.device().register(VERSION, &csr).await.expect(202);
    let before = chain_of(&lab.device().assigned(VERSION, &registered).await);

    clock.advance(6 * 365 * DAY);
    let now: Timestamp = clock.now().into();
    assert!(before[1].is_expired_at(now));
    let later = new_root("Later Root");
    lab.dps.upload_verified("later", later.certificate()).await;
    lab.dps.group("later", &ca_references("later", None)).await.expect(200);
    let options = IssueOptions::default().at(now);
    lab.identity = later.issue_device(&ID.parse().expect("an id"), &options).expect("a certificate");
    assert_ne!(lab.identity.issuers[0], root);
    let registered = lab.device().register(VERSION, &csr).await.expect(202);
    let after = chain_of(&lab.device().assigned(VERSION, &registered).await);
    chain::verify(&after, &after[2], now).expect("a chain that is valid then");
}
