//! The response to a request of a device: the fault that affects it, or what the service answers.

use serde_json::Value;

use super::{
    packets::End,
    session::Session,
    topic::{Operation, RequestTopic},
};
use crate::emulator::{
    api_error::ApiError,
    body::parse_json,
    context::Context,
    dps::{DpsError, Outcome, poll, refuse_request, register},
    exchange_log::Exchange,
    fault::{FaultKind, whole_seconds},
    fields::Fields,
    random,
};

/// A response.
pub(super) struct Reply {
    pub(super) status: u16,
    /// In seconds.
    pub(super) retry_after: Option<u64>,
    pub(super) body: Value,
    /// Whether a fault cuts the response off in the middle.
    pub(super) is_truncated: bool,
}

impl Reply {
    fn new(status: u16, retry_after: Option<u64>, body: Value) -> Self {
        Self { status, retry_after, body, is_truncated: false }
    }

    fn error(error: &DpsError, retry_after: Option<u64>, context: &Context) -> Self {
        // An error without an ID is better than none.
        let tracking_id = random::uuid().unwrap_or_default();
        let body = error.body(&tracking_id, context.clock.timestamp());
        Self::new(error.status(), retry_after, body)
    }
}

/// Responds to a request, and logs it by the method and the path that it has over HTTP.
///
/// # Errors
/// Returns [`End::Fault`] if a fault closes the connection.
pub(super) async fn reply(
    context: &Context,
    session: &Session,
    topic: &RequestTopic<'_>,
    payload: &[u8],
) -> Result<Reply, End> {
    let (method, path) = match &topic.operation {
        Operation::Register => ("PUT", format!("{}/register", session.path())),
        Operation::Poll { operation_id } => ("GET", format!("{}/operations/{operation_id}", session.path())),
    };
    let injected = |status, retry_after| {
        Reply::error(&DpsError::from_status(status, "a fault was injected"), retry_after, context)
    };
    let handled = || handle(context, session, &topic.operation, payload);
    let reply = match context.faults.take_for_message(method, &path) {
        None => Ok(handled()),
        Some(FaultKind::Delay(time)) => {
            tokio::time::sleep(time).await;
            Ok(handled())
        }
        Some(FaultKind::CloseAfterHandling) => {
            handled();
            Err(End::Fault)
        }
        Some(FaultKind::TruncateBody) => Ok(Reply { is_truncated: true, ..handled() }),
        Some(FaultKind::Status { status, retry_after }) => Ok(injected(status, retry_after.map(whole_seconds))),
        // MQTT has no dates for this.
        Some(FaultKind::StatusUntil { status, retry_after }) => Ok(injected(status, Some(whole_seconds(retry_after)))),
        // The others never affect a message.
        Some(
            FaultKind::CloseBeforeHandling | FaultKind::CloseOnConnect | FaultKind::NotJson | FaultKind::Redirect(_),
        ) => Err(End::Fault),
    };
    let status = reply.as_ref().ok().map(|reply| reply.status);
    tracing::debug!(method, path, status, version = session.version.as_str(), "request over MQTT");
    context.log.add(method, &path, status);
    let response = reply.as_ref().ok().map(|reply| (reply.status, &reply.body));
    context.exchanges.add(Exchange::over_mqtt(method, &path, payload, response, context.clock.timestamp()));
    reply
}

fn handle(context: &Context, session: &Session, operation: &Operation, payload: &[u8]) -> Reply {
    let outcome = session.identity(context).and_then(|device| match operation {
        Operation::Register => {
            let body = parse_json(payload).map_err(|error: ApiError| DpsError::from(&error))?;
            register(context, &device, Fields::from_body(body)?, session.version)
        }
        Operation::Poll { operation_id } => {
            // Any other payload is ignored: SDKs send a space.
            if let Some(fields) = parse_json(payload).ok().and_then(|body| Fields::from_body(body).ok()) {
                refuse_request(&fields)?;
            }
            poll(context, &device, operation_id)
        }
    });
    match outcome {
        Ok(outcome @ Outcome::Assigning { .. }) => {
            Reply::new(202, Some(context.registration_retry_after), outcome.body())
        }
        Ok(outcome @ Outcome::Assigned { .. }) => Reply::new(200, None, outcome.body()),
        Err(error) => Reply::error(&error, None, context),
    }
}
