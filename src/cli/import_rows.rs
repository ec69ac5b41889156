//! The CSV file of `device import`: what its rows say.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, bail};

use super::{args::read_up_to, device::comma_separated, device_import, output::Output};
use crate::central::{Change, DeviceId, DeviceUpdate};

/// The most bytes of the file, in MiB. An application has at most a million devices, and a row about a hundred bytes.
const MAX_MEBIBYTES: u64 = 256;

/// A row of the file: its line, its id as written, and the device or what is wrong with it. Of the device it says what the
/// row names.
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) id: String,
    pub(super) device: Result<(DeviceId, DeviceUpdate), String>,
}

/// Reads all rows. Fails where the file as a whole is no such file; what is wrong with a row is in the row.
pub(super) fn read_rows(file: &Path, output: &Output) -> anyhow::Result<Vec<Row>> {
    let unreadable = || format!("no devices could be read from {}", file.display());
    let bytes = read_up_to(file, MAX_MEBIBYTES, "no list of devices has").with_context(unreadable)?;
    // Spreadsheets begin their files with a byte-order mark.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    check_encoding(bytes).with_context(unreadable)?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let header = reader.headers().with_context(unreadable)?.clone();
    let columns = Columns::read(&header, output).with_context(unreadable)?;
    let mut lines = Lines { bytes, at: 0, line: 1 };
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut rows = Vec::new();
    for record in reader.records() {
        let line = lines.of(record.as_ref().map_or_else(csv::Error::position, csv::StringRecord::position));
        let row = match record {
            Ok(record) => {
                let id = record.get(columns.id).unwrap_or_default().trim().to_owned();
                let device = check_fields(&record, &header, line).and_then(|()| {
                    // The service compares ids without regard to case.
                    match *seen.entry(id.to_ascii_lowercase()).or_insert(line) {
                        first if first < line && !id.is_empty() => Err(format!("line {first} has the same id")),
                        _ => columns.device(&record),
                    }
                });
                // What swallowed other rows is no id.
                let id = id.lines().next().unwrap_or_default().to_owned();
                Row { line, id, device }
            }
            // What is not UTF-8 is one row's fault, the rest can be read.
            Err(error) if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) => {
                Row { line, id: String::new(), device: Err("the row is not UTF-8".to_owned()) }
            }
            Err(error) => return Err(error).with_context(unreadable),
        };
        rows.push(row);
    }
    if rows.is_empty() {
        bail!("{} has no rows after its first line", file.display());
    }
    Ok(rows)
}

/// Every second byte of a name in UTF-16 is zero.
fn check_encoding(bytes: &[u8]) -> anyhow::Result<()> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.iter().take(64).any(|byte| *byte == 0)
    {
        bail!("it is in UTF-16, or no text at all: save it as CSV in UTF-8");
    }
    Ok(())
}

/// A row with more fields than there are columns has a comma too many, and what follows it stands in the wrong column. A
/// quote that is not closed takes the lines after it for a part of its field.
fn check_fields(record: &csv::StringRecord, header: &csv::StringRecord, line: u64) -> Result<(), String> {
    for (field, column) in record.iter().zip(header.iter().map(str::trim).chain(std::iter::repeat("of no column"))) {
        if line_breaks(field.as_bytes()) > 0 {
            return Err(format!(
                "the field {column}, whose quote begins on line {line}, goes on to line {}: close the quote, or take the \
                 line breaks out; nothing of these lines was read",
                line + line_breaks(field.trim_end().as_bytes())
            ));
        }
        if let Some(character) = field.trim().chars().find(|c| c.is_control()) {
            return Err(format!("the field {column} has the control character {character:?}: take it out"));
        }
    }
    if record.len() > header.len() {
        return Err(format!(
            "it has {} fields, and the first line names {} columns: put a field with a comma in it into quotes",
            record.len(),
            header.len()
        ));
    }
    Ok(())
}

/// How many lines end in this text, by LF, CR or both.
fn line_breaks(text: &[u8]) -> u64 {
    let ends = |at: &usize| text[*at] == b'\n' || (text[*at] == b'\r' && text.get(at + 1) != Some(&b'\n'));
    (0..text.len()).filter(ends).count() as u64
}

/// The columns that are used, by their names in lower case.
struct Columns {
    id: usize,
    name: Option<usize>,
    template: Option<usize>,
    simulated: Option<usize>,
    enabled: Option<usize>,
    organizations: Option<usize>,
}

impl Columns {
    fn read(header: &csv::StringRecord, output: &Output) -> anyhow::Result<Self> {
        if header.iter().any(|name| line_breaks(name.as_bytes()) > 0) {
            bail!("its first line has a quote that is not closed there");
        }
        if header.iter().eq(device_import::RESULTS) {
            bail!("it holds the results of an import: name the file that was imported");
        }
        let names: Vec<_> = header.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        let find = |wanted: &str| names.iter().position(|name| name == wanted);
        let Some(id) = find("iotc_deviceid") else {
            let found = header.iter().collect::<Vec<_>>().join(", ");
            for (separator, name) in [(';', "semicolons"), ('\t', "tabs")] {
                if found.contains(separator) {
                    bail!("its columns are parted by {name}: save it with commas");
                }
            }
            bail!("its first line names no column IOTC_DEVICEID; found {found}");
        };
        let known = ["iotc_deviceid", "iotc_devicename", "template", "simulated", "enabled", "organizations"];
        if let Some(twice) =
            names.iter().enumerate().find(|(at, name)| known.contains(&name.as_str()) && names[..*at].contains(name))
        {
            bail!("its column {} occurs twice", twice.1);
        }
        let unused: Vec<_> = header
            .iter()
            .zip(&names)
            .filter(|(_, name)| !known.contains(&name.as_str()))
            .map(|(name, _)| name)
            .collect();
        if !unused.is_empty() {
            output.note(format_args!("these columns are not used: {}", unused.join(", ")));
        }
        Ok(Self {
            id,
            name: find("iotc_devicename"),
            template: find("template"),
            simulated: find("simulated"),
            enabled: find("enabled"),
            organizations: find("organizations"),
        })
    }

    fn device(&self, record: &csv::StringRecord) -> Result<(DeviceId, DeviceUpdate), String> {
        let text = |column: Option<usize>| {
            column.and_then(|column| record.get(column)).map(str::trim).filter(|text| !text.is_empty())
        };
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

/// Counts lines. The reader's own count is one behind where lines end with CRLF, and where lines are empty.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of what is at or after this position, which is not before the last one.
    fn of(&mut self, position: Option<&csv::Position>) -> u64 {
        let start = position.and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(self.at);
        let from = self.at;
        self.at = start.clamp(from, self.bytes.len());
        while self.bytes.get(self.at).is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
            self.at += 1;
        }
        self.line += line_breaks(&self.bytes[from..self.at]);
        self.line
    }
}
