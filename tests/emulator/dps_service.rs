//! The service API of the DPS instance: enrollments and enrollment groups.

use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::emulator::{Builder, Clock, DpsRight, Emulator, Fault, FaultKind};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::{
    instance::{Answer, DpsLab, SERVICE_VERSION, ca_references, certificates, intermediate, new_root, sas, sas_until},
    openapi::OpenApi,
};

const GROUP: &str = "/enrollmentGroups/eg";

fn keys() -> Value {
    json!({ "type": "symmetricKey" })
}

fn group(attestation: &Value) -> Value {
    json!({ "enrollmentGroupId": "eg", "attestation": attestation })
}

impl DpsLab {
    /// Sends a request with this `Authorization` header.
    async fn as_caller(&self, method: &str, path: &str, authorization: &str) -> Answer {
        let body = path.ends_with("/query").then(|| json!({ "query": "SELECT *" }));
        let target = format!("{path}?api-version={SERVICE_VERSION}");
        self.send(method, &target, &[("Authorization", authorization)], body.as_ref(), None).await
    }

    async fn query(&self, collection: &str, headers: &[(&str, &str)]) -> Answer {
        let body = json!({ "query": "SELECT *" });
        self.service_with("POST", &format!("{collection}/query"), headers, Some(&body)).await
    }
}

// The descriptions

#[test]
fn the_descriptions_refuse_what_they_do_not_list() {
    let (service, arm) = (OpenApi::dps_service(), OpenApi::arm());
    let put = |body: Value| {
        let target = format!("{GROUP}?api-version={SERVICE_VERSION}");
        service.check_request("PUT", &target, Some("application/json"), body.to_string().as_bytes())
    };
    assert_eq!(put(group(&keys())), Ok(()));
    for (name, value) in [("displayName", json!("x")), ("createdDateTimeUtc", json!("x")), ("iotHubs", json!([1]))] {
        let mut body = group(&keys());
        body[name] = value;
        assert!(put(body).is_err(), "{name}");
    }
    assert!(put(json!({ "enrollmentGroupId": "eg" })).is_err());
    assert!(service.check_request("GET", GROUP, None, b"").is_err(), "no version");
    assert!(service.check_request("PATCH", &format!("{GROUP}?api-version=1"), None, b"").is_err());
    let json = [("content-type", "application/json")];
    let state = json!({ "registrationId": "a", "status": "lost" }).to_string();
    assert!(service.check_response("GET", "/registrations/a", 200, &json, state.as_bytes()).is_err());
    assert!(service.check_response("GET", "/registrations/a", 404, &json, b"{\"error\":{}}").is_err());

    let base = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Devices/provisioningServices/d/certificates/c";
    assert!(arm.check_headers("DELETE", base, &[]).is_err());
    assert_eq!(arm.check_headers("DELETE", base, &["if-match"]), Ok(()));
    let certificate = |body: Value| arm.check_response("GET", base, 200, &json, body.to_string().as_bytes());
    let properties = json!({ "subject": "CN=a", "isVerified": true });
    assert_eq!(certificate(json!({ "id": "i", "name": "c", "etag": "e", "properties": properties })), Ok(()));
    assert!(certificate(json!({ "id": "i", "properties": { "verified": true } })).is_err());
    assert!(certificate(json!({ "id": "i", "location": "x" })).is_err());
}

// PUT

#[tokio::test]
async fn put_creates_without_an_etag_and_replaces_with_one() {
    let lab = DpsLab::start().await;
    let created = lab.group("eg", &keys()).await.expect(200);
    let first = created.etag();
    assert!(first.starts_with('"') && first.ends_with('"') && first.len() == 38, "{first}");
    assert_eq!(created.body["provisioningStatus"], "enabled");
    assert_eq!(created.body["capabilities"], json!({ "iotEdge": false }));
    assert_eq!(created.body["reprovisionPolicy"], json!({ "updateHubAssignment": true, "migrateDeviceData": true }));

    lab.group("eg", &keys()).await.refused(409, "already exists");
    lab.group("EG", &keys()).await.refused(409, "already exists");
    let mut body = group(&keys());
    body["provisioningStatus"] = json!("disabled");
    body["etag"] = json!("ignored: the header decides");
    let put = async |etag: &str| lab.service("PUT", GROUP, Some(etag), Some(&body)).await;
    put("\"0\"").await.refused(412, "If-Match");
    for invalid in [first.trim_matches('"'), &format!("\"{first}\""), "x"] {
        put(invalid).await.refused(400, "invalid");
    }
    let replaced = put(&first).await.expect(200);
    assert_eq!(replaced.body["provisioningStatus"], "disabled");
    assert_eq!(replaced.body["createdDateTimeUtc"], created.body["createdDateTimeUtc"]);
    assert_ne!(replaced.etag(), first);
    put(&first).await.refused(412, "If-Match");
    put("*").await.expect(200);
    assert_eq!(
        lab.service("GET", "/enrollmentGroups/eG", None, None).await.expect(200).text("/enrollmentGroupId"),
        "eg"
    );

    let other = json!({ "enrollmentGroupId": "none", "attestation": keys() });
    for etag in ["*", &first] {
        let answer = lab.service("PUT", "/enrollmentGroups/none", Some(etag), Some(&other)).await;
        answer.refused(404, "none");
    }
    lab.service("PUT", "/enrollmentGroups/none", None, Some(&body)).await.refused(400, "enrollmentGroupId");
}

#[tokio::test]
async fn put_resets_what_the_body_omits() {
    let lab = DpsLab::start().await;
    let mut body = json!({ "registrationId": "device-1", "attestation": keys() });
    let created = lab.service("PUT", "/enrollments/device-1", None, Some(&body)).await.expect(200);
    let members = json!({
        "deviceId": "hub-device",
        "iotHubs": ["a.azure-devices.net", "b.azure-devices.net"],
        "allocationPolicy": "static",
        "capabilities": { "iotEdge": true },
        "provisioningStatus": "disabled",
        "reprovisionPolicy": { "updateHubAssignment": false, "migrateDeviceData": true },
        "initialTwin": { "tags": { "a": 1 }, "properties": { "desired": { "b": { "c": true } } } },
        "optionalDeviceInformation": { "line": 7 },
    });
    body.as_object_mut().expect("an object").extend(members.as_object().expect("an object").clone());
    let path = "/enrollments/device-1";
    let changed = lab.service("PUT", path, Some(&created.etag()), Some(&body)).await.expect(200);
    for (name, value) in members.as_object().expect("an object") {
        if name != "initialTwin" && name != "optionalDeviceInformation" {
            assert_eq!(&changed.body[name], value, "{name}");
        }
    }
    // The service's own members are beside those of the twin, and can be sent back.
    let tags = &changed.body["initialTwin"]["tags"];
    assert_eq!((&tags["a"], &tags["count"], &tags["version"]), (&json!(1), &json!(1), &json!(1)));
    assert!(tags["metadata"]["lastUpdated"].is_string());
    assert_eq!(changed.body["initialTwin"]["properties"]["desired"]["b"], json!({ "c": true }));
    assert_eq!(changed.body["optionalDeviceInformation"]["line"], 7);
    body["initialTwin"] = changed.body["initialTwin"].clone();
    let again = lab.service("PUT", path, Some(&changed.etag()), Some(&body)).await.expect(200);
    assert_eq!(again.body["initialTwin"]["tags"]["count"], 1);

    let body = json!({ "registrationId": "device-1", "attestation": keys() });
    let reset = lab.service("PUT", path, Some(&again.etag()), Some(&body)).await.expect(200);
    let without = |body: &Value| {
        let mut members = body.as_object().expect("an object").clone();
        members.retain(|name, _| name != "etag" && name != "lastUpdatedDateTimeUtc");
        members
    };
    assert_eq!(without(&reset.body), without(&created.body));
}

#[tokio::test]
async fn invalid_bodies_name_the_member() {
    let lab = DpsLab::start().await;
    let with = |name: &str, value: Value| {
        let mut body = group(&keys());
        body[name] = value;
        body
    };
    for (body, message) in [
        (json!([]), "object"),
        (json!({ "attestation": keys() }), "enrollmentGroupId"),
        (json!({ "enrollmentGroupId": "eg" }), "attestation"),
        (group(&json!({ "type": "none" })), "attestation.type"),
        (group(&json!({ "type": "tpm", "tpm": { "endorsementKey": "AAAA" } })), "attestation.type"),
        (group(&json!({ "type": "x509" })), "attestation.x509"),
        (group(&json!({ "type": "x509", "x509": {} })), "attestation.x509.signingCertificates"),
        (group(&json!({ "type": "symmetricKey", "x509": {} })), "attestation.x509"),
        (group(&json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": "AAAA" } })), "16 to 64 bytes"),
        (group(&json!({ "type": "x509", "x509": { "caReferences": { "secondary": "a" } } })), "primary"),
        (with("provisioningStatus", json!("Enabled")), "provisioningStatus"),
        (with("provisioningstatus", json!("enabled")), "provisioningstatus"),
        (with("allocationPolicy", json!("custom")), "customAllocationDefinition"),
        (with("allocationPolicy", json!("Hashed")), "allocationPolicy"),
        (with("reprovisionPolicy", json!({ "updateHubAssignment": true })), "migrateDeviceData"),
        (with("iotHubs", json!("h")), "iotHubs"),
        (with("deviceId", json!("x")), "deviceId"),
        (with("credentialPolicyName", json!("x")), "credentialPolicyName"),
    ] {
        lab.service("PUT", GROUP, None, Some(&body)).await.refused(400, message);
    }
    for id in ["a%20b", "a.", "a:", &"a".repeat(129), "%C3%A4"] {
        lab.service("GET", &format!("/enrollmentGroups/{id}"), None, None).await.refused(400, "valid ID");
    }
    // Null is an absent member.
    let nulls = with("iotHubs", Value::Null);
    lab.send(
        "PUT",
        &format!("{GROUP}?api-version={SERVICE_VERSION}"),
        &[("Authorization", &format!("Bearer {}", lab.emulator.arm_token()))],
        Some(&nulls),
        None,
    )
    .await
    .expect(200);
}

#[tokio::test]
async fn versions_decide_on_members() {
    let lab = DpsLab::start().await;
    let token = format!("Bearer {}", lab.emulator.arm_token());
    let put = async |id: &str, version: &str, member: &str| {
        let body = json!({ "enrollmentGroupId": id, "attestation": keys(), member: "abc" });
        let target = format!("/enrollmentGroups/{id}?api-version={version}");
        lab.send("PUT", &target, &[("Authorization", &token)], Some(&body), None).await
    };
    for version in ["2019-03-31", "2021-06-01", "2021-10-01"] {
        put("a", version, "namespaceName").await.refused(400, "namespaceName");
    }
    let answer = put("b", "2025-07-01-preview", "credentialPolicyName").await.expect(200);
    assert_eq!(answer.body["credentialPolicyName"], "abc");
    put("c", "2026-04-01", "certificateAuthorityName").await.expect(200);
    let answer = put("d", "2026-11-01", "certificatePolicyName").await.expect(200);
    assert_eq!(answer.body["certificatePolicyName"], "abc");
    put("e", "2020-01-01", "x").await.refused(400, "api-version");
}

// Attestations

#[tokio::test]
async fn keys_are_generated_and_hidden_from_get() {
    let lab = DpsLab::start().await;
    let created = lab.group("eg", &keys()).await.expect(200);
    assert_eq!(created.body["attestation"], keys());
    let mechanism = lab.service("POST", "/enrollmentGroups/eg/attestationmechanism", None, None).await.expect(200);
    for key in ["primaryKey", "secondaryKey"] {
        let key = mechanism.text(&format!("/symmetricKey/{key}"));
        assert!(BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 64));
    }
    assert_ne!(mechanism.text("/symmetricKey/primaryKey"), mechanism.text("/symmetricKey/secondaryKey"));
    // PUT replaces: omitted keys are new ones.
    lab.service("PUT", GROUP, Some("*"), Some(&group(&keys()))).await.expect(200);
    let after = lab.service("POST", "/enrollmentGroups/eg/attestationmechanism", None, None).await.expect(200);
    assert_ne!(after.text("/symmetricKey/primaryKey"), mechanism.text("/symmetricKey/primaryKey"));
    // Sent along, they stay.
    lab.service("PUT", GROUP, Some("*"), Some(&group(&mechanism.body))).await.expect(200);
    let after = lab.service("POST", "/enrollmentGroups/eg/attestationmechanism", None, None).await.expect(200);
    assert_eq!(after.body, mechanism.body);
}

#[tokio::test]
async fn a_signing_certificate_is_described_and_hidden() {
    let lab = DpsLab::start().await;
    let root = new_root("Root");
    let created = lab.group("eg", &certificates("signingCertificates", root.certificate())).await.expect(200);
    let primary = &created.body["attestation"]["x509"]["signingCertificates"]["primary"];
    assert!(primary.get("certificate").is_none());
    assert_eq!(primary["info"]["sha1Thumbprint"], root.certificate().sha1_thumbprint().to_string());
    assert_eq!(primary["info"]["sha256Thumbprint"], root.certificate().sha256_thumbprint().to_string());
    assert_eq!(primary["info"]["subjectName"], "CN=Root");
    assert_eq!(primary["info"]["version"], 3);
    // Sent back without the certificate, it would be lost.
    lab.change(GROUP, "provisioningStatus", json!("disabled")).await.refused(400, "certificate: is missing");
    // Base64 of DER is accepted too.
    let mut body = group(&certificates("signingCertificates", root.certificate()));
    body["attestation"]["x509"]["signingCertificates"]["primary"]["certificate"] =
        json!(BASE64_STANDARD.encode(root.certificate().der()));
    lab.service("PUT", GROUP, Some(&created.etag()), Some(&body)).await.expect(200);
}

#[tokio::test]
async fn a_tpm_enrollment_is_kept() {
    let lab = DpsLab::start().await;
    let tpm = json!({ "type": "tpm", "tpm": { "endorsementKey": "AToAAQ==", "storageRootKey": "AAAA" } });
    let created = lab.individual("tpm-1", &tpm).await.expect(200);
    assert_eq!(created.body["attestation"]["tpm"], json!({ "endorsementKey": "AToAAQ==" }));
    let mechanism = lab.service("POST", "/enrollments/tpm-1/attestationmechanism", None, None).await.expect(200);
    assert_eq!(mechanism.body, tpm);
}

#[tokio::test]
async fn one_ca_is_in_one_group_only() {
    let lab = DpsLab::start().await;
    let (root, other) = (new_root("Root"), new_root("Other"));
    lab.group("eg", &ca_references("none", None)).await.refused(400, "none");
    for (name, authority) in [("root", &root), ("same", &root), ("other", &other)] {
        lab.upload(name, authority.certificate(), None).await.expect(200);
    }
    lab.group("one", &ca_references("root", None)).await.expect(200);
    for attestation in [
        ca_references("ROOT", None),
        ca_references("same", None),
        ca_references("other", Some("root")),
        certificates("signingCertificates", root.certificate()),
    ] {
        lab.group("two", &attestation).await.refused(409, "\"one\"");
    }
    lab.group("two", &ca_references("other", Some("OTHER"))).await.refused(400, "secondary");
    lab.group("two", &ca_references("other", None)).await.expect(200);
    lab.change("/enrollmentGroups/one", "attestation", ca_references("root", Some("other"))).await.refused(409, "two");
    lab.service("DELETE", "/enrollmentGroups/two", None, None).await.expect(204);
    lab.change("/enrollmentGroups/one", "attestation", ca_references("root", Some("other"))).await.expect(200);

    let intermediate = intermediate(&root, "Intermediate");
    let signing = certificates("signingCertificates", intermediate.certificate());
    lab.group("three", &signing).await.expect(200);
    lab.group("four", &signing).await.refused(409, "three");
    let device = certificates("clientCertificates", other.certificate());
    lab.individual("device-1", &device).await.expect(200);
    lab.individual("device-2", &device).await.refused(409, "device-1");
    lab.service("DELETE", "/enrollments/device-1", None, None).await.expect(204);
    lab.individual("device-2", &device).await.expect(200);
}

#[tokio::test]
async fn an_instance_has_100_groups_of_each_type_at_most() {
    let lab = DpsLab::start().await;
    for number in 0..100 {
        lab.group(&format!("g{number}"), &keys()).await.expect(200);
    }
    lab.group("g100", &keys()).await.refused(400, "limit");
    lab.change("/enrollmentGroups/g7", "provisioningStatus", json!("disabled")).await.expect(200);
    lab.upload("root", new_root("Root").certificate(), None).await.expect(200);
    lab.group("g100", &ca_references("root", None)).await.expect(200);
}

// Queries, deletion, bulk

#[tokio::test]
async fn queries_return_pages() {
    let lab = DpsLab::start().await;
    for number in 0..5 {
        lab.individual(&format!("Device-{number}"), &keys()).await.expect(200);
    }
    let all = lab.query("/enrollments", &[]).await.expect(200);
    assert_eq!(all.header("x-ms-item-type"), Some("enrollment"));
    assert_eq!(all.header("x-ms-continuation"), None);
    assert_eq!(all.header("x-ms-max-item-count"), Some("25"));
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let headers = [("x-ms-max-item-count", "2"), ("x-ms-continuation", &token)];
        let page = lab.query("/enrollments", &headers).await.expect(200);
        found.extend(page.body.as_array().expect("an array").clone());
        match page.header("x-ms-continuation") {
            Some(next) => next.clone_into(&mut token),
            None => break,
        }
    }
    assert_eq!(json!(found), all.body);
    assert_eq!(found.len(), 5);

    let headers = [("x-ms-continuation", token.as_str())];
    lab.query("/enrollmentGroups", &headers).await.refused(400, "x-ms-continuation");
    for size in ["0", "-1", "x"] {
        lab.query("/enrollments", &[("x-ms-max-item-count", size)]).await.refused(400, "x-ms-max-item-count");
    }
    for query in ["*", "select * from enrollments", " SELECT  * "] {
        let answer = lab.service("POST", "/enrollments/query", None, Some(&json!({ "query": query }))).await;
        assert_eq!(answer.expect(200).body, all.body);
    }
    for query in ["", "SELECT * FROM enrollmentGroups", "SELECT * WHERE x"] {
        let answer = lab.service("POST", "/enrollments/query", None, Some(&json!({ "query": query }))).await;
        answer.refused(400, "query");
    }
}

#[tokio::test]
async fn an_enrollment_can_have_the_id_query() {
    let lab = DpsLab::start().await;
    let token = format!("Bearer {}", lab.emulator.arm_token());
    let target = format!("/enrollments/query?api-version={SERVICE_VERSION}");
    let body = json!({ "registrationId": "query", "attestation": keys() });
    lab.send("PUT", &target, &[("Authorization", &token)], Some(&body), None).await.expect(200);
    lab.as_caller("GET", "/enrollments/query", &token).await.expect(200);
    lab.as_caller("GET", "/enrollments/Query", &token).await.expect(200);
    lab.as_caller("DELETE", "/enrollments/query", &token).await.expect(204);
}

#[tokio::test]
async fn deleting_honors_the_etag() {
    let lab = DpsLab::start().await;
    let etag = lab.group("eg", &keys()).await.expect(200).etag();
    lab.service("DELETE", GROUP, Some("\"0\""), None).await.refused(412, "If-Match");
    lab.service("DELETE", "/enrollmentGroups/EG", Some(&etag), None).await.expect(204);
    lab.service("DELETE", GROUP, None, None).await.refused(404, "eg");
    lab.service("GET", GROUP, None, None).await.refused(404, "eg");
    lab.service("POST", "/enrollmentGroups/eg/attestationmechanism", None, None).await.refused(404, "eg");
}

#[tokio::test]
async fn bulk_operations_report_each_failure() {
    let lab = DpsLab::start().await;
    let element = |id: usize| json!({ "registrationId": format!("device-{id}"), "attestation": keys() });
    let bulk = async |mode: &str, elements: Vec<Value>| {
        let body = json!({ "mode": mode, "enrollments": elements });
        lab.service("POST", "/enrollments", None, Some(&body)).await
    };
    let created = bulk("create", (0..10).map(element).collect()).await.expect(200);
    assert_eq!(created.body, json!({ "isSuccessful": true, "errors": [] }));
    let again = bulk("create", vec![element(3), element(10)]).await.expect(200);
    assert_eq!(again.body["isSuccessful"], false);
    assert_eq!(again.body["errors"][0]["registrationId"], "device-3");
    assert_eq!(again.body["errors"][0]["errorCode"].as_u64().map(|code| code / 1000), Some(409));
    assert_eq!(again.body["errors"].as_array().map(Vec::len), Some(1), "the other element is created");

    let etag = lab.service("GET", "/enrollments/device-10", None, None).await.expect(200).etag();
    let mut update = element(10);
    update["etag"] = json!("\"0\"");
    let stale = bulk("updateIfMatchETag", vec![update.clone()]).await.expect(200);
    assert_eq!(stale.body["errors"][0]["errorCode"].as_u64().map(|code| code / 1000), Some(412));
    assert_eq!(
        bulk("update", vec![update.clone(), element(99)]).await.expect(200).body["errors"][0]["registrationId"],
        "device-99"
    );
    update["etag"] = json!(etag);
    assert_eq!(bulk("updateIfMatchETag", vec![update]).await.expect(200).body["isSuccessful"], false);

    bulk("create", (0..11).map(element).collect()).await.refused(400, "1 to 10");
    bulk("create", vec![]).await.refused(400, "1 to 10");
    bulk("upsert", vec![element(0)]).await.refused(400, "mode");
    assert_eq!(bulk("delete", (0..10).map(element).collect()).await.expect(200).body["isSuccessful"], true);
    assert_eq!(lab.query("/enrollments", &[]).await.body.as_array().map(Vec::len), Some(1));

    let groups = json!({ "mode": "create", "enrollmentGroups": [group(&keys())] });
    lab.service("POST", "/enrollmentGroups", None, Some(&groups)).await.expect(200);
    lab.service("GET", GROUP, None, None).await.expect(200);
}

#[tokio::test]
async fn the_paths_of_the_node_sdk_are_accepted() {
    let lab = DpsLab::start().await;
    lab.group("eg", &keys()).await.expect(200);
    let token = format!("Bearer {}", lab.emulator.arm_token());
    lab.as_caller("POST", "/enrollmentgroups/eg/attestationmechanism", &token).await.expect(200);
    let bulk = json!({ "mode": "create", "enrollments": [{ "registrationId": "device-1", "attestation": keys() }] });
    let target = format!("/enrollments/?api-version={SERVICE_VERSION}");
    lab.send("POST", &target, &[("Authorization", &token)], Some(&bulk), None).await.expect(200);
}

// Authentication

#[tokio::test]
async fn sas_tokens_are_verified() {
    let lab = DpsLab::start().await;
    lab.group("eg", &keys()).await.expect(200);
    let [primary, secondary] = lab.policy_keys("provisioningserviceowner").await;
    let owner = "provisioningserviceowner";
    let host = lab.authority();
    let encoded = host.replace(':', "%3A");
    let lower = host.replace(':', "%3a");
    let get = async |token: &str| lab.as_caller("GET", GROUP, token).await;
    for resource in [
        host.as_str(),
        &encoded,
        &lower,
        "127.0.0.1",
        &format!("{host}/enrollmentGroups"),
        &format!("{host}/ENROLLMENTGROUPS/eg"),
        &format!("{encoded}%2FenrollmentGroups%2Feg"),
    ] {
        get(&sas(resource, &primary, owner)).await.expect(200);
        get(&sas(resource, &secondary, owner)).await.expect(200);
    }
    for resource in [
        "127.0.0.2",
        "example.com",
        "127.0.0",
        &format!("{host}/enrollments"),
        &format!("{host}/enrollmentGroup"),
        &format!("{host}/enrollmentGroups/e"),
        &format!("{host}/enrollmentGroups/eg/attestationmechanism"),
        &format!("http://{host}"),
    ] {
        get(&sas(resource, &primary, owner)).await.refused(401, "another resource");
    }
    // A path with an escaped character is compared decoded.
    for resource in [format!("{host}/enrollments/a:b"), format!("{encoded}%2Fenrollments%2Fa%3Ab")] {
        let token = sas(&resource, &primary, owner);
        lab.as_caller("GET", "/enrollments/a%3Ab", &token).await.refused(404, "a:b");
    }
    let right = sas(&host, &primary, owner);
    let other_key = BASE64_STANDARD.encode([7; 64]);
    for (wrong, message) in [
        (sas(&host, &other_key, owner), "not signed"),
        (sas(&host, &primary, "other"), "not signed"),
        (sas_until(&host, &primary, owner, 1), "expired"),
        (right.replace("sig=", "sig=A"), ""),
        (right.replace("&skn=provisioningserviceowner", ""), "not signed"),
        (right.replace("sr=", "sr=x"), "another resource"),
        (right.replace("SharedAccessSignature ", ""), "malformed"),
        (lab.emulator.token().to_owned(), ""),
        ("Bearer x".to_owned(), "bearer"),
        (String::new(), "malformed"),
    ] {
        let refused = get(&wrong).await.refused(401, message);
        assert_eq!(refused.body["errorCode"], 401_002);
        assert!(!refused.body.to_string().contains(&primary));
    }
    // An expiry that was extended after signing.
    let (head, se) = right.split_once("&se=").expect("an expiry");
    let (expiry, rest) = se.split_once('&').expect("a policy");
    let extended = format!("{head}&se={}&{rest}", expiry.parse::<u64>().expect("a number") + 1);
    get(&extended).await.refused(401, "not signed");
}

#[tokio::test]
async fn a_policy_has_only_its_rights() {
    let builder = Emulator::builder()
        .dps_policy("er", [DpsRight::EnrollmentRead])
        .dps_policy("ew", [DpsRight::EnrollmentWrite])
        .dps_policy("rr", [DpsRight::RegistrationStatusRead])
        .dps_policy("rw", [DpsRight::RegistrationStatusWrite])
        .dps_policy("others", [DpsRight::ServiceConfig, DpsRight::DeviceConnect]);
    let lab = DpsLab::with(builder).await;
    for (method, path, allowed) in [
        ("GET", "/enrollments/x", "er"),
        ("POST", "/enrollments/query", "er"),
        ("POST", "/enrollments", "ew"),
        ("PUT", "/enrollments/x", "ew"),
        ("DELETE", "/enrollments/x", "ew"),
        ("POST", "/enrollments/x/attestationmechanism", "ew"),
        ("GET", "/enrollmentGroups/x", "er"),
        ("DELETE", "/enrollmentGroups/x", "ew"),
        ("GET", "/registrations/x", "rr"),
        ("POST", "/registrations/x/query", "rr"),
        ("DELETE", "/registrations/x", "rw"),
    ] {
        for policy in ["er", "ew", "rr", "rw", "others"] {
            let [key, _] = lab.policy_keys(policy).await;
            let answer = lab.as_caller(method, path, &sas(&lab.authority(), &key, policy)).await;
            if policy == allowed {
                assert_ne!(answer.status, 401, "{method} {path} {policy}");
            } else {
                answer.refused(401, "does not have the right");
            }
        }
    }
}

#[tokio::test]
async fn without_local_authentication_only_the_bearer_token_counts() {
    let lab = DpsLab::with(Emulator::builder().local_auth(false)).await;
    let [key, _] = lab.policy_keys("provisioningserviceowner").await;
    let token = sas(&lab.authority(), &key, "provisioningserviceowner");
    lab.as_caller("GET", GROUP, &token).await.refused(401, "local authentication is disabled");
    lab.service("GET", GROUP, None, None).await.refused(404, "eg");
}

#[tokio::test]
async fn tokens_expire_by_the_clock_of_the_emulator() {
    let clock = Clock::frozen(OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(1_800_000_000));
    let lab = DpsLab::with(Emulator::builder().clock(clock.clone())).await;
    let [key, _] = lab.policy_keys("provisioningserviceowner").await;
    let token = sas_until(&lab.authority(), &key, "provisioningserviceowner", 1_800_000_060);
    lab.as_caller("GET", GROUP, &token).await.refused(404, "eg");
    clock.advance(std::time::Duration::from_secs(60));
    lab.as_caller("GET", GROUP, &token).await.refused(401, "expired");
}

// Faults, rate, log

async fn limited(builder: Builder) -> DpsLab {
    DpsLab::with(builder.clock(Clock::frozen(OffsetDateTime::now_utc())).rate(std::num::NonZeroU32::new(2))).await
}

#[tokio::test]
async fn each_service_has_its_own_rate() {
    let lab = limited(Emulator::builder()).await;
    for _ in 0..2 {
        lab.arm("GET", "", None, None).await.expect(200);
        lab.service("GET", GROUP, None, None).await.refused(404, "eg");
    }
    let answer = lab.service("GET", GROUP, None, None).await.refused(429, "too many");
    assert_eq!(answer.body["errorCode"], 429_001);
    assert_eq!(answer.header("retry-after"), Some("1"));
    let answer = lab.arm("GET", "", None, None).await.expect(429);
    assert_eq!(answer.body["error"]["code"], "TooManyRequests");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn faults_and_the_log_reach_all_services() {
    let lab = DpsLab::start().await;
    let fault = || Fault::new(FaultKind::Status { status: 503, retry_after: None });
    // Requests without a valid token do not use up faults.
    lab.emulator.inject(fault().path_contains("/enrollmentGroups")).expect("a fault");
    lab.as_caller("GET", GROUP, "Bearer x").await.refused(401, "");
    lab.service("GET", GROUP, None, None).await.refused(503, "fault");
    lab.service("GET", GROUP, None, None).await.refused(404, "eg");
    lab.emulator.inject(fault().method("PUT").path_contains("/certificates/")).expect("a fault");
    let root = new_root("Root");
    let answer = lab.upload("root", root.certificate(), None).await.expect(503);
    assert_eq!(answer.body["error"]["code"], "ServiceUnavailable");
    lab.upload("root", root.certificate(), None).await.expect(200);
    let log = lab.emulator.requests();
    let statuses: Vec<_> = log.iter().map(|record| (record.method.as_str(), record.status)).collect();
    let expected = [("GET", 401), ("GET", 503), ("GET", 404), ("PUT", 503), ("PUT", 200)];
    assert_eq!(statuses, expected.map(|(method, status)| (method, Some(status))));
    assert_eq!(log[0].path, GROUP);
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_are_named() {
    let lab = DpsLab::start().await;
    lab.service("GET", "/enrollmentGroups", None, None).await.refused(405, "GET");
    lab.service("PUT", "/registrations/x", None, Some(&json!({}))).await.refused(405, "PUT");
    lab.service("GET", "/enrollmentGroups/a/b/c", None, None).await.refused(404, "does not exist");
    let token = format!("Bearer {}", lab.emulator.arm_token());
    for query in ["", "?api-version=2018-04-01"] {
        let answer = lab.send("GET", &format!("{GROUP}{query}"), &[("Authorization", &token)], None, None).await;
        answer.refused(400, "api-version");
    }
}
