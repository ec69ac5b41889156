//! A results file: a CSV row for each thing that was done, on the disk as soon as it is known, and read again by the next
//! run.

use std::{
    fs::{File, TryLockError},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// A results file that belongs to this run alone until it is dropped.
pub(super) struct Results {
    path: PathBuf,
    csv: csv::Writer<BufWriter<File>>,
    /// The file that this one took the place of. Who opened it before finds it locked.
    _earlier: File,
}

impl Results {
    /// Begins it anew with those rows of an earlier run that are to be kept. A file of another kind, which is known by its
    /// header, is not touched; `what` says whose results they are. Whatever happens, either the old file is there or the
    /// new one with all the rows that are kept.
    pub(super) fn resume(
        path: &Path,
        header: &[&str],
        what: &str,
        mut keep: impl FnMut(&csv::StringRecord) -> bool,
    ) -> anyhow::Result<Self> {
        let unwritable = || format!("could not write {}", path.display());
        let earlier = File::options().read(true).append(true).create(true).open(path).with_context(unwritable)?;
        lock(&earlier, path)?;
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(&earlier);
        let found = reader.headers().with_context(|| format!("could not read {}", path.display()))?;
        if !found.is_empty() && !found.iter().eq(header.iter().copied()) {
            bail!("{} exists and holds no results of {what}: name another file with --results", path.display());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(folder).with_context(unwritable)?;
        let file = temporary.reopen().with_context(unwritable)?;
        lock(&file, path)?;
        let mut csv = csv::Writer::from_writer(BufWriter::new(file));
        csv.write_record(header).with_context(unwritable)?;
        for record in reader.records() {
            // What is cut short or not UTF-8 is no whole row.
            let Ok(record) = record else { continue };
            if record.len() == header.len() && keep(&record) {
                csv.write_record(&record).with_context(unwritable)?;
            }
        }
        csv.flush().and_then(|()| Ok(temporary.persist(path)?)).with_context(unwritable)?;
        Ok(Self { path: path.to_owned(), csv, _earlier: earlier })
    }

    /// Adds a row, which is in the file when this returns: a run may be killed.
    pub(super) fn write(&mut self, row: &[&str]) -> anyhow::Result<()> {
        let written = self.csv.write_record(row).map_err(io::Error::from).and_then(|()| self.csv.flush());
        written.with_context(|| format!("could not write {}", self.path.display()))
    }
}

fn lock(file: &File, path: &Path) -> anyhow::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => bail!(
            "another run is under way that writes {}: wait until it has ended, or name another file with --results",
            path.display()
        ),
        // Some file systems have no locks, and that should not keep anybody from working there.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}
