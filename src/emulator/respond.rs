//! The response to a request: the fault that affects it, or that of the router; then its error body and request ID.

use std::borrow::Cow;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, service::Service as _};
use hyper_util::service::TowerToHyperService;

use super::{
    api::Api,
    api_error::{ApiError, RetryAfter},
    arm,
    body::json_response,
    central,
    context::{Context, SharedContext},
    dps,
    exchange_log::{BodyRecorder, Exchange, RecordedBody, ResponseRecord},
    fault::{FaultKind, whole_seconds},
    fault_response::{self, Severed},
    mqtt::WEBSOCKET_PATH,
    origin::Origin,
    random,
    tls::PeerCertificates,
};

/// The response header with the request ID.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// The response header with the error code.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// Responds to a request.
///
/// # Errors
/// Returns [`Severed`] if a fault closes the connection.
pub(super) async fn respond(
    context: &SharedContext,
    router: &TowerToHyperService<Router>,
    mut request: hyper::Request<Incoming>,
) -> Result<Response, Severed> {
    let method = request.method().as_str().to_owned();
    let path = request.uri().path().to_owned();
    let recording = Recording::start(&mut request, context);
    let api = Api::from_path(&path);
    canonicalize(&mut request, api);
    // A response without an ID is better than none.
    let request_id = random::uuid().unwrap_or_default();
    let finish = |response| finish(response, context, api, &request_id);
    let origin = match Origin::of(&request, context) {
        Ok(origin) => origin,
        Err(error) => {
            let response = finish(error.into_response());
            return Ok(recording.finish(context, api, response).await);
        }
    };
    let fault = is_authenticated(&request, &origin, api, context)
        .then(|| context.faults.take_for_request(&method, &path))
        .flatten();
    request.extensions_mut().insert(origin);
    let handled = async {
        let response = router.call(request).await.unwrap_or_else(|never| match never {});
        finish(response)
    };
    let is_truncated = fault == Some(FaultKind::TruncateBody);
    let responded = match fault {
        None => Ok(handled.await),
        Some(FaultKind::Delay(time)) => {
            tokio::time::sleep(time).await;
            Ok(handled.await)
        }
        // `CloseOnConnect` never affects a request.
        Some(FaultKind::CloseBeforeHandling | FaultKind::CloseOnConnect) => Err(Severed),
        Some(FaultKind::CloseAfterHandling) => {
            handled.await;
            Err(Severed)
        }
        Some(FaultKind::TruncateBody) => fault_response::truncate(handled.await).await,
        Some(FaultKind::Status { status, retry_after }) => {
            let retry_after = retry_after.map(|time| RetryAfter::Seconds(whole_seconds(time)));
            Ok(finish(fault_response::status(status, retry_after)))
        }
        Some(FaultKind::StatusUntil { status, retry_after }) => {
            let retry_after = RetryAfter::Date(whole_seconds(retry_after));
            Ok(finish(fault_response::status(status, Some(retry_after))))
        }
        Some(FaultKind::NotJson) => Ok(fault_response::not_json()),
        Some(FaultKind::Redirect(url)) => Ok(fault_response::redirect(&url)),
    };
    let status = responded.as_ref().ok().map(|response| response.status().as_u16());
    tracing::debug!(method, path, status, request_id, "request");
    match responded {
        // Reading the body would fail like that of the client.
        Ok(response) if !is_truncated => Ok(recording.finish(context, api, response).await),
        responded => {
            recording.end(context, api, status, None);
            responded
        }
    }
}

/// The record of a request in progress.
struct Recording {
    exchange: Exchange,
    body: BodyRecorder,
}

impl Recording {
    /// Records the head of a request, and lets the reader of its body record that.
    fn start<B>(request: &mut hyper::Request<B>, context: &Context) -> Self {
        let body = BodyRecorder::default();
        let uri = request.uri();
        let exchange = Exchange {
            protocol: "http",
            time: context.clock.timestamp(),
            method: request.method().as_str().to_owned(),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            headers: request.headers().clone(),
            body: RecordedBody::None,
            response: None,
        };
        request.extensions_mut().insert(body.clone());
        Self { exchange, body }
    }

    /// Records a response, and returns it.
    async fn finish(self, context: &Context, api: Api, response: Response) -> Response {
        let (parts, body) = response.into_parts();
        // The bodies of all responses are in memory.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let record = ResponseRecord {
            status: parts.status,
            headers: parts.headers.clone(),
            body: RecordedBody::new(Some(body.clone())),
        };
        self.end(context, api, Some(parts.status.as_u16()), Some(record));
        Response::from_parts(parts, Body::from(body))
    }

    /// Ends the record. The emulator's own paths are not recorded.
    fn end(mut self, context: &Context, api: Api, status: Option<u16>, response: Option<ResponseRecord>) {
        if api == Api::Emulator {
            return;
        }
        context.log.add(&self.exchange.method, &self.exchange.path, status);
        self.exchange.body = self.body.body();
        self.exchange.response = response;
        context.exchanges.add(self.exchange);
    }
}

/// Returns whether a request carries credentials. Only those requests are affected by faults, so that a probe, or a
/// client without the token, does not use them up.
///
/// Choice: any certificate or token of a device counts, valid or not, since the service checks it later.
fn is_authenticated<B>(request: &hyper::Request<B>, origin: &Origin, api: Api, context: &Context) -> bool {
    let headers = request.headers();
    match api {
        // A probe or a look at the requests neither misbehaves nor uses up a fault.
        Api::Emulator => false,
        Api::Central => central::authorize(headers, &context.token).is_ok(),
        Api::Arm => arm::authorize(headers, context).is_ok(),
        Api::DpsService => dps::authorize(headers, origin, request.uri().path(), context).is_ok(),
        // The requests over the WebSocket carry them.
        Api::DpsDevice if request.uri().path() == WEBSOCKET_PATH => false,
        Api::DpsDevice => {
            let certificates = request.extensions().get::<PeerCertificates>();
            headers.contains_key(header::AUTHORIZATION)
                || certificates.is_some_and(|certificates| !certificates.as_slice().is_empty())
        }
    }
}

/// Rewrites the path of a request as the routes spell it.
fn canonicalize<B>(request: &mut hyper::Request<B>, api: Api) {
    let Cow::Owned(path) = api.canonical_path(request.uri().path()) else { return };
    let target = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    if let Ok(target) = target.parse() {
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(target);
        // The other parts stay, so that the result is valid.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }
}

/// Writes the body of an error response, and the request ID of every response.
fn finish(mut response: Response, context: &Context, api: Api, request_id: &str) -> Response {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let mut written = write_error(&error, context, api, request_id);
        // The router lists the methods of the route (RFC 9110 section 15.5.6).
        if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
            written.headers_mut().insert(header::ALLOW, allow);
        }
        response = written;
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn write_error(error: &ApiError, context: &Context, api: Api, request_id: &str) -> Response {
    let now = context.clock.timestamp();
    let (status, code, body) = match api {
        Api::Central | Api::Emulator => {
            let (code, body) = central::error_body(error, request_id, now);
            (error.status, Some(HeaderValue::from_static(code)), body)
        }
        Api::Arm => {
            let (status, body) = arm::error_body(error);
            (status, None, body)
        }
        Api::DpsDevice | Api::DpsService => {
            let error = dps::DpsError::from(error);
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, Some(HeaderValue::from(error.code)), error.body(request_id, now))
        }
    };
    let mut response = json_response(status, &body);
    let headers = response.headers_mut();
    if let Some(code) = code {
        headers.insert(ERROR_CODE, code);
    }
    let retry_after = error.retry_after.map(|retry_after| HeaderValue::try_from(retry_after.header(now)));
    if let Some(Ok(retry_after)) = retry_after {
        headers.insert(header::RETRY_AFTER, retry_after);
    }
    response
}
