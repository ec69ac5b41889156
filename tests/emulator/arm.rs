//! Resource Manager: the DPS instance, its certificates and keys.

use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::{
    certificate::{CertificateAuthority, CommonName, IssueOptions},
    emulator::{DpsRight, Emulator, EmulatorError},
};
use serde_json::{Value, json};

use crate::support::instance::{Answer, DpsLab, ca_references, new_root};

/// Expects an error of the resource provider.
#[track_caller]
fn refused(answer: Answer, status: u16, message: &str) -> Answer {
    let body = &answer.body;
    assert_eq!(answer.status, status, "{body}");
    assert_eq!(body["code"].as_u64().map(|code| code / 1000), Some(u64::from(status)), "{body}");
    assert!(body["message"].as_str().is_some_and(|found| found.contains(message)), "{message:?}: {body}");
    answer
}

/// Expects an error of Resource Manager itself.
#[track_caller]
fn refused_by_arm(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.body["error"]["code"]), (status, &json!(code)), "{}", answer.body);
    assert!(answer.body["error"]["message"].is_string());
}

fn proof(authority: &CertificateAuthority, code: &str) -> Value {
    let code = CommonName::new(code).expect("a common name");
    let proof = authority.issue_verification(&code, &IssueOptions::default()).expect("a proof");
    json!({ "certificate": proof.certificate.to_base64_pem() })
}

#[tokio::test]
async fn the_instance_is_found_from_the_subscriptions_on() {
    let lab = DpsLab::with(Emulator::builder().dps_name("my-dps")).await;
    let token = format!("Bearer {}", lab.emulator.arm_token());
    let headers = [("Authorization", token.as_str())];
    let subscriptions =
        lab.send("GET", "/subscriptions?api-version=2020-01-01", &headers, None, None).await.expect(200);
    let subscription = subscriptions.text("/value/0/subscriptionId");
    assert_eq!(subscription, lab.emulator.subscription());
    assert_eq!(subscriptions.text("/value/0/state"), "Enabled");

    let provider = "providers/Microsoft.Devices/provisioningServices?api-version=2022-12-12";
    let all =
        lab.send("GET", &format!("/subscriptions/{subscription}/{provider}"), &headers, None, None).await.expect(200);
    let instance = lab.arm("GET", "", None, None).await.expect(200);
    assert_eq!(all.body, json!({ "value": [instance.body] }));
    let group = format!("/subscriptions/{subscription}/resourceGroups/emulated/{provider}");
    assert_eq!(lab.send("GET", &group, &headers, None, None).await.body, all.body);

    assert_eq!(instance.text("/name"), "my-dps");
    assert_eq!(instance.text("/id"), lab.arm_path(""));
    assert_eq!(instance.text("/resourcegroup"), lab.emulator.resource_group());
    let properties = &instance.body["properties"];
    assert_eq!(properties["idScope"], lab.emulator.dps_id_scope());
    assert_eq!(properties["serviceOperationsHostName"], lab.authority());
    assert_eq!(properties["deviceProvisioningHostName"], lab.authority());
    assert_eq!((&properties["state"], &properties["allocationPolicy"]), (&json!("Active"), &json!("Hashed")));
    assert!(properties["iotHubs"][0]["connectionString"].as_str().is_some_and(|text| text.ends_with("=****")));
    assert!(properties.get("disableLocalAuth").is_none(), "later versions have it");
    assert_ne!(lab.emulator.dps_id_scope(), lab.emulator.id_scope());
}

#[tokio::test]
async fn only_the_bearer_token_is_authorized() {
    let lab = DpsLab::start().await;
    let target = format!("{}?api-version=2022-12-12", lab.arm_path(""));
    let right = format!("Bearer {}", lab.emulator.arm_token());
    for wrong in
        [lab.emulator.token(), lab.emulator.arm_token(), "Bearer x", &right.to_lowercase(), &format!("{right}x")]
    {
        let answer = lab.send("GET", &target, &[("Authorization", wrong)], None, None).await;
        refused_by_arm(&answer, 401, "InvalidAuthenticationToken");
    }
    refused_by_arm(&lab.send("GET", &target, &[], None, None).await, 401, "InvalidAuthenticationToken");
    let twice = [("Authorization", right.as_str()); 2];
    refused_by_arm(&lab.send("GET", &target, &twice, None, None).await, 401, "InvalidAuthenticationToken");
}

#[tokio::test]
async fn paths_are_compared_without_regard_to_case() {
    let lab = DpsLab::start().await;
    lab.upload("Root-1", new_root("Root").certificate(), None).await.expect(200);
    let token = format!("Bearer {}", lab.emulator.arm_token());
    let path = lab.arm_path("/certificates/Root-1");
    for path in [path.to_lowercase(), path.to_uppercase(), format!("{path}/")] {
        let answer =
            lab.send("GET", &format!("{path}?api-version=2022-12-12"), &[("Authorization", &token)], None, None).await;
        assert_eq!(answer.expect(200).text("/name"), "Root-1");
    }
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let lab = DpsLab::start().await;
    let token = format!("Bearer {}", lab.emulator.arm_token());
    let path = lab.arm_path("/certificates");
    let [subscription, group, name] = [lab.emulator.subscription(), "/emulated/", "emulated-dps"];
    for (from, to, code) in [
        (subscription, "1", "SubscriptionNotFound"),
        (group, "/other/", "ResourceGroupNotFound"),
        (name, "other-dps", "ResourceNotFound"),
    ] {
        let target = format!("{}?api-version=2022-12-12", path.replace(from, to));
        refused_by_arm(&lab.send("GET", &target, &[("Authorization", &token)], None, None).await, 404, code);
    }
    refused(lab.arm("GET", "/certificates/none", None, None).await, 404, "none");
    refused(lab.arm("POST", "/certificates/none/generateVerificationCode", Some("x"), None).await, 404, "none");
    refused(lab.arm("POST", "/keys/none/listkeys", None, None).await, 404, "none");
    lab.arm("DELETE", "/certificates/none", None, None).await.expect(204);
}

#[tokio::test]
async fn every_version_is_accepted_and_decides_on_the_body_of_a_certificate() {
    let lab = DpsLab::with(Emulator::builder().local_auth(false)).await;
    let token = format!("Bearer {}", lab.emulator.arm_token());
    let headers = [("Authorization", token.as_str())];
    let certificate = new_root("Root").certificate().to_base64_pem();
    let flat = json!({ "certificate": certificate });
    let wrapped = json!({ "properties": { "certificate": certificate } });
    for (version, is_wrapped) in [
        ("2017-11-15", false),
        ("2018-01-22", false),
        ("2020-01-01", false),
        ("2020-03-01", false),
        ("2021-10-15", false),
        ("2022-02-05", true),
        ("2022-12-12", true),
        ("2023-03-01-preview", true),
        ("2025-02-01-preview", true),
        ("2026-03-01-preview", true),
        ("2026-06-01-preview", true),
        ("2026-08-31", true),
        ("2026-11-01", true),
    ] {
        let target = format!("{}?api-version={version}", lab.arm_path(&format!("/certificates/c{version}")));
        let (right, wrong) = if is_wrapped { (&wrapped, &flat) } else { (&flat, &wrapped) };
        refused(lab.send("PUT", &target, &headers, Some(wrong), None).await, 400, "");
        lab.send("PUT", &target, &headers, Some(right), None).await.expect(200);
        let target = format!("{}?api-version={version}", lab.arm_path(""));
        let instance = lab.send("GET", &target, &headers, None, None).await.expect(200);
        let disabled = instance.body["properties"].get("disableLocalAuth");
        assert_eq!(disabled, version.starts_with("2026").then_some(&json!(true)), "{version}");
    }
    for query in ["", "?api-version=2019-01-01", "?api-version=2022-12-12&api-version=2022-02-05"] {
        let answer = lab.send("GET", &format!("{}{query}", lab.arm_path("")), &headers, None, None).await;
        refused_by_arm(&answer, 400, "NoRegisteredProviderFound");
    }
}

#[tokio::test]
async fn a_certificate_is_verified_by_a_chain_of_etags() {
    let lab = DpsLab::start().await;
    let root = new_root("Root");
    let path = "/certificates/root";
    let created = lab.upload("root", root.certificate(), None).await.expect(200);
    let properties = &created.body["properties"];
    assert_eq!(properties["thumbprint"], root.certificate().sha1_thumbprint().to_string());
    assert_eq!(properties["isVerified"], false);
    assert_eq!(properties["certificate"], root.certificate().to_base64_pem(), "as it was uploaded");
    assert_eq!(properties["subject"], "CN=Root");
    let expiry = properties["expiry"].as_str().expect("a date");
    assert!(expiry.ends_with(" GMT") && expiry.contains(", "), "{expiry}");
    let first = created.etag();
    assert!(BASE64_STANDARD.decode(&first).is_ok_and(|bytes| bytes.len() == 8), "{first}");

    // Each operation needs the current etag.
    for (method, below) in [("POST", "/generateVerificationCode"), ("POST", "/verify"), ("DELETE", "")] {
        let body = (below == "/verify").then(|| proof(&root, "code"));
        let target = format!("{path}{below}");
        refused(lab.arm(method, &target, None, body.as_ref()).await, 400, "If-Match is missing");
        refused(lab.arm(method, &target, Some("AAAAAAAAAAA="), body.as_ref()).await, 412, "If-Match");
    }

    let coded = lab.arm("POST", &format!("{path}/generateVerificationCode"), Some(&first), None).await.expect(200);
    let (code, second) = (coded.text("/properties/verificationCode"), coded.etag());
    assert!(code.len() >= 40 && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()), "{code}");
    assert_ne!(first, second);
    assert!(lab.arm("GET", path, None, None).await.body["properties"].get("verificationCode").is_none());

    let verify = format!("{path}/verify");
    refused(lab.arm("POST", &verify, Some(&first), Some(&proof(&root, &code))).await, 412, "If-Match");
    let wrong_key = proof(&new_root("Root"), &code);
    let failed = refused(lab.arm("POST", &verify, Some(&second), Some(&wrong_key)).await, 400, "Proof-Of-Possession");
    assert_eq!(failed.body["code"], 400_053);
    refused(lab.arm("POST", &verify, Some(&second), Some(&proof(&root, "0"))).await, 400, "Proof-Of-Possession");
    let verified = lab.arm("POST", &verify, Some(&second), Some(&proof(&root, &code))).await.expect(200);
    assert_eq!(verified.body["properties"]["isVerified"], true);
    let third = verified.etag();
    assert_ne!(third, second);
    assert_eq!(lab.arm("GET", path, Some(&third), None).await.expect(200).body, verified.body);
    assert_eq!(lab.arm("GET", "/certificates", None, None).await.body, json!({ "value": [verified.body] }));
    refused(lab.arm("POST", &verify, Some(&third), Some(&proof(&root, &code))).await, 400, "no current");

    // Replaced, it is not verified any more, and its code is gone.
    let coded = lab.arm("POST", &format!("{path}/generateVerificationCode"), Some(&third), None).await.expect(200);
    refused(lab.upload("ROOT", root.certificate(), None).await, 412, "exists");
    refused(lab.upload("root", root.certificate(), Some(&third)).await, 412, "If-Match");
    let replaced = lab.upload("ROOT", root.certificate(), Some(&coded.etag())).await.expect(200);
    assert_eq!((replaced.text("/name").as_str(), &replaced.body["properties"]["isVerified"]), ("root", &json!(false)));
    let code = coded.text("/properties/verificationCode");
    let answer = lab.arm("POST", &verify, Some(&replaced.etag()), Some(&proof(&root, &code))).await;
    refused(answer, 400, "no current");

    lab.arm("DELETE", path, Some(&replaced.etag()), None).await.expect(200);
    refused(lab.arm("GET", path, None, None).await, 404, "root");
}

#[tokio::test]
async fn a_second_code_invalidates_the_first() {
    let lab = DpsLab::start().await;
    let root = new_root("Root");
    let etag = lab.upload("lab-ca", root.certificate(), None).await.expect(200).etag();
    let first = lab.arm("POST", "/certificates/lab-ca/generateVerificationCode", Some(&etag), None).await.expect(200);
    let second =
        lab.arm("POST", "/certificates/lab-ca/generateVerificationCode", Some(&first.etag()), None).await.expect(200);
    let [old, new] = [&first, &second].map(|answer| proof(&root, &answer.text("/properties/verificationCode")));
    let etag = second.etag();
    refused(lab.arm("POST", "/certificates/lab-ca/verify", Some(&etag), Some(&old)).await, 400, "Proof-Of-Possession");
    lab.arm("POST", "/certificates/lab-ca/verify", Some(&etag), Some(&new)).await.expect(200);
}

#[tokio::test]
async fn only_a_ca_certificate_under_a_valid_name_is_accepted() {
    let lab = DpsLab::start().await;
    let root = new_root("Root");
    let device = root.issue_device(&"device-1".parse().expect("an id"), &IssueOptions::default()).expect("a device");
    let put = |certificate: Value| json!({ "properties": { "certificate": certificate } });
    for wrong in [json!(""), json!("AAAA"), json!(device.certificate.to_base64_pem()), json!(1)] {
        refused(lab.arm("PUT", "/certificates/c", None, Some(&put(wrong))).await, 400, "certificate");
    }
    let misspelt = json!({ "properties": { "certificate": root.certificate().to_base64_pem(), "isverified": true } });
    refused(lab.arm("PUT", "/certificates/c", None, Some(&misspelt)).await, 400, "isverified");
    for name in ["a%20b", "a:b", &"a".repeat(65)] {
        refused(lab.upload(name, root.certificate(), None).await, 400, "valid certificate name");
    }
    // DER in base64, and PEM in base64.
    let der = put(json!(BASE64_STANDARD.encode(root.certificate().der())));
    lab.arm("PUT", "/certificates/a.b_c-1", None, Some(&der)).await.expect(200);
}

#[tokio::test]
async fn an_instance_has_25_certificates_at_most() {
    let lab = DpsLab::start().await;
    let root = new_root("Root");
    for number in 0..25 {
        lab.upload(&format!("c{number}"), root.certificate(), None).await.expect(200);
    }
    refused(lab.upload("c25", root.certificate(), None).await, 400, "limit");
    let etag = lab.arm("GET", "/certificates/c7", None, None).await.etag();
    lab.upload("c7", root.certificate(), Some(&etag)).await.expect(200);
}

#[tokio::test]
async fn a_certificate_that_a_group_refers_to_cannot_be_deleted() {
    let lab = DpsLab::start().await;
    lab.upload_verified("root", new_root("Root").certificate()).await;
    lab.group("g", &ca_references("ROOT", None)).await.expect(200);
    let etag = lab.arm("GET", "/certificates/root", None, None).await.etag();
    refused(lab.arm("DELETE", "/certificates/root", Some(&etag), None).await, 409, "\"g\"");
    lab.service("DELETE", "/enrollmentGroups/g", None, None).await.expect(204);
    lab.arm("DELETE", "/certificates/root", Some(&etag), None).await.expect(200);
}

#[tokio::test]
async fn keys_are_listed_with_their_rights() {
    let builder =
        Emulator::builder().dps_policy("reader", [DpsRight::EnrollmentRead, DpsRight::RegistrationStatusRead]);
    let lab = DpsLab::with(builder).await;
    let all = lab.arm("POST", "/listkeys", None, None).await.expect(200);
    assert_eq!(all.text("/value/0/keyName"), "provisioningserviceowner");
    assert_eq!(all.text("/value/1/rights"), "EnrollmentRead, RegistrationStatusRead");
    let owner = lab.arm("POST", "/keys/ProvisioningServiceOwner/listkeys", None, None).await.expect(200);
    assert_eq!(owner.body, all.body["value"][0]);
    let key = owner.text("/primaryKey");
    assert!(BASE64_STANDARD.decode(&key).is_ok_and(|bytes| bytes.len() == 64));
    let expected =
        format!("HostName={};SharedAccessKeyName=provisioningserviceowner;SharedAccessKey={key}", lab.authority());
    assert_eq!(lab.emulator.dps_connection_string(), expected);
}

#[tokio::test]
async fn the_instance_itself_cannot_be_changed() {
    let lab = DpsLab::start().await;
    for method in ["PUT", "PATCH", "DELETE"] {
        let body = json!({});
        let answer = lab.arm(method, "", None, Some(&body)).await;
        refused_by_arm(&answer, 405, "MethodNotAllowed");
        assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    }
}

#[tokio::test]
async fn invalid_names_of_the_instance_and_its_policies_are_refused() {
    let all = || Emulator::builder().dps_policy("a", [DpsRight::EnrollmentRead]);
    for builder in [
        Emulator::builder().dps_name("my dps"),
        Emulator::builder().dps_name(""),
        all().dps_policy("A", [DpsRight::EnrollmentRead]),
        all().dps_policy("provisioningserviceowner", []),
        all().dps_policy("a/b", []),
    ] {
        let error = builder.start().await.expect_err("an invalid name");
        assert!(matches!(error, EmulatorError::DpsInstance(_)), "{error}");
    }
}
