//! Replacement of sets by those of renewed certificates, many at once.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    COMMITTED, Contents, FileSet, Flush, KeyFile, MARKER, PfxOptions, Rights, STAGING, check_replaceable_file,
    pfx_file, read_certificates, read_limited, remove_leftovers, sync_directory,
};
use crate::certificate::{Certificate, KeyEncoding, PrivateKey, files::FileError};

/// The key of a renewed set.
#[derive(Clone, Copy)]
pub(in crate::certificate) enum RenewedKey<'a> {
    /// The key file stays as it is. The key is given if a PFX file needs it.
    Kept(Option<&'a PrivateKey>),
    /// A new key, and how its file is encoded.
    New(&'a PrivateKey, KeyEncoding<'a>),
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
        // Reading from a pipe would wait for a writer.
        self.present().iter().try_for_each(|path| check_replaceable_file(path))?;
        let certificate = read_certificates(&path)?.swap_remove(0);
        self.check_name(&certificate)?;
        let are_wanted = are_others_wanted(&certificate);
        let read =
            |path: PathBuf| (are_wanted && path.symlink_metadata().is_ok()).then(|| read_limited(&path)).transpose();
        Ok(Snapshot { key: read(self.private_key())?, pfx: read(self.pfx())?, certificate })
    }

    /// Finishes the set if a killed process had committed it, and otherwise removes what it had begun to write.
    pub(in crate::certificate) fn recover(&self) -> Result<(), FileError> {
        if self.directory.is_dir() {
            let _turn = self.lock()?;
            self.finish(Flush::Each)?;
            remove_leftovers(&self.directory, &HashSet::from([self.stem.as_str()]));
        }
        Ok(())
    }

    /// Checks that no file with a private key that is replaced is a link: the old key would stay where the link leads to.
    pub(in crate::certificate) fn check_no_key_link(&self, is_key_new: bool) -> Result<(), FileError> {
        let mut replaced = vec![self.pfx()];
        replaced.extend(is_key_new.then(|| self.private_key()));
        let link = replaced.into_iter().find(|path| path.is_symlink());
        link.map_or(Ok(()), |path| Err(FileError::KeyLink(path)))
    }

    /// Encodes the files of a renewed set. The encryption of a PFX file takes long, so that this is done without the lock.
    pub(in crate::certificate) fn replacement(
        &self,
        old: &Certificate,
        fullchain: &[&Certificate],
        key: RenewedKey<'_>,
        pfx: Option<PfxOptions<'_>>,
    ) -> Result<Replacement, FileError> {
        let is_key_new = matches!(key, RenewedKey::New(..));
        let contents = match key {
            RenewedKey::New(key, encoding) => Contents {
                key: KeyFile::New(key.encode_pem(encoding)?),
                pfx: pfx.map(|options| pfx_file(fullchain, key, options)).transpose()?,
                ..Contents::without_key(fullchain)
            },
            RenewedKey::Kept(key) => Contents {
                pfx: key.zip(pfx).map(|(key, options)| pfx_file(fullchain, key, options)).transpose()?,
                ..Contents::without_key(fullchain)
            },
        };
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
        let staging = self.files.stage(&self.contents, flush, Rights::Kept)?;
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
    remove_leftovers(&directory, &replacements.iter().map(|replacement| replacement.files.stem.as_str()).collect());
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

/// Finishes the sets of a directory that killed processes had committed, and removes what others had begun to write, which
/// may hold private keys. `is_locked` says whether the caller has locked the directory.
pub(in crate::certificate) fn recover_directory(directory: &Path, is_locked: bool) -> Result<(), FileError> {
    let _turn = if is_locked { None } else { FileSet::verification(directory).lock()? };
    let failed = |error| FileError::io("read", directory, error);
    let mut stems = HashSet::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_prefix('.')) else { continue };
        if let Some(stem) = name.strip_suffix(COMMITTED) {
            let files = FileSet { directory: directory.to_owned(), stem: stem.to_owned(), name: None, is_locked: true };
            // Another program may have a directory of that name.
            if super::read_marker(&files.committed()).is_some() {
                files.finish(Flush::Each)?;
            }
        } else if let Some((stem, _)) = name.strip_suffix(STAGING).and_then(|name| name.rsplit_once('.'))
            && directory.join(format!(".{name}")).join(MARKER).is_file()
        {
            stems.insert(stem.to_owned());
        }
    }
    if !stems.is_empty() {
        remove_leftovers(directory, &stems.iter().map(String::as_str).collect());
    }
    Ok(())
}
