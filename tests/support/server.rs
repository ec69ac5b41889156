//! A server on a real socket that answers what it was told to, and remembers what it was asked.
#![allow(dead_code, reason = "each test uses its part")]

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};

/// What happens to one request, after it was read whole.
pub(crate) enum Reply {
    /// These bytes are sent and the connection is closed. Without bytes, the answer is lost.
    Raw(Vec<u8>),
    /// Nothing, and the connection stays open.
    Silence,
    /// An answer whose body does not end.
    Endless,
}

impl Reply {
    /// The connection is closed before an answer.
    pub(crate) fn lost() -> Self {
        Self::Raw(Vec::new())
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::with(status, &[("Content-Type", "application/json")], &body.to_string())
    }

    pub(crate) fn no_content() -> Self {
        Self::Raw(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec())
    }

    /// An error in the service's form.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &json!({ "error": { "code": code, "message": message, "requestId": "req-1" } }))
    }

    /// 429, with a `Retry-After`.
    pub(crate) fn throttled(retry_after: &str) -> Self {
        Self::with(429, &[("Retry-After", retry_after)], "")
    }

    pub(crate) fn with(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let mut text = format!("HTTP/1.1 {status} Scripted\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.extend(["\r\n", body]);
        Self::Raw(text.into_bytes())
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub(crate) fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut first = lines.first()?.split(' ').map(str::to_owned);
        let (method, target) = (first.next()?, first.next()?);
        let headers: Vec<_> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())))
            .collect();
        let mut request = Self { method, target, headers, body: Vec::new() };
        let length = request.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body).ok()?;
        Some(request)
    }
}

#[derive(Default)]
struct State {
    script: VecDeque<Reply>,
    requests: Vec<Request>,
    silent: Vec<TcpStream>,
}

/// Answers each request with the next reply of its script, and 418 when there is none left.
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { script: script.into_iter().collect(), ..State::default() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds to the script.
    pub(crate) fn then(&self, reply: Reply) {
        self.state.lock().expect("server").script.push_back(reply);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().expect("server").requests.clone()
    }

    /// Whether the other side has closed every connection that is kept in silence.
    pub(crate) fn silent_are_closed(&self) -> bool {
        let state = self.state.lock().expect("server");
        let closed = |mut stream: &TcpStream| {
            stream.set_nonblocking(true).expect("a socket");
            matches!(stream.read(&mut [0]), Ok(0))
        };
        !state.silent.is_empty() && state.silent.iter().all(closed)
    }

    /// The methods and paths so far.
    pub(crate) fn log(&self) -> Vec<String> {
        let name = |target: &str| target.split('?').next().unwrap_or_default().trim_start_matches("/api/").to_owned();
        self.requests().iter().map(|request| format!("{} {}", request.method, name(&request.target))).collect()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let Some(request) = Request::read(&stream) else { return };
    let reply = {
        let mut state = state.lock().expect("server");
        state.requests.push(request);
        state.script.pop_front().unwrap_or_else(|| Reply::error(418, "Unscripted", "not in the script"))
    };
    match reply {
        Reply::Raw(bytes) => drop(stream.write_all(&bytes)),
        Reply::Silence => state.lock().expect("server").silent.push(stream),
        Reply::Endless => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            let mut sent = stream.write_all(head.as_bytes());
            while sent.is_ok() {
                sent = stream.write_all(chunk.as_bytes());
            }
        }
    }
}
