//! The four files of a certificate: names, permissions, all or nothing.
//!
//! A set is written into a hidden folder beside its place, flushed to the disk, and committed by one rename of that
//! folder; then its files move out of it. A process killed before the rename leaves the old files as they were, one
//! killed after it leaves a committed folder, and the next call that deals with the set moves the rest out. So a set is
//! there whole or not at all, and no file is ever half written. The hidden folder of a killed process, `.NAME.*.tmp`,
//! may stay behind; it holds nothing that is of use, and can be removed.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{
    AuthorityError, Certificate, CertificateAuthority, CommonName, IssuedCertificate, KeyError, NameError, PrivateKey,
    ReadError,
    pfx::{self, PfxEncryption, PfxError},
};

/// The paths of the set of files that belong to a name, as `create_test_cert.js` calls them: the name in
/// [camel case](super::camel_case) with `_cert.pem`, `_key.pem`, `_fullchain.pem` and `.pfx`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSet {
    directory: PathBuf,
    stem: String,
}

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
    /// [`FileError::Io`].
    pub fn existing(&self) -> Result<Vec<PathBuf>, FileError> {
        self.finish()?;
        Ok(self.all().into_iter().filter(|path| path.symlink_metadata().is_ok()).collect())
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
        fs::create_dir_all(&self.directory)
            .map_err(|error| FileError::io("make the folder", &self.directory, error))?;
        self.refuse_existing(overwrite)?;
        let staging = self.stage(fullchain, key)?;
        let committed = self.committed();
        fs::rename(staging.path(), &committed).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => FileError::Busy(self.certificate()),
            _ => FileError::io("put in place", &committed, error),
        })?;
        // The folder is no longer where the guard would remove it.
        let _ = staging.keep();
        // While the committed folder stands no other process can commit to this set; one may have done so before.
        let existing: Vec<PathBuf> = self.all().into_iter().filter(|path| path.symlink_metadata().is_ok()).collect();
        if !overwrite && !existing.is_empty() {
            fs::remove_dir_all(&committed).map_err(|error| FileError::io("remove", &committed, error))?;
            return Err(FileError::Exists(existing));
        }
        self.finish()?;
        if key.is_none() {
            remove_if_present(&self.private_key())?;
        }
        if key.is_none_or(|(_, pfx)| pfx.is_none()) {
            remove_if_present(&self.pfx())?;
        }
        Ok(())
    }

    fn refuse_existing(&self, overwrite: bool) -> Result<(), FileError> {
        let existing = self.existing()?;
        if overwrite || existing.is_empty() { Ok(()) } else { Err(FileError::Exists(existing)) }
    }

    fn stage(
        &self,
        fullchain: &[&Certificate],
        key: Option<(&PrivateKey, Option<PfxOptions<'_>>)>,
    ) -> Result<tempfile::TempDir, FileError> {
        let staging = tempfile::Builder::new()
            .prefix(&format!(".{}.", self.stem))
            .suffix(".tmp")
            .tempdir_in(&self.directory)
            .map_err(|error| FileError::io("make a folder in", &self.directory, error))?;
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

    /// Moves the files of a committed folder to their places, as far as that was not done before.
    fn finish(&self) -> Result<(), FileError> {
        let committed = self.committed();
        if !committed.is_dir() {
            return Ok(());
        }
        for target in self.all() {
            let staged = target.file_name().map(|name| committed.join(name)).unwrap_or_default();
            match fs::rename(&staged, &target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError::io("put in place", &target, error));
                }
                _ => {}
            }
        }
        match fs::remove_dir(&committed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FileError::io("remove", &committed, error));
            }
            _ => {}
        }
        sync_directory(&self.directory);
        Ok(())
    }

    /// Reads the set as an authority: its certificate and key, and what its full chain adds.
    ///
    /// # Errors
    /// [`FileError::Missing`] when the set does not exist, [`FileError::Incomplete`] when only a part of it does,
    /// [`FileError`] otherwise.
    pub fn read_authority(
        &self,
        key_password: Option<&str>,
        at: OffsetDateTime,
    ) -> Result<CertificateAuthority, FileError> {
        let certificates = self.read_certificates()?;
        authority(certificates, &self.certificate(), &self.private_key(), key_password, at)
    }

    /// Reads the certificate of the set, and after it what its full chain holds. The key has to be there too, but is
    /// not read.
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
        if existing.contains(&self.fullchain()) {
            certificates.extend(read_certificates(&self.fullchain())?);
        }
        Ok(certificates)
    }
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

/// Reads every certificate of a file, PFX apart.
///
/// # Errors
/// [`FileError::Io`] or [`FileError::Certificate`], which names the file.
pub fn read_certificates(path: &Path) -> Result<Vec<Certificate>, FileError> {
    let bytes = fs::read(path).map_err(|error| FileError::io("read", path, error))?;
    Certificate::read_all(&bytes).map_err(|error| FileError::Certificate { path: path.to_owned(), error })
}

fn authority(
    mut certificates: Vec<Certificate>,
    certificate_path: &Path,
    key_path: &Path,
    key_password: Option<&str>,
    at: OffsetDateTime,
) -> Result<CertificateAuthority, FileError> {
    let bytes = Zeroizing::new(fs::read(key_path).map_err(|error| FileError::io("read", key_path, error))?);
    let key =
        PrivateKey::read(&bytes, key_password).map_err(|error| FileError::Key { path: key_path.to_owned(), error })?;
    certificates.dedup();
    CertificateAuthority::new(certificates, key, at).map_err(|error| FileError::Authority {
        certificate: certificate_path.to_owned(),
        key: key_path.to_owned(),
        error,
    })
}

#[derive(Clone, Copy)]
enum Access {
    Everyone,
    Owner,
}

fn write_new(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(
        &mut options,
        match access {
            Access::Everyone => 0o644,
            Access::Owner => 0o600,
        },
    );
    // Elsewhere the file takes the folder's access rules, as is the custom there.
    #[cfg(not(unix))]
    let _ = access;
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn remove_if_present(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::io("remove", path, error)),
        _ => Ok(()),
    }
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
    /// Another process is writing the same set.
    #[error("another process is writing {} at this moment", .0.display())]
    Busy(PathBuf),
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
