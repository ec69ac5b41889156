//! The signals that ask the process to stop.

/// Returns a future that completes on SIGINT, SIGTERM or SIGHUP. It listens from the call on, so that no signal is missed.
///
/// A SIGHUP that the process ignores, as under `nohup`, stays ignored.
#[cfg(unix)]
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = if ends_on_hangup() { Some(signal(SignalKind::hangup())?) } else { None };
    Ok(async move {
        let hangup = async {
            match &mut hangup {
                Some(signal) => drop(signal.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = hangup => {}
        }
    })
}

/// Returns whether SIGHUP would end the process. Where that is unknown, because there is no `/proc`, the signal keeps its
/// default or remains ignored: both are better than to end a process that `nohup` started.
#[cfg(unix)]
fn ends_on_hangup() -> bool {
    // proc_pid_status(5): a mask in hexadecimal digits, whose lowest bit is the signal 1, SIGHUP.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 0)
}

/// Returns a future that completes on Ctrl-C.
#[cfg(not(unix))]
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async {
        // If the signal cannot be received, keep running rather than stop at once.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
