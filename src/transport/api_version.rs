//! Versions of the APIs of Azure services.

use std::{borrow::Cow, fmt, str::FromStr};

/// The version of an API, the query parameter `api-version` of every call: a date, and a suffix such as `-preview`.
///
/// ```
/// use iot_enroll::transport::ApiVersion;
///
/// let version: ApiVersion = "2025-07-01-preview".parse()?;
/// assert_eq!(version.as_str(), "2025-07-01-preview");
/// assert!("latest".parse::<ApiVersion>().is_err());
/// # Ok::<(), iot_enroll::transport::ApiVersionError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApiVersion(Cow<'static, str>);

impl ApiVersion {
    /// Takes a version that is known to be valid.
    pub(crate) const fn from_static(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// Returns the version as the service writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether this version is older than a date `YYYY-MM-DD`, or than the start of one. A preview counts as the
    /// date it is named by.
    pub(crate) fn is_before(&self, date: &str) -> bool {
        self.0.get(..date.len()).is_some_and(|own| own < date)
    }

    pub(crate) fn text(&self) -> Cow<'static, str> {
        self.0.clone()
    }
}

impl FromStr for ApiVersion {
    type Err = ApiVersionError;

    fn from_str(text: &str) -> Result<Self, ApiVersionError> {
        let error = || ApiVersionError(text.chars().take(32).collect());
        let (date, suffix) = text.split_at_checked("YYYY-MM-DD".len()).ok_or_else(error)?;
        let date = date.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
        let suffix = suffix.is_empty()
            || suffix.strip_prefix('-').is_some_and(|name| {
                (1..=32).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
            });
        if date && suffix { Ok(Self(Cow::Owned(text.to_owned()))) } else { Err(error()) }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is not the version of an API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a version of an API: write it as YYYY-MM-DD or YYYY-MM-DD-preview")]
pub struct ApiVersionError(String);
