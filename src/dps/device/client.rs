//! The client: how it is built, and how it registers a device.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use reqwest::{
    Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use rustls::{CertificateError, client::danger::ServerCertVerifier};
use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::debug;

use super::{
    Credential, IdScope, ProvisioningEndpoint,
    diagnosis::{Attempt, certain_refusal},
    error::{Distrust, Observations, Refusal, RegistrationError, RegistrationErrorKind as Kind},
    tls::{self, Handshake},
};
use crate::{
    certificate::DeviceId,
    transport::{
        AnswerProblem, AttemptFailure, Attempts, BuildError, Clock, ConnectionOptions, JSON, MAX_ANSWER,
        NetworkFailure, Rate, Repeat, RetryPolicy, certificate_out_of_time, connection_setters, error_chain,
        http_builder, is_tls, read_body, redirect_target, retry_after, sanitise, sensitive, server_date,
    },
};

/// The version of the API that is spoken.
const API_VERSION: &str = "2021-06-01";

/// How long to wait before asking again where the service does not say. It lets a device ask five times in 10 seconds.
const POLL_AFTER: Duration = Duration::from_secs(2);

/// The waits before polls where the service asks for none: the first comes at once, then each takes twice as long as the
/// one before it, from this on to [`POLL_AFTER`].
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// What is less than this is no wait: the header counts in seconds, and what is left until a date may be any part of one.
const SHORT: Duration = Duration::from_secs(1);

/// How many registrations are begun a second: somewhat fewer than the thousand a minute that one service takes.
const DEFAULT_RATE: NonZeroU32 = NonZeroU32::new(16).unwrap();

/// How often a device registers anew whose operation the service does not know any more.
const MAX_REREGISTRATIONS: u32 = 2;

/// How many polls a second there may be for each registration that is begun.
const POLLS: NonZeroU32 = NonZeroU32::new(4).unwrap();

/// A client of one Device Provisioning Service, which registers devices there.
///
/// Clones are cheap and share everything, the rate limit above all. Each registration has connections of its own: the
/// device's certificate is presented on them.
///
/// To register a device that is registered already does no harm: it is assigned again.
#[derive(Clone)]
pub struct RegistrationClient {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: ProvisioningEndpoint,
    id_scope: IdScope,
    /// Nothing where requests are not encrypted: the platform's roots are not read then.
    verifier: Option<Arc<dyn ServerCertVerifier>>,
    connect_timeout: Duration,
    timeout: Duration,
    retry: RetryPolicy,
    rate: Rate,
    /// Separate, so that polls do not hold registrations up.
    poll_rate: Rate,
    clock: Arc<dyn Clock>,
}

/// Where a device was assigned to.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Assignment {
    /// The registration id, as the service has it.
    pub registration_id: String,
    /// The host name of the IoT hub that the device connects to.
    pub assigned_hub: String,
    /// The device's id there.
    pub device_id: String,
    /// How it came about, such as `initialAssignment`.
    pub substatus: Option<String>,
    /// When the device first registered.
    pub created_at: Option<OffsetDateTime>,
    /// When it last did.
    pub updated_at: Option<OffsetDateTime>,
    /// The state of the registration.
    pub etag: Option<String>,
    /// What an allocation policy has for the device.
    pub payload: Option<Value>,
}

impl RegistrationClient {
    /// Begins a client for this id scope.
    pub fn builder(id_scope: IdScope) -> RegistrationClientBuilder {
        RegistrationClientBuilder {
            endpoint: ProvisioningEndpoint::default(),
            id_scope,
            connection: ConnectionOptions::default(),
        }
    }

    /// The service's address.
    #[must_use]
    pub fn endpoint(&self) -> &ProvisioningEndpoint {
        &self.inner.endpoint
    }

    /// The id scope.
    #[must_use]
    pub fn id_scope(&self) -> &IdScope {
        &self.inner.id_scope
    }

    /// Registers a device, as it would itself, and waits until it is assigned. `payload` is for the service's allocation
    /// policy.
    ///
    /// What fails on the way, 429 and 5xx are tried again ([`RetryPolicy`]); its budget is the time that all of a
    /// registration has. `retry-after` is honoured within it; where it asks for no wait, polls come ever more slowly, up to
    /// 2 s apart. Where the service does not know the operation any more, the device registers anew, twice at most.
    /// Redirects are not followed.
    ///
    /// # Errors
    /// [`RegistrationError`]; [`diagnose`](super::diagnose) tells the cause.
    pub async fn register(
        &self,
        id: &DeviceId,
        credential: &Credential,
        payload: Option<&Value>,
    ) -> Result<Assignment, RegistrationError> {
        let mut session =
            Session { client: &self.inner, id, handshake: Arc::default(), server_date: None, answered: false };
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
    handshake: Arc<Handshake>,
    server_date: Option<OffsetDateTime>,
    answered: bool,
}

/// A request of a registration: the first registers, the others ask what became of it.
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

/// An answer that is an operation's state, and how long to wait before asking again.
struct Answer {
    operation: WireOperation,
    retry_after: Option<Duration>,
}

impl Session<'_> {
    async fn register(&mut self, credential: &Credential, payload: Option<&Value>) -> Result<Assignment, Kind> {
        let client = self.client;
        let attempt = Attempt { id: self.id, id_scope: &client.id_scope, credential, unsent: &[] };
        if let Some(cause) = certain_refusal(&attempt, &client.endpoint) {
            return Err(Kind::NotSent(Box::new(cause)));
        }
        let http = self.http(credential)?;
        let mut body = json!({ "registrationId": self.id.as_str() });
        if let Some(payload) = payload {
            body["payload"] = payload.clone();
        }
        let registering = Request {
            method: Method::PUT,
            url: self.url(&["register"]),
            // An object whose keys are texts can always be written.
            body: Some(serde_json::to_vec(&body).unwrap_or_default()),
        };
        let mut request = registering.clone();
        let mut reregistrations = 0;
        let mut polls = 0;
        let mut attempts = Attempts::new(&client.retry);
        loop {
            let wait = match self.send(&http, &request, credential, &mut attempts).await {
                Ok(Answer { operation, retry_after }) => match operation.status.to_ascii_lowercase().as_str() {
                    "assigned" => return operation.assignment(self.id),
                    "assigning" | "unassigned" => {
                        let id = operation.operation_id.ok_or_else(|| missing("operationId"))?;
                        let url = self.url(&["operations", &id]);
                        request = Request { method: Method::GET, url, body: None };
                        let asked = retry_after.unwrap_or(POLL_AFTER);
                        let wait = if asked < SHORT { asked.max(unasked_wait(polls)) } else { asked };
                        polls += 1;
                        attempts
                            .allow(wait, client.clock.elapsed())
                            .ok_or(Kind::TimedOut { budget: client.retry.budget, asked })?
                    }
                    _ => return Err(operation.end()),
                },
                Err(Kind::Refused(refusal))
                    if refusal.is_operation_gone() && request.is_poll() && reregistrations < MAX_REREGISTRATIONS =>
                {
                    reregistrations += 1;
                    request = registering.clone();
                    let kind = Kind::Refused(refusal);
                    attempts.allow(POLL_AFTER, client.clock.elapsed()).ok_or(kind)?
                }
                Err(kind) => self.pause_after(&kind, &mut attempts).ok_or(kind)?,
            };
            client.clock.sleep(wait).await;
        }
    }

    /// How long to wait before a failed request is sent again; nothing when it is not.
    fn pause_after(&self, kind: &Kind, attempts: &mut Attempts) -> Option<Duration> {
        let failure = match kind {
            Kind::Network { failure, .. } => AttemptFailure::Network(*failure),
            Kind::Refused(refusal) => AttemptFailure::Status(refusal.status, refusal.retry_after),
            _ => AttemptFailure::Final,
        };
        // Registering twice has the effect of once, and so has asking.
        let wait = attempts.next(failure, Repeat::Safe, self.client.clock.elapsed());
        if matches!(failure, AttemptFailure::Status(429, _)) {
            for rate in [&self.client.rate, &self.client.poll_rate] {
                rate.throttled(attempts.last(), wait.unwrap_or_default());
            }
        }
        if let Some(wait) = wait {
            debug!(id = %self.id, attempt = attempts.count(), ?wait, "will be tried again");
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
                http.tls_backend_preconfigured(configuration.map_err(|error| Kind::Tls(error.to_string()))?)
            }
            None => http.tls_certs_only([]),
        };
        http.build().map_err(|error| Kind::Tls(error_chain(&error)))
    }

    fn url(&self, last: &[&str]) -> reqwest::Url {
        let first = [self.client.id_scope.as_str(), "registrations", self.id.as_str()];
        let mut url = self.client.endpoint.address().url([&first, last].concat());
        url.query_pairs_mut().append_pair("api-version", API_VERSION);
        url
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
        let mut sent = http.request(request.method.clone(), request.url.clone()).header(ACCEPT, JSON);
        if let Some(body) = &request.body {
            sent = sent.header(CONTENT_TYPE, JSON).body(body.clone());
        }
        let mut secrets = Vec::new();
        if let Credential::SymmetricKey(key) = credential {
            let token = key.token(&client.id_scope, self.id, client.clock.now());
            sent = sent.header(
                AUTHORIZATION,
                sensitive(&token.header)
                    .ok_or_else(|| Kind::Tls("the token has a character that no header can hold".to_owned()))?,
            );
            secrets.extend([token.header, token.signature]);
        }
        let broken = |error: reqwest::Error| {
            let error = error.without_url();
            let out_of_time = certificate_out_of_time(&error);
            Kind::Network {
                // In TLS 1.3 a server that does not like a certificate says so after the handshake.
                failure: match &out_of_time {
                    None if is_tls(&error) => NetworkFailure::Tls,
                    _ => NetworkFailure::of(&error),
                },
                cause: out_of_time.unwrap_or_else(|| in_words(&error_chain(&error))),
                attempts: attempts.count(),
            }
        };
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
        let clean = |text: &str| sanitise(text, &secrets);
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

    fn observations(&self) -> Observations {
        let (server_certificate, refused) = self.handshake.server();
        Observations {
            host: self.client.endpoint.host().to_owned(),
            at: self.client.clock.now().into(),
            server_date: self.server_date,
            server_certificate,
            distrust: refused.map(|error| match error {
                rustls::Error::InvalidCertificate(
                    CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. },
                ) => Distrust::OutOfTime,
                other => Distrust::Other(other.to_string()),
            }),
            asked_for_certificate: self.handshake.asked(),
            answered: self.answered,
        }
    }
}

/// What went wrong on the way, without what only the authors of a library can make use of.
fn in_words(cause: &str) -> String {
    if cause.contains("InvalidContentType") {
        return "what it answered is not TLS and may be plain HTTP. Check the address of the provisioning service, and its \
                port"
            .to_owned();
    }
    cause.split(": https://").next().unwrap_or_default().to_owned()
}

/// A number that may be written as a text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// How long to wait before the poll that comes after so many others, where the service asks for no wait.
fn unasked_wait(polls: u32) -> Duration {
    let Some(doublings) = polls.checked_sub(1) else { return Duration::ZERO };
    FIRST_WAIT.saturating_mul(2_u32.saturating_pow(doublings)).min(POLL_AFTER)
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

/// The state of a registration's operation, as the service writes it.
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
    error_code: Option<Value>,
    error_message: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct WireError {
    error_code: Option<Value>,
    tracking_id: Option<String>,
    message: Option<String>,
}

impl WireOperation {
    fn assignment(self, id: &DeviceId) -> Result<Assignment, Kind> {
        let state = self.registration_state.ok_or_else(|| missing("registrationState"))?;
        let assigned_hub = state.assigned_hub.ok_or_else(|| missing("assignedHub"))?;
        let device_id = state.device_id.ok_or_else(|| missing("deviceId"))?;
        let registration_id = state.registration_id.unwrap_or_else(|| id.as_str().to_owned());
        // In IoT Central a device's id is its registration id.
        let is_other = |found: &&String| !found.eq_ignore_ascii_case(id.as_str());
        if let Some(other) = [&registration_id, &device_id].into_iter().find(is_other) {
            return Err(misshapen(format!("it is about another device, {:?}", sanitise(other, &[]))));
        }
        if !is_host_name(&assigned_hub) {
            return Err(misshapen(format!("its assignedHub is no host name: {:?}", sanitise(&assigned_hub, &[]))));
        }
        let moment = |text: Option<String>| OffsetDateTime::parse(&text?, &Rfc3339).ok();
        Ok(Assignment {
            registration_id,
            assigned_hub,
            device_id,
            substatus: state.substatus,
            created_at: moment(state.created_date_time_utc),
            updated_at: moment(state.last_updated_date_time_utc),
            etag: state.etag,
            payload: state.payload.filter(|payload| !payload.is_null()),
        })
    }

    /// The bad end it came to.
    fn end(self) -> Kind {
        let state = self.registration_state.unwrap_or_default();
        Kind::Ended {
            status: sanitise(&self.status, &[]),
            error_code: state.error_code.as_ref().and_then(number),
            message: sanitise(&state.error_message.unwrap_or_default(), &[]),
        }
    }
}

/// Builds a [`RegistrationClient`].
#[must_use]
pub struct RegistrationClientBuilder {
    endpoint: ProvisioningEndpoint,
    id_scope: IdScope,
    connection: ConnectionOptions,
}

impl RegistrationClientBuilder {
    /// The service's address; `https://global.azure-devices-provisioning.net` by default.
    pub fn endpoint(mut self, endpoint: ProvisioningEndpoint) -> Self {
        self.endpoint = endpoint;
        self
    }

    connection_setters!();

    /// How many registrations are begun a second at most, over all clones; 16 by default. They are evenly spaced, and
    /// fewer are begun while the service answers 429. Polls are sent four times as often at most.
    pub fn rate(mut self, per_second: NonZeroU32) -> Self {
        self.connection.rate = Some(per_second);
        self
    }

    /// Builds the client. Nothing is sent.
    ///
    /// # Errors
    /// [`BuildError`] when TLS cannot be set up here.
    pub fn build(self) -> Result<RegistrationClient, BuildError> {
        let ConnectionOptions { roots, connect_timeout, timeout, retry, rate, clock } = self.connection;
        let verifier = self.endpoint.is_https().then(|| tls::verifier(&roots)).transpose();
        let rate = rate.unwrap_or(DEFAULT_RATE);
        let inner = Inner {
            verifier: verifier.map_err(|error| BuildError::Tls(error.to_string()))?,
            endpoint: self.endpoint,
            id_scope: self.id_scope,
            connect_timeout,
            timeout,
            retry,
            rate: Rate::new(rate, Arc::clone(&clock)),
            poll_rate: Rate::new(rate.saturating_mul(POLLS), Arc::clone(&clock)),
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
