//! Secrets in the log of the emulator.

use crate::support::{app, instance};
use std::{
    fmt::Write,
    sync::{Arc, Mutex},
};

use crate::support::app::{App, VERSION, symmetric_group};
use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::emulator::Emulator;

/// Collects everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut log = self.0.lock().expect("a lock");
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            writeln!(log, "{field}={value:?}").expect("written");
        });
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn secrets_are_neither_logged_nor_shown_by_debug() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).expect("the only one");
    let app = App::with(Emulator::builder().token("the-secret-token".to_owned())).await;
    let path = app.enrolled(&app::Authority::new("Root")).await;
    let code = app.code(&path).await;
    let keys = app.put("/enrollmentGroups/keys", &symmetric_group()).await.expect(200);
    let key = keys.text("/attestation/symmetricKey/primaryKey");
    app.put("/devices/d", &serde_json::json!({})).await.expect(200);
    let derived = app.get("/devices/d/credentials").await.expect(200).text("/symmetricKey/primaryKey");
    let own = app.put("/devices/d/attestation", &serde_json::json!({ "type": "symmetricKey" })).await.expect(200);
    let own = own.text("/symmetricKey/secondaryKey");
    app.send(app.request("GET", &format!("/enrollmentGroups?{VERSION}&unknown=1"))).await.expect(400);
    let derived_from_group = register(&app, &key).await;
    let of_instance = manage_instance(&app).await;
    let debug = format!("{:?} {:?}", app.emulator, Emulator::builder().token("the-secret-token".to_owned()));
    app.emulator.stop().await;
    let logged = log.0.lock().expect("a lock").clone() + &debug;
    assert!(logged.contains("/api/enrollmentGroups/keys"), "requests are logged: {logged}");
    assert!(logged.contains("registration refused"), "and refusals: {logged}");
    let secrets = ["the-secret-token", key.as_str(), code.as_str(), derived.as_str(), own.as_str()];
    for secret in secrets.into_iter().chain(derived_from_group.iter().chain(&of_instance).map(String::as_str)) {
        assert!(!logged.contains(secret), "{logged}");
    }
}

/// Uses the bearer token, the policy keys and the keys of a group of the DPS instance, rightly and wrongly, and returns
/// them.
async fn manage_instance(app: &App) -> Vec<String> {
    let emulator = &app.emulator;
    let connection = emulator.dps_connection_string();
    let (host, policy_key) =
        connection.split_once(";SharedAccessKeyName=provisioningserviceowner;SharedAccessKey=").expect("parts");
    let host = host.trim_start_matches("HostName=");
    let mut secrets = vec![emulator.arm_token().to_owned(), policy_key.to_owned()];
    let group = format!("{}/enrollmentGroups/g", emulator.endpoint());
    let body = serde_json::json!({ "enrollmentGroupId": "g", "attestation": { "type": "symmetricKey" } });
    for (resource, status) in [(host, 200), ("example.com", 401)] {
        let token = instance::sas(resource, policy_key, "provisioningserviceowner");
        let put = app.http.put(format!("{group}?api-version=2021-10-01")).header("Authorization", &token);
        assert_eq!(put.json(&body).send().await.expect("an answer").status().as_u16(), status);
        let (_, rest) = token.split_once("sig=").expect("a signature");
        secrets.push(rest.split('&').next().unwrap_or_default().to_owned());
    }
    let mechanism = app.http.post(format!("{group}/attestationmechanism?api-version=2021-10-01"));
    let mechanism = mechanism.header("Authorization", format!("Bearer {}", emulator.arm_token())).send().await;
    let mechanism: serde_json::Value = mechanism.expect("an answer").json().await.expect("JSON");
    secrets.push(mechanism["symmetricKey"]["primaryKey"].as_str().expect("a key").to_owned());
    let subscriptions = format!("{}/subscriptions?api-version=2020-01-01", emulator.endpoint());
    for (token, status) in [(emulator.arm_token(), 200), (policy_key, 401)] {
        let request = app.http.get(&subscriptions).header("Authorization", format!("Bearer {token}"));
        assert_eq!(request.send().await.expect("an answer").status().as_u16(), status);
    }
    secrets
}

/// Registers a device with a key derived from the group's, with a valid and an expired token. Returns the key and the
/// signatures.
async fn register(app: &App, group: &str) -> Vec<String> {
    let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    let key = sign(&BASE64_STANDARD.decode(group).expect("base64"), "sensor-1");
    let scope = app.emulator.id_scope();
    let mut secrets = vec![BASE64_STANDARD.encode(key)];
    for (expiry, status) in [(4_102_444_800_u64, 202), (1, 401)] {
        let resource = format!("{scope}%2fregistrations%2fsensor-1");
        let signature = BASE64_STANDARD.encode(sign(key.as_ref(), &format!("{resource}\n{expiry}")));
        let escaped = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let token = format!("SharedAccessSignature sr={resource}&sig={escaped}&se={expiry}&skn=registration");
        let url = format!("{}/{scope}/registrations/sensor-1/register?api-version=2021-06-01", app.emulator.endpoint());
        let request = app.http.put(url).header("Authorization", token);
        let answer = request.json(&serde_json::json!({ "registrationId": "sensor-1" })).send().await;
        assert_eq!(answer.expect("an answer").status().as_u16(), status);
        secrets.extend([signature, escaped]);
    }
    secrets
}
