//! What failures say, and what they never say.

use crate::support::{
    client::{TOKEN, builder, client},
    clock::ManualClock,
    server::{Reply, Server},
};
use iot_enroll::central::{
    AnswerProblem, Authorization, Clock, DeviceQuery, EnrollmentGroupId, Error, Filter, NetworkFailure, NewAttestation,
    NewEnrollmentGroup, SymmetricKeys,
};
use serde_json::json;

fn id() -> EnrollmentGroupId {
    "g".parse().expect("an id")
}

/// How getting a group fails when it is answered so.
async fn failure(reply: Reply) -> Error {
    let server = Server::start([reply]);
    client(&server).enrollment_groups().get(&id()).await.expect_err("a failure")
}

#[tokio::test]
async fn a_service_error_names_the_call_the_answer_and_the_remedy() {
    for (status, remedy) in [
        (400, "Correct what the service names"),
        (401, "token belongs to this application"),
        (403, "a token whose role allows this"),
        (404, "Check the ID"),
        (409, "exists already"),
        (412, "read it again"),
        (422, "correct what it names"),
        (501, "The service failed"),
    ] {
        let error = failure(Reply::error(status, "TheCode", "The words.")).await;
        let said =
            format!("GET enrollmentGroups/g: the service answered {status} TheCode: The words (request ID req-1). ");
        let text = error.to_string();
        assert!(text.starts_with(&said) && text.contains(remedy), "{text}");
        assert_eq!((error.status(), error.code(), error.request_id()), (Some(status), Some("TheCode"), Some("req-1")));
        assert_eq!(error.is_not_found(), status == 404);
        assert!(!error.answer_was_lost());
        assert_eq!((error.operation().method(), error.operation().path()), ("GET", "enrollmentGroups/g"));
    }
}

#[tokio::test]
async fn code_and_request_id_are_also_read_from_headers_and_other_bodies_are_shown_shortened() {
    let headers = [("x-ms-error-code", "HeaderCode"), ("x-ms-request-id", "header-id"), ("Content-Type", "text/html")];
    let body = format!("<h1>Bad\r\n\u{1b}[31m gateway</h1>{}", "x".repeat(5000));
    let error = failure(Reply::with(403, &headers, &body)).await;
    assert_eq!((error.code(), error.request_id()), (Some("HeaderCode"), Some("header-id")));
    let text = error.to_string();
    assert!(text.contains("<h1>Bad [31m gateway</h1>xxx") && text.len() < 700, "{text}");
    assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
}

#[tokio::test]
async fn an_expired_token_is_named_as_the_reason_of_a_401() {
    let (server, clock) = (Server::start([Reply::error(401, "Unauthorized", "no")]), ManualClock::new());
    let token = format!("SharedAccessSignature sr=a&sig=b&se={}", ManualClock::BEGIN.as_secs() + 60);
    let builder = builder(&server.url(), &clock).authorization(Authorization::parse(token).expect("a token"));
    let client = builder.build().expect("it is good for another minute");
    clock.sleep(std::time::Duration::from_secs(61)).await;
    let error = client.enrollment_groups().get(&id()).await.expect_err("refused");
    assert!(error.to_string().contains("The token expired at 2026-01-01T00:01:00Z"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_takes_no_token_along() {
    let other = Server::start([]);
    for status in [301, 302, 303, 307, 308] {
        let error = failure(Reply::with(status, &[("Location", &format!("{}/api/x?secret=1", other.url()))], "")).await;
        let Error::Redirect { status: found, target, .. } = &error else { panic!("{error}") };
        assert_eq!((*found, format!("http://{target}")), (status, other.url()));
        assert!(error.to_string().contains("not followed"), "{error}");
    }
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn a_next_link_to_elsewhere_is_refused_without_a_request() {
    let other = Server::start([]);
    let port = other.url().rsplit(':').next().map(str::to_owned).expect("a port");
    for link in [
        format!("{}/api/enrollmentGroups", other.url()),
        format!("http://localhost:{port}/api/enrollmentGroups"),
        format!("//127.0.0.1:{port}/api/enrollmentGroups"),
        "https://evil.example/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "http://[".to_owned(),
    ] {
        let server = Server::start([Reply::json(200, &json!({ "value": [], "nextLink": link }))]);
        let error = client(&server).enrollment_groups().list().try_collect::<Vec<_>>().await.expect_err("refused");
        assert!(matches!(error, Error::NextLink { .. }), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_not_json_is_shown_by_its_beginning() {
    let error = failure(Reply::with(200, &[("Content-Type", "text/html")], "<html>Sign in</html>")).await;
    let text = error.to_string();
    for part in ["GET enrollmentGroups/g: cannot read the answer 200 (text/html)", "not JSON", "<html>Sign in</html>"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!error.answer_was_lost(), "nothing is changed by reading");
}

#[tokio::test]
async fn a_change_whose_answer_cannot_be_read_may_have_been_made() {
    let server = Server::start([Reply::with(200, &[], "<html>"), Reply::error(501, "NotImplemented", "no")]);
    let groups = client(&server).enrollment_groups();
    for _ in 0..2 {
        let error = groups.replace(&id(), &NewEnrollmentGroup::x509("n")).await.expect_err("unclear");
        assert!(error.answer_was_lost(), "{error}");
    }
}

#[tokio::test]
async fn truncated_empty_and_misshapen_json_is_unreadable() {
    for (body, shape) in [
        ("", false),
        ("{\"id\": \"g\", ", false),
        ("\u{0}\u{1}", false),
        ("null", true),
        ("[]", true),
        ("{\"id\": \"g\"}", true),
        (r#"{"id":"no_id","displayName":"n","type":"iot","attestation":{"type":"x509"}}"#, true),
    ] {
        let error = failure(Reply::with(200, &[("Content-Type", "application/json")], body)).await;
        let Error::Answer(error) = error else { panic!("{error}") };
        assert_eq!(matches!(error.problem, AnswerProblem::Shape(_)), shape, "{body}: {error}");
        assert_eq!((error.status, error.content_type.as_deref()), (200, Some("application/json")));
    }
}

#[tokio::test]
async fn a_misshapen_answer_does_not_show_the_keys_in_it() {
    let attestation = |keys| json!({ "id": "g", "displayName": "n", "type": "iot", "attestation": keys });
    for body in [
        attestation(json!({ "type": "symmetricKey", "symmetricKey": "keymaterial" })),
        attestation(json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": "keymaterial" } })),
        attestation(json!("keymaterial \" keymaterial")),
        json!("keymaterial"),
    ] {
        let error = failure(Reply::json(200, &body)).await;
        assert!(matches!(error, Error::Answer(_)));
        assert!(!format!("{error} {error:?}").contains("keymaterial"), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let Error::Answer(error) = failure(Reply::Endless).await else { panic!("an unreadable answer") };
    assert_eq!(error.problem, AnswerProblem::TooLarge { limit: 16 << 20 });
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_reported_and_not_retried() {
    let server = Server::start((0..6).map(|_| Reply::Raw(b"SSH-2.0-OpenSSH\r\n".to_vec())));
    let error = client(&server).enrollment_groups().get(&id()).await.expect_err("not HTTP");
    let Error::Network(error) = error else { panic!("{error}") };
    assert_eq!((error.failure, error.attempts, server.requests().len()), (NetworkFailure::NotHttp, 1, 1));
    assert!(error.to_string().contains(error.host.as_str()));
}

#[tokio::test]
async fn a_request_that_cannot_be_written_is_reported_and_not_retried() {
    let server = Server::start([]);
    let query = DeviceQuery::new().filter(Filter::raw("x".repeat(70_000)));
    let listed = client(&server).devices().list(&query).try_collect::<Vec<_>>().await;
    let Error::Network(error) = listed.expect_err("too long") else { panic!("another failure") };
    assert_eq!((error.failure, error.attempts, error.answer_was_lost), (NetworkFailure::Request, 1, false));
    assert!(error.to_string().len() < 300, "{error}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn neither_token_nor_keys_are_in_any_error_though_the_service_repeats_them() {
    let echo = format!("you sent {TOKEN} with sig topsecret%3D and a2V5MTIz");
    let keys = SymmetricKeys { primary_key: "a2V5MTIz".into(), secondary_key: "a2V5NDU2".into() };
    let new = NewEnrollmentGroup::x509("n").attestation(NewAttestation::SymmetricKey(Some(keys)));
    let json = ("Content-Type", "application/json");
    for reply in [
        Reply::error(403, &echo, &echo),
        Reply::with(422, &[("x-ms-error-code", &echo), ("x-ms-request-id", &echo), json], &echo),
        Reply::with(200, &[("Content-Type", &echo)], &echo),
        Reply::with(302, &[("Location", &echo)], &echo),
        Reply::json(200, &json!(echo)),
    ] {
        let server = Server::start([reply]);
        let client = client(&server);
        let error = client.enrollment_groups().replace(&id(), &new).await.expect_err("a failure");
        let shown = format!("{error} {error:?} {client:?}");
        for secret in ["topsecret", "a2V5MTIz", "skn=ops"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
