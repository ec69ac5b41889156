//! Organizations and the rule for their IDs.

use crate::support::app::App;
use iot_enroll::emulator::DeviceProperties;
use serde_json::json;

#[tokio::test]
async fn an_organization_is_created_shown_patched_and_deleted() {
    let app = App::start().await;
    app.put("/organizations/washington", &json!({ "displayName": "Washington" })).await.expect(200);
    let seattle = json!({ "displayName": "Seattle", "parent": "washington" });
    let put = app.put("/organizations/seattle", &seattle).await.expect(200);
    assert_eq!(put.body, json!({ "id": "seattle", "displayName": "Seattle", "parent": "washington" }));
    assert_eq!(app.get("/organizations/seattle").await.expect(200).body, put.body);
    assert_eq!(app.get("/organizations").await.expect(200).ids(), ["seattle", "washington"]);
    let renamed =
        app.patch("/organizations/seattle", &json!({ "displayName": "Sea", "parent": null })).await.expect(200);
    assert_eq!(renamed.body, json!({ "id": "seattle", "displayName": "Sea" }));
    app.patch("/organizations/seattle", &json!({ "displayName": null })).await.refused(422, "cannot be null");
    app.put("/organizations/seattle", &json!({})).await.refused(422, "displayName: is missing");
    app.put("/organizations/x1", &json!({ "displayName": "", "parent": "X" }))
        .await
        .refused(422, "parent: \"X\" is not a valid organization ID");
    app.delete("/organizations/seattle").await.expect(204);
    app.get("/organizations/seattle").await.refused(404, "there is no organization \"seattle\"");
}

#[tokio::test]
async fn ids_follow_the_published_pattern() {
    let app = App::start().await;
    let longest = "a".repeat(49);
    let too_long = "a".repeat(50);
    for (id, fits) in [
        ("ab", true),
        ("0-0", true),
        ("a--b", true),
        (longest.as_str(), true),
        (too_long.as_str(), false),
        ("a", false),
        ("-ab", false),
        ("ab-", false),
        ("Ab", false),
        ("a_b", false),
        ("a.b", false),
        ("\u{e4}b", false),
    ] {
        let device = app.put("/devices/d", &json!({ "organizations": [id] })).await;
        let group = json!({ "displayName": "", "filter": "SELECT * FROM devices", "organizations": [id] });
        let group = app.put("/deviceGroups/g", &group).await;
        let itself = app.put(&format!("/organizations/{id}"), &json!({ "displayName": "" })).await;
        let seed = DeviceProperties::new("seed").organizations([id]);
        assert_eq!(app.emulator.add_devices([seed]).is_ok(), fits, "{id}");
        if fits {
            assert_eq!((device.status, group.status, itself.status), (200, 200, 200), "{id}");
        } else {
            device.refused(422, "2 to 49 lower-case letters");
            group.refused(422, "2 to 49 lower-case letters");
            itself.refused(400, "2 to 49 lower-case letters");
        }
    }
}
