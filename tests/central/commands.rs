//! Commands of devices: what is sent, and when it is sent again.

use std::time::Duration;

use crate::support::{
    client::client,
    openapi::OpenApi,
    server::{Reply, Server},
};
use iot_enroll::central::{CommandPath, NewCommand};
use serde_json::json;

fn path(text: &str) -> CommandPath {
    text.parse().expect("a path")
}

#[tokio::test]
async fn a_command_is_sent_as_described_and_its_answer_read() {
    let answer = json!({ "id": "run-1", "request": 5, "response": { "idScope": "0ne1" }, "responseCode": 404 });
    for (text, target) in [
        ("migration.DeviceMove", "/api/devices/pump-1/components/migration/commands/DeviceMove?api-version=2022-07-31"),
        ("reboot", "/api/devices/pump-1/commands/reboot?api-version=2022-07-31"),
    ] {
        let server = Server::start([Reply::json(201, &answer), Reply::json(200, &json!({ "value": [answer] }))]);
        let devices = client(&server).devices();
        let id = "pump-1".parse().expect("an ID");
        let command = NewCommand::with_request(json!({ "idScope": "0ne1" }))
            .connection_timeout(Duration::from_millis(4_001))
            .response_timeout(Duration::from_secs(10));
        let run = devices.run_command(&id, &path(text), &command).await.expect("an answer");
        assert_eq!((run.id.as_deref(), run.response_code), (Some("run-1"), Some(404)));
        assert!(run.is_failure(), "the device answered 404");
        let history: Vec<_> = devices.command_history(&id, &path(text)).try_collect().await.expect("a list");
        assert_eq!(history, [run]);

        let requests = server.requests();
        assert_eq!(requests[0].target, target);
        let sent: serde_json::Value = serde_json::from_slice(&requests[0].body).expect("JSON");
        let expected = json!({ "request": { "idScope": "0ne1" }, "connectionTimeout": 5, "responseTimeout": 10 });
        assert_eq!(sent, expected);
        for request in requests {
            let content_type = request.header("content-type");
            let held = OpenApi::load().check_request(&request.method, &request.target, content_type, &request.body);
            assert_eq!(held, Ok(()));
        }
    }
}

#[tokio::test]
async fn a_command_that_the_device_may_have_received_is_not_sent_again() {
    let id = "pump-1".parse().expect("an ID");
    for reply in [Reply::error(503, "ServiceUnavailable", "busy"), Reply::error(500, "InternalServerError", "no")] {
        let server = Server::start([reply, Reply::json(201, &json!({}))]);
        let devices = client(&server).devices();
        let error = devices.run_command(&id, &path("reboot"), &NewCommand::default()).await.expect_err("a failure");
        assert!(error.answer_was_lost(), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
    // Throttled calls are not carried out.
    let server = Server::start([Reply::error(429, "TooManyRequests", "slow"), Reply::json(201, &json!({}))]);
    let devices = client(&server).devices();
    let run = devices.run_command(&id, &path("reboot"), &NewCommand::default()).await.expect("an answer");
    assert!(!run.is_failure());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn paths_of_commands_are_one_or_two_names() {
    for text in ["", ".", "a.", ".b", "a.b.c", "a b", "1a", "_a", "a/b", "a.b\n", "ä", "a..b", "a-b"] {
        let error = text.parse::<CommandPath>().expect_err(text).to_string();
        assert!(error.contains("COMPONENT.COMMAND"), "{error}");
    }
    for text in ["a", "DeviceMove", "migration.DeviceMove", "a_1.b_2"] {
        assert_eq!(path(text).to_string(), text);
    }
}
