//! Results files: CSV with a row for each device, written as soon as its outcome is known.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Read, Seek},
    path::{Path, PathBuf},
};

use csv::StringRecord;

use crate::certificate::{locked_file::LockedFile, secure_file::check_in_place};

/// The suffix of a results file while it is being rewritten.
const REWRITE_SUFFIX: &str = ".tmp";

/// Why results cannot be kept in a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// The file could not be read.
    #[error("could not read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file could not be written.
    #[error("could not write {}: {error}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is a symbolic link.
    #[error("{} is a symbolic link, which is not followed", .0.display())]
    SymbolicLink(PathBuf),
    /// Another run writes the file.
    #[error("another {run} is under way that writes {}: wait until it has ended", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// The kind of run, such as "import".
        run: &'static str,
    },
    /// The file exists and holds something else.
    #[error("{} exists and holds no results of {run}s", .path.display())]
    NotResults {
        /// The file.
        path: PathBuf,
        /// The kind of run, such as "import".
        run: &'static str,
    },
}

/// The form of the results of one kind of run.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResultsFormat {
    /// The columns. A file is known by its first line.
    pub(super) columns: &'static [&'static str],
    /// The columns of an earlier version, whose files are taken over without their rows.
    pub(super) earlier: Option<&'static [&'static str]>,
    /// The kind of run, such as "import".
    pub(super) run: &'static str,
}

/// Returns the default path of the results: beside the file, with this ending.
pub(super) fn results_path(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file.with_extension(""));
    name.push(format!(".{ending}.csv"));
    PathBuf::from(name)
}

/// Returns a text with control characters replaced, and those that turn the direction of writing (Unicode Standard Annex 9,
/// "Directional Formatting Characters"). Services and files may send anything, and results are read on terminals.
pub(crate) fn plain_text(text: &str) -> String {
    let turns_direction =
        |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let plain = |c: char| if c.is_control() || turns_direction(c) { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(plain).collect()
}

/// A results file, locked for this run.
pub(super) struct ResultsFile {
    path: PathBuf,
    format: ResultsFormat,
    file: LockedFile,
    /// Whether it is a regular file. A terminal or a pipe is only written to, and not locked.
    is_regular: bool,
}

impl ResultsFile {
    /// Opens and locks the file, and creates it if missing, readable by its owner only. Results of an earlier run are kept
    /// until there are new ones; any other file is refused.
    pub(super) fn open(path: &Path, format: ResultsFormat) -> Result<Self, ResultsError> {
        let is_regular = path.metadata().map_or(true, |found| found.is_file());
        if is_regular && path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
            return Err(ResultsError::SymbolicLink(path.to_owned()));
        }
        let mut options = File::options();
        options.write(true);
        if is_regular {
            options.read(true).create(true).truncate(false);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        let file = options.open(path).map_err(unwritable(path))?;
        let run = format.run;
        let busy = || ResultsError::Locked { path: path.to_owned(), run };
        let file = if is_regular { LockedFile::try_lock(file).ok_or_else(busy)? } else { LockedFile::new(file) };
        if is_regular {
            let is_results =
                is_results(&file, format).map_err(|error| ResultsError::Read { path: path.to_owned(), error })?;
            if !is_results {
                return Err(ResultsError::NotResults { path: path.to_owned(), run });
            }
            remove_rewrites(path, format);
        }
        Ok(Self { path: path.to_owned(), format, file, is_regular })
    }

    /// Returns whether there may be results of an earlier run.
    pub(super) fn has_results(&self) -> bool {
        self.is_regular && self.file.metadata().is_ok_and(|found| found.len() > 0)
    }

    /// Starts with no results.
    pub(super) fn start(self) -> Result<ResultsWriter, ResultsError> {
        let Self { path, format, mut file, is_regular } = self;
        if is_regular {
            file.set_len(0).and_then(|()| file.rewind()).map_err(unwritable(&path))?;
        }
        let mut writer = ResultsWriter::new(path, file, is_regular);
        writer.write(format.columns)?;
        Ok(writer)
    }

    /// Starts with the rows of an earlier run that `keep` accepts. A run that is killed leaves the old file or the new one.
    pub(super) fn resume(self, mut keep: impl FnMut(&ResultsRow<'_>) -> bool) -> Result<ResultsWriter, ResultsError> {
        if !self.is_regular {
            return self.start();
        }
        let Self { path, format, file: earlier, .. } = self;
        let prefix = rewrite_prefix(&path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(REWRITE_SUFFIX);
        builder.permissions(earlier.metadata().map_err(unwritable(&path))?.permissions());
        let temporary = builder.tempfile_in(directory(&path)).map_err(unwritable(&path))?;
        let file = temporary.reopen().map_err(unwritable(&path))?;
        // Locked before it has the name. The old file stays locked for runs that have opened it already.
        let _ = file.try_lock();
        let mut writer = ResultsWriter::new(path.clone(), LockedFile::new(file), true);
        let mut write = |record: &StringRecord| writer.csv.write_record(record).map_err(csv_unwritable(&path));
        write(&format.columns.iter().collect())?;
        for record in whole_records(&earlier, format) {
            if keep(&ResultsRow { columns: format.columns, record: &record }) {
                write(&record)?;
            }
        }
        writer.csv.flush().map_err(unwritable(&path))?;
        temporary.persist(&path).map_err(|failed| unwritable(&path)(failed.error))?;
        Ok(ResultsWriter { _earlier: Some(earlier), ..writer })
    }
}

/// Reads the rows of a results file without locking it. A missing file has none.
pub(super) fn read_results(
    path: &Path,
    format: ResultsFormat,
    mut read: impl FnMut(&ResultsRow<'_>),
) -> Result<(), ResultsError> {
    let unreadable = |error| ResultsError::Read { path: path.to_owned(), error };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(unreadable)?,
    };
    if !is_results(&file, format).map_err(unreadable)? {
        return Err(ResultsError::NotResults { path: path.to_owned(), run: format.run });
    }
    for record in whole_records(&file, format) {
        read(&ResultsRow { columns: format.columns, record: &record });
    }
    Ok(())
}

/// Returns the rows of a results file. A killed run may have left a part of a row, which may not be UTF-8.
fn whole_records(file: &File, format: ResultsFormat) -> impl Iterator<Item = StringRecord> {
    let rows = csv::ReaderBuilder::new().flexible(true).from_reader(BufReader::new(file));
    rows.into_records().filter_map(Result::ok).filter(move |record| record.len() == format.columns.len())
}

/// A row of an earlier run.
pub(super) struct ResultsRow<'a> {
    columns: &'static [&'static str],
    record: &'a StringRecord,
}

impl ResultsRow<'_> {
    /// Returns the field of a column; empty if there is no such column.
    pub(super) fn get(&self, column: &str) -> &str {
        let position = self.columns.iter().position(|name| *name == column);
        position.and_then(|position| self.record.get(position)).unwrap_or_default()
    }
}

/// Writes results. The file stays locked until this is dropped.
pub(super) struct ResultsWriter {
    path: PathBuf,
    csv: csv::Writer<BufWriter<LockedFile>>,
    is_regular: bool,
    has_failed: bool,
    _earlier: Option<LockedFile>,
}

impl ResultsWriter {
    fn new(path: PathBuf, file: LockedFile, is_regular: bool) -> Self {
        let csv = csv::Writer::from_writer(BufWriter::new(file));
        Self { path, csv, is_regular, has_failed: false, _earlier: None }
    }

    /// Appends a row on one line, as [`plain_text`]. It is in the file when this returns, because a run may be killed.
    /// Does nothing after the first failure.
    pub(super) fn write(&mut self, row: &[&str]) -> Result<(), ResultsError> {
        if self.has_failed {
            return Ok(());
        }
        let row = row.iter().map(|field| plain_text(field));
        let written = self.csv.write_record(row.map(String::into_bytes)).map_err(csv_unwritable(&self.path));
        let written = written.and_then(|()| {
            let flushed = self.csv.flush();
            // A row in a file that was removed or replaced is lost.
            let in_place =
                || if self.is_regular { check_in_place(self.csv.get_ref().get_ref(), &self.path) } else { Ok(()) };
            flushed.and_then(|()| in_place()).map_err(unwritable(&self.path))
        });
        self.has_failed = written.is_err();
        written
    }

    /// Waits until the rows are on the disk, where they outlive a power failure.
    pub(super) fn sync(&mut self) -> Result<(), ResultsError> {
        if !self.is_regular || self.has_failed {
            return Ok(());
        }
        let synced = self.csv.get_ref().get_ref().sync_data().map_err(unwritable(&self.path));
        self.has_failed = synced.is_err();
        synced
    }
}

fn unwritable(path: &Path) -> impl Fn(io::Error) -> ResultsError {
    move |error| ResultsError::Write { path: path.to_owned(), error }
}

/// The only errors of writing CSV are those of the file.
fn csv_unwritable(path: &Path) -> impl Fn(csv::Error) -> ResultsError {
    move |error| unwritable(path)(error.into())
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the prefix of a results file while it is being rewritten, such as `.devices.results.csv.`.
fn rewrite_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

/// Removes the files that killed runs left while rewriting. The results file is locked, so no other run is rewriting it.
fn remove_rewrites(path: &Path, format: ResultsFormat) {
    let prefix = rewrite_prefix(path);
    for entry in fs::read_dir(directory(path)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let is_rewrite = name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(REWRITE_SUFFIX.as_bytes());
        let is_regular = entry.file_type().is_ok_and(|kind| kind.is_file());
        let is_ours = || File::open(entry.path()).is_ok_and(|file| is_results(&file, format).unwrap_or(false));
        if is_rewrite && is_regular && is_ours() {
            // A file that cannot be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Returns whether a file is empty or begins with the columns.
fn is_results(mut file: &File, format: ResultsFormat) -> io::Result<bool> {
    let mut line = Vec::new();
    let headers = [Some(format.columns), format.earlier].map(|columns| columns.map(|columns| columns.join(",")));
    let longest = headers.iter().flatten().map(String::len).max().unwrap_or_default();
    BufReader::new(file.take(longest as u64 + 2)).read_until(b'\n', &mut line)?;
    file.rewind()?;
    Ok(line.is_empty() || headers.iter().flatten().any(|header| line.trim_ascii_end() == header.as_bytes()))
}
