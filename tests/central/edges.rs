//! What is checked before anything is sent: addresses, tokens, ids, versions.

use std::{
    pin::Pin,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::support::{
    client::{TOKEN, builder},
    clock::ManualClock,
    server::{Reply, Server},
};
use iot_enroll::central::{
    AddressError, ApiVersion, Authorization, AuthorizationError, BuildError, CertificateEntry, Client, Endpoint,
    EndpointError, EnrollmentGroupId, Error, IdError, Secret, TokenCredential,
};
use proptest::prelude::*;
use serde_json::json;

#[test]
fn an_endpoint_is_scheme_host_and_port_however_it_is_written() {
    for (text, expected) in [
        ("https://app.azureiotcentral.com", "https://app.azureiotcentral.com"),
        ("https://app.azureiotcentral.com/", "https://app.azureiotcentral.com"),
        ("https://app.azureiotcentral.com/api", "https://app.azureiotcentral.com"),
        (" https://APP.azureiotcentral.com:443/api/ ", "https://app.azureiotcentral.com"),
        ("https://app.azureiotcentral.us:8443", "https://app.azureiotcentral.us:8443"),
        ("http://localhost:1234", "http://localhost:1234"),
        ("http://127.0.0.1:1234", "http://127.0.0.1:1234"),
        ("http://127.9.8.7", "http://127.9.8.7"),
        ("http://[::1]:1234/api", "http://[::1]:1234"),
    ] {
        assert_eq!(text.parse::<Endpoint>().expect(text).as_str(), expected);
    }
}

#[test]
fn an_endpoint_with_more_in_it_is_refused() {
    use EndpointError as E;
    let parse = |text: &str| text.parse::<Endpoint>().expect_err(text);
    assert!(matches!(parse("app"), E::Address(AddressError::Url)));
    assert!(matches!(parse(""), E::Address(AddressError::Url)));
    assert!(matches!(parse("localhost:80"), E::Address(AddressError::Scheme(_))));
    assert!(matches!(parse("ftp://app.azureiotcentral.com"), E::Address(AddressError::Scheme(_))));
    assert!(matches!(parse("https://app.azureiotcentral.com/api/devices"), E::Address(AddressError::Path(_))));
    assert!(matches!(parse("https://app.azureiotcentral.com/?x=1"), E::Address(AddressError::Query)));
    assert!(matches!(parse("https://app.azureiotcentral.com/#x"), E::Address(AddressError::Query)));
    let error = parse("https://user:hunter2@app.azureiotcentral.com");
    assert!(matches!(error, E::Address(AddressError::UserInfo)) && !error.to_string().contains("hunter2"));
}

#[test]
fn plain_http_is_accepted_only_for_loopback() {
    for host in [
        "app.azureiotcentral.com",
        "10.0.0.1",
        "0.0.0.0",
        "[::]",
        "localhost.example",
        "127.0.0.1.example",
        "[::ffff:127.0.0.1]",
    ] {
        let error = format!("http://{host}").parse::<Endpoint>().expect_err(host);
        assert!(matches!(error, EndpointError::Address(AddressError::PlainHttp(_))), "{host}: {error}");
    }
}

#[test]
fn a_subdomain_is_one_label() {
    assert_eq!(Endpoint::from_subdomain("My-App1").expect("a label").as_str(), "https://my-app1.azureiotcentral.com");
    for text in ["", "-a", "a-", "a.b", "a/b", "a@b", "a:1", "a b", "ä", "app.azureiotcentral.com", &"a".repeat(64)] {
        assert!(matches!(Endpoint::from_subdomain(text), Err(EndpointError::Subdomain(_))), "{text}");
    }
}

#[test]
fn a_text_that_is_no_token_is_refused_and_not_repeated() {
    use AuthorizationError as E;
    for (text, expected) in [
        ("", E::Empty),
        ("hunter2", E::Scheme),
        ("sr=hunter2&sig=hunter2", E::Scheme),
        ("Basic hunter2", E::Scheme),
        ("Bearer", E::NoToken),
        ("Bearer ", E::NoToken),
        ("SharedAccessSignature ", E::NoToken),
        ("Bearer hunter2\n", E::Character { position: 15 }),
        ("Bearer hunter2\r\nX-Evil: 1", E::Character { position: 15 }),
        ("Bearer  hunter2", E::Character { position: 8 }),
        ("Bearer hunter2é", E::Character { position: 15 }),
        ("Bearer hunter2\u{0}", E::Character { position: 15 }),
    ] {
        let error = Authorization::parse(text).expect_err(text);
        assert_eq!(error, expected);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

#[test]
fn the_expiry_of_an_api_token_is_read_in_seconds_and_milliseconds() {
    for text in ["SharedAccessSignature sr=a&sig=b&se=1700000000", "SharedAccessSignature se=1700000000000&sr=a"] {
        let at = Authorization::parse(text).expect("a token").expires_at().expect("an expiry");
        assert_eq!(at.unix_seconds(), 1_700_000_000);
    }
    for text in ["Bearer se=1700000000", "SharedAccessSignature sr=a", "SharedAccessSignature se=x"] {
        let authorization = Authorization::parse(text).expect("a token");
        assert!(text.starts_with('B') || authorization.expires_at().is_none());
    }
}

#[test]
fn a_client_needs_a_token_that_has_not_expired() {
    let endpoint = Endpoint::from_subdomain("app").expect("an endpoint");
    assert!(matches!(Client::builder(endpoint.clone()).build(), Err(BuildError::NoAuthorization)));
    let old = Authorization::parse("SharedAccessSignature sr=a&sig=hunter2&se=1700000000").expect("a token");
    let error = Client::builder(endpoint).authorization(old).build().expect_err("expired");
    assert!(matches!(error, BuildError::Authorization(AuthorizationError::Expired { .. })));
    assert!(error.to_string().contains("expired at 2023-11-14T22:13:20Z") && !error.to_string().contains("hunter2"));
}

#[test]
fn no_debug_shows_the_token() {
    let builder = builder("http://127.0.0.1:1", &ManualClock::new());
    let shown = format!("{builder:?} {:?} {:?}", Authorization::parse(TOKEN), builder_client());
    assert!(!shown.contains("topsecret") && !shown.contains("skn"), "{shown}");
}

fn builder_client() -> Client {
    builder("http://127.0.0.1:1", &ManualClock::new()).build().expect("a client")
}

#[test]
fn a_client_can_be_shared_and_sent() {
    fn shareable<T: Clone + Send + Sync + 'static>(_: &T) {}
    shareable(&builder_client());
    shareable(&builder_client().enrollment_groups());
}

/// Gives another token each time, and at last none.
struct Renewing(AtomicU32);

impl TokenCredential for Renewing {
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<Secret, AuthorizationError>> + Send + '_>> {
        Box::pin(async {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                2 => Err(AuthorizationError::Credential("the session is over".to_owned())),
                3 => Ok("two words".into()),
                number => Ok(format!("token{number}").into()),
            }
        })
    }
}

#[tokio::test]
async fn a_credential_is_asked_for_each_attempt() {
    let group = json!({ "id": "g", "displayName": "n", "type": "iot", "attestation": { "type": "x509" } });
    let server = Server::start([Reply::error(500, "Internal", "x"), Reply::json(200, &group)]);
    let authorization = Authorization::from_credential(Renewing(AtomicU32::new(0)));
    let client = builder(&server.url(), &ManualClock::new()).authorization(authorization).build().expect("a client");
    let (groups, id) = (client.enrollment_groups(), "g".parse().expect("an id"));
    groups.get(&id).await.expect("a group");
    let sent: Vec<_> = server.requests().iter().map(|it| it.header("authorization").map(str::to_owned)).collect();
    assert_eq!(sent, [Some("Bearer token0".to_owned()), Some("Bearer token1".to_owned())]);
    let error = groups.get(&id).await.expect_err("none left");
    assert!(error.to_string().contains("the session is over"), "{error}");
    let error = groups.get(&id).await.expect_err("not a token");
    assert!(matches!(error, Error::Authorization { cause: AuthorizationError::Character { .. }, .. }));
    assert_eq!(server.requests().len(), 2, "without a token nothing is sent");
}

/// A proxy is set for the whole process, so this test runs itself in another one.
#[test]
fn an_environment_proxy_never_sees_loopback_requests() {
    const CHILD: &str = "CENTRAL_EDGES_SERVER";
    if let Ok(url) = std::env::var(CHILD) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let groups = builder(&url, &ManualClock::new()).build().expect("a client").enrollment_groups();
        let found = runtime.block_on(groups.find(&"g".parse().expect("an id")));
        assert!(found.expect("the server's own answer").is_none());
        return;
    }
    let (server, proxy) = (Server::start([]), Server::start([]));
    for url in [server.url(), server.url().replace("127.0.0.1", "localhost")] {
        server.then(Reply::error(404, "NotFound", "none"));
        let mut child = std::process::Command::new(std::env::current_exe().expect("this test"));
        child.args(["--exact", "edges::an_environment_proxy_never_sees_loopback_requests"]).env(CHILD, url);
        for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            child.env(name, proxy.url());
        }
        for name in ["NO_PROXY", "no_proxy", "REQUEST_METHOD"] {
            child.env_remove(name);
        }
        let output = child.output().expect("a run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!((server.requests().len(), proxy.requests().len()), (2, 0));
}

#[test]
fn versions_and_entries_are_read_as_they_are_written() {
    for version in ApiVersion::ALL {
        assert_eq!(version.to_string().parse(), Ok(version));
    }
    assert_eq!(ApiVersion::default().as_str(), "2022-07-31");
    let error = "2020-01-01".parse::<ApiVersion>().expect_err("unknown").to_string();
    assert!(error.contains("2020-01-01") && error.contains("2022-10-31-preview"), "{error}");
    for entry in [CertificateEntry::Primary, CertificateEntry::Secondary] {
        assert_eq!(entry.to_string().parse(), Ok(entry));
        assert!(entry.other() != entry && entry.other().other() == entry);
    }
    assert_eq!("Primary".parse::<CertificateEntry>(), Err(IdError::Entry("Primary".to_owned())));
}

proptest! {
    #[test]
    fn an_id_is_letters_digits_and_hyphens(text in prop_oneof!["[a-zA-Z0-9-]{0,260}", "[ -~]{0,20}", ".{0,20}"]) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
        match EnrollmentGroupId::new(text.as_str()) {
            Ok(id) => {
                prop_assert!(text.chars().all(allowed) && (1..=255).contains(&text.len()));
                prop_assert_eq!(id.as_str(), text);
            }
            Err(IdError::Character { character, position, .. }) => {
                prop_assert!(!allowed(character));
                prop_assert_eq!(text.chars().nth(position - 1), Some(character));
                prop_assert!(text.chars().take(position - 1).all(allowed), "the first of them is named");
            }
            Err(error) => {
                let length = IdError::Length { what: "an enrollment group ID", found: text.len(), max: 255 };
                prop_assert_eq!(error, length);
                prop_assert!(text.is_empty() || text.len() > 255);
            }
        }
    }

    #[test]
    fn no_text_makes_an_endpoint_that_could_leak_a_token(text in "(https?://)?[a-z0-9.:@/?#\\[\\]-]{0,30}") {
        if let Ok(endpoint) = text.parse::<Endpoint>() {
            prop_assert!(endpoint.is_https() || endpoint.is_loopback());
            prop_assert!(!endpoint.as_str().contains(['@', '?', '#']));
            prop_assert_eq!(endpoint.as_str().parse::<Endpoint>(), Ok(endpoint));
        }
    }

    #[test]
    fn no_text_makes_the_token_parser_panic_or_repeat_it(text in "(Bearer |SharedAccessSignature )?\\PC{0,40}") {
        if let Err(error) = Authorization::parse(text.as_str()) {
            prop_assert!(text.len() < 12 || !error.to_string().contains(&text));
        }
    }
}
