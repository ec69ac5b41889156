//! The CAs that sign renewed certificates, found beside them.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::error::RenewalError;
use crate::certificate::{
    Certificate, CertificateAuthority, CommonName, Timestamp,
    files::{FileError, FileSet},
};

/// The CAs that were found so far.
#[derive(Default)]
pub(super) struct Issuers(Mutex<Known>);

#[derive(Default)]
struct Known {
    authorities: Vec<Arc<CertificateAuthority>>,
    /// The directory that this run has locked.
    locked: Option<PathBuf>,
}

impl Issuers {
    /// Returns the CA that issued a certificate: one that was found before, or one whose files are in a directory under the
    /// name of the issuer.
    pub(super) fn find(
        &self,
        certificate: &Certificate,
        directories: &[PathBuf],
        key_password: Option<&str>,
        at: Timestamp,
    ) -> Result<Arc<CertificateAuthority>, RenewalError> {
        let issued = |authority: &Arc<CertificateAuthority>| authority.check_issued_by_this(certificate).is_ok();
        // Signatures are verified without the lock.
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).authorities.clone();
        if let Some(authority) = known.into_iter().find(issued) {
            return Ok(authority);
        }
        // Locked while a CA is read, so that only one thread does.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(authority) = known.authorities.iter().find(|authority| issued(authority)) {
            return Ok(Arc::clone(authority));
        }
        let found = Arc::new(read(certificate, directories, known.locked.as_deref(), key_password, at)?);
        known.authorities.push(Arc::clone(&found));
        Ok(found)
    }

    /// Forgets the CAs, whose files may have been replaced.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).authorities.clear();
    }

    /// Sets the directory that this run has locked.
    pub(super) fn set_locked(&self, directory: &Path) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).locked = directory.canonicalize().ok();
    }
}

/// Reads the CA that issued a certificate. The first reason why a CA of that name cannot be used is the error, if no other
/// directory has a usable one.
fn read(
    certificate: &Certificate,
    directories: &[PathBuf],
    locked: Option<&Path>,
    key_password: Option<&str>,
    at: Timestamp,
) -> Result<CertificateAuthority, RenewalError> {
    let mut failure = None;
    let name = certificate.issuer().common_name().and_then(|name| CommonName::new(name).ok());
    for directory in directories {
        let Some(mut files) = name.as_ref().and_then(|name| FileSet::new(directory, name).ok()) else { break };
        if locked.is_some() && directory.canonicalize().ok().as_deref() == locked {
            files = files.in_locked_directory();
        }
        let checked = match files.read_authority(key_password, at) {
            Err(FileError::Missing(_)) => continue,
            Err(error) => Err(error.into()),
            Ok(authority) => authority.check_issued_by_this(certificate).map(|()| authority),
        };
        match checked {
            Ok(authority) => return Ok(authority),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(|| RenewalError::IssuerNotFound {
        subject: certificate.to_string(),
        issuer: certificate.issuer().to_string(),
        searched: directories.to_vec(),
    }))
}

/// Returns where the files of the issuer are searched: beside the certificate, in the two directories above it (those of a
/// fleet, and the one with the fleet), and in the working directory.
pub(super) fn default_directories(directory: &Path) -> Vec<PathBuf> {
    let first = above(directory);
    let second = above(&first);
    let mut directories = vec![directory.to_owned(), first, second];
    if !directories.iter().any(|known| known == Path::new(".")) {
        directories.push(".".into());
    }
    directories
}

fn above(directory: &Path) -> PathBuf {
    // A path that ends with `.` or `..` has no name to remove.
    match (directory.file_name(), directory.parent()) {
        (Some(_), Some(parent)) if parent.as_os_str().is_empty() => ".".into(),
        (Some(_), Some(parent)) => parent.to_owned(),
        _ if directory == Path::new(".") => "..".into(),
        _ => directory.join(".."),
    }
}
