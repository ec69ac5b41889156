//! The errors of the emulator itself, as opposed to those it answers requests with.

use std::{io, net::SocketAddr, path::PathBuf};

use super::random::RandomError;

/// The minimum length of a token for an emulator that other machines can reach.
pub(super) const MIN_REMOTE_TOKEN: usize = 16;

/// An error while starting or configuring an emulator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// The address is reachable from other machines, and remote access is refused.
    #[error("cannot listen on {0}: the emulator listens on loopback addresses only, such as 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// The address is reachable from other machines, and the emulator does not serve over TLS.
    #[error("cannot listen on {0} without TLS: other machines could read the token and the keys of devices")]
    RemotePlainHttp(SocketAddr),
    /// The token is too short for an emulator that other machines can reach. The message does not contain the token.
    #[error(
        "the token is too short for an address that other machines can reach: use at least {MIN_REMOTE_TOKEN} characters"
    )]
    ShortToken,
    /// The text is not a host name or an address.
    #[error("{0:?} is not a host: use a name, *. and a name, or an address, without a port")]
    Host(String),
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
    /// The seeds cannot be imported. Nothing is.
    #[error("cannot import {}: {problem}", path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// The member and what is wrong with it.
        problem: String,
    },
    /// The state file cannot be used. It is unchanged.
    #[error("cannot use the state file {}: {problem}", path.display())]
    StateFile {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        problem: String,
    },
    /// Something else wrote or replaced the state file while the emulator ran. It is unchanged, and the state is in another
    /// file.
    #[error(
        "another program changed the state file {} while the emulator ran: it is unchanged, and the state of the emulator is in {}",
        path.display(),
        saved.display()
    )]
    StateFileChanged {
        /// The file.
        path: PathBuf,
        /// The file with the state.
        saved: PathBuf,
    },
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
