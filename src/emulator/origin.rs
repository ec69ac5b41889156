//! The origin by which a client reached the emulator.

use std::{convert::Infallible, fmt};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts, uri::Authority},
};

use super::context::{Context, SharedContext};

/// The scheme and authority by which the client reached the emulator; links in responses start with it.
///
/// The authority is that of the `Host` header, since a client does not follow a link to another host with its token. It
/// can be any name: containers, `/etc/hosts` and forwarded ports lead here as well, and only the client that sent the
/// header gets the link.
pub(super) struct Origin {
    scheme: &'static str,
    /// The host and, if it is not the default, the port.
    pub(super) authority: String,
}

impl Origin {
    pub(super) fn new(headers: &HeaderMap, context: &Context) -> Self {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        let host = host.filter(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
        let authority = host.map_or_else(|| context.authority.clone(), |authority| authority.to_string());
        Self { scheme: context.scheme, authority }
    }
}

impl FromRequestParts<SharedContext> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, context: &SharedContext) -> Result<Self, Infallible> {
        Ok(Self::new(&parts.headers, context))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}
