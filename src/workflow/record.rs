//! What reports have in common: certificates with their files, times, paths.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::certificate::{Certificate, Thumbprint, files::FileSet};

/// The files of a certificate and its main fields, as programs read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CertificateRecord {
    /// The file of the certificate.
    #[serde(serialize_with = "lossy_path")]
    pub certificate: PathBuf,
    /// The file of the private key, or the URI of a key in a PKCS#11 token. None if the key is kept elsewhere.
    #[serde(serialize_with = "optional_lossy_path")]
    pub private_key: Option<PathBuf>,
    /// The file of the certificate and its chain.
    #[serde(serialize_with = "lossy_path")]
    pub fullchain: PathBuf,
    /// The PFX file, if there is one.
    #[serde(serialize_with = "optional_lossy_path")]
    pub pfx: Option<PathBuf>,
    /// The subject.
    pub subject: String,
    /// The issuer.
    pub issuer: String,
    /// The serial number in upper-case hexadecimal.
    pub serial_number: String,
    /// The start of validity as RFC 3339.
    pub not_before: String,
    /// The end of validity as RFC 3339.
    pub not_after: String,
    /// The SHA-1 thumbprint.
    pub sha1_thumbprint: String,
    /// The SHA-256 thumbprint.
    pub sha256_thumbprint: String,
}

impl CertificateRecord {
    /// Describes a certificate and its files. `pfx` is its PFX file, if there is one.
    #[must_use]
    pub fn new(certificate: &Certificate, files: &FileSet, pfx: Option<PathBuf>) -> Self {
        Self {
            certificate: files.certificate(),
            private_key: Some(files.private_key()),
            fullchain: files.fullchain(),
            pfx,
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

/// A device's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ProvisionedDevice {
    /// The device's ID.
    pub id: String,
    /// Its certificate.
    #[serde(flatten)]
    pub record: CertificateRecord,
    /// The hub that the device was assigned to, if it was registered.
    #[serde(rename = "assignedHub", skip_serializing_if = "Option::is_none")]
    pub assigned_hub: Option<String>,
}

impl ProvisionedDevice {
    /// Returns the file of the private key, which each of these devices has.
    pub(crate) fn key_file(&self) -> &Path {
        self.record.private_key.as_deref().unwrap_or(Path::new(""))
    }
}

/// Serializes a path. Bytes that are not UTF-8 are replaced: JSON cannot express them.
pub(crate) fn lossy_path<S: Serializer>(path: impl AsRef<Path>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.as_ref().to_string_lossy())
}

/// Serializes a path that may be missing, as [`lossy_path`] does.
#[expect(clippy::ref_option, reason = "serde calls it this way")]
pub(super) fn optional_lossy_path<P: AsRef<Path>, S: Serializer>(
    path: &Option<P>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.as_ref().to_string_lossy()).serialize(serializer)
}

/// Serializes a thumbprint that may be missing as upper-case hexadecimal.
#[expect(clippy::ref_option, reason = "serde calls it this way")]
pub(super) fn thumbprint_text<S: Serializer>(value: &Option<Thumbprint>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|thumbprint| thumbprint.to_string()).serialize(serializer)
}
