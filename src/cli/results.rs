//! Results files: a CSV row for each thing that was done, in the file as soon as it is known.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{self, BufRead, BufReader, BufWriter, Read, Seek},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::{error::UsageError, output::clean};
use crate::certificate::secure_file::check_in_place;

/// How the name of a results file ends while it is being rewritten.
const REWRITE: &str = ".tmp";

/// Where the results go by themselves: beside the file, with this ending.
pub(super) fn path(file: &Path, ending: &str) -> PathBuf {
    let stem = if file == Path::new("-") { PathBuf::from("devices") } else { file.with_extension("") };
    let mut name = OsString::from(stem);
    name.push(format!(".{ending}.csv"));
    PathBuf::from(name)
}

/// A results file that belongs to this run alone until the run has ended.
pub(super) struct Results {
    path: PathBuf,
    header: &'static [&'static str],
    file: File,
    is_file: bool,
}

impl Results {
    /// Takes the file. One of an earlier run, which is known by its header, is replaced once there are new results; any
    /// other file is not. `what` says what the runs are.
    pub(super) fn open(path: &Path, header: &'static [&'static str], what: &str) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            let what = "results go to a file, not to standard output: name one with --results instead of -";
            return Err(UsageError::new(what).into());
        }
        let unwritable = || format!("could not write {}", path.display());
        // What is no file, such as a terminal, is only written.
        let is_file = path.metadata().map_or(true, |found| found.is_file());
        if is_file && path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
            bail!("{} is a symbolic link, which is not followed: name the file itself with --results", path.display());
        }
        let file = if is_file {
            File::options().read(true).write(true).create(true).truncate(false).open(path)
        } else {
            File::options().write(true).open(path)
        };
        let file = file.with_context(unwritable)?;
        if is_file {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => bail!(
                    "another {what} is under way that writes {}: wait until it has ended, or name another file with \
                     --results",
                    path.display()
                ),
                // Some file systems have no locks, and it should not be impossible there.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            if !is_results(&file, header).with_context(|| format!("could not read {}", path.display()))? {
                bail!("{} exists and holds no results of {what}s: name another file with --results", path.display());
            }
            remove_rewrites(path, header);
        }
        Ok(Self { path: path.to_owned(), header, file, is_file })
    }

    /// Begins the results anew.
    pub(super) fn begin(self) -> anyhow::Result<Writer> {
        let Self { path, header, mut file, is_file } = self;
        if is_file {
            let emptied = file.set_len(0).and_then(|()| file.rewind());
            emptied.with_context(|| format!("could not write {}", path.display()))?;
        }
        let mut writer = Writer::new(path, file, is_file);
        writer.write(header)?;
        Ok(writer)
    }

    /// Begins the results anew with those rows of an earlier run that are to be kept. Whatever happens, either the old
    /// file is there or the new one with all of them.
    pub(super) fn resume(self, mut keep: impl FnMut(&csv::StringRecord) -> bool) -> anyhow::Result<Writer> {
        if !self.is_file {
            return self.begin();
        }
        let Self { path, header, file: earlier, .. } = self;
        let unwritable = || format!("could not write {}", path.display());
        let prefix = rewrite_prefix(&path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(REWRITE);
        // The access rules of the file that it replaces.
        builder.permissions(earlier.metadata().with_context(unwritable)?.permissions());
        let temporary = builder.tempfile_in(directory(&path)).with_context(unwritable)?;
        let file = temporary.reopen().with_context(unwritable)?;
        // Locked before it has the name. The old one stays locked for those who have opened it already.
        let _ = file.try_lock();
        let rows = csv::ReaderBuilder::new().flexible(true).from_reader(BufReader::new(&earlier));
        let mut writer = Writer::new(path.clone(), file, true);
        writer.csv.write_record(header).with_context(unwritable)?;
        for record in rows.into_records() {
            // What is cut short or not UTF-8 is no whole row.
            let Ok(record) = record else { continue };
            if record.len() == header.len() && keep(&record) {
                writer.csv.write_record(&record).with_context(unwritable)?;
            }
        }
        writer.csv.flush().with_context(unwritable)?;
        temporary.persist(&path).with_context(unwritable)?;
        Ok(Writer { _earlier: Some(earlier), ..writer })
    }
}

/// Writes results. The file stays locked until this is dropped.
pub(super) struct Writer {
    path: PathBuf,
    csv: csv::Writer<BufWriter<File>>,
    is_file: bool,
    _earlier: Option<File>,
}

impl Writer {
    fn new(path: PathBuf, file: File, is_file: bool) -> Self {
        Self { path, csv: csv::Writer::from_writer(BufWriter::new(file)), is_file, _earlier: None }
    }

    /// Adds a row, on one line and with what would do something to a terminal replaced, as services and files may send
    /// anything. It is in the file when this returns: a run may be killed.
    pub(super) fn write(&mut self, row: &[&str]) -> anyhow::Result<()> {
        let row = row.iter().map(|field| clean(field));
        let written = self.csv.write_record(row.map(String::into_bytes)).and_then(|()| {
            self.csv.flush()?;
            // A row in a file that nobody finds again is no result.
            if self.is_file {
                check_in_place(self.csv.get_ref().get_ref(), &self.path)?;
            }
            Ok(())
        });
        written.with_context(|| format!("could not write {}", self.path.display()))
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// How the name of a results file begins while it is being rewritten: `.devices.results.csv.`.
fn rewrite_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

/// Removes what killed runs left of a rewrite. The results file is locked, so no other run is rewriting it.
fn remove_rewrites(path: &Path, header: &[&str]) {
    let prefix = rewrite_prefix(path);
    for entry in fs::read_dir(directory(path)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let left = name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(REWRITE.as_bytes());
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if left && is_file && File::open(entry.path()).is_ok_and(|file| is_results(&file, header).unwrap_or(false)) {
            // What cannot be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether the file is empty or begins as results do.
fn is_results(mut file: &File, header: &[&str]) -> io::Result<bool> {
    let mut line = Vec::new();
    let header = header.join(",");
    BufReader::new(file.take(header.len() as u64 + 2)).read_until(b'\n', &mut line)?;
    file.rewind()?;
    Ok(line.is_empty() || line.trim_ascii_end() == header.as_bytes())
}
