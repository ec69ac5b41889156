//! Registration over MQTT and over WebSocket: what devices get, and what they are refused.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use iot_enroll::{
    certificate::{CertificateAuthority, IssueOptions, IssuedCertificate},
    emulator::{Builder, Emulator, EmulatorError, Fault, FaultKind},
};
use mqtt_proto::{
    QoS, QosPid, TopicFilter,
    v3::{
        ConnectReturnCode::{self, BadUserNameOrPassword, IdentifierRejected, NotAuthorized, ServerUnavailable},
        Packet,
        SubscribeReturnCode::{Failure, MaxLevel0, MaxLevel1},
        Unsubscribe,
    },
};
use serde_json::{Value, json};

use crate::support::{
    caller::{Caller, Identity},
    instance::{DpsLab, ca_references, new_root, sas, sas_until},
    mqtt::{Device, REGISTER, RESPONSES, connect, handshake, handshake_request, pid, user_name},
};

const ID: &str = "sensor-1";
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) fn builder() -> Builder {
    Emulator::builder().tls(true).mqtt(LOOPBACK).registration_retry_after(Duration::ZERO)
}

/// An emulator with MQTT, and an X.509 group `g` of the application.
pub(crate) struct Lab {
    pub(crate) emulator: Emulator,
    root: CertificateAuthority,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::with(builder()).await
    }

    pub(crate) async fn with(builder: Builder) -> Self {
        let lab = Self { emulator: builder.start().await.expect("free loopback ports"), root: new_root("Root") };
        let group = json!({ "displayName": "Devices", "type": "iot", "attestation": { "type": "x509" } });
        lab.api("PUT", "/enrollmentGroups/g", Some(&group)).await;
        let certificate = json!({ "certificate": lab.root.certificate().to_base64_pem(), "verified": true });
        lab.api("PUT", "/enrollmentGroups/g/certificates/primary", Some(&certificate)).await;
        lab
    }

    async fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        Caller::new(&self.emulator).api(method, path, body).await.expect(200).body
    }

    /// Creates a device and returns its symmetric key.
    async fn key(&self, id: &str) -> String {
        self.api("PUT", &format!("/devices/{id}"), Some(&json!({ "displayName": id }))).await;
        let credentials = self.api("GET", &format!("/devices/{id}/credentials"), None).await;
        credentials["symmetricKey"]["primaryKey"].as_str().expect("a key").to_owned()
    }

    /// Returns a token of the application's ID scope.
    fn token(&self, id: &str, key: &str) -> String {
        sas(&format!("{}%2Fregistrations%2F{id}", self.emulator.id_scope()), key, "registration")
    }

    /// Returns a client without a certificate.
    pub(crate) fn anonymous(&self) -> Caller<'_> {
        Caller::new(&self.emulator)
    }

    /// Returns a client with a certificate of the group for an ID.
    pub(crate) fn certified(&self, id: &str) -> Caller<'_> {
        Caller::presenting(&self.emulator, Identity::of(&issue(&self.root, id)))
    }

    /// Connects a device with a certificate of the group.
    pub(crate) async fn device(&self, id: &str) -> Device {
        Device::open(&self.certified(id)).await.log_in(self.emulator.id_scope(), id, None).await
    }
}

fn issue(authority: &CertificateAuthority, id: &str) -> IssuedCertificate {
    authority.issue_device(&id.parse().expect("an id"), &IssueOptions::default()).expect("a certificate")
}

// Registrations

#[tokio::test]
async fn a_device_registers_by_certificate_like_over_http() {
    let lab = Lab::start().await;
    let mut device = lab.device(ID).await;
    let begun = device.register(ID).await.expect(202, "$rid=r&retry-after=0");
    let operation_id = begun.text("/operationId");
    assert_eq!(begun.body, json!({ "operationId": operation_id, "status": "assigning" }));
    let going_on = device.poll(&operation_id).await.expect(202, "$rid=r&retry-after=0");
    assert_eq!(going_on.body, begun.body);
    let done = device.poll(&operation_id).await.expect(200, "$rid=r");
    assert_eq!(done.text("/status"), "assigned");

    // The same registration, over HTTP.
    let caller = lab.certified(ID);
    assert_eq!(device.poll(&operation_id).await.body, done.body);
    lab.api("GET", &format!("/devices/{ID}"), None).await;
    let path = format!("/{}/registrations/{ID}", lab.emulator.id_scope());
    let logged = lab.emulator.requests();
    let logged: Vec<_> = logged
        .iter()
        .filter(|request| request.path.starts_with(&path))
        .map(|request| (request.method.as_str(), &request.path[path.len()..], request.status))
        .collect();
    let poll = format!("/operations/{operation_id}");
    let expected = [
        ("CONNECT", "", Some(200)),
        ("PUT", "/register", Some(202)),
        ("GET", &*poll, Some(202)),
        ("GET", &*poll, Some(200)),
        ("GET", &*poll, Some(200)),
    ];
    assert_eq!(logged, expected);
    // Another certificate of the device may not see the operation, as it may not over HTTP.
    let mut other = Device::open(&caller).await.log_in(lab.emulator.id_scope(), ID, None).await;
    other.poll(&operation_id).await.refused(401, 401_002, "Unauthorized");
    let registration = lab.certified(ID).assigned(ID).await;
    assert_eq!(registration.text("/registrationState/assignedHub"), done.text("/registrationState/assignedHub"));
}

#[tokio::test]
async fn a_device_registers_by_symmetric_key_with_and_without_a_policy_name() {
    let lab = Lab::start().await;
    let key = lab.key(ID).await;
    let token = lab.token(ID, &key);
    for token in [token.clone(), token.replace("&skn=registration", "")] {
        let mut device = Device::open(&lab.anonymous()).await;
        device = device.log_in(lab.emulator.id_scope(), ID, Some(&token)).await;
        let assigned = device.assigned(ID).await;
        assert!(assigned.body["registrationState"]["symmetricKey"].is_object(), "{}", assigned.body);
    }
}

#[tokio::test]
async fn the_dps_instance_has_its_own_id_scope_over_mqtt_as_well() {
    let lab = DpsLab::with(builder()).await;
    let (root, scope) = (new_root("Root"), lab.emulator.dps_id_scope());
    let body = json!({ "properties": { "certificate": root.certificate().to_base64_pem(), "isVerified": true } });
    lab.arm("PUT", "/certificates/root", None, Some(&body)).await.expect(200);
    lab.group("eg", &ca_references("root", None)).await.expect(200);
    let caller = Caller::presenting(&lab.emulator, Identity::of(&issue(&root, ID)));
    for open in [Device::open(&caller).await, Device::open_websocket(&caller).await] {
        let mut device = open.log_in(scope, ID, None).await;
        let assigned = device.assigned(ID).await;
        assert_eq!(assigned.text("/registrationState/x509/enrollmentGroupId"), "eg");
        assert_eq!(assigned.text("/registrationState/assignedHub"), "emulated-hub.azure-devices.net");
    }
}

#[tokio::test]
async fn a_device_registers_over_websocket_by_the_certificate_of_that_connection_or_by_key() {
    let lab = Lab::start().await;
    let scope = lab.emulator.id_scope();
    let mut device = Device::open_websocket(&lab.certified(ID)).await.log_in(scope, ID, None).await;
    assert!(device.assigned(ID).await.body["registrationState"]["x509"].is_object());
    let key = lab.key("sensor-2").await;
    let token = lab.token("sensor-2", &key);
    let mut device = Device::open_websocket(&lab.anonymous()).await.log_in(scope, "sensor-2", Some(&token)).await;
    assert!(device.assigned("sensor-2").await.body["registrationState"]["symmetricKey"].is_object());
    // A second time on the same connection.
    device.assigned("sensor-2").await;
    assert!(device.is_alive().await);
}

#[tokio::test]
async fn packets_may_be_split_and_joined_in_any_way() {
    let lab = Lab::start().await;
    let connect = Packet::from(connect(ID, &user_name(lab.emulator.id_scope(), ID), None)).encode().expect("a packet");
    for open in [Device::open(&lab.certified(ID)).await, Device::open_websocket(&lab.certified(ID)).await] {
        let mut device = open;
        for byte in connect.as_ref() {
            device.send_bytes(&[*byte]).await;
        }
        assert!(matches!(device.receive().await, Some(Packet::Connack(connack)) if connack.code as u8 == 0));
        device.send_bytes(&[0xc0, 0, 0xc0, 0, 0xc0]).await;
        device.send_bytes(&[0]).await;
        for _ in 0..3 {
            assert_eq!(device.receive().await, Some(Packet::Pingresp));
        }
        // A length with more bytes than it needs, which MQTT 3.1.1 does not forbid.
        device.send_bytes(&[0xc0, 0x80, 0x80, 0x00]).await;
        assert_eq!(device.receive().await, Some(Packet::Pingresp));
    }
}

#[tokio::test]
async fn requests_are_listed_for_tests_without_the_tokens_of_the_devices() {
    let lab = Lab::start().await;
    let (scope, key) = (lab.emulator.id_scope().to_owned(), lab.key(ID).await);
    let token = lab.token(ID, &key);
    let caller = lab.anonymous();
    let mut device = Device::open(&caller).await.log_in(&scope, ID, Some(&token)).await;
    let operation_id = device.register(ID).await.expect(202, "$rid=r&retry-after=0").text("/operationId");
    device.poll(&operation_id).await;
    // Tokens and keys where none belong.
    let body = json!({ "registrationId": ID, "payload": { "note": token, "deviceKey": key } });
    device.request(REGISTER, &body.to_string()).await;
    device.poll(&format!("{operation_id}-{token}")).await;
    let mut misplaced = Device::open(&caller).await;
    misplaced.connect(connect(ID, &user_name(&scope, &token), Some(&token))).await;

    let authorization = format!("Authorization: {}\r\n", lab.emulator.token());
    let answer = caller.send("GET", "/__admin/requests?path=/registrations/", &authorization, None).await.expect(200);
    let signature = token.split("sig=").nth(1).and_then(|rest| rest.split('&').next()).expect("a signature");
    for secret in [&*token, signature, &key] {
        assert!(!answer.text.contains(secret), "{secret}: {}", answer.text);
    }
    let listed = answer.body["requests"].as_array().expect("requests");
    let path = format!("/{scope}/registrations/{ID}");
    let shown: Vec<_> = listed
        .iter()
        .map(|request| (&request["protocol"], &request["method"], &request["path"], &request["response"]["status"]))
        .take(3)
        .collect();
    assert_eq!(
        json!(shown),
        json!([
            ["mqtt", "CONNECT", path, 200],
            ["mqtt", "PUT", format!("{path}/register"), 202],
            ["mqtt", "GET", format!("{path}/operations/{operation_id}"), 202],
        ])
    );
    assert_eq!(listed[1]["body"], json!({ "registrationId": ID }));
    assert_eq!(listed[1]["response"]["body"]["operationId"], operation_id);
    assert_eq!(listed[3]["body"]["payload"], json!({ "note": "(redacted)", "deviceKey": "(redacted)" }));
}

// Refusals at CONNECT

#[tokio::test]
async fn connect_is_refused_with_the_return_code_that_clients_tell_apart() {
    let lab = Lab::start().await;
    let scope = lab.emulator.id_scope();
    let key = lab.key(ID).await;
    let good = lab.token(ID, &key);
    let resource = format!("{scope}%2Fregistrations%2F{ID}");
    let expired = sas_until(&resource, &key, "registration", 1_000);
    let name = user_name(scope, ID);
    let with = |id: &str, name: &str, password: Option<&str>| connect(id, name, password);
    let cases = [
        (IdentifierRejected, with("sensor-2", &name, Some(&good))),
        (IdentifierRejected, with("", &name, Some(&good))),
        (BadUserNameOrPassword, with(ID, "", Some(&good))),
        (BadUserNameOrPassword, with(ID, &format!("{scope}/registrations/{ID}"), Some(&good))),
        (BadUserNameOrPassword, with(ID, &format!("{scope}/devices/{ID}/api-version=2019-03-31"), Some(&good))),
        (BadUserNameOrPassword, with(ID, &format!("{scope}/registrations/{ID}/api-version=2016-01-01"), Some(&good))),
        (NotAuthorized, with(ID, &name, None)),
        (NotAuthorized, with(ID, &name, Some(""))),
        (NotAuthorized, with(ID, &name, Some("secret"))),
        (NotAuthorized, with(ID, &name, Some(&expired))),
        (NotAuthorized, with(ID, &name, Some(&lab.token("sensor-2", &key)))),
        (NotAuthorized, with(ID, &name, Some(&good.replace("skn=registration", "skn=device")))),
    ];
    for (code, connect) in cases {
        let shown = format!("{connect:?}");
        let mut device = Device::open(&lab.anonymous()).await;
        assert_eq!(device.connect(connect).await, code, "{shown}");
        assert_eq!(device.receive().await, None, "{shown}");
    }
    // A password decides, also beside a certificate.
    let mut device = Device::open(&lab.certified(ID)).await;
    assert_eq!(device.connect(connect(ID, &name, Some(&expired))).await, NotAuthorized);
    // Without regard to case, and with the slash that the C SDK does not encode.
    let name = format!("{}/registrations/{ID}/api-version=2021-06-01&ClientVersion=prov/1.0", scope.to_lowercase());
    let mut device = Device::open(&lab.certified(ID)).await;
    assert_eq!(device.connect(connect("SENSOR-1", &name, Some(""))).await, ConnectReturnCode::Accepted);
}

#[tokio::test]
async fn another_version_of_mqtt_is_refused_as_such() {
    let lab = Lab::start().await;
    let versions: [&[u8]; 3] = [
        b"\x10\x12\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x04dev1",
        b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x04dev1",
        b"\x10\x10\x00\x04MQTT\x06\x02\x00\x3c\x00\x04dev1",
    ];
    for connect in versions {
        let mut device = Device::open(&lab.anonymous()).await;
        device.send_bytes(connect).await;
        assert_eq!(device.rest().await, b"\x20\x02\x00\x01", "{connect:?}");
    }
}

// Refusals of a request

#[tokio::test]
async fn a_refused_registration_is_answered_on_its_topic() {
    let lab = Lab::start().await;
    let scope = lab.emulator.id_scope();
    let other = Identity::of(&issue(&new_root("Other"), ID));
    let mut device = Device::open(&Caller::presenting(&lab.emulator, other)).await.log_in(scope, ID, None).await;
    device.register(ID).await.refused(401, 401_002, "CA certificate not found.");
    // The connection stays, for another attempt.
    device.register(ID).await.refused(401, 401_002, "CA certificate not found.");

    let mut device = Device::open(&lab.certified(ID)).await.log_in(scope, "sensor-2", None).await;
    device.register("sensor-2").await.refused(401, 401_002, "Unauthorized");

    lab.key(ID).await;
    let wrong = lab.token(ID, "d3Jvbmc=");
    let mut device = Device::open(&lab.anonymous()).await.log_in(scope, ID, Some(&wrong)).await;
    device.register(ID).await.refused(401, 401_000, "Unauthorized");

    let mut device = Device::open(&lab.certified(ID)).await.log_in("0neFFFFFFFF", ID, None).await;
    device.register(ID).await.refused(404, 404_201, "Id scope not found.");
    device.poll("4.unknown").await.refused(404, 404_201, "Id scope not found.");

    let mut device = lab.device(ID).await;
    device.poll("4.unknown").await.refused(404, 404_202, "Operation not found.");
    let syntax = "the body is not JSON: syntax error at line 1, column 1";
    device.request(REGISTER, "{").await.refused(400, 400_004, syntax);
    device.request(REGISTER, "").await.refused(400, 400_004, "the body is not JSON: syntax error at line 1, column 0");
    device.request(REGISTER, "[]").await.refused(400, 400_004, "the body: expected an object, found an array");
    let found = device.register("sensor-2").await.expect(400, "$rid=r").text("/message");
    assert!(found.contains("the request is for \"sensor-1\""), "{found}");
}

#[tokio::test]
async fn a_disabled_group_refuses_its_devices_over_mqtt() {
    let lab = DpsLab::with(builder()).await;
    let (root, scope) = (new_root("Root"), lab.emulator.dps_id_scope());
    let body = json!({ "properties": { "certificate": root.certificate().to_base64_pem(), "isVerified": true } });
    lab.arm("PUT", "/certificates/root", None, Some(&body)).await.expect(200);
    lab.group("eg", &ca_references("root", None)).await.expect(200);
    let caller = Caller::presenting(&lab.emulator, Identity::of(&issue(&root, ID)));
    let mut device = Device::open(&caller).await.log_in(scope, ID, None).await;
    device.assigned(ID).await;
    lab.change("/enrollmentGroups/eg", "provisioningStatus", json!("disabled")).await.expect(200);
    device.register(ID).await.refused(401, 401_002, "Unauthorized");
}

// Subscriptions and topics

#[tokio::test]
async fn only_the_topic_of_responses_can_be_subscribed_to() {
    let lab = Lab::start().await;
    let mut device = Device::open(&lab.certified(ID)).await;
    device.connect(connect(ID, &user_name(lab.emulator.id_scope(), ID), None)).await;
    let register = json!({ "registrationId": ID }).to_string();
    device.publish(QosPid::Level1(pid(3)), REGISTER, &register).await;
    assert_eq!(device.receive().await, Some(Packet::Puback(pid(3))));
    assert!(device.is_alive().await, "without a subscription there is no response");

    let filters = [
        (RESPONSES, QoS::Level0),
        (RESPONSES, QoS::Level1),
        (RESPONSES, QoS::Level2),
        ("#", QoS::Level0),
        ("$dps/registrations/res/+", QoS::Level0),
        ("devices/+/messages/devicebound/#", QoS::Level1),
    ];
    let granted = device.subscribe(&filters).await;
    assert_eq!(granted, [MaxLevel0, MaxLevel1, MaxLevel1, Failure, Failure, Failure]);
    // It was executed: the operation goes on. A request with QoS 0 has no PUBACK.
    device.publish(QosPid::Level0, REGISTER, &register).await;
    let response = device.response().await.expect("a response");
    assert_eq!(response.expect(202, "$rid=r&retry-after=0").text("/status"), "assigning");

    let filters = ["other", RESPONSES].map(|filter| TopicFilter::try_from(filter).expect("a filter"));
    device.send(Unsubscribe::new(pid(9), filters.to_vec())).await;
    assert_eq!(device.receive().await, Some(Packet::Unsuback(pid(9))));
    device.publish(QosPid::Level1(pid(4)), REGISTER, &register).await;
    assert_eq!(device.receive().await, Some(Packet::Puback(pid(4))));
    assert!(device.is_alive().await);
}

#[tokio::test]
async fn a_response_has_the_request_id_as_it_was_sent() {
    let lab = Lab::start().await;
    let mut device = lab.device(ID).await;
    let body = json!({ "registrationId": ID }).to_string();
    for id in ["1", "a%20b%2Fc", "0d7a2c14-9a6b-4c3e-9d2e-5f1d6e1c8f00", "ü"] {
        let topic = format!("$dps/registrations/PUT/iotdps-register/?$rid={id}&other=1");
        device.request(&topic, &body).await.expect(202, &format!("$rid={id}&retry-after=0"));
    }
}

#[tokio::test]
async fn the_wait_between_polls_is_in_the_topic() {
    let lab = Lab::with(builder().registration_retry_after(Duration::from_millis(2500)).assign_after(0)).await;
    let mut device = lab.device(ID).await;
    let operation_id = device.register(ID).await.expect(202, "$rid=r&retry-after=3").text("/operationId");
    device.poll(&operation_id).await.expect(200, "$rid=r");
}

// The same client twice

#[tokio::test]
async fn a_client_that_connects_again_ends_its_older_connection_only() {
    let lab = Lab::start().await;
    let mut other_scope = Device::open(&lab.certified(ID)).await.log_in(lab.emulator.dps_id_scope(), ID, None).await;
    let mut other = lab.device("sensor-2").await;
    let mut older = lab.device(ID).await;
    let mut newer = Device::open_websocket(&lab.certified(ID)).await;
    let code = newer.connect(connect("SENSOR-1", &user_name(lab.emulator.id_scope(), "Sensor-1"), None)).await;
    assert_eq!(code, ConnectReturnCode::Accepted);
    assert_eq!(older.receive().await, None);
    for device in [&mut newer, &mut other, &mut other_scope] {
        assert!(device.is_alive().await);
    }
    // The end of the older one does not make the newer one forgotten.
    let _newest = lab.device(ID).await;
    assert_eq!(newer.receive().await, None);
}

#[tokio::test]
async fn a_refused_client_ends_no_connection() {
    let lab = Lab::start().await;
    let mut device = lab.device(ID).await;
    let mut refused = Device::open(&lab.anonymous()).await;
    let name = user_name(lab.emulator.id_scope(), ID);
    assert_eq!(refused.connect(connect(ID, &name, None)).await, NotAuthorized);
    assert!(device.is_alive().await);
}

// Faults

#[tokio::test]
async fn faults_affect_requests_by_their_method_and_path_over_http() {
    let lab = Lab::start().await;
    let inject = |fault: Fault| lab.emulator.inject(fault).expect("a fault");
    let status = |status| FaultKind::Status { status, retry_after: Some(Duration::from_millis(1500)) };
    inject(Fault::new(status(429)).method("PUT").path_contains("/register"));
    // Neither affects MQTT.
    inject(Fault::new(FaultKind::NotJson).path_contains("/register"));
    inject(Fault::new(FaultKind::Redirect("https://example.com".to_owned())).path_contains("/register"));
    let mut device = lab.device(ID).await;
    let refused = device.register(ID).await.expect(429, "$rid=r&retry-after=2");
    assert_eq!(
        (&refused.body["errorCode"], &refused.body["message"]),
        (&json!(429_001), &json!("a fault was injected"))
    );
    let operation_id = device.register(ID).await.expect(202, "$rid=r&retry-after=0").text("/operationId");
    let until = FaultKind::StatusUntil { status: 503, retry_after: Duration::from_secs(4) };
    inject(Fault::new(until).path_contains("/operations/"));
    device.poll(&operation_id).await.expect(503, "$rid=r&retry-after=4");
    inject(Fault::new(FaultKind::Delay(Duration::from_millis(1))));
    device.poll(&operation_id).await.expect(202, "$rid=r&retry-after=0");
    device.poll(&operation_id).await.expect(200, "$rid=r");
}

#[tokio::test]
async fn a_connection_can_break_before_and_after_a_request_and_within_its_response() {
    let lab = Lab::with(builder().assign_after(0)).await;
    let is_known = async || {
        let path = format!("/devices/{ID}");
        Caller::new(&lab.emulator).api("GET", &path, None).await.status == 200
    };
    let body = json!({ "registrationId": ID }).to_string();
    for (kind, is_executed) in [
        (FaultKind::CloseBeforeHandling, false),
        (FaultKind::TruncateBody, true),
        (FaultKind::CloseAfterHandling, true),
    ] {
        let mut device = lab.device(ID).await;
        lab.emulator.inject(Fault::new(kind.clone()).path_contains("/register")).expect("a fault");
        device.publish(QosPid::Level1(pid(7)), REGISTER, &body).await;
        let rest = device.rest().await;
        assert_eq!(!rest.is_empty(), kind == FaultKind::TruncateBody, "{rest:?}");
        assert!(!rest.ends_with(b"}"), "{rest:?}");
        assert_eq!(is_known().await, is_executed, "{kind:?}");
        if is_executed {
            let path = format!("/api/devices/{ID}?api-version=2022-07-31");
            let token = format!("Authorization: {}\r\n", lab.emulator.token());
            Caller::new(&lab.emulator).send("DELETE", &path, &token, None).await.expect(204);
        }
    }
}

#[tokio::test]
async fn a_fault_for_connect_refuses_the_connection() {
    let lab = Lab::start().await;
    // Other faults do not affect it, and are left for the requests.
    lab.emulator.inject(Fault::new(FaultKind::Status { status: 500, retry_after: None })).expect("a fault");
    let statuses = [(401, NotAuthorized), (403, NotAuthorized), (400, BadUserNameOrPassword), (503, ServerUnavailable)];
    for (status, code) in statuses {
        let kind = FaultKind::Status { status, retry_after: None };
        lab.emulator.inject(Fault::new(kind).method("CONNECT").path_contains(ID)).expect("a fault");
        let mut device = Device::open(&lab.certified(ID)).await;
        assert_eq!(device.connect(connect(ID, &user_name(lab.emulator.id_scope(), ID), None)).await, code);
        assert_eq!(device.receive().await, None);
    }
    lab.emulator.inject(Fault::new(FaultKind::CloseBeforeHandling).method("CONNECT")).expect("a fault");
    let mut device = Device::open(&lab.certified(ID)).await;
    device.send(connect(ID, &user_name(lab.emulator.id_scope(), ID), None)).await;
    assert_eq!(device.receive().await, None);
    lab.device(ID).await.register(ID).await.expect(500, "$rid=r");
    lab.emulator.inject(Fault::new(FaultKind::CloseOnConnect)).expect("a fault");
    let address = lab.emulator.mqtt_address().expect("MQTT");
    lab.anonymous().handshake_at(address, "localhost").await.expect_err("closed");
    lab.device(ID).await;
}

// WebSocket

#[tokio::test]
async fn a_websocket_needs_the_version_the_subprotocol_and_a_known_origin() {
    let lab = Lab::start().await;
    let good = handshake_request(&lab.emulator);
    let host = lab.emulator.address().to_string();
    let cases = [
        (101, good.clone()),
        (101, good.replace(&format!("Origin: https://{host}\r\n"), "")),
        (101, good.replace("Protocol: mqtt", "Protocol: other, mqtt").replace(": Upgrade", ": keep-alive, upgrade")),
        (101, good.replace("websocket HTTP", "websocket?iothub-no-client-cert=true HTTP")),
        (426, good.replace("Upgrade: websocket\r\n", "")),
        (426, good.replace("Connection: Upgrade\r\n", "")),
        (426, good.replace("Version: 13", "Version: 8")),
        (400, good.replace("Protocol: mqtt", "Protocol: mqttv5")),
        (400, good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "")),
        (403, good.replace(&format!("Origin: https://{host}"), "Origin: https://example.com")),
        (403, good.replace(&format!("Origin: https://{host}"), "Origin: null")),
        (421, good.replace(&format!("Host: {host}"), "Host: example.com")),
        (405, good.replace("GET ", "POST ")),
    ];
    for (status, request) in cases {
        let (_, head) = handshake(&lab.anonymous(), &request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}{head}");
    }
}

#[tokio::test]
async fn without_mqtt_there_is_no_websocket() {
    let emulator = Emulator::builder().tls(true).start().await.expect("a free loopback port");
    assert_eq!(emulator.mqtt_address(), None);
    let (_, head) = handshake(&Caller::new(&emulator), &handshake_request(&emulator)).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
}

// Start and stop

#[tokio::test]
async fn mqtt_needs_tls_and_a_free_loopback_address() {
    let without_tls = Emulator::builder().mqtt(LOOPBACK).start().await.expect_err("refused");
    assert!(matches!(without_tls, EmulatorError::MqttWithoutTls), "{without_tls}");
    let public = SocketAddr::from(([192, 0, 2, 1], 8883));
    let refused = Emulator::builder().tls(true).mqtt(public).start().await.expect_err("refused");
    assert!(matches!(refused, EmulatorError::NotLoopback(address) if address == public), "{refused}");
    let lab = Lab::start().await;
    let taken = lab.emulator.mqtt_address().expect("MQTT");
    let refused = Emulator::builder().tls(true).mqtt(taken).start().await.expect_err("refused");
    assert!(matches!(refused, EmulatorError::AddressInUse(address) if address == taken), "{refused}");
}

#[tokio::test]
async fn a_stop_ends_the_connections_after_a_request_in_progress() {
    let lab = Lab::start().await;
    let mut idle = lab.device("sensor-2").await;
    let mut websocket = Device::open_websocket(&lab.certified("sensor-3"))
        .await
        .log_in(lab.emulator.id_scope(), "sensor-3", None)
        .await;
    let mut silent = Device::open(&lab.anonymous()).await;
    let mut device = lab.device(ID).await;
    lab.emulator.inject(Fault::new(FaultKind::Delay(Duration::from_millis(300)))).expect("a fault");
    device.publish(QosPid::Level0, REGISTER, &json!({ "registrationId": ID }).to_string()).await;
    // Until the delay has begun, which removes the fault, so that this one is not the first.
    while lab.emulator.requests().iter().all(|request| request.method != "CONNECT" || !request.path.ends_with(ID)) {
        tokio::task::yield_now().await;
    }
    assert!(idle.is_alive().await);
    let stopped = tokio::time::timeout(Duration::from_secs(10), lab.emulator.stop());
    let (stopped, response) = tokio::join!(stopped, device.response());
    stopped.expect("stopped in time");
    response.expect("a response").expect(202, "$rid=r&retry-after=0");
    for device in [&mut idle, &mut websocket, &mut silent, &mut device] {
        assert_eq!(device.receive().await, None);
    }
}
