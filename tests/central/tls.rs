//! Whose certificates the client trusts.

use crate::support::{
    client::builder,
    clock::ManualClock,
    server::Reply,
    tls::{TlsServer, start, start_with},
};
use iot_enroll::central::{Error, NetworkError, NetworkFailure};
use time::{Duration, OffsetDateTime};

/// A server that answers every request with 404.
fn not_found(name: &str) -> TlsServer {
    start(name, |_| Reply::with(404, &[], ""))
}

/// How a call fails that cannot trust the server.
async fn distrust(address: &str, root: &[u8]) -> NetworkError {
    let builder = builder(&format!("https://{address}"), &ManualClock::new());
    let client = builder.add_root_certificate(root).expect("a root").build().expect("a client");
    match client.enrollment_groups().delete(&"g".parse().expect("an id")).await {
        Err(Error::Network(error)) => *error,
        other => panic!("no trust: {other:?}"),
    }
}

#[tokio::test]
async fn an_added_root_is_trusted() {
    let server = not_found("127.0.0.1");
    let builder = builder(&format!("https://{}", server.address), &ManualClock::new());
    let client = builder.add_root_certificate(&server.authority).expect("a root").build().expect("a client");
    assert!(client.enrollment_groups().find(&"g".parse().expect("an id")).await.expect("an answer").is_none());
}

#[tokio::test]
async fn an_unknown_authority_is_refused_at_once_and_the_remedy_named() {
    let server = not_found("127.0.0.1");
    let other = not_found("127.0.0.1").authority;
    let error = distrust(&server.address.to_string(), &other).await;
    assert_eq!((error.failure, error.attempts, error.answer_was_lost), (NetworkFailure::Tls, 1, false), "{error}");
    assert_eq!(server.connections(), 1);
    let text = error.to_string();
    assert!(text.contains("certificate") && text.contains("trusted root"), "{text}");
    assert!(!text.contains("peer") && !text.contains("BadSignature") && !text.contains("UnknownIssuer"), "{text}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let server = not_found("elsewhere.example");
    let error = distrust(&server.address.to_string(), &server.authority).await;
    assert_eq!(error.failure, NetworkFailure::Tls, "{error}");
    let text = error.to_string();
    assert!(text.contains("another host name") && !text.contains("NotValidForName"), "{text}");
}

#[tokio::test]
async fn a_connection_that_is_cut_is_reported_without_a_link_to_a_library() {
    let server = start("127.0.0.1", |_| Reply::lost());
    let error = distrust(&server.address.to_string(), &server.authority).await;
    assert_eq!(error.failure, NetworkFailure::Broken, "{error}");
    let text = error.to_string();
    assert!(text.contains("closed the connection") && !text.contains("docs.rs"), "{text}");
}

#[tokio::test]
async fn an_expired_certificate_is_distinguished_from_an_untrusted_root() {
    let now = OffsetDateTime::now_utc();
    let cases =
        [(-9, -1, "the server's certificate expired at"), (1, 9, "the server's certificate is not valid until")];
    for (from, to, text) in cases {
        let server = start_with(
            "127.0.0.1",
            |parameters| {
                parameters.not_before = now + Duration::days(from);
                parameters.not_after = now + Duration::days(to);
            },
            |_| Reply::with(404, &[], ""),
        );
        // Whether its root is trusted makes no difference.
        for root in [server.authority.clone(), not_found("127.0.0.1").authority] {
            let error = distrust(&server.address.to_string(), &root).await;
            let found = (error.failure, error.attempts, error.answer_was_lost);
            assert_eq!(found, (NetworkFailure::CertificateOutOfTime, 1, false), "{error}");
            let message = error.to_string();
            assert!(message.contains(text) && message.contains("the clock here says"), "{message}");
            assert!(message.contains("Check the clock") && !message.contains("UNIX"), "{message}");
            assert!(!message.contains("trusted root"), "{message}");
        }
    }
}
