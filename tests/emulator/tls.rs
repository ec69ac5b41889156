//! TLS: versions, certificates, pending and broken connections.

use std::{num::NonZeroU32, time::Duration};

use crate::support::DAY;
use crate::support::caller::{Caller, Identity, request};
use iot_enroll::{
    certificate::{Certificate, CertificateAuthority, IssueOptions, IssuedCertificate},
    emulator::{Builder, Clock, Emulator, Fault, FaultKind},
};
use rustls::{
    ProtocolVersion,
    version::{TLS12, TLS13},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn start(builder: Builder) -> Emulator {
    builder.tls(true).start().await.expect("a free loopback port")
}

/// Issues a certificate under a CA that is not enrolled.
fn device() -> IssuedCertificate {
    let id = "sensor-1".parse().expect("an id");
    CertificateAuthority::self_signed_device(&id, &IssueOptions::default()).expect("a certificate")
}

#[tokio::test]
async fn a_client_without_a_certificate_uses_the_api_with_tls_1_2_and_1_3() {
    let emulator = start(Emulator::builder()).await;
    assert_eq!(emulator.endpoint(), format!("https://{}", emulator.address()));
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let caller = Caller::with(&emulator, None, &[version]);
        let stream = caller.handshake("localhost").await.expect("a handshake");
        let session = stream.get_ref().1;
        assert_eq!(session.protocol_version(), Some(expected));
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
        caller.api("GET", "/enrollmentGroups", None).await.expect(200);
    }
}

#[tokio::test]
async fn any_client_certificate_is_accepted_with_tls_1_2_and_1_3() {
    let emulator = start(Emulator::builder()).await;
    for version in [&TLS12, &TLS13] {
        let caller = Caller::with(&emulator, Some(Identity::of(&device())), &[version]);
        caller.api("GET", "/enrollmentGroups", None).await.expect(200);
        caller.register("sensor-1").await.refused(401, 401_002, "CA certificate not found.");
    }
}

#[tokio::test]
async fn a_client_without_the_private_key_of_its_certificate_is_refused() {
    let emulator = start(Emulator::builder()).await;
    for version in [&TLS12, &TLS13] {
        let stolen = Identity::new(&[device().certificate], &device().key);
        let caller = Caller::with(&emulator, Some(stolen), &[version]);
        // With TLS 1.3 the client finishes before the server verifies.
        if let Ok(mut stream) = caller.handshake("localhost").await {
            let request = request(&emulator, "GET", "/api/devices", "", None);
            let _ = stream.write_all(request.as_bytes()).await;
            stream.read_u8().await.expect_err("nothing is served");
        }
    }
    assert_eq!(emulator.requests(), []);
}

#[tokio::test]
async fn the_server_certificate_is_for_localhost_and_loopback_addresses_only() {
    let emulator = start(Emulator::builder()).await;
    let caller = Caller::new(&emulator);
    for name in ["localhost", "127.0.0.1", "::1"] {
        caller.handshake(name).await.expect(name);
    }
    for name in ["elsewhere.example", "127.0.0.2"] {
        caller.handshake(name).await.expect_err(name);
    }
}

#[tokio::test]
async fn each_emulator_with_tls_has_its_own_short_lived_ca() {
    let (one, other) = (start(Emulator::builder()).await, start(Emulator::builder()).await);
    assert_ne!(one.ca_pem(), other.ca_pem());
    let authority = Certificate::read(one.ca_pem().expect("PEM").as_bytes()).expect("a certificate");
    assert!(authority.basic_constraints().is_some_and(|constraints| constraints.authority));
    assert!(authority.not_after().duration_since(authority.not_before()) < DAY * 31);
    assert_eq!(Emulator::builder().start().await.expect("started").ca_pem(), None);
}

#[tokio::test]
async fn it_listens_on_the_ipv6_loopback_address() {
    let emulator = start(Emulator::builder().listen("[::1]:0".parse().expect("an address"))).await;
    assert_eq!(emulator.endpoint(), format!("https://[::1]:{}", emulator.address().port()));
    Caller::new(&emulator).api("GET", "/devices", None).await.expect(200);
}

#[tokio::test]
async fn links_keep_https() {
    let emulator = start(Emulator::builder().page_size(1.try_into().expect("one"))).await;
    let caller = Caller::new(&emulator);
    for id in ["a", "b"] {
        caller.api("PUT", &format!("/devices/{id}"), Some(&json!({}))).await.expect(200);
    }
    let link = caller.api("GET", "/devices", None).await.expect(200).text("/nextLink");
    assert!(link.starts_with(&format!("https://{}/api/devices?", emulator.address())), "{link}");
}

#[tokio::test]
async fn plain_http_is_refused_and_affects_no_other_client() {
    let emulator = start(Emulator::builder()).await;
    let mut plain = TcpStream::connect(emulator.address()).await.expect("a connection");
    plain.write_all(request(&emulator, "GET", "/api/devices", "", None).as_bytes()).await.expect("sent");
    let mut received = Vec::new();
    let _ = plain.read_to_end(&mut received).await;
    assert!(!received.starts_with(b"HTTP"), "{received:?}");
    Caller::new(&emulator).api("GET", "/devices", None).await.expect(200);
}

#[tokio::test]
async fn registrations_do_not_count_toward_the_rate_limit() {
    let frozen = Clock::frozen(std::time::SystemTime::now());
    let emulator = start(Emulator::builder().rate(NonZeroU32::new(1)).clock(frozen)).await;
    let caller = Caller::new(&emulator);
    for _ in 0..3 {
        caller.register("sensor-1").await.refused(401, 401_002, "Unauthorized");
    }
    caller.api("GET", "/devices", None).await.expect(200);
    caller.api("GET", "/devices", None).await.expect(429);
    caller.register("sensor-1").await.refused(401, 401_002, "Unauthorized");
}

#[tokio::test]
async fn faults_occur_over_tls() {
    let emulator = start(Emulator::builder()).await;
    let caller = Caller::new(&emulator);
    let get = request(&emulator, "GET", "/api/devices", &format!("Authorization: {}\r\n", emulator.token()), None);
    let inject = |kind| emulator.inject(Fault::new(kind)).expect("a fault");
    inject(FaultKind::Status { status: 503, retry_after: None });
    caller.api("GET", "/devices", None).await.expect(503);
    for kind in [FaultKind::CloseBeforeHandling, FaultKind::CloseAfterHandling] {
        inject(kind);
        assert_eq!(caller.exchange(&get).await, "");
    }
    inject(FaultKind::TruncateBody);
    let path = "/api/devices?api-version=2022-07-31";
    let get = request(&emulator, "GET", path, &format!("Authorization: {}\r\n", emulator.token()), None);
    let half = caller.exchange(&get).await;
    assert!(half.starts_with("HTTP/1.1 200 ") && half.ends_with("\r\n\r\n{\"valu"), "{half}");
    inject(FaultKind::CloseOnConnect);
    caller.handshake("localhost").await.expect_err("closed");
    caller.api("GET", "/devices", None).await.expect(200);
}

/// The start of a `ClientHello` that announces more bytes.
const HALF_A_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

#[tokio::test]
async fn pending_handshakes_delay_neither_other_clients_nor_a_stop() {
    let emulator = start(Emulator::builder()).await;
    let mut silent = TcpStream::connect(emulator.address()).await.expect("a connection");
    let mut half = TcpStream::connect(emulator.address()).await.expect("a connection");
    half.write_all(HALF_A_HELLO).await.expect("sent");
    // The handshake succeeds, and no request follows.
    let mut idle = Caller::new(&emulator).handshake("localhost").await.expect("a handshake");
    Caller::new(&emulator).api("GET", "/devices", None).await.expect(200);
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    emulator.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    for stream in [&mut silent, &mut half] {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    let _ = idle.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn a_slow_handshake_is_aborted() {
    let emulator = start(Emulator::builder()).await;
    let mut half = TcpStream::connect(emulator.address()).await.expect("a connection");
    half.write_all(HALF_A_HELLO).await.expect("sent");
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let _ = half.read_to_end(&mut Vec::new()).await;
    assert!(begun.elapsed() <= Duration::from_secs(11), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_new_handshake_replaces_the_oldest_of_too_many() {
    let emulator = start(Emulator::builder()).await;
    let mut open = Vec::new();
    for _ in 0..258 {
        open.push(TcpStream::connect(emulator.address()).await.expect("a connection"));
    }
    Caller::new(&emulator).api("GET", "/devices", None).await.expect(200);
    for oldest in &mut open[..2] {
        // Before their timeout.
        let mut nothing = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), oldest.read_to_end(&mut nothing)).await;
        let _ = closed.expect("it was closed");
    }
    assert_eq!(
        open[200].try_read(&mut [0]).expect_err("still open").kind(),
        std::io::ErrorKind::WouldBlock,
        "those that are younger stay"
    );
}

#[tokio::test]
async fn abruptly_closed_connections_affect_no_other_client() {
    let emulator = start(Emulator::builder()).await;
    for bytes in [&b""[..], HALF_A_HELLO, b"\x16\x03\x01\x00\x00", &[0xff; 100]] {
        let mut stream = TcpStream::connect(emulator.address()).await.expect("a connection");
        let _ = stream.write_all(bytes).await;
        // Without lingering, closing resets the connection.
        stream.set_zero_linger().expect("set");
    }
    // In the middle of a request, without closing TLS.
    let mut stream = Caller::new(&emulator).handshake("localhost").await.expect("a handshake");
    stream.write_all(b"PUT /api/devices/x HTTP/1.1\r\nContent-Length: 100\r\n\r\n{").await.expect("sent");
    stream.get_ref().0.set_zero_linger().expect("set");
    drop(stream);
    Caller::new(&emulator).api("GET", "/devices", None).await.expect(200);
}

#[tokio::test]
async fn a_request_in_progress_is_answered_over_tls_during_a_stop() {
    let emulator = start(Emulator::builder()).await;
    let authorization = format!("Authorization: {}\r\n", emulator.token());
    let path = "/api/devices/late?api-version=2022-07-31";
    let headers =
        format!("{authorization}Content-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n");
    let mut stream = Caller::new(&emulator).handshake("localhost").await.expect("a handshake");
    stream.write_all(request(&emulator, "PUT", path, &headers, None).as_bytes()).await.expect("sent");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.expect("it waits for the body");
    let address = emulator.address();
    let stopping = tokio::spawn(emulator.stop());
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(b"{}").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer, and a close that says so");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stopping.await.expect("stopped");
}

/// Runs a handshake of `openssl s_client`, which must trust the emulator.
#[tokio::test(flavor = "multi_thread")]
async fn openssl_trusts_the_emulator_with_tls_1_2_and_1_3() {
    let emulator = start(Emulator::builder()).await;
    let directory = crate::support::temporary_directory();
    std::fs::write(directory.path().join("ca.pem"), emulator.ca_pem().expect("PEM")).expect("written");
    let address = emulator.address().to_string();
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let arguments = ["s_client", "-connect", &address, "-CAfile", "ca.pem", "-verify_return_error", version];
        let names = ["-verify_ip", "127.0.0.1", "-alpn", "h2,http/1.1", "-no_ign_eof"];
        let Some(output) = crate::support::openssl(directory.path(), &[&arguments[..], &names[..]].concat()) else {
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        for expected in
            [name, "ALPN protocol: http/1.1", "Verify return code: 0 (ok)", "No client certificate CA names sent"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
