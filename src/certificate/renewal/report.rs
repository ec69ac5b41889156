//! The outcome of a renewal of many certificates, and how the caller watches it.

use std::{path::PathBuf, sync::atomic::AtomicBool};

use super::{
    error::RenewalError,
    set::{Renewed, RenewedSet},
};
use crate::certificate::{Timestamp, files::FileSet};

/// How many failures a report describes. The others are only counted, so that the memory does not depend on their number.
const MAX_FAILURES: usize = 20;

/// The outcome of a renewal of many certificates.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RenewalReport {
    /// The number of renewed certificates.
    pub renewed: u64,
    /// The number of certificates that are not due.
    pub not_due: u64,
    /// When the first of those will be due.
    pub next_due: Option<Timestamp>,
    /// The number of proofs of possession, which are not renewed.
    pub proofs: u64,
    /// The number of CAs that kept their key although new keys were requested.
    pub kept_authority_keys: u64,
    /// The number of certificates that could not be renewed.
    pub failed: u64,
    /// The first of those failures.
    pub failures: Vec<RenewalFailure>,
    /// The manifest, if it is a fleet.
    pub manifest: Option<PathBuf>,
    /// Whether the run was stopped before all certificates were done.
    pub stopped: bool,
}

/// A certificate that could not be renewed.
#[derive(Debug)]
#[non_exhaustive]
pub struct RenewalFailure {
    /// The certificate file.
    pub certificate: PathBuf,
    /// The reason.
    pub error: RenewalError,
}

/// How the caller watches and stops a run.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct RenewalControl<'a> {
    /// Another thread sets this to stop the run after the certificates in progress.
    pub stop: &'a AtomicBool,
    /// Called from any thread with the number of certificates that were completed since the last call.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Called from any thread with each renewed set, in order.
    pub renewed: &'a (dyn Fn(&RenewedSet) + Sync),
}

impl<'a> RenewalControl<'a> {
    /// Creates a control from a stop flag, a progress callback and a callback for each renewed set.
    #[must_use]
    pub const fn new(
        stop: &'a AtomicBool,
        progress: &'a (dyn Fn(u64) + Sync),
        renewed: &'a (dyn Fn(&RenewedSet) + Sync),
    ) -> Self {
        Self { stop, progress, renewed }
    }
}

impl RenewalReport {
    /// Adds the outcome of one set. An error that would repeat itself is returned.
    pub(super) fn add(
        &mut self,
        files: &FileSet,
        outcome: Result<Renewed, RenewalError>,
        control: RenewalControl<'_>,
    ) -> Result<(), RenewalError> {
        match outcome {
            Ok(Renewed::Done(set)) => {
                self.renewed += 1;
                (control.renewed)(&set);
            }
            Ok(Renewed::NotDue(not_due)) => {
                self.not_due += 1;
                self.next_due = Some(self.next_due.map_or(not_due.due_at, |next| next.min(not_due.due_at)));
            }
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => {
                self.failed += 1;
                if self.failures.len() < MAX_FAILURES {
                    self.failures.push(RenewalFailure { certificate: files.certificate(), error });
                }
            }
        }
        (control.progress)(1);
        Ok(())
    }
}
