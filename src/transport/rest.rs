//! A client of a REST service: sends calls with a token, within the rate limit, with retries.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Method, RequestBuilder, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName},
};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;
use tracing::debug;

use super::{
    address::Address,
    authorization::{Authorization, AuthorizationError},
    call::{CONTINUATION, Call, Paging, Target},
    clock::Clock,
    connection::{BuildError, ConnectionOptions},
    error::{AnswerError, AnswerProblem, Error, NetworkError, ServiceError},
    http::{JSON, MAX_ANSWER, header, read_body, redirect_target, retry_after, sensitive, server_date},
    profile::ServiceProfile,
    rate::Rate,
    redact::{sanitize, without_values},
    retry::{Attempts, Repeat, RetryPolicy},
    secret::Secret,
};
use crate::certificate::Timestamp;

const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// A client of one service. Clones share its connections, token and rate limit.
#[derive(Clone)]
pub(crate) struct RestClient {
    inner: Arc<Inner>,
    api_version: Cow<'static, str>,
}

struct Inner {
    profile: &'static ServiceProfile,
    http: reqwest::Client,
    address: Address,
    authorization: Authorization,
    retry: RetryPolicy,
    rate: Rate,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    /// The `Date` header of the last answer.
    service_date: Mutex<Option<Timestamp>>,
}

impl RestClient {
    /// Creates a client. Nothing is sent.
    pub(crate) fn new(
        profile: &'static ServiceProfile,
        address: Address,
        authorization: Authorization,
        api_version: impl Into<Cow<'static, str>>,
        options: ConnectionOptions,
    ) -> Result<Self, BuildError> {
        if let Some(at) = authorization.expired(options.clock.now()) {
            return Err(AuthorizationError::Expired { at }.into());
        }
        authorization.check_host(address.host())?;
        let inner = Inner {
            profile,
            http: options.http_client(&address)?,
            address,
            authorization,
            retry: options.retry,
            rate: Rate::new(options.rate.unwrap_or(profile.rate), Arc::clone(&options.clock)),
            clock: options.clock,
            timeout: options.timeout,
            service_date: Mutex::new(None),
        };
        Ok(Self { inner: Arc::new(inner), api_version: api_version.into() })
    }

    /// Returns a client that uses another version of the API.
    pub(crate) fn with_api_version(&self, api_version: impl Into<Cow<'static, str>>) -> Self {
        Self { inner: Arc::clone(&self.inner), api_version: api_version.into() }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.inner.address
    }

    pub(crate) fn authorization(&self) -> &Authorization {
        &self.inner.authorization
    }

    /// Returns the `Date` header of the last answer, if it had one.
    pub(crate) fn service_date(&self) -> Option<Timestamp> {
        *self.inner.service_date.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, by the client's clock.
    pub(crate) async fn sleep(&self, duration: Duration) {
        self.inner.clock.sleep(duration).await;
    }

    /// Sends a call and reads its answer.
    pub(crate) async fn read<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        self.read_within(call, &mut self.attempts()).await
    }

    /// Does the same as [`read`](Self::read), with attempts that several calls share.
    pub(crate) async fn read_within<T: DeserializeOwned>(
        &self,
        call: &Call,
        attempts: &mut Attempts,
    ) -> Result<T, Error> {
        self.send_within(call, attempts).await?.json(call)
    }

    /// Sends a call that lists a page.
    pub(super) async fn read_page<T: DeserializeOwned>(&self, call: &Call) -> Result<Page<T>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Linked<T> {
            value: Vec<T>,
            next_link: Option<String>,
        }
        let mut answer = self.send_within(call, &mut self.attempts()).await?;
        match call.paging {
            Paging::NextLink => {
                let Linked { value, next_link } = answer.json(call)?;
                let link = next_link.as_ref().and_then(|link| serde_json::to_string(link).ok()).unwrap_or_default();
                Ok(Page { items: value, next: next_link, content: answer.hash_without(&link) })
            }
            Paging::Continuation => {
                let (items, content) = (answer.json(call)?, answer.hash_without(""));
                Ok(Page { items, next: answer.continuation.take(), content })
            }
        }
    }

    /// Sends a call whose answer has no content.
    pub(crate) async fn execute(&self, call: &Call) -> Result<(), Error> {
        self.execute_within(call, &mut self.attempts()).await
    }

    /// Does the same as [`execute`](Self::execute), with attempts that several calls share.
    pub(crate) async fn execute_within(&self, call: &Call, attempts: &mut Attempts) -> Result<(), Error> {
        let answer = self.send_within(call, attempts).await?;
        // A web page comes from something else, such as the login page of a proxy.
        if answer.body.is_empty() { Ok(()) } else { answer.json::<IgnoredAny>(call).map(drop) }
    }

    /// Sends a call and reads its answer. Returns `None` if the service answers 404.
    pub(crate) async fn find<T: DeserializeOwned>(&self, call: &Call) -> Result<Option<T>, Error> {
        match self.read(call).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Parses a part of an answer.
    pub(crate) fn parse<T: DeserializeOwned>(&self, call: &Call, part: Value) -> Result<T, Error> {
        serde_json::from_value(part).map_err(|error| self.malformed(call, without_values(&error)))
    }

    /// Returns the error of an answer whose content is not what the API describes.
    pub(crate) fn malformed(&self, call: &Call, problem: impl Into<String>) -> Error {
        Error::Answer(Box::new(AnswerError {
            operation: call.operation(),
            status: 200,
            content_type: Some(JSON.to_owned()),
            problem: AnswerProblem::Shape(problem.into()),
            excerpt: None,
            profile: self.inner.profile,
        }))
    }

    /// Returns the attempts that one call has.
    pub(crate) fn attempts(&self) -> Attempts {
        Attempts::new(&self.inner.retry)
    }

    /// Sends a call and retries it if that can help.
    async fn send_within(&self, call: &Call, attempts: &mut Attempts) -> Result<Answer, Error> {
        let mut lost: Option<Error> = None;
        loop {
            let error = match self.send_once(call, attempts).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // After a lost answer, the state that the retry finds may come from the first attempt.
            if let Some(first) = lost.take() {
                match error.status() {
                    Some(404) if call.method == Method::DELETE => {
                        return Ok(self.answer(204, &HeaderMap::new(), Vec::new(), Vec::new()));
                    }
                    Some(status) if status == 412 || status == 409 && call.creates => {
                        let operation = call.operation();
                        return Err(Error::OutcomeUnknown { operation, status, first: Box::new(first) });
                    }
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

    /// Waits until a failed call can be retried. Returns false if it cannot.
    pub(crate) async fn pause(&self, attempts: &mut Attempts, failure: &Error, repeat: Repeat) -> bool {
        let throttled = failure.status() == Some(429);
        let Some(wait) = attempts.next(failure.attempt_failure(), repeat, self.inner.clock.elapsed()) else {
            if throttled {
                self.inner.rate.throttled(attempts.last(), Duration::ZERO);
            }
            return false;
        };
        debug!(operation = %failure.operation(), attempt = attempts.count(), ?wait, "retrying");
        if throttled {
            // All clients of the service share its limit, so the requests of every clone wait.
            self.inner.rate.throttled(attempts.last(), wait);
        } else {
            self.inner.clock.sleep(wait).await;
        }
        true
    }

    async fn send_once(&self, call: &Call, attempts: &mut Attempts) -> Result<Answer, Error> {
        let inner = &*self.inner;
        let unauthorized = |cause| Error::Authorization { operation: call.operation(), cause };
        // The token is fetched first: requests that waited for it after their turn would be sent in a burst.
        let turn = inner.rate.queue().await;
        let token = inner.authorization.header(inner.clock.now(), inner.address.host()).await.map_err(unauthorized)?;
        attempts.begin(turn.wait().await);
        let attempt = attempts.count();
        if attempt == 1 && call.gate.as_ref().is_some_and(|gate| !gate()) {
            return Err(Error::Withdrawn { operation: call.operation() });
        }
        let request =
            self.request(call).header(AUTHORIZATION, sensitive(&token).ok_or_else(|| unauthorized(UNPRINTABLE))?);
        let broken = |error| {
            let error = NetworkError::new(call.operation(), inner.address.host(), error);
            debug!(operation = %error.operation, attempt, failure = ?error.failure, "no answer");
            Error::Network(Box::new(error))
        };
        let response = request.send().await.map_err(broken)?;
        let secrets: Vec<_> = call.secrets.iter().cloned().chain(parts(&token)).collect();

        let status = response.status();
        let headers = response.headers().clone();
        *inner.service_date.lock().unwrap_or_else(PoisonError::into_inner) = server_date(&headers);
        debug!(
            method = %call.method,
            path = call.path,
            status = status.as_u16(),
            request_id = header(&headers, &REQUEST_ID).map(|id| sanitize(id, &secrets)),
            attempt,
            "answered"
        );
        let body = match read_body(response).await {
            Ok(body) => body,
            Err(Some(error)) => return Err(broken(error)),
            Err(None) => {
                let problem = AnswerProblem::TooLarge { limit: MAX_ANSWER };
                return Err(self.answer(status.as_u16(), &headers, Vec::new(), secrets).unreadable(call, problem));
            }
        };
        if status.is_success() {
            return Ok(self.answer(status.as_u16(), &headers, body, secrets));
        }
        if let Some(target) = redirect_target(status, &headers, &secrets) {
            return Err(Error::Redirect { operation: call.operation(), status: status.as_u16(), target });
        }
        Err(self.service_error(call, status.as_u16(), &headers, &body, &secrets))
    }

    /// Returns the request for a call, without its token.
    fn request(&self, call: &Call) -> RequestBuilder {
        let request = self.inner.http.request(call.method.clone(), self.url(call)).header(ACCEPT, JSON);
        let request =
            if call.wait.is_zero() { request } else { request.timeout(self.inner.timeout.saturating_add(call.wait)) };
        let request = call.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        match &call.body {
            Some((content_type, body)) => request.header(CONTENT_TYPE, *content_type).body(body.clone()),
            // hyper omits it, and servers may then answer 411 (RFC 9110 section 8.6).
            None if call.method == Method::POST => request.header(CONTENT_LENGTH, 0),
            None => request,
        }
    }

    fn answer(&self, status: u16, headers: &HeaderMap, body: Vec<u8>, secrets: Vec<Secret>) -> Answer {
        let content_type = header(headers, &CONTENT_TYPE).map(|kind| sanitize(kind, &secrets));
        let continuation = header(headers, &CONTINUATION).map(str::to_owned);
        Answer { profile: self.inner.profile, status, content_type, continuation, body, secrets }
    }

    fn url(&self, call: &Call) -> Url {
        match &call.target {
            Target::Link(url) => url.clone(),
            Target::Path(segments) => {
                let segments = self.inner.profile.base_path.iter().copied().chain(segments.iter().map(String::as_str));
                let mut url = self.inner.address.url(segments);
                let version = call.api_version.unwrap_or(&self.api_version);
                url.query_pairs_mut().append_pair("api-version", version).extend_pairs(&call.query);
                // Forms write a space as `+`, which is not understood everywhere in a query; `%20` is.
                let query = url.query().map(|query| query.replace('+', "%20"));
                url.set_query(query.as_deref());
                url
            }
        }
    }

    fn service_error(&self, call: &Call, status: u16, headers: &HeaderMap, body: &[u8], secrets: &[Secret]) -> Error {
        let text = String::from_utf8_lossy(body);
        let details = (self.inner.profile.parse_error)(&text);
        let now = self.inner.clock.now();
        let operation = call.operation();
        let clean = |text: &str| sanitize(text, secrets);
        let message = match details.message {
            Some(message) if !call.returns_keys => clean(&message),
            _ if text.is_empty() => String::new(),
            _ => excerpt(call, &text, secrets).unwrap_or_else(|| HIDDEN.to_owned()),
        };
        Error::Service(Box::new(ServiceError {
            answer_was_lost: status >= 500 && operation.changes(),
            operation,
            status,
            code: details.code.as_deref().or_else(|| header(headers, &ERROR_CODE)).map(clean),
            message,
            request_id: details.request_id.as_deref().or_else(|| header(headers, &REQUEST_ID)).map(clean),
            retry_after: retry_after(headers, now),
            attempts: 1,
            token_expired: if status == 401 { self.inner.authorization.expired(now) } else { None },
            shared_access: self.inner.authorization.is_shared_access(),
            budget: self.inner.retry.budget,
            profile: self.inner.profile,
        }))
    }
}

/// A page of a list.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// The link or continuation token of the next page.
    pub(super) next: Option<String>,
    /// A hash of the page without that link.
    pub(super) content: u64,
}

/// The answer to a call that succeeded.
struct Answer {
    profile: &'static ServiceProfile,
    status: u16,
    content_type: Option<String>,
    continuation: Option<String>,
    body: Vec<u8>,
    /// Texts that no message may repeat.
    secrets: Vec<Secret>,
}

impl Answer {
    /// Returns a hash of the body without a text in it.
    fn hash_without(&self, text: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        let body = String::from_utf8_lossy(&self.body);
        match body.rsplit_once(text) {
            Some(parts) if !text.is_empty() => parts.hash(&mut hasher),
            _ => body.hash(&mut hasher),
        }
        hasher.finish()
    }

    fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| self.unreadable(call, AnswerProblem::of_json(&error)))
    }

    fn unreadable(&self, call: &Call, problem: AnswerProblem) -> Error {
        Error::Answer(Box::new(AnswerError {
            operation: call.operation(),
            status: self.status,
            content_type: self.content_type.clone(),
            problem,
            excerpt: excerpt(call, &String::from_utf8_lossy(&self.body), &self.secrets),
            profile: self.profile,
        }))
    }
}

/// What a message says instead of an answer that may contain keys.
const HIDDEN: &str = "its answer is not shown, because it may contain keys";

/// Returns the start of an answer that is not in the service's form, fit for a message. Returns `None` if it is empty or
/// may contain keys: the call returns them, or the answer is JSON or a part of JSON.
fn excerpt(call: &Call, text: &str, secrets: &[Secret]) -> Option<String> {
    let start = sanitize(text, &[]);
    let may_be_json = start.starts_with(['[', '"']) || ["{", "\":", "\" :"].iter().any(|part| start.contains(part));
    (!call.returns_keys && !start.is_empty() && !may_be_json).then(|| sanitize(text, secrets))
}

/// Tokens are checked before they are sent, so this position is never shown.
const UNPRINTABLE: AuthorizationError = AuthorizationError::Character { position: 1 };

/// Returns the texts that reveal a token: the whole header, the token without its scheme, and its signature, encoded and
/// decoded.
fn parts(token: &Secret) -> impl Iterator<Item = Secret> {
    let whole = token.expose();
    let bare = whole.split_once(' ').map(|(_, bare)| bare);
    let signature = bare.and_then(|bare| bare.split('&').find_map(|field| field.strip_prefix("sig=")));
    let decoded =
        signature.map(|text| form_urlencoded::parse(text.as_bytes()).map(|(name, _)| name).collect::<String>());
    [Some(whole), bare, signature].into_iter().flatten().map(Secret::from).chain(decoded.map(Secret::from))
}
