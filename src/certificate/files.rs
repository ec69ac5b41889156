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
    fmt, fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{
    AuthorityError, Certificate, CertificateAuthority, CommonName, IssuedCertificate, KeyError, NameError, PrivateKey,
    ReadError, camel_case,
    pfx::{self, PfxEncryption, PfxError},
    secure_file::{self, Access},
};

/// The paths of the set of files that belong to a name, as `create_test_cert.js` calls them: the name in
/// [camel case](super::camel_case) with `_cert.pem`, `_key.pem`, `_fullchain.pem` and `.pfx`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSet {
    directory: PathBuf,
    stem: String,
    /// The name, to tell the set from that of another name with the same stem. None for proofs, which are called the same
    /// regardless of their names.
    name: Option<String>,
}

/// The stem of the files of proofs.
const VERIFICATION: &str = "verification";

/// How the name of a directory ends in which a set is being written.
const STAGING: &str = ".tmp";

/// The file in a hidden directory that says who made it: this line, then the names of the set's files.
const MARKER: &str = ".iot-enroll-set";
const MARKER_TITLE: &str = "Files of one certificate, on their way to the directory above. Made by iot-enroll.";

/// How the names of the files of a set end: the private key's, the PFX file's, the full chain's, the certificate's.
const SUFFIXES: [&str; 4] = ["_key.pem", ".pfx", "_fullchain.pem", "_cert.pem"];

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
        let (directory, stem) = (directory.into(), name.file_stem()?);
        Ok(Self { directory, stem, name: Some(name.as_str().to_owned()) })
    }

    /// The set that a verification certificate is written to: always `verification`, whatever the code.
    #[must_use]
    pub fn verification(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), stem: VERIFICATION.to_owned(), name: None }
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
        SUFFIXES.map(|suffix| self.path(suffix))
    }

    /// Returns what two sets have in common if they have the same files, on file systems that disregard case too.
    #[cfg(feature = "client")]
    pub(crate) fn identity(&self) -> PathBuf {
        self.directory.join(self.stem.to_lowercase())
    }

    /// Checks that no file of the set is a file of this authority, through any path or link.
    ///
    /// # Errors
    /// [`FileError::SigningAuthority`], which names the file.
    pub fn check_apart(&self, authority: &CertificateAuthority) -> Result<(), FileError> {
        let shared = self.all().into_iter().find(|ours| authority.files().iter().any(|theirs| is_same(ours, theirs)));
        shared.map_or(Ok(()), |path| Err(FileError::SigningAuthority(path)))
    }

    /// Checks that a certificate has the name of the set as its common name: other names may have the same files.
    ///
    /// # Errors
    /// [`FileError::OtherName`], which has both names.
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

    /// Checks, with the lock held, that files in the place of the set belong to nothing else: neither to a certificate of
    /// the chain above the new one nor to another name.
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
                // A proof may have any name; what was made by the name of the files is none.
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

    /// Checks that no files differ from those of the set in case only: not every file system tells them apart, and neither
    /// do people.
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
        let file = file.map_err(|error| FileError::io("open the directory", &self.directory, error))?;
        // Some network file systems have no locks. The rename that commits a set is one step there too.
        let _ = file.lock();
        Ok(file)
    }

    /// Writes the set: certificate, key and chain, and a PFX file when asked for. Makes the folder where it is missing.
    ///
    /// Without `overwrite` nothing that exists is touched. With it the whole set is replaced, and a PFX file of the old
    /// one goes even when the new one has none. Files of another name or of a certificate above the new one are never
    /// touched.
    ///
    /// # Errors
    /// [`FileError::Exists`] when any of the four files does and `overwrite` is not given, [`FileError::SharedFiles`] if
    /// they belong to another name, [`FileError::SigningAuthority`] if they belong to a certificate above the new one;
    /// [`FileError`] otherwise.
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
            .map_err(|error| FileError::io("create the directory", &self.directory, error))?;
        let _turn = self.lock()?;
        self.finish()?;
        self.check_owner(fullchain.get(1..).unwrap_or_default())?;
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
            .map_err(|error| FileError::io("create a directory in", &self.directory, error))?;
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
    /// [`FileError::Mixed`] when its files do not belong together, [`FileError::OtherName`] if the certificate has another
    /// common name than the set, [`FileError`] otherwise.
    pub fn read_authority(
        &self,
        key_password: Option<&str>,
        at: OffsetDateTime,
    ) -> Result<CertificateAuthority, FileError> {
        let certificates = self.read_certificates()?;
        let authority = authority(certificates, &self.certificate(), &self.private_key(), key_password.into(), at)?;
        Ok(authority.read_from(self.all()))
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
        if let Some(first) = certificates.first() {
            self.check_name(first)?;
        }
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

/// The passwords of files that may be encrypted.
#[derive(Clone, Copy, Default)]
pub struct Passwords<'a> {
    /// The password of private keys.
    pub key: Option<&'a str>,
    /// The password of PFX files. Without one, that of private keys is tried, and without that too, those that
    /// [`pfx::read`] tries.
    pub pfx: Option<&'a str>,
}

impl<'a> Passwords<'a> {
    fn of_pfx(self) -> Option<&'a str> {
        self.pfx.or(self.key)
    }
}

impl<'a> From<Option<&'a str>> for Passwords<'a> {
    /// Takes the password of private keys.
    fn from(key: Option<&'a str>) -> Self {
        Self { key, pfx: None }
    }
}

impl fmt::Debug for Passwords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

/// Reads an authority from a certificate file, which may hold its chain too, and a key file, wherever they came from.
/// Both may be the same PFX file.
///
/// # Errors
/// [`FileError`], which names the file and what is wrong with it.
pub fn read_authority<'a>(
    certificate: &Path,
    key: &Path,
    passwords: impl Into<Passwords<'a>>,
    at: OffsetDateTime,
) -> Result<CertificateAuthority, FileError> {
    let passwords = passwords.into();
    let authority = authority(read_certificates_with(certificate, passwords)?, certificate, key, passwords, at)?;
    Ok(authority.read_from([certificate.to_owned(), key.to_owned()]))
}

/// Whether both paths lead to one file.
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

/// The common name of a certificate, or its whole subject if it has none.
fn name_of(certificate: &Certificate) -> String {
    let subject = certificate.subject();
    subject.common_name().map_or_else(|| subject.to_string(), str::to_owned)
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
    trial.map(drop).map_err(|error| FileError::io("create a directory in", existing, error))
}

/// Reads every certificate of a file in any encoding, a PFX file with the passwords that [`pfx::read`] tries by itself.
///
/// # Errors
/// [`FileError::Io`], [`FileError::Certificate`] or [`FileError::PfxFile`], which name the file.
pub fn read_certificates(path: &Path) -> Result<Vec<Certificate>, FileError> {
    read_certificates_with(path, Passwords::default())
}

/// Reads every certificate of a file in any encoding.
///
/// # Errors
/// As [`read_certificates`].
pub fn read_certificates_with(path: &Path, passwords: Passwords<'_>) -> Result<Vec<Certificate>, FileError> {
    let bytes = read_limited(path)?;
    match Certificate::read_all(&bytes) {
        Err(ReadError::Pfx) => {
            pfx::read(&bytes, passwords.of_pfx()).map_err(|error| FileError::PfxFile { path: path.to_owned(), error })
        }
        other => other.map_err(|error| FileError::Certificate { path: path.to_owned(), error }),
    }
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
    passwords: Passwords<'_>,
    at: OffsetDateTime,
) -> Result<CertificateAuthority, FileError> {
    let key = read_key(key_path, passwords)?;
    certificates.dedup();
    CertificateAuthority::new(certificates, key, at).map_err(|error| FileError::Authority {
        certificate: certificate_path.to_owned(),
        key: key_path.to_owned(),
        error,
    })
}

/// Reads a private key, also that of a PFX file.
///
/// # Errors
/// [`FileError::Io`], [`FileError::Key`] or [`FileError::PfxFile`], which name the file.
pub fn read_key<'a>(path: &Path, passwords: impl Into<Passwords<'a>>) -> Result<PrivateKey, FileError> {
    key_of(path, &read_limited(path)?, passwords.into())
}

/// Reads a private key from the bytes of a file, as [`read_key`] does.
///
/// # Errors
/// As [`read_key`].
pub fn key_of(path: &Path, bytes: &[u8], passwords: Passwords<'_>) -> Result<PrivateKey, FileError> {
    match PrivateKey::read(bytes, passwords.key) {
        Err(KeyError::Pfx) => pfx::read_identity(bytes, passwords.of_pfx())
            .map(|(key, _)| key)
            .map_err(|error| FileError::PfxFile { path: path.to_owned(), error }),
        other => other.map_err(|error| FileError::Key { path: path.to_owned(), error }),
    }
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
    /// Another name has the same files, and they exist.
    #[error("{} belongs to {other:?}, and the files of {name:?} would have the same names: nothing was written", .path.display())]
    SharedFiles {
        /// The file that exists.
        path: PathBuf,
        /// The name whose files were to be written.
        name: String,
        /// The name whose files exist.
        other: String,
    },
    /// The files of a certificate would overwrite those of an authority that it is issued under.
    #[error("{} belongs to the CA that signs, and nothing was written", .0.display())]
    SigningAuthority(PathBuf),
    /// The files of a name hold the certificate of another name.
    #[error("{} is the certificate of {found:?}, not of {expected:?}", .path.display())]
    OtherName {
        /// The certificate file.
        path: PathBuf,
        /// The name that was looked for.
        expected: String,
        /// The common name found, or the whole subject of a certificate without one.
        found: String,
    },
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
    /// A PFX file cannot be read.
    #[error("could not read {}: {error}", .path.display())]
    PfxFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: PfxError,
    },
    /// Certificate and key make no authority.
    #[error("could not sign with {} and {}: {error}", .certificate.display(), .key.display())]
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
        // The path that `tempfile` adds to its errors is that of a hidden file with a random name.
        let error = match error.to_string().split_once(" at path \"") {
            Some((reason, _)) if error.get_ref().is_some() => io::Error::new(error.kind(), reason),
            _ => error,
        };
        Self::Io { doing, path: path.to_owned(), error }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
