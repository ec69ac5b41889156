//! Device groups: create, replace, patch, delete, and the devices of a group.

use std::num::NonZeroUsize;

use crate::support::app::{App, MERGE_PATCH, VERSION};
use iot_enroll::emulator::{DeviceProperties, Emulator};
use serde_json::{Value, json};

const GROUP: &str = "/deviceGroups/group_1";

fn group(filter: &str) -> Value {
    json!({ "displayName": "Group", "filter": filter })
}

#[tokio::test]
async fn a_group_is_shown_as_it_was_set_and_replaced_completely() {
    let app = App::start().await;
    let mut expected = json!({
        "displayName": "Group", "description": "All", "filter": "select  * from devices", "organizations": ["seattle"]
    });
    let put = app.put(GROUP, &expected).await.expect(200);
    expected["id"] = json!("group_1");
    expected["etag"] = put.body["etag"].clone();
    assert_eq!(put.body, expected);
    assert_eq!(app.get(GROUP).await.expect(200).body, expected);
    assert_eq!(app.get("/deviceGroups").await.expect(200).body, json!({ "value": [expected] }));
    let replaced = app.put(GROUP, &group("SELECT * FROM devices")).await.expect(200).body;
    assert_eq!(replaced.get("description"), None);
    assert_eq!(replaced.get("organizations"), None);
}

#[tokio::test]
async fn a_group_is_patched_guarded_and_deleted() {
    let app = App::start().await;
    let mut whole = group("SELECT * FROM devices");
    whole["description"] = json!("All");
    let etag = app.put(GROUP, &whole).await.expect(200).text("/etag");
    let patched = app.patch(GROUP, &json!({ "displayName": "New", "etag": etag })).await.expect(200);
    assert_eq!((patched.text("/displayName"), patched.text("/description")), ("New".to_owned(), "All".to_owned()));
    app.patch(GROUP, &json!({ "etag": etag })).await.expect(412);
    app.put(GROUP, &json!({ "displayName": "", "filter": "SELECT * FROM devices", "etag": etag })).await.expect(412);
    app.patch(GROUP, &json!({ "filter": "SELECT" })).await.refused(422, "filter: at character 7: expected \"*\"");
    app.patch(GROUP, &json!({ "filter": null })).await.refused(422, "filter: cannot be null");
    let reset = app.patch(GROUP, &json!({ "description": null })).await.expect(200);
    assert_eq!(reset.body.get("description"), None);
    for media_type in [MERGE_PATCH, "application/json"] {
        let patch = app.request("PATCH", &format!("{GROUP}?{VERSION}")).header("Content-Type", media_type);
        app.send(patch.body("{}")).await.expect(200);
    }
    app.delete(GROUP).await.expect(204);
    app.delete(GROUP).await.refused(404, "there is no device group \"group_1\"");
    app.get(GROUP).await.expect(404);
    app.patch(GROUP, &json!({})).await.expect(404);
    app.get(&format!("{GROUP}/devices")).await.expect(404);
}

#[tokio::test]
async fn every_field_of_the_body_is_checked_and_named() {
    let app = App::start().await;
    for (body, message) in [
        (json!({}), "filter: is missing"),
        (json!({ "filter": "SELECT * FROM devices" }), "displayName: is missing"),
        (json!({ "displayName": "", "filter": 1 }), "filter: expected a string"),
        (json!({ "displayName": "", "filter": "SELECT * FROM devices", "id": "x" }), "id: found \"x\""),
        (
            json!({ "displayName": "", "filter": "SELECT * FROM devices", "organizations": ["A b"] }),
            "organizations: \"A b\" is not a valid",
        ),
        (json!({ "displayName": "", "filter": "SELECT * FROM devices", "x": 1 }), "x: is an unknown field"),
    ] {
        app.put(GROUP, &body).await.refused(422, message);
    }
    app.put("/deviceGroups/a.b", &group("SELECT * FROM devices")).await.refused(400, "not a valid device group ID");
}

#[tokio::test]
async fn the_query_decides_which_devices_belong_to_the_group() {
    let app = App::start().await;
    let devices = [
        DeviceProperties::new("a").template("dtmi:a;1").provisioned(true).organizations(["redmond", "seattle"]),
        DeviceProperties::new("b").display_name("say \"hi\" \\ \u{e4}").simulated(true).template("dtmi:a;1"),
        DeviceProperties::new("c").enabled(false),
    ];
    app.emulator.add_devices(devices).expect("devices");
    for (condition, expected) in [
        ("", "abc"),
        (r#" WHERE $template = "dtmi:a;1""#, "ab"),
        (r#" WHERE $template != "dtmi:a;1""#, "c"),
        (r#" where $template = "dtmi:a;1" and $provisioned = TRUE"#, "a"),
        (r#" WHERE $id = "a" OR $id = "c""#, "ac"),
        (r#" WHERE $id = "A""#, ""),
        (r#" WHERE $displayName = "say \"hi\" \\ ä""#, "b"),
        (" WHERE $simulated = true", "b"),
        (" WHERE $enabled != true", "c"),
        (" WHERE NOT $enabled = true", "c"),
        (" WHERE NOT NOT $enabled = true", "ab"),
        (r#" WHERE organizations = "seattle""#, "a"),
        (r#" WHERE $organizations != "seattle""#, "bc"),
        (r#" WHERE NOT $id = "a" AND $enabled = true"#, "b"),
        (r#" WHERE NOT ($id = "a" AND $enabled = true)"#, "bc"),
        (r#" WHERE $id = "c" OR $enabled = true AND $simulated = true"#, "bc"),
        (r#" WHERE ($id = "c" OR $enabled = true) AND $simulated = true"#, "b"),
        (r#" WHERE $id="a"OR($id="b")"#, "ab"),
    ] {
        app.put(GROUP, &group(&format!("SELECT * FROM devices{condition}"))).await.expect(200);
        let found = app.get(&format!("{GROUP}/devices")).await.expect(200).ids().concat();
        assert_eq!(found, expected, "{condition}");
    }
    app.put("/devices/d", &json!({})).await.expect(200);
    app.put(GROUP, &group(r#"SELECT * FROM devices WHERE $id = "d""#)).await.expect(200);
    assert_eq!(app.get(&format!("{GROUP}/devices")).await.expect(200).ids(), ["d"]);
}

#[tokio::test]
async fn a_syntax_error_in_a_query_is_refused_with_the_position() {
    let app = App::start().await;
    for (query, position, message) in [
        ("", 1, "expected SELECT, found the end"),
        ("SELECT $id FROM devices", 8, "expected \"*\""),
        ("SELECT * FROM groups", 15, "expected devices"),
        ("SELECT * FROM devices $id", 23, "expected WHERE or the end"),
        ("SELECT * FROM devices WHERE", 28, "expected a field ($id, $displayName"),
        ("SELECT * FROM devices WHERE id = \"a\"", 29, "expected a field"),
        ("SELECT * FROM devices WHERE $Id = \"a\"", 29, "expected a field"),
        ("SELECT * FROM devices WHERE $id \"a\"", 33, "expected = or !="),
        ("SELECT * FROM devices WHERE $id <> \"a\"", 33, "unexpected character '<'"),
        ("SELECT * FROM devices WHERE $id = 'a'", 35, "expected a string in double quotes"),
        ("SELECT * FROM devices WHERE $id = true", 35, "expected a string in double quotes"),
        ("SELECT * FROM devices WHERE $id = \"a", 35, "unterminated string"),
        ("SELECT * FROM devices WHERE $id = \"ä\\x\"", 37, "unknown escape"),
        ("SELECT * FROM devices WHERE $enabled = \"true\"", 40, "expected true or false"),
        ("SELECT * FROM devices WHERE $enabled", 37, "expected = or !="),
        ("SELECT * FROM devices WHERE ($enabled = true", 45, "expected and, or, or \")\""),
        ("SELECT * FROM devices WHERE $enabled = true)", 44, "expected and, or, or the end"),
        ("SELECT * FROM devices WHERE $enabled = true;", 44, "unexpected character ';'"),
        ("SELECT * FROM devices WHERE NOT", 32, "expected a field"),
    ] {
        let answer = app.put(GROUP, &group(query)).await.refused(422, message);
        let expected = format!("filter: at character {position}: ");
        assert!(answer.text("/error/message").starts_with(&expected), "{query}: {}", answer.body);
    }
    let deep = format!("SELECT * FROM devices WHERE {}$enabled = true", "NOT ".repeat(10_000));
    app.put(GROUP, &group(&deep)).await.refused(422, "nested more than 64 deep");
}

#[tokio::test]
async fn devices_and_groups_are_listed_by_page() {
    let app = App::with(Emulator::builder().page_size(NonZeroUsize::new(2).expect("two"))).await;
    let ids: Vec<String> = (0..10).map(|number| format!("d{number}")).collect();
    app.emulator
        .add_devices(ids.iter().enumerate().map(|(number, id)| DeviceProperties::new(id).simulated(number % 2 == 0)))
        .expect("devices");
    for name in ["a", "b", "c"] {
        let query = "SELECT * FROM devices WHERE $simulated = true";
        app.put(&format!("/deviceGroups/{name}"), &group(query)).await.expect(200);
    }
    assert_eq!(app.all_ids(app.get("/deviceGroups").await.expect(200)).await, ["a", "b", "c"]);
    let first = app.get("/deviceGroups/a/devices").await.expect(200);
    let link = first.text("/nextLink");
    assert_eq!(app.all_ids(first).await, ["d0", "d2", "d4", "d6", "d8"]);
    let other = link.replace("/a/", "/b/");
    let other = app.http.get(other).header("Authorization", app.emulator.token());
    app.send(other).await.refused(400, "$skiptoken is not from a nextLink");
    app.query("/deviceGroups/a/devices", &[("api-version", "2022-07-31"), ("$top", "1")]).await.refused(400, "$top");
}
