//! The hosts by which clients reach the emulator, and those that it refuses.

use crate::support::caller::{Answer, Caller};
use iot_enroll::emulator::{Builder, Emulator, EmulatorError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn start(builder: Builder) -> Emulator {
    builder.start().await.expect("a free loopback port")
}

/// Sends the head of a request, after its first line, and returns the answer.
async fn send(emulator: &Emulator, first_line: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(emulator.address()).await.expect("a connection");
    let token = emulator.token();
    let text = format!("{first_line}\r\n{headers}Authorization: {token}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.expect("an answer");
    Answer::read(&String::from_utf8(received).expect("text"))
}

const LIST: &str = "GET /api/devices?api-version=2022-07-31 HTTP/1.1";

#[tokio::test]
async fn loopback_names_and_given_hosts_are_served_with_any_port() {
    let emulator = start(Emulator::builder().host("app.example").host("*.iot.example").host("192.0.2.1")).await;
    for host in [
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "contoso.localhost:65535",
        "a.b.localhost",
        "127.0.0.1",
        "127.1.2.3:80",
        "[::1]:8443",
        "[::ffff:127.0.0.1]",
        "App.Example",
        "app.example.:8080",
        "contoso.iot.example:443",
        "192.0.2.1:80",
        "[::ffff:192.0.2.1]",
        "localhost:",
    ] {
        send(&emulator, LIST, &format!("Host: {host}\r\n")).await.expect(200);
    }
}

#[tokio::test]
async fn other_hosts_are_421_and_the_answer_says_what_to_do() {
    let emulator = start(Emulator::builder().host("*.iot.example")).await;
    for host in [
        "attacker.example",
        "attacker.example:80",
        "iot.example",
        "a.b.iot.example",
        "localhost.attacker.example",
        "evillocalhost",
        "127.0.0.1.attacker.example",
        "192.0.2.1",
        "0.0.0.0",
        "[::]",
        "[::ffff:192.0.2.1]",
    ] {
        for line in [LIST, "GET /health HTTP/1.1", "GET /enrollmentGroups/x?api-version=2021-10-01 HTTP/1.1"] {
            let answer = send(&emulator, line, &format!("Host: {host}\r\n")).await.expect(421);
            assert!(answer.text.contains("--host"), "{}", answer.text);
        }
    }
    let answer = send(&emulator, LIST, "Host: attacker.example\r\n").await;
    assert!(answer.text("/error/message").contains("--host attacker.example"), "{}", answer.text);
    assert_eq!(answer.text("/error/code"), "MisdirectedRequest");
}

#[tokio::test]
async fn a_malformed_missing_or_repeated_host_is_400() {
    let emulator = start(Emulator::builder()).await;
    for headers in [
        "",
        "Host: \r\n",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost\r\nHost: attacker.example\r\n",
        "Host: user@localhost\r\n",
        "Host: local host\r\n",
        "Host: localhost:65536\r\n",
        "Host: localhost:http\r\n",
        "Host: localhost:+80\r\n",
        "Host: localhost:80:80\r\n",
        "Host: ::1\r\n",
        "Host: [::1\r\n",
        "Host: *.localhost\r\n",
        "Host: localhost/path\r\n",
        "Host: attacker.example#.localhost\r\n",
    ] {
        let answer = send(&emulator, LIST, headers).await;
        assert_eq!(answer.status, 400, "{headers:?}: {}", answer.text);
    }
    // HTTP/1.0 has no such header.
    send(&emulator, "GET /api/devices?api-version=2022-07-31 HTTP/1.0", "").await.expect(200);
}

#[tokio::test]
async fn the_host_of_an_absolute_target_counts_and_is_checked() {
    let emulator = start(Emulator::builder().page_size(1.try_into().expect("one")).host("app.example")).await;
    emulator.add_devices(["a", "b"].map(iot_enroll::emulator::DeviceProperties::new)).expect("devices");
    let line = |host: &str| format!("GET http://{host}/api/devices?api-version=2022-07-31 HTTP/1.1");
    let answer = send(&emulator, &line("app.example:81"), "Host: localhost\r\n").await.expect(200);
    assert!(answer.text("/nextLink").starts_with("http://app.example:81/api/devices?"), "{}", answer.text);
    send(&emulator, &line("attacker.example"), "Host: localhost\r\n").await.expect(421);
    send(&emulator, &line("localhost"), "Host: attacker.example\r\n").await.expect(421);
}

#[tokio::test]
async fn a_page_of_another_site_is_refused_and_no_answer_allows_one_to_read_it() {
    let emulator = start(Emulator::builder()).await;
    for origin in ["https://attacker.example", "null", "http://localhost.attacker.example", "file://", ""] {
        for line in [LIST, "OPTIONS /api/devices HTTP/1.1", "GET /health HTTP/1.1"] {
            let answer = send(&emulator, line, &format!("Host: localhost\r\nOrigin: {origin}\r\n")).await.expect(403);
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    let answer = send(&emulator, LIST, "Host: localhost\r\nOrigin: http://localhost:3000\r\n").await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn links_and_host_names_of_the_instance_keep_the_host_that_the_client_used() {
    let emulator = start(Emulator::builder().host("dps.example")).await;
    let (subscription, group) = (emulator.subscription(), emulator.resource_group());
    let line = format!(
        "GET /subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Devices/provisioningServices/{}\
         ?api-version=2022-02-05 HTTP/1.1",
        emulator.dps_name()
    );
    let mut stream = TcpStream::connect(emulator.address()).await.expect("a connection");
    let token = emulator.arm_token();
    let text =
        format!("{line}\r\nHost: dps.example:9443\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut received = String::new();
    stream.read_to_string(&mut received).await.expect("an answer");
    let answer = Answer::read(&received).expect(200);
    for name in ["serviceOperationsHostName", "deviceProvisioningHostName"] {
        assert_eq!(answer.text(&format!("/properties/{name}")), "dps.example:9443");
    }
}

#[tokio::test]
async fn a_refused_host_uses_up_no_fault() {
    use iot_enroll::emulator::{Fault, FaultKind};
    let emulator = start(Emulator::builder()).await;
    emulator.inject(Fault::new(FaultKind::Status { status: 503, retry_after: None })).expect("a fault");
    send(&emulator, LIST, "Host: attacker.example\r\n").await.expect(421);
    send(&emulator, LIST, "Host: localhost\r\n").await.expect(503);
}

#[tokio::test]
async fn the_server_certificate_has_the_given_hosts_and_every_name_below_localhost() {
    let builder =
        Emulator::builder().tls(true).host("app.example").host("*.iot.example").host("192.0.2.1").host("*.test");
    let emulator = start(builder).await;
    let caller = Caller::new(&emulator);
    for name in [
        "localhost",
        "contoso.localhost",
        "deep.contoso.localhost",
        "app.example",
        "contoso.iot.example",
        "contoso.test",
        "192.0.2.1",
        "127.0.0.1",
    ] {
        caller.handshake(name).await.expect(name);
    }
    for name in ["attacker.example", "iot.example", "a.b.iot.example", "192.0.2.2", "localhost.example"] {
        caller.handshake(name).await.expect_err(name);
    }
}

#[tokio::test]
async fn many_names_below_localhost_are_served() {
    let emulator = start(Emulator::builder().tls(true)).await;
    for number in 0..70 {
        let name: &'static str = Box::leak(format!("app-{number}.localhost").into_boxed_str());
        Caller::new(&emulator).handshake(name).await.expect(name);
    }
}

#[tokio::test]
async fn an_invalid_host_is_refused_with_its_text() {
    for text in ["", "a b", "app.example:80", "https://app.example", "*", "a.*.example", "-a", "a..b", "1.2.3", "*.*.a"]
    {
        let error = Emulator::builder().host(text).start().await.expect_err(text);
        assert!(matches!(&error, EmulatorError::Host(refused) if refused == text), "{error}");
    }
}
