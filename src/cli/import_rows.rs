//! The CSV file of `device import`.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, bail};

use super::{args::read_up_to, output::Output};
use crate::{
    central::{Change, DeviceId, DeviceUpdate},
    certificate::{self, fleet::MANIFEST_COLUMNS},
    workflow::{CsvError, CsvRow, CsvRows, IMPORT_RESULT_COLUMNS, ImportRow},
};

/// The size limit of the file in MiB. An application has at most a million devices, and a row has about a hundred bytes.
const MAX_MEBIBYTES: u64 = 256;

/// The columns that are used, in lower case.
const COLUMNS: [&str; 6] = ["iotc_deviceid", "iotc_devicename", "template", "simulated", "enabled", "organizations"];

/// Reads all rows. Fails if the file as a whole cannot be used; what is wrong with a row is in the row.
pub(super) fn read_rows(file: &Path, output: &Output) -> anyhow::Result<Vec<ImportRow>> {
    let unreadable = || format!("no devices could be read from {}", file.display());
    let bytes = read_up_to(file, MAX_MEBIBYTES, "no list of devices has").with_context(unreadable)?;
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
        rows.push(ImportRow { line, id, device });
    }
    if rows.is_empty() {
        bail!("{} has no rows after its first line", file.display());
    }
    Ok(rows)
}

/// The positions of the columns.
struct Columns {
    id: usize,
    name: Option<usize>,
    template: Option<usize>,
    simulated: Option<usize>,
    enabled: Option<usize>,
    organizations: Option<usize>,
}

impl Columns {
    fn read(rows: &CsvRows<&[u8]>, output: &Output) -> Result<Self, CsvError> {
        if rows.header().iter().eq(IMPORT_RESULT_COLUMNS) {
            return Err(CsvError::content("it holds the results of an import: name the file that was imported"));
        }
        let names = rows.names(&COLUMNS)?;
        // The other columns of a fleet's manifest are for other commands.
        let is_expected = |name: &str| {
            let mut known = COLUMNS.iter().chain(&MANIFEST_COLUMNS);
            known.any(|column| column.eq_ignore_ascii_case(name.trim()))
        };
        let unused: Vec<_> = rows.header().iter().filter(|name| !is_expected(name)).collect();
        if !unused.is_empty() {
            output.note(format_args!("these columns are not used: {}", unused.join(", ")));
        }
        let [id, name, template, simulated, enabled, organizations] = COLUMNS.map(|name| names.find(name));
        Ok(Self { id: id.unwrap_or_default(), name, template, simulated, enabled, organizations })
    }

    fn device(&self, row: &CsvRow) -> Result<(DeviceId, DeviceUpdate), String> {
        let text = |column| row.text(column);
        let change = |column| text(column).map_or(Change::Keep, |text| Change::Set(text.to_owned()));
        let flag = |column, name| match text(column).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true" | "yes" | "1") => Ok(Some(true)),
            Some("false" | "no" | "0") => Ok(Some(false)),
            Some(other) => Err(format!("{name} is true or false, found {other:?}")),
        };
        // The devices register later, so their IDs have to be registration IDs.
        let id =
            certificate::DeviceId::new(text(Some(self.id)).unwrap_or_default()).map_err(|error| error.to_string())?;
        let device = DeviceUpdate {
            display_name: change(self.name),
            template: change(self.template),
            simulated: flag(self.simulated, "simulated")?,
            enabled: flag(self.enabled, "enabled")?,
            organizations: text(self.organizations).map(organizations).filter(|ids| !ids.is_empty()),
            ..DeviceUpdate::default()
        };
        Ok((id.into(), device))
    }
}

/// Returns the organizations of a field: IDs separated by semicolons or commas.
fn organizations(text: &str) -> Vec<String> {
    text.split([';', ',']).map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect()
}
