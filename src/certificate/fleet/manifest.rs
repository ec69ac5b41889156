//! `manifest.csv`: what was made, a row for each device.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use super::{DeviceId, FleetError, Kind, SetNames};
use crate::certificate::{Thumbprint, hex::push_hexadecimal};

/// The columns. The first three are those of the application's CSV import; the thumbprint among them is the SHA-1, which
/// the services compare.
pub const MANIFEST_COLUMNS: [&str; 11] = [
    "IOTC_DEVICEID",
    "IOTC_DEVICENAME",
    "IOTC_X509THUMBPRINTPRIMARY",
    "sha256Thumbprint",
    "serialNumber",
    "notBefore",
    "notAfter",
    "certificate",
    "privateKey",
    "fullchain",
    "pfx",
];

/// The name of the file.
pub const MANIFEST: &str = "manifest.csv";

pub(super) fn header() -> String {
    MANIFEST_COLUMNS.join(",") + "\n"
}

/// Whether there is a manifest that lists devices. One may have been cut off within its header.
///
/// # Errors
/// [`FleetError::Earlier`] when the file is something else, which is nothing to write over.
pub(super) fn lists_devices(path: &Path) -> Result<bool, FleetError> {
    let header = header();
    let mut begin = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.and_then(|file| file.take(header.len() as u64 + 1).read_to_end(&mut begin)),
    }
    .map_err(FleetError::io("read", path))?;
    if !begin.iter().zip(header.as_bytes()).all(|(found, expected)| found == expected) {
        let reason = "its first line is not that of a fleet, so it is left as it is".to_owned();
        return Err(FleetError::Earlier { path: path.to_owned(), reason });
    }
    Ok(begin.len() > header.len())
}

/// Appends a row. `validity` is both moments with a comma between them.
pub(super) fn push_row(
    rows: &mut Vec<u8>,
    (id, name): (&DeviceId, Option<&str>),
    der: &[u8],
    serial_number: &[u8],
    validity: &str,
    names: &SetNames<'_>,
) {
    rows.extend_from_slice(id.as_str().as_bytes());
    rows.push(b',');
    push_text(rows, name.unwrap_or(id.as_str()));
    for value in [Thumbprint::sha1(der).as_bytes(), Thumbprint::sha256(der).as_bytes(), serial_number] {
        rows.push(b',');
        push_hexadecimal(rows, value);
    }
    rows.push(b',');
    rows.extend_from_slice(validity.as_bytes());
    for kind in Kind::ALL {
        rows.push(b',');
        if names.has(kind) {
            names.push(rows, kind);
        }
    }
    rows.push(b'\n');
}

/// A text of others, quoted where CSV (RFC 4180) asks for it.
fn push_text(rows: &mut Vec<u8>, text: &str) {
    if text.contains([',', '"']) {
        rows.extend_from_slice(format!("\"{}\"", text.replace('"', "\"\"")).as_bytes());
    } else {
        rows.extend_from_slice(text.as_bytes());
    }
}

/// A device of a manifest, and what it registers with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestDevice {
    /// Its id.
    pub id: DeviceId,
    /// The file of its certificate and all above it.
    pub fullchain: PathBuf,
    /// The file of its key.
    pub private_key: PathBuf,
}

/// Reads the devices of a manifest, one after the other; those that keep their own keys are passed over.
///
/// # Errors
/// [`FleetError::Io`] when the file cannot be read, and for each row that is none of a fleet [`FleetError::Earlier`].
pub fn read_manifest(
    path: &Path,
) -> Result<impl Iterator<Item = Result<ManifestDevice, FleetError>> + Send + use<>, FleetError> {
    let file = File::open(path).map_err(FleetError::io("read", path))?;
    let (path, folder) = (path.to_owned(), path.parent().map(Path::to_owned).unwrap_or_default());
    Ok(BufReader::new(file).lines().skip(1).filter_map(move |row| {
        let row = match row {
            Ok(row) => row,
            Err(error) => return Some(Err(FleetError::io("read", &path)(error))),
        };
        let find = |kind: Kind| paths_of(&row).find(|path| path.ends_with(kind.suffix())).map(|path| folder.join(path));
        let private_key = find(Kind::PrivateKey)?;
        let device = DeviceId::new(id_of(&row)).ok().zip(find(Kind::Fullchain));
        let unfit = || FleetError::Earlier { path: path.clone(), reason: format!("{row} is no row of a fleet") };
        Some(device.map(|(id, fullchain)| ManifestDevice { id, fullchain, private_key }).ok_or_else(unfit))
    }))
}

/// The id that a row begins with. Ids need no quotes.
pub(super) fn id_of(row: &str) -> &str {
    row.split_once(',').map_or(row, |(id, _)| id)
}

/// The SHA-256 thumbprint in a row, counted from its end: a name before it may have commas.
pub(super) fn sha256_of(row: &str) -> &str {
    row.rsplit(',').nth(7).unwrap_or_default()
}

/// The paths that a row ends with, the last first. They need no quotes either.
pub(super) fn paths_of(row: &str) -> impl Iterator<Item = &str> {
    row.trim_end().rsplitn(Kind::ALL.len() + 1, ',').take(Kind::ALL.len()).filter(|path| !path.is_empty())
}
