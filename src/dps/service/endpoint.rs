//! The address of the service API of an instance.

use std::str::FromStr;

use crate::transport::{Address, AddressError, endpoint};

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

endpoint!(Endpoint);

impl Endpoint {
    pub(crate) fn from_address(address: Address) -> Self {
        Self(address)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        Ok(Self(Address::parse_host_or_url(text)?))
    }
}

/// A text is not the address of the service API of an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; the service address of an instance looks like NAME.azure-devices-provisioning.net")]
pub struct EndpointError(#[from] AddressError);
