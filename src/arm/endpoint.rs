//! The address of Resource Manager.

use std::str::FromStr;

use crate::transport::{Address, AddressError, endpoint};

/// The public cloud's.
const PUBLIC: &str = "https://management.azure.com";

/// The address of Azure Resource Manager: scheme, host and port. The default is `https://management.azure.com`, that of the
/// public cloud.
///
/// An address without a scheme is `https`. Plain HTTP is allowed only to `localhost`, `127.0.0.0/8` and `::1`, because
/// every request contains a token.
///
/// ```
/// use iot_enroll::arm::Endpoint;
///
/// let endpoint: Endpoint = "https://management.chinacloudapi.cn".parse()?;
/// assert_eq!(endpoint.entra_scope(), "https://management.chinacloudapi.cn/.default");
/// assert_eq!(Endpoint::default().as_str(), "https://management.azure.com");
/// # Ok::<(), iot_enroll::arm::EndpointError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(Address);

endpoint!(Endpoint);

impl Endpoint {
    /// Returns the scope of Microsoft Entra tokens for this address, such as [`ENTRA_SCOPE`](super::ENTRA_SCOPE).
    #[must_use]
    pub fn entra_scope(&self) -> String {
        format!("{self}/.default")
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        // A constant. The tests check that it is an address.
        Self::from_str(PUBLIC).unwrap_or_else(|error| unreachable!("{error}"))
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        Ok(Self(Address::parse_host_or_url(text)?))
    }
}

/// A text is not the address of Resource Manager.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; the address of Resource Manager is {PUBLIC} in the public cloud")]
pub struct EndpointError(#[from] AddressError);
