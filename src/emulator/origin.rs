//! The origin by which a client reached the emulator, and the check that the client may use it.
//!
//! # Where the documentation is silent
//! - **An unknown host** is 421 (RFC 9110 section 15.5.20). No `Host`, several, or one that is malformed is 400 (RFC 9112
//!   section 3.2); HTTP/1.0 needs none.
//! - **An absolute URL as the target** takes precedence over `Host` (RFC 9112 section 3.2.2). Both are checked.
//! - **The header `Origin`**, which browsers send, must name a known host (403). A page on `http://localhost:3000` may
//!   therefore send requests, but no response has the headers by which a browser would let it read the response.

use std::{convert::Infallible, fmt};

use axum::{
    extract::FromRequestParts,
    http::{Request, StatusCode, Uri, Version, header, request::Parts},
};

use super::{
    api_error::ApiError,
    context::{Context, SharedContext},
    hosts::Hosts,
};

/// The scheme and authority by which the client reached the emulator; links in responses start with it.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    scheme: &'static str,
    /// The host and, if it is not the default, the port.
    pub(super) authority: String,
}

impl Origin {
    /// Returns the origin of a request if the client may use it.
    pub(super) fn of<B>(request: &Request<B>, context: &Context) -> Result<Self, ApiError> {
        let headers = request.headers();
        let mut all = headers.get_all(header::HOST).iter();
        let host = match (all.next(), all.next()) {
            (Some(host), None) => Some(host.to_str().unwrap_or_default()),
            (None, _) if request.version() < Version::HTTP_11 => None,
            (None, _) => return Err(ApiError::bad_request("the header Host is missing")),
            (Some(_), Some(_)) => return Err(ApiError::bad_request("there are several Host headers; send one")),
        };
        let target = request.uri().authority().map(axum::http::uri::Authority::as_str);
        for authority in host.into_iter().chain(target) {
            check_authority(authority, &context.hosts)?;
        }
        check_browser(request, &context.hosts)?;
        let authority = target.or(host).unwrap_or(&context.authority);
        let authority = authority.strip_suffix(':').unwrap_or(authority);
        Ok(Self { scheme: context.scheme, authority: authority.to_owned() })
    }
}

/// Checks a host with an optional port.
fn check_authority(authority: &str, hosts: &Hosts) -> Result<(), ApiError> {
    let malformed = || ApiError::bad_request("the header Host is malformed; send a host name or address, and a port");
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let is_number = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
            if !(port.is_empty() || is_number) {
                return Err(malformed());
            }
            host
        }
        _ => authority,
    };
    if !Hosts::is_host(host) || (host.contains(':') && !host.starts_with('[')) {
        return Err(malformed());
    }
    if hosts.contains(host) {
        return Ok(());
    }
    let message = format!(
        "the host {host:?} is not one of this emulator; use localhost or a loopback address, or start the emulator with the \
         option --host {host}"
    );
    Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, message))
}

/// Checks the page that a browser sends a request for, if one does.
fn check_browser<B>(request: &Request<B>, hosts: &Hosts) -> Result<(), ApiError> {
    for origin in request.headers().get_all(header::ORIGIN) {
        let uri = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
        if !uri.is_some_and(|uri| uri.host().is_some_and(|host| hosts.contains(host))) {
            let message =
                "a web page of another site cannot use the emulator; the header Origin is not one of its hosts";
            return Err(ApiError::new(StatusCode::FORBIDDEN, message));
        }
    }
    Ok(())
}

impl FromRequestParts<SharedContext> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, context: &SharedContext) -> Result<Self, Infallible> {
        let own = || Self { scheme: context.scheme, authority: context.authority.clone() };
        Ok(parts.extensions.get().cloned().unwrap_or_else(own))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}
