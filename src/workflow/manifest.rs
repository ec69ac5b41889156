//! The rows of a manifest whose devices register: their files, by the names of the columns.

use std::{
    fs::File,
    io::{BufReader, Error as IoError},
    path::{Path, PathBuf},
};

use super::{
    csv_rows::{CsvError, CsvRow, CsvRows},
    repeated_ids::{IdCollector, RepeatedIds},
};
use crate::{
    certificate::{
        Certificate,
        files::{self, FileError, Passwords},
        pfx,
    },
    dps::device::{CredentialError, DeviceCertificate},
};

/// The first line of a results file, by which one is known.
pub(super) const RESULT_COLUMNS: [&str; 9] =
    ["IOTC_DEVICEID", "line", "outcome", "idScope", "assignedHub", "deviceId", "sha1Thumbprint", "cause", "message"];

/// The first line of a results file of version 0.1, whose rows do not tell which certificate a device registered with.
pub(super) const EARLIER_RESULT_COLUMNS: [&str; 8] =
    ["IOTC_DEVICEID", "line", "outcome", "idScope", "assignedHub", "deviceId", "cause", "message"];

/// The columns that are used, in lower case.
const COLUMNS: [&str; 5] = ["iotc_deviceid", "fullchain", "certificate", "privatekey", "pfx"];

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The system could not read it.
    #[error("could not read {}: {error}", .path.display())]
    Read {
        /// The manifest.
        path: PathBuf,
        /// What the system said.
        error: IoError,
    },
    /// It is standard input or a device, which has no directory and cannot be read twice.
    #[error(
        "{} is no regular file: the paths in a manifest are relative to its directory, so save it as a file there",
        .0.display()
    )]
    NotAFile(PathBuf),
    /// It is not the CSV that is expected.
    #[error("no devices could be read from {}: {error}", .path.display())]
    Content {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        error: CsvError,
    },
    /// It names no files, and no group key is given.
    #[error(
        "{} names no files to register with: it needs the columns fullchain and privateKey, or pfx, as `cert fleet` writes \
         them, or the key of the enrollment group",
        .0.display()
    )]
    NoFiles(PathBuf),
    /// It has no rows.
    #[error("{} has no rows after its first line", .0.display())]
    Empty(PathBuf),
}

/// A manifest, read row by row. Its size is not limited by memory.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    path: PathBuf,
    columns: Columns,
}

/// A row of a manifest.
#[derive(Debug)]
pub(super) struct ManifestRow {
    pub(super) line: u64,
    /// The device's ID as written.
    pub(super) id: String,
    pub(super) files: DeviceFiles,
    /// Why the row cannot be used.
    pub(super) problem: Option<String>,
}

/// The positions of the columns.
#[derive(Debug, Clone, Copy)]
struct Columns {
    id: usize,
    fullchain: Option<usize>,
    certificate: Option<usize>,
    key: Option<usize>,
    pfx: Option<usize>,
}

/// The number of rows, and the IDs that occur more than once.
pub(super) struct ManifestIds {
    pub(super) count: u64,
    repeated: RepeatedIds,
}

impl Manifest {
    /// Reads the first line.
    pub(super) fn open(path: &Path) -> Result<Self, ManifestError> {
        let is_stream =
            path == Path::new("-") || ["/dev/stdin", "/dev/fd", "/proc"].iter().any(|above| path.starts_with(above));
        let unreadable = |error| ManifestError::Read { path: path.to_owned(), error };
        if is_stream || !path.metadata().map_err(unreadable)?.is_file() {
            return Err(ManifestError::NotAFile(path.to_owned()));
        }
        let columns = csv_rows(path).and_then(|rows| Columns::read(&rows));
        let columns = columns.map_err(|error| ManifestError::Content { path: path.to_owned(), error })?;
        Ok(Self { path: path.to_owned(), columns })
    }

    /// Returns whether the manifest names files to register with.
    pub(super) fn names_files(&self) -> bool {
        let Columns { fullchain, certificate, key, pfx, .. } = self.columns;
        (fullchain.or(certificate).is_some() && key.is_some()) || pfx.is_some()
    }

    /// Reads all rows once: counts them and finds repeated IDs. Eight bytes of each ID are held.
    pub(super) fn read_ids(&self, has_group_key: bool) -> Result<ManifestIds, ManifestError> {
        if !self.names_files() && !has_group_key {
            return Err(ManifestError::NoFiles(self.path.clone()));
        }
        let mut count = 0;
        let mut ids = IdCollector::default();
        for row in self.rows()? {
            let row = row?;
            count += 1;
            if row.problem.is_none() && !row.id.is_empty() {
                ids.add(&row.id);
            }
        }
        if count == 0 {
            return Err(ManifestError::Empty(self.path.clone()));
        }
        Ok(ManifestIds { count, repeated: ids.repeated() })
    }

    pub(super) fn rows(
        &self,
    ) -> Result<impl Iterator<Item = Result<ManifestRow, ManifestError>> + Send + use<>, ManifestError> {
        let path = self.path.clone();
        let unreadable = move |error| match error {
            CsvError::Io(error) => ManifestError::Read { path: path.clone(), error },
            error @ CsvError::Content(_) => ManifestError::Content { path: path.clone(), error },
        };
        let directory = self.path.parent().unwrap_or(Path::new("")).to_owned();
        let columns = self.columns;
        let rows = csv_rows(&self.path).map_err(&unreadable)?;
        Ok(rows.map(move |row| Ok(columns.row(row.map_err(&unreadable)?, &directory))))
    }
}

impl ManifestIds {
    /// Marks a row whose ID an earlier row has. Rows have to be passed in their order.
    pub(super) fn mark_repeated(&mut self, row: &mut ManifestRow) {
        if row.problem.is_none() {
            row.problem = self.repeated.problem(&row.id, row.line);
        }
    }
}

impl Columns {
    fn read(rows: &CsvRows<BufReader<File>>) -> Result<Self, CsvError> {
        if rows.header().iter().eq(RESULT_COLUMNS) || rows.header().iter().eq(EARLIER_RESULT_COLUMNS) {
            return Err(CsvError::content("it holds the results of a registration: name the manifest"));
        }
        let names = rows.names(&COLUMNS)?;
        let [id, fullchain, certificate, key, pfx] = COLUMNS.map(|name| names.find(name));
        Ok(Self { id: id.unwrap_or_default(), fullchain, certificate, key, pfx })
    }

    fn row(self, row: CsvRow, directory: &Path) -> ManifestRow {
        let file = |column| row.text(column).map(|name| directory.join(name));
        let files = DeviceFiles {
            certificate: file(self.fullchain).or_else(|| file(self.certificate)),
            key: file(self.key),
            pfx: file(self.pfx),
        };
        ManifestRow { line: row.line, id: row.id(self.id).to_owned(), files, problem: row.problem }
    }
}

/// Opens the file twice: the second time to count lines.
fn csv_rows(path: &Path) -> Result<CsvRows<BufReader<File>>, CsvError> {
    let open = || File::open(path).map(BufReader::new);
    CsvRows::new(open()?, open()?)
}

/// The files of a device that the manifest names.
#[derive(Debug, Default)]
pub(super) struct DeviceFiles {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) pfx: Option<PathBuf>,
}

/// Why a device has no credential.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnreadableCredential {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("the manifest names no private key for it: only the device itself, which has the key, can register")]
    NoKey,
}

impl DeviceFiles {
    /// Reads the certificates: that of the device, which may not be the first one, and its chain.
    pub(super) fn read_certificates(&self, passwords: Passwords<'_>) -> Result<Vec<Certificate>, UnreadableCredential> {
        match self {
            Self { certificate: Some(certificate), key: Some(_), .. } => {
                Ok(files::read_certificates_with(certificate, passwords)?)
            }
            // A PFX file is whole or unreadable.
            files => Ok(files.read(passwords)?.certificates().to_vec()),
        }
    }

    /// Reads the certificate, its chain and the key.
    pub(super) fn read(&self, passwords: Passwords<'_>) -> Result<DeviceCertificate, UnreadableCredential> {
        let (certificates, key) = match self {
            Self { certificate: Some(certificate), key: Some(key), .. } => {
                (files::read_certificates_with(certificate, passwords)?, files::read_key(key, passwords)?)
            }
            Self { pfx: Some(path), .. } => {
                let bytes = files::read_limited(path)?;
                let identity = pfx::read_identity(&bytes, passwords.pfx);
                let (key, certificates) = identity.map_err(|error| FileError::PfxFile { path: path.clone(), error })?;
                (certificates, key)
            }
            _ => return Err(UnreadableCredential::NoKey),
        };
        Ok(DeviceCertificate::new(certificates, &key)?)
    }
}
