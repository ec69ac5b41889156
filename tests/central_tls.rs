//! Whose certificates the client trusts.
#![cfg(feature = "client")]

mod support {
    pub(crate) mod client;
    pub(crate) mod clock;
    pub(crate) mod server;
}

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use iot_enroll::central::{Error, NetworkError, NetworkFailure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use support::{client::builder, clock::ManualClock};

/// A server that answers every request with an empty list, and how often it was connected to.
struct TlsServer {
    address: SocketAddr,
    connections: Arc<AtomicU32>,
    authority: Vec<u8>,
}

fn start(name: &str) -> TlsServer {
    let (authority_key, key) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let mut parameters = CertificateParams::new([]).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).expect("an authority");
    let issuer = Issuer::new(parameters, authority_key);
    let leaf = CertificateParams::new([name.to_owned()]).expect("parameters").signed_by(&key, &issuer).expect("a leaf");
    let private_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private_key)
        .expect("a configuration");
    let (config, connections) = (Arc::new(config), Arc::new(AtomicU32::new(0)));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = TlsServer {
        address: listener.local_addr().expect("an address"),
        connections: Arc::clone(&connections),
        authority: authority.der().to_vec(),
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            connections.fetch_add(1, Ordering::SeqCst);
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = BufReader::new(StreamOwned::new(session, stream));
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            drop(stream.get_mut().write_all(answer));
            stream.get_mut().conn.send_close_notify();
            drop(stream.get_mut().flush());
        }
    });
    server
}

/// How a call fails that cannot trust the server.
async fn distrust(address: &str, root: &[u8]) -> NetworkError {
    let builder = builder(&format!("https://{address}"), &ManualClock::new());
    let client = builder.add_root_certificate(root).expect("a root").build().expect("a client");
    match client.enrollment_groups().delete(&"g".parse().expect("an id")).await {
        Err(Error::Network(error)) => *error,
        other => panic!("no trust: {other:?}"),
    }
}

#[tokio::test]
async fn an_added_root_is_trusted() {
    let server = start("127.0.0.1");
    let builder = builder(&format!("https://{}", server.address), &ManualClock::new());
    let client = builder.add_root_certificate(&server.authority).expect("a root").build().expect("a client");
    assert!(client.enrollment_groups().find(&"g".parse().expect("an id")).await.expect("an answer").is_none());
}

#[tokio::test]
async fn an_unknown_authority_is_refused_at_once_and_the_remedy_named() {
    let server = start("127.0.0.1");
    let other = start("127.0.0.1").authority;
    let error = distrust(&server.address.to_string(), &other).await;
    assert_eq!((error.failure, error.attempts, error.answer_was_lost), (NetworkFailure::Tls, 1, false), "{error}");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    let text = error.to_string();
    assert!(text.contains("certificate") && text.contains("add it as a root"), "{text}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let server = start("elsewhere.example");
    let error = distrust(&server.address.to_string(), &server.authority).await;
    assert_eq!(error.failure, NetworkFailure::Tls, "{error}");
}
