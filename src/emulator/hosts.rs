//! The hosts by which clients may reach the emulator.
//!
//! A web page can let its own host name resolve to a loopback address (DNS rebinding). The browser then treats the emulator
//! as part of that page's site, but still sends the page's host in its requests. So the host of every request is checked.
//!
//! Loopback addresses, `localhost` and names below `localhost` are always known: browsers and resolvers do not look them up
//! (RFC 6761 section 6.3). Others are given to the builder. The port is not checked, since forwarded ports differ.

use std::net::{IpAddr, Ipv6Addr};

use super::error::EmulatorError;

/// The name under which all names are loopback addresses.
const LOCALHOST: &str = "localhost";

/// The hosts by which clients may reach the emulator.
#[derive(Debug, Clone)]
pub(super) struct Hosts(Vec<HostName>);

/// A name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HostName {
    Address(IpAddr),
    /// A DNS name in lower case.
    Name(String),
    /// All names with one more label than this DNS name in lower case: `*.{name}`.
    Wildcard(String),
}

impl Hosts {
    /// Parses the hosts that were given. `address` is the one that the emulator listens on.
    pub(super) fn new(given: &[String], address: IpAddr) -> Result<Self, EmulatorError> {
        let mut hosts = Vec::new();
        if !address.is_unspecified() && !is_loopback(address) {
            hosts.push(HostName::Address(address));
        }
        for text in given {
            let host = HostName::parse(text).ok_or_else(|| EmulatorError::Host(text.clone()))?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        Ok(Self(hosts))
    }

    /// Returns whether clients may use a host: a name, or an address, in brackets if it is one of IPv6.
    pub(super) fn contains(&self, host: &str) -> bool {
        match HostName::parse(host) {
            Some(HostName::Address(address)) => {
                is_loopback(address) || self.0.contains(&HostName::Address(address.to_canonical()))
            }
            Some(HostName::Name(name)) => {
                name == LOCALHOST
                    || name.strip_suffix(LOCALHOST).is_some_and(|rest| rest.ends_with('.'))
                    || self.0.iter().any(|known| known.covers(&name))
            }
            Some(HostName::Wildcard(_)) | None => false,
        }
    }

    /// Returns whether a text is a name or an address, in brackets if it is one of IPv6.
    pub(super) fn is_host(text: &str) -> bool {
        matches!(HostName::parse(text), Some(HostName::Address(_) | HostName::Name(_)))
    }

    /// Returns the first host that is not a wildcard, in the form of a URL.
    pub(super) fn first(&self) -> Option<String> {
        self.0.iter().find_map(|host| match host {
            HostName::Address(IpAddr::V6(address)) => Some(format!("[{address}]")),
            HostName::Address(address) => Some(address.to_string()),
            HostName::Name(name) => Some(name.clone()),
            HostName::Wildcard(_) => None,
        })
    }

    /// Returns the names for a server certificate.
    pub(super) fn certificate_names(&self) -> Vec<String> {
        let always = [LOCALHOST, "*.localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let given = self.0.iter().map(|host| match host {
            HostName::Address(address) => address.to_string(),
            HostName::Name(name) => name.clone(),
            HostName::Wildcard(name) => format!("*.{name}"),
        });
        always.into_iter().chain(given).collect()
    }
}

impl HostName {
    /// Parses a name, an address, or `*.` and a name. A dot at the end of a name is ignored.
    fn parse(text: &str) -> Option<Self> {
        let in_brackets = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(address) = in_brackets {
            return address.parse::<Ipv6Addr>().ok().map(|address| Self::Address(IpAddr::V6(address).to_canonical()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(parent) => is_dns_name(parent).then(|| Self::Wildcard(parent.to_owned())),
            None => is_dns_name(&name).then_some(Self::Name(name)),
        }
    }

    /// Returns whether a DNS name in lower case is this one, or is covered by the wildcard.
    fn covers(&self, name: &str) -> bool {
        match self {
            Self::Address(_) => false,
            Self::Name(known) => known == name,
            Self::Wildcard(parent) => name.split_once('.').is_some_and(|(_, rest)| rest == parent),
        }
    }
}

/// Returns whether an address is a loopback address, also one of IPv4 in the form of IPv6.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Returns whether a text is a DNS name (RFC 1123 section 2.1). Underscores are allowed, as in the names of containers. A
/// name of digits only at the end would be an address in some form.
fn is_dns_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 253 && text.split('.').all(is_label) && !text.rsplit('.').next().is_some_and(is_number)
}
