//! The address of the Device Provisioning Service.

use std::{fmt, str::FromStr};

use crate::transport::{Address, AddressError};

/// The global device endpoint of the public cloud.
const GLOBAL: &str = "https://global.azure-devices-provisioning.net";

/// The address of a Device Provisioning Service: scheme, host and port. The default is
/// `https://global.azure-devices-provisioning.net`.
///
/// An address without a scheme, as device SDKs take it, is `https`. Plain HTTP is allowed only to `localhost`,
/// `127.0.0.0/8` and `::1`; a certificate cannot be presented over it.
///
/// ```
/// use iot_enroll::dps::device::ProvisioningEndpoint;
///
/// let endpoint: ProvisioningEndpoint = "contoso.azure-devices-provisioning.net".parse()?;
/// assert_eq!(endpoint.as_str(), "https://contoso.azure-devices-provisioning.net");
/// assert!("http://global.azure-devices-provisioning.net".parse::<ProvisioningEndpoint>().is_err());
/// # Ok::<(), iot_enroll::dps::device::ProvisioningEndpointError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProvisioningEndpoint(Address);

impl ProvisioningEndpoint {
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

    /// Returns whether the endpoint is on this machine.
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

impl Default for ProvisioningEndpoint {
    fn default() -> Self {
        // A constant. The tests check that it is an address.
        Self::from_str(GLOBAL).unwrap_or_else(|error| unreachable!("{error}"))
    }
}

impl FromStr for ProvisioningEndpoint {
    type Err = ProvisioningEndpointError;

    fn from_str(text: &str) -> Result<Self, ProvisioningEndpointError> {
        Ok(Self(Address::parse_host_or_url(text)?))
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

/// A text is not the address of a provisioning service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; the address of the provisioning service is {GLOBAL} or that of a private endpoint, and the ID scope is a separate value"
)]
pub struct ProvisioningEndpointError(#[from] AddressError);
