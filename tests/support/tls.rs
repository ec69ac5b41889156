//! A server on TLS, with an authority of its own.
#![allow(dead_code, reason = "each test uses its part")]

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::server::Reply;

/// What it was asked: the first line, and the body.
pub(crate) type Request = (String, String);

#[derive(Default)]
struct State {
    connections: usize,
    requests: Vec<Request>,
}

pub(crate) struct TlsServer {
    pub(crate) address: SocketAddr,
    /// The root to trust, in DER.
    pub(crate) authority: Vec<u8>,
    state: Arc<Mutex<State>>,
}

impl TlsServer {
    /// How often it was connected to.
    pub(crate) fn connections(&self) -> usize {
        self.state.lock().expect("server").connections
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().expect("server").requests.clone()
    }
}

/// Begins a server with a certificate for that name, which answers the first request with `answer(0)`, and so on.
pub(crate) fn start(name: &str, answer: impl Fn(usize) -> Reply + Send + 'static) -> TlsServer {
    start_with(name, |_| {}, answer)
}

/// The same, with something else about its certificate.
pub(crate) fn start_with(
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
    answer: impl Fn(usize) -> Reply + Send + 'static,
) -> TlsServer {
    let (authority_key, key) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let mut parameters = CertificateParams::new([]).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).expect("an authority");
    let issuer = Issuer::new(parameters, authority_key);
    let mut parameters = CertificateParams::new([name.to_owned()]).expect("parameters");
    change(&mut parameters);
    let leaf = parameters.signed_by(&key, &issuer).expect("a leaf");
    let private_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private_key)
        .expect("a configuration");
    let (config, state) = (Arc::new(config), Arc::new(Mutex::new(State::default())));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let shared = Arc::clone(&state);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            shared.lock().expect("server").connections += 1;
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = BufReader::new(StreamOwned::new(session, stream));
            let Some(request) = read(&mut stream) else { continue };
            let number = {
                let mut state = shared.lock().expect("server");
                state.requests.push(request);
                state.requests.len() - 1
            };
            let Reply::Raw(bytes) = answer(number) else { panic!("bytes") };
            drop(stream.get_mut().write_all(&bytes));
            // Without an answer the connection is cut, as it is when a process ends.
            if !bytes.is_empty() {
                stream.get_mut().conn.send_close_notify();
            }
            drop(stream.get_mut().flush());
        }
    });
    TlsServer { address, authority: authority.der().to_vec(), state }
}

fn read(stream: &mut impl BufRead) -> Option<Request> {
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).ok().filter(|read| *read > 0)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((first.trim_end().to_owned(), String::from_utf8(body).ok()?))
}
