//! HTTP by hand, for what no client library does.
#![allow(dead_code, reason = "each test file uses a part")]

use iot_enroll::emulator::Emulator;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) async fn connect(emulator: &Emulator, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(emulator.address()).await.expect("a connection");
    stream.write_all(text.as_bytes()).await.expect("sent");
    stream
}

/// The head of a request below `/api`, and as much body as is wanted.
pub(crate) fn request(emulator: &Emulator, method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} /api{path}?api-version=2022-07-31 HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n{headers}\r\n{body}",
        emulator.address(),
        emulator.token()
    )
}

/// Everything until the connection ends, however it ends.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    // A reset ends it as well as a close does.
    let _ = stream.read_to_end(&mut received).await;
    String::from_utf8(received).expect("text")
}

/// Begins a PUT of a group and returns when the emulator waits for its body, of so many bytes.
pub(crate) async fn waiting_for_body(emulator: &Emulator, path: &str, length: usize) -> TcpStream {
    let headers = format!("Content-Type: application/json\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n");
    let mut stream = connect(emulator, &request(emulator, "PUT", path, &headers, "")).await;
    let expected = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received).await.expect("an interim answer");
    assert_eq!(received, expected);
    stream
}
