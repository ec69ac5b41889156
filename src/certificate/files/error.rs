//! Why certificate files could not be written or read.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::certificate::{AuthorityError, KeyError, NameError, ReadError, pfx::PfxError};

/// The reason why files could not be written or read. Each variant names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Files of the set exist, and overwriting was not requested.
    #[error("{} already {}, and nothing was written", list(.0), if .0.len() == 1 { "exists" } else { "exist" })]
    Exists(Vec<PathBuf>),
    /// The files exist and belong to another name with the same file names.
    #[error("{} belongs to {other:?}, and the files of {name:?} would have the same names: nothing was written", .path.display())]
    SharedFiles {
        /// The file that exists.
        path: PathBuf,
        /// The name whose files should be written.
        name: String,
        /// The name whose files exist.
        other: String,
    },
    /// The files would overwrite those of a CA above the certificate.
    #[error("{} belongs to the CA that signs, and nothing was written", .0.display())]
    SigningAuthority(PathBuf),
    /// A file that would be removed holds the private key of the certificate, or cannot be read and may hold it.
    #[error(
        "nothing was written: overwriting would remove {}, which {}",
        .path.display(), only_key(.error.as_deref())
    )]
    OnlyKey {
        /// The key or PFX file.
        path: PathBuf,
        /// Why the file cannot be read. `None` if it holds the key.
        error: Option<Box<FileError>>,
    },
    /// The certificate file of a name holds the certificate of another name.
    #[error("{} is the certificate of {found:?}, not of {expected:?}", .path.display())]
    OtherName {
        /// The certificate file.
        path: PathBuf,
        /// The expected name.
        expected: String,
        /// The common name of the certificate, or its whole subject if it has none.
        found: String,
    },
    /// The directory for the files is not a directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A directory has the path of a file of the set.
    #[error("{} is a directory, but a file of that name is needed: move it away", .0.display())]
    NotAFile(PathBuf),
    /// A device, a pipe, a socket, or a link to one has the path of a file that would be replaced.
    #[error("{} is not a regular file, and nothing was written", .0.display())]
    NotRegular(PathBuf),
    /// A file with a private key is a link, and a new file would leave the old key where the link leads to; holds its path.
    #[error("{} is a symbolic link: files with private keys are not replaced through links, and nothing was written", .0.display())]
    KeyLink(PathBuf),
    /// The file is larger than any certificate or key.
    #[error("{} is larger than 16 MiB, the limit for certificates and keys", .0.display())]
    TooLarge(PathBuf),
    /// The set that a killed process had committed cannot be moved to its place.
    #[error(
        "could not finish the set that an interrupted run left in {}: {error}. Remove the obstacle, or move that \
         directory elsewhere",
        .path.display()
    )]
    Unfinished {
        /// The hidden directory that holds the rest of the set.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The certificate file of a name does not exist.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// Only a part of a set exists.
    #[error("{} exists but {} does not", .found.display(), .missing.display())]
    Incomplete {
        /// The file that exists.
        found: PathBuf,
        /// The file that does not.
        missing: PathBuf,
    },
    /// A file of a set does not belong to the certificate of the set.
    #[error(
        "{} does not belong to {}: the files are of two sets. Restore the missing ones, or issue the certificate again \
         and overwrite the set",
        .other.display(), .certificate.display()
    )]
    Mixed {
        /// The certificate file.
        certificate: PathBuf,
        /// The key or chain file that does not belong to it.
        other: PathBuf,
    },
    /// Another process replaced the certificate in the meantime.
    #[error("{} was replaced by another process in the meantime, and nothing was written", .0.display())]
    Changed(PathBuf),
    /// Another process removed a file as soon as it was written.
    #[error("{} was removed while its set was being written", .0.display())]
    Removed(PathBuf),
    /// An operation of the file system failed.
    #[error("could not {doing} {}: {error}", .path.display())]
    Io {
        /// The operation, such as `write`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// A certificate file cannot be read.
    #[error("no certificate could be read from {}: {error}", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        error: ReadError,
    },
    /// A key file cannot be read.
    #[error("no private key could be read from {}: {error}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        error: KeyError,
    },
    /// A PFX file cannot be read.
    #[error("could not read {}: {error}", .path.display())]
    PfxFile {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        error: PfxError,
    },
    /// The certificate and the key are not a usable CA.
    #[error("could not sign with {} and {}: {error}", .certificate.display(), .key.display())]
    Authority {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file, or the PKCS#11 URI of the key.
        key: PathBuf,
        /// Which check failed.
        error: AuthorityError,
    },
    /// The key belongs to a CA above the one of the certificate file.
    #[error(
        "could not sign with {}, the certificate of {expected:?}: the key {} is that of {found:?}, a CA above it",
        .certificate.display(), .key.display()
    )]
    OtherAuthority {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file, or the PKCS#11 URI of the key.
        key: PathBuf,
        /// The CA of the certificate file.
        expected: String,
        /// The CA whose key it is.
        found: String,
    },
    /// The certificate has no common name, or files cannot have that name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The key could not be encoded.
    #[error(transparent)]
    Encode(#[from] KeyError),
    /// The PFX file could not be written.
    #[error(transparent)]
    Pfx(#[from] PfxError),
}

impl FileError {
    pub(in crate::certificate) fn io(doing: &'static str, path: &Path, error: io::Error) -> Self {
        // Removes the path that `tempfile` adds to its errors: it is a hidden file with a random name.
        let error = match error.to_string().split_once(" at path \"") {
            Some((reason, _)) if error.get_ref().is_some() => io::Error::new(error.kind(), reason),
            _ => error,
        };
        Self::Io { doing, path: path.to_owned(), error }
    }
}

fn only_key(error: Option<&FileError>) -> String {
    match error {
        Some(error) => format!("may be the only file with the key of the request: {error}"),
        None => "is the only file with the key of the request".to_owned(),
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
