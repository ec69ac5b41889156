//! Enrollment groups: create, replace, patch, delete, list.

use std::{collections::HashSet, num::NonZeroUsize, sync::Arc};

use crate::support::app::{App, Authority, MERGE_PATCH, VERSION, symmetric_group, x509_group};
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::emulator::Emulator;
use serde_json::{Value, json};

const GROUP: &str = "/enrollmentGroups/g";

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

#[tokio::test]
async fn a_group_is_shown_as_it_was_set_and_enabled_by_default() {
    let app = App::start().await;
    let put = app.put(GROUP, &symmetric_group()).await.expect(200);
    assert_eq!(app.get(GROUP).await.expect(200).body, put.body);
    assert_eq!(put.body["enabled"], true);
    assert_eq!(put.body["type"], "iotEdge");
    let disabled = app.put(GROUP, &with(symmetric_group(), "enabled", json!(false))).await.expect(200);
    assert_eq!(disabled.body["enabled"], false);
}

#[tokio::test]
async fn symmetric_keys_are_generated_if_omitted_and_kept_by_put() {
    let app = App::start().await;
    let made = app.put(GROUP, &symmetric_group()).await.expect(200).body["attestation"]["symmetricKey"].clone();
    for key in ["primaryKey", "secondaryKey"] {
        assert_eq!(BASE64_STANDARD.decode(made[key].as_str().expect("a key")).expect("base64").len(), 64);
    }
    assert_ne!(made["primaryKey"], made["secondaryKey"]);
    let again = app.put(GROUP, &symmetric_group()).await.expect(200);
    assert_eq!(again.body["attestation"]["symmetricKey"], made);

    let keys =
        json!({ "primaryKey": BASE64_STANDARD.encode([1; 16]), "secondaryKey": BASE64_STANDARD.encode([2; 64]) });
    let attestation = json!({ "type": "symmetricKey", "symmetricKey": keys });
    let given = app.put(GROUP, &with(symmetric_group(), "attestation", attestation)).await.expect(200);
    assert_eq!(given.body["attestation"]["symmetricKey"], keys);
}

#[tokio::test]
async fn setting_a_group_again_keeps_its_certificates() {
    let app = App::start().await;
    let certificate = app.enrolled(&Authority::new("Root")).await;
    let before = app.get(&certificate).await.expect(200).body;
    let group = app.put(GROUP, &with(x509_group(), "displayName", json!("Other"))).await.expect(200);
    assert_eq!(group.body["displayName"], "Other");
    assert_eq!(group.body["attestation"]["x509"]["signingCertificates"], json!({ "primary": before }));
}

#[tokio::test]
async fn the_response_of_get_can_be_put_back() {
    let app = App::start().await;
    app.enrolled(&Authority::new("Root")).await;
    let shown = app.get(GROUP).await.expect(200).body;
    let put = app.put(GROUP, &shown).await.expect(200).body;
    assert_eq!(put["attestation"], shown["attestation"]);
    let certificates = json!({ "primary": { "certificate": Authority::new("Other").base64() } });
    let body =
        with(x509_group(), "attestation", json!({ "type": "x509", "x509": { "signingCertificates": certificates } }));
    app.put(GROUP, &body).await.refused(422, "attestation.x509.signingCertificates.primary");
}

#[tokio::test]
async fn the_attestation_type_cannot_change() {
    let app = App::start().await;
    app.put(GROUP, &x509_group()).await.expect(200);
    app.put(GROUP, &symmetric_group()).await.refused(422, "attestation.type");
    let patch = json!({ "attestation": { "type": "symmetricKey" } });
    app.patch(GROUP, &patch).await.expect(422);
    let patch = json!({ "attestation": { "type": "symmetricKey", "x509": null } });
    app.patch(GROUP, &patch).await.refused(422, "attestation.type");
    assert_eq!(app.get(GROUP).await.expect(200).body["attestation"]["type"], "x509");
}

#[tokio::test]
async fn every_field_of_the_body_is_checked_and_named() {
    let app = App::start().await;
    let key = |primary: &str| json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": primary, "secondaryKey": "" } });
    let group = x509_group();
    for (body, message) in [
        (json!([]), "the body: expected an object, found an array"),
        (json!({}), "displayName: is missing"),
        (with(group.clone(), "displayName", json!(1)), "displayName: expected a string, found a number"),
        (with(group.clone(), "displayName", Value::Null), "displayName: expected a string, found null"),
        (with(group.clone(), "enabled", json!("true")), "enabled: expected true or false"),
        (with(group.clone(), "type", json!("edge")), "type: expected iot or iotEdge, found \"edge\""),
        (with(group.clone(), "type", json!({ "iot": null })), "type: expected a string, found an object"),
        (with(group.clone(), "attestation", json!(["x509"])), "attestation: expected an object, found an array"),
        (with(group.clone(), "attestation", json!({})), "attestation.type: is missing"),
        (with(group.clone(), "attestation", json!({ "type": "tpm" })), "attestation.type: expected"),
        (
            with(group.clone(), "attestation", json!({ "type": "symmetricKey", "x509": {} })),
            "attestation.x509: not allowed",
        ),
        (with(group.clone(), "attestation", key("AAAA")), "attestation.symmetricKey.primaryKey: a key has 16 to 64"),
        (with(group.clone(), "attestation", key("%")), "attestation.symmetricKey.primaryKey: it is not base64"),
        (with(group.clone(), "id", json!("other")), "id: found \"other\""),
        (with(group.clone(), "dispalyName", json!("")), "dispalyName: is an unknown field"),
    ] {
        app.put(GROUP, &body).await.refused(422, message);
    }
    app.get(GROUP).await.expect(404);
    app.put(GROUP, &with(group, "id", json!("g"))).await.expect(200);
}

#[tokio::test]
async fn a_patch_merges_and_checks_the_result() {
    let app = App::start().await;
    let keys = app.put(GROUP, &symmetric_group()).await.expect(200).body["attestation"].clone();
    let patched = app.patch(GROUP, &json!({ "displayName": "New", "type": "iot", "enabled": false })).await.expect(200);
    assert_eq!(patched.body["displayName"], "New");
    assert_eq!(patched.body["type"], "iot");
    assert_eq!(patched.body["enabled"], false);
    assert_eq!(patched.body["attestation"], keys);
    let defaulted = app.patch(GROUP, &json!({ "enabled": null })).await.expect(200);
    assert_eq!(defaulted.body["enabled"], true, "null takes a member away, and the default is back");
    let key = BASE64_STANDARD.encode([7; 32]);
    let rolled =
        app.patch(GROUP, &json!({ "attestation": { "symmetricKey": { "primaryKey": key } } })).await.expect(200);
    assert_eq!(rolled.body["attestation"]["symmetricKey"]["primaryKey"], key);
    assert_eq!(rolled.body["attestation"]["symmetricKey"]["secondaryKey"], keys["symmetricKey"]["secondaryKey"]);
    for (patch, message) in [
        (json!("text"), "expected an object"),
        (json!({ "displayName": null }), "displayName: is missing"),
        (json!({ "attestation": null }), "attestation: is missing"),
        (json!({ "attestation": { "symmetricKey": null } }), "cannot remove keys"),
        (json!({ "id": "other" }), "id: "),
        (json!({ "unknown": 1 }), "unknown: "),
    ] {
        app.patch(GROUP, &patch).await.refused(422, message);
    }
    assert_eq!(app.get(GROUP).await.expect(200).body, rolled.body, "a refused patch changes nothing");
    app.patch("/enrollmentGroups/none", &json!({})).await.refused(404, "none");
}

#[tokio::test]
async fn a_patch_cannot_remove_a_certificate() {
    let app = App::start().await;
    let certificate = app.enrolled(&Authority::new("Root")).await;
    for x509 in [json!(null), json!({ "signingCertificates": { "primary": null } })] {
        app.patch(GROUP, &json!({ "attestation": { "x509": x509 } })).await.refused(422, "DELETE on certificates");
    }
    app.get(&certificate).await.expect(200);
}

#[tokio::test]
async fn an_etag_in_the_body_must_be_the_current_one() {
    let app = App::start().await;
    app.put(GROUP, &with(x509_group(), "etag", json!("any"))).await.refused(412, "does not exist");
    let mut seen = HashSet::new();
    let first = app.put(GROUP, &x509_group()).await.expect(200).text("/etag");
    let decoded = String::from_utf8(BASE64_STANDARD.decode(&first).expect("base64")).expect("text");
    assert!(decoded.starts_with('"') && decoded.ends_with('"'), "a quoted string: {decoded}");
    let second = app.put(GROUP, &with(x509_group(), "etag", json!(first))).await.expect(200).text("/etag");
    app.put(GROUP, &with(x509_group(), "etag", json!(first))).await.refused(412, "has changed");
    app.patch(GROUP, &json!({ "displayName": "x", "etag": first })).await.refused(412, "has changed");
    let third = app.patch(GROUP, &json!({ "displayName": "x", "etag": second })).await.expect(200).text("/etag");
    app.delete(GROUP).await.expect(204);
    let fourth = app.put(GROUP, &x509_group()).await.expect(200).text("/etag");
    assert!([first, second, third, fourth].into_iter().all(|etag| seen.insert(etag)), "no etag comes twice");
}

#[tokio::test]
async fn deleting_a_group_deletes_its_certificates() {
    let app = App::start().await;
    let certificate = app.enrolled(&Authority::new("Root")).await;
    app.delete(GROUP).await.expect(204);
    app.delete(GROUP).await.expect(404);
    app.get(&certificate).await.refused(404, "no enrollment group");
    app.put(GROUP, &x509_group()).await.expect(200);
    app.get(&certificate).await.refused(404, "no primary certificate");
}

#[tokio::test]
async fn percent_decoded_ids_follow_their_pattern() {
    let app = App::start().await;
    app.put("/enrollmentGroups/%6Dine", &x509_group()).await.expect(200);
    app.get("/enrollmentGroups/mine").await.expect(200);
    app.get("/enrollmentGroups/Mine").await.expect(404);
    app.put(&format!("/enrollmentGroups/{}", "a".repeat(255)), &x509_group()).await.expect(200);
    for id in [&"a".repeat(256), "a_b", "a.b", "a%20b", "a%2Fb", "%C3%A4", "%FF", "%00"] {
        app.put(&format!("/enrollmentGroups/{id}"), &x509_group()).await.expect(400);
    }
}

#[tokio::test]
async fn a_list_has_pages_of_25_and_an_absolute_link_to_the_next() {
    let app = App::start().await;
    assert_eq!(app.get("/enrollmentGroups").await.expect(200).body, json!({ "value": [] }));
    let all: Vec<String> = (0..51).map(|number| format!("g{number:02}")).collect();
    for id in &all {
        app.put(&format!("/enrollmentGroups/{id}"), &x509_group()).await.expect(200);
    }
    let (mut found, mut sizes) = (Vec::new(), Vec::new());
    let mut page = Some(app.get("/enrollmentGroups").await.expect(200));
    while let Some(current) = page {
        sizes.push(current.ids().len());
        found.extend(current.ids());
        page = app.next(&current).await;
    }
    assert_eq!(sizes, [25, 25, 1]);
    assert_eq!(found, all);
}

#[tokio::test]
async fn the_last_page_has_no_next_link() {
    let app = App::with(Emulator::builder().page_size(NonZeroUsize::new(2).expect("two"))).await;
    for id in ["a", "b"] {
        app.put(&format!("/enrollmentGroups/{id}"), &x509_group()).await.expect(200);
    }
    assert_eq!(app.get("/enrollmentGroups").await.expect(200).body.get("nextLink"), None);
}

#[tokio::test]
async fn paging_neither_repeats_nor_skips_a_group_during_changes() {
    let app = App::with(Emulator::builder().page_size(NonZeroUsize::new(2).expect("two"))).await;
    for id in ["b", "d", "f", "h"] {
        app.put(&format!("/enrollmentGroups/{id}"), &x509_group()).await.expect(200);
    }
    let first = app.get("/enrollmentGroups").await.expect(200);
    assert_eq!(first.ids(), ["b", "d"]);
    app.put("/enrollmentGroups/a", &x509_group()).await.expect(200);
    app.put("/enrollmentGroups/e", &x509_group()).await.expect(200);
    app.delete("/enrollmentGroups/d").await.expect(204);
    let second = app.next(&first).await.expect("a second page");
    assert_eq!(second.ids(), ["e", "f"]);
    assert_eq!(app.next(&second).await.expect("a third page").ids(), ["h"]);
}

#[tokio::test]
async fn a_next_link_keeps_the_host_and_port_that_the_client_used() {
    let app = App::with(Emulator::builder().page_size(NonZeroUsize::MIN).host("app.example")).await;
    for id in ["a", "b"] {
        app.put(&format!("/enrollmentGroups/{id}"), &x509_group()).await.expect(200);
    }
    let localhost = format!("localhost:{}", app.emulator.address().port());
    for host in [localhost.as_str(), "localhost", "localhost:443", "app.example", "[::1]:8443", "App.example:80"] {
        let request = app.request("GET", &format!("/enrollmentGroups?{VERSION}")).header("Host", host);
        let link = app.send(request).await.expect(200).text("/nextLink");
        assert!(link.starts_with(&format!("http://{host}/api/enrollmentGroups?")), "{host}: {link}");
    }
}

#[tokio::test]
async fn a_forged_skip_token_is_refused() {
    let app = App::start().await;
    for token in ["%25", "_w"] {
        let request = app.request("GET", &format!("/enrollmentGroups?{VERSION}&$skiptoken={token}"));
        app.send(request).await.refused(400, "$skiptoken");
    }
    let request = app.request("GET", &format!("/enrollmentGroups?{VERSION}&$top=2"));
    app.send(request).await.refused(400, "$top");
}

#[tokio::test]
async fn a_patch_has_the_media_type_of_merge_patch_or_json() {
    let app = App::start().await;
    app.put(GROUP, &x509_group()).await.expect(200);
    let patch = |media_type: &str| {
        let patch = app.request("PATCH", &format!("{GROUP}?{VERSION}")).header("Content-Type", media_type);
        patch.body(json!({ "displayName": media_type }).to_string())
    };
    for media_type in [MERGE_PATCH, "application/json", "application/json; charset=utf-8"] {
        assert_eq!(app.send(patch(media_type)).await.expect(200).text("/displayName"), media_type);
    }
    app.send(patch("text/plain")).await.refused(415, MERGE_PATCH);
}

#[tokio::test]
async fn two_groups_cannot_have_the_same_symmetric_keys() {
    let app = App::start().await;
    let with = |primary: u8, secondary: u8| {
        let keys = json!({
            "primaryKey": BASE64_STANDARD.encode([primary; 32]), "secondaryKey": BASE64_STANDARD.encode([secondary; 32])
        });
        with(symmetric_group(), "attestation", json!({ "type": "symmetricKey", "symmetricKey": keys }))
    };
    app.put(GROUP, &with(1, 2)).await.expect(200);
    let refused = app.put("/enrollmentGroups/h", &with(1, 2)).await.refused(409, "\"g\" has the same keys");
    assert_eq!(refused.text("/error/code"), "Conflict");
    assert!(!refused.text("/error/message").contains(&BASE64_STANDARD.encode([1; 32])));
    app.get("/enrollmentGroups/h").await.expect(404);
    // The group itself can be put again. A patch must not cause what PUT refuses.
    app.put(GROUP, &with(1, 2)).await.expect(200);
    app.put("/enrollmentGroups/h", &with(1, 3)).await.expect(200);
    app.patch("/enrollmentGroups/h", &json!({ "attestation": with(1, 2)["attestation"] })).await.expect(409);
    app.delete(GROUP).await.expect(204);
    app.patch("/enrollmentGroups/h", &json!({ "attestation": with(1, 2)["attestation"] })).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_parallel_requests_leave_one_consistent_state() {
    let app = Arc::new(App::start().await);
    let etag = app.put(GROUP, &x509_group()).await.expect(200).text("/etag");
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (app, etag) = (Arc::clone(&app), etag.clone());
        tasks.spawn(async move {
            let own = format!("/enrollmentGroups/own-{number}");
            let put = app.put(&own, &symmetric_group()).await.expect(200);
            assert_eq!(app.get(&own).await.expect(200).body, put.body);
            // All of them try to change the same version. One succeeds.
            app.patch(GROUP, &json!({ "displayName": number.to_string(), "etag": etag })).await.status
        });
    }
    let statuses = tasks.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 199);
    assert_eq!(app.all_ids(app.get("/enrollmentGroups").await.expect(200)).await.len(), 201);
}
