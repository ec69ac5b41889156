//! The address of an application, and the versions of the API.

use std::{fmt, str::FromStr};

use crate::transport::{Address, AddressError, endpoint};

/// The maximum length of a label of a host name (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// The base domain of the public cloud. Sovereign clouds have others, for which a whole URL is parsed.
const BASE_DOMAIN: &str = "azureiotcentral.com";

/// The address of an IoT Central application: scheme, host and port.
///
/// Plain HTTP is allowed only to `localhost`, `127.0.0.0/8` and `::1`, because every request contains a token.
///
/// ```
/// use iot_enroll::central::Endpoint;
///
/// assert_eq!(Endpoint::from_subdomain("contoso")?.as_str(), "https://contoso.azureiotcentral.com");
/// assert_eq!("http://127.0.0.1:8080/api/".parse::<Endpoint>()?.as_str(), "http://127.0.0.1:8080");
/// assert!("http://contoso.azureiotcentral.com".parse::<Endpoint>().is_err());
/// # Ok::<(), iot_enroll::central::EndpointError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(Address);

endpoint!(Endpoint);

impl Endpoint {
    /// Returns the endpoint of an application in the public cloud: `https://SUBDOMAIN.azureiotcentral.com`.
    ///
    /// # Errors
    /// [`EndpointError::Subdomain`] if the text is not a label of a host name (RFC 1123 section 2.1): 1 to 63 letters,
    /// digits and hyphens, without a hyphen at either end.
    pub fn from_subdomain(subdomain: &str) -> Result<Self, EndpointError> {
        let label = (1..=MAX_LABEL).contains(&subdomain.len())
            && subdomain.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !subdomain.starts_with('-')
            && !subdomain.ends_with('-');
        if label {
            format!("https://{subdomain}.{BASE_DOMAIN}").parse()
        } else {
            Err(EndpointError::Subdomain(excerpt(subdomain)))
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        Ok(Self(Address::parse(text, "/api")?))
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(MAX_LABEL + 1).collect()
}

/// Explains why a text is not the address of an application.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// It is not a label of a host name.
    #[error(
        "{0:?} is not a subdomain: give the part of the application's address before .azureiotcentral.com, which has 1 to \
         63 letters, digits and hyphens; give the address of another cloud as a whole URL"
    )]
    Subdomain(String),
    /// It is not the address of a service.
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// A version of the IoT Central REST API, the query parameter `api-version` of every call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ApiVersion {
    /// `2022-07-31`, which is generally available.
    #[default]
    V2022_07_31,
    /// `2022-10-31-preview`, which adds deployment manifests.
    V2022_10_31Preview,
}

impl ApiVersion {
    /// All versions that this client supports.
    pub const ALL: [Self; 2] = [Self::V2022_07_31, Self::V2022_10_31Preview];

    /// Returns the version as the service writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2022_07_31 => "2022-07-31",
            Self::V2022_10_31Preview => "2022-10-31-preview",
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ApiVersion {
    type Err = ApiVersionError;

    fn from_str(text: &str) -> Result<Self, ApiVersionError> {
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| ApiVersionError(excerpt(text)))
    }
}

/// A text is not a supported version of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a supported version of the API: use 2022-07-31 or 2022-10-31-preview")]
pub struct ApiVersionError(String);
