//! What the clients of all services have in common: HTTP, tokens, retries, the rate limit, and errors.
//!
//! Nothing in here knows a service. [`central`](crate::central) and [`dps`](crate::dps) build on it and re-export the types
//! that their users need.

mod address;
mod authorization;
mod call;
mod clock;
mod connection;
#[cfg(feature = "entra")]
mod entra;
#[cfg(feature = "entra")]
mod entra_certificate;
mod error;
mod http;
mod network;
mod page;
mod profile;
mod rate;
mod redact;
mod rest;
mod retry;

pub(crate) use address::Address;
pub use address::AddressError;
pub use authorization::{Authorization, AuthorizationError, TokenCredential};
pub(crate) use call::Call;
pub use call::Operation;
pub use clock::Clock;
pub use connection::BuildError;
pub(crate) use connection::{ConnectionOptions, connection_setters};
#[cfg(feature = "entra")]
pub use entra::{EntraCredential, EntraCredentialBuilder};
pub use error::{AnswerError, AnswerProblem, Error, NetworkError, ServiceError};
pub(crate) use http::{
    JSON, MAX_ANSWER, http_builder, read_body, redirect_target, retry_after, sensitive, server_date,
};
pub use network::NetworkFailure;
pub(crate) use network::{AttemptCount, certificate_out_of_time, error_chain, is_tls};
pub use page::Listing;
pub(crate) use page::{items, pages};
pub(crate) use profile::{ErrorDetails, ServiceProfile};
pub(crate) use rate::Rate;
pub(crate) use redact::sanitise;
pub(crate) use rest::RestClient;
pub use retry::RetryPolicy;
pub(crate) use retry::{AttemptFailure, Attempts, Repeat};
/// For the secrets in this module's types.
pub use secrecy::{ExposeSecret, SecretString};
