//! Groups with a query of the maximum size, over many devices.

use std::{fmt::Write, sync::Arc};

use crate::support::app::App;
use iot_enroll::emulator::DeviceProperties;
use serde_json::json;

/// The approximate size of a query in bytes.
const SIZE: usize = 900_000;

async fn with_devices(count: usize) -> App {
    let app = App::start().await;
    let devices = (0..count).map(|number| DeviceProperties::new(format!("device-{number:05}")));
    app.emulator.add_devices(devices).expect("devices");
    app
}

/// Creates a group with a query of that size, whose parts are joined by a word.
async fn group(app: &App, word: &str, part: impl Fn(usize) -> String) {
    let mut query = "SELECT * FROM devices WHERE ".to_owned();
    for number in 0.. {
        let part = part(number);
        if query.len() + part.len() > SIZE {
            break;
        }
        let joint = if number == 0 { "" } else { word };
        write!(query, "{joint}{part}").expect("a string");
    }
    app.put("/deviceGroups/large", &json!({ "displayName": "", "filter": query })).await.expect(200);
}

async fn members(app: &App) -> Vec<String> {
    app.all_ids(app.get("/deviceGroups/large/devices").await.expect(200)).await
}

#[tokio::test]
async fn a_query_that_lists_ids_finds_exactly_those() {
    let app = with_devices(10_000).await;
    group(&app, " OR ", |number| format!("$id = \"device-{:05}\"", 9900 + number)).await;
    let last: Vec<String> = (9900..10_000).map(|number| format!("device-{number:05}")).collect();
    assert_eq!(members(&app).await, last);
    group(&app, " AND ", |number| format!("NOT $id = \"device-{:05}\"", 100 + number)).await;
    let first: Vec<String> = (0..100).map(|number| format!("device-{number:05}")).collect();
    assert_eq!(members(&app).await, first);
}

#[tokio::test]
async fn other_requests_are_served_during_a_query() {
    // With one thread, a request that blocks it would block all others.
    let app = Arc::new(with_devices(200).await);
    group(&app, " OR ", |number| format!("($displayName != \"{number}\" AND $id = \"{number}\")")).await;
    let slow = tokio::spawn({
        let app = Arc::clone(&app);
        async move { members(&app).await }
    });
    let mut served = 0;
    while !slow.is_finished() {
        app.put("/devices/other", &json!({})).await.expect(200);
        served += 1;
    }
    assert_eq!(slow.await.expect("an answer"), Vec::<String>::new());
    assert!(served > 10, "{served} requests were answered meanwhile");
}
