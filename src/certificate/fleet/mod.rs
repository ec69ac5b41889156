//! Certificates for many devices, as directories of files or as one tar stream.
//!
//! Several threads issue the certificates. The output keeps the order of the devices, and the memory does not depend on
//! their number. Only complete sets of files appear: if a process is killed, the complete sets remain, and the next run
//! resumes after them.

mod directories;
mod error;
mod layout;
pub(super) mod manifest;
pub(super) mod ordered;
mod tarball;

use std::{
    fs::File,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use zeroize::Zeroizing;

pub use self::{
    error::{FleetError, SourceError},
    manifest::{MANIFEST, MANIFEST_COLUMNS, ManifestDevice, read_manifest},
};
use self::{
    layout::{DEVICES_PER_DIRECTORY, Kind, SetNames},
    manifest::{NewRow, Row},
};
use super::{
    AuthorityError, Certificate, CertificateAuthority, DeviceId, DeviceIssuer, IssueOptions, KeyAlgorithm, KeyError,
    files::PfxOptions,
    locked_file::LockedFile,
    pem::push_pem,
    pfx,
    profile::{SERIAL_LENGTH, random_serials},
};

/// The number of devices in a batch: enough to amortize the work for each batch, few enough to keep the memory small on
/// many cores.
const BATCH: usize = 32;

/// How many batches for each thread may be in progress or done before the oldest is taken. They are held in memory.
const AHEAD: usize = 4;

/// A device that needs a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetDevice {
    /// The ID, which becomes the common name of the certificate: at most 64 characters.
    pub id: DeviceId,
    /// The display name in the manifest, without control characters. The default is the ID.
    pub name: Option<String>,
    /// The public key as the DER of its `SubjectPublicKeyInfo`, if the device keeps its own key. Otherwise a key is
    /// generated.
    pub public_key: Option<Vec<u8>>,
}

impl FleetDevice {
    /// Creates a device whose key is generated.
    #[must_use]
    pub fn new(id: DeviceId) -> Self {
        Self { id, name: None, public_key: None }
    }

    /// Sets the display name in the manifest.
    #[must_use]
    pub fn name(mut self, name: impl Into<Option<String>>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the public key of a device that keeps its own key, as the DER of its `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(mut self, public_key: impl Into<Option<Vec<u8>>>) -> Self {
        self.public_key = public_key.into();
        self
    }
}

/// What to do if the output of an earlier run exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum IfExists {
    /// Fail, and change nothing.
    #[default]
    Fail,
    /// Keep the complete sets of the earlier run, and issue the missing ones. The devices must be the same in the same
    /// order.
    Resume,
}

/// Issues the certificates of many devices under one CA.
pub struct Fleet<'a> {
    issuer: DeviceIssuer<'a>,
    pfx: Option<PfxOptions<'a>>,
    threads: NonZeroUsize,
    /// Whether a set takes so little time that several are handed over at once.
    is_quick: bool,
    /// The certificate of the CA and those above it, in PEM.
    issuers: Vec<u8>,
    /// The validity in the form of the manifest.
    not_before: String,
    not_after: String,
}

/// How the caller watches and stops a run.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct FleetControl<'a> {
    /// Another thread sets this to stop the run after the devices in progress.
    pub stop: &'a AtomicBool,
    /// Called from any thread with the number of devices that were completed since the last call.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

impl<'a> FleetControl<'a> {
    /// Creates a control from a stop flag and a progress callback.
    #[must_use]
    pub const fn new(stop: &'a AtomicBool, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        Self { stop, progress }
    }
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetReport {
    /// The number of devices that have their files.
    pub devices: u64,
    /// How many of them an earlier run had completed.
    pub resumed: u64,
    /// Whether the run was stopped before all devices were done.
    pub stopped: bool,
    /// The manifest, if it is a file of its own.
    pub manifest: Option<PathBuf>,
}

/// Devices that are processed together, and the number of their directory.
struct Batch {
    directory: u64,
    devices: Vec<FleetDevice>,
}

/// The output of a batch, and memory for reuse.
#[derive(Default)]
struct BatchOutput {
    directory: u64,
    devices: u64,
    /// Rows of the manifest.
    rows: Vec<u8>,
    /// Members of a tar stream.
    members: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
    chain: Vec<u8>,
    /// The error that ended the batch early. The output before it is complete.
    failure: Option<FleetError>,
    /// Unused serial numbers.
    serials: Vec<[u8; SERIAL_LENGTH]>,
}

impl BatchOutput {
    fn serial(&mut self) -> Result<[u8; SERIAL_LENGTH], AuthorityError> {
        if self.serials.is_empty() {
            self.serials.extend(random_serials::<BATCH>()?);
        }
        self.serials.pop().ok_or(AuthorityError::Random)
    }
}

impl<'a> Fleet<'a> {
    /// Creates a fleet under a CA, with PFX files if their options are given. All certificates have the same validity, from
    /// the time of this call.
    ///
    /// # Errors
    /// Returns an [`AuthorityError`] if the CA cannot sign now, or X.509 cannot express the lifetime.
    pub fn new(
        authority: &'a CertificateAuthority,
        options: &IssueOptions,
        pfx: Option<PfxOptions<'a>>,
        threads: NonZeroUsize,
    ) -> Result<Self, AuthorityError> {
        let issuer = DeviceIssuer::new(authority, options)?;
        let mut issuers = Vec::new();
        for certificate in std::iter::once(authority.certificate()).chain(authority.issuers()) {
            push_pem(&mut issuers, "CERTIFICATE", certificate.der());
        }
        let validity = issuer.validity();
        let (not_before, not_after) = (validity.not_before.to_string(), validity.not_after.to_string());
        let is_ec = matches!(options.key_algorithm(), KeyAlgorithm::EcP256 | KeyAlgorithm::EcP384);
        // A token may take long for each signature.
        let is_quick = pfx.is_none() && is_ec && authority.key().token_uri().is_none();
        Ok(Self { issuer, pfx, threads, is_quick, issuers, not_before, not_after })
    }

    /// Returns the issuer of the certificates.
    #[must_use]
    pub fn issuer(&self) -> &DeviceIssuer<'a> {
        &self.issuer
    }

    fn names<'d>(&self, directory: &'d str, device: &'d FleetDevice) -> SetNames<'d> {
        let has_key = device.public_key.is_none();
        SetNames { directory, id: device.id.as_str(), has_key, has_pfx: self.pfx.is_some() }
    }

    /// Issues the certificate of a device, passes each of its files to `put`, and adds its row of the manifest.
    fn issue(
        &self,
        names: &SetNames<'_>,
        device: &FleetDevice,
        output: &mut BatchOutput,
        mut put: impl FnMut(&mut Zeroizing<Vec<u8>>, Kind, &[u8]) -> Result<(), FleetError>,
    ) -> Result<(), FleetError> {
        let failed = |error| FleetError::Device { id: device.id.to_string(), error };
        let (der, serial_number, key) = match &device.public_key {
            None => {
                let serial_number = output.serial().map_err(failed)?;
                let identity = self.issuer.issue_numbered(&device.id, serial_number).map_err(failed)?;
                (identity.certificate, serial_number, Some(identity.key))
            }
            Some(public_key) => {
                let (der, serial_number) = self.issuer.issue_for_key(&device.id, public_key).map_err(failed)?;
                (der, serial_number, None)
            }
        };
        output.chain.clear();
        push_pem(&mut output.chain, "CERTIFICATE", &der);
        let certificate_length = output.chain.len();
        output.chain.extend_from_slice(&self.issuers);
        put(&mut output.members, Kind::Certificate, &output.chain[..certificate_length])?;
        if let Some(key) = &key {
            output.key.clear();
            let pkcs8 = key.to_pkcs8_der().map_err(|error: KeyError| failed(error.into()))?;
            push_pem(&mut output.key, "PRIVATE KEY", &pkcs8);
            put(&mut output.members, Kind::PrivateKey, &output.key)?;
        }
        put(&mut output.members, Kind::Fullchain, &output.chain)?;
        if let (Some(options), Some(key)) = (self.pfx, &key) {
            let authority = self.issuer.authority();
            let certificate = Certificate::from_der(&der).map_err(|error| failed(error.into()))?;
            let chain = [&certificate, authority.certificate()].into_iter().chain(authority.issuers());
            let pfx = pfx::write(key, chain, options.password, options.encryption)
                .map_err(|error| FleetError::Pfx { id: device.id.to_string(), error })?;
            put(&mut output.members, Kind::Pfx, &Zeroizing::new(pfx))?;
        }
        let row = NewRow {
            id: &device.id,
            name: device.name.as_deref(),
            certificate: &der,
            serial_number: &serial_number,
            not_before: &self.not_before,
            not_after: &self.not_after,
            names,
        };
        row.push(&mut output.rows);
        output.devices += 1;
        Ok(())
    }

    /// Returns a source of batches, each for one directory. Devices that take long are batches of one. Sets `stopped` if
    /// `stop` left devices over.
    fn batches<S: Iterator<Item = Result<FleetDevice, SourceError>>>(
        &self,
        largest: u64,
        devices: S,
        mut directory: u64,
        mut in_directory: u64,
        (stop, stopped): (&AtomicBool, &AtomicBool),
    ) -> impl FnMut() -> Result<Option<Batch>, FleetError> {
        let largest = if self.is_quick { largest } else { 1 };
        let mut devices = devices.fuse();
        let (mut failure, mut ended) = (None, false);
        move || {
            if let Some(error) = failure.take() {
                return Err(FleetError::Source(error));
            }
            if ended {
                return Ok(None);
            }
            if stop.load(Ordering::Relaxed) {
                // A run that is stopped after its last device is complete.
                stopped.store(devices.next().is_some(), Ordering::Relaxed);
                ended = true;
                return Ok(None);
            }
            if in_directory == DEVICES_PER_DIRECTORY {
                (directory, in_directory) = (directory + 1, 0);
            }
            let size = usize::try_from(largest.min(DEVICES_PER_DIRECTORY - in_directory)).unwrap_or(BATCH);
            let mut gathered = Vec::new();
            for device in devices.by_ref().take(size) {
                match device {
                    Ok(device) => gathered.push(device),
                    Err(error) => {
                        (failure, ended) = (Some(error), true);
                        break;
                    }
                }
            }
            // The devices before the error are processed first.
            if gathered.is_empty()
                && let Some(error) = failure.take()
            {
                return Err(FleetError::Source(error));
            }
            in_directory += gathered.len() as u64;
            Ok((!gathered.is_empty()).then_some(Batch { directory, devices: gathered }))
        }
    }

    /// Reads a row of an earlier run. Checks that it is of the next requested device, and has the files that this run would
    /// write.
    fn check_row(
        &self,
        path: &Path,
        line: &str,
        device: Option<&FleetDevice>,
        directory: &str,
    ) -> Result<Row, FleetError> {
        let row = Row::read(line)
            .ok_or_else(|| FleetError::cannot_resume(path, format!("{line:?} is not a row of its manifest")))?;
        let Some(device) = device.filter(|device| device.id.as_str() == row.id()) else {
            let requested = device.map(|device| device.id.to_string());
            let found = row.id().to_owned();
            return Err(FleetError::OtherDevices { path: path.to_owned(), found, requested });
        };
        let names = self.names(directory, device);
        let expected: Vec<String> = names.kinds().map(|kind| names.path(kind)).collect();
        if row.files().eq(&expected) {
            return Ok(row);
        }
        let found: Vec<&str> = row.files().collect();
        let reason = format!(
            "it has {} for {}, and this run would write {}; sets with and without keys or PFX files cannot be mixed",
            found.join(" and "),
            device.id,
            expected.join(" and ")
        );
        Err(FleetError::cannot_resume(path, reason))
    }

    /// Checks that a certificate of an earlier run is that of its row and, if the device keeps its own key, for that key.
    fn check_certificate(path: &Path, row: &Row, device: &FleetDevice, pem: &[u8]) -> Result<(), FleetError> {
        let unfit = |reason: String| FleetError::cannot_resume(path, reason);
        let certificate = Certificate::read(pem)
            .map_err(|error| unfit(format!("the certificate of {} cannot be read: {error}", device.id)))?;
        if certificate.sha256_thumbprint() != *row.sha256_thumbprint() {
            return Err(unfit(format!("the certificate of {} is not the one that its manifest lists", device.id)));
        }
        if device.public_key.as_ref().is_some_and(|key| **key != *certificate.uncompressed_public_key()) {
            return Err(unfit(format!("its certificate of {} is for another key than the one given now", device.id)));
        }
        Ok(())
    }

    /// Checks that a certificate of an earlier run was issued by this CA and has not expired.
    fn check_earlier(&self, path: &Path, pem: &[u8]) -> Result<(), FleetError> {
        let certificate = Certificate::read(pem).map_err(|error| FleetError::cannot_resume(path, error.to_string()))?;
        let authority = self.issuer.authority().certificate();
        let unfit = |reason: String| FleetError::cannot_resume(path, reason);
        if certificate.not_after() <= self.issuer.issue_time() {
            return Err(unfit(format!("its certificates were valid until {}", certificate.not_after().date())));
        }
        certificate
            .verify_signature(authority)
            .map_err(|_| unfit(format!("its certificates were not issued by {}", authority.subject())))
    }
}

/// Locks an open file or directory. `path` names it in errors.
pub(super) fn lock(file: File, path: &Path) -> Result<LockedFile, FleetError> {
    LockedFile::try_lock(file).ok_or_else(|| FleetError::Busy(path.to_owned()))
}
