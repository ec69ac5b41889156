//! The client: how it is built, and how it sends one call.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Method, Response, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderName, LOCATION, RETRY_AFTER},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use time::OffsetDateTime;
use tracing::debug;

use super::{
    authorization::{Authorization, AuthorizationError, sensitive},
    clock::{Clock, SystemClock},
    deployment_manifests::DeploymentManifests,
    device_groups::DeviceGroups,
    devices::Devices,
    endpoint::{ApiVersion, Endpoint},
    enrollment_groups::EnrollmentGroups,
    error::{AnswerError, AnswerProblem, Error, NetworkError, Operation, ServiceError, sanitise, without_values},
    rate::Rate,
    retry::{Attempts, Repeat, RetryPolicy, parse_retry_after},
};
use crate::certificate::{Certificate, ReadError};

/// The most bytes of an answer that are read. A page of a hundred devices has well below one hundredth of it.
pub(crate) const MAX_ANSWER: usize = 16 << 20;

/// The service's limit for one application, over all its tokens.
const DEFAULT_RATE: NonZeroU32 = NonZeroU32::new(20).unwrap();

const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON: &str = "application/json";
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// A client of one IoT Central application.
///
/// Clones are cheap and share everything: connections, token, and the rate limit.
///
/// ```
/// use iot_enroll::central::{Authorization, Client, Endpoint};
///
/// let client = Client::builder(Endpoint::from_subdomain("contoso")?)
///     .authorization(Authorization::parse("SharedAccessSignature sr=app&sig=abc&skn=ops&se=4102444800000")?)
///     .build()?;
/// let groups = client.enrollment_groups();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    version: ApiVersion,
}

struct Inner {
    http: reqwest::Client,
    endpoint: Endpoint,
    authorization: Authorization,
    retry: RetryPolicy,
    rate: Rate,
    clock: Arc<dyn Clock>,
    /// The `Date` of the last answer.
    service_date: Mutex<Option<OffsetDateTime>>,
}

impl Client {
    /// Begins a client for the application at this address.
    pub fn builder(endpoint: Endpoint) -> ClientBuilder {
        ClientBuilder {
            endpoint,
            version: ApiVersion::default(),
            authorization: None,
            roots: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            rate: DEFAULT_RATE,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// The application's address.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// The version of the API that calls name.
    #[must_use]
    pub fn api_version(&self) -> ApiVersion {
        self.version
    }

    /// A client whose calls name another version of the API. It shares everything else with this one, the rate limit
    /// above all.
    #[must_use]
    pub fn with_api_version(&self, version: ApiVersion) -> Self {
        Self { inner: Arc::clone(&self.inner), version }
    }

    /// The devices of the application.
    #[must_use]
    pub fn devices(&self) -> Devices {
        Devices::new(self.clone())
    }

    /// The device groups of the application.
    #[must_use]
    pub fn device_groups(&self) -> DeviceGroups {
        DeviceGroups::new(self.clone())
    }

    /// The deployment manifests of the application, in version 2022-10-31-preview of the API: no other has them.
    #[must_use]
    pub fn deployment_manifests(&self) -> DeploymentManifests {
        DeploymentManifests::new(self.with_api_version(ApiVersion::V2022_10_31Preview))
    }

    /// The enrollment groups of the application.
    #[must_use]
    pub fn enrollment_groups(&self) -> EnrollmentGroups {
        EnrollmentGroups::new(self.clone())
    }

    /// Returns the `Date` of the last answer: what time it is by the service's clock, if it says so.
    pub(crate) fn service_date(&self) -> Option<OffsetDateTime> {
        *self.inner.service_date.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, by the client's clock.
    pub(crate) async fn sleep(&self, duration: Duration) {
        self.inner.clock.sleep(duration).await;
    }

    /// Sends a call and reads its answer.
    pub(super) async fn read<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        self.send(call).await?.json(call)
    }

    /// Sends a call whose answer says nothing but that it was carried out.
    pub(super) async fn carry_out(&self, call: &Call) -> Result<(), Error> {
        self.carry_out_within(call, &mut self.attempts()).await
    }

    /// As [`carry_out`](Self::carry_out), within attempts that several calls share.
    pub(super) async fn carry_out_within(&self, call: &Call, attempts: &mut Attempts) -> Result<(), Error> {
        let answer = self.send_within(call, attempts).await?;
        // A web page comes from something between here and the service, as from a proxy that wants a login.
        if answer.body.is_empty() { Ok(()) } else { answer.json::<IgnoredAny>(call).map(drop) }
    }

    /// As [`read`](Self::read); nothing where the service answers 404.
    pub(super) async fn find<T: DeserializeOwned>(&self, call: &Call) -> Result<Option<T>, Error> {
        match self.read(call).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a call, again where that can help, until the service says it is done.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, Error> {
        self.send_within(call, &mut self.attempts()).await
    }

    /// A fresh allowance of attempts.
    pub(super) fn attempts(&self) -> Attempts {
        Attempts::new(&self.inner.retry)
    }

    /// As [`send`](Self::send), within attempts that several calls share.
    pub(super) async fn send_within(&self, call: &Call, attempts: &mut Attempts) -> Result<Answer, Error> {
        let mut lost: Option<Error> = None;
        loop {
            let error = match self.send_once(call, attempts).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // After a lost answer, what a repetition meets may be the work of the first attempt.
            if let Some(first) = lost.take() {
                match error.status() {
                    Some(404) if call.method == Method::DELETE => return Ok(Answer::default()),
                    Some(412) => return Err(Error::Lost { operation: call.operation(), first: Box::new(first) }),
                    _ => lost = Some(first),
                }
            }
            if !self.pause(attempts, &error, call.repeat).await {
                return Err(error.after(attempts.count(), lost.is_some()));
            }
            if lost.is_none() && error.answer_was_lost() {
                lost = Some(error);
            }
        }
    }

    /// Waits until a failed call may be tried again; false when it may not.
    pub(super) async fn pause(&self, attempts: &mut Attempts, failure: &Error, repeat: Repeat) -> bool {
        let throttled = failure.status() == Some(429);
        let Some(wait) = attempts.next(failure.met(), repeat, self.inner.clock.elapsed()) else {
            if throttled {
                self.inner.rate.throttled(attempts.last(), Duration::ZERO);
            }
            return false;
        };
        debug!(operation = %failure.operation(), attempt = attempts.count(), ?wait, "will be tried again");
        if throttled {
            // The limit is the application's: whatever any clone sends now would be refused too.
            self.inner.rate.throttled(attempts.last(), wait);
        } else {
            self.inner.clock.sleep(wait).await;
        }
        true
    }

    async fn send_once(&self, call: &Call, attempts: &mut Attempts) -> Result<Answer, Error> {
        let inner = &*self.inner;
        let unauthorized = |cause| Error::Authorization { operation: call.operation(), cause };
        // The token comes first: requests that had their turn and then waited for it together would go as a burst.
        let place = inner.rate.enter().await;
        let token = inner.authorization.header().await.map_err(unauthorized)?;
        attempts.begin(place.turn().await);
        let attempt = attempts.count();
        let mut request = inner
            .http
            .request(call.method.clone(), self.url(call))
            .header(AUTHORIZATION, sensitive(&token).map_err(unauthorized)?)
            .header(ACCEPT, JSON);
        if let Some((content_type, body)) = &call.body {
            request = request.header(CONTENT_TYPE, *content_type).body(body.clone());
        } else if call.method == Method::POST {
            // hyper leaves it out; servers may then answer 411 (RFC 9110 section 8.6 asks for it).
            request = request.header(CONTENT_LENGTH, 0);
        }
        let broken = |error| {
            let error = NetworkError::new(call.operation(), inner.endpoint.host(), error);
            debug!(operation = %call, attempt, failure = ?error.failure, "no answer");
            Error::Network(Box::new(error))
        };
        let response = request.send().await.map_err(broken)?;
        let secrets: Vec<_> = call.secrets.iter().cloned().chain(parts(&token)).collect();

        let status = response.status();
        let headers = response.headers().clone();
        let date = header(&headers, &DATE).and_then(|date| httpdate::parse_http_date(date).ok());
        *inner.service_date.lock().unwrap_or_else(PoisonError::into_inner) = date.map(OffsetDateTime::from);
        debug!(
            method = %call.method,
            path = call.path,
            status = status.as_u16(),
            request_id = header(&headers, &REQUEST_ID).map(|id| sanitise(id, &secrets)),
            attempt,
            "answered"
        );
        let body = match body(response).await {
            Ok(body) => body,
            Err(Some(error)) => return Err(broken(error)),
            Err(None) => {
                let problem = AnswerProblem::TooLarge { limit: MAX_ANSWER };
                return Err(Answer::new(status.as_u16(), &headers, Vec::new(), secrets).unreadable(call, problem));
            }
        };
        if status.is_success() {
            return Ok(Answer::new(status.as_u16(), &headers, body, secrets));
        }
        if let Some(location) = header(&headers, &LOCATION).filter(|_| status.is_redirection()) {
            let target = Url::parse(location).map_or_else(|_| location.to_owned(), |url| url.authority().to_owned());
            return Err(Error::Redirect {
                operation: call.operation(),
                status: status.as_u16(),
                target: sanitise(&target, &secrets),
            });
        }
        Err(self.service_error(call, status.as_u16(), &headers, &body, &secrets))
    }

    fn url(&self, call: &Call) -> Url {
        match &call.target {
            Target::Link(url) => url.clone(),
            Target::Path(segments) => {
                let segments = segments.iter().map(String::as_str).collect::<Vec<_>>();
                let mut url = self.inner.endpoint.url(&segments);
                url.query_pairs_mut().append_pair("api-version", self.version.as_str()).extend_pairs(&call.query);
                // A space as + is the way of forms (URL, "application/x-www-form-urlencoded"); %20 is read everywhere.
                let query = url.query().map(|query| query.replace('+', "%20"));
                url.set_query(query.as_deref());
                url
            }
        }
    }

    fn service_error(
        &self,
        call: &Call,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
        secrets: &[SecretString],
    ) -> Error {
        let text = String::from_utf8_lossy(body);
        let said = serde_json::from_str::<ErrorBody>(&text).map(|body| body.error).unwrap_or_default();
        let now = self.inner.clock.now();
        let operation = call.operation();
        let clean = |text: &str| sanitise(text, secrets);
        Error::Service(Box::new(ServiceError {
            answer_was_lost: status >= 500 && operation.changes(),
            operation,
            status,
            code: said.code.as_deref().or_else(|| header(headers, &ERROR_CODE)).map(clean),
            message: clean(said.message.as_deref().unwrap_or(&text)),
            request_id: said.request_id.as_deref().or_else(|| header(headers, &REQUEST_ID)).map(clean),
            retry_after: header(headers, &RETRY_AFTER).and_then(|value| parse_retry_after(value, now)),
            attempts: 1,
            token_expired: if status == 401 { self.inner.authorization.expired(now) } else { None },
            patience: self.inner.retry.budget,
        }))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.inner.endpoint)
            .field("version", &self.version)
            .field("authorization", &self.inner.authorization)
            .finish_non_exhaustive()
    }
}

/// Builds a [`Client`].
#[must_use]
pub struct ClientBuilder {
    endpoint: Endpoint,
    version: ApiVersion,
    authorization: Option<Authorization>,
    roots: Vec<Certificate>,
    connect_timeout: Duration,
    timeout: Duration,
    retry: RetryPolicy,
    rate: NonZeroU32,
    clock: Arc<dyn Clock>,
}

impl ClientBuilder {
    /// What requests prove their right with. Needed.
    pub fn authorization(mut self, authorization: Authorization) -> Self {
        self.authorization = Some(authorization);
        self
    }

    /// The version of the API; `2022-07-31` by default.
    pub fn api_version(mut self, version: ApiVersion) -> Self {
        self.version = version;
        self
    }

    /// Trusts the certificates of this file as roots, beside those of the platform. PEM, DER or base64 of either.
    ///
    /// # Errors
    /// [`ReadError`] when there is no certificate in it.
    pub fn add_root_certificate(mut self, bytes: &[u8]) -> Result<Self, ReadError> {
        self.roots.extend(Certificate::read_all(bytes)?);
        Ok(self)
    }

    /// How long to wait for a connection; 10 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long to wait for one answer, connection included; 30 s by default. Each attempt has this time anew.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often and how long failed calls are tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// How many requests a second go out at most, over all clones and with repetitions; 20 by default, which is the
    /// service's limit for one application. They are evenly spaced. While the service refuses requests nevertheless
    /// (429), since others use the application too, fewer go out: half as many at each refusal, then slowly more again.
    pub fn rate(mut self, per_second: NonZeroU32) -> Self {
        self.rate = per_second;
        self
    }

    /// Another source of time, for tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the client. Nothing is sent.
    ///
    /// # Errors
    /// [`BuildError`] when no token was given, it has expired, or TLS cannot be set up here.
    pub fn build(self) -> Result<Client, BuildError> {
        let authorization = self.authorization.ok_or(BuildError::NoAuthorization)?;
        if let Some(at) = authorization.expired(self.clock.now()) {
            return Err(AuthorizationError::Expired { at }.into());
        }
        let roots =
            self.roots.iter().map(|root| reqwest::Certificate::from_der(root.der())).collect::<Result<Vec<_>, _>>();
        let roots = roots.map_err(|error| BuildError::Tls(error.to_string()))?;
        let mut http = http_builder(self.connect_timeout, self.timeout, self.endpoint.is_loopback());
        // Without TLS the platform's roots are not read: a machine need not have any to speak to an emulator.
        http = if self.endpoint.is_https() { http.tls_certs_merge(roots) } else { http.tls_certs_only([]) };
        let inner = Inner {
            http: http.build().map_err(|error| BuildError::Tls(super::error::chain(&error)))?,
            endpoint: self.endpoint,
            authorization,
            retry: self.retry,
            rate: Rate::new(self.rate, Arc::clone(&self.clock)),
            clock: self.clock,
            service_date: Mutex::new(None),
        };
        Ok(Client { inner: Arc::new(inner), version: self.version })
    }
}

/// What every connection of this crate keeps to.
pub(crate) fn http_builder(connect_timeout: Duration, timeout: Duration, loopback: bool) -> reqwest::ClientBuilder {
    let http = reqwest::Client::builder()
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect_timeout)
        .timeout(timeout)
        // A redirect would carry the token to another host.
        .redirect(redirect::Policy::none())
        .referer(false);
    if !loopback {
        return http;
    }
    // A proxy would see the token; and whatever a hosts file says, localhost is this machine.
    let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
    http.no_proxy().resolve_to_addrs("localhost", &addresses)
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("endpoint", &self.endpoint)
            .field("version", &self.version)
            .field("authorization", &self.authorization)
            .finish_non_exhaustive()
    }
}

/// Why a client cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No token was given.
    #[error("no token was given: every call to the service needs one")]
    NoAuthorization,
    /// The token cannot be used.
    #[error(transparent)]
    Authorization(#[from] AuthorizationError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// One call: what a resource asks the client to send.
#[derive(Clone)]
pub(super) struct Call {
    method: Method,
    path: String,
    target: Target,
    query: Vec<(&'static str, String)>,
    body: Option<(&'static str, Vec<u8>)>,
    repeat: Repeat,
    secrets: Vec<SecretString>,
}

#[derive(Clone)]
enum Target {
    /// Segments of the path below `/api`.
    Path(Vec<String>),
    /// A link out of an answer, checked to lead to the endpoint.
    Link(Url),
}

impl Call {
    fn new(method: Method, segments: &[&str]) -> Self {
        Self {
            method,
            path: segments.join("/"),
            target: Target::Path(segments.iter().map(|&segment| segment.to_owned()).collect()),
            query: Vec::new(),
            body: None,
            repeat: Repeat::Safe,
            secrets: Vec::new(),
        }
    }

    pub(super) fn get(segments: &[&str]) -> Self {
        Self::new(Method::GET, segments)
    }

    pub(super) fn delete(segments: &[&str]) -> Self {
        Self::new(Method::DELETE, segments)
    }

    pub(super) fn put(segments: &[&str], body: &impl Serialize) -> Self {
        Self::new(Method::PUT, segments).with_body(JSON, body)
    }

    /// A JSON merge patch (RFC 7396).
    pub(super) fn merge_patch(segments: &[&str], body: &impl Serialize) -> Self {
        Self::new(Method::PATCH, segments).with_body(MERGE_PATCH, body)
    }

    /// A POST without a body that may be repeated.
    pub(super) fn post_empty(segments: &[&str]) -> Self {
        Self::new(Method::POST, segments)
    }

    /// A POST that is not repeated when it may have been carried out.
    pub(super) fn post(segments: &[&str], body: &impl Serialize) -> Self {
        Self { repeat: Repeat::Unsent, ..Self::new(Method::POST, segments).with_body(JSON, body) }
    }

    /// A further page of a list.
    pub(super) fn page(link: Url, first: &Operation) -> Self {
        Self { path: first.path.clone(), target: Target::Link(link), ..Self::get(&[]) }
    }

    /// Parameters beside the version.
    pub(super) fn with_query(mut self, query: Vec<(&'static str, String)>) -> Self {
        self.query = query;
        self
    }

    /// Says that twice has the effect of once, which for a POST is not so by itself.
    pub(super) fn repeatable(mut self) -> Self {
        self.repeat = Repeat::Safe;
        self
    }

    /// Texts of the body that no message may repeat.
    pub(super) fn with_secrets(mut self, secrets: impl IntoIterator<Item = SecretString>) -> Self {
        self.secrets.extend(secrets);
        self
    }

    fn with_body(mut self, content_type: &'static str, body: &impl Serialize) -> Self {
        // Bodies are objects whose keys are texts, which always can be written.
        self.body = Some((content_type, serde_json::to_vec(body).unwrap_or_default()));
        self
    }

    pub(super) fn operation(&self) -> Operation {
        Operation { method: self.method.clone(), path: self.path.clone() }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// What the service answered to a call that it carried out.
#[derive(Default)]
pub(super) struct Answer {
    status: u16,
    content_type: Option<String>,
    body: Vec<u8>,
    /// What no message about it may repeat.
    secrets: Vec<SecretString>,
}

impl Answer {
    fn new(status: u16, headers: &HeaderMap, body: Vec<u8>, secrets: Vec<SecretString>) -> Self {
        let content_type = header(headers, &CONTENT_TYPE).map(|kind| sanitise(kind, &secrets));
        Self { status, content_type, body, secrets }
    }

    fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let text = without_values(&error);
            let problem = if error.is_data() { AnswerProblem::Shape(text) } else { AnswerProblem::NotJson(text) };
            self.unreadable(call, problem)
        })
    }

    fn unreadable(&self, call: &Call, problem: AnswerProblem) -> Error {
        let text = String::from_utf8_lossy(&self.body);
        let text = text.trim_start();
        let shown = !text.is_empty() && !text.starts_with(['{', '[', '"']);
        Error::Answer(Box::new(AnswerError {
            operation: call.operation(),
            status: self.status,
            content_type: self.content_type.clone(),
            problem,
            excerpt: shown.then(|| sanitise(text, &self.secrets)),
        }))
    }
}

/// The service's form of an error.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetails,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct ErrorDetails {
    code: Option<String>,
    message: Option<String>,
    request_id: Option<String>,
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Reads a body, but not more than any true answer has. The failure is nothing where there is more.
pub(crate) async fn body(mut response: Response) -> Result<Vec<u8>, Option<reqwest::Error>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Some)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The texts that give a token away: the whole header, what follows its scheme, and an API token's signature.
fn parts(token: &SecretString) -> impl Iterator<Item = SecretString> {
    let whole = token.expose_secret();
    let bare = whole.split_once(' ').map(|(_, bare)| bare);
    let signature = bare.and_then(|bare| bare.split('&').find_map(|field| field.strip_prefix("sig=")));
    [Some(whole), bare, signature].into_iter().flatten().map(SecretString::from)
}
