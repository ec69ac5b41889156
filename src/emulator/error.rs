//! The errors of the emulator itself, as opposed to those it answers requests with.

use std::{io, net::SocketAddr};

use super::random::RandomError;

/// An error while starting or configuring an emulator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// The address is reachable from other machines. The emulator is for tests: its token and keys travel unencrypted.
    #[error("cannot listen on {0}: the emulator listens on loopback addresses only, such as 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// Another process listens on the address.
    #[error("{0} is already in use; choose another port, or port 0 for a free one")]
    AddressInUse(SocketAddr),
    /// Listening failed for another reason.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// MQTT is served over TLS only.
    #[error("MQTT needs TLS: devices register over MQTT with TLS only")]
    MqttWithoutTls,
    /// The token is empty or has characters that a header cannot carry. The message does not contain the token.
    #[error(
        "the token is not a valid Authorization header: use visible ASCII characters, with spaces only between them"
    )]
    Token,
    /// A device cannot be added.
    #[error("cannot add the device: {0}")]
    Device(String),
    /// The name of the DPS instance or of one of its policies is invalid.
    #[error("cannot create the DPS instance: {0}")]
    DpsInstance(String),
    /// The fault cannot be injected.
    #[error("cannot inject the fault: {0}")]
    Fault(String),
    /// The certificates for TLS cannot be created or used.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    Random,
}

impl From<RandomError> for EmulatorError {
    fn from(_: RandomError) -> Self {
        Self::Random
    }
}
