//! What every request passes: faults, authorization, throttling, query and version; and what every answer passes on its
//! way out.

use std::{collections::HashMap, fmt, time::Duration};

use axum::{
    Extension, Router,
    extract::{FromRequestParts, OriginalUri, RawPathParams, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use form_urlencoded::Serializer;
use governor::{
    RateLimiter,
    clock::Clock as _,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use hyper::{body::Incoming, service::Service as _};
use hyper_util::service::TowerToHyperService;

use super::{
    application::Shared,
    clock::Clock,
    error::{self, ApiError, Face, RetryAfter},
    fault::{self, FaultKind, Severed},
    random,
    tls::Presented,
};

/// The response header with the request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// The query parameter that names the version.
pub(super) const API_VERSION: &str = "api-version";

/// A version of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ApiVersion {
    /// `2022-07-31`, which is generally available.
    Stable,
    /// `2022-10-31-preview`.
    Preview,
    /// `2022-06-30-preview`, which `az iot central device list` sends. Its parameters of lists are those of `2022-07-31`.
    Preview2022_06_30,
}

impl ApiVersion {
    const ALL: [Self; 3] = [Self::Stable, Self::Preview, Self::Preview2022_06_30];

    /// How the query parameter `api-version` names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "2022-07-31",
            Self::Preview => "2022-10-31-preview",
            Self::Preview2022_06_30 => "2022-06-30-preview",
        }
    }

    /// Whether devices have a type in it.
    pub(super) fn has_device_types(self) -> bool {
        self != Self::Stable
    }
}

/// The rate limit of the application, over all tokens.
pub(super) type Throttle = RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Duration>>;

/// The emulator's clock as the rate limiter reads it.
pub(super) struct Ticks(pub(super) Clock);

impl governor::clock::Clock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Answers one request.
pub(super) async fn answer(
    application: &Shared,
    router: &TowerToHyperService<Router>,
    request: hyper::Request<Incoming>,
) -> Result<Response, Severed> {
    let method = request.method().as_str().to_owned();
    let path = request.uri().path().to_owned();
    // An answer without an id is better than none.
    let request_id = random::uuid().unwrap_or_default();
    let finish = |response| finish(response, application, Face::of(&path), &request_id);
    let authenticated = is_authenticated(&request, Face::of(&path), &application.token);
    let handled = async {
        let response = router.call(request).await.unwrap_or_else(|never| match never {});
        finish(response)
    };
    let fault = if authenticated { application.faults.strike(&method, &path) } else { None };
    let answered = match fault {
        None => Ok(handled.await),
        Some(FaultKind::Delay(time)) => {
            tokio::time::sleep(time).await;
            Ok(handled.await)
        }
        // The server closes such a connection before it has a request.
        Some(FaultKind::CloseBeforeHandling | FaultKind::CloseOnConnect) => Err(Severed),
        Some(FaultKind::CloseAfterHandling) => {
            handled.await;
            Err(Severed)
        }
        Some(FaultKind::TruncateBody) => fault::truncate(handled.await).await,
        Some(FaultKind::Status { status, retry_after }) => {
            let retry_after = retry_after.map(|time| RetryAfter::Seconds(fault::seconds(time)));
            Ok(finish(fault::status(status, retry_after)))
        }
        Some(FaultKind::StatusUntil { status, retry_after }) => {
            let retry_after = RetryAfter::Date(fault::seconds(retry_after));
            Ok(finish(fault::status(status, Some(retry_after))))
        }
        Some(FaultKind::NotJson) => Ok(fault::not_json()),
        Some(FaultKind::Redirect(url)) => Ok(fault::redirect(&url)),
    };
    let status = answered.as_ref().ok().map(|response| response.status().as_u16());
    tracing::debug!(method, path, status, request_id, "request");
    application.log.add(&method, &path, status);
    answered
}

/// Whether a request has what the service asks for before anything else. Faults strike no other request, so that a probe or a
/// client with a wrong token does not use them up.
///
/// Choice: a device has it with a certificate or a token, right or wrong. Which of them is right is the service's answer, and a
/// fault may come instead.
fn is_authenticated<B>(request: &hyper::Request<B>, face: Face, token: &str) -> bool {
    let headers = request.headers();
    match face {
        Face::Application => authorize(headers, token).is_ok(),
        Face::Provisioning => {
            let presented = request.extensions().get::<Presented>();
            headers.contains_key(header::AUTHORIZATION)
                || presented.is_some_and(|presented| !presented.certificates().is_empty())
        }
    }
}

fn finish(response: Response, application: &Shared, face: Face, request_id: &str) -> Response {
    let mut response = error::finish(response, face, request_id, application.clock.now());
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The checks before any route of the API.
///
/// Choice: throttling counts what is authorized, whether it is otherwise right or not.
pub(super) async fn check(State(application): State<Shared>, mut request: Request, next: Next) -> Response {
    let checked = authorize(request.headers(), &application.token)
        .and_then(|()| application.throttle.as_ref().map_or(Ok(()), throttle))
        .and_then(|()| Query::read(request.uri().query().unwrap_or_default()));
    match checked {
        Ok(query) => {
            let origin = application.origin(request.headers());
            request.extensions_mut().insert(query);
            request.extensions_mut().insert(origin);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    }
}

/// Choice: the header is compared as a whole and to the letter. A token's own expiry (`se`) is not looked at.
fn authorize(headers: &HeaderMap, token: &str) -> Result<(), ApiError> {
    let refuse = |message| Err(ApiError::new(StatusCode::UNAUTHORIZED, message));
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    match (all.next(), all.next()) {
        (None, _) => refuse("the Authorization header is missing; send the API token in it, as it is"),
        (Some(_), Some(_)) => refuse("there are several Authorization headers; send one"),
        (Some(found), None) => aws_lc_rs::constant_time::verify_slices_are_equal(found.as_bytes(), token.as_bytes())
            .or_else(|_| {
                refuse("the token in the Authorization header is not this application's; send the API token as it is")
            }),
    }
}

fn throttle(limit: &Throttle) -> Result<(), ApiError> {
    limit.check().map_err(|refused| {
        let wait = fault::seconds(refused.wait_time_from(limit.clock().now())).max(1);
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "there are too many requests; wait, and send fewer at a time")
            .retry_after(Some(RetryAfter::Seconds(wait)))
    })
}

/// The query of a request: its parameters in their order, each once, among them a known version.
#[derive(Clone)]
pub(super) struct Query {
    version: ApiVersion,
    parameters: Vec<(String, String)>,
}

impl Query {
    fn read(query: &str) -> Result<Self, ApiError> {
        let pairs = read_pairs(query)?;
        let Some((_, given)) = pairs.iter().find(|(name, _)| name == API_VERSION) else {
            return Err(ApiError::bad_request(format!(
                "the query parameter {API_VERSION} is missing; use {API_VERSION}={}",
                ApiVersion::Stable.as_str()
            )));
        };
        let Some(version) = ApiVersion::ALL.into_iter().find(|version| version.as_str() == given) else {
            return Err(ApiError::bad_request(format!(
                "{API_VERSION} {given:?} is not known here; use {}",
                ApiVersion::ALL.map(ApiVersion::as_str).join(" or ")
            )));
        };
        Ok(Self { version, parameters: pairs })
    }

    pub(super) fn version(&self) -> ApiVersion {
        self.version
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// All parameters but this one, ready for more.
    pub(super) fn without(&self, name: &str) -> Serializer<'static, String> {
        let mut others = Serializer::new(String::new());
        others.extend_pairs(self.parameters.iter().filter(|(found, _)| found != name));
        others
    }

    /// Refuses every parameter that the route does not have.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        let mut names = self.parameters.iter().map(|(name, _)| name.as_str());
        match names.find(|name| *name != API_VERSION && !known.contains(name)) {
            Some(name) => Err(ApiError::bad_request(format!("the query parameter {name:?} does not exist here"))),
            None => Ok(()),
        }
    }
}

/// The parameters of a query. Choice: one that is given twice with the same value counts once, since shipped clients add
/// the version to a `nextLink` that has it. With different values it is refused: either could be meant.
pub(super) fn read_pairs(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    let mut values: HashMap<String, String> = HashMap::new();
    let mut pairs = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
        match values.get(&name) {
            None => {
                values.insert(name.clone(), value.clone());
                pairs.push((name, value));
            }
            Some(found) if *found == value => {}
            Some(_) => {
                let message = format!("the query parameter {name:?} is given more than once, with different values");
                return Err(ApiError::bad_request(message));
            }
        }
    }
    Ok(pairs)
}

/// For routes without parameters but the version.
pub(super) async fn no_parameters(Extension(query): Extension<Query>, request: Request, next: Next) -> Response {
    match query.only(&[]) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

/// For routes that only the preview version has: they do not exist in the other.
pub(super) async fn preview_only(
    Extension(query): Extension<Query>,
    OriginalUri(uri): OriginalUri,
    request: Request,
    next: Next,
) -> Response {
    if query.version == ApiVersion::Preview {
        return next.run(request).await;
    }
    let message = format!(
        "there is nothing at {} in version {}; use {API_VERSION}={}",
        uri.path(),
        query.version.as_str(),
        ApiVersion::Preview.as_str()
    );
    ApiError::not_found(message).into_response()
}

/// For routes on things without an etag.
///
/// Choice: `If-Match` is refused there (400). A client that sends it relies on a refusal when something has changed, and would
/// never get one.
pub(super) async fn no_if_match(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::IF_MATCH) {
        return ApiError::bad_request("the header If-Match is not for this path: there is no etag to compare")
            .into_response();
    }
    next.run(request).await
}

/// Scheme and authority by which the client reached the application.
#[derive(Clone)]
pub(super) struct Origin(pub(super) String);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A parameter of the path, percent-decoded.
pub(super) async fn path_parameter(parts: &mut Parts, name: &str) -> Result<String, ApiError> {
    let parameters = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|_| ApiError::bad_request("the path is not UTF-8 once it is percent-decoded"))?;
    let found = parameters.iter().find(|(found, _)| *found == name);
    // Every route that asks has it.
    found.map(|(_, value)| value.to_owned()).ok_or_else(|| ApiError::not_found("there is no such path"))
}

pub(super) async fn unknown_route(OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::not_found(format!("there is nothing at {}", uri.path()))
}

pub(super) async fn unknown_method(request: Request) -> ApiError {
    let message = format!("the method {} is not for this path", request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
