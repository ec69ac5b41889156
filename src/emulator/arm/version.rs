//! The versions of the resource provider.

use crate::emulator::{
    api_error::{ApiError, ErrorCode},
    version::{API_VERSION, find_version, parse_version},
};

/// The versions of `Microsoft.Devices/provisioningServices`, oldest first.
const VERSIONS: [&str; 13] = [
    "2017-11-15",
    "2018-01-22",
    "2020-01-01",
    "2020-03-01",
    "2021-10-15",
    "2022-02-05",
    "2022-12-12",
    "2023-03-01-preview",
    "2025-02-01-preview",
    "2026-03-01-preview",
    "2026-06-01-preview",
    "2026-08-31",
    "2026-11-01",
];

/// A version of the resource provider. Versions are ordered by their date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ArmVersion(&'static str);

impl ArmVersion {
    pub(crate) fn parse(query: &str) -> Result<Self, ApiError> {
        let code = ErrorCode::Name("NoRegisteredProviderFound");
        parse_version(query, &VERSIONS).map(Self).map_err(|error| error.code(code))
    }

    /// Returns whether the body of a certificate is wrapped in `properties`.
    pub(crate) fn wraps_certificates(self) -> bool {
        self.0 >= "2022-02-05"
    }

    /// Returns whether the instance shows if local authentication is disabled.
    pub(crate) fn shows_local_auth(self) -> bool {
        self.0 >= "2026"
    }

    /// Returns whether the instance shows the namespaces of its device registry.
    pub(crate) fn shows_namespaces(self) -> bool {
        self.0 >= "2026-11-01"
    }
}

/// Checks the version of a request for subscriptions, which have versions of their own.
///
/// Choice: every date is accepted.
pub(crate) fn check_subscription_version(query: &str) -> Result<(), ApiError> {
    let is_date = |version: &str| {
        let date = version.strip_suffix("-preview").unwrap_or(version);
        date.len() == 10 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    };
    if find_version(query).is_some_and(|version| is_date(&version)) {
        return Ok(());
    }
    let message = format!("the query parameter {API_VERSION} must be given once, as a date");
    Err(ApiError::bad_request(message).code(ErrorCode::Name("MissingApiVersionParameter")))
}
