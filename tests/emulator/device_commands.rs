//! Commands of devices: run, history, and the devices that cannot be reached.

use crate::support::app::App;
use iot_enroll::emulator::DeviceProperties;
use serde_json::json;

const MOVE: &str = "/devices/pump-1/components/migration/commands/DeviceMove";
const REBOOT: &str = "/devices/pump-1/commands/reboot";

async fn with_devices() -> App {
    let app = App::start().await;
    let device = DeviceProperties::new;
    let devices = [
        device("pump-1").provisioned(true),
        device("new"),
        device("off").provisioned(true).enabled(false),
        device("fake").simulated(true),
    ];
    app.emulator.add_devices(devices).expect("devices");
    app
}

#[tokio::test]
async fn a_command_is_answered_and_kept() {
    let app = with_devices().await;
    assert_eq!(app.get(MOVE).await.expect(200).body, json!({ "value": [] }));
    let body = json!({ "request": { "idScope": "0ne00000001" }, "responseTimeout": 5, "connectionTimeout": 0 });
    let run = app.post(MOVE, Some(&body)).await.expect(201).body;
    let expected = json!({
        "id": run["id"], "request": { "idScope": "0ne00000001" }, "responseTimeout": 5, "connectionTimeout": 0,
        "responseCode": 200,
    });
    assert_eq!(run, expected);
    assert_eq!(app.get(MOVE).await.expect(200).body, json!({ "value": [run] }));
    // Another command, and one of the same name without the component, have histories of their own.
    for other in [REBOOT, "/devices/pump-1/commands/DeviceMove"] {
        assert_eq!(app.get(other).await.expect(200).body, json!({ "value": [] }));
    }
    app.post(REBOOT, Some(&json!({}))).await.expect(201);
    app.post(REBOOT, Some(&json!({ "request": null }))).await.expect(201);
    let last = app.get(&REBOOT.replace("pump-1", "PUMP-1")).await.expect(200).body;
    assert_eq!(last["value"].as_array().map(Vec::len), Some(1), "the most recent run: {last}");
    assert_eq!(last["value"][0]["request"], json!(null));
    assert_eq!(app.get(MOVE).await.expect(200).body, json!({ "value": [run] }));
}

#[tokio::test]
async fn a_device_that_cannot_be_reached_is_404_and_gets_nothing() {
    let app = with_devices().await;
    let path = |id: &str| format!("/devices/{id}/commands/reboot");
    for id in ["new", "off"] {
        app.post(&path(id), Some(&json!({}))).await.refused(404, "is not connected");
        assert_eq!(app.get(&path(id)).await.expect(200).body, json!({ "value": [] }));
    }
    app.post(&path("fake"), Some(&json!({}))).await.expect(201);
    app.post(&path("unknown"), Some(&json!({}))).await.refused(404, "there is no device");
    app.get(&path("unknown")).await.refused(404, "there is no device");
}

#[tokio::test]
async fn a_device_that_is_created_again_has_no_history() {
    let app = with_devices().await;
    app.post(REBOOT, Some(&json!({}))).await.expect(201);
    app.call("DELETE", "/devices/pump-1", None).await.expect(204);
    app.put("/devices/pump-1", &json!({})).await.expect(200);
    assert_eq!(app.get(REBOOT).await.expect(200).body, json!({ "value": [] }));
}

#[tokio::test]
async fn invalid_bodies_are_refused() {
    let app = with_devices().await;
    for (body, message) in [
        (json!({ "responseTimeout": 4 }), "responseTimeout: expected an integer from 5 to 30"),
        (json!({ "responseTimeout": 31 }), "responseTimeout"),
        (json!({ "connectionTimeout": "5" }), "connectionTimeout: expected an integer from 0 to 30, found a string"),
        (json!({ "connectionTimeout": 1.5 }), "connectionTimeout"),
        (json!({ "connectionTimeout": -1 }), "connectionTimeout"),
        (json!({ "responseCode": 200 }), "responseCode: is an unknown field"),
        (json!({ "payload": 1 }), "payload: is an unknown field"),
    ] {
        app.post(MOVE, Some(&body)).await.refused(422, message);
    }
    app.send(app.request("POST", &format!("{MOVE}?api-version=2022-07-31"))).await.refused(415, "Content-Type");
    assert_eq!(app.get(MOVE).await.expect(200).body, json!({ "value": [] }));
}
