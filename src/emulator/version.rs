//! The query parameter `api-version` of the Device Provisioning Service and of Resource Manager.

use super::api_error::ApiError;

/// The query parameter with the version.
pub(super) const API_VERSION: &str = "api-version";

/// Returns the version in a query. A repeated parameter with the same value counts once. Other parameters are ignored.
pub(super) fn find_version(query: &str) -> Option<String> {
    let mut given: Vec<_> = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == API_VERSION).collect();
    given.dedup();
    match given.as_slice() {
        [(_, version)] => Some(version.clone().into_owned()),
        _ => None,
    }
}

/// Returns the version in a query, which must be one of `known`.
pub(super) fn parse_version(query: &str, known: &[&'static str]) -> Result<&'static str, ApiError> {
    let given = find_version(query);
    given.and_then(|given| known.iter().copied().find(|known| *known == given)).ok_or_else(|| {
        let versions = known.join(", ");
        ApiError::bad_request(format!("the query parameter {API_VERSION} must be given once, as one of {versions}"))
    })
}
