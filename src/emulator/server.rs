//! Start, stop, address.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::hmac;
use axum::Router;
use base64::{Engine, prelude::BASE64_STANDARD};
use governor::{Quota, RateLimiter};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::{
    application::{Application, Shared},
    clock::Clock,
    device_attestation::DeviceKeys,
    devices::{Device, DeviceProperties},
    fault::{self, Fault, Faults},
    gate, page, random,
    request_log::{RequestLog, RequestRecord},
    store::Store,
    tls::{Handshakes, Presented, Tls},
};
use crate::certificate::AuthorityError;

/// How long a stop waits for requests that are being answered.
const GRACE: Duration = Duration::from_secs(3);

/// How long a stop waits for a connection on which no request is being answered: its last answer may be on its way out.
const FLUSH: Duration = Duration::from_millis(100);

/// How long to wait when a connection cannot be accepted, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running emulator: one IoT Central application, empty at first.
///
/// Dropped, it ends at once; [`stop`](Self::stop) lets the requests under way finish.
pub struct Emulator {
    application: Shared,
    address: SocketAddr,
    /// The PEM of the authority, with TLS.
    ca_pem: Option<String>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

/// The settings of an emulator before it starts.
#[derive(Clone)]
#[must_use = "an emulator begins with `start`"]
pub struct Builder {
    listen: SocketAddr,
    token: Option<String>,
    rate: Option<NonZeroU32>,
    clock: Clock,
    page_size: usize,
    read_timeout: Duration,
    tls: bool,
    assign_after: u32,
    registration_retry_after: Duration,
}

impl Builder {
    /// The address to listen on, a loopback address; port 0 picks a free port. Default `127.0.0.1:0`.
    pub fn listen(self, address: SocketAddr) -> Self {
        Self { listen: address, ..self }
    }

    /// What the `Authorization` header of every request must be, to the letter: an API token, or `Bearer …`. A random API
    /// token is made where none is given.
    pub fn token(self, token: String) -> Self {
        Self { token: Some(token), ..self }
    }

    /// The requests a second past which the answer is 429; as many may come at once. `None`, the default, sets no limit;
    /// the service's is 20.
    pub fn rate(self, per_second: Option<NonZeroU32>) -> Self {
        Self { rate: per_second, ..self }
    }

    /// The clock to go by. Default: the system's.
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The members of a collection on one page where the request does not say. Default 25, as the service's.
    pub fn page_size(self, size: NonZeroUsize) -> Self {
        Self { page_size: size.get(), ..self }
    }

    /// How long a client may take to send the head of a request, and again for the body. It also ends idle connections.
    /// Default 30 seconds.
    pub fn read_timeout(self, timeout: Duration) -> Self {
        Self { read_timeout: timeout, ..self }
    }

    /// Whether to serve over TLS, versions 1.2 and 1.3, on the same port: both the application's API and the Device
    /// Provisioning Service, where devices prove by client certificates who they are. Default: without.
    ///
    /// The certificate is for `localhost`, `127.0.0.1` and `::1`, made anew at each start and valid for 30 days. Clients
    /// have to trust [`Emulator::ca_pem`].
    pub fn tls(self, tls: bool) -> Self {
        Self { tls, ..self }
    }

    /// How many polls of a device's registration are answered `assigning`, until one is answered `assigned`. With 0 the
    /// device is assigned when it registers, and the first poll says so. Default 1.
    pub fn assign_after(self, polls: u32) -> Self {
        Self { assign_after: polls, ..self }
    }

    /// How long a device that registers is to wait between polls: the `retry-after` header, in whole seconds, rounded up.
    /// Default 1 second; with 0 no time passes.
    pub fn registration_retry_after(self, wait: Duration) -> Self {
        Self { registration_retry_after: wait, ..self }
    }

    /// Listens, and serves from then on. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`EmulatorError`] when the address is not a loopback address or cannot be listened on, when the token cannot stand
    /// in a header, or when the certificates for TLS cannot be made.
    pub async fn start(self) -> Result<Emulator, EmulatorError> {
        if !self.listen.ip().to_canonical().is_loopback() {
            return Err(EmulatorError::NotLoopback(self.listen));
        }
        let token = match self.token {
            Some(token) => check_token(token)?,
            None => new_token(self.clock.now())?,
        };
        let tls = if self.tls { Some(Tls::new()?) } else { None };
        let listener = TcpListener::bind(self.listen).await.map_err(|source| listen_error(self.listen, source))?;
        let address = listener.local_addr().map_err(|source| listen_error(self.listen, source))?;
        let scheme = if self.tls { "https" } else { "http" };
        let throttle = self
            .rate
            .map(|rate| RateLimiter::direct_with_clock(Quota::per_second(rate), gate::Ticks(self.clock.clone())));
        let application = Arc::new(Application {
            store: Store::default(),
            clock: self.clock,
            token,
            id_scope: format!("0ne{}", random::hexadecimal::<4>()?),
            endpoint: format!("{scheme}://{address}"),
            scheme,
            page_size: self.page_size,
            page_key: hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()?),
            device_keys: DeviceKeys::random()?,
            assigned_hub: format!("iotc-{}.azure-devices.net", random::uuid()?),
            assign_after: self.assign_after,
            registration_retry_after: fault::seconds(self.registration_retry_after),
            read_timeout: self.read_timeout,
            throttle,
            faults: Faults::default(),
            log: RequestLog::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let (acceptor, ca_pem) = tls.map(|tls| (tls.acceptor, tls.authority)).unzip();
        let server = tokio::spawn(serve(listener, acceptor, Arc::clone(&application), stopped));
        tracing::debug!(endpoint = application.endpoint, "emulator listens");
        Ok(Emulator { application, address, ca_pem, stop, server })
    }
}

impl Emulator {
    /// An emulator with the default settings, to be changed before it starts.
    pub fn builder() -> Builder {
        Builder {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            token: None,
            rate: None,
            clock: Clock::system(),
            page_size: page::PAGE_SIZE,
            read_timeout: Duration::from_secs(30),
            tls: false,
            assign_after: 1,
            registration_retry_after: Duration::from_secs(1),
        }
    }

    /// Where it listens, as a URL without a path: `http://127.0.0.1:PORT`, or `https` with TLS.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.application.endpoint.clone()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of the authority that clients have to trust, as PEM. `None` without TLS.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// What the `Authorization` header of a request must be.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.application.token
    }

    /// The id scope of the application at the Device Provisioning Service.
    #[must_use]
    pub fn id_scope(&self) -> &str {
        &self.application.id_scope
    }

    /// The requests that were answered or cut off so far, oldest first: the last 10,000.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.application.log.all()
    }

    /// Adds devices, or replaces those with the same ids, all of them or none. For many at once: the API takes them one by
    /// one, and cannot say that one is provisioned.
    ///
    /// # Errors
    /// [`EmulatorError::Device`] when an id, a template or an organization is none.
    pub fn add_devices(&self, devices: impl IntoIterator<Item = DeviceProperties>) -> Result<(), EmulatorError> {
        let devices: Result<Vec<Device>, String> = devices.into_iter().map(Device::from_properties).collect();
        let devices = devices.map_err(EmulatorError::Device)?;
        self.application.store.with(|state| devices.into_iter().for_each(|device| state.devices.insert(device)));
        Ok(())
    }

    /// The deployment manifest that was assigned to a device last, as JSON: what the body called `data`.
    #[must_use]
    pub fn assigned_manifest(&self, device_id: &str) -> Option<String> {
        let assigned = |device: &Device| device.manifest.as_ref().map(ToString::to_string);
        self.application.store.with(|state| state.devices.get(device_id).and_then(assigned))
    }

    /// Makes it misbehave.
    ///
    /// # Errors
    /// [`EmulatorError::Fault`] when the fault cannot be carried out.
    pub fn inject(&self, fault: Fault) -> Result<(), EmulatorError> {
        self.application.faults.add(fault)
    }

    /// Takes back all faults that have not struck.
    pub fn clear_faults(&self) {
        self.application.faults.clear();
    }

    /// Stops: refuses new connections, lets requests under way be answered, and closes. It takes 3 seconds at the most;
    /// clients that do not come to an end are cut off then.
    pub async fn stop(mut self) {
        // Without a receiver the server has ended already.
        let _ = self.stop.send(true);
        let _ = (&mut self.server).await;
        tracing::debug!(endpoint = self.application.endpoint, "emulator stopped");
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator").field("endpoint", &self.application.endpoint).finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("listen", &self.listen).field("rate", &self.rate).finish_non_exhaustive()
    }
}

/// Why an emulator does not start, or does not take a fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// Others could reach it. It is for tests: its token and keys travel in the clear.
    #[error("the emulator listens on loopback addresses only, and {0} is none; use 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// Something else listens there.
    #[error("{0} is in use already; choose another port, or port 0 for a free one")]
    AddressInUse(SocketAddr),
    /// Listening failed for another reason.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The token is empty, or has characters that no header can carry. The token itself is not shown.
    #[error(
        "the token cannot stand in an Authorization header: use visible ASCII characters, and spaces only between them"
    )]
    Token,
    /// A device cannot be added.
    #[error("this device cannot be added: {0}")]
    Device(String),
    /// The fault cannot be carried out.
    #[error("this fault cannot be injected: {0}")]
    Fault(String),
    /// The certificates for TLS cannot be made, or cannot be used.
    #[error("the emulator cannot set up TLS: {0}")]
    Tls(String),
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    Random,
}

impl From<AuthorityError> for EmulatorError {
    fn from(error: AuthorityError) -> Self {
        Self::Tls(error.to_string())
    }
}

impl From<aws_lc_rs::error::Unspecified> for EmulatorError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::Random
    }
}

fn listen_error(address: SocketAddr, source: io::Error) -> EmulatorError {
    match source.kind() {
        io::ErrorKind::AddrInUse => EmulatorError::AddressInUse(address),
        _ => EmulatorError::Listen { address, source },
    }
}

fn check_token(token: String) -> Result<String, EmulatorError> {
    let fits = !token.is_empty() && token.trim() == token && token.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if fits { Ok(token) } else { Err(EmulatorError::Token) }
}

/// An API token as the service writes them: `SharedAccessSignature sr=…&sig=…&skn=…&se=…`, the last in milliseconds, ten
/// years from now. The signature is random and signs nothing.
fn new_token(now: OffsetDateTime) -> Result<String, EmulatorError> {
    let expiry = now.unix_timestamp().saturating_add(10 * 365 * 24 * 60 * 60).saturating_mul(1000);
    let parts = form_urlencoded::Serializer::new(String::new())
        .append_pair("sr", &random::uuid()?)
        .append_pair("sig", &BASE64_STANDARD.encode(random::bytes::<32>()?))
        .append_pair("skn", "emulator")
        .append_pair("se", &expiry.to_string())
        .finish();
    Ok(format!("SharedAccessSignature {parts}"))
}

/// Accepts connections until it is stopped, then waits for those that are open. Handshakes go on beside it.
async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    application: Shared,
    mut stopped: watch::Receiver<bool>,
) {
    let router = TowerToHyperService::new(application.router());
    let context = Context { application, router, stopped: stopped.clone() };
    let mut handshakes = Handshakes::default();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop(&mut stopped) => break,
            // Ended connections are taken out, so that they do not pile up.
            Some(_) = connections.join_next() => {}
            Some(ended) = handshakes.next() => if let Some((stream, presented)) = ended {
                connections.spawn(connection(stream, presented, context.clone()));
            },
            accepted = listener.accept() => match accepted {
                Ok(_) if context.application.faults.strike_connection() => {}
                Ok((stream, _)) => {
                    // Small answers must not wait for acknowledgements. If it cannot be set, they arrive later.
                    let _ = stream.set_nodelay(true);
                    match &tls {
                        Some(tls) => handshakes.begin(tls, stream),
                        None => drop(connections.spawn(connection(stream, Presented::default(), context.clone()))),
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop((listener, handshakes));
    while connections.join_next().await.is_some() {}
}

/// Ends when the emulator is stopped, or is gone without a word.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// What every connection shares.
#[derive(Clone)]
struct Context {
    application: Shared,
    router: TowerToHyperService<Router>,
    stopped: watch::Receiver<bool>,
}

/// Serves one connection until it ends. Each has its own task, so that a slow one holds up no other.
async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, presented: Presented, context: Context) {
    let Context { application, router, mut stopped } = context;
    let answering = AtomicUsize::new(0);
    let service = service_fn(|mut request| {
        let (application, router, answering) = (&application, &router, &answering);
        request.extensions_mut().insert(presented.clone());
        async move {
            answering.fetch_add(1, Ordering::Relaxed);
            let answer = gate::answer(application, router, request).await;
            answering.fetch_sub(1, Ordering::Relaxed);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(application.read_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            let patience = if answering.load(Ordering::Relaxed) > 0 { GRACE } else { FLUSH };
            tokio::time::timeout(patience, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "connection ended");
    }
}
