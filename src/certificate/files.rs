//! The four files of a certificate: names, permissions, all or nothing.
//!
//! A set is written into a hidden directory beside its place, flushed to the disk, and committed by one rename of that
//! directory; then its files move out of it. A process killed before the rename leaves the old files as they were. One
//! killed after it leaves a committed directory, and the next call that deals with the set moves the rest out. So a set is
//! there whole or not at all, and no file is ever half written.
//!
//! What other programs see: each file is replaced by one rename, and files of the old set that the new one does not have
//! go first. There is no way to replace several files at once, so a program that reads them beside a `--force`, without
//! taking the lock, can find the new key with the old certificate between two renames. This library takes the lock, and
//! notices a key or chain that does not belong to the certificate when it reads a set.
//!
//! Each hidden directory holds a marker that lists the files of its set. Directories without it were made by somebody
//! else and are left alone. What a killed process left is removed by the next write of the set. Processes that deal with
//! one directory take turns, by a lock on it.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{
    AuthorityError, Certificate, CertificateAuthority, CommonName, IssuedCertificate, KeyError, NameError, PrivateKey,
    ReadError,
    pfx::{self, PfxEncryption, PfxError},
    secure_file::{self, Access},
};

/// The paths of the set of files that belong to a name, as `create_test_cert.js` calls them: the name in
/// [camel case](super::camel_case) with `_cert.pem`, `_key.pem`, `_fullchain.pem` and `.pfx`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSet {
    directory: PathBuf,
    stem: String,
}

/// How the name of a directory ends in which a set is being written.
const STAGING: &str = ".tmp";

/// The file in a hidden directory that says who made it: this line, then the names of the set's files.
const MARKER: &str = ".iot-enroll-set";
const MARKER_TITLE: &str = "Files of one certificate, on their way to the directory above. Made by iot-enroll.";

/// How the PFX file of a set is made.
#[derive(Clone, Copy)]
pub struct PfxOptions<'a> {
    /// The password that opens it.
    pub password: &'a str,
    /// How it is encrypted.
    pub encryption: PfxEncryption,
}

impl FileSet {
    /// The set of a name in a folder, whether it exists or not.
    ///
    /// # Errors
    /// [`NameError`] when files cannot be called by that name.
    pub fn new(directory: impl Into<PathBuf>, name: &CommonName) -> Result<Self, NameError> {
        Ok(Self::with_stem(directory, name.file_stem()?))
    }

    /// The set that a verification certificate is written to: always `verification`, whatever the code.
    #[must_use]
    pub fn verification(directory: impl Into<PathBuf>) -> Self {
        Self::with_stem(directory, "verification".to_owned())
    }

    fn with_stem(directory: impl Into<PathBuf>, stem: String) -> Self {
        Self { directory: directory.into(), stem }
    }

    /// The certificate in PEM.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.path("_cert.pem")
    }

    /// The private key in PKCS#8 PEM, readable by its owner alone.
    #[must_use]
    pub fn private_key(&self) -> PathBuf {
        self.path("_key.pem")
    }

    /// The certificate and all above it in PEM.
    #[must_use]
    pub fn fullchain(&self) -> PathBuf {
        self.path("_fullchain.pem")
    }

    /// Key, certificate and chain as PFX, readable by its owner alone.
    #[must_use]
    pub fn pfx(&self) -> PathBuf {
        self.path(".pfx")
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}{suffix}", self.stem))
    }

    /// The certificate last: where it is, the others are.
    fn all(&self) -> [PathBuf; 4] {
        [self.private_key(), self.pfx(), self.fullchain(), self.certificate()]
    }

    fn committed(&self) -> PathBuf {
        self.directory.join(format!(".{}.commit", self.stem))
    }

    /// The files of the set that exist. Finishes a set that a killed process had committed.
    ///
    /// # Errors
    /// [`FileError`] when the system refuses.
    pub fn existing(&self) -> Result<Vec<PathBuf>, FileError> {
        if !self.directory.is_dir() {
            return Ok(Vec::new());
        }
        let _turn = self.lock()?;
        self.finish()?;
        Ok(self.present())
    }

    fn present(&self) -> Vec<PathBuf> {
        self.all().into_iter().filter(|path| path.symlink_metadata().is_ok()).collect()
    }

    /// Waits for this process's turn with the folder; it ends with the value.
    fn lock(&self) -> Result<fs::File, FileError> {
        let file = open_to_lock(&self.directory);
        let file = file.map_err(|error| FileError::io("open the folder", &self.directory, error))?;
        // Some network file systems have no locks. The rename that commits a set is one step there too.
        let _ = file.lock();
        Ok(file)
    }

    /// Writes the set: certificate, key and chain, and a PFX file when asked for. Makes the folder where it is missing.
    ///
    /// Without `overwrite` nothing that exists is touched. With it the whole set is replaced, and a PFX file of the old
    /// one goes even when the new one has none.
    ///
    /// # Errors
    /// [`FileError::Exists`] when any of the four files does and `overwrite` is not given; [`FileError`] otherwise.
    pub fn write(
        &self,
        issued: &IssuedCertificate,
        pfx: Option<PfxOptions<'_>>,
        overwrite: bool,
    ) -> Result<(), FileError> {
        let fullchain: Vec<_> = issued.fullchain().collect();
        self.commit(&fullchain, Some((&issued.key, pfx)), overwrite)
    }

    /// Writes the set of a device that keeps its own key: certificate and chain, the device's certificate first.
    ///
    /// With `overwrite` a key file and a PFX file of an old set go, as they do not belong to the new certificate.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_without_key(&self, fullchain: &[&Certificate], overwrite: bool) -> Result<(), FileError> {
        self.commit(fullchain, None, overwrite)
    }

    fn commit(
        &self,
        fullchain: &[&Certificate],
        key: Option<(&PrivateKey, Option<PfxOptions<'_>>)>,
        overwrite: bool,
    ) -> Result<(), FileError> {
        if self.directory.exists() && !self.directory.is_dir() {
            return Err(FileError::NotAFolder(self.directory.clone()));
        }
        secure_file::create_directory_all(&self.directory)
            .map_err(|error| FileError::io("make the folder", &self.directory, error))?;
        let _turn = self.lock()?;
        self.finish()?;
        let existing = self.present();
        if !overwrite && !existing.is_empty() {
            return Err(FileError::Exists(existing));
        }
        if let Some(folder) = existing.into_iter().find(|path| path.is_dir()) {
            return Err(FileError::NotAFile(folder));
        }
        self.remove_leftovers();
        let staging = self.stage(fullchain, key)?;
        let committed = self.committed();
        fs::rename(staging.path(), &committed).map_err(|error| FileError::io("put in place", &committed, error))?;
        // The directory is no longer where the guard would remove it.
        let _ = staging.keep();
        self.finish()?;
        let has = |path: &PathBuf| path.symlink_metadata().is_ok_and(|found| found.is_file());
        match self.targets(key).into_iter().find(|path| !has(path)) {
            Some(path) => Err(FileError::Removed(path)),
            None => Ok(()),
        }
    }

    /// The files that a set has.
    fn targets(&self, key: Option<(&PrivateKey, Option<PfxOptions<'_>>)>) -> Vec<PathBuf> {
        let mut targets = vec![self.fullchain(), self.certificate()];
        targets.extend(key.map(|_| self.private_key()));
        targets.extend(key.and_then(|(_, pfx)| pfx).map(|_| self.pfx()));
        targets
    }

    /// Removes what killed processes had not committed. With the lock held nobody is at work on it.
    fn remove_leftovers(&self) {
        let prefix = format!(".{}.", self.stem);
        let leftover = |name: &str| name.starts_with(&prefix) && name.ends_with(STAGING);
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_directory || !entry.file_name().to_str().is_some_and(leftover) {
                continue;
            }
            // What cannot be removed does no harm.
            let _ = match read_marker(&entry.path()) {
                Some(_) => fs::remove_dir_all(entry.path()),
                // A process may have been killed before it wrote the marker. Removes only an empty directory.
                None => fs::remove_dir(entry.path()),
            };
        }
    }

    fn stage(
        &self,
        fullchain: &[&Certificate],
        key: Option<(&PrivateKey, Option<PfxOptions<'_>>)>,
    ) -> Result<tempfile::TempDir, FileError> {
        let prefix = format!(".{}.", self.stem);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(STAGING);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let staging = builder
            .tempdir_in(&self.directory)
            .map_err(|error| FileError::io("make a folder in", &self.directory, error))?;
        let names = self.targets(key);
        let names = names.iter().filter_map(|path| path.file_name()?.to_str());
        let marker: String = std::iter::once(MARKER_TITLE).chain(names).flat_map(|line| [line, "\n"]).collect();
        write_new(&staging.path().join(MARKER), marker.as_bytes(), Access::Everyone)
            .map_err(|error| FileError::io("write", &staging.path().join(MARKER), error))?;
        let pems: Vec<String> = fullchain.iter().map(|certificate| certificate.to_pem()).collect();
        let put = |target: PathBuf, content: &[u8], access| {
            let staged = target.file_name().map(|name| staging.path().join(name)).unwrap_or_default();
            write_new(&staged, content, access).map_err(|error| FileError::io("write", &target, error))
        };
        put(self.certificate(), pems.first().map_or(&[], |pem| pem.as_bytes()), Access::Everyone)?;
        put(self.fullchain(), pems.concat().as_bytes(), Access::Everyone)?;
        if let Some((key, pfx)) = key {
            put(self.private_key(), key.to_pem()?.as_bytes(), Access::Owner)?;
            if let Some(options) = pfx {
                let chain = fullchain.iter().copied();
                let pfx = Zeroizing::new(pfx::write(key, chain, options.password, options.encryption)?);
                put(self.pfx(), &pfx, Access::Owner)?;
            }
        }
        Ok(staging)
    }

    /// Moves the files of a committed directory to their places and removes those that the set does not have, unless that
    /// was done before.
    fn finish(&self) -> Result<(), FileError> {
        let committed = self.committed();
        let Ok(found) = committed.symlink_metadata() else { return Ok(()) };
        let stuck = |error| FileError::Unfinished { path: self.committed(), error };
        let done = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(stuck(error)),
            _ => Ok(()),
        };
        let names = if found.is_dir() { read_marker(&committed) } else { None };
        let Some(names) = names else {
            // A process that was killed at the very end leaves the directory empty.
            let foreign = |_| stuck(io::Error::other("it was not made by this program"));
            return fs::remove_dir(&committed).map_err(foreign);
        };
        let staged = |target: &Path| target.file_name().map(|name| committed.join(name)).unwrap_or_default();
        let belongs =
            |target: &Path| target.file_name().is_some_and(|name| names.iter().any(|known| known.as_str() == name));
        let (new, old): (Vec<_>, Vec<_>) = self.all().into_iter().partition(|target| belongs(target));
        for target in old {
            done(fs::remove_file(&target))?;
        }
        for target in new {
            done(fs::rename(staged(&target), &target))?;
        }
        done(fs::remove_file(committed.join(MARKER)))?;
        done(fs::remove_dir(&committed))?;
        sync_directory(&self.directory);
        Ok(())
    }

    /// Reads the set as an authority: its certificate and key, and what its full chain adds.
    ///
    /// # Errors
    /// [`FileError::Missing`] when the set does not exist, [`FileError::Incomplete`] when only a part of it does,
    /// [`FileError::Mixed`] when its files do not belong together, [`FileError`] otherwise.
    pub fn read_authority(
        &self,
        key_password: Option<&str>,
        at: OffsetDateTime,
    ) -> Result<CertificateAuthority, FileError> {
        let certificates = self.read_certificates()?;
        authority(certificates, &self.certificate(), &self.private_key(), key_password, at)
    }

    /// Reads the certificate of the set, and after it what its full chain holds. The key has to be there too, and
    /// has to belong to it unless it is encrypted.
    ///
    /// # Errors
    /// As [`read_authority`](Self::read_authority).
    pub fn read_certificates(&self) -> Result<Vec<Certificate>, FileError> {
        let existing = self.existing()?;
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
        let mut certificates = read_certificates(&certificate)?;
        let mixed = |other: PathBuf| FileError::Mixed { certificate: certificate.clone(), other };
        // An encrypted key cannot be compared, and one that cannot be read is reported where it is needed.
        if read_key(&key, None).is_ok_and(|key| !certificates.iter().any(|it| key.belongs_to(it))) {
            return Err(mixed(key));
        }
        if existing.contains(&self.fullchain()) {
            let chain = read_certificates(&self.fullchain())?;
            if !chain.contains(&certificates[0]) {
                return Err(mixed(self.fullchain()));
            }
            certificates.extend(chain);
        }
        Ok(certificates)
    }
}

/// The names that the marker of a hidden directory lists; none where it has no marker of this program.
fn read_marker(directory: &Path) -> Option<Vec<String>> {
    let path = directory.join(MARKER);
    if !path.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    (lines.next()? == MARKER_TITLE).then(|| lines.map(str::to_owned).collect())
}

/// Reads an authority from a certificate file, which may hold its chain too, and a key file, wherever they came from.
///
/// # Errors
/// [`FileError`], which names the file and what is wrong with it.
pub fn read_authority(
    certificate: &Path,
    key: &Path,
    key_password: Option<&str>,
    at: OffsetDateTime,
) -> Result<CertificateAuthority, FileError> {
    authority(read_certificates(certificate)?, certificate, key, key_password, at)
}

/// Whether files can be written to a folder, or the folder be made; found out without leaving anything behind.
///
/// # Errors
/// [`FileError::NotAFolder`], or [`FileError::Io`] when the system refuses.
pub fn check_writable(folder: &Path) -> Result<(), FileError> {
    let here = Path::new(".");
    let existing = folder.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(here);
    if !existing.is_dir() {
        return Err(FileError::NotAFolder(existing.to_owned()));
    }
    let trial = tempfile::Builder::new().prefix(".").suffix(STAGING).tempdir_in(existing);
    trial.map(drop).map_err(|error| FileError::io("make a folder in", existing, error))
}

/// Reads every certificate of a file, PFX apart.
///
/// # Errors
/// [`FileError::Io`] or [`FileError::Certificate`], which names the file.
pub fn read_certificates(path: &Path) -> Result<Vec<Certificate>, FileError> {
    let bytes = read_limited(path)?;
    Certificate::read_all(&bytes).map_err(|error| FileError::Certificate { path: path.to_owned(), error })
}

/// Opens what stands for a folder where it is locked.
pub(super) fn open_to_lock(directory: &Path) -> io::Result<fs::File> {
    // A folder can be opened as a file where it can be locked; elsewhere a file in it stands for it.
    if cfg!(unix) {
        fs::File::open(directory)
    } else {
        let path = directory.join(".iot-enroll.lock");
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)
    }
}

fn authority(
    mut certificates: Vec<Certificate>,
    certificate_path: &Path,
    key_path: &Path,
    key_password: Option<&str>,
    at: OffsetDateTime,
) -> Result<CertificateAuthority, FileError> {
    let key = read_key(key_path, key_password)?;
    certificates.dedup();
    CertificateAuthority::new(certificates, key, at).map_err(|error| FileError::Authority {
        certificate: certificate_path.to_owned(),
        key: key_path.to_owned(),
        error,
    })
}

/// Reads a private key, PFX apart.
///
/// # Errors
/// [`FileError::Io`] or [`FileError::Key`], which names the file.
pub fn read_key(path: &Path, password: Option<&str>) -> Result<PrivateKey, FileError> {
    let bytes = read_limited(path)?;
    PrivateKey::read(&bytes, password).map_err(|error| FileError::Key { path: path.to_owned(), error })
}

/// The most bytes of a certificate or key file.
pub const MAX_FILE: u64 = 16 << 20;

/// Reads a file, which may hold a key, unless it is larger than any that belongs here.
///
/// # Errors
/// [`FileError::Io`], or [`FileError::TooLarge`] past [`MAX_FILE`].
pub fn read_limited(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = |error| FileError::io("read", path, error);
    let mut bytes = Zeroizing::new(Vec::new());
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE { Err(FileError::TooLarge(path.to_owned())) } else { Ok(bytes) }
}

fn write_new(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let mut file = secure_file::create_new(path, access)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes the renames lasting. Not every system can flush a folder; the files themselves have been.
fn sync_directory(directory: &Path) {
    if let Ok(directory) = fs::File::open(directory) {
        let _ = directory.sync_all();
    }
}

/// Why files could not be written or read. Each names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Files of that name exist and were not to be overwritten.
    #[error("{} already {}, and nothing was written", list(.0), if .0.len() == 1 { "exists" } else { "exist" })]
    Exists(Vec<PathBuf>),
    /// The folder for the files is something else.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// A folder stands in the place of a file.
    #[error("{} is a folder, and a file has to go there: move it away", .0.display())]
    NotAFile(PathBuf),
    /// A file larger than any certificate or key.
    #[error("{} has more than 16 MiB, and no certificate or key has", .0.display())]
    TooLarge(PathBuf),
    /// What a killed process had committed cannot be put in its place.
    #[error(
        "could not finish the set that an interrupted run left in {}: {error}. Remove what is in the way, or move that \
         directory elsewhere",
        .path.display()
    )]
    Unfinished {
        /// The hidden folder that holds the rest of the set.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// There is no certificate of that name.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// Only a part of a set is there.
    #[error("{} exists but {} does not", .found.display(), .missing.display())]
    Incomplete {
        /// The file that exists.
        found: PathBuf,
        /// The file that does not.
        missing: PathBuf,
    },
    /// A file of a set does not belong to its certificate.
    #[error(
        "{} does not belong to {}: the files are of two sets. Restore the missing ones, or make the set again and \
         overwrite it",
        .other.display(), .certificate.display()
    )]
    Mixed {
        /// The certificate file.
        certificate: PathBuf,
        /// The key or chain file that does not belong to it.
        other: PathBuf,
    },
    /// A file was removed by somebody else as soon as it was written.
    #[error("{} was removed while its set was being written", .0.display())]
    Removed(PathBuf),
    /// The system refused.
    #[error("could not {doing} {}: {error}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A certificate file cannot be read.
    #[error("no certificate could be read from {}: {error}", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: ReadError,
    },
    /// A key file cannot be read.
    #[error("no private key could be read from {}: {error}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: KeyError,
    },
    /// Certificate and key make no authority.
    #[error("{} with {} is of no use as an authority: {error}", .certificate.display(), .key.display())]
    Authority {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// Which check failed.
        error: AuthorityError,
    },
    /// The key could not be encoded.
    #[error(transparent)]
    Encode(#[from] KeyError),
    /// The PFX file could not be made.
    #[error(transparent)]
    Pfx(#[from] PfxError),
}

impl FileError {
    fn io(doing: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), error }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
