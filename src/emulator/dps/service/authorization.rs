//! Authentication and rights: SAS tokens of the instance's policies, or the bearer token.
//!
//! # Where the documentation is silent
//! - **The bearer token** is that of Resource Manager: one token stands for both scopes of Microsoft Entra. It has all
//!   rights.
//! - **The resource** of a SAS token (`sr`) is the host by which the client reached the emulator, or the one that the
//!   emulator listens on, with or without the port. Segments of a path after it limit the token to that path.
//! - **A policy** is required (`skn`).
//! - **Rights**: `attestationmechanism` shows secrets and needs `EnrollmentWrite`. A missing right is 401.

use axum::http::{HeaderMap, Method, StatusCode, header};

use crate::emulator::{
    api_error::{ApiError, ErrorCode},
    context::Context,
    dps::{
        error::UNAUTHORIZED,
        sas_token::{SasToken, percent_decode},
        settings::{DpsRight, Policy},
    },
    origin::Origin,
};

/// An authenticated caller.
pub(crate) enum Caller<'a> {
    /// The holder of the bearer token.
    Bearer,
    Policy(&'a Policy),
}

impl Caller<'_> {
    /// Checks that the caller may execute an operation.
    pub(crate) fn check_right(&self, method: &Method, path: &str) -> Result<(), ApiError> {
        let right = required_right(method, path);
        match self {
            Self::Policy(policy) if !policy.rights.contains(&right) => {
                let (name, right) = (&policy.name, right.name());
                Err(unauthorized(format!("the policy {name:?} does not have the right {right}")))
            }
            _ => Ok(()),
        }
    }
}

/// Authenticates a request to a path of the service API.
pub(crate) fn authorize<'a>(
    headers: &HeaderMap,
    origin: &Origin,
    path: &str,
    context: &'a Context,
) -> Result<Caller<'a>, ApiError> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(given), None) = (all.next(), all.next()) else {
        return Err(unauthorized("send one Authorization header, with a SAS token or a bearer token"));
    };
    let given = given.to_str().unwrap_or_default();
    if let Some(token) = given.strip_prefix("Bearer ") {
        let is_right =
            aws_lc_rs::constant_time::verify_slices_are_equal(token.as_bytes(), context.arm_token.as_bytes());
        return is_right
            .map(|()| Caller::Bearer)
            .map_err(|_| unauthorized("the bearer token is not that of the emulator"));
    }
    if !context.instance.local_auth {
        return Err(unauthorized("local authentication is disabled: SAS tokens are not accepted"));
    }
    let Some(token) = SasToken::parse(given, context.clock.timestamp()) else {
        return Err(unauthorized("the SAS token is malformed or has expired"));
    };
    if !covers(&token.resource, path, &[&origin.authority, &context.authority]) {
        return Err(unauthorized("the SAS token is for another resource"));
    }
    let policy = token.policy.as_deref().and_then(|name| context.instance.policy(name));
    match policy.filter(|policy| token.is_signed_with(&policy.key)) {
        Some(policy) => Ok(Caller::Policy(policy)),
        None => Err(unauthorized("the SAS token is not signed with a key of its policy")),
    }
}

/// Returns whether the resource of a token is a host, with the first segments of a path or none.
fn covers(resource: &str, path: &str, hosts: &[&String]) -> bool {
    let mut segments = resource.trim_end_matches('/').split('/');
    let host = segments.next().unwrap_or_default();
    let mut path = path.split('/').skip(1);
    let is_host = |authority: &&String| {
        let name = authority.rsplit_once(':').map_or(authority.as_str(), |(name, _)| name);
        host.eq_ignore_ascii_case(authority) || host.eq_ignore_ascii_case(name)
    };
    hosts.iter().any(is_host)
        && segments.all(|segment| path.next().is_some_and(|found| percent_decode(found).eq_ignore_ascii_case(segment)))
}

fn required_right(method: &Method, path: &str) -> DpsRight {
    let is_read = *method == Method::GET || *method == Method::HEAD || path.ends_with("/query");
    match (path.starts_with("/registrations"), is_read) {
        (true, true) => DpsRight::RegistrationStatusRead,
        (true, false) => DpsRight::RegistrationStatusWrite,
        (false, true) => DpsRight::EnrollmentRead,
        (false, false) => DpsRight::EnrollmentWrite,
    }
}

fn unauthorized(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, message).code(ErrorCode::Number(UNAUTHORIZED))
}
