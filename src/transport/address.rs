//! The address of a service.

use std::{fmt, net::IpAddr};

use reqwest::Url;

/// The address of a service: scheme, host and port.
///
/// Plain HTTP is allowed only to `localhost`, `127.0.0.0/8` and `::1`, because requests carry secrets.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address(Url);

impl Address {
    /// Parses an address. Refuses a path other than `/` or `base_path`.
    pub(crate) fn parse(text: &str, base_path: &str) -> Result<Self, AddressError> {
        let mut url = Url::parse(text.trim()).map_err(|_| AddressError::Url)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(AddressError::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(AddressError::Query);
        }
        let path = url.path().trim_end_matches('/');
        if !path.is_empty() && path != base_path {
            return Err(AddressError::Path(url.path().chars().take(64).collect()));
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            return Err(AddressError::PlainHttp(url.authority().to_owned()));
        }
        url.set_path("/");
        Ok(Self(url))
    }

    /// Parses a host, which means `https`, or a URL.
    pub(crate) fn parse_host_or_url(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.contains("://") { Self::parse(text, "") } else { Self::parse(&format!("https://{text}"), "") }
    }

    /// Returns the address of a host, with a port or without, that another service names. It is `https`, unless that
    /// service is reached by plain HTTP and the host is on this machine, as with an emulator.
    pub(crate) fn named_by(other: &Self, host: &str) -> Result<Self, AddressError> {
        let encrypted = Self::parse(&format!("https://{host}"), "")?;
        if other.is_https() || !encrypted.is_loopback() {
            return Ok(encrypted);
        }
        Self::parse(&format!("http://{host}"), "")
    }

    /// Returns the address as text, without a trailing slash.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// Returns the host, with the port unless it is the scheme's default.
    pub(crate) fn host(&self) -> &str {
        self.0.authority()
    }

    /// Returns whether the address is on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// Returns whether requests are encrypted.
    pub(crate) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Returns the URL of a path.
    pub(crate) fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Resolves a link from an answer. Fails with the reason unless it points to this address.
    pub(crate) fn follow(&self, link: &str) -> Result<Url, String> {
        let url = self.0.join(link).map_err(|_| "it is not a URL".to_owned())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it contains a user name or password".to_owned());
        }
        if url.origin() != self.0.origin() {
            return Err(format!("it points to {}://{}", url.scheme(), url.authority()));
        }
        Ok(url)
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        // URLs have IPv6 addresses in brackets.
        host == "localhost"
            || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Explains why a text is not the address of a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is not a URL.
    #[error("the address is not a URL: write it as https://HOST")]
    Url,
    /// It is neither `https` nor `http`.
    #[error("the address starts with {0}: instead of https://")]
    Scheme(String),
    /// It has a user name or password.
    #[error("the address has a user name or password before its host: remove it")]
    UserInfo,
    /// It has a query or fragment.
    #[error("the address has a query or fragment: give scheme and host only, as in https://HOST")]
    Query,
    /// It has a path.
    #[error("the address has the path {0}: give scheme and host only, as in https://HOST")]
    Path(String),
    /// It is plain HTTP to another machine.
    #[error("plain http to {0} would send credentials unencrypted: use https (http is allowed only to this machine)")]
    PlainHttp(String),
}
