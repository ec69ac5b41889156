//! Subject alternative names of new certificates: DNS names and IP addresses.

use std::{fmt, net::IpAddr, str::FromStr};

use rcgen::SanType;

/// The maximum length of a DNS name in characters (RFC 1035 section 2.3.4, without the length octets).
const MAX_DNS_NAME: usize = 253;

/// The maximum length of a label of a DNS name (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// A DNS name or IP address by which clients reach a server.
///
/// A DNS name has the preferred syntax that RFC 5280 section 4.2.1.6 demands: labels of ASCII letters, digits and hyphens.
/// Underscores occur in some networks, but that syntax excludes them, and some clients do. The first label may be `*`,
/// which stands for one label (RFC 9525 section 6.3). DNS names are kept in lower case, since clients ignore case.
///
/// ```
/// use iot_enroll::certificate::AlternativeName;
///
/// let name: AlternativeName = "Gateway.example".parse()?;
/// assert_eq!(name.dns_name(), Some("gateway.example"));
/// assert!(AlternativeName::new("192.0.2.1")?.ip_address().is_some());
/// assert!(AlternativeName::new("https://gateway.example").is_err());
/// # Ok::<(), iot_enroll::certificate::AlternativeNameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AlternativeName(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    Dns(String),
    Address(IpAddr),
}

/// The reason why a text is neither a DNS name nor an IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a DNS name or an IP address: {reason}")]
pub struct AlternativeNameError {
    reason: &'static str,
}

impl AlternativeName {
    /// Creates a name from text.
    ///
    /// # Errors
    /// Returns an [`AlternativeNameError`] if the text is neither a DNS name nor an IP address.
    pub fn new(text: &str) -> Result<Self, AlternativeNameError> {
        if let Ok(address) = text.parse() {
            return Ok(Self(Kind::Address(address)));
        }
        check_dns_name(text).map_err(|reason| AlternativeNameError { reason })?;
        Ok(Self(Kind::Dns(text.to_ascii_lowercase())))
    }

    /// Returns the DNS name, in lower case.
    #[must_use]
    pub fn dns_name(&self) -> Option<&str> {
        match &self.0 {
            Kind::Dns(name) => Some(name),
            Kind::Address(_) => None,
        }
    }

    /// Returns the IP address.
    #[must_use]
    pub fn ip_address(&self) -> Option<IpAddr> {
        match self.0 {
            Kind::Dns(_) => None,
            Kind::Address(address) => Some(address),
        }
    }

    /// Returns whether this is a DNS name that starts with a wildcard.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.dns_name().is_some_and(|name| name.starts_with("*."))
    }

    /// Returns the name in the model of rcgen.
    pub(super) fn to_rcgen(&self) -> Option<SanType> {
        match &self.0 {
            Kind::Dns(name) => name.as_str().try_into().ok().map(SanType::DnsName),
            Kind::Address(address) => Some(SanType::IpAddress(*address)),
        }
    }
}

impl fmt::Display for AlternativeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Dns(name) => f.write_str(name),
            Kind::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for AlternativeName {
    type Err = AlternativeNameError;

    fn from_str(text: &str) -> Result<Self, AlternativeNameError> {
        Self::new(text)
    }
}

impl TryFrom<&str> for AlternativeName {
    type Error = AlternativeNameError;

    fn try_from(text: &str) -> Result<Self, AlternativeNameError> {
        Self::new(text)
    }
}

/// Checks the syntax of a DNS name. The reasons name what people write instead of one.
fn check_dns_name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("the text is empty");
    }
    if text.contains("://") {
        return Err("give only the host of a URL");
    }
    let has_prefix = |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if ["DNS:", "IP:"].into_iter().any(has_prefix) {
        return Err("omit the prefix DNS: or IP:");
    }
    if text.starts_with('[') {
        return Err("write an IPv6 address without square brackets and port");
    }
    if text.contains('%') {
        return Err("an address has no zone, such as %eth0");
    }
    if text.contains(':') {
        return Err("give the name or address without a port; an IPv6 address has at most eight groups");
    }
    if text.contains('/') {
        return Err("give one name or address, not a path or range");
    }
    if text.contains('@') {
        return Err("a mail address is neither");
    }
    if !text.is_ascii() {
        return Err("write each international label as an A-label, which starts with xn--");
    }
    if text.contains('_') {
        return Err("a host name has no underscore");
    }
    if text.ends_with('.') {
        return Err("omit the dot at the end");
    }
    if text.len() > MAX_DNS_NAME {
        return Err("a DNS name has at most 253 characters");
    }
    check_labels(text)
}

fn check_labels(text: &str) -> Result<(), &'static str> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if name.contains('*') {
        return Err("a wildcard is the whole first label and has a domain after it, as in *.example.com");
    }
    if name.len() < text.len() && !name.contains('.') {
        // OpenSSL and webpki match no other wildcard.
        return Err("a wildcard needs two labels after it, as in *.example.com");
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL {
            return Err("each label of a DNS name has 1 to 63 characters");
        }
        if !label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-') {
            return Err("a DNS name has letters, digits, hyphens and dots");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("no label of a DNS name starts or ends with a hyphen");
        }
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err("an IPv4 address has four numbers from 0 to 255, and a DNS name does not end with a number");
    }
    Ok(())
}
