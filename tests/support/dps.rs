//! A provisioning service on TLS whose answers are scripted: what it is asked and who asks is kept.
#![allow(dead_code, reason = "each test uses its part")]

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use iot_enroll::{
    central::RetryPolicy,
    certificate::Certificate,
    dps::device::{IdScope, ProvisioningEndpoint, RegistrationClient, RegistrationClientBuilder},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, ServerConnection, SignatureScheme,
    StreamOwned,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs::default_provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::{clock::ManualClock, rcgen_pem::certificate_pem, server::Reply};

pub(crate) const SCOPE: &str = "0ne00000001";
pub(crate) const HUB: &str = "iotc-1.azure-devices.net";

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// The certificates that were presented.
    pub(crate) presented: Vec<Certificate>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// The registration id in its path.
    pub(crate) fn id(&self) -> &str {
        self.target.split(['/', '?']).nth(3).expect("an id")
    }
}

/// How it treats those who connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// For a certificate, and takes any.
    Any,
    /// For no certificate.
    Nothing,
    /// For a certificate, and refuses all in the handshake.
    RefusesAll,
}

#[derive(Default)]
struct State {
    connections: usize,
    requests: Vec<Request>,
}

pub(crate) struct Dps {
    pub(crate) address: SocketAddr,
    /// The root to trust, as PEM.
    pub(crate) authority: String,
    state: Arc<Mutex<State>>,
}

impl Dps {
    /// One that asks for a certificate and answers each request so.
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::with("127.0.0.1", Asks::Any, answer)
    }

    /// One whose answers come one after the other; the last one stays.
    pub(crate) fn script(replies: Vec<Reply>) -> Self {
        let replies = Mutex::new(replies.into_iter());
        Self::start(move |_| replies.lock().expect("the script").next().unwrap_or_else(|| error(418, 418_000, "over")))
    }

    pub(crate) fn with(name: &str, asks: Asks, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let (authority, config) = configuration(name, asks);
        let (config, state, answer) = (Arc::new(config), Arc::new(Mutex::new(State::default())), Arc::new(answer));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                shared.lock().expect("server").connections += 1;
                let (config, state, answer) = (Arc::clone(&config), Arc::clone(&shared), Arc::clone(&answer));
                thread::spawn(move || serve(stream, config, &state, &*answer));
            }
        });
        Self { address, authority, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// How often it was connected to.
    pub(crate) fn connections(&self) -> usize {
        self.state.lock().expect("server").connections
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().expect("server").requests.clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }

    /// A client that trusts it, and whose waiting takes no time.
    pub(crate) fn builder(&self, clock: &Arc<ManualClock>) -> RegistrationClientBuilder {
        RegistrationClient::builder(SCOPE.parse::<IdScope>().expect("a scope"))
            .endpoint(self.url().parse::<ProvisioningEndpoint>().expect("an endpoint"))
            .add_root_certificate(self.authority.as_bytes())
            .expect("a root")
            .retry(RetryPolicy::default())
            .clock(Arc::clone(clock) as Arc<_>)
    }

    pub(crate) fn client(&self) -> RegistrationClient {
        self.builder(&ManualClock::new()).build().expect("a client")
    }
}

/// 202: it is being assigned.
pub(crate) fn assigning(retry_after: Option<&str>) -> Reply {
    let headers: Vec<_> = retry_after.map(|value| ("retry-after", value)).into_iter().collect();
    Reply::with(202, &headers, &json!({ "operationId": "5.op", "status": "assigning" }).to_string())
}

/// 200: it is assigned.
pub(crate) fn assigned(id: &str) -> Reply {
    let state = json!({
        "registrationId": id,
        "createdDateTimeUtc": "2026-01-02T03:04:05.6789Z",
        "assignedHub": HUB,
        "deviceId": id,
        "status": "assigned",
        "substatus": "initialAssignment",
        "lastUpdatedDateTimeUtc": "2026-01-02T03:04:06Z",
        "etag": "etag-1",
    });
    ended("assigned", &state)
}

/// 200: it came to this end.
pub(crate) fn ended(status: &str, state: &Value) -> Reply {
    let body = json!({ "operationId": "5.op", "status": status, "registrationState": state });
    Reply::with(200, &[], &body.to_string())
}

/// A refusal in the service's form.
pub(crate) fn error(status: u16, code: u64, message: &str) -> Reply {
    dated(status, code, message, None)
}

/// The same with a `Date`.
pub(crate) fn dated(status: u16, code: u64, message: &str, date: Option<&str>) -> Reply {
    let headers: Vec<_> = date.map(|date| ("Date", date)).into_iter().collect();
    let body = json!({ "errorCode": code, "trackingId": "track-1", "message": message, "timestampUtc": "now" });
    Reply::with(status, &headers, &body.to_string())
}

pub(crate) fn unauthorized() -> Reply {
    error(401, 401_002, "Unauthorized")
}

fn configuration(name: &str, asks: Asks) -> (String, ServerConfig) {
    let (authority_key, key) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let mut parameters = CertificateParams::new([]).expect("parameters");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, format!("Authority for {name}"));
    let authority = parameters.self_signed(&authority_key).expect("an authority");
    let issuer = Issuer::new(parameters, authority_key);
    let mut parameters = CertificateParams::new([name.to_owned()]).expect("parameters");
    parameters.not_before = OffsetDateTime::now_utc() - Duration::days(60);
    parameters.not_after = OffsetDateTime::now_utc() + Duration::days(730);
    let leaf = parameters.signed_by(&key, &issuer).expect("a leaf");
    let private_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let verifier = match asks {
        Asks::Nothing => WebPkiClientVerifier::no_client_auth(),
        asks => Arc::new(TakesAll { provider, refuses: asks == Asks::RefusesAll }),
    };
    let config = builder.with_client_cert_verifier(verifier).with_single_cert(vec![leaf.der().clone()], private_key);
    (certificate_pem(&authority), config.expect("a configuration"))
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, state: &Mutex<State>, answer: &dyn Fn(&Request) -> Reply) {
    let session = ServerConnection::new(config).expect("a session");
    let mut stream = BufReader::new(StreamOwned::new(session, stream));
    let Some(mut request) = read(&mut stream) else { return };
    let presented = stream.get_ref().conn.peer_certificates().unwrap_or_default();
    request.presented = presented.iter().map(|der| Certificate::from_der(der).expect("a certificate")).collect();
    state.lock().expect("server").requests.push(request.clone());
    let Reply::Raw(bytes) = answer(&request) else { panic!("bytes") };
    if bytes.is_empty() {
        return;
    }
    drop(stream.get_mut().write_all(&bytes));
    stream.get_mut().conn.send_close_notify();
    drop(stream.get_mut().flush());
}

fn read(stream: &mut impl BufRead) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut first = lines.first()?.split(' ').map(str::to_owned);
    let (method, target) = (first.next()?, first.next()?);
    let headers = lines[1..].iter().filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    let mut request = Request { method, target, headers, body: String::new(), presented: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).expect("UTF-8");
    Some(request)
}

/// Takes any certificate whose key signs the handshake, as the service does, which judges later; or none at all.
#[derive(Debug)]
struct TakesAll {
    provider: Arc<CryptoProvider>,
    refuses: bool,
}

impl ClientCertVerifier for TakesAll {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.refuses { Err(CertificateError::UnknownIssuer.into()) } else { Ok(ClientCertVerified::assertion()) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
