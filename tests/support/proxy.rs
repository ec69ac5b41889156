//! A proxy between a client and an emulator that remembers what passes.
#![allow(dead_code, reason = "each test uses its part")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::server::Request;

/// An answer as it came.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Passes each request on over a connection of its own.
pub(crate) struct Proxy {
    address: SocketAddr,
    exchanges: Arc<Mutex<Vec<(Request, Response)>>>,
}

impl Proxy {
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let exchanges = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&exchanges);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let exchanges = Arc::clone(&shared);
                thread::spawn(move || {
                    let Some(request) = Request::read(&stream) else { return };
                    let response = Response::of(&request, upstream, address);
                    let bytes = response.to_bytes();
                    exchanges.lock().expect("proxy").push((request, response));
                    // A client that has gone needs no answer.
                    let _ = stream.write_all(&bytes);
                });
            }
        });
        Self { address, exchanges }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has passed so far, oldest first.
    pub(crate) fn exchanges(&self) -> Vec<(Request, Response)> {
        self.exchanges.lock().expect("proxy").clone()
    }
}

impl Response {
    fn of(request: &Request, upstream: SocketAddr, here: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(upstream).expect("a connection");
        let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
        for (name, value) in &request.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head += "Connection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&request.body)).expect("sent");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        let text = String::from_utf8(bytes).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
        let headers =
            lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_owned(), value.to_owned()));
        // Links to further pages have to lead through here.
        let body = body.replace(&upstream.to_string(), &here.to_string());
        Self { status, headers: headers.collect(), body: body.into_bytes() }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let length =
            if self.status == 204 { String::new() } else { format!("Content-Length: {}\r\n", self.body.len()) };
        let mut head = format!("HTTP/1.1 {} Passed on\r\n{length}", self.status);
        let own = ["connection", "content-length"];
        for (name, value) in self.headers.iter().filter(|(name, _)| !own.contains(&name.to_lowercase().as_str())) {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head += "Connection: close\r\n\r\n";
        [head.as_bytes(), &self.body].concat()
    }
}
