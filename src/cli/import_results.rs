//! The results file of `device import`: what became of each row.

use std::{
    fs::{File, TryLockError},
    io::{BufRead, BufReader, BufWriter, Read, Seek},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// Its first line, by which one is known.
pub(super) const HEADER: [&str; 4] = ["IOTC_DEVICEID", "line", "outcome", "message"];

/// A results file that belongs to this import alone until the import has ended.
pub(super) struct Results {
    path: PathBuf,
    file: File,
    is_file: bool,
}

impl Results {
    /// Takes the file. One of an earlier import is replaced once there are new results; any other file is not.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            bail!("results go to a file, not to standard output: name one with --results");
        }
        let unwritable = || format!("could not write {}", path.display());
        // What is no file, such as a terminal, is only written.
        let is_file = path.metadata().map_or(true, |found| found.is_file());
        let file = if is_file {
            File::options().read(true).write(true).create(true).truncate(false).open(path)
        } else {
            File::options().write(true).open(path)
        };
        let file = file.with_context(unwritable)?;
        if is_file {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => bail!(
                    "another import is under way that writes {}: wait until it has ended, or name another file with \
                     --results",
                    path.display()
                ),
                // Some file systems have no locks, and an import should not be impossible there.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            if !is_results(&file).with_context(|| format!("could not read {}", path.display()))? {
                bail!("{} exists and holds no results of an import: name another file with --results", path.display());
            }
        }
        Ok(Self { path: path.to_owned(), file, is_file })
    }

    /// Begins the results anew.
    pub(super) fn begin(self) -> anyhow::Result<Writer> {
        let Self { path, mut file, is_file } = self;
        let unwritable = || format!("could not write {}", path.display());
        if is_file {
            file.set_len(0).and_then(|()| file.rewind()).with_context(unwritable)?;
        }
        let mut writer = Writer { csv: csv::Writer::from_writer(BufWriter::new(file)) };
        writer.write(HEADER).with_context(unwritable)?;
        Ok(writer)
    }
}

/// Writes results. The file stays locked until this is dropped.
pub(super) struct Writer {
    csv: csv::Writer<BufWriter<File>>,
}

impl Writer {
    /// Writes one line, which is in the file when this returns: a run may be killed.
    pub(super) fn write(&mut self, fields: [&str; 4]) -> anyhow::Result<()> {
        self.csv.write_record(fields)?;
        Ok(self.csv.flush()?)
    }
}

/// Whether the file is empty or begins as results do.
fn is_results(mut file: &File) -> std::io::Result<bool> {
    let mut line = Vec::new();
    let header = HEADER.join(",");
    BufReader::new(file.take(header.len() as u64 + 2)).read_until(b'\n', &mut line)?;
    file.rewind()?;
    Ok(line.is_empty() || line.trim_ascii_end() == header.as_bytes())
}
