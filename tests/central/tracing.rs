//! What the client reports about its work: enough to follow it, and no secret.

use std::{
    fmt::{Debug, Write},
    sync::{Arc, Mutex},
};

use crate::support::{
    client::client,
    server::{Reply, Server},
};
use iot_enroll::central::{NewAttestation, NewEnrollmentGroup, SymmetricKeys};
use serde_json::json;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Writes down every event of every crate.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<String>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").expect("a text grows");
    }
}

impl Subscriber for Journal {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        attributes.record(&mut Line(&mut self.0.lock().expect("journal")));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut Line(&mut self.0.lock().expect("journal")));
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Line(&mut self.0.lock().expect("journal")));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn requests_are_reported_without_headers_and_bodies() {
    let journal = Journal::default();
    let _guard = tracing::subscriber::set_default(journal.clone());
    let keys = json!({ "primaryKey": "answeredkey", "secondaryKey": "answeredkey" });
    let body = json!({
        "id": "g", "displayName": "n", "type": "iot", "attestation": { "type": "symmetricKey", "symmetricKey": keys },
    });
    let headers = [("x-ms-request-id", "req-7"), ("Content-Type", "application/json")];
    let server = Server::start([Reply::lost(), Reply::with(200, &headers, &body.to_string())]);
    let keys = SymmetricKeys { primary_key: "sentkey".into(), secondary_key: "sentkey".into() };
    let new = NewEnrollmentGroup::x509("n").attestation(NewAttestation::SymmetricKey(Some(keys)));
    client(&server).enrollment_groups().replace(&"g".parse().expect("an id"), &new).await.expect("created");
    let journal = journal.0.lock().expect("journal").clone();
    for part in ["method=PUT", "path=\"enrollmentGroups/g\"", "status=200", "req-7", "attempt=1", "attempt=2", "Broken"]
    {
        assert!(journal.contains(part), "{part} is missing: {journal}");
    }
    for secret in ["topsecret", "SharedAccessSignature", "sentkey", "answeredkey"] {
        assert!(!journal.contains(secret), "{journal}");
    }
}
