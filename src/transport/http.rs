//! What every HTTP connection of this crate has in common.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use reqwest::{
    Response, StatusCode, Url,
    header::{DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;

use super::redact::sanitise;

/// The most bytes of an answer that are read. A page of a hundred devices has well below one hundredth of it.
pub(crate) const MAX_ANSWER: usize = 16 << 20;

pub(crate) const JSON: &str = "application/json";

/// Starts a client that follows no redirect and reaches loopback addresses directly.
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
    // A proxy would see the token; and whatever a hosts file says, localhost is this machine.
    let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
    http.no_proxy().resolve_to_addrs("localhost", &addresses)
}

/// Returns a header's value, if it is there and is text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Reads a body of at most [`MAX_ANSWER`] bytes. Fails with `None` if there is more.
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

/// Marks a header's value so that nothing on its way prints it. `None` if no header can hold it.
pub(crate) fn sensitive(value: &SecretString) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(value.expose_secret()).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Returns the time by the server's clock, from `Date`.
pub(crate) fn server_date(headers: &HeaderMap) -> Option<OffsetDateTime> {
    header(headers, &DATE).and_then(|date| httpdate::parse_http_date(date).ok()).map(Into::into)
}

/// Returns how long the server asks to wait, from `Retry-After`.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    header(headers, &RETRY_AFTER).and_then(|value| parse_retry_after(value, now))
}

/// Returns the host that a redirect points to, or the start of its location if that is no URL. `None` if it is no redirect.
pub(crate) fn redirect_target(status: StatusCode, headers: &HeaderMap, secrets: &[SecretString]) -> Option<String> {
    let location = header(headers, &LOCATION).filter(|_| status.is_redirection())?;
    let target = Url::parse(location).map_or_else(|_| location.to_owned(), |url| url.authority().to_owned());
    Some(sanitise(&target, secrets))
}

/// Reads `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date. A date gone by is no time at all, a number too
/// large to hold [`Duration::MAX`]; anything else is nothing.
fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}
