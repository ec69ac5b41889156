//! The report of a certificate that was created or found.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::certificate::{Certificate, files::FileSet};

/// A certificate's files and what they hold, as programs read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRecord {
    /// The certificate's file.
    #[serde(serialize_with = "lossy_path")]
    pub certificate: PathBuf,
    /// The private key's file.
    #[serde(serialize_with = "lossy_path")]
    pub private_key: PathBuf,
    /// The file of the certificate and all above it.
    #[serde(serialize_with = "lossy_path")]
    pub fullchain: PathBuf,
    /// The PFX file, where there is one.
    #[serde(serialize_with = "optional_lossy_path")]
    pub pfx: Option<PathBuf>,
    /// The subject.
    pub subject: String,
    /// The issuer.
    pub issuer: String,
    /// The serial number in upper-case hexadecimal.
    pub serial_number: String,
    /// The start of validity, as RFC 3339.
    pub not_before: String,
    /// The end of validity, as RFC 3339.
    pub not_after: String,
    /// The SHA-1 thumbprint.
    pub sha1_thumbprint: String,
    /// The SHA-256 thumbprint.
    pub sha256_thumbprint: String,
}

impl CertificateRecord {
    /// The record of a certificate and the set of files it is in.
    #[must_use]
    pub fn new(certificate: &Certificate, files: &FileSet, has_pfx: bool) -> Self {
        Self {
            certificate: files.certificate(),
            private_key: files.private_key(),
            fullchain: files.fullchain(),
            pfx: has_pfx.then(|| files.pfx()),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial_number: certificate.serial_number(),
            not_before: certificate.not_before().to_string(),
            not_after: certificate.not_after().to_string(),
            sha1_thumbprint: certificate.sha1_thumbprint().to_string(),
            sha256_thumbprint: certificate.sha256_thumbprint().to_string(),
        }
    }
}

/// Serializes a path. What is not UTF-8 is replaced: JSON has no way to write it.
pub(crate) fn lossy_path<S: Serializer>(path: impl AsRef<Path>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.as_ref().to_string_lossy())
}

/// Serializes a path that may be absent, as [`lossy_path`].
#[expect(clippy::ref_option, reason = "this is what serde calls")]
fn optional_lossy_path<P: AsRef<Path>, S: Serializer>(path: &Option<P>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.as_ref().to_string_lossy()).serialize(serializer)
}
