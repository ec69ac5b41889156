//! The checks of every request: authorization, version, throttling, media type, size.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use crate::support::app::{App, VERSION, x509_group};
use iot_enroll::emulator::{Clock, Emulator};
use time::OffsetDateTime;
use tokio::task::JoinSet;

const GROUP: &str = "/enrollmentGroups/g";

#[tokio::test]
async fn only_the_exact_token_is_authorized() {
    let app = App::start().await;
    let token = app.emulator.token().to_owned();
    let url = format!("{}/api{GROUP}?{VERSION}", app.emulator.endpoint());
    app.send(app.http.get(&url)).await.refused(401, "missing");
    for wrong in
        ["", "x", &token[..token.len() - 1], &format!("{token}x"), &format!("Bearer {token}"), &token.to_lowercase()]
    {
        let answer = app.send(app.http.get(&url).header("Authorization", wrong)).await;
        assert!(!answer.body.to_string().contains(&token));
        answer.expect(401);
    }
    let twice = app.http.get(&url).header("Authorization", &token).header("Authorization", &token);
    app.send(twice).await.refused(401, "several");
    app.get(GROUP).await.expect(404);
}

#[tokio::test]
async fn a_configured_token_is_required() {
    let app = App::with(Emulator::builder().token("Bearer abc".to_owned())).await;
    assert_eq!(app.emulator.token(), "Bearer abc");
    app.get("/enrollmentGroups").await.expect(200);
}

#[tokio::test]
async fn a_generated_token_has_the_form_of_an_api_token() {
    let (one, other) = (App::start().await, App::start().await);
    let token = one.emulator.token();
    let parts = token.strip_prefix("SharedAccessSignature ").expect("the scheme");
    let names: Vec<&str> = parts.split('&').filter_map(|part| Some(part.split_once('=')?.0)).collect();
    assert_eq!(names, ["sr", "sig", "skn", "se"]);
    assert_ne!(token, other.emulator.token());
}

#[tokio::test]
async fn exactly_one_known_version_is_required() {
    let app = App::start().await;
    for (query, message) in [
        ("", "api-version is missing"),
        ("?api-version=", "unknown"),
        ("?api-version=2019-01-01", "2019-01-01"),
        ("?API-VERSION=2022-07-31", "api-version is missing"),
        ("?api-version=2022-07-31&api-version=2022-10-31-preview", "more than once, with different values"),
        ("?api-version=2022-07-31&unknown=1", "unknown"),
        ("?api-version=2022-07-31&$skiptoken=YQ", "$skiptoken"),
    ] {
        app.send(app.request("GET", &format!("{GROUP}{query}"))).await.refused(400, message);
    }
    for version in ["2022-07-31", "2022-10-31-preview", "2022-06-30-preview", "2022%2D07-31"] {
        app.send(app.request("GET", &format!("/enrollmentGroups?api-version={version}"))).await.expect(200);
    }
}

#[tokio::test]
async fn unknown_routes_are_404_and_unknown_methods_405() {
    let app = App::start().await;
    for path in ["", "/", "/enrollmentgroups", "/enrollmentGroups/", "/enrollmentGroups/g/", "/enrollmentGroups/g/x"] {
        app.send(app.request("GET", &format!("{path}?{VERSION}"))).await.refused(404, "does not exist");
    }
    let outside = app.http.get(format!("{}/elsewhere", app.emulator.endpoint()));
    app.send(outside).await.refused(404, "/elsewhere");
    for (method, path) in [
        ("POST", "/enrollmentGroups"),
        ("POST", GROUP),
        ("PATCH", "/enrollmentGroups/g/certificates/primary"),
        ("GET", "/enrollmentGroups/g/certificates/primary/verify"),
        ("PUT", "/enrollmentGroups/g/certificates/primary/verify"),
    ] {
        let answer = app.call(method, path, None).await.refused(405, method);
        assert!(answer.headers.contains_key("allow"), "{method} {path}");
    }
}

#[tokio::test]
async fn requests_over_the_rate_are_429_until_retry_after() {
    let clock = Clock::frozen(OffsetDateTime::now_utc());
    let app = App::with(Emulator::builder().clock(clock.clone()).rate(NonZeroU32::new(2))).await;
    for _ in 0..2 {
        app.get("/enrollmentGroups").await.expect(200);
    }
    let refused = app.get("/enrollmentGroups").await.expect(429);
    let seconds: u64 = refused.headers["retry-after"].to_str().expect("ASCII").parse().expect("whole seconds");
    assert!(seconds >= 1);
    // Unauthorized requests do not count toward the rate.
    app.send(app.http.get(format!("{}/api/enrollmentGroups", app.emulator.endpoint()))).await.expect(401);
    clock.advance(Duration::from_secs(seconds));
    app.get("/enrollmentGroups").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_is_exact_for_concurrent_requests() {
    let clock = Clock::frozen(OffsetDateTime::now_utc());
    let app = Arc::new(App::with(Emulator::builder().clock(clock.clone()).rate(NonZeroU32::new(20))).await);
    let let_in = async || {
        let mut requests = JoinSet::new();
        for _ in 0..100 {
            let app = Arc::clone(&app);
            requests.spawn(async move { app.get("/devices").await.status });
        }
        let statuses = requests.join_all().await;
        assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
        statuses.iter().filter(|status| **status == 200).count()
    };
    assert_eq!(let_in().await, 20);
    assert_eq!(let_in().await, 0);
    clock.advance(Duration::from_millis(500));
    assert_eq!(let_in().await, 10);
    clock.advance(Duration::from_secs(60));
    assert_eq!(let_in().await, 20);
}

#[tokio::test]
async fn a_body_must_be_json_by_media_type_and_content() {
    let app = App::start().await;
    let group = x509_group().to_string();
    let put = || app.request("PUT", &format!("{GROUP}?{VERSION}"));
    app.send(put().body(group.clone())).await.refused(415, "found nothing");
    for wrong in
        ["text/plain", "application/merge-patch+json", "application/jsonp", "application/json; charset=iso-8859-1"]
    {
        app.send(put().header("Content-Type", wrong).body(group.clone())).await.refused(415, wrong);
    }
    for right in ["application/json", "Application/JSON;charset=UTF-8", "application/json; charset=\"utf-8\"; x=y"] {
        app.send(put().header("Content-Type", right).body(group.clone())).await.expect(200);
    }
    let json = || put().header("Content-Type", "application/json");
    for broken in [&b""[..], b"{", b"{\"displayName\": \"\xff\"}", b"{} {}", "[".repeat(100_000).as_bytes()] {
        app.send(json().body(broken.to_vec())).await.refused(400, "not JSON");
    }
    let body = |size: usize| group.clone() + &" ".repeat(size - group.len());
    app.send(json().body(body(1 << 20))).await.expect(200);
    app.send(json().body(body((1 << 20) + 1))).await.refused(413, "1048576");
    app.send(json().body(body(7 << 20))).await.refused(413, "1048576");
}
