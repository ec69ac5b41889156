//! The recent requests as JSON, on which tests in other processes assert.

use crate::support::app::{App, Authority, VERSION, symmetric_group, x509_group};
use iot_enroll::emulator::{DeviceProperties, Fault, FaultKind};
use serde_json::{Value, json};

/// Returns the recorded requests that fit a query.
async fn recorded(app: &App, query: &str) -> Vec<Value> {
    let url = format!("{}/__admin/requests{query}", app.emulator.endpoint());
    let answer = app.http.get(url).header("Authorization", app.emulator.token()).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let body: Value = serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON");
    body["requests"].as_array().expect("requests").clone()
}

#[tokio::test]
async fn a_request_is_shown_with_its_response() {
    let app = App::start().await;
    app.put("/enrollmentGroups/g", &x509_group()).await.expect(200);
    app.get("/enrollmentGroups/none").await.expect(404);
    let [put, get] = recorded(&app, "").await.try_into().expect("two requests");
    assert_eq!(put["method"], "PUT");
    assert_eq!(put["path"], "/api/enrollmentGroups/g");
    assert_eq!(put["query"], json!([["api-version", "2022-07-31"]]));
    assert_eq!(put["body"], x509_group());
    assert_eq!(put["headers"]["content-type"], "application/json");
    assert_eq!(put["headers"]["host"], app.emulator.address().to_string());
    assert_eq!(put["response"]["status"], 200);
    assert_eq!(put["response"]["body"]["displayName"], "My group");
    assert!(put["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{put}");
    assert_eq!((&get["response"]["status"], get.get("body")), (&json!(404), None));
    assert_eq!(get["response"]["headers"]["x-ms-error-code"], "NotFound");
}

#[tokio::test]
async fn a_response_that_a_fault_cut_off_is_null() {
    let app = App::start().await;
    app.emulator.add_devices([DeviceProperties::new("d")]).expect("a device");
    for kind in [FaultKind::CloseBeforeHandling, FaultKind::CloseAfterHandling, FaultKind::TruncateBody] {
        app.emulator.inject(Fault::new(kind)).expect("a fault");
        let request = app.request("PUT", &format!("/devices/d?{VERSION}")).header("Content-Type", "application/json");
        let answer = app.http.execute(request.body("{}").build().expect("a request")).await;
        if let Ok(answer) = answer {
            answer.text().await.expect_err("half a body");
        }
    }
    let all = recorded(&app, "").await;
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|request| request["response"].is_null()), "{all:?}");
}

#[tokio::test]
async fn requests_are_selected_by_path_method_and_status_and_can_be_forgotten() {
    let app = App::start().await;
    app.put("/enrollmentGroups/g", &x509_group()).await.expect(200);
    app.get("/enrollmentGroups/g").await.expect(200);
    app.get("/devices/none").await.expect(404);
    for (query, count) in [
        ("?path=/enrollmentGroups/", 2),
        ("?path=/enrollmentGroups/&method=put", 1),
        ("?status=404", 1),
        ("?status=404&method=PUT", 0),
        ("?path=%2Fdevices", 1),
    ] {
        assert_eq!(recorded(&app, query).await.len(), count, "{query}");
    }
    let url = format!("{}/__admin/requests", app.emulator.endpoint());
    let token = app.emulator.token();
    for query in ["?paht=x", "?status=many"] {
        let answer = app.http.get(format!("{url}{query}")).header("Authorization", token).send().await;
        assert_eq!(answer.expect("an answer").status(), 400, "{query}");
    }
    let deleted = app.http.delete(&url).header("Authorization", token).send().await.expect("an answer");
    assert_eq!(deleted.status(), 204);
    assert_eq!(recorded(&app, "").await, [] as [Value; 0]);
    assert_eq!(app.emulator.requests(), []);
}

#[tokio::test]
async fn they_need_the_token() {
    let app = App::start().await;
    for path in ["/__admin/requests", "/__admin/other"] {
        let url = format!("{}{path}", app.emulator.endpoint());
        assert_eq!(app.http.get(&url).send().await.expect("an answer").status(), 401);
        let bearer = format!("Bearer {}", app.emulator.arm_token());
        for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
            let request = app.http.request(method, &url).header("Authorization", &bearer);
            assert_eq!(request.send().await.expect("an answer").status(), 401);
        }
    }
}

#[tokio::test]
async fn they_show_no_secret() {
    let app = App::start().await;
    let emulator = &app.emulator;
    let keys = app.put("/enrollmentGroups/keys", &symmetric_group()).await.expect(200);
    let primary = keys.text("/attestation/symmetricKey/primaryKey");
    let path = app.enrolled(&Authority::new("Root")).await;
    let code = app.code(&path).await;
    app.put("/devices/d", &json!({})).await.expect(200);
    let derived = app.get("/devices/d/credentials").await.expect(200).text("/symmetricKey/primaryKey");
    // Secrets where none belong.
    let wrong = app.request("GET", &format!("/devices?{VERSION}&note={}", "SharedAccessSignature%20sr%3Da"));
    app.send(wrong).await.expect(400);
    app.put("/devices/e", &json!({ "displayName": emulator.token() })).await.expect(200);
    let connection = emulator.dps_connection_string();
    let policy_key = connection.rsplit_once("SharedAccessKey=").expect("a key").1.to_owned();
    app.put("/devices/f", &json!({ "displayName": policy_key })).await.expect(200);
    for body in
        ["{\"symmetricKey\":{\"primaryKey\":\"U0VDUkVUS0VZ", "{\"symmetricKey\":[\"U0VDUkVUS0VZ\"]}", "U0VDUkVUS0VZ"]
    {
        let request = app.request("PUT", &format!("/devices/d/attestation?{VERSION}"));
        let answer = app.send(request.header("Content-Type", "application/json").body(body)).await;
        assert!(answer.status >= 400, "{body}");
    }
    let nested = json!({ "type": "symmetricKey", "symmetricKey": { "primary": { "value": "U0VDUkVUS0VZ" } } });
    app.put("/devices/d/attestation", &nested).await.expect(422);
    app.http.get(format!("{}/{}", emulator.endpoint(), emulator.arm_token())).send().await.expect("an answer");
    let shown = recorded(&app, "").await;
    let text = json!(shown).to_string();
    let signature = emulator.token().split("sig=").nth(1).and_then(|rest| rest.split('&').next()).expect("a signature");
    for secret in
        ["U0VDUkVUS0VZ", emulator.token(), signature, emulator.arm_token(), &primary, &code, &derived, &policy_key]
    {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert_eq!(shown[0]["headers"]["authorization"], "(redacted)");
    assert_eq!(shown[0]["response"]["body"]["attestation"]["symmetricKey"]["primaryKey"], "(redacted)");
    assert_eq!(shown[0]["response"]["body"]["id"], "keys");
}

#[tokio::test]
async fn the_request_log_is_bounded() {
    let app = App::start().await;
    let large = json!({ "displayName": "x".repeat(100_000) });
    let small = json!({ "displayName": "x".repeat(30_000) });
    app.put("/devices/large", &large).await.expect(200);
    let first = recorded(&app, "").await;
    assert!(first[0].get("body").is_none() && first[0]["bodySize"].as_u64() > Some(100_000), "{first:?}");
    for number in 0..300 {
        app.put(&format!("/devices/d{number}"), &small).await.expect(200);
    }
    let kept = recorded(&app, "?path=/devices/d").await;
    assert!((100..200).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().expect("the last")["path"], "/api/devices/d299");
    for _ in 0..1100 {
        app.http.get(format!("{}/x", app.emulator.endpoint())).send().await.expect("an answer");
    }
    assert_eq!(recorded(&app, "").await.len(), 1000);
}

#[tokio::test]
async fn the_body_of_a_request_without_a_token_is_not_kept() {
    let app = App::start().await;
    let url = format!("{}/api/devices/d?{VERSION}", app.emulator.endpoint());
    let request = app.http.put(url).header("Content-Type", "application/json").body("{\"displayName\": \"x\"}");
    assert_eq!(request.send().await.expect("an answer").status(), 401);
    let all = recorded(&app, "?status=401").await;
    assert_eq!((all.len(), all[0].get("body")), (1, None));
}
