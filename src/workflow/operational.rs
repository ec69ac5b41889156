//! The files of an operational certificate: checked before the device registers, written as soon as it has the certificate.

use std::path::{Path, PathBuf};

use super::record::CertificateRecord;
use crate::{
    certificate::{
        Certificate, CertificateRequest, CommonName, DeviceId, PrivateKey,
        files::{FileError, FileSet, IfExists, PfxOptions},
    },
    dps::device::{Assignment, OperationalRequest, OperationalRequestError},
};

/// A request for an operational certificate, and the files that the certificate will have: those of
/// [`FileSet`] for the device's ID.
///
/// The service answers a certificate once, so [`check`](Self::check) finds before the registration what would prevent
/// writing it.
///
/// ```no_run
/// use iot_enroll::{
///     certificate::files::PfxOptions,
///     dps::device::{Credential, RegistrationClient},
///     workflow::OperationalFiles,
/// };
///
/// # async fn example(client: RegistrationClient, credential: Credential) -> Result<(), Box<dyn std::error::Error>> {
/// let mut files = OperationalFiles::for_new_key(&"sensor-1".parse()?, "operational")?;
/// files.check(&[])?;
/// let assignment = client.register_for_certificate(files.request(), &credential, None).await?;
/// let record = files.write(&assignment, Some(PfxOptions::new("correct horse")))?;
/// println!("{} until {}", record.fullchain.display(), record.not_after);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OperationalFiles {
    request: OperationalRequest,
    key: Option<PrivateKey>,
    /// Whether the set has the key of the request already.
    keeps_key: bool,
    set: FileSet,
    if_exists: IfExists,
}

impl OperationalFiles {
    /// Generates a key and creates a request for it. Existing files are not overwritten.
    ///
    /// # Errors
    /// [`OperationalFilesError::Request`] if the request cannot be created, [`OperationalFilesError::Files`] if files cannot
    /// have that name.
    pub fn for_new_key(id: &DeviceId, directory: impl Into<PathBuf>) -> Result<Self, OperationalFilesError> {
        let (key, request) = OperationalRequest::generate(id)?;
        Self::new(request, Some(key), directory)
    }

    /// Takes a request of a device that keeps its key. Existing files are not overwritten.
    ///
    /// # Errors
    /// [`OperationalFilesError::Request`] if the service would refuse the request, [`OperationalFilesError::Files`] if files
    /// cannot have that name.
    pub fn for_request(
        id: &DeviceId,
        request: CertificateRequest,
        directory: impl Into<PathBuf>,
    ) -> Result<Self, OperationalFilesError> {
        Self::new(OperationalRequest::new(id, request)?, None, directory)
    }

    fn new(
        request: OperationalRequest,
        key: Option<PrivateKey>,
        directory: impl Into<PathBuf>,
    ) -> Result<Self, OperationalFilesError> {
        let name = CommonName::new(request.id().as_str()).map_err(FileError::from)?;
        let set = FileSet::new(directory, &name).map_err(FileError::from)?;
        Ok(Self { request, key, keeps_key: false, set, if_exists: IfExists::Fail })
    }

    /// Sets what to do if files of the set already exist.
    #[must_use]
    pub fn if_exists(mut self, if_exists: IfExists) -> Self {
        self.if_exists = if_exists;
        self
    }

    /// Returns the request to register with.
    #[must_use]
    pub fn request(&self) -> &OperationalRequest {
        &self.request
    }

    /// Returns the files.
    #[must_use]
    pub fn set(&self) -> &FileSet {
        &self.set
    }

    /// Returns whether the set has the private key: one that is written with the certificate, or that [`check`](Self::check)
    /// found.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.key.is_some() || self.keeps_key
    }

    /// Returns whether [`check`](Self::check) found the key of the request in the set. The file stays unchanged.
    #[must_use]
    pub fn keeps_key(&self) -> bool {
        self.keeps_key
    }

    /// Checks that the files can be written. Call it before the device registers. `inputs` are the files that it registers
    /// with, which are never overwritten.
    ///
    /// A key file of the set that belongs to the request is kept, also if the rest of the set is overwritten.
    ///
    /// # Errors
    /// [`OperationalFilesError::Input`] if a file of the set is an input, [`OperationalFilesError::Files`] if the set exists
    /// or cannot be written, or if overwriting would remove a file that may hold the key of the request.
    pub fn check(&mut self, inputs: &[&Path]) -> Result<(), OperationalFilesError> {
        if let Some(input) = inputs.iter().find(|input| self.set.includes(input)) {
            return Err(OperationalFilesError::Input((*input).to_owned()));
        }
        if self.key.is_some() {
            return Ok(self.set.check_available(self.if_exists)?);
        }
        self.keeps_key = self.set.check_without_key(self.request.request().public_key(), self.if_exists)?;
        Ok(())
    }

    /// Writes the certificate of an assignment, with its chain and a new key, and a PFX file of a new key if requested. Returns what was written.
    ///
    /// # Errors
    /// [`OperationalFilesError::NotIssued`] if the service issued no certificate, [`OperationalFilesError::NotWritten`] if it
    /// could not be written.
    pub fn write(
        &self,
        assignment: &Assignment,
        pfx: Option<PfxOptions<'_>>,
    ) -> Result<CertificateRecord, OperationalFilesError> {
        let id = self.request.id();
        let chain: Vec<&Certificate> = assignment.certificate_chain.iter().flatten().collect();
        let Some(leaf) = chain.first() else {
            return Err(OperationalFilesError::NotIssued { id: id.clone(), hub: assignment.assigned_hub.clone() });
        };
        let written = match &self.key {
            Some(key) => self.set.write_with_key(&chain, key, pfx, self.if_exists),
            None => self.set.write_without_key(&chain, self.if_exists),
        };
        written.map_err(|error| OperationalFilesError::NotWritten { id: id.clone(), error: error.into() })?;
        let pfx = (pfx.is_some() && self.key.is_some()).then(|| self.set.pfx());
        let mut record = CertificateRecord::new(leaf, &self.set, pfx);
        if !self.has_key() {
            record.private_key = None;
        }
        Ok(record)
    }
}

/// Explains why an operational certificate cannot be requested or stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperationalFilesError {
    /// The service would refuse the request. Nothing was sent.
    #[error("{0}; nothing was sent")]
    Request(#[from] OperationalRequestError),
    /// The files cannot be written. Nothing was sent.
    #[error("the device was not registered: {0}")]
    Files(#[from] FileError),
    /// A file of the set is one that the device registers with. Nothing was sent.
    #[error(
        "the device was not registered: the operational certificate would overwrite {}, which it registers with",
        .0.display()
    )]
    Input(PathBuf),
    /// The device is registered, and the service issued no certificate.
    #[error("{id} is registered at {hub}, but the service issued no certificate")]
    NotIssued {
        /// The device.
        id: DeviceId,
        /// The hub that it is assigned to.
        hub: String,
    },
    /// The device is registered, and its certificate could not be written. It can be issued another one.
    #[error(
        "{id} is registered, but its certificate was not stored, and the service does not return it again: {error}"
    )]
    NotWritten {
        /// The device.
        id: DeviceId,
        /// Why it was not written.
        #[source]
        error: Box<FileError>,
    },
}
