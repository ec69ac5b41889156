//! Every call sends what the API describes, and reads what the API answers.

use crate::support::{
    client::{TOKEN, builder, client},
    clock::ManualClock,
    openapi::OpenApi,
    server::{Reply, Request, Server},
};
use iot_enroll::{
    central::{
        ApiVersion, Attestation, CertificateEntry, DeviceType, EnrollmentGroupId, EnrollmentGroupUpdate, Error, Etag,
        NewAttestation, NewDeploymentManifest, NewDevice, NewDeviceGroup, NewEnrollmentGroup, Possession,
        SymmetricKeys,
    },
    certificate::Certificate,
};
use serde_json::{Value, json};

const THUMBPRINT: &str = "644543467786B60C14DFE6B7C968A1990CF63EAC";

fn id() -> EnrollmentGroupId {
    "myx509eg".parse().expect("an id")
}

fn certificate() -> Certificate {
    Certificate::read(include_bytes!("../../fixtures/authorities/ec-sec1_cert.pem")).expect("a certificate")
}

fn group() -> Value {
    json!({
        "id": "myx509eg", "displayName": "My group", "enabled": true, "type": "iot", "etag": "e1",
        "attestation": { "type": "x509", "x509": { "signingCertificates": {
            "primary": { "verified": true, "info": { "sha1Thumbprint": THUMBPRINT }, "etag": "e2" }, "secondary": {},
        } } },
    })
}

fn signing_certificate() -> Value {
    json!({ "verified": false, "info": { "sha1Thumbprint": THUMBPRINT }, "etag": "e2" })
}

/// The one request of a test, held to the description.
#[track_caller]
fn sent(server: &Server, method: &str, target: &str) -> Request {
    let requests = server.requests();
    let [request] = &requests[..] else { panic!("one request, not {requests:?}") };
    assert_eq!((request.method.as_str(), request.target.as_str()), (method, target));
    assert_eq!(request.header("authorization"), Some(TOKEN));
    assert_eq!(request.header("accept"), Some("application/json"));
    if matches!(method, "PUT" | "POST" | "PATCH") {
        assert!(request.header("content-length").is_some(), "a length even of nothing: some servers insist");
    }
    let checked = OpenApi::load().check_request(method, target, request.header("content-type"), &request.body);
    assert_eq!(checked, Ok(()));
    request.clone()
}

#[tokio::test]
async fn get_reads_a_whole_x509_group() {
    let server = Server::start([Reply::json(200, &group())]);
    let found = client(&server).enrollment_groups().get(&id()).await.expect("a group");
    sent(&server, "GET", "/api/enrollmentGroups/myx509eg?api-version=2022-07-31");
    assert_eq!((found.id, found.display_name.as_str(), found.enabled), (id(), "My group", true));
    assert_eq!((found.device_type, found.etag), (DeviceType::Iot, Some(Etag::new("e1"))));
    let Attestation::X509 { primary: Some(primary), secondary: None } = found.attestation else {
        panic!("the primary certificate only: {:?}", found.attestation)
    };
    assert_eq!(primary.sha1_thumbprint.map(|it| it.to_string()).as_deref(), Some(THUMBPRINT));
    assert_eq!((primary.verified, primary.etag), (true, Some(Etag::new("e2"))));
}

#[tokio::test]
async fn symmetric_keys_are_read_but_neither_shown_nor_serialised() {
    let keys = json!({ "primaryKey": "firstkey", "secondaryKey": "secondkey" });
    let body = json!({
        "id": "sym", "displayName": "n", "type": "iotEdge", "attestation": { "type": "symmetricKey", "symmetricKey": keys },
    });
    let server = Server::start([Reply::json(200, &body)]);
    let found = client(&server).enrollment_groups().get(&id()).await.expect("a group");
    assert!(found.enabled, "the API's default");
    let shown = format!("{found:?} {}", serde_json::to_string(&found).expect("JSON"));
    assert!(!shown.contains("firstkey") && !shown.contains("secondkey"), "{shown}");
    let Attestation::SymmetricKey(Some(keys)) = found.attestation else { panic!("keys") };
    assert_eq!((keys.primary_key.expose(), keys.secondary_key.expose()), ("firstkey", "secondkey"));
}

#[tokio::test]
async fn kinds_and_fields_of_later_versions_do_not_break_reading() {
    let body = json!({
        "id": "new", "displayName": "n", "type": "iotSatellite", "later": [1], "etag": null,
        "attestation": { "type": "tpm", "tpm": {} },
    });
    let server = Server::start([Reply::json(200, &body)]);
    let found = client(&server).enrollment_groups().get(&id()).await.expect("a group");
    assert_eq!((found.device_type.as_str(), found.attestation.kind()), ("iotSatellite", "tpm"));
}

#[tokio::test]
async fn a_serialised_group_is_what_the_api_describes() {
    let server = Server::start([Reply::json(200, &group())]);
    let found = client(&server).enrollment_groups().get(&id()).await.expect("a group");
    let body = serde_json::to_vec(&found).expect("JSON");
    let headers = [("content-type", "application/json")];
    assert_eq!(OpenApi::load().check_response("GET", "/enrollmentGroups/myx509eg", 200, &headers, &body), Ok(()));
}

#[tokio::test]
async fn find_returns_none_for_404_and_fails_for_403() {
    let server = Server::start([Reply::error(404, "NotFound", "none"), Reply::error(403, "Forbidden", "no")]);
    let groups = client(&server).enrollment_groups();
    assert!(groups.find(&id()).await.expect("an answer").is_none());
    assert_eq!(groups.find(&id()).await.expect_err("no right").status(), Some(403));
}

#[tokio::test]
async fn create_replaces_no_existing_resource() {
    let server = Server::start([Reply::json(200, &group())]);
    let new = NewEnrollmentGroup::x509("New");
    let error = client(&server).enrollment_groups().create(&id(), &new).await.expect_err("it exists");
    assert!(matches!(error, Error::AlreadyExists { .. }) && !error.is_not_found(), "{error}");
    assert!(error.to_string().starts_with("PUT enrollmentGroups/myx509eg: it exists already"), "{error}");
    sent(&server, "GET", "/api/enrollmentGroups/myx509eg?api-version=2022-07-31");

    // Each resource, and a device with types, which only the preview version has.
    let types = NewDevice::default().device_types([DeviceType::IotEdge]);
    let manifest = NewDeploymentManifest::new("Cameras", serde_json::Map::new());
    for preview in [false, true] {
        let server = Server::start([Reply::json(200, &json!({})), Reply::json(200, &json!({}))]);
        let client = client(&server);
        let errors = if preview {
            [
                client.devices().create(&"d".parse().expect("an ID"), &types).await.err(),
                client.deployment_manifests().create(&"m".parse().expect("an ID"), &manifest).await.err(),
            ]
        } else {
            let group = NewDeviceGroup::new("G", "SELECT * FROM devices");
            [
                client.devices().create(&"d".parse().expect("an ID"), &NewDevice::default()).await.err(),
                client.device_groups().create(&"g".parse().expect("an ID"), &group).await.err(),
            ]
        };
        assert!(errors.iter().all(|error| matches!(error, Some(Error::AlreadyExists { .. }))), "{errors:?}");
        let version = if preview { "api-version=2022-10-31-preview" } else { "api-version=2022-07-31" };
        for request in server.requests() {
            assert_eq!(request.method, "GET");
            assert!(request.target.ends_with(version), "{}", request.target);
        }
    }
}

#[tokio::test]
async fn create_puts_a_resource_that_does_not_exist() {
    let server = Server::start([Reply::with(404, &[], ""), Reply::json(200, &group())]);
    let new = NewEnrollmentGroup::x509("New");
    client(&server).enrollment_groups().create(&id(), &new).await.expect("created");
    let requests = server.requests();
    assert_eq!(requests.iter().map(|it| it.method.as_str()).collect::<Vec<_>>(), ["GET", "PUT"]);
    assert_eq!(requests[0].target, requests[1].target);
    assert!(requests[0].body.is_empty());

    // Without knowing whether it exists, nothing is written.
    let server = Server::start([Reply::error(403, "Forbidden", "No.")]);
    let error = client(&server).enrollment_groups().create(&id(), &new).await.expect_err("forbidden");
    assert_eq!((error.status(), server.requests().len()), (Some(403), 1));
}

#[tokio::test]
async fn replace_puts_the_group_with_its_symmetric_keys_and_etag() {
    let server = Server::start([Reply::json(200, &group())]);
    let keys = SymmetricKeys { primary_key: "a2V5MQ==".into(), secondary_key: "a2V5Mg==".into() };
    let new = NewEnrollmentGroup::x509("Keys")
        .device_type(DeviceType::IotEdge)
        .enabled(false)
        .attestation(NewAttestation::SymmetricKey(Some(keys)))
        .etag(Etag::new("e0"));
    client(&server).enrollment_groups().replace(&id(), &new).await.expect("created");
    let request = sent(&server, "PUT", "/api/enrollmentGroups/myx509eg?api-version=2022-07-31");
    assert_eq!(request.header("content-type"), Some("application/json"));
    let attestation =
        json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": "a2V5MQ==", "secondaryKey": "a2V5Mg==" } });
    let expected =
        json!({ "displayName": "Keys", "enabled": false, "type": "iotEdge", "attestation": attestation, "etag": "e0" });
    assert_eq!(request.json(), expected);
    assert!(!format!("{new:?}").contains("a2V5"));
}

#[tokio::test]
async fn replace_puts_an_x509_group_as_the_article_does() {
    let server = Server::start([Reply::json(200, &group())]);
    client(&server).enrollment_groups().replace(&id(), &NewEnrollmentGroup::x509("My group")).await.expect("created");
    let request = sent(&server, "PUT", "/api/enrollmentGroups/myx509eg?api-version=2022-07-31");
    let expected =
        json!({ "displayName": "My group", "enabled": true, "type": "iot", "attestation": { "type": "x509" } });
    assert_eq!(request.json(), expected);
}

#[tokio::test]
async fn update_sends_a_merge_patch_of_the_named_fields_only() {
    let server = Server::start([Reply::json(200, &group())]);
    let update = EnrollmentGroupUpdate::default().enabled(false).etag(Etag::new("e1"));
    client(&server).enrollment_groups().update(&id(), &update).await.expect("updated");
    let request = sent(&server, "PATCH", "/api/enrollmentGroups/myx509eg?api-version=2022-07-31");
    assert_eq!(request.header("content-type"), Some("application/merge-patch+json"));
    assert_eq!(request.header("if-match"), None, "etags travel in bodies");
    assert_eq!(request.json(), json!({ "enabled": false, "etag": "e1" }));
}

#[tokio::test]
async fn update_can_name_every_field() {
    let server = Server::start([Reply::json(200, &group())]);
    let update = EnrollmentGroupUpdate::default()
        .display_name("New".to_owned())
        .enabled(true)
        .device_type(DeviceType::IotEdge)
        .attestation(NewAttestation::X509);
    client(&server).enrollment_groups().update(&id(), &update).await.expect("updated");
    let request = sent(&server, "PATCH", "/api/enrollmentGroups/myx509eg?api-version=2022-07-31");
    let expected =
        json!({ "displayName": "New", "enabled": true, "type": "iotEdge", "attestation": { "type": "x509" } });
    assert_eq!(request.json(), expected);
}

#[tokio::test]
async fn delete_takes_an_answer_without_a_body() {
    let server = Server::start([Reply::no_content()]);
    client(&server).enrollment_groups().delete(&id()).await.expect("deleted");
    sent(&server, "DELETE", "/api/enrollmentGroups/myx509eg?api-version=2022-07-31");
}

#[tokio::test]
async fn a_signing_certificate_is_set_as_base64_of_its_whole_pem() {
    let server = Server::start([Reply::json(200, &signing_certificate())]);
    let (groups, certificate) = (client(&server).enrollment_groups(), certificate());
    let etag = Etag::new("e1");
    let set = groups
        .set_certificate(&id(), CertificateEntry::Primary, &certificate, Possession::ToBeProven, Some(&etag))
        .await;
    let set = set.expect("set");
    assert_eq!(set.sha1_thumbprint.map(|it| it.to_string()).as_deref(), Some(THUMBPRINT));
    let target = "/api/enrollmentGroups/myx509eg/certificates/primary?api-version=2022-07-31";
    let body = sent(&server, "PUT", target).json();
    assert_eq!(body, json!({ "verified": false, "certificate": certificate.to_base64_pem(), "etag": "e1" }));
}

#[tokio::test]
async fn an_attested_certificate_is_set_as_verified_without_an_etag() {
    let server = Server::start([Reply::json(200, &signing_certificate())]);
    let (groups, certificate) = (client(&server).enrollment_groups(), certificate());
    groups
        .set_certificate(&id(), CertificateEntry::Secondary, &certificate, Possession::Attested, None)
        .await
        .expect("set");
    let target = "/api/enrollmentGroups/myx509eg/certificates/secondary?api-version=2022-07-31";
    let body = sent(&server, "PUT", target).json();
    assert_eq!(body, json!({ "verified": true, "certificate": certificate.to_base64_pem() }));
}

#[tokio::test]
async fn an_entry_is_absent_by_404_and_by_an_answer_without_a_thumbprint() {
    let empty = json!({ "verified": false, "etag": "e" });
    for reply in [Reply::error(404, "NotFound", "none"), Reply::json(200, &json!({})), Reply::json(200, &empty)] {
        let server = Server::start([reply]);
        let groups = client(&server).enrollment_groups();
        assert_eq!(groups.find_certificate(&id(), CertificateEntry::Primary).await.expect("an answer"), None);
        sent(&server, "GET", "/api/enrollmentGroups/myx509eg/certificates/primary?api-version=2022-07-31");
        server.then(Reply::json(200, &json!({})));
        let error = groups.certificate(&id(), CertificateEntry::Primary).await.expect_err("absent");
        assert!(error.is_not_found(), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_is_deleted_by_its_entry() {
    let server = Server::start([Reply::no_content()]);
    client(&server).enrollment_groups().delete_certificate(&id(), CertificateEntry::Secondary).await.expect("deleted");
    sent(&server, "DELETE", "/api/enrollmentGroups/myx509eg/certificates/secondary?api-version=2022-07-31");
}

#[tokio::test]
async fn a_verification_code_is_asked_for_by_an_empty_post() {
    let server = Server::start([Reply::json(200, &json!({ "verificationCode": "ABC123" }))]);
    let groups = client(&server).enrollment_groups();
    let code = groups.generate_verification_code(&id(), CertificateEntry::Primary).await.expect("a code");
    assert_eq!(code.to_string(), "ABC123");
    let target = "/api/enrollmentGroups/myx509eg/certificates/primary/generateVerificationCode?api-version=2022-07-31";
    assert!(sent(&server, "POST", target).body.is_empty());
}

#[tokio::test]
async fn a_proof_is_posted_and_any_success_is_success() {
    for reply in [Reply::no_content(), Reply::json(200, &signing_certificate())] {
        let server = Server::start([reply]);
        let groups = client(&server).enrollment_groups();
        groups.verify_certificate(&id(), CertificateEntry::Primary, &certificate()).await.expect("verified");
        let target = "/api/enrollmentGroups/myx509eg/certificates/primary/verify?api-version=2022-07-31";
        assert_eq!(sent(&server, "POST", target).json(), json!({ "certificate": certificate().to_base64_pem() }));
    }
}

#[tokio::test]
async fn the_preview_version_is_named_where_it_is_chosen() {
    let server = Server::start([Reply::json(200, &group())]);
    let builder = builder(&server.url(), &ManualClock::new()).api_version(ApiVersion::V2022_10_31Preview);
    builder.build().expect("a client").enrollment_groups().get(&id()).await.expect("a group");
    sent(&server, "GET", "/api/enrollmentGroups/myx509eg?api-version=2022-10-31-preview");
}

#[test]
fn the_description_refuses_what_it_does_not_name() {
    let api = OpenApi::load();
    let (group, version) = ("/enrollmentGroups/g", "?api-version=2022-07-31");
    let check = |method: &str, target: &str, kind: &str, body: &Value| {
        api.check_request(method, target, Some(kind), body.to_string().as_bytes())
    };
    let good = json!({ "displayName": "n", "type": "iot", "attestation": { "type": "x509" } });
    let target = format!("{group}{version}");
    let changed = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    assert_eq!(check("PUT", &target, "application/json", &good), Ok(()));
    assert_eq!(check("PATCH", &target, "application/merge-patch+json", &json!({ "displayName": null })), Ok(()));
    for (method, target, kind, body, why) in [
        ("PUT", target.as_str(), "application/json", changed("id", json!("g")), "a read-only field"),
        ("PUT", &target, "application/json", changed("displayname", json!("n")), "a misspelt field"),
        ("PUT", &target, "application/json", changed("type", json!("car")), "not in the enumeration"),
        ("PUT", &target, "application/json", changed("attestation", json!({})), "a required field within"),
        ("PUT", &target, "text/plain", good.clone(), "the content type"),
        ("PATCH", &target, "application/merge-patch+json", json!({ "enabled": "yes" }), "the type of a patched field"),
        ("PATCH", &target, "application/merge-patch+json", json!({ "enabeld": true }), "a misspelt patched field"),
        ("PUT", group, "application/json", good.clone(), "no version"),
        ("PUT", "/enrollmentGroups/g_1?api-version=2022-07-31", "application/json", good.clone(), "the id"),
        ("PUT", "/enrollmentGroups/g?api-version=2022-07-31&x=1", "application/json", good.clone(), "a parameter"),
        ("POST", &target, "application/json", good.clone(), "the method"),
        ("PUT", "/groups/g?api-version=2022-07-31", "application/json", good.clone(), "the path"),
    ] {
        assert!(check(method, target, kind, &body).is_err(), "{why} passed");
    }
    let json_type = [("Content-Type", "application/json; charset=utf-8")];
    let error = json!({ "error": { "code": "NotFound", "message": "none" } }).to_string();
    assert_eq!(api.check_response("GET", group, 404, &json_type, error.as_bytes()), Ok(()));
    assert!(api.check_response("GET", group, 404, &json_type, b"{}").is_err(), "an error without its form");
    assert!(api.check_response("GET", group, 202, &json_type, b"{}").is_err(), "a status that is not described");
    assert!(api.check_response("DELETE", group, 204, &[], b"x").is_err(), "a body where there is none");
    assert_eq!(api.check_response("DELETE", group, 204, &[], b""), Ok(()));
}
