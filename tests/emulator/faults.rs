//! Injected faults.

use crate::support::raw;
use std::time::Duration;

use crate::support::app::{App, x509_group};
use iot_enroll::emulator::{Clock, Emulator, EmulatorError, Fault, FaultKind};
use time::macros::datetime;

const GROUP: &str = "/enrollmentGroups/g";

fn inject(app: &App, fault: Fault) {
    app.emulator.inject(fault).expect("a fault that can be carried out");
}

/// Sends a PUT of a group over a plain connection and returns all received bytes.
async fn put_raw(app: &App) -> String {
    let body = x509_group().to_string();
    let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let text = raw::request(&app.emulator, "PUT", GROUP, &headers, &body);
    raw::rest(&mut raw::connect(&app.emulator, &text).await).await
}

#[tokio::test]
async fn a_status_occurs_as_often_as_set_and_only_if_it_matches() {
    let app = App::start().await;
    let unavailable = FaultKind::Status { status: 503, retry_after: Some(Duration::from_millis(1500)) };
    inject(&app, Fault::new(unavailable).method("put").path_contains("/enrollmentGroups/").times(2));
    app.get("/enrollmentGroups").await.expect(200);
    app.get(GROUP).await.expect(404);
    for _ in 0..2 {
        let answer = app.put(GROUP, &x509_group()).await.expect(503);
        assert_eq!(answer.headers["retry-after"], "2");
        assert_eq!(answer.body["error"]["code"], "ServiceUnavailable");
    }
    app.get(GROUP).await.expect(404);
    app.put(GROUP, &x509_group()).await.expect(200);
}

#[tokio::test]
async fn faults_occur_in_order_and_can_be_cleared() {
    let app = App::start().await;
    for status in [500, 429] {
        inject(&app, Fault::new(FaultKind::Status { status, retry_after: None }));
    }
    inject(&app, Fault::new(FaultKind::Status { status: 502, retry_after: None }).always());
    for status in [500, 429, 502, 502, 502] {
        app.get("/enrollmentGroups").await.expect(status);
    }
    app.emulator.clear_faults();
    app.get("/enrollmentGroups").await.expect(200);
}

#[tokio::test]
async fn close_before_handling_breaks_the_connection_and_changes_nothing() {
    let app = App::start().await;
    inject(&app, Fault::new(FaultKind::CloseBeforeHandling));
    assert_eq!(put_raw(&app).await, "");
    app.get(GROUP).await.expect(404);
    assert_eq!(app.emulator.requests()[0].status, None);
}

#[tokio::test]
async fn close_after_handling_loses_the_response_of_an_executed_request() {
    let app = App::start().await;
    inject(&app, Fault::new(FaultKind::CloseAfterHandling));
    assert_eq!(put_raw(&app).await, "");
    app.get(GROUP).await.expect(200);
}

#[tokio::test]
async fn truncate_body_breaks_the_connection_in_the_middle_of_the_body() {
    let app = App::start().await;
    inject(&app, Fault::new(FaultKind::TruncateBody));
    let received = put_raw(&app).await;
    let (head, body) = received.split_once("\r\n\r\n").expect("a whole head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length =
        head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    assert!(!body.is_empty() && body.len() < length.expect("a length"), "{received}");
    app.get(GROUP).await.expect(200);
}

#[tokio::test]
async fn truncate_body_without_a_body_breaks_the_connection() {
    let app = App::start().await;
    app.put(GROUP, &x509_group()).await.expect(200);
    inject(&app, Fault::new(FaultKind::TruncateBody).method("DELETE"));
    let text = raw::request(&app.emulator, "DELETE", GROUP, "", "");
    assert_eq!(raw::rest(&mut raw::connect(&app.emulator, &text).await).await, "");
    app.get(GROUP).await.expect(404);
}

#[tokio::test]
async fn a_web_page_or_a_redirect_replaces_the_response() {
    let app = App::start().await;
    inject(&app, Fault::new(FaultKind::NotJson));
    inject(&app, Fault::new(FaultKind::Redirect("https://elsewhere.example/".to_owned())));
    let get = || app.request("GET", "/enrollmentGroups?api-version=2022-07-31");
    let page = get().send().await.expect("an answer");
    assert_eq!(page.status(), 200);
    assert!(page.headers()["content-type"].to_str().expect("ASCII").starts_with("text/html"));
    let redirect = get().send().await.expect("an answer");
    assert_eq!(redirect.status(), 307);
    assert_eq!(redirect.headers()["location"], "https://elsewhere.example/");
}

#[tokio::test]
async fn a_delay_precedes_the_response() {
    // Longer than the delay, since the paused clock advances on its own below.
    let app = App::with(Emulator::builder().read_timeout(Duration::from_secs(7200))).await;
    inject(&app, Fault::new(FaultKind::Delay(Duration::from_secs(3600))));
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    app.get("/enrollmentGroups").await.expect(200);
    assert!(begun.elapsed() >= Duration::from_secs(3600), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_status_can_have_a_date_by_the_clock_of_the_emulator() {
    let clock = Clock::frozen(datetime!(2026-12-31 23:59:58.5 UTC));
    let app = App::with(Emulator::builder().clock(clock)).await;
    inject(&app, Fault::new(FaultKind::StatusUntil { status: 429, retry_after: Duration::from_millis(4200) }));
    let answer = app.get("/enrollmentGroups").await.expect(429);
    assert_eq!(answer.headers["retry-after"], "Fri, 01 Jan 2027 00:00:04 GMT");
}

#[tokio::test]
async fn close_on_connect_ends_a_connection_before_anything_is_read() {
    let app = App::start().await;
    // A connection that is already open stays open.
    let body = x509_group().to_string();
    let mut before = raw::waiting_for_body(&app.emulator, GROUP, body.len()).await;
    inject(&app, Fault::new(FaultKind::CloseOnConnect).times(2));
    for _ in 0..2 {
        // Nothing was sent that could be read.
        assert_eq!(raw::rest(&mut raw::connect(&app.emulator, "").await).await, "");
    }
    tokio::io::AsyncWriteExt::write_all(&mut before, body.as_bytes()).await.expect("sent");
    app.get(GROUP).await;
    assert!(app.emulator.requests().iter().all(|request| request.status.is_some()));
    let elsewhere = Fault::new(FaultKind::CloseOnConnect).method("PUT");
    assert!(matches!(app.emulator.inject(elsewhere), Err(EmulatorError::Fault(_))));
}

#[tokio::test]
async fn unauthorized_requests_neither_see_faults_nor_use_them_up() {
    let app = App::start().await;
    inject(&app, Fault::new(FaultKind::Status { status: 503, retry_after: None }).times(2));
    let list = format!("{}/api/enrollmentGroups?api-version=2022-07-31", app.emulator.endpoint());
    for _ in 0..3 {
        // A probe, a client with another token, a browser.
        app.send(app.http.get(&list)).await.expect(401);
        app.send(app.http.get(&list).header("Authorization", "SharedAccessSignature sr=wrong")).await.expect(401);
        app.send(app.http.get(format!("{}/favicon.ico", app.emulator.endpoint()))).await.expect(404);
    }
    for status in [503, 503, 200] {
        app.get("/enrollmentGroups").await.expect(status);
    }
}

#[tokio::test]
async fn a_device_without_credentials_uses_up_no_fault() {
    let app = App::start().await;
    inject(&app, Fault::new(FaultKind::Status { status: 503, retry_after: None }));
    let path = format!("/{}/registrations/d/register?api-version=2021-06-01", app.emulator.id_scope());
    let register = || {
        let put = app.http.put(format!("{}{path}", app.emulator.endpoint()));
        put.header("Content-Type", "application/json").body(r#"{"registrationId":"d"}"#)
    };
    let status = async |request: reqwest::RequestBuilder| request.send().await.expect("an answer").status().as_u16();
    assert_eq!(status(register()).await, 401);
    // The fault replaces the service's response to an invalid token.
    let with_token = || register().header("Authorization", "SharedAccessSignature sr=x&sig=AAAA&se=1");
    assert_eq!(status(with_token()).await, 503);
    assert_eq!(status(with_token()).await, 401);
}

#[test]
fn a_fault_has_a_text_form() {
    let status =
        |status, seconds: Option<u64>| FaultKind::Status { status, retry_after: seconds.map(Duration::from_secs) };
    for (text, expected) in [
        ("500", Fault::new(status(500, None))),
        (
            "429:retry-after=2,method=PUT,path=/devices,times=3",
            Fault::new(status(429, Some(2))).method("PUT").path_contains("/devices").times(3),
        ),
        (
            "503:retry-after-date=+5s,times=always",
            Fault::new(FaultKind::StatusUntil { status: 503, retry_after: Duration::from_secs(5) }).always(),
        ),
        ("delay=500ms", Fault::new(FaultKind::Delay(Duration::from_millis(500)))),
        ("delay=2m,method=get", Fault::new(FaultKind::Delay(Duration::from_secs(120))).method("GET")),
        ("close-on-connect,times=2", Fault::new(FaultKind::CloseOnConnect).times(2)),
        ("close-before", Fault::new(FaultKind::CloseBeforeHandling)),
        ("close-after", Fault::new(FaultKind::CloseAfterHandling)),
        ("truncate", Fault::new(FaultKind::TruncateBody)),
        ("not-json", Fault::new(FaultKind::NotJson)),
        (
            "redirect=https://elsewhere.example:8443/?a=b,times=1",
            Fault::new(FaultKind::Redirect("https://elsewhere.example:8443/?a=b".to_owned())),
        ),
    ] {
        assert_eq!(text.parse::<Fault>(), Ok(expected), "{text}");
    }
}

#[test]
fn the_faults_in_the_documentation_are_valid() {
    let page = include_str!("../../docs/emulator.md");
    let shown: Vec<_> = page.split("--fault ").skip(1).filter_map(|rest| rest.split_whitespace().next()).collect();
    assert!(shown.len() >= 3, "{shown:?}");
    for text in shown {
        assert!(text.parse::<Fault>().is_ok(), "{text}");
    }
}

#[test]
fn a_syntax_error_in_a_fault_is_refused_with_the_position() {
    for (text, position, message) in [
        ("", 1, "expected a status from 400 to 599, delay=TIME"),
        ("oops", 1, "found \"oops\""),
        ("200", 1, "200 is not an error status"),
        ("99999", 1, "expected a status"),
        ("429:", 5, "expected retry-after=SECONDS"),
        ("429:retry-after=soon", 17, "expected a whole number of seconds"),
        ("429:retry-after-date=5s", 5, "expected retry-after=SECONDS or retry-after-date=+TIME"),
        ("429:retry-after-date=+5", 23, "expected a time"),
        ("delay=", 7, "expected a time, as in 500ms, 5s or 2m"),
        ("delay=99999999999999999999s", 7, "expected a time"),
        ("delay=9999999999999999999m", 7, "expected a time"),
        ("redirect=", 1, "expected a status"),
        ("redirect=a\nb", 1, "cannot be sent as a Location"),
        ("close-on-connect,path=/x", 1, "neither method nor path"),
        ("truncate,", 10, "expected method=METHOD, path=PART, times=N or times=always; found \"\""),
        ("delay=5s,path=/devices,always", 24, "times=N or times=always; found \"always\""),
        ("truncate,path", 10, "expected method=METHOD"),
        ("truncate,size=1", 10, "expected method=METHOD"),
        ("truncate,path=", 15, "expected a part of the path"),
        ("truncate,method=P T", 17, "expected a method"),
        ("truncate,method=PUTT", 17, "GET, PUT, PATCH, POST or DELETE"),
        ("truncate,times=0", 16, "expected a positive number"),
        ("truncate,path=/\u{e4},times=-1", 24, "expected a positive number"),
        ("truncate,times=1,times=2", 18, "duplicate option"),
    ] {
        let error = text.parse::<Fault>().expect_err(text);
        assert_eq!(error.position(), position, "{text}: {error}");
        assert!(error.to_string().contains(message), "{text}: {error}");
    }
}

#[tokio::test]
async fn an_impossible_fault_is_refused() {
    let app = App::start().await;
    for kind in [
        FaultKind::Status { status: 200, retry_after: None },
        FaultKind::Status { status: 399, retry_after: None },
        FaultKind::Status { status: 600, retry_after: None },
        FaultKind::StatusUntil { status: 200, retry_after: Duration::ZERO },
        FaultKind::Redirect("a\nb".to_owned()),
    ] {
        assert!(matches!(app.emulator.inject(Fault::new(kind)), Err(EmulatorError::Fault(_))));
    }
    app.get("/enrollmentGroups").await.expect(200);
}
