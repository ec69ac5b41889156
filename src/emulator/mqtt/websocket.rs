//! MQTT over WebSocket (RFC 6455) on the HTTPS port.
//!
//! # Where the documentation is silent
//! - **The handshake** needs version 13 (426 otherwise) and the subprotocol `mqtt` (400 otherwise). It is not affected by
//!   faults, so that a fault for requests of devices does the same with and without WebSocket.
//! - **A text message** closes the connection ([MQTT-6.0.0-1]). A message has at most the size of a packet.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
    routing::get as on_get,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{channel::Channel, limits::MAX_PACKET};
use crate::emulator::{api_error::ApiError, context::SharedContext, path::unknown_method};

/// The path of the handshake.
pub(crate) const PATH: &str = "/$iothub/websocket";

const SUBPROTOCOL: &str = "mqtt";

/// What the server appends to the client's key (RFC 6455 section 1.3).
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The size of the read buffer, which every idle connection has.
const READ_BUFFER: usize = 1024;

/// Returns the route of the handshake.
pub(crate) fn routes() -> Router<SharedContext> {
    Router::new().route(PATH, on_get(accept)).method_not_allowed_fallback(unknown_method)
}

/// The upgrade of an HTTP connection, from the request that asks for it until the connection is free.
#[derive(Clone, Default)]
pub(crate) struct PendingUpgrade(Arc<Mutex<Option<OnUpgrade>>>);

impl PendingUpgrade {
    fn set(&self, upgrade: OnUpgrade) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
    }

    /// Returns the channel of a connection that was upgraded, once it is free. `None` for any other connection.
    pub(crate) async fn channel(&self) -> Option<impl Channel> {
        let upgrade = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let stream = TokioIo::new(upgrade.await.ok()?);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            // Every message is flushed anyway.
            .write_buffer_size(0)
            .max_message_size(Some(MAX_PACKET))
            .max_frame_size(Some(MAX_PACKET));
        Some(WebSocketChannel(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await))
    }
}

/// Accepts the handshake of a WebSocket (RFC 6455 section 4.2).
///
/// Written here since the `handshake` feature of tungstenite reads requests from a socket, and that of axum brings another
/// version of tungstenite.
async fn accept(mut request: Request) -> Result<Response, ApiError> {
    let headers = request.headers();
    if !has_token(headers, &header::UPGRADE, "websocket") || !has_token(headers, &header::CONNECTION, "upgrade") {
        return Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, "this path is for WebSocket only"));
    }
    if !has_token(headers, &header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, "the version of WebSocket must be 13"));
    }
    if !has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(ApiError::bad_request("the subprotocol must be mqtt"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| BASE64_STANDARD.decode(key).is_ok());
    let key = key.ok_or_else(|| ApiError::bad_request("Sec-WebSocket-Key must be given, in base64"))?;
    let accept = Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize();
    let accept = HeaderValue::try_from(BASE64_STANDARD.encode(accept));
    let (pending, upgrade) = (request.extensions().get::<PendingUpgrade>().cloned(), upgrade(&mut request));
    let (Some(pending), Some(upgrade), Ok(accept)) = (pending, upgrade, accept) else {
        return Err(ApiError::bad_request("this connection cannot be upgraded"));
    };
    pending.set(upgrade);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}

/// Returns the upgrade of a request. HTTP/1.0 has none.
fn upgrade(request: &mut Request) -> Option<OnUpgrade> {
    request.extensions_mut().remove()
}

/// Returns whether a header that is a list has a token, without regard to case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(token))
}

/// A WebSocket as a channel.
struct WebSocketChannel(WebSocketStream<TokioIo<Upgraded>>);

impl Channel for WebSocketChannel {
    async fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            match self.0.next().await {
                // An empty message is not the end.
                Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => {}
                Some(Ok(Message::Binary(bytes))) => {
                    buffer.extend_from_slice(&bytes);
                    return Ok(bytes.len());
                }
                // The library answers a ping.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => return Err(io::ErrorKind::InvalidData.into()),
                Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed)) | None => return Ok(0),
                Some(Err(error)) => return Err(to_io_error(error)),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.send(Message::binary(bytes.to_vec())).await.map_err(to_io_error)
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.0.close(None).await.map_err(to_io_error)
    }
}

fn to_io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
