//! Lists of devices: pages, filters, order.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::support::app::{Answer, App};
use iot_enroll::emulator::{DeviceProperties, Emulator};
use serde_json::json;

const STABLE: (&str, &str) = ("api-version", "2022-07-31");
const PREVIEW: (&str, &str) = ("api-version", "2022-10-31-preview");

fn named(id: &str, name: &str) -> DeviceProperties {
    DeviceProperties::new(id).display_name(name)
}

async fn with_devices(devices: impl IntoIterator<Item = DeviceProperties>) -> App {
    let app = App::start().await;
    app.emulator.add_devices(devices).expect("devices");
    app
}

async fn stable(app: &App, parameters: &[(&str, &str)]) -> Answer {
    app.query("/devices", &[&[STABLE], parameters].concat()).await
}

async fn filtered(app: &App, filter: &str) -> Vec<String> {
    stable(app, &[("$filter", filter)]).await.expect(200).ids()
}

#[tokio::test]
async fn a_page_has_25_devices_or_up_to_100_with_top() {
    let app = with_devices((0..130).map(|number| DeviceProperties::new(format!("d{number:03}")))).await;
    let all: Vec<String> = (0..130).map(|number| format!("d{number:03}")).collect();
    let first = app.get("/devices").await.expect(200);
    assert_eq!(first.ids(), all[..25]);
    assert_eq!(app.all_ids(first).await, all);
    for (top, expected) in [("1", 1), ("99", 99), ("100", 100)] {
        let page = stable(&app, &[("$top", top)]).await.expect(200);
        assert_eq!(page.ids(), all[..expected]);
        assert_eq!(app.next(&page).await.expect("a page").ids().len(), expected.min(130 - expected));
    }
    for wrong in ["0", "101", "-1", "1.5", "", "ten", "99999999999999999999"] {
        stable(&app, &[("$top", wrong)]).await.refused(400, "$top: expected a number from 1 to 100");
    }
}

#[tokio::test]
async fn the_order_is_by_id_or_by_display_name_and_then_id() {
    let app = with_devices([named("b", "x"), named("a", "x"), named("c", "X"), named("d", "\u{e4}")]).await;
    let order = async |text: &str| {
        let first = stable(&app, &[("$orderby", text), ("$top", "1")]).await.expect(200);
        app.all_ids(first).await.concat()
    };
    assert_eq!(app.get("/devices").await.expect(200).ids().concat(), "abcd");
    for text in ["displayName", "displayName asc", " displayname  ASC "] {
        assert_eq!(order(text).await, "cabd", "{text}");
    }
    assert_eq!(order("displayName desc").await, "dbac");
    app.put("/devices/d", &json!({ "displayName": "A" })).await.expect(200);
    app.patch("/devices/a", &json!({ "displayName": "Z" })).await.expect(200);
    assert_eq!(order("displayName").await, "dcab");
    for wrong in ["", "id", "displayName up", "displayName desc desc", "displayName,id", "displayName asc,"] {
        stable(&app, &[("$orderby", wrong)]).await.refused(400, "$orderby: expected displayName");
    }
}

#[tokio::test]
async fn a_filter_finds_the_devices_it_describes() {
    let app = with_devices([
        named("a", "Thermostat one").template("dtmi:a;1").organizations(["redmond", "seattle"]).provisioned(true),
        named("b", "thermostat 'two'").simulated(true).organizations(["tokyo"]),
        named("c", "sensor").enabled(false).template("dtmi:b;1"),
    ])
    .await;
    for (filter, expected) in [
        // Strings.
        ("id eq 'a'", "a"),
        ("id ne 'a'", "bc"),
        ("id lt 'b'", "a"),
        ("id le 'b'", "ab"),
        ("id gt 'b'", "c"),
        ("id ge 'b'", "bc"),
        ("id eq 'A'", ""),
        ("displayName eq 'thermostat ''two'''", "b"),
        ("displayName gt 'a'", "bc"),
        ("template eq 'dtmi:a;1'", "a"),
        ("template ne 'dtmi:a;1'", "bc"),
        ("template lt 'z'", "ac"),
        ("template ge ''", "ac"),
        // A list of organizations.
        ("scopes eq 'seattle'", "a"),
        ("scopes eq 'redmond' and scopes eq 'seattle'", "a"),
        ("scopes ne 'seattle'", "bc"),
        ("scopes gt 'seattle'", "b"),
        ("contains(scopes, 'o')", "ab"),
        // Booleans, and names and keywords in any case.
        ("enabled eq true", "ab"),
        ("Enabled ne true", "c"),
        ("PROVISIONED EQ True", "a"),
        ("simulated ne false", "b"),
        // contains, without a comparison and as a number.
        ("contains(displayName, 'thermostat')", "b"),
        ("contains(displayName, 'thermostat') ge 0", "b"),
        ("contains(displayName, 'thermostat') gt 0", "b"),
        ("contains(displayName, 'thermostat') gt -1", "b"),
        ("contains(displayName, 'thermostat') ne -1", "b"),
        ("contains(displayName, 'thermostat') lt 0", "ac"),
        ("contains(displayName, 'thermostat') le -1", "ac"),
        ("contains(displayName, 'thermostat') eq -1", "ac"),
        ("contains(displayName,'hermostat')ge 0 and contains(displayName,'''')", "b"),
        ("contains(template, '')", "ac"),
        // and binds tighter than or.
        ("id eq 'a' or id eq 'b' and simulated eq false", "a"),
        ("(id eq 'a' or id eq 'b') and simulated eq false", "a"),
        ("id eq 'c' or id eq 'b' and simulated eq true or id eq 'x'", "bc"),
        ("id eq 'c' and simulated eq true or id eq 'a'", "a"),
        ("id eq 'c' and (simulated eq true or id eq 'a')", ""),
        ("((((id eq 'a'))))", "a"),
        ("\tid\neq\r\n'a' ", "a"),
    ] {
        assert_eq!(filtered(&app, filter).await.concat(), expected, "{filter}");
    }
}

#[tokio::test]
async fn a_syntax_error_in_a_filter_is_refused_with_the_position() {
    let app = App::start().await;
    for (filter, position, message) in [
        ("", 1, "expected a field"),
        ("  ", 3, "expected a field"),
        ("name eq 'a'", 1, "expected a field (id, displayName, template, scopes, enabled"),
        ("'a' eq id", 1, "expected a field"),
        ("id", 3, "expected eq, ne, lt, le, gt or ge, found the end"),
        ("id is 'a'", 4, "expected eq, ne"),
        ("id eq", 6, "expected a string in single quotes, found the end"),
        ("id eq a", 7, "expected a string in single quotes, found \"a\""),
        ("id eq \"a\"", 7, "expected a string in single quotes"),
        ("id eq 5", 7, "expected a string in single quotes, found the number 5"),
        ("id eq true", 7, "expected a string"),
        ("id eq null", 7, "expected a string"),
        ("id eq 'a", 7, "unterminated string"),
        ("id eq 'a'' and enabled eq true", 7, "unterminated string"),
        ("enabled", 8, "expected eq or ne"),
        ("enabled eq 'true'", 12, "expected true or false, found the string \"true\""),
        ("enabled eq 1", 12, "expected true or false"),
        ("enabled lt true", 9, "expected eq or ne"),
        ("not enabled eq true", 1, "not is not supported"),
        ("id eq 'a' and", 14, "expected a field"),
        ("id eq 'a' id eq 'b'", 11, "expected and, or, or the end, found \"id\""),
        ("id eq 'a')", 10, "expected and, or, or the end"),
        ("(id eq 'a'", 11, "expected and, or, or \")\""),
        ("()", 2, "expected a field"),
        ("id eq 'ä\u{1f600}' ! enabled", 12, "unexpected character '!'"),
        ("id = 'a'", 4, "expected eq, ne"),
        ("contains", 9, "expected \"(\""),
        ("contains(enabled, 'a')", 10, "contains needs a field of strings"),
        ("contains('a', id)", 10, "expected a field of strings"),
        ("contains(id 'a')", 13, "expected \",\""),
        ("contains(id, 5)", 14, "expected a string"),
        ("contains(id, 'a'", 17, "expected \")\""),
        ("contains(id, 'a') ge", 21, "expected a whole number"),
        ("contains(id, 'a') eq true", 22, "expected a whole number"),
        ("contains(id, 'a') ge 1.5", 22, "expected a whole number"),
        ("contains(id, 'a') ge 99999999999999999999", 22, "at most 64 bits"),
        ("contains(id, 'a') ge -", 22, "expected a whole number"),
        ("startswith(id, 'a')", 1, "expected a field"),
    ] {
        let expected = format!("$filter: at character {position}: ");
        let answer = stable(&app, &[("$filter", filter)]).await.refused(400, message);
        assert!(answer.text("/error/message").starts_with(&expected), "{filter}: {}", answer.body);
    }
    let deep = |depth| format!("{}id eq 'a'{}", "(".repeat(depth), ")".repeat(depth));
    stable(&app, &[("$filter", &deep(63))]).await.expect(200);
    stable(&app, &[("$filter", &deep(64))]).await.refused(400, "at character 65: nested more than 64 deep");
    stable(&app, &[("$filter", &deep(10_000))]).await.refused(400, "nested");
    let long = vec!["id eq 'a'"; 3000].join(" or ");
    stable(&app, &[("$filter", &long)]).await.expect(200);
}

#[tokio::test]
async fn the_preview_version_has_its_own_parameter_names() {
    let app = with_devices([named("a", "x"), named("b", "y"), named("c", "y")]).await;
    let preview = async |parameters: &[(&str, &str)]| app.query("/devices", &[&[PREVIEW], parameters].concat()).await;
    let page =
        preview(&[("maxpagesize", "1"), ("filter", "contains(displayName, 'y')"), ("orderby", "displayName desc")])
            .await
            .expect(200);
    assert_eq!(page.ids(), ["c"]);
    assert_eq!(app.all_ids(page).await, ["c", "b"]);
    for (filter, expected) in [("eq true", "bc"), ("ne true", "a"), ("eq false", "a"), ("ne false", "bc")] {
        let filter = format!("contains(displayName, 'y') {filter}");
        assert_eq!(preview(&[("filter", &filter)]).await.expect(200).ids().concat(), expected, "{filter}");
    }
    preview(&[("filter", "contains(id, 'y') ge 0")]).await.refused(400, "at character 19: expected eq or ne");
    preview(&[("filter", "contains(id, 'y') eq 0")]).await.refused(400, "at character 22: expected true or false");
    for (new, old) in [("maxpagesize", "$top"), ("filter", "$filter"), ("orderby", "$orderby")] {
        stable(&app, &[(new, "1")]).await.refused(400, &format!("{new:?}; it is called {old:?}"));
        preview(&[(old, "1")]).await.refused(400, &format!("{old:?}; it is called {new:?}"));
    }
    stable(&app, &[("$select", "id")]).await.refused(400, "unknown query parameter \"$select\"");
}

#[tokio::test]
async fn paging_neither_repeats_nor_skips_a_device_during_changes() {
    let names = ["f", "d", "b", "h"];
    for (order, filter, expected) in [
        (None, None, ["bd", "ef", "h"]),
        (Some("displayName"), None, ["bd", "ef", "h"]),
        (Some("displayName"), Some("id ne 'x'"), ["bd", "ef", "h"]),
        (Some("displayName desc"), Some("enabled eq true"), ["hf", "eb", "a"]),
    ] {
        let app = with_devices(names.map(|name| named(name, &name.to_uppercase()))).await;
        let mut parameters = vec![("$top", "2")];
        parameters.extend(order.map(|order| ("$orderby", order)));
        parameters.extend(filter.map(|filter| ("$filter", filter)));
        let first = stable(&app, &parameters).await.expect(200);
        assert_eq!(first.ids().concat(), expected[0]);
        for (id, name) in [("a", "A"), ("e", "E")] {
            app.put(&format!("/devices/{id}"), &json!({ "displayName": name })).await.expect(200);
        }
        app.delete("/devices/d").await.expect(204);
        let second = app.next(&first).await.expect("a page");
        assert_eq!(second.ids().concat(), expected[1], "{order:?} {filter:?}");
        let third = app.next(&second).await.expect("a page");
        assert_eq!(third.ids().concat(), expected[2], "{order:?} {filter:?}");
        assert!(app.next(&third).await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_complete_during_concurrent_changes() {
    let app = Arc::new(with_devices((0..300).map(|number| named(&format!("still-{number:03}"), "same"))).await);
    let still: BTreeSet<String> = (0..300).map(|number| format!("still-{number:03}")).collect();
    let done = Arc::new(AtomicBool::new(false));
    let churn = tokio::spawn({
        let (app, done) = (Arc::clone(&app), Arc::clone(&done));
        async move {
            for number in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let path = format!("/devices/still-{:03}-{}", number * 7 % 300, number);
                app.put(&path, &json!({ "displayName": "same" })).await.expect(200);
                app.delete(&path).await.expect(204);
            }
        }
    });
    for parameters in [vec![], vec![("$orderby", "displayName desc")], vec![("$filter", "displayName eq 'same'")]] {
        let parameters = [vec![("$top", "7")], parameters].concat();
        let all = app.all_ids(stable(&app, &parameters).await.expect(200)).await;
        let distinct: BTreeSet<String> = all.iter().cloned().collect();
        assert_eq!(distinct.len(), all.len(), "{parameters:?}");
        assert!(distinct.is_superset(&still), "{parameters:?}");
    }
    done.store(true, Ordering::Relaxed);
    churn.await.expect("requests");
}

#[tokio::test]
async fn a_next_link_keeps_all_options() {
    let app = with_devices([named("a", "x & y"), named("b", "x & y")]).await;
    let parameters = [("$top", "1"), ("$filter", "contains(displayName, 'x & y')"), ("$orderby", "displayName desc")];
    let link = stable(&app, &parameters).await.expect(200).text("/nextLink");
    let link = reqwest::Url::parse(&link).expect("a URL");
    assert_eq!(link.path(), "/api/devices");
    for (name, value) in [STABLE].iter().chain(&parameters) {
        assert!(link.query_pairs().any(|(key, found)| key == *name && found == *value), "{name} is not in {link}");
    }
}

#[tokio::test]
async fn a_skip_token_is_valid_for_its_own_list_only() {
    let app = with_devices([named("a", "x"), named("b", "y"), named("c", "z")]).await;
    let token = |page: &Answer| {
        let link = reqwest::Url::parse(&page.text("/nextLink")).expect("a URL");
        link.query_pairs().find(|(name, _)| name == "$skiptoken").expect("a token").1.into_owned()
    };
    let plain = token(&stable(&app, &[("$top", "1")]).await);
    let ordered = token(&stable(&app, &[("$top", "1"), ("$orderby", "displayName")]).await);
    let filter = ("$filter", "enabled eq true");
    let filtered = token(&stable(&app, &[("$top", "1"), filter]).await);
    let order = ("$orderby", "displayName");
    stable(&app, &[("$top", "2"), ("$skiptoken", &plain)]).await.expect(200);
    stable(&app, &[order, ("$skiptoken", &ordered)]).await.expect(200);
    let mut forged = plain.clone().into_bytes();
    forged[3] = if forged[3] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("ASCII");
    let cut = &plain[..plain.len() - 4];
    for parameters in [
        vec![("$skiptoken", "")],
        vec![("$skiptoken", "YQ")],
        vec![("$skiptoken", "ä")],
        vec![("$skiptoken", forged.as_str())],
        vec![("$skiptoken", cut)],
        vec![("$skiptoken", ordered.as_str())],
        vec![order, ("$skiptoken", plain.as_str())],
        vec![("$skiptoken", filtered.as_str())],
        vec![filter, ("$skiptoken", plain.as_str())],
    ] {
        stable(&app, &parameters).await.refused(400, "$skiptoken is not from a nextLink");
    }
    let other = App::with(Emulator::builder()).await;
    stable(&other, &[("$skiptoken", &plain)]).await.expect(400);
}

#[tokio::test]
async fn version_2022_06_30_preview_has_dollar_parameters_and_the_field_type() {
    let version = ("api-version", "2022-06-30-preview");
    let edge = named("edge", "gateway").iot_edge(true);
    let app = with_devices([named("a", "x"), edge, named("b", "y")]).await;
    let list = async |parameters: &[(&str, &str)]| app.query("/devices", &[&[version], parameters].concat()).await;
    let page =
        list(&[("$top", "1"), ("$orderby", "displayName desc"), ("$filter", "enabled eq true")]).await.expect(200);
    assert_eq!(app.all_ids(page).await, ["b", "a", "edge"]);
    for (filter, expected) in [
        ("type eq 'GatewayDevice' or type eq 'EdgeDevice'", vec!["edge"]),
        ("type eq 'EdgeDevice' and displayName eq 'x'", vec![]),
        ("type ne 'EdgeDevice'", vec!["a", "b"]),
        ("Type eq 'GatewayDevice'", vec![]),
        // contains is a number in the stable version and a boolean in the other preview; this version accepts both.
        ("contains(displayName, 'gate') ge 0", vec!["edge"]),
        ("contains(displayName, 'gate') lt 0", vec!["a", "b"]),
        ("contains(displayName, 'gate') eq true", vec!["edge"]),
        ("contains(displayName, 'gate') ne true", vec!["a", "b"]),
        ("contains(displayName, 'gate')", vec!["edge"]),
    ] {
        assert_eq!(list(&[("$filter", filter)]).await.expect(200).ids(), expected, "{filter}");
    }
    list(&[("$filter", "contains(id, 'e') lt true")]).await.refused(400, "expected a whole number");
    for (old, new) in [("$top", "maxpagesize"), ("$filter", "filter"), ("$orderby", "orderby")] {
        list(&[(new, "1")]).await.refused(400, &format!("{new:?}; it is called {old:?} in version 2022-06-30-preview"));
    }
    for other in [STABLE, PREVIEW] {
        let name = if other == STABLE { "$filter" } else { "filter" };
        let answer = app.query("/devices", &[other, (name, "type eq 'EdgeDevice'")]).await;
        answer.refused(400, "at character 1: expected a field");
    }
}

#[tokio::test]
async fn the_type_is_shown_and_accepted_by_the_preview_versions() {
    let app = App::start().await;
    let call = async |version: &str, method: &str, path: &str, body: Option<&serde_json::Value>| {
        let mut request = app.request(method, &format!("{path}?api-version={version}"));
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        app.send(request).await
    };
    for version in ["2022-06-30-preview", "2022-10-31-preview"] {
        let put = call(version, "PUT", "/devices/edge", Some(&json!({ "type": ["iotEdge"] }))).await.expect(200);
        assert_eq!(put.body["type"], json!(["iotEdge"]));
        assert_eq!(call(version, "GET", "/devices/edge", None).await.expect(200).body, put.body);
        assert_eq!(app.get("/devices/edge").await.expect(200).body.get("type"), None);
        app.delete("/devices/edge").await.expect(204);
    }
    call("2022-06-30-preview", "GET", "/deploymentManifests", None)
        .await
        .refused(404, "use api-version=2022-10-31-preview");
}
