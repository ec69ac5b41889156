//! The stop of the emulator, as its connections see it.

use std::time::Duration;

use tokio::sync::watch;

/// The time that requests in progress have to finish after a stop.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// The time that an idle connection has to close after a stop: its last response may still be in transit.
pub(super) const FLUSH: Duration = Duration::from_millis(100);

/// Returns when the emulator is stopped or dropped.
pub(super) async fn wait_for_stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
