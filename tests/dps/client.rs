//! The client of the Device Provisioning Service, against a scripted one on TLS.

use std::{
    io::{Read, Write},
    time::Duration,
};

use crate::support::{
    clock::ManualClock,
    devices::{DEVICE, credential, id, intermediate, issue, issue_at, of_kind, root, sending, whole},
    dps::{Asks, Dps, HUB, SCOPE, assigned, assigning, ended, error, unauthorized},
    server::{Reply, Server},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::{
    central::{Clock, NetworkFailure, RetryPolicy},
    certificate::{CertificateAuthority, IssueOptions, KeyAlgorithm, PrivateKey, pfx},
    dps::device::{
        Assignment, CredentialError, DeviceCertificate, IdScope, ProvisioningEndpoint, RegistrationClient,
        RegistrationError, RegistrationErrorKind as Kind, SymmetricKey, derive_device_key,
    },
};
use serde_json::json;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Registers the device under a fresh root.
async fn register(client: &RegistrationClient) -> Result<Assignment, RegistrationError> {
    client.register(&id(DEVICE), &credential(&issue(DEVICE, &root("Root"))), None).await
}

async fn fails(dps: &Dps) -> RegistrationError {
    register(&dps.client()).await.expect_err("a failure")
}

#[tokio::test]
async fn a_device_is_registered_with_its_chain_and_the_operation_is_followed_until_it_is_assigned() {
    let dps = Dps::script(vec![assigning(Some("0")), assigning(Some("0")), assigned(DEVICE)]);
    let device = issue(DEVICE, &intermediate("Intermediate", &root("Root")));
    let payload = json!({ "modelId": "dtmi:contoso:Thermostat;1" });
    let assignment =
        dps.client().register(&id(DEVICE), &credential(&device), Some(&payload)).await.expect("an assignment");

    assert_eq!((assignment.assigned_hub.as_str(), assignment.device_id.as_str()), (HUB, DEVICE));
    assert_eq!(assignment.substatus.as_deref(), Some("initialAssignment"));
    assert_eq!(assignment.created_at.expect("a time").to_string()[..4], *"2026");
    let path = format!("/{SCOPE}/registrations/{DEVICE}");
    let register = format!("PUT {path}/register?api-version=2021-06-01");
    let poll = format!("GET {path}/operations/5.op?api-version=2021-06-01");
    assert_eq!(dps.lines(), [register, poll.clone(), poll]);
    let requests = dps.requests();
    let body: serde_json::Value = serde_json::from_str(&requests[0].body).expect("JSON");
    assert_eq!(body, json!({ "registrationId": DEVICE, "payload": payload }));
    for request in &requests {
        assert_eq!(request.presented, whole(&device), "every connection presents the chain, the device's first");
        assert_eq!(request.header("authorization"), None);
    }
}

#[tokio::test]
async fn a_service_that_assigns_at_once_is_asked_once() {
    let dps = Dps::script(vec![assigned(DEVICE)]);
    assert_eq!(register(&dps.client()).await.expect("an assignment").registration_id, DEVICE);
    assert_eq!(dps.requests().len(), 1);
}

#[tokio::test]
async fn retry_after_is_waited_for_and_two_seconds_without_one() {
    let clock = ManualClock::new();
    let dps = Dps::script(vec![assigning(Some("7")), assigning(None), assigned(DEVICE)]);
    register(&dps.builder(&clock).build().expect("a client")).await.expect("an assignment");
    assert_eq!(clock.sleeps(), [7, 2].map(Duration::from_secs));
}

#[tokio::test]
async fn a_service_that_asks_for_no_wait_is_polled_ever_more_slowly() {
    let past = "Thu, 01 Jan 1970 00:00:00 GMT";
    for asked in ["0", past] {
        let clock = ManualClock::new();
        let dps = Dps::start(move |_| assigning(Some(asked)));
        let error = register(&dps.builder(&clock).build().expect("a client")).await.expect_err("never");
        assert!(matches!(error.kind, Kind::TimedOut { .. }), "{error}");
        let first: Vec<_> = clock.sleeps().iter().take(6).map(Duration::as_millis).collect();
        assert_eq!(first, [200, 400, 800, 1600, 2000, 2000]);
        assert!((60..70).contains(&dps.requests().len()), "{} in 120 s", dps.requests().len());
    }
}

#[tokio::test]
async fn a_second_that_is_asked_for_stays_one() {
    let clock = ManualClock::new();
    let dps = Dps::start(|_| assigning(Some("1")));
    register(&dps.builder(&clock).build().expect("a client")).await.expect_err("never");
    assert_eq!(clock.sleeps(), vec![Duration::from_secs(1); 120]);
}

#[tokio::test]
async fn the_default_is_sixteen_registrations_a_second() {
    let clock = ManualClock::new();
    let dps = Dps::script((0..33).map(|_| assigned(DEVICE)).collect());
    let client = dps.builder(&clock).build().expect("a client");
    for _ in 0..33 {
        register(&client).await.expect("an assignment");
    }
    assert_eq!(Clock::elapsed(&*clock), Duration::from_secs(2), "32 intervals of 1/16 s");
}

#[tokio::test]
async fn polls_keep_to_a_rate_too() {
    let clock = ManualClock::new();
    // Four a second for one registration: three polls, the first at once, take half a second.
    let dps = Dps::script(vec![assigning(Some("0")), assigning(Some("0")), assigning(Some("0")), assigned(DEVICE)]);
    let client = dps.builder(&clock).rate(std::num::NonZeroU32::MIN).build().expect("a client");
    register(&client).await.expect("an assignment");
    assert_eq!(Clock::elapsed(&*clock), Duration::from_millis(250 + 250));
}

#[tokio::test]
async fn an_answer_about_another_device_or_without_a_hub_s_name_is_no_assignment() {
    let told = |part: &'static str, value: &str| {
        let mut state = json!({ "registrationId": DEVICE, "deviceId": DEVICE, "assignedHub": HUB });
        state[part] = json!(value);
        (ended("assigned", &state), part)
    };
    for ((reply, part), words) in [
        (told("registrationId", "evil"), "about another device: \"evil\""),
        (told("deviceId", ""), "not a device ID"),
        (told("deviceId", "evil\u{1b}[31m"), "not a device ID"),
        (told("assignedHub", ""), "not a host name"),
        (told("assignedHub", "hub\u{1b}[31m\r\n,=cmd"), "not a host name"),
    ] {
        let error = fails(&Dps::script(vec![reply])).await;
        assert!(matches!(&error.kind, Kind::Answer { .. }), "{part}: {error}");
        assert!(error.to_string().contains(words) && !error.to_string().contains('\u{1b}'), "{error}");
    }
    let (reply, _) = told("registrationId", &DEVICE.to_uppercase());
    register(&Dps::script(vec![reply]).client()).await.expect("case does not count");
}

#[tokio::test]
async fn the_device_id_may_differ_from_the_registration_id() {
    let state = json!({ "registrationId": DEVICE, "deviceId": "hubdev-9", "assignedHub": HUB });
    let assignment = register(&Dps::script(vec![ended("assigned", &state)]).client()).await.expect("an assignment");
    assert_eq!((assignment.registration_id.as_str(), assignment.device_id.as_str()), (DEVICE, "hubdev-9"));
}

#[tokio::test]
async fn a_wait_past_the_budget_is_not_begun() {
    let clock = ManualClock::new();
    let dps = Dps::script(vec![assigning(Some("60")), assigning(Some("61"))]);
    let error = register(&dps.builder(&clock).build().expect("a client")).await.expect_err("too long");
    let Kind::TimedOut { budget, asked } = error.kind else { panic!("{error}") };
    assert_eq!((budget.as_secs(), asked.as_secs()), (120, 61));
    assert_eq!(clock.sleeps(), [Duration::from_secs(60)]);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_the_refusals_wait_is_honoured() {
    let clock = ManualClock::new();
    let dps = Dps::script(vec![
        Reply::throttled("9"),
        error(503, 503_001, "busy"),
        Reply::lost(),
        assigning(Some("0")),
        error(500, 500_001, "oh"),
        assigned(DEVICE),
    ]);
    register(&dps.builder(&clock).build().expect("a client")).await.expect("an assignment");
    let methods: Vec<_> = dps.requests().iter().map(|request| request.method.clone()).collect();
    assert_eq!(methods, ["PUT", "PUT", "PUT", "PUT", "GET", "GET"]);
    assert!(clock.sleeps()[0] >= Duration::from_secs(9), "{:?}", clock.sleeps());
}

#[tokio::test]
async fn attempts_are_bounded() {
    let clock = ManualClock::new();
    let dps = Dps::start(|_| error(500, 500_001, "oh"));
    let policy = RetryPolicy::new().retries(2);
    let error = register(&dps.builder(&clock).retry(policy).build().expect("a client")).await.expect_err("no");
    assert_eq!((dps.requests().len(), error.status()), (3, Some(500)));
    assert!(error.to_string().contains("after 3 attempts"), "{error}");
}

#[tokio::test]
async fn a_refusal_is_not_tried_again_and_carries_code_tracking_id_and_words() {
    let dps = Dps::start(|_| error(401, 401_002, "CA certificate not found."));
    let error = fails(&dps).await;
    let Kind::Refused(refusal) = &error.kind else { panic!("{error}") };
    assert_eq!((refusal.status, refusal.error_code, refusal.attempts), (401, Some(401_002), 1));
    assert_eq!(refusal.tracking_id.as_deref(), Some("track-1"));
    assert_eq!((error.error_code(), dps.requests().len()), (Some(401_002), 1));
    for part in [DEVICE, "401002", "CA certificate not found", "track-1"] {
        assert!(error.to_string().contains(part), "{part} is not in {error}");
    }
}

#[tokio::test]
async fn a_registration_that_ends_badly_is_told_as_the_service_ended_it() {
    let state = json!({ "status": "failed", "errorCode": 400_207, "errorMessage": "Custom allocation failed" });
    let dps = Dps::script(vec![assigning(Some("0")), ended("failed", &state)]);
    let error = fails(&dps).await;
    let Kind::Ended { status, error_code, message } = &error.kind else { panic!("{error}") };
    assert_eq!((status.as_str(), *error_code, message.as_str()), ("failed", Some(400_207), "Custom allocation failed"));
}

#[tokio::test]
async fn a_device_whose_operation_expired_registers_again_a_bounded_number_of_times() {
    let gone = || error(404, 404_202, "Operation not found.");
    let dps = Dps::script(vec![assigning(Some("0")), gone(), assigning(Some("0")), assigned(DEVICE)]);
    register(&dps.client()).await.expect("an assignment");
    let methods = |dps: &Dps| dps.requests().into_iter().map(|request| request.method).collect::<Vec<_>>();
    assert_eq!(methods(&dps), ["PUT", "GET", "PUT", "GET"]);

    let dps = Dps::start(move |request| if request.method == "PUT" { assigning(Some("0")) } else { gone() });
    let error = fails(&dps).await;
    assert_eq!((error.error_code(), methods(&dps).len()), (Some(404_202), 6));
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_named_with_what_to_do() {
    for (asked, words) in [("300", "300 s"), ("99999999999999999999999", "more than a day")] {
        let error = fails(&Dps::start(move |_| Reply::throttled(asked))).await.to_string();
        assert!(error.contains(&format!("Register again after {words}")), "{error}");
        let error = fails(&Dps::start(move |_| assigning(Some(asked)))).await.to_string();
        assert!(error.contains(&format!("asked to wait {words}")), "{error}");
    }
}

#[tokio::test]
async fn messages_speak_of_what_happened_and_not_of_how_this_program_is_made() {
    let array = fails(&Dps::start(|_| Reply::with(200, &[], "[]"))).await.to_string();
    assert!(array.contains("the state of an operation") && !array.contains("Wire"), "{array}");
    let lost = fails(&Dps::start(|_| Reply::lost())).await.to_string();
    assert!(lost.contains("closed the connection") && !lost.contains("docs.rs"), "{lost}");
}

#[tokio::test]
async fn a_server_of_plain_http_is_told_as_such() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            drop(stream.read(&mut [0; 4096]));
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let client = RegistrationClient::builder(SCOPE.parse().expect("a scope"))
        .endpoint(format!("https://{address}").parse().expect("an endpoint"))
        .add_root_certificate(root("Root").certificate().der())
        .expect("a root")
        .clock(ManualClock::new())
        .build()
        .expect("a client");
    let error = register(&client).await.expect_err("no TLS").to_string();
    assert!(error.contains("may be plain HTTP: check the address") && !error.contains("Invalid"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Dps::start(|_| assigned(DEVICE));
    let location = format!("{}/elsewhere", other.url());
    let dps = Dps::start(move |_| Reply::with(307, &[("Location", &location)], ""));
    let error = fails(&dps).await;
    assert!(matches!(&error.kind, Kind::Redirect { status: 307, .. }), "{error}");
    assert_eq!((dps.requests().len(), other.connections()), (1, 0));
}

#[tokio::test]
async fn an_answer_that_is_no_answer_of_the_service_is_told_as_such() {
    let dps = Dps::start(|_| Reply::with(200, &[], "<html>Please log in</html>"));
    let error = fails(&dps).await;
    assert!(matches!(&error.kind, Kind::Answer { status: 200, .. }), "{error}");
    assert!(error.to_string().contains("Please log in"), "{error}");
    let dps = Dps::start(|_| ended("assigned", &json!({ "deviceId": DEVICE })));
    assert!(fails(&dps).await.to_string().contains("assignedHub"));
}

#[tokio::test]
async fn an_operation_id_cannot_lead_out_of_the_registration() {
    let dps = Dps::script(vec![
        Reply::with(202, &[("retry-after", "0")], r#"{"operationId": "../../../x?y=z", "status": "assigning"}"#),
        assigned(DEVICE),
    ]);
    register(&dps.client()).await.expect("an assignment");
    let line = dps.lines().pop().expect("a request");
    assert!(line.contains(&format!("/{SCOPE}/registrations/{DEVICE}/operations/..%2F")), "{line}");
}

#[tokio::test]
async fn every_kind_of_key_that_the_service_takes_shakes_hands() {
    for algorithm in [KeyAlgorithm::EcP256, KeyAlgorithm::EcP384, KeyAlgorithm::Rsa2048] {
        let dps = Dps::script(vec![assigned(DEVICE)]);
        let device = issue_at(DEVICE, &root("Root"), &of_kind(algorithm));
        dps.client().register(&id(DEVICE), &credential(&device), None).await.expect("an assignment");
        assert_eq!(dps.requests()[0].presented[0], device.certificate, "{algorithm}");
    }
}

#[tokio::test]
async fn the_chain_is_sent_in_order_whatever_the_order_of_the_file() {
    let dps = Dps::script(vec![assigned(DEVICE)]);
    let device = issue(DEVICE, &intermediate("Two", &intermediate("One", &root("Root"))));
    let mut shuffled = whole(&device);
    shuffled.reverse();
    shuffled.insert(1, root("Stranger").certificate().clone());
    dps.client().register(&id(DEVICE), &sending(&device, shuffled), None).await.expect("an assignment");
    let presented = dps.requests()[0].presented.clone();
    assert_eq!(presented[..4], whole(&device));
    assert_eq!(presented[4].subject().common_name(), Some("Stranger"), "what does not belong to it comes last");
}

#[tokio::test]
async fn a_device_that_is_called_as_its_root_sends_its_chain_too() {
    let dps = Dps::script(vec![assigned(DEVICE)]);
    let device = issue(DEVICE, &root(DEVICE));
    let credential = DeviceCertificate::new(whole(&device), &device.key).expect("a credential");
    assert_eq!(credential.chain(), whole(&device));
    dps.client().register(&id(DEVICE), &credential.into(), None).await.expect("an assignment");
    assert_eq!(dps.requests()[0].presented, whole(&device));
}

#[tokio::test]
async fn a_whole_pfx_is_a_credential() {
    let device = issue(DEVICE, &intermediate("Intermediate", &root("Root")));
    let bytes = pfx::write(&device.key, device.fullchain(), "secret", pfx::PfxEncryption::default()).expect("a PFX");
    let (key, certificates) = pfx::read_identity(&bytes, "secret").expect("key and certificates");
    let dps = Dps::script(vec![assigned(DEVICE)]);
    let credential = DeviceCertificate::new(certificates, &key).expect("a credential").into();
    dps.client().register(&id(DEVICE), &credential, None).await.expect("an assignment");
    assert_eq!(dps.requests()[0].presented, whole(&device));
    assert_eq!(pfx::read_identity(&bytes, "other").expect_err("no"), pfx::PfxError::Password);
}

#[test]
fn a_key_of_another_certificate_is_no_credential() {
    let (device, other) = (issue(DEVICE, &root("Root")), issue("sensor-2", &root("Root")));
    let error = DeviceCertificate::new(whole(&device), &other.key).expect_err("no");
    assert_eq!(error, CredentialError::KeyMismatch { subject: device.certificate.subject().to_string() });
    assert!(error.to_string().contains("nothing was sent"), "{error}");
    assert_eq!(DeviceCertificate::new(Vec::new(), &other.key).expect_err("no"), CredentialError::NoCertificate);
}

#[tokio::test]
async fn a_symmetric_key_signs_a_token_for_just_this_registration() {
    let clock = ManualClock::new();
    let dps = Dps::with("127.0.0.1", Asks::Any, |request| {
        let ours = request.header("authorization").expect("a token");
        if request.method == "PUT" { assigning(Some("0")) } else { error(400, 400_001, ours) }
    });
    let group = SymmetricKey::from_base64(KEY).expect("a key");
    let device_id = id("Sensor:1");
    let key = derive_device_key(&group, &device_id);
    let secret = key.to_base64();
    let client = dps.builder(&clock).build().expect("a client");
    let error = client.register(&device_id, &key.into(), None).await.expect_err("refused");

    let requests = dps.requests();
    assert_eq!(requests.len(), 2);
    let hours = ManualClock::BEGIN.as_secs() + 3600;
    for request in &requests {
        assert!(request.presented.is_empty());
        let token = request.header("authorization").expect("a token");
        let resource = format!("{SCOPE}%2Fregistrations%2FSensor%3A1");
        let fields = token.strip_prefix("SharedAccessSignature ").expect("the scheme").split('&').collect::<Vec<_>>();
        assert_eq!(fields[0], format!("sr={resource}"));
        assert_eq!(fields[2..], [format!("se={hours}"), "skn=registration".to_owned()]);
        let signature = fields[1].strip_prefix("sig=").expect("a signature");
        let signature = signature.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
        let signed = aws_lc_rs::hmac::Key::new(
            aws_lc_rs::hmac::HMAC_SHA256,
            &BASE64_STANDARD.decode(secret.expose()).expect("base64"),
        );
        let signature = BASE64_STANDARD.decode(signature).expect("base64");
        aws_lc_rs::hmac::verify(&signed, format!("{resource}\n{hours}").as_bytes(), &signature).expect("its signature");
        // The server repeated the token in its refusal.
        assert!(!format!("{error} {error:?}").contains(fields[1]), "{error:?}");
    }
    assert!(error.to_string().contains("[redacted]"), "{error}");
}

#[test]
fn symmetric_keys_are_checked_and_never_printed() {
    let key = SymmetricKey::from_base64(&format!(" {KEY}\n")).expect("a key");
    assert_eq!(format!("{key:?}"), "SymmetricKey");
    assert_eq!(key.to_base64().expose(), KEY);
    for (text, message) in [("no base64!", "not base64"), ("c2hvcnQ=", "16 to 64 bytes; found 5"), ("", "found 0")] {
        let error = SymmetricKey::from_base64(text).expect_err(text);
        assert!(error.to_string().contains(message), "{error}");
    }
    let (upper, lower) = (derive_device_key(&key, &id("A")), derive_device_key(&key, &id("a")));
    assert!(upper != lower && upper == derive_device_key(&key, &id("A")));
}

#[tokio::test]
async fn a_server_of_another_ca_gets_no_data_and_is_asked_once() {
    let (dps, other) = (Dps::start(|_| assigned(DEVICE)), Dps::start(|_| unauthorized()));
    let client = RegistrationClient::builder(SCOPE.parse().expect("a scope"))
        .endpoint(dps.url().parse().expect("an endpoint"))
        .add_root_certificate(other.authority.as_bytes())
        .expect("a root")
        .clock(ManualClock::new())
        .build()
        .expect("a client");
    let error = register(&client).await.expect_err("no trust");
    assert!(matches!(error.kind, Kind::Network { failure: NetworkFailure::Tls, attempts: 1, .. }), "{error}");
    assert_eq!((dps.connections(), dps.requests().len()), (1, 0));
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told_soon() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let client = RegistrationClient::builder(SCOPE.parse().expect("a scope"))
        .endpoint(format!("https://{address}").parse().expect("an endpoint"))
        .add_root_certificate(root("Root").certificate().der())
        .expect("a root")
        .clock(ManualClock::new())
        .build()
        .expect("a client");
    let error = register(&client).await.expect_err("nobody");
    assert!(matches!(error.kind, Kind::Network { failure: NetworkFailure::Connect, attempts: 3, .. }), "{error}");
    assert!(error.to_string().contains(&format!("cannot connect to {address} after 3 attempts")), "{error}");
}

#[tokio::test]
async fn an_http_address_on_this_machine_takes_symmetric_keys_but_no_certificate() {
    let server = Server::start([assigned(DEVICE)]);
    let client = RegistrationClient::builder(SCOPE.parse().expect("a scope"))
        .endpoint(server.url().parse().expect("an endpoint"))
        .build()
        .expect("a client");
    let error = register(&client).await.expect_err("plain");
    assert!(error.is_not_sent() && error.to_string().contains("https"), "{error}");
    assert!(server.requests().is_empty());
    let key = SymmetricKey::from_base64(KEY).expect("a key").into();
    client.register(&id(DEVICE), &key, None).await.expect("an assignment");
}

#[test]
fn endpoints_and_scopes_are_checked_when_they_are_read() {
    let endpoint = |text: &str| text.parse::<ProvisioningEndpoint>();
    assert_eq!(ProvisioningEndpoint::default().as_str(), "https://global.azure-devices-provisioning.net");
    assert_eq!(endpoint("localhost:8443").expect("a host").as_str(), "https://localhost:8443");
    assert_eq!(endpoint("http://[::1]:80/").expect("this machine").as_str(), "http://[::1]");
    for (text, message) in [
        ("http://dps.example", "use https"),
        ("ftp://dps.example", "instead of https://"),
        ("https://me:secret@dps.example", "user name"),
        ("https://dps.example/0ne1", "ID scope is a separate value"),
        ("https://", "not a URL"),
    ] {
        let error = endpoint(text).expect_err(text).to_string();
        assert!(error.contains(message) && !error.contains("secret"), "{error}");
    }
    let scope = |text: &str| text.parse::<IdScope>();
    assert!(scope(" 0NE00000001\n").expect("a scope").matches(&scope(SCOPE).expect("a scope")));
    for text in ["", "0ne/1", "0ne 1", &"0".repeat(65)] {
        scope(text).expect_err(text);
    }
}

#[test]
fn keys_come_in_each_encoding() {
    let key = CertificateAuthority::self_signed_device(&id(DEVICE), &IssueOptions::default()).expect("a device");
    let pem = key.key.to_pem().expect("PEM");
    let read = PrivateKey::read(pem.as_bytes(), None).expect("a key");
    DeviceCertificate::new(vec![key.certificate.clone()], &read).expect("they belong together");
}

#[tokio::test]
async fn service_and_network_failures_are_distinguished_from_refusals_of_the_device() {
    let answering = |status: u16| Dps::start(move |_| error(status, u64::from(status) * 1000, "no"));
    for status in [429, 500, 501, 503] {
        assert!(fails(&answering(status)).await.is_service_failure(), "{status}");
    }
    for status in [400, 401, 403, 404, 409] {
        assert!(!fails(&answering(status)).await.is_service_failure(), "{status}");
    }
    let broken = fails(&Dps::start(|_| Reply::lost())).await;
    assert!(broken.is_service_failure(), "{broken}");
    let too_slow = fails(&Dps::start(|_| assigning(Some("1000")))).await;
    assert!(too_slow.is_service_failure(), "{too_slow}");
    let other_name = fails(&Dps::with("elsewhere.example", Asks::Any, |_| unauthorized())).await;
    assert!(!other_name.is_service_failure(), "{other_name}");
}
