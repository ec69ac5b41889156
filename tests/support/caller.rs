//! Hand-written HTTP over TLS, for tests that choose the TLS version, the certificate and where the request stops.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{net::SocketAddr, sync::Arc};

use iot_enroll::{
    certificate::{Certificate, IssuedCertificate, PrivateKey},
    emulator::Emulator,
};
use rustls::{
    ClientConfig, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    client::ResolvesClientCert,
    crypto::aws_lc_rs::{default_provider, sign},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) const VERSION: &str = "api-version=2021-06-01";

/// A client certificate with its chain and private key.
#[derive(Debug)]
pub(crate) struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Takes an issued certificate with its chain.
    pub(crate) fn of(issued: &IssuedCertificate) -> Self {
        Self::new(&issued.fullchain().cloned().collect::<Vec<_>>(), &issued.key)
    }

    pub(crate) fn new(chain: &[Certificate], key: &PrivateKey) -> Self {
        let der: Vec<_> = chain.iter().map(|certificate| certificate.der().to_vec()).collect();
        Self::from_der(der, key.to_pkcs8_der().expect("a key").to_vec())
    }

    /// Takes anything: neither the certificates nor whether the key fits is checked.
    pub(crate) fn from_der(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Self {
        let key = sign::any_supported_type(&PrivatePkcs8KeyDer::from(key).into()).expect("a key that signs");
        Self(Arc::new(CertifiedKey::new(chain.into_iter().map(CertificateDer::from).collect(), key)))
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        assert!(hints.is_empty(), "no authorities are named, so that every certificate is presented");
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) text: String,
    /// Null if it is not JSON.
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn read(received: &str) -> Self {
        let (head, text) = received.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole head: {received:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = serde_json::from_str(text).unwrap_or_default();
        Self { status, head: head.to_owned(), text: text.to_owned(), body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// Expects an error in the form of the Device Provisioning Service.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: u32, message: &str) -> Self {
        let body = &self.body;
        assert_eq!((self.status, &body["errorCode"]), (status, &json!(code)), "{}", self.text);
        assert!(body["message"].as_str().is_some_and(|found| found.contains(message)), "{message:?}: {body}");
        assert_eq!(self.header("x-ms-error-code"), Some(code.to_string().as_str()));
        assert!(body["trackingId"].as_str().is_some_and(|id| id.len() == 36), "{body}");
        check_time(&body["timestampUtc"]);
        self
    }

    pub(crate) fn text(&self, pointer: &str) -> String {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{}", self.text)).to_owned()
    }
}

#[track_caller]
pub(crate) fn check_time(time: &Value) {
    let format =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:7]Z");
    time::PrimitiveDateTime::parse(time.as_str().expect("a time"), format).expect("a time of the service's form");
}

/// A client of an emulator, with or without a certificate.
pub(crate) struct Caller<'a> {
    emulator: &'a Emulator,
    /// `None` if the emulator speaks plain HTTP.
    config: Option<Arc<ClientConfig>>,
    id_scope: &'a str,
}

impl<'a> Caller<'a> {
    /// Creates a client without a certificate.
    pub(crate) fn new(emulator: &'a Emulator) -> Self {
        Self::with(emulator, None, &[&TLS13, &TLS12])
    }

    pub(crate) fn presenting(emulator: &'a Emulator, identity: Identity) -> Self {
        Self::with(emulator, Some(identity), &[&TLS13, &TLS12])
    }

    pub(crate) fn with(
        emulator: &'a Emulator,
        identity: Option<Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let config = emulator.ca_pem().map(|pem| Arc::new(configuration(pem, identity, versions)));
        Self { emulator, config, id_scope: emulator.id_scope() }
    }

    /// Registers at the ID scope of the DPS instance instead of the application's.
    pub(crate) fn at_instance(self) -> Self {
        Self { id_scope: self.emulator.dps_id_scope(), ..self }
    }

    /// Connects to the emulator, whose certificate must be for this name.
    pub(crate) async fn handshake(&self, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        self.handshake_at(self.emulator.address(), name).await
    }

    pub(crate) fn emulator(&self) -> &'a Emulator {
        self.emulator
    }

    /// Connects to another address of the emulator.
    pub(crate) async fn handshake_at(
        &self,
        address: SocketAddr,
        name: &'static str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        let config = Arc::clone(self.config.as_ref().expect("an emulator with TLS"));
        TlsConnector::from(config).connect(ServerName::try_from(name).expect("a name"), stream).await
    }

    /// Sends a text and returns everything until the connection closes or breaks.
    pub(crate) async fn exchange(&self, text: &str) -> String {
        if self.config.is_some() {
            return exchange(self.handshake("localhost").await.expect("a handshake"), text).await;
        }
        exchange(TcpStream::connect(self.emulator.address()).await.expect("a connection"), text).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str, body: Option<&Value>) -> Answer {
        let received = self.exchange(&request(self.emulator, method, path, headers, body)).await;
        Answer::read(&received)
    }

    /// Sends a request to the IoT Central API.
    pub(crate) async fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let authorization = format!("Authorization: {}\r\n", self.emulator.token());
        self.send(method, &format!("/api{path}?api-version=2022-07-31"), &authorization, body).await
    }

    /// Returns the path of a registration, with a version.
    pub(crate) fn path(&self, id: &str, rest: &str) -> String {
        format!("/{}/registrations/{id}{rest}?{VERSION}", self.id_scope)
    }

    pub(crate) async fn register(&self, id: &str) -> Answer {
        self.send("PUT", &self.path(id, "/register"), "", Some(&json!({ "registrationId": id }))).await
    }

    pub(crate) async fn poll(&self, id: &str, operation: &str) -> Answer {
        self.send("GET", &self.path(id, &format!("/operations/{operation}")), "", None).await
    }

    pub(crate) async fn look_up(&self, id: &str) -> Answer {
        self.send("POST", &self.path(id, ""), "", Some(&json!({ "registrationId": id }))).await
    }

    /// Registers, polls until the device is assigned, and returns the last response.
    pub(crate) async fn assigned(&self, id: &str) -> Answer {
        let operation = self.register(id).await.expect(202).text("/operationId");
        loop {
            let answer = self.poll(id, &operation).await;
            if answer.status != 202 {
                assert_eq!(answer.body["status"], "assigned", "{}", answer.text);
                return answer.expect(200);
            }
        }
    }
}

/// Connects to an emulator that has this CA.
pub(crate) async fn handshake_with(ca: &str, address: SocketAddr) -> TlsStream<TcpStream> {
    let config = Arc::new(configuration(ca, None, &[&TLS13]));
    let stream = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(config).connect(name, stream).await.expect("a handshake")
}

pub(crate) fn request(emulator: &Emulator, method: &str, path: &str, headers: &str, body: Option<&Value>) -> String {
    let body = body.map(ToString::to_string).unwrap_or_default();
    let content = match body.len() {
        0 => String::new(),
        length => format!("Content-Type: application/json; charset=utf-8\r\nContent-Length: {length}\r\n"),
    };
    let host = emulator.address();
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}{content}\r\n{body}")
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> String {
    let mut received = Vec::new();
    if stream.write_all(text.as_bytes()).await.is_ok() {
        // A broken connection ends like a closed one.
        let _ = stream.read_to_end(&mut received).await;
    }
    String::from_utf8(received).expect("text")
}

fn configuration(ca: &str, identity: Option<Identity>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}
