//! The client of the service API: what it sends, what it keeps, and what it does when an answer is lost.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use crate::support::{
    clock::ManualClock,
    journal::Journal,
    openapi::OpenApi,
    server::{Reply, Server},
};
use iot_enroll::{
    certificate::{Certificate, Timestamp},
    dps::device::{SymmetricKey, derive_device_key},
    dps::service::{
        AllocationPolicy, Attestation, Authorization, AuthorizationError, BuildError, CaReferences, Change, Client,
        ClientBuilder, Clock, ConnectionString, ConnectionStringError, CustomAllocation, EnrollmentGroup,
        EnrollmentGroupId, EnrollmentGroupUpdate, EnrollmentSettings, Error, Etag, IndividualEnrollmentUpdate,
        InitialTwin, NewAttestation, NewCertificates, NewEnrollmentGroup, NewIndividualEnrollment, Query,
        RegistrationId, RegistrationStatus, ReprovisionPolicy, Secret, SharedAccessKey, SymmetricKeys,
    },
};
use serde_json::{Map, Value, json};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const PRIMARY_KEY: &str = "cHJpbWFyeS1rZXktb2YtdGhlLWdyb3Vw";
const SECONDARY_KEY: &str = "c2Vjb25kYXJ5LWtleS1vZi10aGUtZ3JvdXA=";

/// An etag as the service writes it: with quotation marks of its own.
const E1: &str = "\"3300514a-0000-0100-0000-000000000001\"";
const E2: &str = "\"3300514a-0000-0100-0000-000000000002\"";

fn builder(server: &Server, clock: &Arc<ManualClock>) -> ClientBuilder {
    let key = SharedAccessKey::new("provisioningserviceowner", &Secret::from(KEY)).expect("a key");
    Client::builder(server.url().parse().expect("an endpoint"))
        .authorization(Authorization::from_shared_access_key(key))
        .clock(Arc::clone(clock) as Arc<_>)
}

fn scripted(script: impl IntoIterator<Item = Reply>) -> (Server, Client) {
    let server = Server::start(script);
    let client = builder(&server, &ManualClock::new()).build().expect("a client");
    (server, client)
}

fn group_id() -> EnrollmentGroupId {
    "eg".parse().expect("an id")
}

fn device_id() -> RegistrationId {
    "sensor-1".parse().expect("an id")
}

fn certificate() -> Certificate {
    Certificate::read(include_bytes!("../../fixtures/authorities/ec-sec1_cert.pem")).expect("a certificate")
}

fn references(primary: &str) -> CaReferences {
    CaReferences::primary(primary.parse().expect("a name"))
}

fn refused(status: u16, code: i64, message: &str) -> Reply {
    let body = json!({ "errorCode": code, "trackingId": "track-1", "message": message, "timestampUtc": "2026-01-01" });
    Reply::json(status, &body)
}

/// A group as the service returns it, with everything that a client may forget.
fn group() -> Value {
    json!({
        "enrollmentGroupId": "eg",
        "attestation": { "type": "x509", "x509": { "caReferences": { "primary": "root-1", "secondary": null } } },
        "capabilities": { "iotEdge": true, "later": 1 },
        "etag": E1,
        "provisioningStatus": "enabled",
        "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": false },
        "createdDateTimeUtc": "2026-01-02T03:04:05.1234567Z",
        "lastUpdatedDateTimeUtc": "2026-01-02T03:04:05",
        "allocationPolicy": "custom",
        "customAllocationDefinition": { "webhookUrl": "https://f.example/api?code=topsecret", "apiVersion": "2019-03-31" },
        "iotHubs": ["h.azure-devices.net"],
        "initialTwin": {
            "tags": { "site": "x", "version": "blue", "count": 1, "metadata": { "$lastUpdated": "2026" }, "$version": 3 },
            "properties": { "desired": { "fan": 2, "version": 4, "count": 1, "$metadata": {}, "metadata": null } },
        },
        "credentialPolicyName": "of a later version",
    })
}

fn symmetric_group() -> Value {
    json!({ "enrollmentGroupId": "eg", "attestation": { "type": "symmetricKey" }, "etag": E1 })
}

fn mechanism() -> Value {
    let keys = json!({ "primaryKey": PRIMARY_KEY, "secondaryKey": SECONDARY_KEY });
    json!({ "type": "symmetricKey", "symmetricKey": keys })
}

/// A record that hides the certificate.
fn individual() -> Value {
    let info = json!({ "sha1Thumbprint": certificate().sha1_thumbprint().to_string(), "subjectName": "CN=sensor-1" });
    json!({
        "registrationId": "sensor-1",
        "deviceId": "hub-sensor-1",
        "attestation": { "type": "x509", "x509": { "clientCertificates": { "primary": { "info": info } } } },
        "etag": E1,
        "optionalDeviceInformation": { "floor": 3, "version": 1 },
        "registrationState": { "registrationId": "sensor-1", "status": "assigned", "assignedHub": "h", "payload": {} },
    })
}

/// Every request is one that the API description has.
#[track_caller]
fn assert_described(server: &Server) {
    let description = OpenApi::dps_service();
    for request in server.requests() {
        let names: Vec<_> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        let (method, target) = (request.method.as_str(), request.target.as_str());
        assert_eq!(description.check_headers(method, target, &names), Ok(()));
        let held = description.check_request(method, target, request.header("content-type"), &request.body);
        assert_eq!(held, Ok(()), "{method} {target}");
    }
}

// --- Sign-in -----------------------------------------------------------------------------------------------------------

#[test]
fn signatures_are_those_of_the_service_sdks() {
    let vectors: Value = serde_json::from_str(include_str!("../../fixtures/sas-vectors.json")).expect("JSON");
    for vector in vectors["sas"].as_array().expect("vectors").iter().filter(|vector| vector["policy"].is_string()) {
        let text = |name: &str| vector[name].as_str().expect(name);
        let key = SharedAccessKey::new(text("policy"), &Secret::from(text("key"))).expect("a key");
        let expiry = Timestamp::from_unix_seconds(vector["expiry"].as_i64().expect("an expiry")).expect("a time");
        assert_eq!(key.token(text("resource"), expiry).expose(), text("token"));
    }
    for vector in vectors["derivedDeviceKey"].as_array().expect("vectors") {
        let text = |name: &str| vector[name].as_str().expect(name);
        let group = SymmetricKey::from_base64(text("groupKey")).expect("a key");
        let key = derive_device_key(&group, &text("registrationId").parse().expect("an id"));
        assert_eq!(key.to_base64().expose(), text("deviceKey"));
    }
}

#[tokio::test]
async fn every_request_is_signed_anew_for_the_host_and_an_hour() {
    let clock = ManualClock::new();
    let server = Server::start([Reply::json(200, &group()), Reply::json(200, &group())]);
    let client = builder(&server, &clock).build().expect("a client");
    client.enrollment_groups().get(&group_id()).await.expect("a group");
    clock.sleep(Duration::from_secs(3 * 3600)).await;
    client.enrollment_groups().get(&group_id()).await.expect("a group");

    let host = server.url().replace("http://", "").replace(':', "%3A");
    let expiries = server.requests().into_iter().map(|request| {
        let token = request.header("authorization").expect("a token");
        let rest = token.strip_prefix(&format!("SharedAccessSignature sr={host}&sig=")).expect("the host");
        let (_, rest) = rest.split_once("&se=").expect("an expiry");
        let (expiry, policy) = rest.split_once("&skn=").expect("a policy");
        assert_eq!(policy, "provisioningserviceowner");
        Duration::from_secs(expiry.parse().expect("a number"))
    });
    let hour = Duration::from_secs(3600);
    assert_eq!(expiries.collect::<Vec<_>>(), [ManualClock::BEGIN + hour, ManualClock::BEGIN + 4 * hour]);
    assert!(server.requests()[0].target.ends_with("?api-version=2021-10-01"));
}

#[tokio::test]
async fn a_connection_string_is_used_at_its_own_host_only() {
    let server = Server::start([Reply::json(200, &group())]);
    let host = server.url().replace("http://", "");
    let text = format!("HostName={host};SharedAccessKeyName=ops;SharedAccessKey={KEY}");
    let connection: ConnectionString = text.parse().expect("a connection string");
    let authorization = Authorization::from_connection_string(&connection);
    let client = Client::builder(server.url().parse().expect("an endpoint")).authorization(authorization.clone());
    client.build().expect("a client").enrollment_groups().get(&group_id()).await.expect("a group");

    let other = "fabrikam.azure-devices-provisioning.net".parse().expect("an endpoint");
    let error = Client::builder(other).authorization(authorization).build().expect_err("another host");
    assert!(matches!(error, BuildError::Authorization(AuthorizationError::OtherHost { .. })), "{error}");
    assert!(error.to_string().contains(&host) && error.to_string().contains("fabrikam"), "{error}");
}

#[test]
fn a_malformed_connection_string_is_not_repeated() {
    let host = "HostName=c.azure-devices-provisioning.net";
    for text in [
        KEY.to_owned(),
        format!("{host};SharedAccessKeyName=ops;SharedAccessKey=%{KEY}"),
        format!("{host};SharedAccessKeyName=ops;SharedAccessKey="),
        format!("{host};SharedAccessKey={KEY}"),
        format!("{host};SharedAccessKeyName=ops"),
        format!("SharedAccessKeyName=ops;SharedAccessKey={KEY}"),
        format!("HostName={KEY}/a b;SharedAccessKeyName=ops;SharedAccessKey={KEY}"),
        format!("HostName=user:{KEY}@h;SharedAccessKeyName=ops;SharedAccessKey={KEY}"),
        format!("{host};{host};SharedAccessKeyName=ops;SharedAccessKey={KEY}"),
        format!("{host};SharedAccessKeyName=ops;SharedAccessKey={KEY};no field"),
        format!("{host};SharedAccessKeyName={KEY}\u{e9};SharedAccessKey={KEY}"),
        String::new(),
    ] {
        let error: ConnectionStringError = text.parse::<ConnectionString>().expect_err(&text);
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(!shown.contains(&KEY[..8]), "{shown}");
        }
    }
    let whole = format!("  {host};SharedAccessKeyName=ops;SharedAccessKey={KEY};EndpointSuffix=x;\n");
    let connection: ConnectionString = whole.parse().expect("order and more fields do not matter");
    assert_eq!((connection.host(), connection.key().policy()), ("c.azure-devices-provisioning.net", "ops"));
}

#[tokio::test]
async fn keys_are_in_no_debug_output_and_no_message() {
    let server = Server::start([]);
    let builder = builder(&server, &ManualClock::new());
    let debug = format!("{builder:?}");
    let client = builder.build().expect("a client");
    let connection: ConnectionString =
        format!("HostName=h;SharedAccessKeyName=ops;SharedAccessKey={KEY}").parse().expect("a connection string");
    let keys = SymmetricKeys { primary_key: PRIMARY_KEY.into(), secondary_key: SECONDARY_KEY.into() };
    let new = NewEnrollmentGroup::new(NewAttestation::SymmetricKey(Some(keys))).settings(
        EnrollmentSettings::new().custom_allocation(CustomAllocation::new("https://f.example/?code=topsecret")),
    );

    // The service repeats what it was sent, decoded and encoded.
    let echo = |request: &crate::support::server::Request| {
        let token = request.header("authorization").unwrap_or_default().to_owned();
        format!("{token} {PRIMARY_KEY} {SECONDARY_KEY} https://f.example/?code=topsecret")
    };
    server.then(refused(400, 400_004, "first"));
    let first = client.enrollment_groups().create(&group_id(), &new).await.expect_err("refused");
    server.then(refused(400, 400_004, &echo(&server.requests()[0])));
    let echoed = client.enrollment_groups().create(&group_id(), &new).await.expect_err("refused");
    let token = server.requests()[1].header("authorization").expect("a token").to_owned();
    let signature = token.split("sig=").nth(1).and_then(|rest| rest.split('&').next()).expect("a signature").to_owned();

    let group: EnrollmentGroup = serde_json::from_value(group()).expect("a group");
    let attestation: Attestation = serde_json::from_value(mechanism()).expect("an attestation");
    assert_eq!(attestation.symmetric_keys().expect("keys").primary_key.expose(), PRIMARY_KEY);
    let printed = [
        debug,
        format!("{client:?} {connection:?} {new:?} {group:?} {attestation:?}"),
        format!("{first} {first:?}"),
        format!("{echoed} {echoed:?}"),
        serde_json::to_string(&group).expect("JSON"),
        serde_json::to_string(&attestation).expect("JSON"),
    ];
    for text in printed {
        for secret in [KEY, PRIMARY_KEY, SECONDARY_KEY, "topsecret", &signature, &token] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    assert!(echoed.to_string().contains("[redacted]"), "{echoed}");
}

#[tokio::test]
async fn requests_are_reported_without_tokens_and_keys() {
    let update = async || {
        let script = [Reply::json(200, &symmetric_group()), Reply::lost(), Reply::json(200, &mechanism())];
        let (server, client) = scripted(script);
        server.then(Reply::json(200, &symmetric_group()));
        let update = EnrollmentGroupUpdate::new().settings(EnrollmentSettings::new().enabled(false));
        client.enrollment_groups().update(&group_id(), &update).await.expect("updated");
    };
    let journal = Journal::record(update).await;
    for part in ["method=PUT", "path=\"enrollmentGroups/eg/attestationmechanism\"", "attempt=2"] {
        assert!(journal.contains(part), "{part} is missing: {journal}");
    }
    for secret in ["SharedAccessSignature", "sig=", KEY, PRIMARY_KEY, SECONDARY_KEY] {
        assert!(!journal.contains(secret), "{journal}");
    }
}

#[tokio::test]
async fn advice_depends_on_how_the_caller_signed_in() {
    let (_server, keyed) = scripted([refused(401, 401_002, "Unauthorized"), refused(403, 403_000, "Forbidden")]);
    let advice = async |client: &Client| client.enrollment_groups().get(&group_id()).await.expect_err("refused");
    let error = advice(&keyed).await;
    assert!(error.to_string().contains("disableLocalAuth"), "{error}");
    assert_eq!((error.code(), error.request_id()), (Some("401002"), Some("track-1")));
    let error = advice(&keyed).await;
    assert!(error.to_string().contains("EnrollmentWrite"), "{error}");

    let server = Server::start([refused(401, 401_002, "Unauthorized"), refused(403, 403_000, "Forbidden")]);
    let entra = Client::builder(server.url().parse().expect("an endpoint"))
        .authorization(Authorization::parse("Bearer token").expect("a token"))
        .build()
        .expect("a client");
    let error = advice(&entra).await;
    assert!(
        error.to_string().contains("Resource Manager") && !error.to_string().contains("disableLocalAuth"),
        "{error}"
    );
    let error = advice(&entra).await.to_string();
    assert!(error.contains("Device Provisioning Service Data Contributor") && error.contains("Owner"), "{error}");
}

// --- Rate and retries ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_default_is_sixteen_calls_a_second_and_throttling_is_waited_for() {
    let clock = ManualClock::new();
    let server = Server::start((0..33).map(|_| Reply::json(200, &group())));
    let client = builder(&server, &clock).build().expect("a client");
    for _ in 0..33 {
        client.enrollment_groups().get(&group_id()).await.expect("a group");
    }
    assert_eq!(Clock::elapsed(&*clock), Duration::from_secs(2), "32 intervals of 1/16 s");

    server.then(Reply::throttled("7"));
    server.then(Reply::json(200, &json!({ "isSuccessful": true })));
    let ids = [device_id()];
    assert_eq!(client.individual_enrollments().delete_many(&ids).await.expect("deleted"), []);
    assert_eq!(clock.sleeps(), [Duration::from_secs(7)]);
}

// --- Creation ------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_group_is_created_without_if_match() {
    let (server, client) = scripted([Reply::json(200, &group())]);
    let settings = EnrollmentSettings::new()
        .enabled(false)
        .iot_edge(true)
        .reprovision_policy(ReprovisionPolicy::default().migrate_device_data(false))
        .allocation_policy(AllocationPolicy::Static)
        .iot_hubs(vec!["h.azure-devices.net".to_owned()])
        .initial_twin(InitialTwin::default().tags(Map::from_iter([("site".to_owned(), json!("x"))])));
    let new = NewEnrollmentGroup::new(references("root-1")).settings(settings);
    let created = client.enrollment_groups().create(&group_id(), &new).await.expect("created");
    assert_eq!(created.etag.expect("an etag").as_str(), E1);
    let request = &server.requests()[0];
    assert_eq!((request.method.as_str(), request.header("if-match")), ("PUT", None));
    assert_eq!(
        request.json(),
        json!({
            "enrollmentGroupId": "eg",
            "attestation": { "type": "x509", "x509": { "caReferences": { "primary": "root-1" } } },
            "provisioningStatus": "disabled",
            "capabilities": { "iotEdge": true },
            "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": false },
            "allocationPolicy": "static",
            "iotHubs": ["h.azure-devices.net"],
            "initialTwin": { "tags": { "site": "x" } },
        })
    );
    assert_described(&server);
}

#[tokio::test]
async fn a_conflict_is_an_existing_group_only_if_there_is_one() {
    let new = NewEnrollmentGroup::new(references("root-1"));
    let (_server, client) = scripted([refused(409, 409_004, "exists"), Reply::json(200, &group())]);
    let error = client.enrollment_groups().create(&group_id(), &new).await.expect_err("it exists");
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");

    let (_server, client) = scripted([refused(409, 409_005, "CA in use"), refused(404, 404_201, "none")]);
    let error = client.enrollment_groups().create(&group_id(), &new).await.expect_err("another conflict");
    assert!(error.status() == Some(409) && error.to_string().contains("CA in use"), "{error}");
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_read_back() {
    let new = NewEnrollmentGroup::new(references("root-1"));
    let lost =
        || [Reply::lost(), refused(409, 409_004, "exists"), Reply::json(200, &group()), Reply::json(200, &group())];
    let (server, client) = scripted(lost());
    client.enrollment_groups().create(&group_id(), &new).await.expect("created by the first attempt");
    assert_eq!(server.requests().len(), 4);

    let (_server, client) = scripted(lost());
    let other = NewEnrollmentGroup::new(references("root-2"));
    let error = client.enrollment_groups().create(&group_id(), &other).await.expect_err("not what was sent");
    assert!(matches!(error, Error::OutcomeUnknown { status: 409, .. }) && error.answer_was_lost(), "{error}");

    // The certificate is compared by what the service tells about it.
    let (_server, client) = scripted([
        Reply::lost(),
        refused(409, 409_004, "exists"),
        Reply::json(200, &individual()),
        Reply::json(200, &individual()["attestation"]),
        Reply::json(200, &individual()),
    ]);
    let attestation = NewAttestation::ClientCertificates(NewCertificates::new(certificate()));
    let new = NewIndividualEnrollment::new(attestation).device_id("hub-sensor-1".to_owned());
    client.individual_enrollments().create(&device_id(), &new).await.expect("created by the first attempt");
}

// --- Update --------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_update_keeps_what_it_does_not_name_and_drops_what_the_service_added() {
    let (server, client) = scripted([Reply::json(200, &group()), Reply::json(200, &group())]);
    let update = EnrollmentGroupUpdate::new().settings(EnrollmentSettings::new().enabled(false));
    client.enrollment_groups().update(&group_id(), &update).await.expect("updated");
    let requests = server.requests();
    assert_eq!(server.log(), ["GET /enrollmentGroups/eg", "PUT /enrollmentGroups/eg"]);
    assert_eq!(requests[1].header("if-match"), Some(E1), "with its own quotation marks");

    let mut expected = group();
    let members = expected.as_object_mut().expect("an object");
    for name in ["etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc"] {
        members.remove(name);
    }
    members["provisioningStatus"] = json!("disabled");
    members["initialTwin"] = json!({
        // A text cannot be the version of a twin.
        "tags": { "site": "x", "version": "blue" },
        "properties": { "desired": { "fan": 2 } },
    });
    assert_eq!(requests[1].json(), expected);
}

#[tokio::test]
async fn an_update_switches_a_reference_and_keeps_unknown_members_of_the_attestation() {
    let mut before = group();
    before["attestation"]["later"] = json!(true);
    before["attestation"]["x509"]["later"] = json!(1);
    let (server, client) = scripted([Reply::json(200, &before), Reply::json(200, &group())]);
    let mut names = references("root-2");
    names.secondary = Some("root-1".parse().expect("a name"));
    let update = EnrollmentGroupUpdate::new().attestation(NewAttestation::from(names)).etag(Etag::new(E2));
    client.enrollment_groups().update(&group_id(), &update).await.expect("updated");
    let put = &server.requests()[1];
    assert_eq!(put.header("if-match"), Some(E2), "the caller's etag decides");
    let x509 = json!({ "caReferences": { "primary": "root-2", "secondary": "root-1" }, "later": 1 });
    assert_eq!(put.json()["attestation"], json!({ "type": "x509", "x509": x509, "later": true }));
}

#[tokio::test]
async fn the_key_of_a_function_that_an_update_keeps_is_in_no_message() {
    let url = group()["customAllocationDefinition"]["webhookUrl"].as_str().expect("a URL").to_owned();
    let (_server, client) = scripted([Reply::json(200, &group()), refused(400, 400_004, &format!("bad: {url}"))]);
    let error =
        client.enrollment_groups().update(&group_id(), &EnrollmentGroupUpdate::new()).await.expect_err("refused");
    assert!(!error.to_string().contains("topsecret") && error.to_string().contains("[redacted]"), "{error}");
}

#[tokio::test]
async fn a_policy_that_is_not_custom_has_no_function() {
    let (server, client) = scripted([Reply::json(200, &group()), Reply::json(200, &group())]);
    let settings = EnrollmentSettings::new().allocation_policy(AllocationPolicy::Hashed).iot_hubs(Vec::new());
    let update = EnrollmentGroupUpdate::new().settings(settings);
    client.enrollment_groups().update(&group_id(), &update).await.expect("updated");
    let body = server.requests()[1].json();
    assert_eq!((&body["allocationPolicy"], &body["iotHubs"]), (&json!("hashed"), &json!([])));
    assert!(body.get("customAllocationDefinition").is_none(), "{body}");
}

#[tokio::test]
async fn an_update_keeps_symmetric_keys_which_reading_hides() {
    let script = [Reply::json(200, &symmetric_group()), Reply::json(200, &mechanism()), Reply::json(200, &group())];
    let (server, client) = scripted(script);
    let update = EnrollmentGroupUpdate::new().settings(EnrollmentSettings::new().enabled(false));
    client.enrollment_groups().update(&group_id(), &update).await.expect("updated");
    let requests = server.requests();
    assert_eq!(server.log()[1], "POST /enrollmentGroups/eg/attestationmechanism");
    assert_eq!((requests[1].header("content-length"), requests[1].body.len()), (Some("0"), 0));
    assert_eq!(requests[2].json()["attestation"], mechanism());
    assert_described(&server);
}

#[tokio::test]
async fn an_update_that_would_lose_a_certificate_is_refused_unless_it_is_given_again() {
    let hidden = || [Reply::json(200, &individual()), Reply::json(200, &individual()["attestation"])];
    let (server, client) = scripted(hidden());
    let update = IndividualEnrollmentUpdate::new().settings(EnrollmentSettings::new().enabled(false));
    let error = client.individual_enrollments().update(&device_id(), &update).await.expect_err("refused");
    let Error::WouldRemove { member, .. } = &error else { panic!("{error}") };
    assert!(member.contains("clientCertificates.primary"), "{error}");
    assert!(server.log().iter().all(|line| !line.starts_with("PUT")), "nothing was written");

    let (server, client) = scripted([Reply::json(200, &individual()), Reply::json(200, &individual())]);
    let attestation = NewAttestation::ClientCertificates(NewCertificates::new(certificate()));
    client.individual_enrollments().update(&device_id(), &update.attestation(attestation)).await.expect("updated");
    let body = server.requests()[1].json();
    assert!(body["attestation"]["x509"]["clientCertificates"]["primary"]["certificate"].is_string(), "{body}");
    assert_eq!(
        (&body["deviceId"], &body["optionalDeviceInformation"]),
        (&json!("hub-sensor-1"), &json!({ "floor": 3 }))
    );
    assert!(body.get("registrationState").is_none() && !body.to_string().contains("info"), "{body}");
    assert_described(&server);

    // A second certificate is removed only on request.
    let mut two = individual();
    let pair = &mut two["attestation"]["x509"]["clientCertificates"];
    pair["secondary"] = pair["primary"].clone();
    let with_secondary = |secondary: Change<Certificate>| {
        let certificates = NewCertificates::new(certificate()).secondary(secondary);
        IndividualEnrollmentUpdate::new().attestation(NewAttestation::ClientCertificates(certificates))
    };
    let (server, client) = scripted([Reply::json(200, &two)]);
    let update = with_secondary(Change::Keep);
    let error = client.individual_enrollments().update(&device_id(), &update).await.expect_err("refused");
    let Error::WouldRemove { member, .. } = &error else { panic!("{error}") };
    assert!(member.contains("clientCertificates.secondary") && server.log().len() == 1, "{error}");
    for (secondary, has_secondary) in [(Change::Clear, false), (Change::Set(certificate()), true)] {
        let (server, client) = scripted([Reply::json(200, &two), Reply::json(200, &two)]);
        client.individual_enrollments().update(&device_id(), &with_secondary(secondary)).await.expect("updated");
        let body = server.requests()[1].json();
        let pair = &body["attestation"]["x509"]["clientCertificates"];
        assert_eq!(pair.get("secondary").is_some(), has_secondary, "{body}");
    }

    // A service that returns the certificate loses nothing.
    let mut whole = individual();
    whole["attestation"]["x509"]["clientCertificates"]["primary"]["certificate"] = json!("MIIB");
    let (server, client) = scripted([Reply::json(200, &whole), Reply::json(200, &whole)]);
    client.individual_enrollments().update(&device_id(), &IndividualEnrollmentUpdate::new()).await.expect("updated");
    let body = server.requests()[1].json();
    assert_eq!(body["attestation"]["x509"]["clientCertificates"], json!({ "primary": { "certificate": "MIIB" } }));
}

#[tokio::test]
async fn an_update_without_an_etag_starts_again_after_a_conflict() {
    let mut changed = group();
    changed["etag"] = json!(E2);
    changed["iotHubs"] = json!(["other"]);
    let conflict = || refused(412, 412_002, "stale");
    let script = [Reply::json(200, &group()), conflict(), Reply::json(200, &changed), Reply::json(200, &changed)];
    let (server, client) = scripted(script);
    let update = EnrollmentGroupUpdate::new().settings(EnrollmentSettings::new().enabled(false));
    client.enrollment_groups().update(&group_id(), &update).await.expect("updated");
    let last = &server.requests()[3];
    assert_eq!((last.header("if-match"), &last.json()["iotHubs"]), (Some(E2), &json!(["other"])));

    // Clients that meet wait before they try again, and the last one is not sent to look for an etag that it never gave.
    let server = Server::start((0..9).flat_map(|_| [Reply::json(200, &group()), conflict()]));
    let clock = ManualClock::new();
    let client = builder(&server, &clock).build().expect("a client");
    let error = client.enrollment_groups().update(&group_id(), &update).await.expect_err("contention");
    assert!(matches!(error, Error::Contention { attempts: 9, .. }) && error.status() == Some(412), "{error}");
    assert!(!error.to_string().contains("etag") && !error.answer_was_lost(), "{error}");
    assert_eq!(server.requests().len(), 18);
    assert!(clock.elapsed() > Duration::from_secs(3), "{:?}", clock.elapsed());

    let (server, client) = scripted([Reply::json(200, &group()), conflict()]);
    let update = update.etag(Etag::new(E1));
    let error = client.enrollment_groups().update(&group_id(), &update).await.expect_err("a conflict");
    assert_eq!((error.status(), server.requests().len()), (Some(412), 2));
}

#[tokio::test]
async fn an_update_whose_answer_was_lost_is_read_back() {
    let mut after = group();
    after["provisioningStatus"] = json!("disabled");
    after["etag"] = json!(E2);
    let update = EnrollmentGroupUpdate::new().settings(EnrollmentSettings::new().enabled(false));
    let (_server, client) = scripted([
        Reply::json(200, &group()),
        Reply::lost(),
        refused(412, 412_002, "stale"),
        Reply::json(200, &after),
        Reply::json(200, &after),
    ]);
    let updated = client.enrollment_groups().update(&group_id(), &update).await.expect("updated by the first attempt");
    assert!(!updated.is_enabled());

    let script =
        [Reply::json(200, &group()), Reply::lost(), refused(412, 412_002, "stale"), Reply::json(200, &group())];
    let (_server, client) = scripted(script);
    let error = client.enrollment_groups().update(&group_id(), &update).await.expect_err("another client's change");
    assert!(matches!(error, Error::OutcomeUnknown { status: 412, .. }), "{error}");
}

#[tokio::test]
async fn answers_with_the_keys_of_a_group_are_never_quoted() {
    for reply in [Reply::json(400, &mechanism()), Reply::with(200, &[], &format!("x {PRIMARY_KEY}"))] {
        let (_server, client) = scripted([reply]);
        let error = client.enrollment_groups().attestation(&group_id()).await.expect_err("unusable").to_string();
        assert!(!error.contains(PRIMARY_KEY) && !error.contains(SECONDARY_KEY), "{error}");
    }
}

// --- Reading and deletion ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_group_is_read_and_printed_with_what_the_client_does_not_know() {
    let (_server, client) = scripted([Reply::json(200, &group()), refused(404, 404_201, "none")]);
    let found = client.enrollment_groups().get(&group_id()).await.expect("a group");
    assert_eq!(found.ca_references().expect("names").names().map(AsRef::as_ref).collect::<Vec<&str>>(), ["root-1"]);
    assert_eq!(found.settings.initial_twin.clone().expect("a twin").desired, json!({ "fan": 2 }).as_object().cloned());
    assert_eq!(found.other["credentialPolicyName"], "of a later version");
    assert_eq!(found.created_at.expect("a time").to_string(), "2026-01-02T03:04:05.1234567Z");
    assert_eq!(found.updated_at.expect("a time").to_string(), "2026-01-02T03:04:05Z");
    let printed = serde_json::to_value(&found).expect("JSON");
    for name in
        ["enrollmentGroupId", "attestation", "etag", "provisioningStatus", "credentialPolicyName", "initialTwin"]
    {
        assert!(printed.get(name).is_some(), "{name} in {printed}");
    }
    assert!(client.enrollment_groups().find(&group_id()).await.expect("an answer").is_none());
}

#[tokio::test]
async fn of_the_url_of_a_function_only_the_host_is_printed() {
    for (url, printed) in [
        ("https://f.example/api/key1?code=key2", "https://f.example/[redacted]"),
        ("https://user:key1@f.example:8443", "https://f.example:8443/[redacted]"),
        ("https://f.example#key1", "https://f.example/[redacted]"),
        ("https://f.example/", "https://f.example"),
        ("key1", "[redacted]"),
    ] {
        let mut record = group();
        record["customAllocationDefinition"]["webhookUrl"] = json!(url);
        let (_server, client) = scripted([Reply::json(200, &record)]);
        let found = client.enrollment_groups().get(&group_id()).await.expect("a group");
        let shown = serde_json::to_value(&found).expect("JSON");
        assert_eq!(shown["customAllocationDefinition"]["webhookUrl"], printed);
    }
}

#[tokio::test]
async fn an_answer_of_another_shape_is_an_error_that_repeats_no_value() {
    for (member, value) in [
        ("attestation", json!("topsecret")),
        ("attestation", json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": ["topsecret"] } })),
        ("attestation", json!({ "type": "x509", "x509": "topsecret" })),
        ("enrollmentGroupId", json!("topsecret topsecret")),
        ("initialTwin", json!("topsecret")),
        ("iotHubs", json!({ "topsecret": 1 })),
    ] {
        let mut wrong = group();
        wrong[member] = value;
        let (_server, client) = scripted([Reply::json(200, &wrong), Reply::json(200, &json!([wrong]))]);
        let error = client.enrollment_groups().get(&group_id()).await.expect_err("another shape");
        assert!(matches!(error, Error::Answer(_)), "{error}");
        let listed = client.enrollment_groups().list(&Query::new()).try_collect::<Vec<_>>().await;
        for text in [error.to_string(), listed.expect_err("another shape").to_string()] {
            assert!(text.contains(member) && !text.contains("topsecret") && !text.contains("Wire"), "{text}");
        }
        // An update of such a record must not panic either.
        let (_server, client) = scripted([Reply::json(200, &wrong), Reply::json(200, &wrong)]);
        let update = EnrollmentGroupUpdate::new().settings(EnrollmentSettings::new().iot_edge(true));
        let _ = client.enrollment_groups().update(&group_id(), &update).await;
    }
}

#[tokio::test]
async fn ids_ignore_case_and_follow_the_rules_of_the_service() {
    assert_eq!("EG".parse::<EnrollmentGroupId>(), Ok(group_id()));
    for good in ["a", "-a", "a-", "A.b_c:d", &"x".repeat(128)] {
        assert!(good.parse::<RegistrationId>().is_ok(), "{good}");
    }
    for bad in ["", "a.", "a:", "a_", "a b", "a/b", "ä", &"x".repeat(129), ".", ".."] {
        assert!(bad.parse::<RegistrationId>().is_err(), "{bad}");
        assert!(bad.parse::<EnrollmentGroupId>().is_err(), "{bad}");
    }
}

#[tokio::test]
async fn an_etag_that_cannot_be_sent_is_named() {
    let (server, client) = scripted([]);
    let error = client.enrollment_groups().delete(&group_id(), Some(&Etag::new("\"x\"\r\ny"))).await.expect_err("no");
    assert!(error.to_string().contains("characters that cannot be sent"), "{error}");
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn deletion_names_the_etag_as_it_is() {
    let (server, client) = scripted([Reply::no_content(), refused(412, 412_002, "stale"), Reply::no_content()]);
    client.enrollment_groups().delete(&group_id(), Some(&Etag::new(E1))).await.expect("deleted");
    let error = client.registrations().delete(&device_id(), Some(&Etag::new(E2))).await.expect_err("stale");
    assert_eq!(error.status(), Some(412));
    client.individual_enrollments().delete(&device_id(), None).await.expect("deleted");
    let sent: Vec<_> = server.requests().iter().map(|it| it.header("if-match").map(str::to_owned)).collect();
    assert_eq!(sent, [Some(E1.to_owned()), Some(E2.to_owned()), None]);
    assert_described(&server);
}

// --- Lists ---------------------------------------------------------------------------------------------------------------

fn page(ids: &[&str], next: Option<&str>) -> Reply {
    let group = |id: &&str| {
        let mut group = group();
        group["enrollmentGroupId"] = json!(id);
        group
    };
    let body = Value::Array(ids.iter().map(group).collect()).to_string();
    let mut headers = vec![("Content-Type", "application/json"), ("x-ms-item-type", "enrollmentGroup")];
    headers.extend(next.map(|next| ("x-ms-continuation", next)));
    Reply::with(200, &headers, &body)
}

#[tokio::test]
async fn a_query_follows_continuation_tokens() {
    let (server, client) = scripted([page(&["a", "b"], Some("t/1==")), page(&[], Some("t2")), page(&["c"], None)]);
    let query = Query::new().page_size(NonZeroU32::new(2).expect("not zero"));
    let groups: Vec<_> = client.enrollment_groups().list(&query).try_collect().await.expect("groups");
    assert_eq!(groups.iter().map(|group| group.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let requests = server.requests();
    let tokens: Vec<_> = requests.iter().map(|request| request.header("x-ms-continuation")).collect();
    assert_eq!(tokens, [None, Some("t/1=="), Some("t2")]);
    for request in &requests {
        assert_eq!((request.method.as_str(), request.header("x-ms-max-item-count")), ("POST", Some("2")));
        assert_eq!(request.json(), json!({ "query": "SELECT *" }));
    }
    assert_described(&server);
}

#[tokio::test]
async fn a_query_that_does_not_end_is_an_error() {
    let (server, client) = scripted([page(&["a"], Some("t")), page(&["b"], Some("t"))]);
    let error = client.enrollment_groups().list(&Query::new()).try_collect::<Vec<_>>().await.expect_err("a loop");
    assert!(matches!(error, Error::NextLink { .. }) && !error.answer_was_lost(), "{error}");
    assert_eq!(server.requests().len(), 2);

    // Each page has another token, but no other content.
    let pages = (0..20).map(|count| page(&[["a"], ["b"]][count % 2], Some(&format!("t{count}"))));
    let (server, client) = scripted(pages);
    let error = client.enrollment_groups().list(&Query::new()).try_collect::<Vec<_>>().await.expect_err("a loop");
    assert!(matches!(error, Error::NextLink { .. }), "{error}");
    assert_eq!(server.requests().len(), 5);

    let (server, client) = scripted([page(&["a", "b"], Some("t"))]);
    let two: Vec<_> = client.enrollment_groups().list(&Query::new().limit(2)).try_collect().await.expect("groups");
    assert_eq!((two.len(), server.requests().len()), (2, 1));
}

#[tokio::test]
async fn a_query_only_reads_so_it_is_retried_and_loses_nothing() {
    let (_server, client) = scripted([Reply::lost(), refused(500, 500_001, "later"), page(&["a"], None)]);
    let groups: Vec<_> = client.enrollment_groups().list(&Query::new()).try_collect().await.expect("groups");
    assert_eq!(groups.len(), 1);
}

#[tokio::test]
async fn registrations_of_a_group_are_listed_without_a_body() {
    let state = json!({
        "registrationId": "Sensor-1", "status": "assigned", "assignedHub": "h.azure-devices.net", "deviceId": "sensor-1",
        "substatus": "initialAssignment", "createdDateTimeUtc": "2026-01-02T03:04:05Z", "etag": E1, "payload": { "a": 1 },
    });
    let (server, client) = scripted([Reply::json(200, &json!([state])), Reply::json(200, &state)]);
    let all: Vec<_> =
        client.registrations().list(&group_id(), &Query::new()).try_collect().await.expect("registrations");
    assert_eq!((all.len(), &all[0].status), (1, &RegistrationStatus::Assigned));
    assert_eq!(all[0].registration_id, Some(device_id()), "case does not matter");
    let found = client.registrations().get(&device_id()).await.expect("a registration");
    assert_eq!(serde_json::to_value(found).expect("JSON"), state);
    assert_eq!(server.log(), ["POST /registrations/eg/query", "GET /registrations/sensor-1"]);
    assert!(server.requests()[0].body.is_empty());
    assert_described(&server);
}

// --- Bulk ----------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_bulk_operation_reports_each_failure() {
    let errors = json!([{ "registrationId": "sensor-2", "errorCode": 409_004, "errorStatus": "exists" }]);
    let (server, client) = scripted([
        Reply::json(200, &json!({ "isSuccessful": false, "errors": errors })),
        Reply::json(200, &json!({ "isSuccessful": false, "errors": [] })),
        Reply::lost(),
    ]);
    let enrollments = client.individual_enrollments();
    let new = |name: &str| {
        let attestation = NewAttestation::ClientCertificates(NewCertificates::new(certificate()));
        (name.parse().expect("an id"), NewIndividualEnrollment::new(attestation))
    };
    let failed = enrollments.create_many(&[new("sensor-1"), new("sensor-2")]).await.expect("an answer");
    assert_eq!((failed.len(), failed[0].id.as_str(), failed[0].error_code), (1, "sensor-2", 409_004));
    let request = &server.requests()[0];
    assert_eq!((request.method.as_str(), request.target.split('?').next()), ("POST", Some("/enrollments")));
    assert_eq!(
        (&request.json()["mode"], request.json()["enrollments"].as_array().map(Vec::len)),
        (&json!("create"), Some(2))
    );

    let error = enrollments.create_many(&[new("a")]).await.expect_err("a failure without a reason");
    assert!(matches!(error, Error::Answer(_)), "{error}");
    let error = enrollments.create_many(&[new("a")]).await.expect_err("lost");
    assert!(error.answer_was_lost() && server.requests().len() == 3, "not repeated: {error}");

    let many: Vec<_> = (0..11).map(|index| new(&format!("s{index}"))).collect();
    let error = enrollments.create_many(&many).await.expect_err("too many");
    assert!(matches!(error, Error::TooManyItems { found: 11, max: 10, .. }), "{error}");
    assert!(enrollments.create_many(&[]).await.expect("nothing to do").is_empty());
    assert_eq!(server.requests().len(), 3);
    server.then(Reply::json(200, &json!({ "isSuccessful": true })));
    assert!(enrollments.delete_many(&[device_id()]).await.expect("deleted").is_empty());
    assert_described(&server);
}
