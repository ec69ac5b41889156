//! Starts and stops an emulator.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::hmac;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::{
    central::{
        PAGE_SIZE,
        model::{Device, DeviceProperties},
    },
    clock::Clock,
    connections::{Listener, serve},
    context::{Context, SharedContext},
    dps::{
        OperationalCa,
        settings::{DpsRight, OWNER_POLICY},
    },
    error::{EmulatorError, MIN_REMOTE_TOKEN},
    exchange_log::ExchangeLog,
    fault::{Fault, Faults, whole_seconds},
    hosts::{Hosts, is_loopback},
    identity::{Identity, check_token},
    mqtt::clients::Clients,
    random,
    rate::RateLimit,
    request_log::{RequestLog, RequestRecord},
    seeds::Seeds,
    state::{State, Store},
    state_file::StateFile,
    tls::Tls,
};

/// A running emulator: one IoT Central application and one DPS instance, which start empty.
///
/// Dropping it stops it immediately. [`stop`](Self::stop) lets requests in progress finish.
pub struct Emulator {
    context: SharedContext,
    address: SocketAddr,
    mqtt_address: Option<SocketAddr>,
    /// The PEM of the CA, with TLS.
    ca_pem: Option<String>,
    /// The state file and what it keeps beside the state.
    saved: Option<Box<(StateFile, Identity)>>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

/// Whether an emulator may listen on an address that other machines can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RemoteAccess {
    /// Only loopback addresses.
    #[default]
    Refused,
    /// All addresses, but only over TLS.
    OverTls,
    /// All addresses, also over plain HTTP: anyone on the network can read the token and the keys of devices.
    OverPlainHttp,
}

/// The settings of an emulator.
///
/// Every setting has a default, which starts an emulator on a free port of `127.0.0.1`, without TLS and rate limit.
#[derive(Clone)]
#[must_use = "call `start` to start the emulator"]
pub struct Builder {
    listen: SocketAddr,
    remote_access: RemoteAccess,
    hosts: Vec<String>,
    token: Option<String>,
    rate: Option<NonZeroU32>,
    clock: Clock,
    page_size: usize,
    read_timeout: Duration,
    tls: bool,
    mqtt: Option<SocketAddr>,
    assign_after: u32,
    registration_retry_after: Duration,
    dps_name: String,
    state_file: Option<PathBuf>,
    import_file: Option<PathBuf>,
    dps_policies: Vec<(String, Vec<DpsRight>)>,
    local_auth: bool,
}

impl Builder {
    /// Sets the address to listen on, which must be a loopback address unless [`remote_access`](Self::remote_access) is
    /// allowed. Port 0 selects a free port. Default: `127.0.0.1:0`.
    pub fn listen(self, address: SocketAddr) -> Self {
        Self { listen: address, ..self }
    }

    /// Sets whether the emulator may listen on an address that other machines can reach. A token that is given must then
    /// have at least 16 characters. Default: [`RemoteAccess::Refused`].
    pub fn remote_access(self, access: RemoteAccess) -> Self {
        Self { remote_access: access, ..self }
    }

    /// Adds a host by which clients may reach the emulator: a name, an address, or `*.` and a name for all names one level
    /// below. It is added to the server certificate. Requests for other hosts are refused (421).
    ///
    /// Loopback addresses, `localhost`, names below `localhost` and the address that the emulator listens on are always
    /// known.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Sets the expected `Authorization` header of requests: an API token, or `Bearer …`. Default: a random API token.
    pub fn token(self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// Sets the rate limit and burst size of each service in requests per second: of IoT Central, of the service API of
    /// DPS and of Resource Manager. Requests over it fail with 429. Default: `None`, no
    /// limit. The limit of the service is 20.
    pub fn rate(self, per_second: Option<NonZeroU32>) -> Self {
        Self { rate: per_second, ..self }
    }

    /// Sets the clock. Default: the system clock.
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Sets the page size of collections for requests that do not set it. Default: 25, like the service.
    pub fn page_size(self, size: NonZeroUsize) -> Self {
        Self { page_size: size.get(), ..self }
    }

    /// Sets the time that a client has to send the head of a request, and again its body. It also limits idle
    /// connections. Default: 30 seconds.
    pub fn read_timeout(self, timeout: Duration) -> Self {
        Self { read_timeout: timeout, ..self }
    }

    /// Sets whether to serve over TLS 1.2 and 1.3 instead of plain HTTP. Devices need TLS to register by client
    /// certificate. Default: false.
    ///
    /// The server certificate is for `localhost`, `*.localhost`, `127.0.0.1`, `::1`, the address that the emulator listens
    /// on and the [hosts](Self::host). Every start issues a new one that is valid for 30 days. Clients must trust
    /// [`Emulator::ca_pem`].
    ///
    /// Most TLS libraries accept no wildcard directly below a top-level name. For a name that only a wildcard covers, a
    /// client therefore gets a certificate with this name, by its server name indication.
    pub fn tls(self, tls: bool) -> Self {
        Self { tls, ..self }
    }

    /// Sets the address for devices that register over MQTT, which must be a loopback address without
    /// [`remote_access`](Self::remote_access). Port 0 selects a free port.
    /// Needs [`tls`](Self::tls). MQTT over WebSocket is then at `/$iothub/websocket` of the HTTPS port. Default: no MQTT.
    ///
    /// The shipped SDKs connect to port 8883.
    pub fn mqtt(self, address: SocketAddr) -> Self {
        Self { mqtt: Some(address), ..self }
    }

    /// Sets the number of polls of a registration that are answered with `assigning` before `assigned`. With 0, the
    /// device is assigned when it registers. Default: 1.
    pub fn assign_after(self, polls: u32) -> Self {
        Self { assign_after: polls, ..self }
    }

    /// Sets the `Retry-After` header of registrations, the time that a device waits between polls. It is rounded up to
    /// whole seconds. Default: 1 second.
    pub fn registration_retry_after(self, wait: Duration) -> Self {
        Self { registration_retry_after: wait, ..self }
    }

    /// Sets the name of the DPS instance. Default: `emulated-dps`.
    pub fn dps_name(self, name: impl Into<String>) -> Self {
        Self { dps_name: name.into(), ..self }
    }

    /// Adds a shared access policy to the DPS instance, with new keys. The instance always has the policy
    /// `provisioningserviceowner` with all rights.
    pub fn dps_policy(mut self, name: impl Into<String>, rights: impl IntoIterator<Item = DpsRight>) -> Self {
        self.dps_policies.push((name.into(), rights.into_iter().collect()));
        self
    }

    /// Sets whether the service API of the DPS instance accepts SAS tokens. Without them it accepts only the bearer token
    /// (`disableLocalAuth` in Resource Manager). Default: true.
    pub fn local_auth(self, local_auth: bool) -> Self {
        Self { local_auth, ..self }
    }

    /// Sets the file that keeps the state across restarts. If it exists, the emulator continues with its content: resources,
    /// tokens, ID scopes, keys, the name of the DPS instance and the CA of the server certificate. A [`token`](Self::token)
    /// that is given takes precedence. [`Emulator::stop_and_save`] writes it. While the emulator runs, no other one can use the
    /// file. Default: none.
    ///
    /// The file holds keys and tokens: only its owner can read it.
    pub fn state_file(self, path: impl Into<PathBuf>) -> Self {
        Self { state_file: Some(path.into()), ..self }
    }

    /// Sets a JSON file with resources that the emulator starts with: enrollment groups, devices, certificates and so on. Each
    /// has the body of the API. Those that exist, from the [state file](Self::state_file), stay as they are. Default: none.
    ///
    /// ```json
    /// {
    ///   "enrollmentGroups": [{
    ///     "id": "g", "displayName": "G", "type": "iot", "attestation": { "type": "x509" },
    ///     "certificates": { "primary": { "certificateFile": "root.pem", "verified": true } }
    ///   }],
    ///   "devices": [{ "id": "sensor-1" }],
    ///   "dps": { "certificates": [{ "name": "root", "certificateFile": "root.pem", "isVerified": true }] }
    /// }
    /// ```
    pub fn import_file(self, path: impl Into<PathBuf>) -> Self {
        Self { import_file: Some(path.into()), ..self }
    }

    /// Starts the emulator, which serves in the background.
    ///
    /// # Errors
    /// Returns [`EmulatorError`] if the address is not allowed or cannot be listened on, if the token is not a valid
    /// header, if a host or a name of the DPS instance is invalid, if the state file or the seeds cannot be used, or if the
    /// certificates for TLS cannot be issued.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub async fn start(mut self) -> Result<Emulator, EmulatorError> {
        self.check_access()?;
        if self.mqtt.is_some() && !self.tls {
            return Err(EmulatorError::MqttWithoutTls);
        }
        self.token = self.token.map(check_token).transpose()?;
        let hosts = Hosts::new(&self.hosts, self.listen.ip())?;
        let http = bind(self.listen).await?;
        let mqtt = match self.mqtt {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        self.start_on(http, mqtt, hosts)
    }

    /// Returns the state file, locked, and what the emulator starts with: its content, or a new identity, and the seeds.
    fn load(&self) -> Result<(Option<StateFile>, Identity, State), EmulatorError> {
        let now = self.clock.timestamp();
        let (file, stored) = self.state_file.as_deref().map(StateFile::open).transpose()?.unzip();
        let (mut identity, mut state) = match stored.flatten() {
            Some(stored) => stored,
            None => (Identity::random(&self.dps_name, now)?, State::default()),
        };
        if let Some(path) = &self.import_file {
            Seeds::read(path)?.apply(&mut state, now)?;
        }
        identity.token = match &self.token {
            Some(token) => token.clone(),
            None => check_token(identity.token)?,
        };
        let is_remote = [self.listen].into_iter().chain(self.mqtt).any(|address| !is_loopback(address.ip()));
        if is_remote && identity.token.len() < MIN_REMOTE_TOKEN {
            return Err(EmulatorError::ShortToken);
        }
        identity.instance.local_auth = self.local_auth;
        identity.add_policies(self.dps_policies.clone())?;
        Ok((file, identity, state))
    }

    /// Starts the emulator on listeners. Not a part of [`start`](Self::start), whose future would have all of this in it.
    fn start_on(
        self,
        (listener, address): (TcpListener, SocketAddr),
        mqtt: Option<(TcpListener, SocketAddr)>,
        hosts: Hosts,
    ) -> Result<Emulator, EmulatorError> {
        let (mut file, mut identity, state) = self.load()?;
        let tls = match (self.tls, &file) {
            (false, _) => None,
            (true, None) => Some(Tls::new(&hosts)?),
            (true, Some(_)) => Some(Tls::with_stored(&mut identity.authority, &hosts)?),
        };
        let (mqtt_listener, mqtt_address) = mqtt.unzip();
        let authority = authority(address, &hosts);
        let scheme = if self.tls { "https" } else { "http" };
        let context = Arc::new(Context {
            store: Store::new(state),
            rate: RateLimit::new(self.rate, &self.clock),
            dps_rate: RateLimit::new(self.rate, &self.clock),
            arm_rate: RateLimit::new(self.rate, &self.clock),
            clock: self.clock.clone(),
            token: identity.token.clone(),
            arm_token: identity.arm_token.clone(),
            id_scope: identity.id_scope.clone(),
            instance: identity.instance.clone(),
            endpoint: format!("{scheme}://{authority}"),
            authority,
            hosts,
            scheme,
            page_size: self.page_size,
            page_key: hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()?),
            device_keys: identity.device_keys.clone(),
            operational_ca: OperationalCa::load(identity.operational_ca.as_ref(), self.clock.timestamp()),
            assigned_hub: Arc::clone(&identity.assigned_hub),
            assign_after: self.assign_after,
            registration_retry_after: whole_seconds(self.registration_retry_after),
            read_timeout: self.read_timeout,
            mqtt: self.mqtt.map(|_| Clients::new()),
            faults: Faults::default(),
            log: RequestLog::default(),
            exchanges: ExchangeLog::default(),
        });
        if let Some(file) = &mut file {
            // Clients know the tokens and keys from here on, also if the emulator is killed.
            file.save(&identity, &context.store)?;
        }
        let saved = file.map(|file| Box::new((file, identity)));
        let (stop, stopped) = watch::channel(false);
        let mqtt_listener =
            mqtt_listener.zip(tls.as_ref()).map(|(listener, tls)| Listener { listener, tls: Some(tls.mqtt.clone()) });
        let (acceptor, ca_pem) = tls.map(|tls| (tls.http, tls.ca_pem)).unzip();
        let http = Listener { listener, tls: acceptor };
        let server = tokio::spawn(serve(http, mqtt_listener, Arc::clone(&context), stopped));
        tracing::debug!(endpoint = context.endpoint, "emulator started");
        Ok(Emulator { context, address, mqtt_address, ca_pem, saved, stop, server })
    }

    /// Checks whether other machines may reach the emulator if they can.
    fn check_access(&self) -> Result<(), EmulatorError> {
        let mut addresses = [self.listen].into_iter().chain(self.mqtt);
        let Some(remote) = addresses.find(|address| !is_loopback(address.ip())) else { return Ok(()) };
        match self.remote_access {
            RemoteAccess::Refused => return Err(EmulatorError::NotLoopback(remote)),
            RemoteAccess::OverTls if !self.tls => return Err(EmulatorError::RemotePlainHttp(remote)),
            RemoteAccess::OverTls | RemoteAccess::OverPlainHttp => {}
        }
        Ok(())
    }
}

impl Emulator {
    /// Returns the default settings.
    pub fn builder() -> Builder {
        Builder {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            remote_access: RemoteAccess::Refused,
            hosts: Vec::new(),
            token: None,
            rate: None,
            clock: Clock::system(),
            page_size: PAGE_SIZE,
            read_timeout: Duration::from_secs(30),
            tls: false,
            mqtt: None,
            assign_after: 1,
            registration_retry_after: Duration::from_secs(1),
            dps_name: "emulated-dps".to_owned(),
            state_file: None,
            import_file: None,
            dps_policies: Vec::new(),
            local_auth: true,
        }
    }

    /// Returns the URL of the emulator, without a path: `http://127.0.0.1:PORT`, or `https` with TLS.
    ///
    /// If the emulator listens on all addresses, the URL has the first [host](Builder::host) that is not a wildcard, or
    /// `localhost`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.context.endpoint.clone()
    }

    /// Returns the address that the emulator listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns whether other machines can reach the emulator, as far as its address is concerned.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        [Some(self.address), self.mqtt_address].into_iter().flatten().any(|address| !is_loopback(address.ip()))
    }

    /// Returns the host and port of MQTT, by the rule of [`endpoint`](Self::endpoint). `None` without [`Builder::mqtt`].
    #[must_use]
    pub fn mqtt_endpoint(&self) -> Option<String> {
        self.mqtt_address.map(|address| authority(address, &self.context.hosts))
    }

    /// Returns the address of MQTT. `None` without [`Builder::mqtt`].
    #[must_use]
    pub fn mqtt_address(&self) -> Option<SocketAddr> {
        self.mqtt_address
    }

    /// Returns the CA certificate that clients must trust, as PEM. `None` without TLS.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Returns the expected `Authorization` header.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.context.token
    }

    /// Returns the ID scope of the application at the Device Provisioning Service.
    #[must_use]
    pub fn id_scope(&self) -> &str {
        &self.context.id_scope
    }

    /// Returns the bearer token for Resource Manager, without the word `Bearer`. The service API of DPS accepts it too.
    #[must_use]
    pub fn arm_token(&self) -> &str {
        &self.context.arm_token
    }

    /// Returns the ID of the subscription.
    #[must_use]
    pub fn subscription(&self) -> &str {
        &self.context.instance.subscription
    }

    /// Returns the resource group of the DPS instance.
    #[must_use]
    pub fn resource_group(&self) -> &str {
        &self.context.instance.resource_group
    }

    /// Returns the name of the DPS instance.
    #[must_use]
    pub fn dps_name(&self) -> &str {
        &self.context.instance.name
    }

    /// Returns the ID scope of the DPS instance.
    #[must_use]
    pub fn dps_id_scope(&self) -> &str {
        &self.context.instance.id_scope
    }

    /// Returns the connection string of the policy `provisioningserviceowner`, which has all rights. Secret.
    #[must_use]
    pub fn dps_connection_string(&self) -> String {
        let key = self.context.instance.policy(OWNER_POLICY).map(|policy| policy.key.primary()).unwrap_or_default();
        format!("HostName={};SharedAccessKeyName={OWNER_POLICY};SharedAccessKey={key}", self.context.authority)
    }

    /// Returns the last 10,000 requests that were answered or cut off by a fault, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.context.log.all()
    }

    /// Adds devices or replaces those with the same IDs: all of them, or none on an error. Unlike the API, it adds many
    /// devices at once, and devices that are provisioned.
    ///
    /// # Errors
    /// Returns [`EmulatorError::Device`] if an ID, a template or an organization is invalid.
    pub fn add_devices(&self, devices: impl IntoIterator<Item = DeviceProperties>) -> Result<(), EmulatorError> {
        let devices: Result<Vec<Device>, String> = devices.into_iter().map(Device::from_properties).collect();
        let devices = devices.map_err(EmulatorError::Device)?;
        self.context.store.with(|state| devices.into_iter().for_each(|device| state.devices.insert(device)));
        Ok(())
    }

    /// Returns the deployment manifest that was last assigned to a device, as JSON: the `data` of the request.
    #[must_use]
    pub fn assigned_manifest(&self, device_id: &str) -> Option<String> {
        let assigned = |device: &Device| device.manifest.as_ref().map(ToString::to_string);
        self.context.store.with(|state| state.devices.get(device_id).and_then(assigned))
    }

    /// Injects a fault.
    ///
    /// # Errors
    /// Returns [`EmulatorError::Fault`] if the fault is impossible, such as one with the status 200.
    pub fn inject(&self, fault: Fault) -> Result<(), EmulatorError> {
        self.context.faults.add(fault)
    }

    /// Removes all injected faults.
    pub fn clear_faults(&self) {
        self.context.faults.clear();
    }

    /// Serves a device over MQTT that sends these bytes and closes the connection. Returns what it receives.
    #[cfg(feature = "fuzzing")]
    #[doc(hidden)]
    pub async fn exchange_mqtt(&self, bytes: &[u8]) -> Vec<u8> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let (device, service) = tokio::io::duplex(1 << 16);
        let (mut received, mut sender) = tokio::io::split(device);
        let served = super::mqtt::serve(
            super::mqtt::StreamChannel(service),
            super::tls::PeerCertificates::default(),
            Arc::clone(&self.context),
            self.stop.subscribe(),
        );
        let mut answer = Vec::new();
        let send = async {
            // The emulator may close the connection before.
            let _ = sender.write_all(bytes).await;
            let _ = sender.shutdown().await;
        };
        let _ = tokio::join!(served, send, received.read_to_end(&mut answer));
        answer
    }

    /// Stops the emulator: refuses new connections and finishes the requests in progress. Clients that take longer than
    /// 3 seconds are cut off. The state is not saved.
    pub async fn stop(mut self) {
        self.finish().await;
    }

    /// Stops the emulator as [`stop`](Self::stop) does, and then writes the [state file](Builder::state_file) if it has one.
    ///
    /// # Errors
    /// Returns [`EmulatorError::StateFile`] if the file cannot be written; the earlier content is kept then. Returns
    /// [`EmulatorError::StateFileChanged`] if another program changed it in the meantime; the state is then in a new file.
    pub async fn stop_and_save(mut self) -> Result<(), EmulatorError> {
        self.finish().await;
        match self.saved.as_deref_mut() {
            Some((file, identity)) => {
                identity.operational_ca = self.context.operational_ca.store();
                file.save(identity, &self.context.store)
            }
            None => Ok(()),
        }
    }

    async fn finish(&mut self) {
        // Sending fails only if the server has already stopped.
        let _ = self.stop.send(true);
        let _ = (&mut self.server).await;
        tracing::debug!(endpoint = self.context.endpoint, "emulator stopped");
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator").field("endpoint", &self.context.endpoint).finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("listen", &self.listen).field("rate", &self.rate).finish_non_exhaustive()
    }
}

/// Returns the host and port of the endpoint.
fn authority(address: SocketAddr, hosts: &Hosts) -> String {
    if !address.ip().is_unspecified() {
        return address.to_string();
    }
    let host = hosts.first().unwrap_or_else(|| "localhost".to_owned());
    format!("{host}:{}", address.port())
}

/// Listens on an address, and returns it with its port.
async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), EmulatorError> {
    let listener = TcpListener::bind(address).await.map_err(|source| listen_error(address, source))?;
    let bound = listener.local_addr().map_err(|source| listen_error(address, source))?;
    Ok((listener, bound))
}

fn listen_error(address: SocketAddr, source: io::Error) -> EmulatorError {
    match source.kind() {
        io::ErrorKind::AddrInUse => EmulatorError::AddressInUse(address),
        _ => EmulatorError::Listen { address, source },
    }
}
