//! Registrations at the emulated Device Provisioning Service, as a ratio to bare mutual-TLS handshakes with the same
//! certificates in the same run; and the memory that the emulator keeps for a registered device.
//!
//! Client and server of both share the processors. `REGISTRATIONS=N` sets the number of devices.
#![allow(missing_docs, reason = "a benchmark has no API")]
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "it prints rates")]

use std::{
    env, fs,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use iot_enroll::{
    central::{Authorization, Client, Endpoint},
    certificate::{
        Certificate, CertificateAuthority, CommonName, DeviceId, DeviceIssuer, IssueOptions, PrivateKey, Timestamp,
    },
    dps::device::{Credential, DeviceCertificate, RegistrationClient},
    emulator::Emulator,
    workflow::{AuthoritySource, ProvisionRequest, provision},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, client::Resumption, crypto::aws_lc_rs::default_provider,
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// How many registrations, or handshakes, are under way at once.
const CONCURRENCY: usize = 32;

/// Handshakes and registrations take turns, so that both see the same machine.
const ROUNDS: usize = 8;

struct Device {
    id: DeviceId,
    certificate: Vec<u8>,
    key: PrivateKey,
}

fn main() {
    let count: usize = env::var("REGISTRATIONS").map_or(8_000, |text| text.parse().expect("a number"));
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(run(count));
}

async fn run(count: usize) {
    let lab = tempfile::tempdir().expect("a directory");
    let emulator = Emulator::builder()
        .tls(true)
        .rate(None)
        .assign_after(0)
        .registration_retry_after(Duration::ZERO)
        .start()
        .await
        .expect("a free port");
    let ca_pem = emulator.ca_pem().expect("TLS").to_owned();
    let root = enroll(&emulator, &ca_pem, lab.path()).await;
    let devices = devices(&root, lab.path(), count);

    let registration = RegistrationClient::builder(emulator.id_scope().parse().expect("an ID scope"))
        .endpoint(emulator.endpoint().parse().expect("an address"))
        .add_root_certificate(ca_pem.as_bytes())
        .expect("a certificate")
        .rate(NonZeroU32::new(100_000).expect("not zero"))
        .build()
        .expect("a client");
    let handshakes = Handshakes::start(&root).await;

    // Warm up: the first connections allocate what all others use.
    let (warm, measured) = devices.split_at(count / 10);
    in_parallel(warm, |device| register(registration.clone(), device)).await;
    in_parallel(warm, |device| handshakes.shake(device)).await;

    let before = resident_memory();
    let (mut bare, mut full) = (Duration::ZERO, Duration::ZERO);
    for round in measured.chunks(measured.len().div_ceil(ROUNDS)) {
        bare += in_parallel(round, |device| handshakes.shake(device)).await;
        full += in_parallel(round, |device| register(registration.clone(), device)).await;
    }
    let rate = |time: Duration| measured.len() as f64 / time.as_secs_f64();
    println!("handshakes:    {:>7.0} a second", rate(bare));
    println!("registrations: {:>7.0} a second, {:.2} of the handshakes", rate(full), rate(full) / rate(bare));
    if let (Some(before), Some(after)) = (before, resident_memory()) {
        let each = after.saturating_sub(before) as f64 / measured.len() as f64;
        println!("memory:        {each:>7.0} bytes for a registered device");
    }
}

/// Enrolls a new root in the emulated application, and returns its certificate.
async fn enroll(emulator: &Emulator, ca_pem: &str, directory: &std::path::Path) -> Certificate {
    let client = Client::builder(emulator.endpoint().parse::<Endpoint>().expect("an address"))
        .authorization(Authorization::parse(emulator.token().to_owned()).expect("a token"))
        .add_root_certificate(ca_pem.as_bytes())
        .expect("a certificate")
        .build()
        .expect("a client");
    let name = CommonName::new("benchroot").expect("a name");
    let request =
        ProvisionRequest::new("bench".parse().expect("an ID"), AuthoritySource::Root(name)).directory(directory);
    provision(&client, &request, &mut |_| ()).await.expect("an enrollment group");
    let pem = fs::read(directory.join("benchroot_cert.pem")).expect("the root");
    Certificate::read(&pem).expect("a certificate")
}

fn devices(root: &Certificate, directory: &std::path::Path, count: usize) -> Vec<Device> {
    let key = PrivateKey::read(&fs::read(directory.join("benchroot_key.pem")).expect("the key"), None).expect("a key");
    let now = Timestamp::now();
    let authority = CertificateAuthority::new(vec![root.clone()], key, now).expect("a CA");
    let issuer = DeviceIssuer::new(&authority, &IssueOptions::new().at(now)).expect("an issuer");
    let device = |number| {
        let id = DeviceId::new(format!("device-{number:06}")).expect("an ID");
        let identity = issuer.issue(&id).expect("a certificate");
        Device { id, certificate: identity.certificate, key: identity.key }
    };
    (0..count).map(device).collect()
}

/// Runs a task for each device, and returns the time that all of them took.
async fn in_parallel<F, T>(devices: &[Device], task: F) -> Duration
where
    F: Fn(&Device) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let turns = Arc::new(Semaphore::new(CONCURRENCY));
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for device in devices {
        let turn = Arc::clone(&turns).acquire_owned().await.expect("an open semaphore");
        let task = task(device);
        tasks.spawn(async move {
            task.await;
            drop(turn);
        });
        while let Some(ended) = tasks.try_join_next() {
            ended.expect("a task that does not panic");
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a task that does not panic");
    }
    start.elapsed()
}

fn register(client: RegistrationClient, device: &Device) -> impl Future<Output = ()> + Send + use<> {
    let certificate = Certificate::from_der(&device.certificate).expect("a certificate");
    let credential: Credential = DeviceCertificate::new(vec![certificate], &device.key).expect("a credential").into();
    let id = device.id.clone();
    async move {
        client.register(&id, &credential, None).await.expect("an assignment");
    }
}

/// A server that requires client certificates and answers one byte, and its clients: a registration without HTTP, JSON,
/// and anything that the service does.
struct Handshakes {
    address: SocketAddr,
    roots: Arc<RootCertStore>,
}

impl Handshakes {
    async fn start(root: &Certificate) -> Self {
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new([]).expect("parameters");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).expect("a CA");
        let key = KeyPair::generate().expect("a key");
        let server = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        let server = server.signed_by(&key, &Issuer::new(ca, ca_key)).expect("a certificate");

        let mut client_roots = RootCertStore::empty();
        client_roots.add(CertificateDer::from(root.der().to_vec())).expect("a root");
        let provider = Arc::new(default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(client_roots), Arc::clone(&provider));
        let mut configuration = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(clients.build().expect("a verifier"))
            .with_single_cert(vec![server.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .expect("a certificate");
        configuration.send_tls13_tickets = 0;
        let acceptor = TlsAcceptor::from(Arc::new(configuration));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.expect("a handshake");
                    stream.write_all(b".").await.expect("sent");
                    stream.shutdown().await.expect("closed");
                });
            }
        });
        let mut roots = RootCertStore::empty();
        roots.add(ca_certificate.der().clone()).expect("a root");
        Self { address, roots: Arc::new(roots) }
    }

    fn shake(&self, device: &Device) -> impl Future<Output = ()> + Send + use<> {
        let (address, roots) = (self.address, Arc::clone(&self.roots));
        let certificate = CertificateDer::from(device.certificate.clone());
        let key = device.key.to_pkcs8_der().expect("a key").to_vec();
        async move {
            let mut configuration = ClientConfig::builder_with_provider(Arc::new(default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.into()))
                .expect("a certificate");
            configuration.resumption = Resumption::disabled();
            let stream = TcpStream::connect(address).await.expect("a connection");
            let name = ServerName::try_from("localhost").expect("a name");
            let connector = TlsConnector::from(Arc::new(configuration));
            let mut stream = connector.connect(name, stream).await.expect("a handshake");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("an answer");
            assert_eq!(answer, b".");
        }
    }
}

/// Returns the resident memory of this process in bytes, where the system tells it.
fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}
