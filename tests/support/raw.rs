//! Hand-written HTTP, for requests that no client library sends.
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

/// Returns a request below `/api`, with a complete or partial body.
pub(crate) fn request(emulator: &Emulator, method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} /api{path}?api-version=2022-07-31 HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n{headers}\r\n{body}",
        emulator.address(),
        emulator.token()
    )
}

/// Reads everything until the connection closes or breaks.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    // A reset ends the connection like a close.
    let _ = stream.read_to_end(&mut received).await;
    String::from_utf8(received).expect("text")
}

/// Starts a PUT of a group and returns once the emulator waits for its body of `length` bytes.
pub(crate) async fn waiting_for_body(emulator: &Emulator, path: &str, length: usize) -> TcpStream {
    let headers = format!("Content-Type: application/json\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n");
    let mut stream = connect(emulator, &request(emulator, "PUT", path, &headers, "")).await;
    let expected = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received).await.expect("an interim answer");
    assert_eq!(received, expected);
    stream
}
