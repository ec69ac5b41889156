//! The mark of a rehearsal that is under way: a file beside the plan, from before the device registers until its registration
//! record is removed. If the program is killed in between, the file tells that the record is not that of the device itself.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    certificate::{
        Timestamp,
        locked_file::LockedFile,
        secure_file::{Access, check_in_place, open_own, open_to_read},
    },
    dps::service::RegistrationState,
};

/// How long after its start a rehearsal may register, with retries, and how much the clocks may differ. A record that was
/// written later is that of the device itself.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// The most that is read of a file.
const MAX_LENGTH: u64 = 64 * 1024;

/// Returns the file of a device. Of the characters that IDs of DPS can have, only the colon means something in paths.
fn path_of(plan: &Path, id: &str) -> PathBuf {
    let mut name = OsString::from(plan);
    name.push(format!(".rehearsal-{}", id.to_ascii_lowercase().replace(':', "%3a")));
    PathBuf::from(name)
}

/// Returns the last time that a file has. A line that is not whole was not synced before a registration.
fn last_start(file: impl Read) -> io::Result<Option<Timestamp>> {
    let mut text = String::new();
    file.take(MAX_LENGTH).read_to_string(&mut text)?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    Ok(whole.lines().rev().find_map(|line| line.parse().ok()))
}

fn is_written_by(start: Timestamp, record: &RegistrationState) -> bool {
    record.updated_at.is_none_or(|at| at.duration_since(start) <= LONGEST)
}

/// Returns whether a registration record is that of a rehearsal that was interrupted.
pub(super) fn is_left_by_rehearsal(plan: &Path, id: &str, record: &RegistrationState) -> bool {
    let Ok(file) = open_to_read(&path_of(plan, id), Access::Everyone) else { return false };
    last_start(file).ok().flatten().is_some_and(|start| is_written_by(start, record))
}

/// The mark of a rehearsal, locked against other rehearsals of the same device.
pub(super) struct RehearsalMarker {
    path: PathBuf,
    file: LockedFile,
    /// When a rehearsal that was interrupted started.
    earlier: Option<Timestamp>,
}

impl RehearsalMarker {
    /// Opens the file of a device, and creates it if missing.
    pub(super) fn open(plan: &Path, id: &str) -> Result<Self, (PathBuf, io::Error)> {
        let path = path_of(plan, id);
        let opened = open_own(&path, Access::Owner).and_then(|file| {
            let busy = || io::Error::new(io::ErrorKind::WouldBlock, "another rehearsal of the device is under way");
            let file = LockedFile::try_lock(file).ok_or_else(busy)?;
            // A rehearsal that ended in between has removed it.
            check_in_place(&file, &path)?;
            let earlier = last_start(&*file)?;
            Ok((file, earlier))
        });
        match opened {
            Ok((file, earlier)) => Ok(Self { path, file, earlier }),
            Err(error) => Err((path, error)),
        }
    }

    /// Returns whether a record is that of an earlier rehearsal.
    pub(super) fn explains(&self, record: &RegistrationState) -> bool {
        self.earlier.is_some_and(|start| is_written_by(start, record))
    }

    /// Writes that a rehearsal starts. It is on the disk when this returns.
    pub(super) fn start(&mut self) -> Result<(), (PathBuf, io::Error)> {
        // After a line that is not whole.
        let written = self.file.seek(SeekFrom::End(0)).and_then(|_| write!(self.file, "\n{}\n", Timestamp::now()));
        let synced = written.and_then(|()| self.file.sync_all()).and_then(|()| check_in_place(&self.file, &self.path));
        synced.and_then(|()| sync_directory(&self.path)).map_err(|error| (self.path.clone(), error))
    }

    /// Removes the file if this rehearsal created it, because the rehearsal does not start.
    pub(super) fn discard(self) {
        if self.earlier.is_none() {
            // An empty file says nothing, and the next rehearsal removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Removes the file: no record is left that is not the device's.
    pub(super) fn remove(self) -> Result<(), (PathBuf, io::Error)> {
        std::fs::remove_file(&self.path).map_err(|error| (self.path, error))
    }
}

/// Writes the name of a new file to the disk.
fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
