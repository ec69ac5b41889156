//! Which devices the DPS instance admits, and their registration records.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::{
    certificate::{Certificate, CertificateAuthority, IssueOptions, IssuedCertificate},
    emulator::Emulator,
};
use serde_json::{Value, json};

use crate::support::{
    caller::{Answer, Caller, Identity},
    instance::{DpsLab, ca_references, certificates, intermediate, new_root, sas},
    openapi::OpenApi,
};

const ID: &str = "sensor-1";
const UNKNOWN_CA: &str = "CA certificate not found.";

async fn start() -> DpsLab {
    DpsLab::with(Emulator::builder().tls(true).registration_retry_after(Duration::ZERO)).await
}

fn issue(authority: &CertificateAuthority, id: &str) -> IssuedCertificate {
    authority.issue_device(&id.parse().expect("an id"), &IssueOptions::default()).expect("a certificate")
}

impl DpsLab {
    /// Returns a device that presents a certificate and the given others.
    fn device(&self, leaf: &IssuedCertificate, others: &[&Certificate]) -> Caller<'_> {
        let mut chain = vec![leaf.certificate.clone()];
        chain.extend(others.iter().map(|other| (*other).clone()));
        Caller::presenting(&self.emulator, Identity::new(&chain, &leaf.key)).at_instance()
    }

    /// Registers a device by key and returns the response to `register`.
    async fn register_by_key(&self, id: &str, key: &[u8]) -> Answer {
        let scope = self.emulator.dps_id_scope();
        let resource = format!("{scope}%2Fregistrations%2F{id}");
        let token = sas(&resource, &BASE64_STANDARD.encode(key), "registration");
        let caller = Caller::new(&self.emulator).at_instance();
        let body = json!({ "registrationId": id });
        let headers = format!("Authorization: {token}\r\n");
        caller.send("PUT", &caller.path(id, "/register"), &headers, Some(&body)).await
    }

    async fn keys(&self, path: &str) -> Vec<u8> {
        let answer = self.service("POST", &format!("{path}/attestationmechanism"), None, None).await.expect(200);
        BASE64_STANDARD.decode(answer.text("/symmetricKey/primaryKey")).expect("base64")
    }

    /// Expects that a device is assigned by this group.
    async fn admits(&self, device: &Caller<'_>, group: &str) -> Value {
        let answer = device.assigned(ID).await;
        assert_eq!(answer.text("/registrationState/x509/enrollmentGroupId"), group);
        let path = device.path(ID, "");
        let state = answer.body["registrationState"].clone();
        let json = [("content-type", "application/json")];
        let held = OpenApi::dps_device().check_response("POST", &path, 200, &json, state.to_string().as_bytes());
        assert_eq!(held, Ok(()));
        state
    }
}

#[tokio::test]
async fn a_device_of_a_verified_certificate_is_assigned_to_the_linked_hub() {
    let lab = start().await;
    let root = new_root("Root");
    lab.upload("root", root.certificate(), None).await.expect(200);
    lab.group("eg", &ca_references("root", None)).await.expect(200);
    let leaf = issue(&root, ID);
    let device = lab.device(&leaf, &[]);
    device.register(ID).await.refused(401, 401_002, UNKNOWN_CA);

    let etag = lab.arm("GET", "/certificates/root", None, None).await.etag();
    let body = json!({ "properties": { "certificate": root.certificate().to_base64_pem(), "isVerified": true } });
    let verified = lab.arm("PUT", "/certificates/root", Some(&etag), Some(&body)).await.expect(200);
    let state = lab.admits(&device, "eg").await;
    assert_eq!((&state["deviceId"], &state["status"]), (&json!(ID), &json!("assigned")));
    let instance = lab.arm("GET", "", None, None).await.expect(200);
    assert_eq!(state["assignedHub"], instance.text("/properties/iotHubs/0/hostName"));
    let signer = &state["x509"]["signingCertificateInfo"]["sha1Thumbprint"];
    assert_eq!(*signer, root.certificate().sha1_thumbprint().to_string());

    // The application does not know the device, and its ID scope does not admit it.
    let application = Caller::presenting(&lab.emulator, Identity::of(&leaf));
    application.register(ID).await.refused(401, 401_002, UNKNOWN_CA);
    Caller::new(&lab.emulator).api("GET", &format!("/devices/{ID}"), None).await.expect(404);

    // Replaced in place, the certificate is not verified.
    lab.upload("root", root.certificate(), Some(&verified.etag())).await.expect(200);
    device.register(ID).await.refused(401, 401_002, UNKNOWN_CA);
}

#[tokio::test]
async fn the_nearest_group_decides_also_when_it_is_disabled() {
    let lab = start().await;
    let root = new_root("Root");
    let issuing = intermediate(&root, "Intermediate");
    let leaf = issue(&issuing, ID);
    let device = lab.device(&leaf, &[issuing.certificate()]);
    lab.upload_verified("root", root.certificate()).await;
    lab.upload_verified("intermediate", issuing.certificate()).await;
    lab.group("far", &ca_references("root", None)).await.expect(200);
    lab.admits(&device, "far").await;
    lab.group("near", &ca_references("intermediate", None)).await.expect(200);
    lab.admits(&device, "near").await;
    lab.change("/enrollmentGroups/far", "provisioningStatus", json!("disabled")).await.expect(200);
    lab.admits(&device, "near").await;
    lab.change("/enrollmentGroups/far", "provisioningStatus", json!("enabled")).await.expect(200);
    lab.change("/enrollmentGroups/near", "provisioningStatus", json!("disabled")).await.expect(200);
    device.register(ID).await.refused(401, 401_002, "Unauthorized");
    // A device directly under the root is not affected.
    lab.admits(&lab.device(&issue(&root, ID), &[]), "far").await;
}

#[tokio::test]
async fn either_reference_of_a_group_admits() {
    let lab = start().await;
    let (old, new) = (new_root("Old"), new_root("New"));
    lab.upload_verified("old", old.certificate()).await;
    lab.upload_verified("new", new.certificate()).await;
    lab.group("eg", &ca_references("old", Some("NEW"))).await.expect(200);
    lab.admits(&lab.device(&issue(&old, ID), &[]), "eg").await;
    lab.admits(&lab.device(&issue(&new, ID), &[]), "eg").await;
    lab.change("/enrollmentGroups/eg", "attestation", ca_references("new", None)).await.expect(200);
    lab.device(&issue(&old, ID), &[]).register(ID).await.refused(401, 401_002, UNKNOWN_CA);
}

#[tokio::test]
async fn a_signing_certificate_needs_a_verified_certificate_above_it() {
    let lab = start().await;
    let root = new_root("Root");
    let issuing = intermediate(&root, "Intermediate");
    let leaf = issue(&issuing, ID);
    let device = lab.device(&leaf, &[issuing.certificate()]);
    lab.group("eg", &certificates("signingCertificates", issuing.certificate())).await.expect(200);
    device.register(ID).await.refused(401, 401_002, UNKNOWN_CA);
    lab.upload("root", root.certificate(), None).await.expect(200);
    device.register(ID).await.refused(401, 401_002, UNKNOWN_CA);
    let etag = lab.arm("GET", "/certificates/root", None, None).await.etag();
    lab.arm("DELETE", "/certificates/root", Some(&etag), None).await.expect(200);
    lab.upload_verified("root", root.certificate()).await;
    lab.admits(&device, "eg").await;
    // The device has to present the chain up to the verified certificate.
    lab.device(&leaf, &[]).register(ID).await.refused(401, 401_002, UNKNOWN_CA);
    // Verified itself, it needs nothing above it.
    lab.upload_verified("intermediate", issuing.certificate()).await;
    lab.admits(&lab.device(&leaf, &[]), "eg").await;
}

#[tokio::test]
async fn an_individual_enrollment_takes_precedence() {
    let lab = start().await;
    let root = new_root("Root");
    lab.upload_verified("root", root.certificate()).await;
    lab.group("eg", &ca_references("root", None)).await.expect(200);
    let leaf = issue(&root, ID);
    let device = lab.device(&leaf, &[]);
    let mut body = json!({
        "registrationId": ID,
        "attestation": certificates("clientCertificates", &leaf.certificate),
        "deviceId": "hub-device",
        "iotHubs": ["first.azure-devices.net", "second.azure-devices.net"],
    });
    let path = format!("/enrollments/{ID}");
    let created = lab.service("PUT", &path, None, Some(&body)).await.expect(200);
    let state = device.assigned(ID).await.body["registrationState"].clone();
    assert_eq!(state["deviceId"], "hub-device");
    assert_eq!(state["assignedHub"], "first.azure-devices.net");
    assert!(state["x509"].get("enrollmentGroupId").is_none(), "{state}");

    // The enrollment shows the record.
    let shown = lab.service("GET", &path, None, None).await.expect(200);
    assert_eq!(shown.body["registrationState"]["assignedHub"], "first.azure-devices.net");
    assert_eq!(shown.etag(), created.etag());

    // Another certificate, although the group would admit it.
    lab.device(&issue(&root, ID), &[]).register(ID).await.refused(401, 401_002, "Invalid certificate.");
    body["provisioningStatus"] = json!("disabled");
    lab.service("PUT", &path, Some(&created.etag()), Some(&body)).await.expect(200);
    device.register(ID).await.refused(401, 401_002, "Unauthorized");
    // The group admits other devices, unless an individual enrollment has their certificate.
    let other = issue(&root, "sensor-2");
    lab.device(&other, &[]).assigned("sensor-2").await;
    lab.individual("sensor-3", &certificates("clientCertificates", &other.certificate)).await.expect(200);
    lab.device(&other, &[]).register("sensor-2").await.refused(401, 401_002, "Invalid certificate.");
    lab.device(&other, &[]).register("sensor-3").await.refused(401, 401_002, "Unauthorized");

    lab.service("DELETE", &path, None, None).await.expect(204);
    lab.admits(&device, "eg").await;
}

#[tokio::test]
async fn symmetric_keys_admit_individually_and_by_group() {
    let lab = start().await;
    let keys = json!({ "type": "symmetricKey" });
    lab.individual(ID, &keys).await.expect(200);
    let key = lab.keys(&format!("/enrollments/{ID}")).await;
    lab.register_by_key(ID, &key).await.expect(202);
    lab.register_by_key(ID, &[1; 32]).await.refused(401, 401_000, "Unauthorized");
    lab.register_by_key("sensor-2", &key).await.refused(401, 401_000, "Unauthorized");

    lab.group("eg", &keys).await.expect(200);
    let group_key = lab.keys("/enrollmentGroups/eg").await;
    let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &group_key), b"sensor-2");
    lab.register_by_key("sensor-2", derived.as_ref()).await.expect(202);
    lab.register_by_key("sensor-2", &group_key).await.refused(401, 401_000, "Unauthorized");
    lab.change("/enrollmentGroups/eg", "provisioningStatus", json!("disabled")).await.expect(200);
    // The change above omitted the keys, so that they are new.
    let group_key = lab.keys("/enrollmentGroups/eg").await;
    let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &group_key), b"sensor-2");
    lab.register_by_key("sensor-2", derived.as_ref()).await.refused(401, 401_002, "Unauthorized");
}

#[tokio::test]
async fn registration_ids_follow_the_rule_of_enrollments() {
    let lab = start().await;
    let id = "-sensor.1";
    lab.individual(id, &json!({ "type": "symmetricKey" })).await.expect(200);
    let key = lab.keys(&format!("/enrollments/{id}")).await;
    lab.register_by_key(id, &key).await.expect(202);
    lab.register_by_key("sensor.", &key).await.refused(400, 400_004, "not a valid registration ID");
}

#[tokio::test]
async fn a_tpm_enrollment_refuses_other_credentials() {
    let lab = start().await;
    let tpm = json!({ "type": "tpm", "tpm": { "endorsementKey": "AToAAQ==" } });
    lab.individual(ID, &tpm).await.expect(200);
    let root = new_root("Root");
    lab.upload_verified("root", root.certificate()).await;
    lab.group("eg", &ca_references("root", None)).await.expect(200);
    lab.device(&issue(&root, ID), &[]).register(ID).await.refused(401, 401_002, "Unauthorized");
    lab.register_by_key(ID, &[1; 32]).await.refused(401, 401_002, "Unauthorized");
}

#[tokio::test]
async fn records_are_listed_by_group_and_deleted() {
    let lab = start().await;
    let root = new_root("Root");
    lab.upload_verified("root", root.certificate()).await;
    lab.group("eg", &ca_references("root", None)).await.expect(200);
    lab.group("other", &json!({ "type": "symmetricKey" })).await.expect(200);
    for id in ["sensor-1", "sensor-2", "Sensor-3"] {
        lab.device(&issue(&root, id), &[]).assigned(id).await;
    }
    let record = lab.service("GET", "/registrations/SENSOR-1", None, None).await.expect(200);
    assert_eq!(record.text("/status"), "assigned");
    assert_eq!(record.text("/substatus"), "initialAssignment");
    assert!(record.body.get("x509").is_none(), "only the device API has it");
    let all = lab.service("POST", "/registrations/EG/query", None, None).await.expect(200);
    assert_eq!(all.header("x-ms-item-type"), Some("deviceRegistration"));
    let ids = |answer: &crate::support::instance::Answer| -> Vec<String> {
        let records = answer.body.as_array().expect("an array").iter();
        records.map(|record| record["registrationId"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids(&all), ["sensor-1", "sensor-2", "Sensor-3"]);
    let page = lab.service_with("POST", "/registrations/eg/query", &[("x-ms-max-item-count", "2")], None).await;
    assert_eq!(ids(&page), ["sensor-1", "sensor-2"]);
    let token = page.header("x-ms-continuation").expect("more").to_owned();
    let page = lab.service_with("POST", "/registrations/eg/query", &[("x-ms-continuation", &token)], None).await;
    assert_eq!(ids(&page), ["Sensor-3"]);
    assert_eq!(lab.service("POST", "/registrations/other/query", None, None).await.body, json!([]));
    lab.service("POST", "/registrations/none/query", None, None).await.refused(404, "none");

    lab.service("DELETE", "/registrations/sensor-1", Some("\"0\""), None).await.refused(412, "If-Match");
    lab.service("DELETE", "/registrations/sensor-1", Some(&record.etag()), None).await.expect(204);
    lab.service("GET", "/registrations/sensor-1", None, None).await.refused(404, "sensor-1");
    let device = lab.device(&issue(&root, ID), &[]);
    device.look_up(ID).await.refused(404, 404_202, "not found");
    device.assigned(ID).await;
    // Deleting the group deletes its records.
    lab.service("DELETE", "/enrollmentGroups/eg", None, None).await.expect(204);
    lab.service("GET", "/registrations/sensor-2", None, None).await.refused(404, "sensor-2");
}

#[tokio::test]
async fn registering_again_follows_the_reprovision_policy() {
    let lab = start().await;
    lab.individual(ID, &json!({ "type": "symmetricKey" })).await.expect(200);
    let path = format!("/enrollments/{ID}");
    let mechanism = lab.service("POST", &format!("{path}/attestationmechanism"), None, None).await.expect(200).body;
    let key = lab.keys(&path).await;
    let policy =
        |updates: bool, migrates: bool| json!({ "updateHubAssignment": updates, "migrateDeviceData": migrates });
    let register = async |hub: &str, policy: Value| {
        let body = json!({
            "registrationId": ID, "attestation": mechanism, "iotHubs": [hub], "reprovisionPolicy": policy
        });
        lab.service("PUT", &path, Some("*"), Some(&body)).await.expect(200);
        let operation = lab.register_by_key(ID, &key).await.expect(202).text("/operationId");
        let scope = lab.emulator.dps_id_scope();
        let token = sas(&format!("{scope}/registrations/{ID}"), &BASE64_STANDARD.encode(&key), "registration");
        let caller = Caller::new(&lab.emulator).at_instance();
        let poll = caller.path(ID, &format!("/operations/{operation}"));
        let headers = format!("Authorization: {token}\r\n");
        caller.send("GET", &poll, &headers, None).await.expect(202);
        let state = caller.send("GET", &poll, &headers, None).await.expect(200).body["registrationState"].clone();
        (state["assignedHub"].clone(), state["substatus"].clone())
    };
    let expected = |hub: &str, substatus: &str| (json!(hub), json!(substatus));
    assert_eq!(register("a", policy(true, true)).await, expected("a", "initialAssignment"));
    assert_eq!(register("b", policy(false, true)).await, expected("a", "initialAssignment"));
    assert_eq!(register("b", policy(true, true)).await, expected("b", "deviceDataMigrated"));
    assert_eq!(register("c", policy(true, false)).await, expected("c", "deviceDataReset"));
    assert_eq!(register("c", policy(true, false)).await, expected("c", "initialAssignment"));
}
