//! CSV files as people and spreadsheets write them: their rows, the lines these stand on, and what is wrong with them.

use std::io::{self, BufRead};

use anyhow::bail;
use csv::StringRecord;

/// What spreadsheets begin their files with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The rows of a file, one after the other.
pub(super) struct CsvRows<R> {
    reader: csv::Reader<R>,
    header: StringRecord,
    lines: Lines<R>,
}

/// A row: its line, its fields, and what is wrong with it as a row.
pub(super) struct CsvRow {
    pub(super) line: u64,
    pub(super) fields: StringRecord,
    pub(super) problem: Option<String>,
}

/// The names of the columns, in lower case.
pub(super) struct Names(Vec<String>);

impl<R: BufRead> CsvRows<R> {
    /// Reads the first line. `again` is the same text once more, in which lines are counted.
    pub(super) fn new(mut text: R, mut again: R) -> anyhow::Result<Self> {
        for text in [&mut text, &mut again] {
            if text.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
                text.consume(BYTE_ORDER_MARK.len());
            }
        }
        check_encoding(text.fill_buf()?)?;
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text);
        let header = reader.headers()?.clone();
        if header.iter().any(|name| line_breaks(name.as_bytes()) > 0) {
            bail!("its first line has a quote that is not closed there");
        }
        Ok(Self { reader, header, lines: Lines { text: again, at: 0, line: 1, after_cr: false } })
    }

    /// The first line, as written.
    pub(super) fn header(&self) -> &StringRecord {
        &self.header
    }

    /// The names in the first line. Fails where the devices' ids have no column, or one that is known occurs twice.
    pub(super) fn names(&self, known: &[&str]) -> anyhow::Result<Names> {
        let names: Vec<_> = self.header.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        if !names.iter().any(|name| name == "iotc_deviceid") {
            let found = self.header.iter().collect::<Vec<_>>().join(", ");
            for (separator, name) in [(';', "semicolons"), ('\t', "tabs")] {
                if found.contains(separator) {
                    bail!("its columns are parted by {name}: save it with commas");
                }
            }
            // The line is not repeated: a file named by mistake may hold a token or a key.
            bail!("its first line names no column IOTC_DEVICEID");
        }
        let occurs_before = |at: usize, name: &String| known.contains(&name.as_str()) && names[..at].contains(name);
        if let Some((_, twice)) = names.iter().enumerate().find(|(at, name)| occurs_before(*at, name)) {
            bail!("its column {twice} occurs twice");
        }
        Ok(Names(names))
    }
}

impl Names {
    /// Where the column stands.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|found| found == name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl<R: BufRead> Iterator for CsvRows<R> {
    type Item = anyhow::Result<CsvRow>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut fields = StringRecord::new();
        let read = self.reader.read_record(&mut fields);
        let position = match &read {
            Ok(true) => fields.position(),
            Ok(false) => return None,
            Err(error) => error.position(),
        };
        let line = match self.lines.of(position) {
            Ok(line) => line,
            Err(error) => return Some(Err(error.into())),
        };
        let problem = match read {
            Ok(_) => problem(&fields, &self.header, line),
            // What is not UTF-8 is one row's fault, the rest can be read.
            Err(error) if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) => {
                fields.clear();
                Some("the row is not UTF-8".to_owned())
            }
            Err(error) => return Some(Err(error.into())),
        };
        Some(Ok(CsvRow { line, fields, problem }))
    }
}

impl CsvRow {
    /// The text of a field that is there and not empty.
    pub(super) fn text(&self, column: Option<usize>) -> Option<&str> {
        self.fields.get(column?).map(str::trim).filter(|text| !text.is_empty())
    }

    /// The id as written. What swallowed other rows is no id.
    pub(super) fn id(&self, column: usize) -> &str {
        self.text(Some(column)).and_then(|id| id.lines().next()).unwrap_or_default()
    }
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
fn problem(record: &StringRecord, header: &StringRecord, line: u64) -> Option<String> {
    for (field, column) in record.iter().zip(header.iter().map(str::trim).chain(std::iter::repeat("of no column"))) {
        if line_breaks(field.as_bytes()) > 0 {
            return Some(format!(
                "the field {column}, whose quote begins on line {line}, goes on to line {}: close the quote, or take the \
                 line breaks out; nothing of these lines was read",
                line + line_breaks(field.trim_end().as_bytes())
            ));
        }
        if let Some(character) = field.trim().chars().find(|c| c.is_control()) {
            return Some(format!("the field {column} has the control character {character:?}: take it out"));
        }
    }
    (record.len() > header.len()).then(|| {
        format!(
            "it has {} fields, and the first line names {} columns: put a field with a comma in it into quotes",
            record.len(),
            header.len()
        )
    })
}

/// How many lines end in this text, by LF, CR or both.
fn line_breaks(text: &[u8]) -> u64 {
    let ends = |at: &usize| text[*at] == b'\n' || (text[*at] == b'\r' && text.get(at + 1) != Some(&b'\n'));
    (0..text.len()).filter(ends).count() as u64
}

/// Counts lines. The CSV reader's own count is one behind where lines end with CRLF, and where lines are empty.
struct Lines<R> {
    text: R,
    at: u64,
    line: u64,
    after_cr: bool,
}

impl<R: BufRead> Lines<R> {
    /// The line of what is at or after this position, which is not before the last one.
    fn of(&mut self, position: Option<&csv::Position>) -> io::Result<u64> {
        let Self { text, at, line, after_cr } = self;
        let start = position.map_or(*at, csv::Position::byte);
        loop {
            let bytes = text.fill_buf()?;
            let is_before = |(byte, at): &(&u8, u64)| *at < start || matches!(byte, b'\r' | b'\n');
            let passed = bytes.iter().zip(*at..).take_while(is_before).count();
            for byte in &bytes[..passed] {
                *line += u64::from(*byte == b'\r' || (*byte == b'\n' && !*after_cr));
                *after_cr = *byte == b'\r';
            }
            let goes_on = passed > 0 && passed == bytes.len();
            text.consume(passed);
            *at += passed as u64;
            if !goes_on {
                return Ok(*line);
            }
        }
    }
}
