//! The versions of the device API.

use crate::emulator::{api_error::ApiError, version::parse_version};

/// A version of the device API that the emulator accepts, over every protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceVersion(&'static str);

impl DeviceVersion {
    /// The versions that devices in use send, then those that issue certificates.
    const NAMES: [&str; 5] = ["2019-03-31", "2021-06-01", "2021-10-01", "2025-07-01-preview", "2026-11-01"];

    /// The versions that take a certificate request, `csr`.
    pub(crate) const ISSUING: [&str; 2] = ["2025-07-01-preview", "2026-11-01"];

    /// Returns the version in a query.
    pub(crate) fn parse(query: &str) -> Result<Self, ApiError> {
        parse_version(query, &Self::NAMES).map(Self)
    }

    pub(crate) fn as_str(self) -> &'static str {
        self.0
    }

    /// Returns whether a registration may have a certificate request.
    pub(crate) fn takes_request(self) -> bool {
        Self::ISSUING.contains(&self.0)
    }
}
