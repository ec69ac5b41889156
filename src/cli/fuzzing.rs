//! The readers of CSV files, for fuzz targets.

use std::path::Path;

use super::{
    fleet_ids::IdFile,
    import_rows::ImportFile,
    output::{Format, Output},
};
use crate::central::Change;

/// Reads the rows of `device import`, and returns the ID and display name or the error of each.
///
/// # Errors
/// Fails if the file cannot be read.
#[allow(clippy::type_complexity, reason = "for fuzz targets only")]
pub fn import_rows(file: &Path) -> anyhow::Result<Vec<Result<(String, Option<String>), String>>> {
    let file = ImportFile::open(file, &Output::new(Format::Human, true))?;
    let rows: Result<Vec<_>, _> = file.rows().map_err(anyhow::Error::from_boxed)?.collect();
    let named = |name| match name {
        Change::Set(name) => Some(name),
        _ => None,
    };
    Ok(rows
        .map_err(anyhow::Error::from_boxed)?
        .into_iter()
        .map(|row| row.device.map(|(id, device)| (id.to_string(), named(device.display_name))))
        .collect())
}

/// Reads the device IDs of `cert fleet --devices`, and returns their number.
///
/// # Errors
/// Fails if the file cannot be read or an ID is invalid.
pub fn fleet_devices(file: &Path) -> anyhow::Result<u64> {
    let ids = IdFile::open(file, false)?;
    let count = ids.check()?;
    for device in ids.devices()? {
        let _ = device;
    }
    Ok(count)
}
