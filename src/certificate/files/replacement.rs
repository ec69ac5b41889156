//! Replacement of sets by those of renewed certificates, many at once.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    Contents, FileSet, Flush, KeyFile, PfxOptions, STAGING, pfx_file, read_certificates, read_limited, sync_directory,
};
use crate::certificate::{Certificate, PrivateKey, files::FileError};

/// The key of a renewed set.
#[derive(Clone, Copy)]
pub(in crate::certificate) enum RenewedKey<'a> {
    /// The key file stays as it is. The key is given if a PFX file needs it.
    Kept(Option<&'a PrivateKey>),
    /// A new key.
    New(&'a PrivateKey),
}

/// A set whose certificate was renewed, and which is not written yet.
pub(in crate::certificate) struct Replacement {
    files: FileSet,
    old: Certificate,
    contents: Contents,
    is_key_new: bool,
}

/// The files of a set at one moment.
pub(in crate::certificate) struct Snapshot {
    pub(in crate::certificate) certificate: Certificate,
    /// The content of the key file, if it exists and was wanted.
    pub(in crate::certificate) key: Option<Zeroizing<Vec<u8>>>,
    /// The content of the PFX file, if it exists and was wanted.
    pub(in crate::certificate) pfx: Option<Zeroizing<Vec<u8>>>,
}

impl FileSet {
    /// Reads the set while no other process replaces it. Key and PFX file are read only if they are wanted for the
    /// certificate.
    pub(in crate::certificate) fn snapshot(
        &self,
        are_others_wanted: impl FnOnce(&Certificate) -> bool,
    ) -> Result<Snapshot, FileError> {
        let path = self.certificate();
        if !self.directory.is_dir() {
            return Err(FileError::Missing(path));
        }
        let _turn = self.lock()?;
        self.finish(Flush::Each)?;
        if path.symlink_metadata().is_err() {
            return Err(match self.present().into_iter().next() {
                Some(found) => FileError::Incomplete { found, missing: path },
                None => FileError::Missing(path),
            });
        }
        let certificate = read_certificates(&path)?.swap_remove(0);
        let are_wanted = are_others_wanted(&certificate);
        let read =
            |path: PathBuf| (are_wanted && path.symlink_metadata().is_ok()).then(|| read_limited(&path)).transpose();
        Ok(Snapshot { key: read(self.private_key())?, pfx: read(self.pfx())?, certificate })
    }

    /// Encodes the files of a renewed set. The encryption of a PFX file takes long, so that this is done without the lock.
    pub(in crate::certificate) fn replacement(
        &self,
        old: &Certificate,
        fullchain: &[&Certificate],
        key: RenewedKey<'_>,
        pfx: Option<PfxOptions<'_>>,
    ) -> Result<Replacement, FileError> {
        let contents = match key {
            RenewedKey::New(key) => Contents::new(fullchain, Some((key, pfx)))?,
            RenewedKey::Kept(key) => Contents {
                pfx: key.zip(pfx).map(|(key, options)| pfx_file(fullchain, key, options)).transpose()?,
                ..Contents::without_key(fullchain)
            },
        };
        let is_key_new = matches!(key, RenewedKey::New(_));
        Ok(Replacement { files: self.clone(), old: old.clone(), contents, is_key_new })
    }
}

impl Replacement {
    /// Writes the set into a hidden directory. The lock must be held.
    fn stage(mut self, flush: Flush) -> Result<(Self, tempfile::TempDir), FileError> {
        self.files.finish(flush)?;
        let path = self.files.certificate();
        if read_certificates(&path)?.first() != Some(&self.old) {
            return Err(FileError::Changed(path));
        }
        if !self.is_key_new && self.files.private_key().symlink_metadata().is_ok() {
            self.contents.key = KeyFile::Kept;
        }
        let staging = self.files.stage(&self.contents, flush)?;
        Ok((self, staging))
    }
}

/// Replaces sets of one directory, each completely or not at all. The certificates in place must still be the old ones.
///
/// Several sets are flushed to the disk together, which takes as long as for one.
///
/// # Errors
/// Returns [`FileError`] if the directory cannot be locked or flushed. The result for a set is [`FileError::Changed`] if
/// another process has replaced it, or the error of the file system.
pub(in crate::certificate) fn replace_all(
    replacements: Vec<Replacement>,
) -> Result<Vec<Result<(), FileError>>, FileError> {
    let Some(first) = replacements.first() else { return Ok(Vec::new()) };
    let directory = first.files.directory.clone();
    let _turn = first.files.lock()?;
    remove_leftovers(&directory, replacements.iter().map(|replacement| replacement.files.stem.as_str()).collect());
    let flush = if replacements.len() > 1 && CAN_FLUSH_ALL { Flush::Together } else { Flush::Each };
    let staged: Vec<_> = replacements.into_iter().map(|replacement| replacement.stage(flush)).collect();
    if flush == Flush::Together {
        flush_all(&directory).map_err(|error| FileError::io("flush to the disk", &directory, error))?;
    }
    let commit = |(replacement, staging): (Replacement, tempfile::TempDir)| {
        replacement.files.commit_staged(staging, &replacement.contents, flush)
    };
    let outcomes = staged.into_iter().map(|staged| staged.and_then(commit)).collect();
    sync_directory(&directory);
    Ok(outcomes)
}

/// Whether the system can flush all files of a file system at once.
const CAN_FLUSH_ALL: bool = cfg!(target_os = "linux");

#[cfg(target_os = "linux")]
fn flush_all(directory: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fs::File::open(directory)?)?)
}

#[cfg(not(target_os = "linux"))]
fn flush_all(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Removes the hidden directories of these sets that killed processes did not commit. The lock must be held.
pub(super) fn remove_leftovers(directory: &Path, stems: HashSet<&str>) {
    // `.STEM.RANDOM.tmp`
    let is_leftover = |name: &str| {
        let stem = name.strip_prefix('.').and_then(|name| name.strip_suffix(STAGING)?.rsplit_once('.'));
        stem.is_some_and(|(stem, _)| stems.contains(stem))
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let found = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_leftover));
    let found: Vec<PathBuf> =
        found.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect();
    for path in found {
        // A directory that cannot be removed is harmless.
        let _ = match super::read_marker(&path) {
            Some(_) => super::remove_staged(&path),
            // The process may have been killed before it wrote the marker. This removes only an empty directory.
            None => fs::remove_dir(path),
        };
    }
}
