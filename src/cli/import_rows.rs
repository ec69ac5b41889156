//! The CSV file of `device import`.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use tempfile::NamedTempFile;

use super::output::Output;
use crate::{
    central::{CentralDeviceId, Change, DeviceUpdate},
    certificate::{
        self,
        fleet::{MANIFEST_COLUMNS, SourceError},
    },
    workflow::{CsvError, CsvRow, CsvRows, IMPORT_RESULT_COLUMNS, IdCollector, ImportRow, RepeatedIds},
};

/// The size limit of the file. An application has at most a million devices, and a row has about a hundred bytes.
const MAX_SIZE: u64 = 256 << 20;

/// The columns that are used, in lower case.
const COLUMNS: [&str; 6] = ["iotc_deviceid", "iotc_devicename", "template", "simulated", "enabled", "organizations"];

/// A CSV file of devices, read row by row.
pub(super) struct ImportFile {
    path: PathBuf,
    /// The copy of standard input, or of what else can be read only once.
    copy: Option<NamedTempFile>,
    columns: Columns,
    pub(super) count: u64,
    repeated: RepeatedIds,
}

impl ImportFile {
    /// Reads the file once: counts the rows and finds repeated IDs. Fails if the file as a whole cannot be used.
    pub(super) fn open(path: &Path, output: &Output) -> anyhow::Result<Self> {
        let unreadable = || format!("no devices could be read from {}", path.display());
        let copy = copy(path).with_context(unreadable)?;
        let repeated = IdCollector::default().repeated();
        let mut file = Self { path: path.to_owned(), copy, columns: Columns::default(), count: 0, repeated };
        let rows = file.csv_rows().with_context(unreadable)?;
        file.columns = Columns::read(&rows, output).with_context(unreadable)?;
        let mut ids = IdCollector::default();
        for row in rows {
            let row = row.with_context(unreadable)?;
            file.count += 1;
            let id = row.id(file.columns.id);
            if row.problem.is_none() && !id.is_empty() {
                ids.add(id);
            }
        }
        if file.count == 0 {
            bail!("{} has no rows after its first line", path.display());
        }
        file.repeated = ids.repeated();
        Ok(file)
    }

    /// Reads the rows. What is wrong with a row is in the row.
    pub(super) fn rows(
        &self,
    ) -> Result<impl Iterator<Item = Result<ImportRow, SourceError>> + Send + use<>, SourceError> {
        let (columns, mut repeated) = (self.columns, self.repeated.clone());
        Ok(self.csv_rows()?.map(move |row| {
            let mut row = row?;
            let (line, id) = (row.line, row.id(columns.id).to_owned());
            let problem = row.problem.take().or_else(|| repeated.problem(&id, line));
            let device = problem.map_or_else(|| columns.device(&row), Err);
            Ok(ImportRow { line, id, device })
        }))
    }

    /// Opens the file twice: the second time to count lines.
    fn csv_rows(&self) -> Result<CsvRows<BufReader<File>>, CsvError> {
        let open = || match &self.copy {
            Some(copy) => copy.reopen().map(BufReader::new),
            None => File::open(&self.path).map(BufReader::new),
        };
        CsvRows::new(open()?, open()?)
    }
}

/// Copies standard input, or what else can be read only once, to a temporary file. Returns none for a regular file.
fn copy(path: &Path) -> anyhow::Result<Option<NamedTempFile>> {
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let file = File::open(path)?;
        let found = file.metadata()?;
        if found.is_file() {
            check_size(found.len())?;
            return Ok(None);
        }
        Box::new(file)
    };
    let mut copy = NamedTempFile::new()?;
    check_size(io::copy(&mut source.take(MAX_SIZE + 1), &mut copy)?)?;
    Ok(Some(copy))
}

fn check_size(size: u64) -> anyhow::Result<()> {
    if size > MAX_SIZE {
        bail!("it has more than {} MiB, so this is no list of devices", MAX_SIZE >> 20);
    }
    Ok(())
}

/// The positions of the columns.
#[derive(Clone, Copy, Default)]
struct Columns {
    id: usize,
    name: Option<usize>,
    template: Option<usize>,
    simulated: Option<usize>,
    enabled: Option<usize>,
    organizations: Option<usize>,
}

impl Columns {
    fn read(rows: &CsvRows<BufReader<File>>, output: &Output) -> Result<Self, CsvError> {
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

    fn device(&self, row: &CsvRow) -> Result<(CentralDeviceId, DeviceUpdate), String> {
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
