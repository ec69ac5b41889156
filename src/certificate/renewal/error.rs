//! Why certificates could not be renewed.

use std::path::{Path, PathBuf};

use crate::certificate::{
    AuthorityError, KeyError, PublicKeyAlgorithm, SignatureError, Timestamp, files::FileError, fleet::FleetError,
    pfx::PfxError, timestamp::moment,
};

/// The reason why a certificate could not be renewed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewalError {
    /// A CA is not the issuer that the certificate names.
    #[error("{subject} was issued by {issuer}, and not by {authority}, which would sign the new certificate")]
    OtherIssuer {
        /// The subject of the certificate.
        subject: String,
        /// Its issuer.
        issuer: String,
        /// The subject of the CA.
        authority: String,
    },
    /// A CA has the name of the issuer, and another key.
    #[error("{subject} was not signed by the key of {authority}: only the CA that issued a certificate can renew it")]
    OtherKey {
        /// The subject of the certificate.
        subject: String,
        /// The subject of the CA.
        authority: String,
    },
    /// Whether the CA issued the certificate cannot be determined.
    #[error("whether {authority} issued {subject} cannot be determined: {error}")]
    Unverifiable {
        /// The subject of the certificate.
        subject: String,
        /// The subject of the CA.
        authority: String,
        /// Why the signature cannot be verified.
        error: SignatureError,
    },
    /// The files of the issuer are in none of the directories.
    #[error("the files of {issuer}, which issued {subject}, are not in {}", list(.searched))]
    IssuerNotFound {
        /// The subject of the certificate.
        subject: String,
        /// Its issuer.
        issuer: String,
        /// The directories that were searched.
        searched: Vec<PathBuf>,
    },
    /// The new certificate would end together with its issuer, and not later than the old one.
    #[error(
        "renewing {subject} would not extend its validity: its issuer, {issuer}, expires at {}. Renew the issuer first",
        moment(*.not_after)
    )]
    IssuerEndsFirst {
        /// The subject of the certificate.
        subject: String,
        /// The subject of the issuer.
        issuer: String,
        /// When the issuer expires.
        not_after: Timestamp,
    },
    /// An extension holds for the old certificate only.
    #[error("{subject} has the extension {extension}, which holds only for the old certificate: it cannot be renewed")]
    BoundExtension {
        /// The subject of the certificate.
        subject: String,
        /// The name of the extension.
        extension: String,
    },
    /// A new key of this kind cannot be generated.
    #[error("a new key for {subject} cannot be generated: {algorithm} is not supported")]
    KeyAlgorithm {
        /// The subject of the certificate.
        subject: String,
        /// The kind of its key.
        algorithm: PublicKeyAlgorithm,
    },
    /// The validity of the old certificate ends before it begins, so that it has no lifetime to repeat; holds the subject.
    #[error("the validity of {0} ends before it begins: give a lifetime")]
    NoLifetime(String),
    /// The certificate has an unusual structure; holds its subject.
    #[error("the structure of the certificate {0} is not supported")]
    Structure(String),
    /// The private key is not beside its certificate.
    #[error("{} does not exist: without it, {} can only be renewed with a new key", .key.display(), .certificate.display())]
    MissingKey {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The device keeps its own private key, so that it cannot be replaced here; holds the certificate file.
    #[error("{} is for a key that the device keeps: it cannot be renewed with a new key", .0.display())]
    DeviceKey(PathBuf),
    /// A proof of possession is for one verification code, and is never renewed; holds the certificate file.
    #[error("{} is a proof of possession, which is not renewed: create one for a new verification code", .0.display())]
    Proof(PathBuf),
    /// A file does not have the name of a file of a set; holds its path.
    #[error(
        "{} is not a file of a set, whose names end with _cert.pem, _key.pem, _fullchain.pem and .pfx", .0.display()
    )]
    NotASet(PathBuf),
    /// A tar file cannot be changed in place; holds its path.
    #[error("{} is a tar file, whose certificates cannot be renewed in place: unpack it, and renew the directory", .0.display())]
    Tar(PathBuf),
    /// A directory has no sets; holds its path.
    #[error("{} holds no certificate: no name ends with _cert.pem", .0.display())]
    Empty(PathBuf),
    /// A manifest does not list the files of a set as a set has them.
    #[error("{}: the row of {id} does not name the files of a set in that directory", .manifest.display())]
    Row {
        /// The manifest.
        manifest: PathBuf,
        /// The device.
        id: String,
    },
    /// A manifest has several rows for one device.
    #[error("{} has several rows for {id}: only the first was used", .manifest.display())]
    RepeatedRow {
        /// The manifest.
        manifest: PathBuf,
        /// The device.
        id: String,
    },
    /// The certificate could not be issued.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The files could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The fleet could not be read or written.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

impl RenewalError {
    /// Returns whether further certificates would fail in the same way, as on a full disk.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(self, Self::File(FileError::Io { doing, .. }) if *doing != "read")
    }

    pub(super) fn pfx(path: &Path, error: PfxError) -> Self {
        FileError::PfxFile { path: path.to_owned(), error }.into()
    }
}

impl From<KeyError> for RenewalError {
    fn from(error: KeyError) -> Self {
        Self::Authority(error.into())
    }
}

fn list(directories: &[PathBuf]) -> String {
    directories.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}
