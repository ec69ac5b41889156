//! The limits of connections. None is documented by the service, unless the comment says so.

use std::time::Duration;

/// The maximum size of a packet in bytes: that of a message to IoT Hub. A registration has a few hundred.
pub(super) const MAX_PACKET: usize = 256 * 1024;

/// The longest silence of a client, that of IoT Hub.
pub(super) const MAX_SILENCE: Duration = Duration::from_secs(1767);

/// The maximum number of connections.
const MAX_CONNECTIONS: usize = 20_000;

/// The number of file descriptors that are left to the HTTP port, pending TLS handshakes and files.
#[cfg(unix)]
const RESERVED_FILES: usize = 640;

/// Returns the maximum number of connections: with those of the process's file descriptors that HTTP does not need.
#[cfg(unix)]
pub(super) fn max_connections() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    // A process with very few of them still serves some clients.
    files.saturating_sub(RESERVED_FILES).clamp(16, MAX_CONNECTIONS)
}

#[cfg(not(unix))]
pub(super) fn max_connections() -> usize {
    MAX_CONNECTIONS
}
