//! What the client reports about its work: enough to follow it, and no secret.

use crate::support::{
    client::client,
    journal::Journal,
    server::{Reply, Server},
};
use iot_enroll::central::{NewAttestation, NewEnrollmentGroup, SymmetricKeys};
use serde_json::json;

#[tokio::test]
async fn requests_are_reported_without_headers_and_bodies() {
    let keys = json!({ "primaryKey": "answeredkey", "secondaryKey": "answeredkey" });
    let body = json!({
        "id": "g", "displayName": "n", "type": "iot", "attestation": { "type": "symmetricKey", "symmetricKey": keys },
    });
    let headers = [("x-ms-request-id", "req-7"), ("Content-Type", "application/json")];
    let keys = SymmetricKeys { primary_key: "sentkey".into(), secondary_key: "sentkey".into() };
    let new = NewEnrollmentGroup::x509("n").attestation(NewAttestation::SymmetricKey(Some(keys)));
    let create = async || {
        let server = Server::start([Reply::lost(), Reply::with(200, &headers, &body.to_string())]);
        client(&server).enrollment_groups().replace(&"g".parse().expect("an id"), &new).await.expect("created");
    };
    let journal = Journal::record(create).await;
    for part in ["method=PUT", "path=\"enrollmentGroups/g\"", "status=200", "req-7", "attempt=1", "attempt=2", "Broken"]
    {
        assert!(journal.contains(part), "{part} is missing: {journal}");
    }
    for secret in ["topsecret", "SharedAccessSignature", "sentkey", "answeredkey"] {
        assert!(!journal.contains(secret), "{journal}");
    }
}
