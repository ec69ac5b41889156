//! Helpers for HTTP requests and answers.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use reqwest::{
    Response, StatusCode, Url,
    header::{DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER},
    redirect,
};

use super::{redact::sanitize, secret::Secret};
use crate::certificate::Timestamp;

/// The most bytes of an answer that are read. A page of a hundred devices is smaller by a factor of a hundred.
pub(crate) const MAX_ANSWER: usize = 16 << 20;

pub(crate) const JSON: &str = "application/json";

/// Starts building an HTTP client that follows no redirects and bypasses proxies for loopback addresses.
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
    // A proxy would see the token. The addresses are fixed so that a hosts file cannot send `localhost` elsewhere.
    let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
    http.no_proxy().resolve_to_addrs("localhost", &addresses)
}

/// Returns a header's value if it is present and is text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Reads a body. Fails with `None` if it has more than [`MAX_ANSWER`] bytes.
pub(crate) async fn read_body(mut response: Response) -> Result<Vec<u8>, Option<reqwest::Error>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Some)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Returns a header value that HTTP libraries neither print nor index, or `None` if the text is not valid in a header.
pub(crate) fn sensitive(value: &Secret) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(value.expose()).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Returns the time by the server's clock, from `Date`.
pub(crate) fn server_date(headers: &HeaderMap) -> Option<Timestamp> {
    header(headers, &DATE).and_then(|date| httpdate::parse_http_date(date).ok()).map(Into::into)
}

/// Returns how long the server asks to wait, from `Retry-After`.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    header(headers, &RETRY_AFTER).and_then(|value| parse_retry_after(value, now))
}

/// Returns the host that a redirect points to, or the start of its location if that is not a URL. Returns `None` for
/// other answers.
pub(crate) fn redirect_target(status: StatusCode, headers: &HeaderMap, secrets: &[Secret]) -> Option<String> {
    let location = header(headers, &LOCATION).filter(|_| status.is_redirection())?;
    let target = Url::parse(location).map_or_else(|_| location.to_owned(), |url| url.authority().to_owned());
    Some(sanitize(&target, secrets))
}

/// Reads `Retry-After` (RFC 9110 section 10.2.3), which is a number of seconds or a date. A past date gives zero, a
/// number that is too large [`Duration::MAX`], and anything else `None`.
fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}
