//! Creation of files that may hold private keys: never through a link, and readable only by their owner.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
};

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone: mode 0644, reduced by the umask.
    Everyone,
    /// The owner only: mode 0600.
    Owner,
}

impl Access {
    /// Returns the permissions of a file, before the umask.
    pub(crate) fn mode(self) -> u32 {
        match self {
            Self::Everyone => 0o644,
            Self::Owner => 0o600,
        }
    }
}

/// Creates a file that does not exist. Links are not followed.
///
/// # Errors
/// Returns [`io::ErrorKind::AlreadyExists`] if a file, directory or link has that name.
pub(crate) fn create_new(path: &Path, access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, access.mode());
    // On other systems, a file inherits the access rules of its directory.
    #[cfg(not(unix))]
    let _ = access;
    options.open(path)
}

/// Gives a new file the owner, group and mode of the file that it will replace, if there is one.
///
/// Only a privileged user can give a file to another owner, or to a group without being a member. Otherwise the file belongs
/// to the user that runs the program, and a group that is not kept gets no more than everyone else.
///
/// # Errors
/// Returns the error of the system if the mode cannot be set.
pub(crate) fn copy_rights(replaced: &Path, new: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
        let Ok(old) = replaced.metadata() else { return Ok(()) };
        let _ = fchown(new, None, Some(old.gid()));
        let _ = fchown(new, Some(old.uid()), None);
        let found = new.metadata()?;
        let mut mode = old.mode() & 0o777;
        if found.gid() != old.gid() {
            mode &= 0o707 | ((mode & 0o007) << 3);
        }
        if found.mode() & 0o777 != mode {
            new.set_permissions(fs::Permissions::from_mode(mode))?;
        }
    }
    #[cfg(not(unix))]
    let _ = (replaced, new);
    Ok(())
}

/// Creates a directory that does not exist. Only its owner can create and remove files in it, regardless of the umask.
///
/// # Errors
/// Returns [`io::ErrorKind::AlreadyExists`] if a file, directory or link has that name.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    directories().create(path)
}

/// Creates a directory and those above it unless they exist, as [`create_directory`] does.
///
/// # Errors
/// Returns the error of the system.
pub(crate) fn create_directory_all(path: &Path) -> io::Result<()> {
    directories().recursive(true).create(path)
}

fn directories() -> fs::DirBuilder {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
    builder
}

/// Opens a file of an earlier run for writing, or creates it.
///
/// # Errors
/// Returns an error with the reason if the file is a link or not a regular file, belongs to another user, or has too wide
/// permissions.
pub(crate) fn open_own(path: &Path, access: Access) -> io::Result<File> {
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        match create_new(path, access) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created,
        }
    }
    if path.symlink_metadata()?.is_symlink() {
        return Err(io::Error::other("it is a symbolic link, which is not followed"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        // The flags of open(2) are a signed integer.
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits().cast_signed());
    }
    let file = options.open(path)?;
    check_own(&file, access)?;
    Ok(file)
}

/// Opens a file for reading. Links are followed.
///
/// # Errors
/// Returns an error with the reason if it is not a regular file, belongs to another user, or has too wide permissions.
#[cfg(feature = "client")]
pub(crate) fn open_to_read(path: &Path, access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    // A pipe without a writer must not hold up the program.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path)?;
    check_own(&file, access)?;
    Ok(file)
}

#[cfg(unix)]
fn check_own(file: &File, access: Access) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("it belongs to another user, with the ID {}", found.uid())));
    }
    let mode = found.mode() & 0o777;
    let others = match access {
        Access::Owner => 0o077,
        Access::Everyone => 0o022,
    };
    if mode & others != 0 {
        let kind = if access == Access::Owner { "holds private keys and is accessible" } else { "can be written to" };
        let fix = if access == Access::Owner { "600" } else { "644" };
        return Err(io::Error::other(format!(
            "it {kind} by other users (mode {mode:04o}): run `chmod {fix}` on it first"
        )));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_own(file: &File, _: Access) -> io::Result<()> {
    if file.metadata()?.is_file() { Ok(()) } else { Err(io::Error::other("it is not a regular file")) }
}

/// Checks that an open file still has that path, and was not removed or replaced.
///
/// # Errors
/// Returns [`io::ErrorKind::NotFound`] if it was.
pub(crate) fn check_in_place(file: &File, path: &Path) -> io::Result<()> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "it was removed or replaced while it was being written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (open, named) = (file.metadata()?, path.metadata().map_err(|_| gone())?);
        if (open.dev(), open.ino()) != (named.dev(), named.ino()) {
            return Err(gone());
        }
        Ok(())
    }
    // On other systems, an open file cannot be removed.
    #[cfg(not(unix))]
    {
        let _ = file;
        path.metadata().map(drop).map_err(|_| gone())
    }
}
