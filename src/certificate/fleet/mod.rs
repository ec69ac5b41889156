//! Fleets: device certificates by the thousand, as folders of files or as one tar stream.
//!
//! The work is spread over threads, what comes out keeps the order of the devices, and the memory it takes does not
//! depend on how many they are. Only whole sets of files ever appear: a process that is killed leaves what was complete,
//! and the next one goes on from there.

mod folders;
mod manifest;
mod ordered;
mod tarball;

use std::{
    fs::{File, TryLockError},
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zeroize::Zeroizing;

pub use self::manifest::{MANIFEST, MANIFEST_COLUMNS, ManifestDevice, read_manifest};
use self::manifest::{id_of, paths_of, sha256_of};
use super::{
    AuthorityError, Certificate, CertificateAuthority, DeviceId, DeviceIssuer, IssueOptions, KeyAlgorithm, KeyError,
    ReadError,
    files::PfxOptions,
    pem::push_pem,
    pfx::{self, PfxError},
    profile::{SERIAL_LENGTH, random_serials},
    secure_file::Access,
};

/// How many devices share a folder: with four files each, no folder has more than 4,001.
const DEVICES_IN_FOLDER: u64 = 1_000;

/// How many devices are made in a row: enough that what is done once for all of them costs nothing, few enough that the
/// memory stays small on many cores.
const BATCH: usize = 32;

/// How many batches for each thread may be done or under way before the oldest of them is taken. Few, since they are
/// held in memory.
const AHEAD: usize = 4;

/// A device that is to have a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetDevice {
    /// Its id, the common name of the certificate: at most 64 characters.
    pub id: DeviceId,
    /// Its display name, without control characters; the id where there is none.
    pub name: Option<String>,
    /// The public key as the DER of its `SubjectPublicKeyInfo`, where the device keeps its own key. Otherwise one is
    /// made.
    pub public_key: Option<Vec<u8>>,
}

/// Makes the certificates of many devices under one authority.
pub struct Fleet<'a> {
    issuer: DeviceIssuer<'a>,
    pfx: Option<PfxOptions<'a>>,
    threads: NonZeroUsize,
    /// Whether a certificate takes so little time that handing it over alone would cost as much.
    quick: bool,
    made_at: OffsetDateTime,
    /// The authority's certificate and those above it in PEM.
    issuers: Vec<u8>,
    /// As the manifest has it.
    validity: String,
}

/// How a run is watched and ended.
#[derive(Clone, Copy)]
pub struct FleetControl<'a> {
    /// Set by another thread to end the run after the devices that are under way.
    pub stop: &'a AtomicBool,
    /// Called from any thread with the number of devices that were made since the last call.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetReport {
    /// The devices that have their files now.
    pub devices: u64,
    /// How many of them an earlier run had made.
    pub resumed: u64,
    /// Whether it was ended before all devices were done.
    pub stopped: bool,
    /// The manifest, where it is a file of its own.
    pub manifest: Option<PathBuf>,
}

/// The files of a set, in the order of the manifest's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Certificate,
    PrivateKey,
    Fullchain,
    Pfx,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Certificate, Self::PrivateKey, Self::Fullchain, Self::Pfx];

    fn suffix(self) -> &'static str {
        match self {
            Self::Certificate => "_cert.pem",
            Self::PrivateKey => "_key.pem",
            Self::Fullchain => "_fullchain.pem",
            Self::Pfx => ".pfx",
        }
    }

    /// Who may read it.
    fn access(self) -> Access {
        match self {
            Self::Certificate | Self::Fullchain => Access::Everyone,
            Self::PrivateKey | Self::Pfx => Access::Owner,
        }
    }
}

/// The paths of a device's files: the folder and the device id.
///
/// Not the id in camel case, as single sets are called: `dev-1` and `dev1` would share their files. A colon, which
/// Windows does not allow in names, is written `%3A`.
struct SetNames<'a> {
    folder: &'a str,
    id: &'a str,
    has_key: bool,
    has_pfx: bool,
}

impl SetNames<'_> {
    fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Certificate | Kind::Fullchain => true,
            Kind::PrivateKey => self.has_key,
            Kind::Pfx => self.has_key && self.has_pfx,
        }
    }

    fn kinds(&self) -> impl DoubleEndedIterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|&kind| self.has(kind))
    }

    fn push(&self, text: &mut Vec<u8>, kind: Kind) {
        text.extend_from_slice(self.folder.as_bytes());
        text.push(b'/');
        for (index, part) in self.id.split(':').enumerate() {
            if index > 0 {
                text.extend_from_slice(b"%3A");
            }
            text.extend_from_slice(part.as_bytes());
        }
        text.extend_from_slice(kind.suffix().as_bytes());
    }

    fn path(&self, kind: Kind) -> String {
        let mut path = Vec::with_capacity(96);
        self.push(&mut path, kind);
        // Ids are ASCII.
        String::from_utf8(path).unwrap_or_default()
    }
}

fn folder_name(number: u64) -> String {
    format!("{number:04}")
}

/// Devices that are made together, with the folder they go to.
struct Batch {
    folder: u64,
    devices: Vec<FleetDevice>,
}

/// What a batch came to, and the memory it is made in.
#[derive(Default)]
struct Made {
    folder: u64,
    devices: u64,
    /// Rows of the manifest.
    rows: Vec<u8>,
    /// Members of a tar stream.
    members: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
    chain: Vec<u8>,
    /// What ended the batch early; what it holds is whole.
    failure: Option<FleetError>,
    /// Serial numbers that are not used yet.
    serials: Vec<[u8; SERIAL_LENGTH]>,
}

impl Made {
    fn serial(&mut self) -> Result<[u8; SERIAL_LENGTH], AuthorityError> {
        if self.serials.is_empty() {
            self.serials.extend(random_serials::<BATCH>()?);
        }
        self.serials.pop().ok_or(AuthorityError::Random)
    }
}

impl<'a> Fleet<'a> {
    /// Prepares certificates under that authority, with PFX files when asked for, on so many threads.
    ///
    /// # Errors
    /// [`AuthorityError`] when the authority cannot sign at that moment, or the lifetime is not possible.
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
        let moment = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
        let validity = issuer.validity();
        let validity = format!("{},{}", moment(validity.not_before), moment(validity.not_after));
        let quick = pfx.is_none() && matches!(options.algorithm, KeyAlgorithm::EcP256 | KeyAlgorithm::EcP384);
        Ok(Self { issuer, pfx, threads, quick, made_at: options.at, issuers, validity })
    }

    /// What makes the certificates.
    #[must_use]
    pub fn issuer(&self) -> &DeviceIssuer<'a> {
        &self.issuer
    }

    fn names<'d>(&self, folder: &'d str, device: &'d FleetDevice) -> SetNames<'d> {
        let has_key = device.public_key.is_none();
        SetNames { folder, id: device.id.as_str(), has_key, has_pfx: self.pfx.is_some() }
    }

    /// Makes one device's files and hands each to `put`; its row goes to the manifest.
    fn make(
        &self,
        names: &SetNames<'_>,
        device: &FleetDevice,
        made: &mut Made,
        mut put: impl FnMut(&mut Zeroizing<Vec<u8>>, Kind, &[u8]) -> Result<(), FleetError>,
    ) -> Result<(), FleetError> {
        let failed = |error| FleetError::Device { id: device.id.to_string(), error };
        let (der, serial_number, key) = match &device.public_key {
            None => {
                let serial_number = made.serial().map_err(failed)?;
                let identity = self.issuer.issue_numbered(&device.id, serial_number).map_err(failed)?;
                (identity.certificate, serial_number, Some(identity.key))
            }
            Some(public_key) => {
                let (der, serial_number) = self.issuer.issue_for_key(&device.id, public_key).map_err(failed)?;
                (der, serial_number, None)
            }
        };
        made.chain.clear();
        push_pem(&mut made.chain, "CERTIFICATE", &der);
        let certificate_length = made.chain.len();
        made.chain.extend_from_slice(&self.issuers);
        put(&mut made.members, Kind::Certificate, &made.chain[..certificate_length])?;
        if let Some(key) = &key {
            made.key.clear();
            let pkcs8 = key.to_pkcs8_der().map_err(|error: KeyError| failed(error.into()))?;
            push_pem(&mut made.key, "PRIVATE KEY", &pkcs8);
            put(&mut made.members, Kind::PrivateKey, &made.key)?;
        }
        put(&mut made.members, Kind::Fullchain, &made.chain)?;
        if let (Some(options), Some(key)) = (self.pfx, &key) {
            let authority = self.issuer.authority();
            let certificate = Certificate::from_der(&der).map_err(|error| failed(error.into()))?;
            let chain = [&certificate, authority.certificate()].into_iter().chain(authority.issuers());
            let pfx = pfx::write(key, chain, options.password, options.encryption)
                .map_err(|error| FleetError::Pfx { id: device.id.to_string(), error })?;
            put(&mut made.members, Kind::Pfx, &Zeroizing::new(pfx))?;
        }
        let whose = (&device.id, device.name.as_deref());
        manifest::push_row(&mut made.rows, whose, &der, &serial_number, &self.validity, names);
        made.devices += 1;
        Ok(())
    }

    /// Gathers devices into batches, none of which goes over the end of a folder. Where each takes long, one is a batch.
    /// `stopped` becomes true when `stop` has left devices over.
    fn batches<S: Iterator<Item = Result<FleetDevice, SourceError>>>(
        &self,
        largest: u64,
        devices: S,
        mut folder: u64,
        mut in_folder: u64,
        (stop, stopped): (&AtomicBool, &AtomicBool),
    ) -> impl FnMut() -> Result<Option<Batch>, FleetError> {
        let largest = if self.quick { largest } else { 1 };
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
                // What is asked to stop after the last device is done.
                stopped.store(devices.next().is_some(), Ordering::Relaxed);
                ended = true;
                return Ok(None);
            }
            if in_folder == DEVICES_IN_FOLDER {
                (folder, in_folder) = (folder + 1, 0);
            }
            let size = usize::try_from(largest.min(DEVICES_IN_FOLDER - in_folder)).unwrap_or(BATCH);
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
            // The devices before it are made first.
            if gathered.is_empty()
                && let Some(error) = failure.take()
            {
                return Err(FleetError::Source(error));
            }
            in_folder += gathered.len() as u64;
            Ok((!gathered.is_empty()).then_some(Batch { folder, devices: gathered }))
        }
    }

    /// Checks that the row of an earlier run tells of this device and of the files that this run would make for it.
    fn check_row(path: &Path, row: &str, device: &FleetDevice, names: &SetNames<'_>) -> Result<(), FleetError> {
        if device.id.as_str() != id_of(row) {
            return Err(other_devices(path, row, Some(device)));
        }
        let expected: Vec<String> = names.kinds().map(|kind| names.path(kind)).rev().collect();
        if paths_of(row).eq(&expected) {
            return Ok(());
        }
        let found: Vec<&str> = paths_of(row).collect();
        let reason = format!(
            "it has {} for {}, and this run would make {}; with and without keys or PFX files are not mixed",
            found.join(" and "),
            device.id,
            expected.join(" and ")
        );
        Err(FleetError::Earlier { path: path.to_owned(), reason })
    }

    /// Checks that a certificate of an earlier run is the one of its row and, where the device keeps its own key, for that.
    fn check_certificate(path: &Path, row: &str, device: &FleetDevice, pem: &[u8]) -> Result<(), FleetError> {
        let unfit = |reason| FleetError::Earlier { path: path.to_owned(), reason };
        let certificate = Certificate::read(pem)
            .map_err(|error| unfit(format!("the certificate of {} cannot be read: {error}", device.id)))?;
        if certificate.sha256_thumbprint().to_string() != sha256_of(row) {
            return Err(unfit(format!("the certificate of {} is not the one that its manifest lists", device.id)));
        }
        if device.public_key.as_ref().is_some_and(|key| **key != *certificate.uncompressed_public_key()) {
            return Err(unfit(format!("its certificate of {} is for another key than the one given now", device.id)));
        }
        Ok(())
    }

    /// Checks that a certificate of an earlier run was made by this authority.
    fn check_earlier(&self, path: &Path, pem: &[u8]) -> Result<(), FleetError> {
        let certificate = Certificate::read(pem)
            .map_err(|error| FleetError::Earlier { path: path.to_owned(), reason: error.to_string() })?;
        let authority = self.issuer.authority().certificate();
        let unfit = |reason| FleetError::Earlier { path: path.to_owned(), reason };
        if certificate.not_after() <= self.made_at {
            return Err(unfit(format!("its certificates were valid until {}", certificate.not_after().date())));
        }
        certificate
            .verify_signature(authority)
            .map_err(|_| unfit(format!("its certificates were not made by {}", authority.subject())))
    }
}

/// The error of a row for which another device is asked for, or none.
fn other_devices(path: &Path, row: &str, asked: Option<&FleetDevice>) -> FleetError {
    let asked = asked.map(|device| device.id.to_string());
    FleetError::OtherDevices { path: path.to_owned(), found: id_of(row).to_owned(), asked }
}

/// Locks what was opened at that path, until it is closed.
fn lock(file: &File, path: &Path) -> Result<(), FleetError> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(FleetError::Busy(path.to_owned())),
        // Some network file systems have no locks.
        _ => Ok(()),
    }
}

/// Why the devices could not be told, in the words of who told them.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Why a fleet could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// There is something in the place where it was to go.
    #[error("{} already exists, and nothing was written", .0.display())]
    Exists(PathBuf),
    /// What an earlier run left does not go with this one.
    #[error("{} cannot be gone on with: {reason}", .path.display())]
    Earlier {
        /// The file or folder.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// An earlier run was for other devices, or in another order.
    #[error(
        "{} cannot be gone on with: it has {found} where {} is asked for, and a fleet grows at its end only",
        .path.display(),
        .asked.as_deref().unwrap_or("no more")
    )]
    OtherDevices {
        /// The file or folder.
        path: PathBuf,
        /// The device it has.
        found: String,
        /// The device that is asked for in its place; none when there are no more.
        asked: Option<String>,
    },
    /// The run ended early. What was made before is whole, and is in the manifest.
    #[error("{made} devices have been made, then: {error}")]
    Interrupted {
        /// The devices that have their files.
        made: u64,
        /// What ended it.
        #[source]
        error: Box<FleetError>,
    },
    /// The authority cannot sign at that moment, or the lifetime is not possible.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A certificate could not be made.
    #[error("the certificate of {id} could not be made: {error}")]
    Device {
        /// The device.
        id: String,
        /// What failed.
        error: AuthorityError,
    },
    /// A PFX file could not be made.
    #[error("the PFX file of {id} could not be made: {error}")]
    Pfx {
        /// The device.
        id: String,
        /// What failed.
        error: PfxError,
    },
    /// The devices could not be told.
    #[error(transparent)]
    Source(SourceError),
    /// Another process is at work in the same place.
    #[error("another process is at work on {}, and nothing was written: wait until it has ended", .0.display())]
    Busy(PathBuf),
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
}

impl FleetError {
    fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { doing, path, error }
    }

    /// The error with how far it came.
    fn after(self, made: u64) -> Self {
        Self::Interrupted { made, error: Box::new(self) }
    }
}

impl From<ReadError> for FleetError {
    fn from(error: ReadError) -> Self {
        Self::Source(Box::new(error))
    }
}
