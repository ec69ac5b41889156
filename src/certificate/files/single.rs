//! Files that are no part of a set.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use super::{FileError, IfExists, is_same, sync_directory};
use crate::certificate::secure_file::Access;

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Everyone: mode 0644, reduced by the umask.
    Everyone,
    /// Only the owner: mode 0600. For files with private keys.
    Owner,
}

impl Readers {
    #[cfg(unix)]
    fn mode(self) -> u32 {
        match self {
            Self::Everyone => Access::Everyone.mode(),
            Self::Owner => Access::Owner.mode(),
        }
    }
}

/// Writes a file, completely or not at all. A link is replaced, and not followed.
///
/// # Errors
/// Returns [`FileError::Exists`] if the file exists and [`IfExists::Fail`] is given, [`FileError::NotAFile`] if it is a
/// directory, [`FileError::NotRegular`] if it is a device, a pipe, a socket, or a link to one, and [`FileError::Io`] if the
/// file system fails.
pub fn write_file(path: &Path, content: &[u8], readers: Readers, if_exists: IfExists) -> Result<(), FileError> {
    let failed = |error| FileError::io("write", path, error);
    check_replaceable_file(path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(readers.mode()));
    #[cfg(not(unix))]
    let _ = readers;
    let mut file = builder.tempfile_in(directory).map_err(failed)?;
    file.write_all(content).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    let placed = match if_exists {
        IfExists::Overwrite => file.persist(path),
        IfExists::Fail => file.persist_noclobber(path),
    };
    placed.map(drop).map_err(|failure| match failure.error.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists(vec![path.to_owned()]),
        _ => failed(failure.error),
    })?;
    sync_directory(directory);
    Ok(())
}

/// Checks that a file can be written, as far as that is known before its content is. Changes nothing.
///
/// # Errors
/// Returns the errors of [`write_file`].
pub fn check_file(path: &Path, if_exists: IfExists) -> Result<(), FileError> {
    check_replaceable_file(path)?;
    if if_exists == IfExists::Fail && fs::symlink_metadata(path).is_ok() {
        return Err(FileError::Exists(vec![path.to_owned()]));
    }
    Ok(())
}

/// Checks that a path is free, or that a rename replaces only a regular file or a link to one.
///
/// A rename over a device such as `/dev/null` or over a pipe would replace it for every program of the system.
pub(crate) fn check_replaceable_file(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    // A link that leads nowhere is only replaced.
    let is_special = path.metadata().is_ok_and(|found| !found.is_file()) || (found.is_symlink() && is_stream(path));
    if is_special { Err(FileError::NotRegular(path.to_owned())) } else { Ok(()) }
}

/// Returns whether a link stands for an open file of the process, as `/dev/stdout` does. That may be a regular file.
fn is_stream(link: &Path) -> bool {
    let target = fs::read_link(link).unwrap_or_default();
    let target = link.parent().map_or_else(|| target.clone(), |parent| parent.join(&target));
    [link, &target].iter().any(|path| path.starts_with("/proc") || path.starts_with("/dev/fd"))
}

/// Returns whether both paths lead to the same existing file, through any link.
#[must_use]
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    is_same(one, other)
}
