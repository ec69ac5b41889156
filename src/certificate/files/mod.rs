//! The files of a certificate, which are written and replaced as one set.
//!
//! A set is written into a hidden directory beside its place, flushed to the disk, and committed by one rename of that
//! directory. Then its files are moved out. If a process is killed before the rename, the old files are unchanged. If it is
//! killed after the rename, the next operation on the set moves the rest. So a set exists completely or not at all, and no
//! file is ever incomplete.
//!
//! Other programs see each file replaced by one rename. Files of the old set that the new one does not have are removed
//! first. If the key changes, the old certificate and full chain are removed before the new key is moved: at no moment is a
//! certificate beside the key of another. Several files cannot be replaced at once, so a program that opens them one after
//! the other, without the lock, can still read the key of one set and the certificate of the next. This library takes the
//! lock, and detects a key or chain that does not belong to the certificate when it reads a set.
//!
//! Each hidden directory has a marker file that lists the files of its set. Directories without a marker are not touched.
//! The next write of a set removes the leftovers of killed processes. A lock on the directory serializes processes.
//!
//! ```
//! use iot_enroll::certificate::{CertificateAuthority, CommonName, IssueOptions};
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let root = CertificateAuthority::new_root(&CommonName::new("Lab Root")?, &IssueOptions::new())?;
//! let files = root.save(dir)?;
//! assert_eq!(files.certificate(), dir.join("labRoot_cert.pem"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod replacement;
mod single;

use std::{
    collections::HashSet,
    fmt, fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    slice,
};

use zeroize::Zeroizing;

pub(super) use self::replacement::{RenewedKey, Replacement, Snapshot, recover_directory, replace_all};
pub(crate) use self::single::check_replaceable_file;
pub use self::{
    error::FileError,
    single::{Readers, check_file, is_same_file, write_file},
};
use super::{
    Certificate, CertificateAuthority, CommonName, IssuedCertificate, KeyError, NameError, PrivateKey, ReadError,
    Timestamp, camel_case, chain,
    locked_file::LockedFile,
    pfx::{self, DEFAULT_PASSWORD, PfxEncryption},
    secure_file::{self, Access},
};

/// The files of a certificate, named as `create_test_cert.js` does: the common name in [camel case](super::camel_case) with
/// `_cert.pem`, `_key.pem`, `_fullchain.pem` and `.pfx`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSet {
    directory: PathBuf,
    stem: String,
    /// The common name, to distinguish the set from that of another name with the same stem. `None` for proofs, whose
    /// files do not depend on the name.
    name: Option<String>,
    /// Whether this process has locked the directory for longer than one operation.
    is_locked: bool,
}

/// The stem of the files of proofs.
const VERIFICATION: &str = "verification";

/// The end of the stem of the files of a secondary certificate.
const SECONDARY: &str = "Secondary";

/// The suffix of the hidden directory in which a set is written.
const STAGING: &str = ".tmp";

/// The suffix of the hidden directory of a committed set.
const COMMITTED: &str = ".commit";

/// The marker file in a hidden directory: a title line, then the names of the files of the set.
const MARKER: &str = ".iot-enroll-set";
const MARKER_TITLE: &str = "Files of one certificate, on their way to the directory above. Made by iot-enroll.";

/// The suffixes of the files of a set. The certificate is the last: if it exists, the others do.
const SUFFIXES: [&str; 4] = ["_key.pem", ".pfx", "_fullchain.pem", "_cert.pem"];

/// The options of a PFX file.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct PfxOptions<'a> {
    /// The password of the file.
    pub password: &'a str,
    /// The encryption of the file.
    pub encryption: PfxEncryption,
}

impl<'a> PfxOptions<'a> {
    /// Creates options with that password and the default encryption.
    #[must_use]
    pub fn new(password: &'a str) -> Self {
        Self { password, encryption: PfxEncryption::default() }
    }

    /// Sets the encryption of the file.
    #[must_use]
    pub fn encryption(mut self, encryption: PfxEncryption) -> Self {
        self.encryption = encryption;
        self
    }
}

impl fmt::Debug for PfxOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PfxOptions").field("encryption", &self.encryption).finish_non_exhaustive()
    }
}

/// The contents of a new set.
struct Contents {
    certificate: String,
    fullchain: String,
    key: KeyFile,
    pfx: Option<Zeroizing<Vec<u8>>>,
}

/// The private key of a new set.
enum KeyFile {
    New(Zeroizing<String>),
    /// The existing file is kept.
    Kept,
    /// The set has no key.
    Absent,
}

impl Contents {
    fn new(fullchain: &[&Certificate], key: Option<(&PrivateKey, Option<PfxOptions<'_>>)>) -> Result<Self, FileError> {
        let mut contents = Self::without_key(fullchain);
        if let Some((key, pfx)) = key {
            contents.key = KeyFile::New(key.to_pem()?);
            contents.pfx = pfx.map(|options| pfx_file(fullchain, key, options)).transpose()?;
        }
        Ok(contents)
    }

    fn without_key(fullchain: &[&Certificate]) -> Self {
        let pems: Vec<String> = fullchain.iter().map(|certificate| certificate.to_pem()).collect();
        let certificate = pems.first().cloned().unwrap_or_default();
        Self { certificate, fullchain: pems.concat(), key: KeyFile::Absent, pfx: None }
    }
}

fn pfx_file(
    fullchain: &[&Certificate],
    key: &PrivateKey,
    options: PfxOptions<'_>,
) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let chain = fullchain.iter().copied();
    Ok(Zeroizing::new(pfx::write(key, chain, options.password, options.encryption)?))
}

/// When files are flushed to the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    /// Each file when it is written.
    Each,
    /// All files of several sets together, before the sets are committed.
    Together,
}

/// Owner, group and mode of new files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rights {
    /// Those of every new file.
    Default,
    /// Those of the files that are replaced.
    Kept,
}

/// What to do if files of a set already exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum IfExists {
    /// Fail, and change nothing.
    #[default]
    Fail,
    /// Replace the whole set. The old PFX file is removed even if the new set has none.
    Overwrite,
}

impl IssuedCertificate {
    /// Saves the four files of the certificate in a directory, under its common name: certificate, private key, full chain,
    /// and a PFX file with [`DEFAULT_PASSWORD`]. Existing files are not overwritten.
    ///
    /// [`FileSet::write`] has more options, and is the way to save a proof of possession, whose common name is no file
    /// name.
    ///
    /// # Errors
    /// Returns [`FileError::Exists`] if one of the files exists; otherwise the errors of [`FileSet::write`].
    pub fn save(&self, directory: impl Into<PathBuf>) -> Result<FileSet, FileError> {
        let name = CommonName::new(self.certificate.subject().common_name().unwrap_or_default())?;
        let files = FileSet::new(directory, &name)?;
        files.write(self, Some(PfxOptions::new(DEFAULT_PASSWORD)), IfExists::Fail)?;
        Ok(files)
    }
}

impl FileSet {
    /// Returns the files of a name in a directory, whether they exist or not.
    ///
    /// # Errors
    /// Returns a [`NameError`] if files cannot have that name.
    pub fn new(directory: impl Into<PathBuf>, name: &CommonName) -> Result<Self, NameError> {
        let (directory, stem) = (directory.into(), name.file_stem()?);
        Ok(Self { directory, stem, name: Some(name.as_str().to_owned()), is_locked: false })
    }

    /// Returns the files of the secondary certificate of a name, beside those of its primary one: for an individual
    /// enrollment with two certificates. The stem of the file names ends with `Secondary`.
    ///
    /// # Errors
    /// Returns a [`NameError`] if files cannot have that name.
    pub fn secondary(directory: impl Into<PathBuf>, name: &CommonName) -> Result<Self, NameError> {
        let mut files = Self::new(directory, name)?;
        files.stem.push_str(SECONDARY);
        Ok(files)
    }

    /// Returns the files of a proof of possession, which are named `verification` for every code.
    #[must_use]
    pub fn verification(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), stem: VERIFICATION.to_owned(), name: None, is_locked: false }
    }

    /// Returns the set that a file belongs to by its name, whether it exists or not. `None` if it is no name of a file of a
    /// set.
    #[must_use]
    pub fn of_file(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let stem = SUFFIXES.into_iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|stem| !stem.is_empty())?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(Self { directory: directory.to_owned(), stem: stem.to_owned(), name: None, is_locked: false })
    }

    /// Returns the set with the information that the caller has locked its directory, which a second lock would wait for.
    pub(super) fn in_locked_directory(mut self) -> Self {
        self.is_locked = true;
        self
    }

    /// Returns the set of the certificate with this common name. A certificate with another name is refused.
    pub(super) fn of_name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Returns the directory of the set.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns whether the files are named as those of proofs of possession are.
    pub(super) fn is_named_as_proof(&self) -> bool {
        self.stem == VERIFICATION
    }

    /// Returns the path of the certificate in PEM.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.path("_cert.pem")
    }

    /// Returns the path of the private key in PKCS#8 PEM, which only the owner of the file can read.
    #[must_use]
    pub fn private_key(&self) -> PathBuf {
        self.path("_key.pem")
    }

    /// Returns the path of the certificate and all above it, in PEM.
    #[must_use]
    pub fn fullchain(&self) -> PathBuf {
        self.path("_fullchain.pem")
    }

    /// Returns the path of the PFX file with key, certificate and chain, which only the owner of the file can read.
    #[must_use]
    pub fn pfx(&self) -> PathBuf {
        self.path(".pfx")
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}{suffix}", self.stem))
    }

    fn all(&self) -> [PathBuf; 4] {
        SUFFIXES.map(|suffix| self.path(suffix))
    }

    /// Returns a key that is equal for two sets with the same files, even on file systems that ignore case.
    #[cfg(feature = "client")]
    pub(crate) fn identity(&self) -> PathBuf {
        self.directory.join(self.stem.to_lowercase())
    }

    /// Checks that no file of the set is a file of this CA, through any path or link.
    ///
    /// # Errors
    /// Returns [`FileError::SigningAuthority`] with the shared file.
    pub fn check_apart(&self, authority: &CertificateAuthority) -> Result<(), FileError> {
        let shared = self.all().into_iter().find(|ours| authority.files().iter().any(|theirs| is_same(ours, theirs)));
        shared.map_or(Ok(()), |path| Err(FileError::SigningAuthority(path)))
    }

    /// Returns whether a path leads to a file of the set, also through links.
    #[must_use]
    pub fn includes(&self, path: &Path) -> bool {
        self.all().iter().any(|ours| is_same(ours, path))
    }

    /// Checks that the set can be written, as far as that is known before its certificate is. Changes nothing, but
    /// finishes a set that a killed process had committed.
    ///
    /// # Errors
    /// Returns the errors of [`write`](Self::write).
    pub fn check_available(&self, if_exists: IfExists) -> Result<(), FileError> {
        check_writable(&self.directory)?;
        if !self.directory.is_dir() {
            return Ok(());
        }
        let _turn = self.lock()?;
        self.finish(Flush::Each)?;
        self.check_replaceable(&[], if_exists, None)
    }

    /// Checks, as [`check_available`](Self::check_available) does, that [`write_without_key`](Self::write_without_key) can
    /// write the set of a certificate for this public key, the DER of a `SubjectPublicKeyInfo` with an EC point uncompressed.
    /// Returns whether the set has the private key already, which is then kept.
    ///
    /// # Errors
    /// Returns the errors of [`write_without_key`](Self::write_without_key).
    pub fn check_without_key(&self, public_key: &[u8], if_exists: IfExists) -> Result<bool, FileError> {
        check_writable(&self.directory)?;
        if !self.directory.is_dir() {
            return Ok(false);
        }
        let _turn = self.lock()?;
        self.finish(Flush::Each)?;
        self.check_keeping(&[], if_exists, public_key)
    }

    /// Checks that the files that exist may be overwritten by a set without a key. Returns whether the set has the private
    /// key, which is kept. The lock must be held.
    fn check_keeping(&self, above: &[&Certificate], if_exists: IfExists, public_key: &[u8]) -> Result<bool, FileError> {
        self.present().iter().try_for_each(|path| check_replaceable_file(path))?;
        let holds = |path: &Path| read_key(path, None).map(|key| key.public_key() == public_key);
        let (key, pfx) = (self.private_key(), self.pfx());
        let found = holds(&key);
        let is_kept = matches!(found, Ok(true));
        self.check_replaceable(above, if_exists, is_kept.then_some(key.as_path()))?;
        if is_kept {
            return Ok(true);
        }
        // Files that would be removed.
        for (path, found) in [(key, found), (pfx.clone(), holds(&pfx))] {
            if path.symlink_metadata().is_err() {
                continue;
            }
            match found {
                Ok(false) => {}
                Ok(true) => return Err(FileError::OnlyKey { path, error: None }),
                Err(error) => return Err(FileError::OnlyKey { path, error: Some(Box::new(error)) }),
            }
        }
        Ok(false)
    }

    /// Checks that the files that exist may be overwritten, except one that is kept. The lock must be held.
    fn check_replaceable(
        &self,
        above: &[&Certificate],
        if_exists: IfExists,
        kept: Option<&Path>,
    ) -> Result<(), FileError> {
        let mut existing = self.present();
        // Before any is read: a pipe would be waited for.
        existing.iter().try_for_each(|path| check_replaceable_file(path))?;
        self.check_owner(above)?;
        existing.retain(|path| Some(path.as_path()) != kept);
        if if_exists == IfExists::Fail && !existing.is_empty() {
            return Err(FileError::Exists(existing));
        }
        Ok(())
    }

    /// Checks that a certificate has the common name of the set: other names may have the same file names.
    ///
    /// # Errors
    /// Returns [`FileError::OtherName`] with both names.
    pub fn check_name(&self, certificate: &Certificate) -> Result<(), FileError> {
        match &self.name {
            Some(name) if certificate.subject().common_name() != Some(name) => Err(FileError::OtherName {
                path: self.certificate(),
                expected: name.clone(),
                found: name_of(certificate),
            }),
            _ => Ok(()),
        }
    }

    /// Checks that existing files of the set belong neither to a certificate above the new one nor to another name. The
    /// lock must be held.
    fn check_owner(&self, above: &[&Certificate]) -> Result<(), FileError> {
        let path = self.certificate();
        if let Ok(found) = read_certificates(&path)
            && let Some(found) = found.first()
        {
            if above.contains(&found) {
                return Err(FileError::SigningAuthority(path));
            }
            let common_name = found.subject().common_name();
            let other = if let Some(name) = &self.name {
                common_name != Some(name)
            } else {
                // A proof may have any name. A CA, or a certificate with that file name, is not a proof.
                let is_authority = found.basic_constraints().is_some_and(|constraints| constraints.authority);
                is_authority || common_name.is_some_and(|name| camel_case(name) == VERIFICATION)
            };
            if other {
                return Err(self.shared_with(path, name_of(found)));
            }
        }
        if let Ok(key) = read_key(&self.private_key(), None)
            && above.iter().any(|authority| key.belongs_to(authority))
        {
            return Err(FileError::SigningAuthority(self.private_key()));
        }
        self.check_spelling()
    }

    /// Checks that no other files differ from those of the set only in case. Many file systems and people would confuse
    /// them.
    pub(crate) fn check_spelling(&self) -> Result<(), FileError> {
        let ours: Vec<_> = self.all().iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
        let lower: Vec<_> = ours.iter().map(|name| name.to_lowercase()).collect();
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !ours.iter().any(|ours| ours == name)) else { continue };
            let Some(position) = lower.iter().position(|lower| *lower == name.to_lowercase()) else { continue };
            let stem = name.get(..name.len().saturating_sub(SUFFIXES[position].len())).unwrap_or(name);
            let certificate = self.directory.join(format!("{stem}_cert.pem"));
            let found = read_certificates(&certificate).ok().and_then(|found| found.first().map(name_of));
            return Err(self.shared_with(entry.path(), found.unwrap_or_else(|| stem.to_owned())));
        }
        Ok(())
    }

    fn shared_with(&self, path: PathBuf, other: String) -> FileError {
        let name = self.name.clone().unwrap_or_else(|| "a proof of possession".to_owned());
        FileError::SharedFiles { path, name, other }
    }

    fn committed(&self) -> PathBuf {
        self.directory.join(format!(".{}{COMMITTED}", self.stem))
    }

    /// Returns the files of the set that exist. Finishes a set that a killed process had committed.
    ///
    /// # Errors
    /// Returns [`FileError::Io`] or [`FileError::Unfinished`] if the file system fails.
    pub fn existing(&self) -> Result<Vec<PathBuf>, FileError> {
        if !self.directory.is_dir() {
            return Ok(Vec::new());
        }
        let _turn = self.lock()?;
        self.finish(Flush::Each)?;
        Ok(self.present())
    }

    fn present(&self) -> Vec<PathBuf> {
        self.all().into_iter().filter(|path| path.symlink_metadata().is_ok()).collect()
    }

    /// Returns the set in its locked directory, if there is one, and the lock.
    fn locked(&self) -> Result<(Self, Option<LockedFile>), FileError> {
        let turn = if self.directory.is_dir() { self.lock()? } else { None };
        Ok((self.clone().in_locked_directory(), turn))
    }

    /// Waits for the lock on the directory, which is released when the value is dropped.
    fn lock(&self) -> Result<Option<LockedFile>, FileError> {
        if self.is_locked {
            return Ok(None);
        }
        let file = open_to_lock(&self.directory);
        let file = file.map_err(|error| FileError::io("open the directory", &self.directory, error))?;
        // Some network file systems have no locks. The rename that commits a set is atomic there too.
        let _ = file.lock();
        Ok(Some(LockedFile::new(file)))
    }

    /// Writes the set: certificate, key and chain, and a PFX file if requested. Creates the directory if missing.
    ///
    /// Files of another name, or of a certificate above the new one, are never overwritten. If the key is in a PKCS#11 token,
    /// neither a key file nor a PFX file is written.
    ///
    /// # Errors
    /// Returns [`FileError::Exists`] if one of the four files exists and [`IfExists::Fail`] is given,
    /// [`FileError::SharedFiles`] if they belong to another name, [`FileError::SigningAuthority`] if they belong to a
    /// certificate above the new one, and other errors if the file system fails.
    pub fn write(
        &self,
        issued: &IssuedCertificate,
        pfx: Option<PfxOptions<'_>>,
        if_exists: IfExists,
    ) -> Result<(), FileError> {
        let fullchain: Vec<_> = issued.fullchain().collect();
        self.commit(&fullchain, Some((&issued.key, pfx)), if_exists)
    }

    /// Writes the set of a certificate for this key: certificate and chain, the certificate of the key first, the key, and a
    /// PFX file if requested.
    ///
    /// # Errors
    /// Returns the errors of [`write`](Self::write).
    pub fn write_with_key(
        &self,
        fullchain: &[&Certificate],
        key: &PrivateKey,
        pfx: Option<PfxOptions<'_>>,
        if_exists: IfExists,
    ) -> Result<(), FileError> {
        self.commit(fullchain, Some((key, pfx)), if_exists)
    }

    /// Writes the set of a device that keeps its own key: certificate and chain, the certificate of the device first.
    ///
    /// A key file of the set that belongs to the certificate is kept, and does not count as existing. [`IfExists::Overwrite`]
    /// removes another key and the PFX file of an old set.
    ///
    /// # Errors
    /// Returns the errors of [`write`](Self::write), and [`FileError::OnlyKey`] if a file that would be removed holds the key
    /// of the certificate, or cannot be read and may hold it.
    pub fn write_without_key(&self, fullchain: &[&Certificate], if_exists: IfExists) -> Result<(), FileError> {
        self.commit(fullchain, None, if_exists)
    }

    fn commit(
        &self,
        fullchain: &[&Certificate],
        key: Option<(&PrivateKey, Option<PfxOptions<'_>>)>,
        if_exists: IfExists,
    ) -> Result<(), FileError> {
        if self.directory.exists() && !self.directory.is_dir() {
            return Err(FileError::NotADirectory(self.directory.clone()));
        }
        secure_file::create_directory_all(&self.directory)
            .map_err(|error| FileError::io("create the directory", &self.directory, error))?;
        let _turn = self.lock()?;
        self.finish(Flush::Each)?;
        // A key in a token stays there.
        let key = key.filter(|(key, _)| key.token_uri().is_none());
        let above = fullchain.get(1..).unwrap_or_default();
        let is_key_kept = if let (None, Some(leaf)) = (key, fullchain.first()) {
            self.check_keeping(above, if_exists, &leaf.uncompressed_public_key())?
        } else {
            self.check_replaceable(above, if_exists, None)?;
            false
        };
        let mut contents = Contents::new(fullchain, key)?;
        if is_key_kept {
            contents.key = KeyFile::Kept;
        }
        self.put_in_place(&contents)
    }

    /// Replaces the files of the set that exist. The lock must be held.
    fn put_in_place(&self, contents: &Contents) -> Result<(), FileError> {
        remove_leftovers(&self.directory, &HashSet::from([self.stem.as_str()]));
        let staging = self.stage(contents, Flush::Each, Rights::Default)?;
        self.commit_staged(staging, contents, Flush::Each)
    }

    /// Commits a set that was written into a hidden directory. The lock must be held.
    fn commit_staged(&self, staging: tempfile::TempDir, contents: &Contents, flush: Flush) -> Result<(), FileError> {
        let committed = self.committed();
        fs::rename(staging.path(), &committed).map_err(|error| FileError::io("put in place", &committed, error))?;
        // The directory was renamed, so the guard must not remove it.
        let _ = staging.keep();
        self.finish(flush)?;
        let has = |path: &PathBuf| path.symlink_metadata().is_ok_and(|found| found.is_file());
        // A key that is kept may be a link.
        let is_kept = |path: &PathBuf| matches!(contents.key, KeyFile::Kept) && *path == self.private_key();
        match self.targets(contents).into_iter().find(|path| !has(path) && !is_kept(path)) {
            Some(path) => Err(FileError::Removed(path)),
            None => Ok(()),
        }
    }

    /// Returns the files that the set will have.
    fn targets(&self, contents: &Contents) -> Vec<PathBuf> {
        let mut targets = vec![self.fullchain(), self.certificate()];
        targets.extend((!matches!(contents.key, KeyFile::Absent)).then(|| self.private_key()));
        targets.extend(contents.pfx.is_some().then(|| self.pfx()));
        targets
    }

    /// Writes the set into a hidden directory. A key that is kept is only in the marker, so that it is not removed as an old
    /// file.
    fn stage(&self, contents: &Contents, flush: Flush, rights: Rights) -> Result<tempfile::TempDir, FileError> {
        let prefix = format!(".{}.", self.stem);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(STAGING);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let staging = builder
            .tempdir_in(&self.directory)
            .map_err(|error| FileError::io("create a directory in", &self.directory, error))?;
        let names = self.targets(contents);
        let names = names.iter().filter_map(|path| path.file_name()?.to_str());
        let marker: String = std::iter::once(MARKER_TITLE).chain(names).flat_map(|line| [line, "\n"]).collect();
        write_new(&staging.path().join(MARKER), marker.as_bytes(), Access::Everyone, flush)
            .map_err(|error| FileError::io("write", &staging.path().join(MARKER), error))?;
        let put = |target: PathBuf, content: &[u8], access| {
            let staged = target.file_name().map(|name| staging.path().join(name)).unwrap_or_default();
            let written = write_new(&staged, content, access, flush).and_then(|file| match rights {
                Rights::Default => Ok(()),
                Rights::Kept => secure_file::copy_rights(&target, &file),
            });
            written.map_err(|error| FileError::io("write", &target, error))
        };
        put(self.certificate(), contents.certificate.as_bytes(), Access::Everyone)?;
        put(self.fullchain(), contents.fullchain.as_bytes(), Access::Everyone)?;
        if let KeyFile::New(key) = &contents.key {
            put(self.private_key(), key.as_bytes(), Access::Owner)?;
        }
        if let Some(pfx) = &contents.pfx {
            put(self.pfx(), pfx, Access::Owner)?;
        }
        Ok(staging)
    }

    /// Moves the files of a committed directory to their places, and removes old files that the set does not have.
    fn finish(&self, flush: Flush) -> Result<(), FileError> {
        let committed = self.committed();
        let Ok(found) = committed.symlink_metadata() else { return Ok(()) };
        let stuck = |error| FileError::Unfinished { path: self.committed(), error };
        let done = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(stuck(error)),
            _ => Ok(()),
        };
        let names = if found.is_dir() { read_marker(&committed) } else { None };
        let Some(names) = names else {
            // A process that was killed in the last step leaves an empty directory.
            let foreign = |_| stuck(io::Error::other("it was not created by iot-enroll"));
            return fs::remove_dir(&committed).map_err(foreign);
        };
        let staged = |target: &Path| target.file_name().map(|name| committed.join(name)).unwrap_or_default();
        let belongs =
            |target: &Path| target.file_name().is_some_and(|name| names.iter().any(|known| known.as_str() == name));
        let (new, old): (Vec<_>, Vec<_>) = self.all().into_iter().partition(|target| belongs(target));
        for target in old {
            done(fs::remove_file(&target))?;
        }
        if belongs(&self.private_key()) && is_new_key(&staged(&self.private_key()), &self.private_key()) {
            for target in [self.certificate(), self.fullchain()] {
                done(fs::remove_file(target))?;
            }
        }
        for target in new {
            done(fs::rename(staged(&target), &target))?;
        }
        done(fs::remove_file(committed.join(MARKER)))?;
        done(fs::remove_dir(&committed))?;
        if flush == Flush::Each {
            sync_directory(&self.directory);
        }
        Ok(())
    }

    /// Reads the set as a certificate authority: its certificate, its key, and the chain of its full chain file.
    ///
    /// # Errors
    /// Returns [`FileError::Missing`] if the set does not exist, [`FileError::Incomplete`] if only a part of it does,
    /// [`FileError::Mixed`] if its files do not belong together, [`FileError::OtherName`] if the certificate has another
    /// common name than the set, and other errors if a file cannot be read or the certificate may not sign.
    pub fn read_authority(&self, key_password: Option<&str>, at: Timestamp) -> Result<CertificateAuthority, FileError> {
        // No other process replaces the set between the certificate and the key.
        let (locked, _turn) = self.locked()?;
        let certificates = locked.read_certificates()?;
        let key = read_key(&self.private_key(), key_password)?;
        let authority = pair_with_first(certificates, key, &self.certificate(), &self.private_key(), at)?;
        Ok(authority.read_from(self.all()))
    }

    /// Reads the set as a certificate authority whose key is elsewhere, such as in a PKCS#11 token.
    ///
    /// # Errors
    /// Returns [`FileError::Missing`] if the certificate does not exist, [`FileError::Authority`] if the key does not belong to
    /// it; otherwise the errors of [`read_authority`](Self::read_authority).
    pub fn read_authority_with_key(&self, key: PrivateKey, at: Timestamp) -> Result<CertificateAuthority, FileError> {
        let existing = self.existing()?;
        if !existing.contains(&self.certificate()) {
            return Err(FileError::Missing(self.certificate()));
        }
        let certificates = self.with_chain(self.read_own_certificates()?, &existing)?;
        let place = place(&key);
        let authority = pair_with_first(certificates, key, &self.certificate(), &place, at)?;
        Ok(authority.read_from(self.all()))
    }

    /// Reads the certificate of the set, whose key need not be here.
    ///
    /// # Errors
    /// Returns [`FileError::Missing`] if it does not exist, [`FileError::OtherName`] if it has another common name than the set,
    /// and other errors if it cannot be read.
    pub fn read_certificate(&self) -> Result<Certificate, FileError> {
        if !self.existing()?.contains(&self.certificate()) {
            return Err(FileError::Missing(self.certificate()));
        }
        Ok(self.read_own_certificates()?.swap_remove(0))
    }

    /// Reads the certificate of the set, then the certificates of its full chain file. The key file must exist, and must
    /// belong to the certificate unless it is encrypted.
    ///
    /// # Errors
    /// Returns the errors of [`read_authority`](Self::read_authority).
    pub fn read_certificates(&self) -> Result<Vec<Certificate>, FileError> {
        let (locked, _turn) = self.locked()?;
        let existing = locked.existing()?;
        let (certificate, key) = (self.certificate(), self.private_key());
        match (existing.contains(&certificate), existing.contains(&key)) {
            (true, true) => {}
            (true, false) => return Err(FileError::Incomplete { found: certificate, missing: key }),
            (false, _) => {
                let found = existing.into_iter().next();
                return Err(match found {
                    Some(found) => FileError::Incomplete { found, missing: certificate },
                    None => FileError::Missing(certificate),
                });
            }
        }
        existing.iter().try_for_each(|path| check_replaceable_file(path))?;
        let certificates = self.read_own_certificates()?;
        // An encrypted key cannot be compared. A key that cannot be read is reported when it is used.
        if read_key(&key, None).is_ok_and(|key| !certificates.iter().any(|it| key.belongs_to(it))) {
            return Err(FileError::Mixed { certificate, other: key });
        }
        self.with_chain(certificates, &existing)
    }

    /// Reads the file of the certificate.
    fn read_own_certificates(&self) -> Result<Vec<Certificate>, FileError> {
        let certificates = read_certificates(&self.certificate())?;
        if let Some(first) = certificates.first() {
            self.check_name(first)?;
        }
        Ok(certificates)
    }

    /// Adds the certificates of the full chain file.
    fn with_chain(
        &self,
        mut certificates: Vec<Certificate>,
        existing: &[PathBuf],
    ) -> Result<Vec<Certificate>, FileError> {
        if existing.contains(&self.fullchain()) {
            let chain = read_certificates(&self.fullchain())?;
            if !chain.contains(&certificates[0]) {
                return Err(FileError::Mixed { certificate: self.certificate(), other: self.fullchain() });
            }
            certificates.extend(chain);
        }
        Ok(certificates)
    }
}

/// Returns whether a key file that is about to be moved replaces another key.
fn is_new_key(staged: &Path, existing: &Path) -> bool {
    // Otherwise it was moved already, or is kept.
    let Ok(staged) = read_limited(staged) else { return false };
    if !existing.is_file() {
        return true;
    }
    read_limited(existing).map_or(true, |existing| *staged != *existing)
}

/// Removes a hidden directory without a valid marker, if it has nothing else: the process may have been killed before it
/// created the marker, or before it wrote it.
fn remove_unmarked(directory: &Path) -> io::Result<()> {
    let marker = directory.join(MARKER);
    if fs::read_dir(directory)?.count() == 1 && marker.symlink_metadata().is_ok_and(|found| found.len() == 0) {
        fs::remove_file(marker)?;
    }
    fs::remove_dir(directory)
}

/// Removes a hidden directory, its marker last: if the process is killed in between, the next one removes the rest.
fn remove_staged(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() != MARKER {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_file(directory.join(MARKER))?;
    fs::remove_dir(directory)
}

/// Removes the hidden directories of these sets that killed processes did not commit. The lock must be held.
fn remove_leftovers(directory: &Path, stems: &HashSet<&str>) {
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
        let _ = match read_marker(&path) {
            Some(_) => remove_staged(&path),
            None => remove_unmarked(&path),
        };
    }
}

/// Returns the file names in the marker of a hidden directory. `None` if it has no valid marker.
fn read_marker(directory: &Path) -> Option<Vec<String>> {
    let path = directory.join(MARKER);
    if !path.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    (lines.next()? == MARKER_TITLE).then(|| lines.map(str::to_owned).collect())
}

/// The passwords of files that may be encrypted.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct Passwords<'a> {
    /// The password of private keys.
    pub key: Option<&'a str>,
    /// The password of PFX files. The default is the password of private keys, then those that [`pfx::read`] tries.
    pub pfx: Option<&'a str>,
}

impl<'a> Passwords<'a> {
    /// Creates a set without passwords.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the password of private keys.
    #[must_use]
    pub fn key(mut self, password: impl Into<Option<&'a str>>) -> Self {
        self.key = password.into();
        self
    }

    /// Sets the password of PFX files.
    #[must_use]
    pub fn pfx(mut self, password: impl Into<Option<&'a str>>) -> Self {
        self.pfx = password.into();
        self
    }

    pub(super) fn for_pfx(self) -> Option<&'a str> {
        self.pfx.or(self.key)
    }
}

impl<'a> From<Option<&'a str>> for Passwords<'a> {
    /// Uses the password for private keys.
    fn from(key: Option<&'a str>) -> Self {
        Self { key, pfx: None }
    }
}

impl fmt::Debug for Passwords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

/// Reads a certificate authority from a certificate file, which may also hold its chain, and a key file. Both may be the
/// same PFX file.
///
/// # Errors
/// Returns a [`FileError`] that names the file and the reason.
pub fn read_authority<'a>(
    certificate: &Path,
    key: &Path,
    passwords: impl Into<Passwords<'a>>,
    at: Timestamp,
) -> Result<CertificateAuthority, FileError> {
    let passwords = passwords.into();
    let certificates = read_certificates_with(certificate, passwords)?;
    let authority = pair(certificates, read_key(key, passwords)?, certificate, key, at)?;
    Ok(authority.read_from([certificate.to_owned(), key.to_owned()]))
}

/// Reads a certificate authority from a certificate file, which may also hold its chain, and a key from elsewhere, such as from
/// a PKCS#11 token.
///
/// # Errors
/// Returns a [`FileError`] that names the file and the reason.
pub fn read_authority_with_key<'a>(
    certificate: &Path,
    key: PrivateKey,
    passwords: impl Into<Passwords<'a>>,
    at: Timestamp,
) -> Result<CertificateAuthority, FileError> {
    let place = place(&key);
    let authority = pair(read_certificates_with(certificate, passwords.into())?, key, certificate, &place, at)?;
    Ok(authority.read_from([certificate.to_owned()]))
}

/// Returns whether both paths lead to the same file.
fn is_same(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| fs::canonicalize(path).ok();
    if one == other || canonical(one).is_some_and(|one| canonical(other) == Some(one)) {
        return true;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let node = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        node(one).is_some_and(|one| node(other) == Some(one))
    }
    #[cfg(not(unix))]
    false
}

/// Returns the common name of a certificate, or its whole subject if it has none.
fn name_of(certificate: &Certificate) -> String {
    let subject = certificate.subject();
    subject.common_name().map_or_else(|| subject.to_string(), str::to_owned)
}

/// Checks that files can be written to a directory, or that the directory can be created. Leaves nothing behind.
///
/// # Errors
/// Returns [`FileError::NotADirectory`] if another file is in the way, [`FileError::Io`] if the file system refuses.
pub fn check_writable(directory: &Path) -> Result<(), FileError> {
    let here = Path::new(".");
    let existing = directory.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(here);
    if !existing.is_dir() {
        return Err(FileError::NotADirectory(existing.to_owned()));
    }
    // A file without a name, of which nothing is left if the process is killed.
    let trial = tempfile::tempfile_in(existing);
    trial.map(drop).map_err(|error| FileError::io("create a file in", existing, error))
}

/// Reads every certificate of a file in any encoding. PFX files are opened with the default passwords of [`pfx::read`].
///
/// # Errors
/// Returns [`FileError::Io`], [`FileError::Certificate`] or [`FileError::PfxFile`], which name the file.
pub fn read_certificates(path: &Path) -> Result<Vec<Certificate>, FileError> {
    read_certificates_with(path, Passwords::default())
}

/// Reads every certificate of a file in any encoding.
///
/// # Errors
/// Returns the errors of [`read_certificates`].
pub fn read_certificates_with(path: &Path, passwords: Passwords<'_>) -> Result<Vec<Certificate>, FileError> {
    let bytes = read_limited(path)?;
    match Certificate::read_all(&bytes) {
        Err(ReadError::Pfx) => {
            pfx::read(&bytes, passwords.for_pfx()).map_err(|error| FileError::PfxFile { path: path.to_owned(), error })
        }
        other => other.map_err(|error| FileError::Certificate { path: path.to_owned(), error }),
    }
}

/// Opens the file that is locked for a directory.
pub(super) fn open_to_lock(directory: &Path) -> io::Result<fs::File> {
    // Unix can open and lock the directory itself. Elsewhere a file in it is locked.
    if cfg!(unix) {
        fs::File::open(directory)
    } else {
        let path = directory.join(".iot-enroll.lock");
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)
    }
}

/// Returns where a key is that has no file.
fn place(key: &PrivateKey) -> PathBuf {
    PathBuf::from(key.token_uri().unwrap_or("its key"))
}

/// Combines the certificates of a set with its key, which must belong to the first of them: the others are its chain.
fn pair_with_first(
    certificates: Vec<Certificate>,
    key: PrivateKey,
    certificate_path: &Path,
    key_place: &Path,
    at: Timestamp,
) -> Result<CertificateAuthority, FileError> {
    if let Some(named) = certificates.first().filter(|named| !key.belongs_to(named))
        && let Some(found) = certificates.iter().find(|certificate| key.belongs_to(certificate))
    {
        return Err(other_authority(named, found, certificate_path, key_place));
    }
    pair(certificates, key, certificate_path, key_place, at)
}

/// Combines the certificates of a file with a key. In a file without an order, the key selects its certificate. The key of a CA
/// above another certificate does not: the file is the chain of that one, and its certificates would come from another CA.
fn pair(
    mut certificates: Vec<Certificate>,
    key: PrivateKey,
    certificate_path: &Path,
    key_place: &Path,
    at: Timestamp,
) -> Result<CertificateAuthority, FileError> {
    certificates.dedup();
    let belongs = |certificate: &&Certificate| key.belongs_to(certificate);
    if let Some(found) = certificates.iter().find(belongs)
        && certificates.first() != Some(found)
        && let Some(named) = certificates
            .iter()
            .filter(|other| !belongs(other))
            .find(|below| chain::find_issuer(below, slice::from_ref(found), |_| true).is_some())
    {
        return Err(other_authority(named, found, certificate_path, key_place));
    }
    CertificateAuthority::new(certificates, key, at).map_err(|error| FileError::Authority {
        certificate: certificate_path.to_owned(),
        key: key_place.to_owned(),
        error,
    })
}

fn other_authority(named: &Certificate, found: &Certificate, certificate: &Path, key: &Path) -> FileError {
    FileError::OtherAuthority {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        expected: name_of(named),
        found: name_of(found),
    }
}

/// Reads a private key from a file in any encoding, including PFX.
///
/// # Errors
/// Returns [`FileError::Io`], [`FileError::Key`] or [`FileError::PfxFile`], which name the file.
pub fn read_key<'a>(path: &Path, passwords: impl Into<Passwords<'a>>) -> Result<PrivateKey, FileError> {
    parse_key(path, &read_limited(path)?, passwords.into())
}

/// Reads a private key from the bytes of a file, as [`read_key`] does. `path` names the file in errors.
///
/// # Errors
/// Returns the errors of [`read_key`], except [`FileError::Io`].
pub fn parse_key(path: &Path, bytes: &[u8], passwords: Passwords<'_>) -> Result<PrivateKey, FileError> {
    match PrivateKey::read(bytes, passwords.key) {
        Err(KeyError::Pfx) => pfx::read_identity(bytes, passwords.for_pfx())
            .map(|(key, _)| key)
            .map_err(|error| FileError::PfxFile { path: path.to_owned(), error }),
        other => other.map_err(|error| FileError::Key { path: path.to_owned(), error }),
    }
}

/// The maximum size of a certificate or key file in bytes.
pub const MAX_FILE: u64 = 16 << 20;

/// Reads a file of at most [`MAX_FILE`] bytes. The content may be a key, so it is wiped when dropped.
///
/// # Errors
/// Returns [`FileError::Io`] if the file cannot be read, [`FileError::TooLarge`] if it is larger.
pub fn read_limited(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = |error| FileError::io("read", path, error);
    let mut bytes = Zeroizing::new(Vec::new());
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE { Err(FileError::TooLarge(path.to_owned())) } else { Ok(bytes) }
}

fn write_new(path: &Path, content: &[u8], access: Access, flush: Flush) -> io::Result<fs::File> {
    let mut file = secure_file::create_new(path, access)?;
    file.write_all(content)?;
    if flush == Flush::Each {
        file.sync_all()?;
    }
    Ok(file)
}

/// Flushes the renames to the disk. Not every system can flush a directory; the files were flushed before.
fn sync_directory(directory: &Path) {
    if let Ok(directory) = fs::File::open(directory) {
        let _ = directory.sync_all();
    }
}
