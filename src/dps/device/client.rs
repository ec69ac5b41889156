//! The client that registers devices, and its builder.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use reqwest::{
    Method, RequestBuilder,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use rustls::client::danger::ServerCertVerifier;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::debug;

use super::{
    assignment::Assignment,
    credential::Credential,
    diagnosis::{Attempt, certain_refusal},
    endpoint::ProvisioningEndpoint,
    error::{Distrust, Observations, Refusal, RegistrationError, RegistrationErrorKind as Kind},
    id_scope::IdScope,
    operational::OperationalRequest,
    tls::{self, Handshake},
};
use crate::{
    certificate::{DeviceId, Timestamp},
    transport::{
        AnswerProblem, ApiVersion, AttemptFailure, Attempts, BuildError, Clock, ConnectionOptions, JSON, MAX_ANSWER,
        NetworkFailure, Rate, Repeat, RetryPolicy, Secret, connection_setters, http_builder, is_out_of_time, is_tls,
        network_cause, read_body, redirect_target, retry_after, root_cause, sanitize, sensitive, server_date,
        tls_cause,
    },
};

/// The version of the API, unless another is set.
pub const API_VERSION: ApiVersion = ApiVersion::from_static("2021-06-01");

/// The version of the API for a registration with a certificate request, unless another is set.
pub const ISSUING_API_VERSION: ApiVersion = ApiVersion::from_static("2026-11-01");

/// The delay between polls if the service does not ask for one. The service allows a device five polls in 10 seconds.
const POLL_AFTER: Duration = Duration::from_secs(2);

/// The delay before the second poll if the service asks for a delay of zero. The first poll is sent at once; the delay
/// then doubles up to [`POLL_AFTER`].
const SECOND_POLL_AFTER: Duration = Duration::from_millis(100);

/// Delays below this count as zero: the header has whole seconds, and the time until a date may be a fraction of one.
const MIN_ASKED: Duration = Duration::from_secs(1);

/// Registrations started per second. The limit of a service is 1000 per minute.
const DEFAULT_RATE: NonZeroU32 = NonZeroU32::new(16).unwrap();

/// How often a registration is restarted because the service no longer knows its operation.
const MAX_REREGISTRATIONS: u32 = 2;

/// The rate of polls, as a multiple of the rate of registrations.
const POLLS_PER_REGISTRATION: NonZeroU32 = NonZeroU32::new(4).unwrap();

/// A client that registers devices at one Device Provisioning Service.
///
/// Clones are cheap and share the rate limit. Each registration has its own connections, because the device's
/// certificate is presented on them. Registration is idempotent: a registered device is assigned again.
#[derive(Clone)]
pub struct RegistrationClient {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: ProvisioningEndpoint,
    id_scope: IdScope,
    api_version: Option<ApiVersion>,
    /// `None` without TLS, so that the platform's roots are not read.
    verifier: Option<Arc<dyn ServerCertVerifier>>,
    connect_timeout: Duration,
    timeout: Duration,
    retry: RetryPolicy,
    rate: Rate,
    /// Separate from `rate`, so that polls do not delay registrations.
    poll_rate: Rate,
    clock: Arc<dyn Clock>,
}

impl RegistrationClient {
    /// Starts building a client for an ID scope.
    pub fn builder(id_scope: IdScope) -> RegistrationClientBuilder {
        RegistrationClientBuilder {
            endpoint: ProvisioningEndpoint::default(),
            id_scope,
            api_version: None,
            connection: ConnectionOptions::default(),
        }
    }

    /// Returns the service's address.
    #[must_use]
    pub fn endpoint(&self) -> &ProvisioningEndpoint {
        &self.inner.endpoint
    }

    /// Returns the ID scope.
    #[must_use]
    pub fn id_scope(&self) -> &IdScope {
        &self.inner.id_scope
    }

    /// Registers a device, as the device would do it, and waits until it is assigned. `payload` is the data for a
    /// custom allocation policy.
    ///
    /// Network failures, 429 and 5xx are retried ([`RetryPolicy`]). The policy's budget is the time limit of the whole
    /// registration. `Retry-After` is kept within it; without one, polls are up to 2 s apart. If the service no longer
    /// knows the operation, the registration is restarted, twice at most. Redirects are not followed.
    ///
    /// # Errors
    /// [`RegistrationError`]. [`diagnose`](super::diagnose) finds its cause.
    pub async fn register(
        &self,
        id: &DeviceId,
        credential: &Credential,
        payload: Option<&Value>,
    ) -> Result<Assignment, RegistrationError> {
        self.run(id, None, credential, payload).await
    }

    /// Registers a device as [`register`](Self::register) does, and requests an operational certificate. It is in
    /// [`Assignment::certificate_chain`], checked: it is for the key of the request and for the device, each certificate is
    /// signed by the next, and all are valid now.
    ///
    /// The service answers the certificate once. If that answer may have been lost, the device registers again with the same
    /// request. The API is called with version [`ISSUING_API_VERSION`] unless another is
    /// [set](RegistrationClientBuilder::api_version).
    ///
    /// # Errors
    /// [`RegistrationError`]. With [`RegistrationErrorKind::IssuedCertificate`](super::RegistrationErrorKind) the device is
    /// registered, and the certificate cannot be used.
    pub async fn register_for_certificate(
        &self,
        request: &OperationalRequest,
        credential: &Credential,
        payload: Option<&Value>,
    ) -> Result<Assignment, RegistrationError> {
        self.run(request.id(), Some(request), credential, payload).await
    }

    async fn run(
        &self,
        id: &DeviceId,
        request: Option<&OperationalRequest>,
        credential: &Credential,
        payload: Option<&Value>,
    ) -> Result<Assignment, RegistrationError> {
        let mut session =
            Session { client: &self.inner, id, request, handshake: Arc::default(), server_date: None, answered: false };
        let result = session.register(credential, payload).await;
        result.map_err(|kind| RegistrationError {
            id: id.clone(),
            kind,
            observations: Box::new(session.observations()),
        })
    }
}

impl fmt::Debug for RegistrationClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationClient")
            .field("endpoint", &self.inner.endpoint)
            .field("id_scope", &self.inner.id_scope)
            .finish_non_exhaustive()
    }
}

/// One registration.
struct Session<'a> {
    client: &'a Inner,
    id: &'a DeviceId,
    request: Option<&'a OperationalRequest>,
    handshake: Arc<Handshake>,
    server_date: Option<Timestamp>,
    answered: bool,
}

/// A request of a registration: the first one registers, the others poll.
#[derive(Clone)]
struct Request {
    method: Method,
    url: reqwest::Url,
    body: Option<Vec<u8>>,
}

impl Request {
    fn is_poll(&self) -> bool {
        self.method == Method::GET
    }
}

/// An answer with the state of the operation, and the delay that it asks for.
struct Answer {
    operation: WireOperation,
    retry_after: Option<Duration>,
}

impl Session<'_> {
    async fn register(&mut self, credential: &Credential, payload: Option<&Value>) -> Result<Assignment, Kind> {
        let client = self.client;
        let attempt = Attempt::new(self.id, &client.id_scope, credential);
        if let Some(cause) = certain_refusal(&attempt, &client.endpoint) {
            return Err(Kind::NotSent(Box::new(cause)));
        }
        let http = self.http(credential)?;
        let registering = self.registering(payload);
        let mut request = registering.clone();
        let mut reregistrations = 0;
        let mut polls = 0;
        // Whether an answer may have had the certificate and did not arrive.
        let mut is_certificate_lost = false;
        let mut attempts = Attempts::new(&client.retry);
        loop {
            let wait = match self.send(&http, &request, credential, &mut attempts).await {
                Ok(Answer { operation, retry_after }) => match operation.status.to_ascii_lowercase().as_str() {
                    "assigned"
                        if is_certificate_lost
                            && operation.issued_chain().is_none()
                            && reregistrations < MAX_REREGISTRATIONS =>
                    {
                        reregistrations += 1;
                        is_certificate_lost = false;
                        request = registering.clone();
                        attempts
                            .allow(POLL_AFTER, client.clock.elapsed())
                            .ok_or(Kind::TimedOut { budget: client.retry.budget, asked: POLL_AFTER })?
                    }
                    "assigned" => return self.assignment(operation),
                    "assigning" | "unassigned" => {
                        let id = operation.operation_id.ok_or_else(|| missing("operationId"))?;
                        let url = self.url(&["operations", &id]);
                        request = Request { method: Method::GET, url, body: None };
                        let asked = retry_after.unwrap_or(POLL_AFTER);
                        let wait = if asked < MIN_ASKED { asked.max(unasked_wait(polls)) } else { asked };
                        polls += 1;
                        attempts
                            .allow(wait, client.clock.elapsed())
                            .ok_or(Kind::TimedOut { budget: client.retry.budget, asked })?
                    }
                    _ => return Err(operation.failure()),
                },
                Err(Kind::Refused(refusal))
                    if refusal.is_operation_gone() && request.is_poll() && reregistrations < MAX_REREGISTRATIONS =>
                {
                    reregistrations += 1;
                    request = registering.clone();
                    let kind = Kind::Refused(refusal);
                    attempts.allow(POLL_AFTER, client.clock.elapsed()).ok_or(kind)?
                }
                Err(kind) => {
                    is_certificate_lost |= self.request.is_some() && request.is_poll();
                    self.pause_after(&kind, &mut attempts).ok_or(kind)?
                }
            };
            client.clock.sleep(wait).await;
        }
    }

    /// Returns the request that registers.
    fn registering(&self, payload: Option<&Value>) -> Request {
        let mut body = json!({ "registrationId": self.id.as_str() });
        if let Some(payload) = payload {
            body["payload"] = payload.clone();
        }
        if let Some(request) = self.request {
            body["csr"] = request.encoded().into();
        }
        Request {
            method: Method::PUT,
            url: self.url(&["register"]),
            // An object with text keys serializes without an error.
            body: Some(serde_json::to_vec(&body).unwrap_or_default()),
        }
    }

    /// Returns the delay before a failed request is retried, or `None` if the failure is final.
    fn pause_after(&self, kind: &Kind, attempts: &mut Attempts) -> Option<Duration> {
        let failure = match kind {
            Kind::Network { failure, .. } => AttemptFailure::Network(*failure),
            Kind::Refused(refusal) => AttemptFailure::Status(refusal.status, refusal.retry_after),
            _ => AttemptFailure::Final,
        };
        // Both requests are idempotent.
        let wait = attempts.next(failure, Repeat::Safe, self.client.clock.elapsed());
        if matches!(failure, AttemptFailure::Status(429, _)) {
            for rate in [&self.client.rate, &self.client.poll_rate] {
                rate.throttled(attempts.last(), wait.unwrap_or_default());
            }
        }
        if let Some(wait) = wait {
            debug!(id = %self.id, attempt = attempts.count(), ?wait, "retrying");
        }
        wait
    }

    fn http(&self, credential: &Credential) -> Result<reqwest::Client, Kind> {
        let client = self.client;
        let mut http = http_builder(client.connect_timeout, client.timeout, client.endpoint.is_loopback()).http1_only();
        http = match &client.verifier {
            Some(verifier) => {
                let identity = match credential {
                    Credential::Certificate(certificate) => Some(certificate.certified_key()),
                    Credential::SymmetricKey(_) => None,
                };
                let configuration = tls::configuration(Arc::clone(verifier), &self.handshake, identity);
                http.tls_backend_preconfigured(configuration.map_err(|error| Kind::Tls(tls_cause(&error)))?)
            }
            None => http.tls_certs_only([]),
        };
        http.build().map_err(|error| Kind::Tls(root_cause(&error)))
    }

    fn url(&self, suffix: &[&str]) -> reqwest::Url {
        let prefix = [self.client.id_scope.as_str(), "registrations", self.id.as_str()];
        let mut url = self.client.endpoint.address().url([&prefix, suffix].concat());
        let default = if self.request.is_some() { &ISSUING_API_VERSION } else { &API_VERSION };
        let version = self.client.api_version.as_ref().unwrap_or(default);
        url.query_pairs_mut().append_pair("api-version", version.as_str());
        url
    }

    /// Returns the assignment of an operation that ended with one, and its certificate after all checks.
    fn assignment(&self, operation: WireOperation) -> Result<Assignment, Kind> {
        let chain = operation.issued_chain().cloned();
        let mut assignment = operation.assignment(self.id)?;
        let (Some(request), Some(chain)) = (self.request, chain) else { return Ok(assignment) };
        match request.check(&chain, self.client.clock.now().into()) {
            Ok(chain) => {
                assignment.certificate_chain = Some(chain);
                Ok(assignment)
            }
            Err(error) => Err(Kind::IssuedCertificate { assignment: Box::new(assignment), error }),
        }
    }

    async fn send(
        &mut self,
        http: &reqwest::Client,
        request: &Request,
        credential: &Credential,
        attempts: &mut Attempts,
    ) -> Result<Answer, Kind> {
        let client = self.client;
        let rate = if request.is_poll() { &client.poll_rate } else { &client.rate };
        attempts.begin(rate.queue().await.wait().await);
        let (sent, secrets) = self.request(http, request, credential);
        let broken = |error| network_error(error, attempts.count());
        self.answered = false;
        let response = sent.send().await.map_err(broken)?;
        self.answered = true;
        let (status, headers) = (response.status(), response.headers().clone());
        debug!(method = %request.method, id = %self.id, status = status.as_u16(), "answered");
        self.server_date = server_date(&headers).or(self.server_date);
        let retry_after = retry_after(&headers, client.clock.now());
        let body = match read_body(response).await {
            Ok(body) => body,
            Err(Some(error)) => return Err(broken(error)),
            Err(None) => {
                let problem = AnswerProblem::TooLarge { limit: MAX_ANSWER };
                return Err(Kind::Answer { status: status.as_u16(), problem, excerpt: String::new() });
            }
        };
        let clean = |text: &str| sanitize(text, &secrets);
        let text = String::from_utf8_lossy(&body);
        if status.is_success() {
            let operation = serde_json::from_slice(&body).map_err(|error| Kind::Answer {
                status: status.as_u16(),
                problem: AnswerProblem::of_json(&error),
                excerpt: clean(&text),
            })?;
            return Ok(Answer { operation, retry_after });
        }
        if let Some(target) = redirect_target(status, &headers, &secrets) {
            return Err(Kind::Redirect { status: status.as_u16(), target });
        }
        let said: WireError = serde_json::from_str(&text).unwrap_or_default();
        Err(Kind::Refused(Box::new(Refusal {
            status: status.as_u16(),
            error_code: said.error_code.as_ref().and_then(number),
            tracking_id: said.tracking_id.as_deref().map(clean),
            message: clean(said.message.as_deref().unwrap_or(&text)),
            retry_after,
            attempts: attempts.count(),
        })))
    }

    /// Returns a request to send, and the secrets in it.
    fn request(
        &self,
        http: &reqwest::Client,
        request: &Request,
        credential: &Credential,
    ) -> (RequestBuilder, Vec<Secret>) {
        let client = self.client;
        let mut builder = http.request(request.method.clone(), request.url.clone()).header(ACCEPT, JSON);
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, JSON).body(body.clone());
        }
        let Credential::SymmetricKey(key) = credential else { return (builder, Vec::new()) };
        let token = key.token(&client.id_scope, self.id, client.clock.now());
        // The token is percent-encoded, so every header can hold it.
        if let Some(header) = sensitive(&token.header) {
            builder = builder.header(AUTHORIZATION, header);
        }
        (builder, vec![token.header, token.signature])
    }

    fn observations(&self) -> Observations {
        let (server_certificate, distrust) = self.handshake.server();
        Observations {
            host: self.client.endpoint.host().to_owned(),
            at: self.client.clock.now().into(),
            server_date: self.server_date,
            server_certificate,
            distrust: distrust.map(|error| match error {
                rustls::Error::InvalidCertificate(problem) if is_out_of_time(&problem) => Distrust::OutOfTime,
                other => Distrust::Other(tls_cause(&other)),
            }),
            asked_for_certificate: self.handshake.client_certificate_requested(),
            answered: self.answered,
        }
    }
}

fn network_error(error: reqwest::Error, attempts: u32) -> Kind {
    let error = error.without_url();
    let failure = match NetworkFailure::of(&error) {
        NetworkFailure::CertificateOutOfTime => NetworkFailure::CertificateOutOfTime,
        // In TLS 1.3 a server that does not accept a certificate says so after the handshake.
        _ if is_tls(&error) => NetworkFailure::Tls,
        failure => failure,
    };
    Kind::Network { failure, cause: network_cause(&error), attempts }
}

/// Reads a number that may be written as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Returns the delay before a poll after this many others, if the service asks for none.
fn unasked_wait(polls: u32) -> Duration {
    let Some(doublings) = polls.checked_sub(1) else { return Duration::ZERO };
    SECOND_POLL_AFTER.saturating_mul(2_u32.saturating_pow(doublings)).min(POLL_AFTER)
}

fn missing(field: &str) -> Kind {
    misshapen(format!("it has no {field}"))
}

fn misshapen(what: String) -> Kind {
    Kind::Answer { status: 200, problem: AnswerProblem::Shape(what), excerpt: String::new() }
}

fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
    text.split('.').all(is_label)
}

/// Returns whether a text can be the ID of a device at a hub. The rules of the hub are stricter.
fn is_device_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic())
}

/// The JSON of the state of a registration's operation.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "the state of an operation")]
struct WireOperation {
    operation_id: Option<String>,
    status: String,
    registration_state: Option<WireState>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", expecting = "the state of a registration")]
struct WireState {
    registration_id: Option<String>,
    assigned_hub: Option<String>,
    device_id: Option<String>,
    substatus: Option<String>,
    created_date_time_utc: Option<String>,
    last_updated_date_time_utc: Option<String>,
    etag: Option<String>,
    payload: Option<Value>,
    /// Read only if a certificate was requested.
    issued_certificate_chain: Option<Value>,
    x509: Option<WireAdmission>,
    symmetric_key: Option<WireAdmission>,
    error_code: Option<Value>,
    error_message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "the admission of a device")]
struct WireAdmission {
    enrollment_group_id: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct WireError {
    error_code: Option<Value>,
    tracking_id: Option<String>,
    message: Option<String>,
}

impl WireOperation {
    /// Returns the certificate that was issued, with its chain. An empty chain is none.
    fn issued_chain(&self) -> Option<&Value> {
        let chain = self.registration_state.as_ref()?.issued_certificate_chain.as_ref()?;
        Some(chain).filter(|chain| !chain.is_null() && chain.as_array().is_none_or(|chain| !chain.is_empty()))
    }

    fn assignment(self, id: &DeviceId) -> Result<Assignment, Kind> {
        let state = self.registration_state.ok_or_else(|| missing("registrationState"))?;
        let assigned_hub = state.assigned_hub.ok_or_else(|| missing("assignedHub"))?;
        let device_id = state.device_id.ok_or_else(|| missing("deviceId"))?;
        if !is_device_id(&device_id) {
            return Err(misshapen(format!("its deviceId is not a device ID: {:?}", sanitize(&device_id, &[]))));
        }
        let registration_id = state.registration_id.unwrap_or_else(|| id.as_str().to_owned());
        // The device ID may differ: an individual enrollment or a custom allocation can set it.
        if !registration_id.eq_ignore_ascii_case(id.as_str()) {
            return Err(misshapen(format!("it is about another device: {:?}", sanitize(&registration_id, &[]))));
        }
        if !is_host_name(&assigned_hub) {
            return Err(misshapen(format!("its assignedHub is not a host name: {:?}", sanitize(&assigned_hub, &[]))));
        }
        let time = |text: Option<String>| text?.parse().ok();
        Ok(Assignment {
            registration_id,
            assigned_hub,
            device_id,
            substatus: state.substatus,
            enrollment_group: state.x509.or(state.symmetric_key).and_then(|admission| admission.enrollment_group_id),
            created_at: time(state.created_date_time_utc),
            updated_at: time(state.last_updated_date_time_utc),
            etag: state.etag,
            payload: state.payload.filter(|payload| !payload.is_null()),
            certificate_chain: None,
        })
    }

    /// Returns the failure that the registration ended with.
    fn failure(self) -> Kind {
        let state = self.registration_state.unwrap_or_default();
        Kind::Ended {
            status: sanitize(&self.status, &[]),
            error_code: state.error_code.as_ref().and_then(number),
            message: sanitize(&state.error_message.unwrap_or_default(), &[]),
        }
    }
}

/// Builds a [`RegistrationClient`].
#[must_use]
pub struct RegistrationClientBuilder {
    endpoint: ProvisioningEndpoint,
    id_scope: IdScope,
    api_version: Option<ApiVersion>,
    connection: ConnectionOptions,
}

impl RegistrationClientBuilder {
    /// Sets the service's address. Default: `https://global.azure-devices-provisioning.net`.
    pub fn endpoint(mut self, endpoint: ProvisioningEndpoint) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// Sets the version of the API. Default: [`API_VERSION`], or [`ISSUING_API_VERSION`] for a registration with a
    /// certificate request, which versions before `2025-07-01-preview` do not take.
    pub fn api_version(mut self, version: ApiVersion) -> Self {
        self.api_version = Some(version);
        self
    }

    connection_setters!();

    /// Sets the most registrations per second that all clones start. Default: 16.
    ///
    /// Registrations are evenly spaced, and slowed down while the service answers 429. The limit for polls is four
    /// times as high.
    pub fn rate(mut self, per_second: NonZeroU32) -> Self {
        self.connection.rate = Some(per_second);
        self
    }

    /// Builds the client. Nothing is sent.
    ///
    /// # Errors
    /// [`BuildError`] if TLS cannot be set up.
    pub fn build(self) -> Result<RegistrationClient, BuildError> {
        let ConnectionOptions { roots, connect_timeout, timeout, retry, rate, clock } = self.connection;
        let verifier = self.endpoint.is_https().then(|| tls::verifier(&roots)).transpose();
        let rate = rate.unwrap_or(DEFAULT_RATE);
        let inner = Inner {
            verifier: verifier.map_err(|error| BuildError::tls(&error))?,
            endpoint: self.endpoint,
            id_scope: self.id_scope,
            api_version: self.api_version,
            connect_timeout,
            timeout,
            retry,
            rate: Rate::new(rate, Arc::clone(&clock)),
            poll_rate: Rate::new(rate.saturating_mul(POLLS_PER_REGISTRATION), Arc::clone(&clock)),
            clock,
        };
        Ok(RegistrationClient { inner: Arc::new(inner) })
    }
}

impl fmt::Debug for RegistrationClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationClientBuilder")
            .field("endpoint", &self.endpoint)
            .field("id_scope", &self.id_scope)
            .finish_non_exhaustive()
    }
}
