//! Where the Device Provisioning Service answers.

use std::{fmt, str::FromStr};

use reqwest::Url;

use crate::central::is_loopback;

/// The address at which all of the public cloud's devices register.
const GLOBAL: &str = "https://global.azure-devices-provisioning.net";

/// The address of a Device Provisioning Service: scheme, host and port, nothing else. The default is
/// `https://global.azure-devices-provisioning.net`.
///
/// A host alone, as device SDKs take it, is taken for `https`. Plain HTTP is taken only to `localhost`, `127.0.0.0/8` and
/// `::1`; a certificate cannot be presented over it.
///
/// ```
/// use iot_enroll::registration::ProvisioningEndpoint;
///
/// let endpoint: ProvisioningEndpoint = "contoso.azure-devices-provisioning.net".parse()?;
/// assert_eq!(endpoint.as_str(), "https://contoso.azure-devices-provisioning.net");
/// assert!("http://global.azure-devices-provisioning.net".parse::<ProvisioningEndpoint>().is_err());
/// # Ok::<(), iot_enroll::registration::ProvisioningEndpointError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProvisioningEndpoint(Url);

impl ProvisioningEndpoint {
    /// The endpoint as text, without a slash at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// The host, with the port where it is not the scheme's own.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.authority()
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// Whether requests are encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The URL of a path.
    pub(super) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

impl Default for ProvisioningEndpoint {
    fn default() -> Self {
        // A constant, which the tests hold to be an address.
        Self::from_str(GLOBAL).unwrap_or_else(|error| unreachable!("{error}"))
    }
}

impl FromStr for ProvisioningEndpoint {
    type Err = ProvisioningEndpointError;

    fn from_str(text: &str) -> Result<Self, ProvisioningEndpointError> {
        use ProvisioningEndpointError as Error;
        let text = text.trim();
        let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&whole).map_err(|error| Error::Url(error.to_string()))?;
        let https = url.scheme() == "https";
        if !https && url.scheme() != "http" {
            return Err(Error::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::UserInfo);
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(Error::Path);
        }
        if !https && !is_loopback(&url) {
            return Err(Error::PlainHttp(url.authority().to_owned()));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for ProvisioningEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ProvisioningEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProvisioningEndpoint({self})")
    }
}

/// Why a text is not the address of a provisioning service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisioningEndpointError {
    /// Not a URL at all.
    #[error("the address of the provisioning service is not a URL ({0}): write it as {GLOBAL}")]
    Url(String),
    /// Neither `https` nor `http`.
    #[error("the address of the provisioning service begins with {0}: where https:// is expected")]
    Scheme(String),
    /// A user name or password in the URL.
    #[error("the address of the provisioning service has a user name or password before its host: remove it")]
    UserInfo,
    /// A path, query or fragment in the URL.
    #[error("the address of the provisioning service has more than scheme and host: the id scope is given apart")]
    Path,
    /// Plain HTTP to another machine.
    #[error("plain http to {0} would be open to all: use https (http is taken only to this machine)")]
    PlainHttp(String),
}
