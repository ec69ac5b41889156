//! `manifest.csv`, with a row for each device.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use csv::StringRecord;

use super::{
    error::FleetError,
    layout::{Kind, SetNames},
};
use crate::certificate::{Certificate, DeviceId, Thumbprint, hex::push_hexadecimal};

/// The name of the manifest file.
pub const MANIFEST: &str = "manifest.csv";

/// The names of the columns, in the order in which they are written. Readers find columns by name.
pub const MANIFEST_COLUMNS: [&str; Column::ALL.len()] = {
    let mut names = [""; Column::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Column::ALL[index].name();
        index += 1;
    }
    names
};

/// A column. The first three are those of the CSV import of IoT Central.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    DeviceId,
    DeviceName,
    Sha1Thumbprint,
    Sha256Thumbprint,
    SerialNumber,
    NotBefore,
    NotAfter,
    File(Kind),
}

impl Column {
    const ALL: [Self; 11] = [
        Self::DeviceId,
        Self::DeviceName,
        Self::Sha1Thumbprint,
        Self::Sha256Thumbprint,
        Self::SerialNumber,
        Self::NotBefore,
        Self::NotAfter,
        Self::File(Kind::Certificate),
        Self::File(Kind::PrivateKey),
        Self::File(Kind::Fullchain),
        Self::File(Kind::Pfx),
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::DeviceId => "IOTC_DEVICEID",
            Self::DeviceName => "IOTC_DEVICENAME",
            Self::Sha1Thumbprint => "IOTC_X509THUMBPRINTPRIMARY",
            Self::Sha256Thumbprint => "sha256Thumbprint",
            Self::SerialNumber => "serialNumber",
            Self::NotBefore => "notBefore",
            Self::NotAfter => "notAfter",
            Self::File(Kind::Certificate) => "certificate",
            Self::File(Kind::PrivateKey) => "privateKey",
            Self::File(Kind::Fullchain) => "fullchain",
            Self::File(Kind::Pfx) => "pfx",
        }
    }

    /// Returns the position of the column in a header. Case is ignored, as in the import of devices.
    fn position<'h>(self, header: impl IntoIterator<Item = &'h str>) -> Option<usize> {
        header.into_iter().position(|name| name.trim().eq_ignore_ascii_case(self.name()))
    }
}

/// Returns the header line.
pub(super) fn header() -> String {
    MANIFEST_COLUMNS.join(",") + "\n"
}

/// Returns whether a manifest exists and lists devices. The header of a manifest may be truncated.
///
/// # Errors
/// Returns [`FleetError::CannotResume`] if the file is something else, so that it is not overwritten.
pub(super) fn lists_devices(path: &Path) -> Result<bool, FleetError> {
    let header = header();
    let mut begin = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.and_then(|file| file.take(header.len() as u64 + 1).read_to_end(&mut begin)),
    }
    .map_err(FleetError::io("read", path))?;
    if !begin.iter().zip(header.as_bytes()).all(|(found, expected)| found == expected) {
        let reason = "its first line is not the header of a manifest, so it is not overwritten";
        return Err(FleetError::cannot_resume(path, reason));
    }
    Ok(begin.len() > header.len())
}

/// The content of a new row.
pub(super) struct NewRow<'a> {
    pub(super) id: &'a DeviceId,
    pub(super) name: Option<&'a str>,
    /// The certificate in DER.
    pub(super) certificate: &'a [u8],
    pub(super) serial_number: &'a [u8],
    pub(super) not_before: &'a str,
    pub(super) not_after: &'a str,
    pub(super) names: &'a SetNames<'a>,
}

impl NewRow<'_> {
    /// Appends the row. It is encoded here and not by the csv crate, which allocates a buffer for each writer: this runs
    /// for each device.
    pub(super) fn push(&self, rows: &mut Vec<u8>) {
        for (index, column) in Column::ALL.into_iter().enumerate() {
            if index > 0 {
                rows.push(b',');
            }
            match column {
                Column::DeviceId => rows.extend_from_slice(self.id.as_str().as_bytes()),
                Column::DeviceName => push_quoted(rows, self.name.unwrap_or(self.id.as_str())),
                Column::Sha1Thumbprint => push_hexadecimal(rows, Thumbprint::sha1(self.certificate).as_bytes()),
                Column::Sha256Thumbprint => push_hexadecimal(rows, Thumbprint::sha256(self.certificate).as_bytes()),
                Column::SerialNumber => push_hexadecimal(rows, self.serial_number),
                Column::NotBefore => rows.extend_from_slice(self.not_before.as_bytes()),
                Column::NotAfter => rows.extend_from_slice(self.not_after.as_bytes()),
                Column::File(kind) if self.names.has(kind) => self.names.push(rows, kind),
                Column::File(_) => {}
            }
        }
        rows.push(b'\n');
    }
}

/// Appends a text, quoted if CSV (RFC 4180) requires it. Names have no line ends.
fn push_quoted(rows: &mut Vec<u8>, text: &str) {
    if text.contains([',', '"']) {
        rows.extend_from_slice(format!("\"{}\"", text.replace('"', "\"\"")).as_bytes());
    } else {
        rows.extend_from_slice(text.as_bytes());
    }
}

/// A row that an earlier run wrote.
pub(super) struct Row(StringRecord);

impl Row {
    /// Reads a row under the [`header`]. `None` if it does not have exactly its columns.
    pub(super) fn read(line: &str) -> Option<Self> {
        let mut record = StringRecord::new();
        let mut reader = csv::ReaderBuilder::new();
        let mut reader = reader.has_headers(false).buffer_capacity(1 << 10).from_reader(line.as_bytes());
        let is_read = reader.read_record(&mut record).is_ok_and(|is_read| is_read);
        (is_read && record.len() == Column::ALL.len()).then_some(Self(record))
    }

    fn get(&self, column: Column) -> &str {
        column.position(MANIFEST_COLUMNS).and_then(|position| self.0.get(position)).unwrap_or_default()
    }

    pub(super) fn id(&self) -> &str {
        self.get(Column::DeviceId)
    }

    pub(super) fn sha256_thumbprint(&self) -> &str {
        self.get(Column::Sha256Thumbprint)
    }

    /// Returns the paths of the device's files, in the order of [`Kind::ALL`].
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        Kind::ALL.into_iter().map(|kind| self.get(Column::File(kind))).filter(|path| !path.is_empty())
    }
}

/// The positions of the columns of a manifest that a renewal reads and changes.
pub(in crate::certificate) struct Columns([Option<usize>; Column::ALL.len()]);

/// The columns that describe a certificate.
const DESCRIPTIVE: [Column; 5] =
    [Column::Sha1Thumbprint, Column::Sha256Thumbprint, Column::SerialNumber, Column::NotBefore, Column::NotAfter];

impl Columns {
    /// Returns the columns of a header. `None` if it has none for certificate files.
    pub(in crate::certificate) fn of(header: &StringRecord) -> Option<Self> {
        let columns = Self(Column::ALL.map(|column| column.position(header)));
        columns.position(Column::File(Kind::Certificate)).map(|_| columns)
    }

    fn position(&self, column: Column) -> Option<usize> {
        Column::ALL.into_iter().zip(self.0).find(|(known, _)| *known == column).and_then(|(_, position)| position)
    }

    fn get<'r>(&self, row: &'r StringRecord, column: Column) -> &'r str {
        self.position(column).and_then(|position| row.get(position)).unwrap_or_default()
    }

    pub(in crate::certificate) fn has_ids(&self) -> bool {
        self.position(Column::DeviceId).is_some()
    }

    pub(in crate::certificate) fn id<'r>(&self, row: &'r StringRecord) -> &'r str {
        self.get(row, Column::DeviceId)
    }

    pub(in crate::certificate) fn certificate<'r>(&self, row: &'r StringRecord) -> &'r str {
        self.get(row, Column::File(Kind::Certificate))
    }

    pub(in crate::certificate) fn private_key<'r>(&self, row: &'r StringRecord) -> &'r str {
        self.get(row, Column::File(Kind::PrivateKey))
    }

    pub(in crate::certificate) fn pfx<'r>(&self, row: &'r StringRecord) -> &'r str {
        self.get(row, Column::File(Kind::Pfx))
    }

    pub(in crate::certificate) fn fullchain<'r>(&self, row: &'r StringRecord) -> &'r str {
        self.get(row, Column::File(Kind::Fullchain))
    }

    /// Changes what a row says about its certificate.
    pub(in crate::certificate) fn update(&self, row: &mut StringRecord, certificate: &Certificate) {
        let values = [
            certificate.sha1_thumbprint().to_string(),
            certificate.sha256_thumbprint().to_string(),
            certificate.serial_number(),
            certificate.not_before().to_string(),
            certificate.not_after().to_string(),
        ];
        self.set_all(row, |index, _| values.get(index).map(String::as_str));
    }

    /// Copies what a row of another manifest says about the same certificate.
    pub(in crate::certificate) fn copy(&self, row: &mut StringRecord, from: &StringRecord, columns: &Self) {
        self.set_all(row, |_, column| columns.position(column).and_then(|position| from.get(position)));
    }

    fn set_all<'v>(&self, row: &mut StringRecord, value: impl Fn(usize, Column) -> Option<&'v str>) {
        let new = |at: usize| {
            let (index, column) =
                DESCRIPTIVE.into_iter().enumerate().find(|&(_, column)| self.position(column) == Some(at))?;
            value(index, column)
        };
        *row = row.iter().enumerate().map(|(at, old)| new(at).unwrap_or(old)).collect();
    }
}

/// A device of a manifest, and the files it registers with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestDevice {
    /// The ID of the device.
    pub id: DeviceId,
    /// The file with its certificate and all certificates above it.
    pub fullchain: PathBuf,
    /// The file with its private key.
    pub private_key: PathBuf,
}

/// Reads the devices of a manifest. Devices that keep their own keys are skipped.
///
/// Columns are found by the names in the header, so their order does not matter and there may be others. Paths are
/// relative to the directory of the manifest.
///
/// # Errors
/// Returns [`FleetError::Io`] if the file cannot be read, and [`FleetError::Manifest`] if its header lacks a column. Each
/// device is an error if its row is malformed.
pub fn read_manifest(
    path: &Path,
) -> Result<impl Iterator<Item = Result<ManifestDevice, FleetError>> + Send + use<>, FleetError> {
    let file = File::open(path).map_err(FleetError::io("read", path))?;
    let mut reader = csv::Reader::from_reader(file);
    let header = reader.headers().map_err(|error| csv_error(path, error))?.clone();
    let position = |column: Column| {
        let reason = || format!("its header has no column {}", column.name());
        let missing = || FleetError::Manifest { path: path.to_owned(), reason: reason() };
        // An empty file lists no devices.
        if header.is_empty() { Ok(0) } else { column.position(&header).ok_or_else(missing) }
    };
    let id = position(Column::DeviceId)?;
    let private_key = position(Column::File(Kind::PrivateKey))?;
    let fullchain = position(Column::File(Kind::Fullchain))?;
    let (path, directory) = (path.to_owned(), path.parent().map(Path::to_owned).unwrap_or_default());
    let mut is_readable = true;
    Ok(reader
        .into_records()
        // An error of the file system would repeat itself.
        .take_while(move |record| {
            let is_taken = is_readable;
            is_readable = !record.as_ref().is_err_and(csv::Error::is_io_error);
            is_taken
        })
        .filter_map(move |record| {
            let record = match record {
                Ok(record) => record,
                Err(error) => return Some(Err(csv_error(&path, error))),
            };
            let file = |position| record.get(position).filter(|file| !file.is_empty()).map(|file| directory.join(file));
            let private_key = file(private_key)?;
            let device = record.get(id).and_then(|id| DeviceId::new(id).ok()).zip(file(fullchain));
            let device = device.map(|(id, fullchain)| ManifestDevice { id, fullchain, private_key });
            let line = record.position().map_or(0, csv::Position::line);
            Some(device.ok_or_else(|| {
                let reason = format!("line {line} needs a device ID and the path of a full chain");
                FleetError::Manifest { path: path.clone(), reason }
            }))
        }))
}

/// Returns an error of the CSV reader in our own words.
pub(in crate::certificate) fn csv_error(path: &Path, error: csv::Error) -> FleetError {
    let line = error.position().map_or(0, csv::Position::line);
    let reason = match error.into_kind() {
        csv::ErrorKind::Io(error) => return FleetError::io("read", path)(error),
        csv::ErrorKind::Utf8 { .. } => format!("line {line} is not UTF-8"),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("line {line} has {len} columns, and the header has {expected_len}")
        }
        _ => format!("line {line} is malformed"),
    };
    FleetError::Manifest { path: path.to_owned(), reason }
}
