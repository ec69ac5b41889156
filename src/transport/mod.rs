//! HTTP, tokens, retries, the rate limit and errors, which the clients of all services share.
//!
//! This module knows no service: a service profile holds what differs between them. [`central`](crate::central),
//! [`dps`](crate::dps) and [`arm`](crate::arm) build on it and re-export the types that their users need.

mod address;
mod api_version;
mod authorization;
mod call;
mod change;
mod client_builder;
mod clock;
mod connection;
mod endpoint;
#[cfg(feature = "entra")]
mod entra;
#[cfg(feature = "entra")]
mod entra_certificate;
mod error;
mod etag;
mod http;
mod identifier;
mod listing;
mod network;
mod profile;
mod rate;
mod redact;
mod rest;
mod retry;
mod secret;
mod shared_access;
mod symmetric_keys;

pub(crate) use address::Address;
pub use address::AddressError;
pub use api_version::{ApiVersion, ApiVersionError};
pub use authorization::{Authorization, AuthorizationError, TokenCredential};
pub use call::Operation;
pub(crate) use call::{Call, Gate};
pub use change::Change;
pub(crate) use change::{json_of, object, setters};
pub(crate) use client_builder::client_builder;
pub use clock::Clock;
pub use connection::BuildError;
pub(crate) use connection::{ConnectionOptions, connection_setters};
pub(crate) use endpoint::endpoint;
#[cfg(feature = "entra")]
pub use entra::{EntraCredential, EntraCredentialBuilder};
pub use error::{AnswerError, AnswerProblem, Error, NetworkError, ServiceError};
pub use etag::Etag;
pub(crate) use http::{
    JSON, MAX_ANSWER, http_builder, read_body, redirect_target, retry_after, sensitive, server_date,
};
pub(crate) use identifier::{case_insensitive_name, check_name};
pub use listing::Listing;
pub(crate) use listing::{items, pages};
pub use network::NetworkFailure;
pub(crate) use network::{AttemptCount, is_out_of_time, is_tls, network_cause, root_cause, tls_cause};
pub(crate) use profile::{ErrorDetails, Refused, ServiceProfile};
pub(crate) use rate::Rate;
pub(crate) use redact::sanitize;
pub(crate) use rest::RestClient;
pub use retry::RetryPolicy;
pub(crate) use retry::{AttemptFailure, Attempts, Repeat, conflict_delays};
pub use secret::Secret;
pub use shared_access::{ConnectionString, ConnectionStringError, SharedAccessKey, SharedAccessKeyError};
pub(crate) use shared_access::{SharedAccessToken, TOKEN_LIFETIME};
pub use symmetric_keys::SymmetricKeys;
