//! What MQTT clients can do wrong, and that it affects their own connection only.

use std::time::Duration;

use iot_enroll::emulator::Emulator;
use mqtt_proto::{
    QosPid,
    v3::{ConnectReturnCode, Packet},
};
use proptest::{
    collection::vec,
    prelude::any,
    strategy::{Just, Strategy},
    test_runner::{Config, TestRunner},
};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::mqtt::{Lab, builder};
use crate::support::{
    mqtt::{Device, REGISTER, connect, pid, user_name},
    skipped,
};

const ID: &str = "sensor-1";

/// The time that clients have in these tests, which do not wait for it.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Returns whether a connection was closed.
async fn is_closed(device: &mut Device) -> bool {
    loop {
        match device.receive().await {
            None => return true,
            Some(Packet::Puback(_) | Packet::Publish(_)) => {}
            Some(_) => return false,
        }
    }
}

#[tokio::test]
async fn a_packet_that_is_not_allowed_closes_its_connection_only() {
    let lab = Lab::start().await;
    let mut bystander = lab.device("sensor-2").await;
    let connect = Packet::from(connect(ID, &user_name(lab.emulator.id_scope(), ID), None)).encode().expect("a packet");
    let register = b"$dps/registrations/PUT/iotdps-register/?$rid=r";
    let publish = |first: u8, after_topic: &[u8]| {
        let length = u8::try_from(2 + register.len() + after_topic.len()).expect("short");
        [&[first, length, 0, 46], &register[..], after_topic].concat()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a second CONNECT", connect.as_ref().to_vec()),
        ("CONNACK", b"\x20\x02\x00\x00".to_vec()),
        ("SUBACK", b"\x90\x03\x00\x01\x00".to_vec()),
        ("PINGRESP", b"\xd0\x00".to_vec()),
        ("PUBREC", b"\x50\x02\x00\x01".to_vec()),
        ("PUBREL", b"\x62\x02\x00\x01".to_vec()),
        ("the reserved type 0", b"\x00\x00".to_vec()),
        ("the reserved type 15", b"\xf0\x00".to_vec()),
        ("reserved flags", b"\xc1\x00".to_vec()),
        ("a ping with a body", b"\xc0\x01\x00".to_vec()),
        ("a length of five bytes", b"\x30\xff\xff\xff\xff\x01".to_vec()),
        ("a packet of 256 MB", b"\x30\xff\xff\xff\x7f".to_vec()),
        ("a packet of 256 KiB and one byte", b"\x30\xfd\xff\x0f".to_vec()),
        ("a topic beyond the end", b"\x30\x04\xff\xff\x61\x62".to_vec()),
        ("a topic that is not UTF-8", b"\x30\x04\x00\x02\xff\xfe".to_vec()),
        ("a topic with a wildcard", b"\x30\x05\x00\x03a/#".to_vec()),
        ("an unknown topic", b"\x30\x05\x00\x03abc".to_vec()),
        ("a topic of responses", b"\x30\x1d\x00\x1b$dps/registrations/res/200/".to_vec()),
        ("a topic without a request ID", b"\x30\x29\x00\x27$dps/registrations/PUT/iotdps-register/".to_vec()),
        ("packet ID 0", publish(0x32, b"\0\0{}")),
        ("QoS 2", publish(0x34, b"\0\x01{}")),
        ("QoS 3", publish(0x36, b"\0\x01{}")),
        ("SUBSCRIBE without a filter", b"\x82\x02\x00\x01".to_vec()),
        ("SUBSCRIBE with QoS 3", b"\x82\x06\x00\x01\x00\x01a\x03".to_vec()),
        ("SUBSCRIBE with packet ID 0", b"\x82\x06\x00\x00\x00\x01a\x00".to_vec()),
        ("bytes after the last field", b"\xa2\x06\x00\x01\x00\x01a\x00".to_vec()),
        ("an HTTP request", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in cases {
        let mut device = lab.device(ID).await;
        device.send_bytes(&bytes).await;
        assert!(is_closed(&mut device).await, "{what}");
        // Before CONNECT nothing else is allowed.
        let mut device = Device::open(&lab.anonymous()).await;
        if what != "a second CONNECT" {
            device.send_bytes(&bytes).await;
            assert_eq!(device.rest().await, b"", "{what}");
        }
    }
    assert!(bystander.is_alive().await);
}

#[tokio::test]
async fn the_largest_packet_is_accepted() {
    let lab = Lab::start().await;
    let mut device = lab.device(ID).await;
    let fixed = 4 + 2 + REGISTER.len() + 2;
    let body = json!({ "registrationId": ID, "payload": "" }).to_string();
    let padding = "x".repeat(256 * 1024 - fixed - body.len());
    let body = json!({ "registrationId": ID, "payload": padding }).to_string();
    assert_eq!(fixed + body.len(), 256 * 1024);
    device.request(REGISTER, &body).await.expect(202, "$rid=r&retry-after=0");
    device.publish(QosPid::Level1(pid(7)), REGISTER, &format!("{body} ")).await;
    assert!(is_closed(&mut device).await);
}

#[tokio::test]
async fn a_text_message_closes_the_websocket() {
    use futures_util::SinkExt;
    use tokio_tungstenite::tungstenite::Message;

    use crate::support::mqtt::Link;

    let lab = Lab::start().await;
    let scope = lab.emulator.id_scope();
    let messages =
        [Message::text("MQTT"), Message::binary(vec![0; 256 * 1024 + 1]), Message::binary(b"\xf0\x00".to_vec())];
    for message in messages {
        let mut device = Device::open_websocket(&lab.certified(ID)).await.log_in(scope, ID, None).await;
        let Link::WebSocket(socket) = &mut device.link else { panic!("a WebSocket") };
        // A ping and an empty message change nothing.
        socket.send(Message::Ping(vec![1].into())).await.expect("sent");
        socket.send(Message::binary(Vec::new())).await.expect("sent");
        drop(socket.send(message).await);
        assert!(is_closed(&mut device).await);
    }
    lab.device(ID).await;
}

#[tokio::test]
async fn a_disconnect_and_an_abrupt_end_leave_nothing_behind() {
    let lab = Lab::start().await;
    let mut device = lab.device(ID).await;
    device.send(Packet::Disconnect).await;
    assert_eq!(device.receive().await, None);
    let register = [&b"\x30\x60\x00\x2e"[..], REGISTER.as_bytes()].concat();
    let half = lab.device(ID).await;
    let mut half = half;
    half.send_bytes(&register).await;
    drop(half);
    lab.device(ID).await.assigned(ID).await;
}

// Time

/// Returns the time until a connection is closed.
async fn time_to_close(mut device: Device) -> Duration {
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    assert_eq!(device.receive().await, None);
    begun.elapsed()
}

#[tokio::test]
async fn a_connection_without_a_connect_is_closed_in_time() {
    let lab = Lab::with(builder().read_timeout(TIME_LIMIT)).await;
    let mut half = Device::open(&lab.anonymous()).await;
    half.send_bytes(b"\x10\x10\x00\x04MQTT").await;
    let elapsed = time_to_close(half).await;
    assert!(elapsed <= TIME_LIMIT + Duration::from_secs(1), "{elapsed:?}");
}

#[tokio::test]
async fn a_silent_client_is_closed_after_one_and_a_half_times_its_keep_alive() {
    // A packet that is not complete counts as silence, and has the time limit at most.
    for (keep_alive, sent, expected) in
        [(10, &b""[..], 15), (10, b"\xc0", 15), (60, b"\xc0", 20), (0, b"", 1767), (u16::MAX, b"", 1767)]
    {
        let lab = Lab::with(builder().read_timeout(TIME_LIMIT)).await;
        let mut device = Device::open(&lab.certified(ID)).await;
        let mut packet = connect(ID, &user_name(lab.emulator.id_scope(), ID), None);
        packet.keep_alive = keep_alive;
        assert_eq!(device.connect(packet).await, ConnectReturnCode::Accepted);
        assert!(device.is_alive().await);
        device.send_bytes(sent).await;
        let elapsed = time_to_close(device).await.as_secs();
        assert!((expected - 1..=expected + 1).contains(&elapsed), "{elapsed} s for {keep_alive} s");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_delays_nobody() {
    let lab = Lab::with(builder().read_timeout(Duration::from_secs(1))).await;
    let mut device = lab.device("sensor-2").await;
    let mut deaf = lab.device(ID).await;
    let crate::support::mqtt::Link::Tls(stream) = &mut deaf.link else { panic!("not over WebSocket") };
    let (_reader, mut writer) = tokio::io::split(stream);
    let pings = b"\xc0\x00".repeat(32 * 1024);
    let flood = async {
        // Ends when the emulator closes the connection.
        while tokio::io::AsyncWriteExt::write_all(&mut writer, &pings).await.is_ok() {}
    };
    let others = async {
        for _ in 0..20 {
            device.assigned("sensor-2").await;
            lab.anonymous().api("GET", "/devices", None).await.expect(200);
        }
    };
    let both = async { tokio::join!(flood, others) };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("it is closed");
}

// Many

#[tokio::test]
async fn idle_and_half_open_connections_delay_nobody() {
    let lab = Lab::start().await;
    let address = lab.emulator.mqtt_address().expect("MQTT");
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(TcpStream::connect(address).await.expect("a connection"));
    }
    let mut idle = Vec::new();
    for number in 0..40 {
        idle.push(lab.device(&format!("idle-{number}")).await);
    }
    lab.device(ID).await.assigned(ID).await;
    lab.anonymous().api("GET", "/devices", None).await.expect(200);
    for device in &mut idle {
        assert!(device.is_alive().await);
    }
    assert!(silent[0].try_read(&mut [0]).is_err(), "it is still open");
}

#[test]
fn connections_beyond_the_files_of_the_process_are_closed_and_leave_http_its_own() {
    use std::{io::BufRead, os::unix::process::CommandExt, process::Command};

    // The limit cannot be raised again, also not by the program.
    let script = "ulimit -n 700 && exec \"$0\" emulator --tls --mqtt 127.0.0.1:0 --ca-out ca.pem";
    let directory = crate::support::temporary_directory();
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_iot-enroll")]).current_dir(directory.path());
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::null()).process_group(0);
    let mut program = match command.spawn() {
        Ok(program) => program,
        Err(error) => return skipped(&format!("sh could not be run: {error}")),
    };
    let mut line = String::new();
    std::io::BufReader::new(program.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let ca = std::fs::read_to_string(directory.path().join("ca.pem")).expect("a file");
    let address = line["mqtt"].as_str().expect("an address").parse().expect("host and port");
    let url = format!("{}/api/devices?api-version=2022-07-31", line["endpoint"].as_str().expect("a URL"));
    let token = line["token"].as_str().expect("a token").to_owned();
    let result = std::panic::catch_unwind(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut open = Vec::new();
            for _ in 0..70 {
                open.push(crate::support::caller::handshake_with(&ca, address).await);
            }
            // 700 less 640 are served. The others are closed, each as soon as its handshake is over.
            let closed = async {
                for stream in &mut open[60..] {
                    let _ = stream.read(&mut [0]).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), closed).await.expect("they are closed");
            for stream in &mut open[..60] {
                let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut [0])).await;
                assert!(read.is_err(), "it is served: {read:?}");
            }
            let root = reqwest::Certificate::from_pem(ca.as_bytes()).expect("a certificate");
            let http = reqwest::Client::builder().add_root_certificate(root).build().expect("a client");
            let answer = http.get(&url).header("Authorization", &token).send().await.expect("an answer");
            assert_eq!(answer.status(), 200);
            // A place is free again.
            open.truncate(30);
            loop {
                let mut stream = crate::support::caller::handshake_with(&ca, address).await;
                let read = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut [0])).await;
                if read.is_err() {
                    break;
                }
            }
        });
    });
    program.kill().expect("it was running");
    program.wait().expect("it ended");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

// Any bytes

#[test]
fn no_bytes_panic_or_wedge_the_emulator() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let lab = runtime.block_on(Lab::start());
    let name = user_name(lab.emulator.id_scope(), ID);
    let connect = Packet::from(connect(ID, &name, None)).encode().expect("a packet").as_ref().to_vec();
    let subscribe = b"\x82\x1d\x00\x01\x00\x18$dps/registrations/res/#\x01".to_vec();
    let ping = b"\xc0\x00".to_vec();
    let publish = {
        let topic = REGISTER.as_bytes();
        let body = json!({ "registrationId": ID }).to_string();
        let length = u8::try_from(2 + topic.len() + 2 + body.len()).expect("short");
        [&[0x32, length, 0, 46], topic, &[0, 1], body.as_bytes()].concat()
    };
    // Packets that are mostly valid, some with a changed byte, and some arbitrary bytes.
    let valid = proptest::sample::select(vec![connect.clone(), subscribe, ping, publish]);
    let changed = (valid.clone(), any::<proptest::sample::Index>(), any::<u8>()).prop_map(|(mut packet, at, byte)| {
        let at = at.index(packet.len());
        packet[at] = byte;
        packet
    });
    let arbitrary = vec(any::<u8>(), 0..40);
    let part = proptest::prop_oneof![valid, changed, arbitrary];
    let begin = proptest::prop_oneof![Just(connect), Just(Vec::new())];
    let strategy = (begin, vec(part, 0..6)).prop_map(|(begin, parts)| [begin, parts.concat()].concat());
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&strategy, |bytes| {
        runtime.block_on(async {
            let mut device = Device::open(&lab.certified(ID)).await;
            device.send_bytes(&bytes).await;
            // The emulator answers and closes, or waits for more.
            device.finish_sending().await;
            let rest = tokio::time::timeout(Duration::from_secs(10), device.rest()).await;
            assert!(rest.is_ok(), "it was not closed");
        });
        Ok(())
    });
    outcome.expect("no panic");
    runtime.block_on(async { lab.device(ID).await.assigned(ID).await });
    let emulator: Emulator = lab.emulator;
    runtime.block_on(emulator.stop());
}
