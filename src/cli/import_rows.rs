//! The CSV file of `device import`: what its rows say.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, bail};

use super::{
    args::comma_separated,
    csv_rows::{CsvRow, CsvRows},
    device_import,
    input::read_up_to,
    output::Output,
};
use crate::{
    central::{CentralDeviceId, Change, DeviceUpdate},
    certificate::fleet::MANIFEST_COLUMNS,
};

/// The most bytes of the file, in MiB. An application has at most a million devices, and a row about a hundred bytes.
const MAX_MEBIBYTES: u64 = 256;

/// The columns that are used, by their names in lower case.
const COLUMNS: [&str; 6] = ["iotc_deviceid", "iotc_devicename", "template", "simulated", "enabled", "organizations"];

/// A row of the file: its line, its id as written, and the device or what is wrong with it. Of the device it says what the
/// row names.
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) id: String,
    pub(super) device: Result<(CentralDeviceId, DeviceUpdate), String>,
}

/// Reads all rows. Fails where the file as a whole is no such file; what is wrong with a row is in the row.
pub(super) fn read_rows(file: &Path, output: &Output) -> anyhow::Result<Vec<Row>> {
    let unreadable = || format!("no devices could be read from {}", file.display());
    let bytes = read_up_to(file, MAX_MEBIBYTES, "lists of devices are smaller").with_context(unreadable)?;
    let lines = CsvRows::new(bytes.as_slice(), bytes.as_slice()).with_context(unreadable)?;
    let columns = Columns::read(&lines, output).with_context(unreadable)?;
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut rows = Vec::new();
    for row in lines {
        let mut row = row.with_context(unreadable)?;
        let (line, id) = (row.line, row.id(columns.id).to_owned());
        let device = match row.problem.take() {
            Some(problem) => Err(problem),
            // The service compares ids without regard to case.
            None => match *seen.entry(id.to_ascii_lowercase()).or_insert(line) {
                first if first < line && !id.is_empty() => Err(format!("line {first} has the same id")),
                _ => columns.device(&row),
            },
        };
        rows.push(Row { line, id, device });
    }
    if rows.is_empty() {
        bail!("{} has no rows after its first line", file.display());
    }
    Ok(rows)
}

/// Where in a row things stand.
struct Columns {
    id: usize,
    name: Option<usize>,
    template: Option<usize>,
    simulated: Option<usize>,
    enabled: Option<usize>,
    organizations: Option<usize>,
}

impl Columns {
    fn read(rows: &CsvRows<&[u8]>, output: &Output) -> anyhow::Result<Self> {
        if rows.header().iter().eq(device_import::RESULTS) {
            bail!("it holds the results of an import: name the file that was imported");
        }
        let names = rows.names(&COLUMNS)?;
        // The columns of a fleet's manifest are meant for other commands.
        let is_expected = |name: &str| {
            COLUMNS.contains(&name) || MANIFEST_COLUMNS.iter().any(|column| column.eq_ignore_ascii_case(name))
        };
        let unused = rows.header().iter().zip(names.iter()).filter(|(_, name)| !is_expected(name));
        let unused: Vec<_> = unused.map(|(name, _)| name).collect();
        if !unused.is_empty() {
            output.note(format_args!("these columns are not used: {}", unused.join(", ")));
        }
        let [id, name, template, simulated, enabled, organizations] = COLUMNS.map(|name| names.find(name));
        Ok(Self { id: id.unwrap_or_default(), name, template, simulated, enabled, organizations })
    }

    fn device(&self, row: &CsvRow) -> Result<(CentralDeviceId, DeviceUpdate), String> {
        let text = |column| row.text(column);
        let change = |column| text(column).map_or(Change::Keep, |text| Change::Set(text.to_owned()));
        let flag = |column, name| match text(column).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true" | "yes" | "1") => Ok(Some(true)),
            Some("false" | "no" | "0") => Ok(Some(false)),
            Some(other) => Err(format!("{name} is true or false, found {other:?}")),
        };
        // Rows become devices that register: their ids have to be registration ids.
        let id = crate::certificate::DeviceId::new(text(Some(self.id)).unwrap_or_default())
            .map_err(|error| error.to_string())?;
        let device = DeviceUpdate {
            display_name: change(self.name),
            template: change(self.template),
            simulated: flag(self.simulated, "simulated")?,
            enabled: flag(self.enabled, "enabled")?,
            organizations: text(self.organizations)
                .map(|ids| comma_separated(&ids.replace(';', ",")))
                .filter(|ids| !ids.is_empty()),
            ..DeviceUpdate::default()
        };
        Ok((id.into(), device))
    }
}
