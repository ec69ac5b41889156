//! Devices that register over MQTT at once while many others are connected and idle, at the program in a process of its
//! own: the rate, the time that HTTP requests take meanwhile, and the memory of an idle connection.
//!
//! Both processes share the processors. `IDLE=N` and `DEVICES=N` set the numbers of connections. Each end of a connection
//! is an open file: `ulimit -n 20000` before it allows the default numbers.
#![allow(missing_docs, reason = "a benchmark has no API")]
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "it prints rates")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use iot_enroll::{
    central::{Authorization, Client, Endpoint},
    certificate::{
        Certificate, CertificateAuthority, CommonName, DeviceId, DeviceIssuer, IssueOptions, PrivateKey, Timestamp,
    },
    workflow::{AuthoritySource, ProvisionRequest, provision},
};
use mqtt_proto::{
    QoS, QosPid, TopicFilter, TopicName,
    v3::{Connack, Connect, ConnectReturnCode, Packet, Publish, Subscribe},
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, client::Resumption, crypto::aws_lc_rs::default_provider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    sync::{Barrier, Semaphore},
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How many idle connections are opened at a time.
const CONCURRENCY: usize = 64;

fn number(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn main() {
    let (idle, devices) = (number("IDLE", 10_000), number("DEVICES", 2_000));
    let lab = tempfile::tempdir().expect("a directory");
    let service = Service::start(lab.path());
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(run(&service, lab.path(), idle, devices));
}

async fn run(service: &Service, lab: &Path, idle: usize, devices: usize) {
    let root = enroll(service, lab).await;
    let devices = issue(service, &root, lab, "device", devices);
    // One certificate for all of them: an idle client is not asked for its registration.
    let [owner] = &issue(service, &root, lab, "idle", 1)[..] else { return };
    let before = service.resident_memory();
    let start = Instant::now();
    let mut connections = open_idle(service, owner, idle).await;
    println!("idle connections:  {:>7} opened in {:.1} s", connections.len(), start.elapsed().as_secs_f64());
    if let (Some(before), Some(after)) = (before, service.resident_memory()) {
        println!(
            "memory:            {:>7.1} KiB each",
            after.saturating_sub(before) as f64 / 1024.0 / idle.max(1) as f64
        );
    }
    let mut quiet = Http::start(service);
    tokio::time::sleep(Duration::from_secs(2)).await;
    quiet.finish("HTTP, while idle");

    let mut busy = Http::start(service);
    let elapsed = register_at_once(service, &devices).await;
    busy.finish("HTTP, meanwhile");
    let rate = devices.len() as f64 / elapsed.as_secs_f64();
    println!(
        "registrations:     {:>7} at once, all assigned in {:.1} s, {rate:.0} a second",
        devices.len(),
        elapsed.as_secs_f64()
    );
    if let Some(memory) = service.resident_memory() {
        println!("memory in all:     {:>7.0} MiB", memory as f64 / 1024.0 / 1024.0);
    }
    let mut alive = 0;
    for connection in &mut connections {
        alive += usize::from(connection.ping().await);
    }
    assert_eq!(alive, idle, "no idle connection is lost");
}

/// The program as a service.
struct Service {
    process: Child,
    line: Value,
    ca_pem: String,
}

impl Service {
    fn start(lab: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_iot-enroll"))
            .args(["emulator", "--tls", "--mqtt", "127.0.0.1:0", "--ca-out", "ca.pem"])
            .args(["--rate", "1000000", "--retry-after", "0", "--assign-after", "1"])
            .current_dir(lab)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program");
        let mut line = String::new();
        let output = process.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let line = serde_json::from_str(&line).expect("JSON");
        Self { process, line, ca_pem: fs::read_to_string(lab.join("ca.pem")).expect("a CA certificate") }
    }

    fn text(&self, member: &str) -> &str {
        self.line[member].as_str().expect("a text")
    }

    fn mqtt(&self) -> SocketAddr {
        self.text("mqtt").parse().expect("host and port")
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).expect("PEM")).expect("a root");
        roots
    }

    /// Returns the resident memory of the program in bytes, where the system tells it.
    fn resident_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Enrolls a new root in the emulated application, and returns its certificate.
async fn enroll(service: &Service, lab: &Path) -> Certificate {
    let client = Client::builder(service.text("endpoint").parse::<Endpoint>().expect("an address"))
        .authorization(Authorization::parse(service.text("token").to_owned()).expect("a token"))
        .add_root_certificate(service.ca_pem.as_bytes())
        .expect("a certificate")
        .build()
        .expect("a client");
    let name = CommonName::new("benchroot").expect("a name");
    let request = ProvisionRequest::new("bench".parse().expect("an ID"), AuthoritySource::Root(name)).directory(lab);
    provision(&client, &request, &mut |_| ()).await.expect("an enrollment group");
    Certificate::read(&fs::read(lab.join("benchroot_cert.pem")).expect("the root")).expect("a certificate")
}

/// A device and how it connects.
struct Device {
    id: String,
    tls: TlsConnector,
}

fn issue(service: &Service, root: &Certificate, lab: &Path, prefix: &str, count: usize) -> Vec<Device> {
    let key = PrivateKey::read(&fs::read(lab.join("benchroot_key.pem")).expect("the key"), None).expect("a key");
    let now = Timestamp::now();
    let authority = CertificateAuthority::new(vec![root.clone()], key, now).expect("a CA");
    let devices_ca = DeviceIssuer::new(&authority, &IssueOptions::new().at(now)).expect("an issuer");
    let (roots, provider) = (Arc::new(service.roots()), Arc::new(default_provider()));
    let device = |number| {
        let id = format!("{prefix}-{number:06}");
        let issued = devices_ca.issue(&DeviceId::new(id.clone()).expect("an ID")).expect("a certificate");
        let key = issued.key.to_pkcs8_der().expect("a key").to_vec();
        let mut configuration = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(vec![CertificateDer::from(issued.certificate)], PrivateKeyDer::Pkcs8(key.into()))
            .expect("a certificate");
        configuration.resumption = Resumption::disabled();
        Device { id, tls: Arc::new(configuration).into() }
    };
    (0..count).map(device).collect()
}

/// A connection of a device.
struct Connection {
    stream: TlsStream<TcpStream>,
    received: Vec<u8>,
}

impl Connection {
    /// Connects with a client ID.
    async fn open(address: SocketAddr, tls: TlsConnector, id_scope: &str, id: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = tls.connect(name, stream).await.expect("a handshake");
        let mut connection = Self { stream, received: Vec::new() };
        let mut connect = Connect::new(id.into(), 0);
        connect.username = Some(format!("{id_scope}/registrations/{id}/api-version=2021-06-01").into());
        connection.send(connect.into()).await;
        let accepted = Connack::new(false, ConnectReturnCode::Accepted);
        assert_eq!(connection.receive().await, Packet::Connack(accepted));
        connection
    }

    async fn send(&mut self, packet: Packet) {
        self.stream.write_all(packet.encode().expect("a packet").as_ref()).await.expect("sent");
        self.stream.flush().await.expect("sent");
    }

    async fn receive(&mut self) -> Packet {
        loop {
            if let Some(packet) = Packet::decode(&self.received).expect("a packet") {
                self.received.drain(..packet.encode_len().expect("a length"));
                return packet;
            }
            let count = self.stream.read_buf(&mut self.received).await.expect("a packet");
            assert!(count > 0, "the connection was closed");
        }
    }

    async fn ping(&mut self) -> bool {
        self.send(Packet::Pingreq).await;
        self.receive().await == Packet::Pingresp
    }

    /// Sends a request and returns the response.
    async fn request(&mut self, topic: &str, body: &str) -> Value {
        let topic = TopicName::try_from(topic).expect("a topic");
        self.send(Publish::new(QosPid::Level0, topic, body.as_bytes().to_vec().into()).into()).await;
        match self.receive().await {
            Packet::Publish(publish) => serde_json::from_slice(&publish.payload).expect("JSON"),
            other => panic!("{other:?}"),
        }
    }

    async fn register(&mut self, id: &str) {
        let filter = TopicFilter::try_from("$dps/registrations/res/#").expect("a filter");
        self.send(Subscribe::new(1.try_into().expect("an ID"), vec![(filter, QoS::Level1)]).into()).await;
        assert!(matches!(self.receive().await, Packet::Suback(_)));
        let body = json!({ "registrationId": id }).to_string();
        let mut response = self.request("$dps/registrations/PUT/iotdps-register/?$rid=1", &body).await;
        while response["status"] == "assigning" {
            let operation = response["operationId"].as_str().expect("an ID");
            let topic = format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId={operation}");
            response = self.request(&topic, " ").await;
        }
        assert_eq!(response["status"], "assigned", "{response}");
    }
}

async fn open_idle(service: &Service, owner: &Device, count: usize) -> Vec<Connection> {
    let turns = Arc::new(Semaphore::new(CONCURRENCY));
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let turn = Arc::clone(&turns).acquire_owned().await.expect("an open semaphore");
        let (address, tls, id_scope) = (service.mqtt(), owner.tls.clone(), service.text("idScope").to_owned());
        tasks.spawn(async move {
            let connection = Connection::open(address, tls, &id_scope, &format!("idle-{number}")).await;
            drop(turn);
            connection
        });
    }
    tasks.join_all().await
}

/// Registers all devices at the same time, and returns the time until the last one is assigned.
async fn register_at_once(service: &Service, devices: &[Device]) -> Duration {
    let begin = Arc::new(Barrier::new(devices.len() + 1));
    let mut tasks = JoinSet::new();
    for device in devices {
        let (address, tls, id_scope) = (service.mqtt(), device.tls.clone(), service.text("idScope").to_owned());
        let (id, begin) = (device.id.clone(), Arc::clone(&begin));
        tasks.spawn(async move {
            begin.wait().await;
            Connection::open(address, tls, &id_scope, &id).await.register(&id).await;
        });
    }
    begin.wait().await;
    let start = Instant::now();
    tasks.join_all().await;
    start.elapsed()
}

/// Reads an answer, which must be 200, up to the end of its body.
fn read_answer(stream: &mut impl Read) {
    let mut answer = Vec::new();
    loop {
        let mut part = [0; 4096];
        let length = stream.read(&mut part).expect("an answer");
        assert!(length > 0, "the connection was closed");
        answer.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if length == Some(body.len()) {
            return;
        }
    }
}

/// Requests over HTTP, one after the other, in a thread of its own.
struct Http {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Vec<Duration>>>,
}

impl Http {
    fn start(service: &Service) -> Self {
        let address = service.text("endpoint").strip_prefix("https://").expect("a URL").to_owned();
        let request = format!(
            "GET /api/devices?api-version=2022-07-31&$top=1 HTTP/1.1\r\nHost: {address}\r\nAuthorization: {}\r\n\r\n",
            service.text("token")
        );
        let configuration = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(service.roots())
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(Arc::new(configuration), name).expect("a session");
        let stream = std::net::TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let mut stream = StreamOwned::new(session, stream);
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                stream.write_all(request.as_bytes()).expect("sent");
                read_answer(&mut stream);
                times.push(start.elapsed());
                // Leaves the processors to the others.
                thread::sleep(Duration::from_millis(5));
            }
            times
        });
        Self { is_over, thread: Some(thread) }
    }

    /// Ends the requests and prints their times.
    fn finish(&mut self, what: &str) {
        self.is_over.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        let mut times = thread.join().expect("answers");
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let longest = times.last().map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let what = format!("{what}:");
        println!(
            "{what:<18} {:>7} requests, p50 {:.1} ms, p99 {:.1} ms, longest {longest:.1} ms",
            times.len(),
            at(50),
            at(99)
        );
    }
}
