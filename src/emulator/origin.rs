//! The origin by which a client reached the emulator.

use std::{convert::Infallible, fmt};

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts, uri::Authority},
};

use super::context::SharedContext;

/// The scheme and authority by which the client reached the emulator; links in responses start with it.
///
/// The authority is that of the `Host` header, since a client does not follow a link to another host with its token. It
/// can be any name: containers, `/etc/hosts` and forwarded ports lead here as well, and only the client that sent the
/// header gets the link.
pub(super) struct Origin(String);

impl FromRequestParts<SharedContext> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, context: &SharedContext) -> Result<Self, Infallible> {
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        Ok(match host.filter(|authority| !authority.host().is_empty() && !authority.as_str().contains('@')) {
            Some(authority) => Self(format!("{}://{authority}", context.scheme)),
            None => Self(context.endpoint.clone()),
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
