//! The health check.

use crate::support::{
    app::{App, VERSION},
    caller::Caller,
};
use iot_enroll::emulator::{Emulator, Fault, FaultKind};
use serde_json::{Value, json};

#[tokio::test]
async fn it_needs_no_token_and_shows_no_secret() {
    let app = App::start().await;
    let url = format!("{}/health", app.emulator.endpoint());
    let answer = app.http.get(&url).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let body: Value = serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON");
    assert_eq!(body, json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }));
    assert_eq!(app.http.head(&url).send().await.expect("an answer").status(), 200);
    assert_eq!(app.http.post(&url).send().await.expect("an answer").status(), 405);
}

#[tokio::test]
async fn it_is_served_over_tls() {
    let emulator = Emulator::builder().tls(true).start().await.expect("a free port");
    let answer = Caller::new(&emulator).send("GET", "/health", "", None).await.expect(200);
    assert_eq!(answer.text("/status"), "ok");
}

#[tokio::test]
async fn a_probe_neither_uses_up_faults_nor_is_recorded() {
    let app = App::start().await;
    app.emulator.inject(Fault::new(FaultKind::Status { status: 503, retry_after: None })).expect("a fault");
    let probe =
        app.http.get(format!("{}/health", app.emulator.endpoint())).header("Authorization", app.emulator.token());
    assert_eq!(probe.send().await.expect("an answer").status(), 200);
    assert_eq!(app.emulator.requests(), []);
    app.send(app.request("GET", &format!("/devices?{VERSION}"))).await.expect(503);
}
