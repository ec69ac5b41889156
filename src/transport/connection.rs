//! How connections are made, for every client.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use super::{
    address::Address,
    authorization::AuthorizationError,
    clock::{Clock, SystemClock},
    http::http_builder,
    network::error_chain,
    retry::RetryPolicy,
};
use crate::certificate::Certificate;

/// What the builders of all clients have in common.
pub(crate) struct ConnectionOptions {
    pub(crate) roots: Vec<Certificate>,
    pub(crate) connect_timeout: Duration,
    pub(crate) timeout: Duration,
    pub(crate) retry: RetryPolicy,
    /// Requests a second; `None` is the service's own limit.
    pub(crate) rate: Option<NonZeroU32>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            roots: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            rate: None,
            clock: Arc::new(SystemClock::new()),
        }
    }
}

impl ConnectionOptions {
    /// Builds an HTTP client for one address.
    pub(crate) fn http_client(&self, address: &Address) -> Result<reqwest::Client, BuildError> {
        let roots = self.roots.iter().map(|root| reqwest::Certificate::from_der(root.der()));
        let roots = roots.collect::<Result<Vec<_>, _>>().map_err(|error| BuildError::Tls(error.to_string()))?;
        let http = http_builder(self.connect_timeout, self.timeout, address.is_loopback());
        // Without TLS the platform's roots are not read: a machine need not have any to speak to an emulator.
        let http = if address.is_https() { http.tls_certs_merge(roots) } else { http.tls_certs_only([]) };
        http.build().map_err(|error| BuildError::Tls(error_chain(&error)))
    }
}

/// The setters of [`ConnectionOptions`] for a builder whose field `connection` holds them. The rate is the builder's own:
/// what is counted differs.
macro_rules! connection_setters {
    () => {
        /// Trusts the certificates of this file as roots, beside those of the platform. Takes any encoding that
        /// [`Certificate::read_all`] takes.
        ///
        /// # Errors
        /// [`ReadError`](crate::certificate::ReadError) if there is no certificate in it.
        ///
        /// [`Certificate::read_all`]: crate::certificate::Certificate::read_all
        pub fn add_root_certificate(mut self, bytes: &[u8]) -> Result<Self, crate::certificate::ReadError> {
            self.connection.roots.extend(crate::certificate::Certificate::read_all(bytes)?);
            Ok(self)
        }

        /// Sets how long to wait for a connection. Default: 10 s.
        pub fn connect_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.connection.connect_timeout = timeout;
            self
        }

        /// Sets how long each attempt waits for its answer, connection included. Default: 30 s.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.connection.timeout = timeout;
            self
        }

        /// Sets how often and for how long failed requests are retried.
        pub fn retry(mut self, policy: $crate::transport::RetryPolicy) -> Self {
            self.connection.retry = policy;
            self
        }

        /// Sets another source of time, for tests. Server certificates are still checked by the machine's clock.
        pub fn clock(mut self, clock: std::sync::Arc<dyn $crate::transport::Clock>) -> Self {
            self.connection.clock = clock;
            self
        }
    };
}
pub(crate) use connection_setters;

/// Why a client cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No token was given.
    #[error("no token was given: every call to the service needs one")]
    NoAuthorization,
    /// The token cannot be used.
    #[error(transparent)]
    Authorization(#[from] AuthorizationError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}
