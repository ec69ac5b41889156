//! Renewal of all sets in a directory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use super::{
    error::RenewalError,
    report::{RenewalControl, RenewalReport},
    set::{KeyHolder, Renewed, Renewer, batch_size, is_authority, is_proof},
};
use crate::certificate::{
    Certificate,
    files::{FileError, FileSet, read_certificates, recover_directory},
    fleet::{
        FleetError, MANIFEST,
        ordered::{Parallelism, in_order},
    },
};

/// How many batches for each thread may be in progress or done before the oldest is taken.
const AHEAD: usize = 4;

/// The end of the names of certificate files.
const CERTIFICATE: &str = "_cert.pem";

/// The outcomes of a batch of sets.
type Outcomes = Vec<(FileSet, Result<Renewed, RenewalError>)>;

impl Renewer<'_> {
    /// Renews the sets in a directory, not those in its subdirectories: first the CAs, each before those that it issued, so
    /// that the full chains below them have the new CA certificates; then the others on several threads.
    ///
    /// With [`RenewalOptions::new_key`](super::RenewalOptions::new_key), CAs keep their keys: certificates below a CA with a
    /// new key would no longer be valid. Proofs of possession are left out.
    ///
    /// A certificate that cannot be renewed is counted as a failure, and the others are renewed.
    ///
    /// # Errors
    /// Returns [`RenewalError::Empty`] if there is no set, and other errors if the file system fails.
    pub fn renew_directory(
        &self,
        directory: &Path,
        control: RenewalControl<'_>,
    ) -> Result<RenewalReport, RenewalError> {
        recover_directory(directory, false)?;
        let mut report = RenewalReport::default();
        let (authorities, others) = split(sets(directory)?, &mut report);
        if authorities.is_empty() && others.is_empty() && report.proofs == 0 {
            let manifest = directory.join(MANIFEST);
            if manifest.is_file() {
                let reason = "it lists no certificate of this directory".to_owned();
                return Err(FleetError::Manifest { path: manifest, reason }.into());
            }
            return Err(RenewalError::Empty(directory.to_owned()));
        }
        for files in authorities {
            if control.stop.load(Ordering::Relaxed) {
                report.stopped = true;
                return Ok(report);
            }
            report.kept_authority_keys += u64::from(self.options.has_new_key);
            let outcome = self.renew(&files, &self.options.with_same_key(), KeyHolder::Files);
            report.add(&files, outcome, control)?;
        }
        // They may be in the list under their old certificates.
        self.issuers.clear();
        self.renew_in_parallel(others, &mut report, control)?;
        Ok(report)
    }

    fn renew_in_parallel(
        &self,
        sets: Vec<FileSet>,
        report: &mut RenewalReport,
        control: RenewalControl<'_>,
    ) -> Result<(), RenewalError> {
        let size = batch_size(&self.options, sets.first().is_some_and(|files| files.pfx().exists()));
        let mut sets = sets.into_iter();
        let mut stopped = false;
        let ended = in_order(
            Parallelism { threads: self.threads, ahead: AHEAD },
            || {
                if control.stop.load(Ordering::Relaxed) {
                    stopped |= sets.next().is_some();
                    return Ok(None);
                }
                let batch: Vec<_> = sets.by_ref().take(size).collect();
                Ok((!batch.is_empty()).then_some(batch))
            },
            |batch: Vec<FileSet>, outcomes: &mut Outcomes| {
                let batch = batch.into_iter().map(|files| (files, KeyHolder::Files)).collect();
                outcomes.extend(self.renew_batch(batch, &self.options));
                Ok(())
            },
            |outcomes| outcomes.drain(..).try_for_each(|(files, outcome)| report.add(&files, outcome, control)),
        );
        report.stopped |= stopped;
        ended
    }
}

/// Returns the CAs, each before those that it issued, and the other sets. Counts the proofs of possession.
fn split(sets: Vec<FileSet>, report: &mut RenewalReport) -> (Vec<FileSet>, Vec<FileSet>) {
    let (mut authorities, mut others) = (Vec::new(), Vec::new());
    for files in sets {
        let path = files.certificate();
        // Reading from a pipe would wait for a writer.
        let found = if path.is_file() { read_certificates(&path).ok() } else { None };
        let certificate = found.map(|mut found| found.swap_remove(0));
        match certificate {
            Some(certificate) if is_authority(&certificate) => authorities.push((files, certificate)),
            Some(certificate) if is_proof(&files, &certificate) => report.proofs += 1,
            // One that cannot be read is reported when it is renewed.
            _ => others.push(files),
        }
    }
    (in_order_of_issue(authorities), others)
}

/// Returns the sets in a directory, sorted by the names of their certificate files.
fn sets(directory: &Path) -> Result<Vec<FileSet>, RenewalError> {
    let is_certificate = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with(CERTIFICATE) && !name.starts_with('.') && !path.is_dir()
    };
    let mut certificates: Vec<_> = entries(directory)?.into_iter().filter(is_certificate).collect();
    certificates.sort();
    Ok(certificates.iter().filter_map(|path| FileSet::of_file(path)).collect())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, FileError> {
    let unreadable = |error| FileError::io("read", directory, error);
    let entries = fs::read_dir(directory).map_err(unreadable)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(unreadable)).collect()
}

/// Sorts CAs so that each is before those that it issued. CAs that certify each other stay in the order of their names.
fn in_order_of_issue(mut authorities: Vec<(FileSet, Certificate)>) -> Vec<FileSet> {
    let mut sorted = Vec::new();
    while !authorities.is_empty() {
        let has_issuer = |at: usize| {
            let others = authorities.iter().enumerate().filter(|&(other, _)| other != at);
            others
                .into_iter()
                .any(|(_, (_, other))| authorities[at].1.names_issuer(other) && !other.names_issuer(&authorities[at].1))
        };
        let next = (0..authorities.len()).find(|&at| !has_issuer(at)).unwrap_or(0);
        sorted.push(authorities.remove(next).0);
    }
    sorted
}
