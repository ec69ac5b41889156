//! Connection options, which the builders of all clients share.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use super::{
    address::Address,
    authorization::AuthorizationError,
    clock::{Clock, SystemClock},
    http::http_builder,
    network::{root_cause, tls_cause, tls_error},
    retry::RetryPolicy,
};
use crate::certificate::Certificate;

/// The options that the builders of all clients share.
pub(crate) struct ConnectionOptions {
    pub(crate) roots: Vec<Certificate>,
    pub(crate) connect_timeout: Duration,
    pub(crate) timeout: Duration,
    pub(crate) retry: RetryPolicy,
    /// Requests per second; `None` is the service's own limit.
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
        let http = http_builder(self.connect_timeout, self.timeout, address.is_loopback());
        // Without TLS the platform's roots are not read: a machine without any can still use an emulator.
        let http = if address.is_https() {
            http.tls_certs_merge(root_certificates(&self.roots)?)
        } else {
            http.tls_certs_only([])
        };
        http.build().map_err(|error| BuildError::tls(&error))
    }
}

/// Converts trusted roots for the HTTP client.
pub(crate) fn root_certificates(roots: &[Certificate]) -> Result<Vec<reqwest::Certificate>, BuildError> {
    roots
        .iter()
        .map(|root| reqwest::Certificate::from_der(root.der()).map_err(|error| BuildError::tls(&error)))
        .collect()
}

/// Defines the setters of [`ConnectionOptions`] for a builder with a field `connection`. Each builder has its own
/// setter of the rate, because what is counted differs.
macro_rules! connection_setters {
    () => {
        /// Trusts the certificates in this file as roots, in addition to those of the platform. Takes every encoding
        /// that [`Certificate::read_all`] takes.
        ///
        /// # Errors
        /// [`ReadError`](crate::certificate::ReadError) if the file contains no certificate.
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

        /// Sets how long each attempt may take, from connecting to the end of the answer. Default: 30 s.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.connection.timeout = timeout;
            self
        }

        /// Sets how often and for how long failed requests are retried.
        pub fn retry(mut self, policy: $crate::transport::RetryPolicy) -> Self {
            self.connection.retry = policy;
            self
        }

        /// Replaces the source of time, for tests. The validity of server certificates is still checked by the
        /// machine's clock.
        pub fn clock(mut self, clock: std::sync::Arc<dyn $crate::transport::Clock>) -> Self {
            self.connection.clock = clock;
            self
        }
    };
}
pub(crate) use connection_setters;

/// Explains why a client cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No token was given.
    #[error("no token was given: every call to the service needs one")]
    NoAuthorization,
    /// The token cannot be used.
    #[error(transparent)]
    Authorization(#[from] AuthorizationError),
    /// This system has no trusted root certificates, and none was added.
    #[error("cannot set up TLS: this system has no trusted root certificates")]
    NoTrustedRoots,
    /// TLS cannot be set up for another reason.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

impl BuildError {
    pub(crate) fn tls(error: &(dyn std::error::Error + 'static)) -> Self {
        match tls_error(error) {
            // Before a connection, the verifier of the platform reports nothing else in this way.
            Some(rustls::Error::General(_)) => Self::NoTrustedRoots,
            Some(error) => Self::Tls(tls_cause(error)),
            None => Self::Tls(root_cause(error)),
        }
    }
}
