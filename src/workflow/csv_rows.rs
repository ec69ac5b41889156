//! CSV files as people and spreadsheets write them: rows with their line numbers and what is wrong with them.

use std::io::{self, BufRead};

use csv::StringRecord;

/// Why a CSV file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CsvError {
    /// The system could not read it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not the CSV that is expected.
    #[error("{0}")]
    Content(String),
}

impl From<csv::Error> for CsvError {
    /// Rows of any length are read, so what is left are errors of the file.
    fn from(error: csv::Error) -> Self {
        Self::Io(error.into())
    }
}

impl CsvError {
    pub(crate) fn content(text: impl Into<String>) -> Self {
        Self::Content(text.into())
    }
}

/// The byte-order mark that spreadsheets write.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The rows of a CSV file.
pub(crate) struct CsvRows<R> {
    reader: csv::Reader<R>,
    header: StringRecord,
    lines: LineCounter<R>,
}

/// A row.
pub(crate) struct CsvRow {
    /// The line that it starts on, counted from 1.
    pub(crate) line: u64,
    pub(crate) fields: StringRecord,
    /// Why the row cannot be used, if its fields may be in the wrong columns.
    pub(crate) problem: Option<String>,
}

/// The names of the columns in lower case.
pub(crate) struct ColumnNames(Vec<String>);

impl<R: BufRead> CsvRows<R> {
    /// Reads the first line. `again` is the same text, read a second time to count lines.
    pub(crate) fn new(mut text: R, mut again: R) -> Result<Self, CsvError> {
        for text in [&mut text, &mut again] {
            if text.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
                text.consume(BYTE_ORDER_MARK.len());
            }
        }
        check_encoding(text.fill_buf()?)?;
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text);
        let header = reader.headers()?.clone();
        if header.iter().any(|name| line_breaks(name.as_bytes()) > 0) {
            return Err(CsvError::content("its first line has a quote that is not closed on that line"));
        }
        Ok(Self { reader, header, lines: LineCounter { text: again, at: 0, line: 1, after_cr: false } })
    }

    /// Returns the first line as written.
    pub(crate) fn header(&self) -> &StringRecord {
        &self.header
    }

    /// Returns the names of the columns. Fails if there is no column of device IDs, or if a column of `known` occurs twice.
    pub(crate) fn names(&self, known: &[&str]) -> Result<ColumnNames, CsvError> {
        let names: Vec<_> = self.header.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        if !names.iter().any(|name| name == "iotc_deviceid") {
            let found = self.header.iter().collect::<Vec<_>>().join(", ");
            for (separator, name) in [(';', "semicolons"), ('\t', "tabs")] {
                if found.contains(separator) {
                    return Err(CsvError::content(format!("its columns are separated by {name}: save it with commas")));
                }
            }
            // The line is not repeated: a file named by mistake may hold a token or a key.
            return Err(CsvError::content("its first line names no column IOTC_DEVICEID"));
        }
        let occurs_before = |at: usize, name: &String| known.contains(&name.as_str()) && names[..at].contains(name);
        if let Some((_, repeated)) = names.iter().enumerate().find(|(at, name)| occurs_before(*at, name)) {
            return Err(CsvError::content(format!("its column {repeated} occurs twice")));
        }
        Ok(ColumnNames(names))
    }
}

impl ColumnNames {
    /// Returns the position of a column.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|found| found == name)
    }
}

impl<R: BufRead> Iterator for CsvRows<R> {
    type Item = Result<CsvRow, CsvError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut fields = StringRecord::new();
        let read = self.reader.read_record(&mut fields);
        let position = match &read {
            Ok(true) => fields.position(),
            Ok(false) => return None,
            Err(error) => error.position(),
        };
        let line = match self.lines.line_at(position) {
            Ok(line) => line,
            Err(error) => return Some(Err(error.into())),
        };
        let problem = match read {
            Ok(_) => problem(&fields, &self.header, line),
            // Only this row is not UTF-8; the rest can be read.
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
    /// Returns the text of a field, if it is there and not empty.
    pub(crate) fn text(&self, column: Option<usize>) -> Option<&str> {
        self.fields.get(column?).map(str::trim).filter(|text| !text.is_empty())
    }

    /// Returns the device ID as written, up to the first line break: an unclosed quote makes following rows a part of it.
    pub(crate) fn id(&self, column: usize) -> &str {
        self.text(Some(column)).and_then(|id| id.lines().next()).unwrap_or_default()
    }
}

/// Fails on UTF-16, in which every second byte of a column's name is zero.
fn check_encoding(bytes: &[u8]) -> Result<(), CsvError> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.iter().take(64).any(|byte| *byte == 0)
    {
        return Err(CsvError::content("it is in UTF-16 or is not text: save it as CSV in UTF-8"));
    }
    Ok(())
}

/// Returns why a row cannot be used. A row with more fields than columns has an unquoted comma, so that fields after it are
/// in the wrong column. A quote that is not closed makes the lines after it a part of its field.
fn problem(record: &StringRecord, header: &StringRecord, line: u64) -> Option<String> {
    for (field, column) in record.iter().zip(header.iter().map(str::trim).chain(std::iter::repeat("without a column")))
    {
        if line_breaks(field.as_bytes()) > 0 {
            return Some(format!(
                "the field {column}, whose quote begins on line {line}, goes on to line {}: close the quote, or remove \
                 the line breaks; these lines were skipped",
                line + line_breaks(field.trim_end().as_bytes())
            ));
        }
        if let Some(character) = field.trim().chars().find(|c| c.is_control()) {
            return Some(format!("the field {column} has the control character {character:?}: remove it"));
        }
    }
    (record.len() > header.len()).then(|| {
        format!(
            "it has {} fields, and the first line names {} columns: quote a field that has a comma in it",
            record.len(),
            header.len()
        )
    })
}

/// Counts the line breaks of a text: LF, CR or CRLF.
fn line_breaks(text: &[u8]) -> u64 {
    let ends = |at: &usize| text[*at] == b'\n' || (text[*at] == b'\r' && text.get(at + 1) != Some(&b'\n'));
    (0..text.len()).filter(ends).count() as u64
}

/// Counts lines. The CSV reader's own count is wrong after CRLF and after empty lines.
struct LineCounter<R> {
    text: R,
    at: u64,
    line: u64,
    after_cr: bool,
}

impl<R: BufRead> LineCounter<R> {
    /// Returns the line of the text at or after this position. Positions must not decrease.
    fn line_at(&mut self, position: Option<&csv::Position>) -> io::Result<u64> {
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
