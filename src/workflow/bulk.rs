//! The engine that does something for many devices at once.
//!
//! It bounds how many are under way, which together with the clients' own rate limit sets the pace, and stops early if the
//! outcomes say that the other devices would fail as well. It holds only the devices that are under way, so memory stays
//! flat. Each outcome is handed on as soon as it is known, to be counted and written to a results file
//! ([`results`](super::results)).

use std::{collections::BTreeMap, num::NonZeroUsize};

use tokio::task::JoinSet;

use super::results::ResultsError;

/// The number of unreachable devices in a row that stops a run: as many as are under way by default. Each is retried for
/// minutes, so they fail at about the same time.
const MAX_UNREACHABLE: usize = 64;

/// The number of devices in a row that the service failed which stops a run.
pub(super) const MAX_SERVICE_FAILURES: usize = 64;

/// How many devices may be started before the oldest has ended, if outcomes keep the order of the devices. A device that is
/// retried for two minutes must not hold up the others: 2400 are done in that time at 20 requests a second.
const WINDOW: u64 = 4096;

/// What an outcome says about the devices after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Nothing: no request was sent.
    NotSent,
    /// The service answered, and did or refused what was requested.
    Answered,
    /// The service could not be reached.
    Unreachable,
    /// The service failed, or the network.
    ServiceFailed,
    /// The service refused the caller: for every device, unless it has answered for another one.
    Forbidden,
    /// Every other device would fail the same way.
    AffectsAll,
    /// This computer cannot open more files and connections. The device was not tried.
    OutOfFiles,
}

/// Why a run stopped before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunStop {
    /// A failure affects every device.
    #[error("the failure of line {line} affects every device: {message}")]
    AffectsAll {
        /// The line of the device in its file.
        line: u64,
        /// Why it failed.
        message: String,
    },
    /// A failure affects every device, not only the one that is named.
    #[error("the failure of {id} affects every device: {message}")]
    AffectsEvery {
        /// The device.
        id: String,
        /// Why it failed.
        message: String,
    },
    /// The service could not be reached.
    #[error("nobody answers: {message}")]
    Unreachable {
        /// The last failure.
        message: String,
    },
    /// Too many devices in a row failed because of the service or the network.
    #[error("the last {MAX_SERVICE_FAILURES} devices failed because of the service: {message}")]
    ServiceFailures {
        /// The last failure.
        message: String,
    },
    /// This computer cannot open more files and connections.
    #[error("too many files and connections are open at once for this computer")]
    OutOfFiles,
    /// The results file could not be written.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The list of devices could not be read to its end.
    #[error("{0}")]
    Unreadable(String),
}

impl RunStop {
    /// Describes why a failure stops the run.
    pub(super) fn new(reason: StopReason, line: u64, message: &str) -> Self {
        let message = message.to_owned();
        match reason {
            StopReason::AffectsAll => Self::AffectsAll { line, message },
            StopReason::Unreachable => Self::Unreachable { message },
            StopReason::ServiceFailures => Self::ServiceFailures { message },
            StopReason::OutOfFiles => Self::OutOfFiles,
        }
    }

    /// Describes why the failure of a device that is on no line of a file stops the run.
    pub(super) fn of_device(reason: StopReason, id: &str, message: &str) -> Self {
        match reason {
            StopReason::AffectsAll => Self::AffectsEvery { id: id.to_owned(), message: message.to_owned() },
            reason => Self::new(reason, 0, message),
        }
    }
}

/// Why an outcome stops the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    AffectsAll,
    Unreachable,
    ServiceFailures,
    OutOfFiles,
}

/// The order in which outcomes are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReportOrder {
    /// That of the devices.
    Listed,
    /// That in which they end.
    Ended,
}

/// How a run goes about its devices.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bulk {
    /// How many devices are under way at once.
    pub(super) concurrency: NonZeroUsize,
    pub(super) order: ReportOrder,
    /// Whether the first device goes ahead without others until the service has answered, so that an error that affects
    /// every device is met once.
    pub(super) probes: bool,
}

impl Bulk {
    /// Does `work` for each device and hands each outcome to `report`, with the reason if it stops the run.
    ///
    /// After the first reason to stop, no further device is started, and those under way are completed.
    ///
    /// # Errors
    /// The first error of `devices` or `report`, which stops the run too.
    pub(super) async fn run<I, R, E, F>(
        &self,
        devices: impl Iterator<Item = Result<I, E>> + Send,
        work: impl Fn(I) -> F + Send,
        mut report: impl FnMut(R, Option<StopReason>) -> Result<(), E> + Send,
    ) -> Result<(), E>
    where
        E: Send,
        R: Send + 'static,
        F: Future<Output = (R, Signal)> + Send + 'static,
    {
        let mut devices = devices.fuse();
        let mut running = JoinSet::new();
        let mut breaker = Breaker::new(self);
        let (mut is_stopped, mut error) = (false, None);
        // Outcomes that wait for an earlier one.
        let mut waiting = BTreeMap::new();
        let (mut started, mut reported) = (0, 0);
        let window = if self.order == ReportOrder::Listed { WINDOW } else { u64::MAX };
        loop {
            while !is_stopped
                && !breaker.is_waiting
                && running.len() < breaker.concurrency
                && started - reported < window
            {
                match devices.next() {
                    None => break,
                    Some(Err(unreadable)) => {
                        is_stopped = true;
                        error.get_or_insert(unreadable);
                    }
                    Some(Ok(device)) => {
                        let (number, work) = (started, work(device));
                        // A task of its own: TLS handshakes keep a processor busy.
                        running.spawn(async move { (number, work.await) });
                        started += 1;
                    }
                }
            }
            let (number, (outcome, signal)) = match running.join_next().await {
                Some(Ok(ended)) => ended,
                Some(Err(failure)) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
                // Tasks are cancelled only when the runtime shuts down.
                Some(Err(_)) | None => break,
            };
            let reason = breaker.record(signal, running.is_empty()).filter(|_| !is_stopped);
            is_stopped |= reason.is_some();
            waiting.insert(if self.order == ReportOrder::Listed { number } else { reported }, (outcome, reason));
            while let Some((outcome, reason)) = waiting.remove(&reported) {
                reported += 1;
                if let Err(failed) = report(outcome, reason) {
                    is_stopped = true;
                    error.get_or_insert(failed);
                }
            }
        }
        error.map_or(Ok(()), Err)
    }
}

/// Decides from the outcomes whether to go on, and how many devices may be under way.
struct Breaker {
    concurrency: usize,
    wanted: usize,
    unreachable: usize,
    failures: usize,
    /// Whether the service has answered for a device.
    has_answered: bool,
    /// Whether the service refused the caller before it answered for any device. No device is started until one of those
    /// under way is answered: if none is, the refusal affects every device.
    is_waiting: bool,
}

impl Breaker {
    fn new(bulk: &Bulk) -> Self {
        let wanted = bulk.concurrency.get();
        // If the first device cannot reach the service, none can. After that it may be a short outage.
        let (concurrency, unreachable) = if bulk.probes { (1, MAX_UNREACHABLE - 1) } else { (wanted, 0) };
        Self { concurrency, wanted, unreachable, failures: 0, has_answered: false, is_waiting: false }
    }

    /// Returns why the run stops, if it does. `is_last` says that no other device is under way.
    fn record(&mut self, signal: Signal, is_last: bool) -> Option<StopReason> {
        let reason = self.judge(signal);
        if self.is_waiting && is_last { reason.or(Some(StopReason::AffectsAll)) } else { reason }
    }

    fn judge(&mut self, signal: Signal) -> Option<StopReason> {
        match signal {
            Signal::NotSent => return None,
            Signal::OutOfFiles => return Some(StopReason::OutOfFiles),
            Signal::AffectsAll => return Some(StopReason::AffectsAll),
            Signal::Forbidden if !self.has_answered => {
                self.is_waiting = true;
                return None;
            }
            Signal::Unreachable => {
                self.unreachable += 1;
                self.failures += 1;
            }
            Signal::ServiceFailed | Signal::Forbidden => {
                self.unreachable = 0;
                self.failures += 1;
                self.concurrency = self.wanted;
            }
            Signal::Answered => {
                self.unreachable = 0;
                self.failures = 0;
                self.has_answered = true;
                self.is_waiting = false;
                self.concurrency = self.wanted;
            }
        }
        if self.unreachable >= MAX_UNREACHABLE {
            Some(StopReason::Unreachable)
        } else if self.failures >= MAX_SERVICE_FAILURES {
            Some(StopReason::ServiceFailures)
        } else {
            None
        }
    }
}
