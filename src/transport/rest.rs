//! A client of a REST service: one call with its token, at the service's rate, with retries.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Method, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName},
};
use secrecy::{ExposeSecret, SecretString};
use serde::de::{DeserializeOwned, IgnoredAny};
use time::OffsetDateTime;
use tracing::debug;

use super::{
    address::Address,
    authorization::{Authorization, AuthorizationError},
    call::{Call, Target},
    clock::Clock,
    connection::{BuildError, ConnectionOptions},
    error::{AnswerError, AnswerProblem, Error, NetworkError, ServiceError},
    http::{JSON, MAX_ANSWER, header, read_body, redirect_target, retry_after, sensitive, server_date},
    profile::ServiceProfile,
    rate::Rate,
    redact::sanitise,
    retry::{Attempts, Repeat, RetryPolicy},
};

const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// A client of one service. Clones share connections, token and rate limit.
#[derive(Clone)]
pub(crate) struct RestClient {
    inner: Arc<Inner>,
    api_version: &'static str,
}

struct Inner {
    profile: &'static ServiceProfile,
    http: reqwest::Client,
    address: Address,
    authorization: Authorization,
    retry: RetryPolicy,
    rate: Rate,
    clock: Arc<dyn Clock>,
    /// The `Date` of the last answer.
    service_date: Mutex<Option<OffsetDateTime>>,
}

impl RestClient {
    /// Builds a client. Nothing is sent.
    pub(crate) fn new(
        profile: &'static ServiceProfile,
        address: Address,
        authorization: Authorization,
        api_version: &'static str,
        options: ConnectionOptions,
    ) -> Result<Self, BuildError> {
        if let Some(at) = authorization.expired(options.clock.now()) {
            return Err(AuthorizationError::Expired { at }.into());
        }
        let inner = Inner {
            profile,
            http: options.http_client(&address)?,
            address,
            authorization,
            retry: options.retry,
            rate: Rate::new(options.rate.unwrap_or(profile.rate), Arc::clone(&options.clock)),
            clock: options.clock,
            service_date: Mutex::new(None),
        };
        Ok(Self { inner: Arc::new(inner), api_version })
    }

    /// Returns a client whose calls name another version of the API.
    pub(crate) fn with_api_version(&self, api_version: &'static str) -> Self {
        Self { inner: Arc::clone(&self.inner), api_version }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.inner.address
    }

    pub(crate) fn authorization(&self) -> &Authorization {
        &self.inner.authorization
    }

    /// Returns the `Date` of the last answer, if the service sends one.
    pub(crate) fn service_date(&self) -> Option<OffsetDateTime> {
        *self.inner.service_date.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, by the client's clock.
    pub(crate) async fn sleep(&self, duration: Duration) {
        self.inner.clock.sleep(duration).await;
    }

    /// Sends a call and reads its answer.
    pub(crate) async fn read<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        self.send(call).await?.json(call)
    }

    /// Sends a call whose answer says nothing but that it was carried out.
    pub(crate) async fn carry_out(&self, call: &Call) -> Result<(), Error> {
        self.carry_out_within(call, &mut self.attempts()).await
    }

    /// As [`carry_out`](Self::carry_out), within attempts that several calls share.
    pub(crate) async fn carry_out_within(&self, call: &Call, attempts: &mut Attempts) -> Result<(), Error> {
        let answer = self.send_within(call, attempts).await?;
        // A web page comes from something between here and the service, as from a proxy that wants a login.
        if answer.body.is_empty() { Ok(()) } else { answer.json::<IgnoredAny>(call).map(drop) }
    }

    /// As [`read`](Self::read); nothing where the service answers 404.
    pub(crate) async fn find<T: DeserializeOwned>(&self, call: &Call) -> Result<Option<T>, Error> {
        match self.read(call).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a call, again where that can help, until the service says it is done.
    pub(crate) async fn send(&self, call: &Call) -> Result<Answer, Error> {
        self.send_within(call, &mut self.attempts()).await
    }

    /// A fresh allowance of attempts.
    pub(crate) fn attempts(&self) -> Attempts {
        Attempts::new(&self.inner.retry)
    }

    /// As [`send`](Self::send), within attempts that several calls share.
    pub(crate) async fn send_within(&self, call: &Call, attempts: &mut Attempts) -> Result<Answer, Error> {
        let mut lost: Option<Error> = None;
        loop {
            let error = match self.send_once(call, attempts).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // After a lost answer, what a repetition meets may be the work of the first attempt.
            if let Some(first) = lost.take() {
                match error.status() {
                    Some(404) if call.method == Method::DELETE => {
                        return Ok(self.answer(204, &HeaderMap::new(), Vec::new(), Vec::new()));
                    }
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
    pub(crate) async fn pause(&self, attempts: &mut Attempts, failure: &Error, repeat: Repeat) -> bool {
        let throttled = failure.status() == Some(429);
        let Some(wait) = attempts.next(failure.attempt_failure(), repeat, self.inner.clock.elapsed()) else {
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
        let turn = inner.rate.queue().await;
        let token = inner.authorization.header().await.map_err(unauthorized)?;
        attempts.begin(turn.wait().await);
        let attempt = attempts.count();
        let mut request = inner
            .http
            .request(call.method.clone(), self.url(call))
            .header(AUTHORIZATION, sensitive(&token).ok_or_else(|| unauthorized(UNPRINTABLE))?)
            .header(ACCEPT, JSON);
        if let Some((content_type, body)) = &call.body {
            request = request.header(CONTENT_TYPE, *content_type).body(body.clone());
        } else if call.method == Method::POST {
            // hyper leaves it out; servers may then answer 411 (RFC 9110 section 8.6 asks for it).
            request = request.header(CONTENT_LENGTH, 0);
        }
        let broken = |error| {
            let error = NetworkError::new(call.operation(), inner.address.host(), error);
            debug!(operation = %call, attempt, failure = ?error.failure, "no answer");
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
            request_id = header(&headers, &REQUEST_ID).map(|id| sanitise(id, &secrets)),
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

    fn answer(&self, status: u16, headers: &HeaderMap, body: Vec<u8>, secrets: Vec<SecretString>) -> Answer {
        let content_type = header(headers, &CONTENT_TYPE).map(|kind| sanitise(kind, &secrets));
        Answer { profile: self.inner.profile, status, content_type, body, secrets }
    }

    fn url(&self, call: &Call) -> Url {
        match &call.target {
            Target::Link(url) => url.clone(),
            Target::Path(segments) => {
                let segments = self.inner.profile.base_path.iter().copied().chain(segments.iter().map(String::as_str));
                let mut url = self.inner.address.url(segments);
                url.query_pairs_mut().append_pair("api-version", self.api_version).extend_pairs(&call.query);
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
        let details = (self.inner.profile.parse_error)(&text);
        let now = self.inner.clock.now();
        let operation = call.operation();
        let clean = |text: &str| sanitise(text, secrets);
        Error::Service(Box::new(ServiceError {
            answer_was_lost: status >= 500 && operation.changes(),
            operation,
            status,
            code: details.code.as_deref().or_else(|| header(headers, &ERROR_CODE)).map(clean),
            message: clean(details.message.as_deref().unwrap_or(&text)),
            request_id: details.request_id.as_deref().or_else(|| header(headers, &REQUEST_ID)).map(clean),
            retry_after: retry_after(headers, now),
            attempts: 1,
            token_expired: if status == 401 { self.inner.authorization.expired(now) } else { None },
            budget: self.inner.retry.budget,
            profile: self.inner.profile,
        }))
    }
}

/// What the service answered to a call that it carried out.
pub(crate) struct Answer {
    profile: &'static ServiceProfile,
    status: u16,
    content_type: Option<String>,
    body: Vec<u8>,
    /// What no message about it may repeat.
    secrets: Vec<SecretString>,
}

impl Answer {
    fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| self.unreadable(call, AnswerProblem::of_json(&error)))
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
            profile: self.profile,
        }))
    }
}

/// A header value is checked when it is made, so this position is never shown.
const UNPRINTABLE: AuthorizationError = AuthorizationError::Character { position: 1 };

/// The texts that give a token away: the whole header, what follows its scheme, and an API token's signature.
fn parts(token: &SecretString) -> impl Iterator<Item = SecretString> {
    let whole = token.expose_secret();
    let bare = whole.split_once(' ').map(|(_, bare)| bare);
    let signature = bare.and_then(|bare| bare.split('&').find_map(|field| field.strip_prefix("sig=")));
    [Some(whole), bare, signature].into_iter().flatten().map(SecretString::from)
}
