//! The address of the Device Provisioning Service.

use std::str::FromStr;

use crate::transport::{Address, AddressError, endpoint};

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

endpoint!(ProvisioningEndpoint);

impl ProvisioningEndpoint {
    pub(crate) fn from_address(address: Address) -> Self {
        Self(address)
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

/// A text is not the address of a provisioning service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; the address of the provisioning service is {GLOBAL} or that of a private endpoint, and the ID scope is a separate value"
)]
pub struct ProvisioningEndpointError(#[from] AddressError);
