//! The address of the service API of an instance.

use std::{fmt, str::FromStr};

use crate::transport::{Address, AddressError};

/// The address of the service API of an instance: scheme, host and port.
///
/// Resource Manager names it as `serviceOperationsHostName`. An address without a scheme is `https`. Plain HTTP is allowed
/// only to `localhost`, `127.0.0.0/8` and `::1`, because every request contains a token.
///
/// ```
/// use iot_enroll::dps::service::Endpoint;
///
/// let endpoint: Endpoint = "contoso.azure-devices-provisioning.net".parse()?;
/// assert_eq!(endpoint.as_str(), "https://contoso.azure-devices-provisioning.net");
/// assert!("http://contoso.azure-devices-provisioning.net".parse::<Endpoint>().is_err());
/// # Ok::<(), iot_enroll::dps::service::EndpointError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(Address);

impl Endpoint {
    pub(crate) fn from_address(address: Address) -> Self {
        Self(address)
    }

    /// Returns the endpoint as text, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns the host, with the port unless it is the scheme's default.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host()
    }

    /// Returns whether the endpoint is on this machine: `localhost`, `127.0.0.0/8` or `::1`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.0.is_loopback()
    }

    /// Returns whether requests are encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.is_https()
    }

    pub(super) fn address(&self) -> &Address {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        Ok(Self(Address::parse_host_or_url(text)?))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// A text is not the address of the service API of an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; the service address of an instance looks like NAME.azure-devices-provisioning.net")]
pub struct EndpointError(#[from] AddressError);
