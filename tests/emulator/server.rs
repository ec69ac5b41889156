//! Start, stop, address, slow clients, and recorded requests.

use crate::support::raw;
use std::{net::SocketAddr, time::Duration};

use crate::support::app::{App, symmetric_group, x509_group};
use iot_enroll::emulator::{Emulator, EmulatorError, RemoteAccess};
use tokio::{io::AsyncWriteExt, net::TcpStream};

#[tokio::test]
async fn it_listens_on_loopback_addresses_only() {
    for address in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0", "[::ffff:192.0.2.1]:0"] {
        let address: SocketAddr = address.parse().expect("an address");
        let error = Emulator::builder().listen(address).start().await.expect_err("refused");
        assert!(matches!(error, EmulatorError::NotLoopback(refused) if refused == address));
        assert!(error.to_string().contains("loopback"), "{error}");
    }
}

#[tokio::test]
async fn remote_access_needs_tls_or_a_second_permission_and_a_token_that_is_not_short() {
    let remote = |access| Emulator::builder().listen("0.0.0.0:0".parse().expect("an address")).remote_access(access);
    let error = remote(RemoteAccess::OverTls).start().await.expect_err("refused");
    assert!(matches!(error, EmulatorError::RemotePlainHttp(_)) && error.to_string().contains("without TLS"), "{error}");
    for (token, is_accepted) in [("fifteen-letters", false), ("sixteen--letters", true)] {
        let started = remote(RemoteAccess::OverPlainHttp).token(token).start().await;
        assert_eq!(started.is_ok(), is_accepted, "{token}");
        if let Err(error) = started {
            assert!(matches!(error, EmulatorError::ShortToken) && !error.to_string().contains("fifteen"), "{error}");
        }
    }
    let started = remote(RemoteAccess::OverTls).tls(true).start().await.expect("started");
    assert!(started.is_remote());
    assert_eq!(started.endpoint(), format!("https://localhost:{}", started.address().port()));
    let named = remote(RemoteAccess::OverTls).tls(true).host("*.lab.example").host("emulator.lab.example");
    let endpoint = named.start().await.expect("started").endpoint();
    assert!(endpoint.starts_with("https://emulator.lab.example:"), "{endpoint}");
}

#[tokio::test]
async fn port_0_selects_a_free_port_and_a_port_in_use_is_an_error() {
    let one = Emulator::builder().start().await.expect("a free port");
    let other = Emulator::builder().start().await.expect("another free port");
    assert_ne!(one.endpoint(), other.endpoint());
    assert_eq!(one.endpoint(), format!("http://127.0.0.1:{}", one.address().port()));
    let error = Emulator::builder().listen(one.address()).start().await.expect_err("refused");
    assert!(matches!(error, EmulatorError::AddressInUse(address) if address == one.address()));
    assert!(error.to_string().contains("in use"), "{error}");
}

#[tokio::test]
async fn an_invalid_token_is_refused_without_being_shown() {
    for token in ["", " secret", "secret\n", "s\u{e9}cret"] {
        let error = Emulator::builder().token(token.to_owned()).start().await.expect_err("refused");
        assert!(matches!(error, EmulatorError::Token));
        assert!(!format!("{error} {error:?}").contains("cret"), "{error}");
    }
}

#[tokio::test]
async fn an_id_scope_has_the_form_of_the_services() {
    let emulator = Emulator::builder().start().await.expect("a free port");
    let digits = emulator.id_scope().strip_prefix("0ne").expect("the prefix");
    assert!(digits.len() == 8 && digits.chars().all(|c| c.is_ascii_hexdigit()), "{digits}");
}

#[tokio::test]
async fn malformed_http_is_400_and_affects_no_other_client() {
    let app = App::start().await;
    let mut stream = raw::connect(&app.emulator, "nonsense\r\n\r\n").await;
    assert!(raw::rest(&mut stream).await.starts_with("HTTP/1.1 400 "));
    app.get("/enrollmentGroups").await.expect(200);
}

#[tokio::test]
async fn slow_and_half_open_clients_delay_neither_others_nor_a_stop() {
    let app = App::start().await;
    let emulator = &app.emulator;
    let mut slow = vec![
        TcpStream::connect(emulator.address()).await.expect("a connection"),
        raw::connect(emulator, "GET /api/enrollmentGroups").await,
        raw::waiting_for_body(emulator, "/enrollmentGroups/slow", 100).await,
    ];
    app.get("/enrollmentGroups").await.expect(200);
    // From here on the paused clock advances whenever all tasks wait.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    app.emulator.stop().await;
    assert!(begun.elapsed() <= Duration::from_secs(4), "{:?}", begun.elapsed());
    for stream in &mut slow {
        assert_eq!(raw::rest(stream).await, "");
    }
}

#[tokio::test]
async fn idle_clients_do_not_delay_a_stop() {
    let app = App::start().await;
    let _idle = TcpStream::connect(app.emulator.address()).await.expect("a connection");
    let _half = raw::connect(&app.emulator, "GET /api/enrollmentGroups").await;
    // The connection stays open after the response.
    app.get("/enrollmentGroups").await.expect(200);
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    app.emulator.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_request_in_progress_is_answered_during_a_stop() {
    let app = App::start().await;
    let address = app.emulator.address();
    let body = x509_group().to_string();
    let mut stream = raw::waiting_for_body(&app.emulator, "/enrollmentGroups/g", body.len()).await;
    let stopping = tokio::spawn(app.emulator.stop());
    // New connections are refused immediately.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(body.as_bytes()).await.expect("sent");
    let answer = raw::rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stopping.await.expect("stopped");
}

#[tokio::test]
async fn a_dropped_emulator_stops() {
    let app = App::start().await;
    let mut open = raw::connect(&app.emulator, "GET ").await;
    let address = app.emulator.address();
    drop(app.emulator);
    assert_eq!(raw::rest(&mut open).await, "");
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_finish_is_cut_off() {
    let app = App::with(Emulator::builder().read_timeout(Duration::from_millis(50))).await;
    let mut head = raw::connect(&app.emulator, "GET /api/enrollmentGroups").await;
    let mut body = raw::waiting_for_body(&app.emulator, "/enrollmentGroups/g", 100).await;
    raw::rest(&mut head).await;
    let answer = raw::rest(&mut body).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("RequestTimeout"), "{answer}");
}

#[tokio::test]
async fn requests_are_recorded_without_query_and_secrets() {
    let app = App::start().await;
    app.put("/enrollmentGroups/g", &symmetric_group()).await.expect(200);
    app.get("/enrollmentGroups/none").await.expect(404);
    app.http.get(format!("{}/x?secret=1", app.emulator.endpoint())).send().await.expect("an answer");
    let seen: Vec<_> = app.emulator.requests().into_iter().map(|it| (it.method, it.path, it.status)).collect();
    let expected = [
        ("PUT", "/api/enrollmentGroups/g", Some(200)),
        ("GET", "/api/enrollmentGroups/none", Some(404)),
        ("GET", "/x", Some(404)),
    ];
    assert_eq!(seen, expected.map(|(method, path, status)| (method.to_owned(), path.to_owned(), status)));
}
