//! Results files: a CSV row for each thing that was done, on the disk as soon as it is known.

use std::{
    ffi::OsString,
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// Where the results go by themselves: beside the file, with this ending.
pub(super) fn path(file: &Path, ending: &str) -> PathBuf {
    let stem = if file == Path::new("-") { PathBuf::from("devices") } else { file.with_extension("") };
    let mut name = OsString::from(stem);
    name.push(format!(".{ending}.csv"));
    PathBuf::from(name)
}

/// A results file of an earlier run, which is known by its header, is replaced once there are new results; any other
/// file is not. `what` says whose results they are.
pub(super) fn check(path: &Path, header: &[&str], what: &str) -> anyhow::Result<()> {
    if path.exists() {
        let mut reader = csv::Reader::from_path(path).with_context(|| format!("could not read {}", path.display()))?;
        if !reader.headers().is_ok_and(|found| found.is_empty() || found.iter().eq(header.iter().copied())) {
            bail!("{} exists and holds no results of {what}: name another file with --results", path.display());
        }
    }
    let opened = File::options().append(true).create(true).open(path);
    opened.map(drop).with_context(|| format!("could not write {}", path.display()))
}

/// A results file that is being written.
pub(super) struct Results {
    path: PathBuf,
    writer: csv::Writer<BufWriter<File>>,
}

impl Results {
    /// Begins it anew.
    pub(super) fn create(path: &Path, header: &[&str]) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("could not write {}", path.display()))?;
        let mut results = Self::new(path, file);
        results.write(header)?;
        Ok(results)
    }

    /// Begins it anew with those rows of an earlier run that are to be kept. Whatever happens, either the old file is
    /// there or the new one with all of them.
    pub(super) fn resume(
        path: &Path,
        header: &[&str],
        mut keep: impl FnMut(&csv::StringRecord) -> bool,
    ) -> anyhow::Result<Self> {
        let unwritable = || format!("could not write {}", path.display());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(folder).with_context(unwritable)?;
        let mut results = Self::new(path, temporary.reopen().with_context(unwritable)?);
        results.write(header)?;
        let unreadable = || format!("could not read {}", path.display());
        let reader = csv::ReaderBuilder::new().flexible(true).from_path(path).with_context(unreadable)?;
        for record in reader.into_records() {
            // What is cut short or not UTF-8 is no whole row.
            let Ok(record) = record else { continue };
            if record.len() == header.len() && keep(&record) {
                results.writer.write_record(&record).with_context(unwritable)?;
            }
        }
        results.writer.flush().with_context(unwritable)?;
        temporary.persist(path).with_context(unwritable)?;
        Ok(results)
    }

    fn new(path: &Path, file: File) -> Self {
        Self { path: path.to_owned(), writer: csv::Writer::from_writer(BufWriter::new(file)) }
    }

    /// Adds a row. It is on the disk when this returns: a run may be killed.
    pub(super) fn write(&mut self, row: &[&str]) -> anyhow::Result<()> {
        let written = self.writer.write_record(row).and_then(|()| Ok(self.writer.flush()?));
        written.with_context(|| format!("could not write {}", self.path.display()))
    }
}
