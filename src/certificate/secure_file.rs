//! Opens files that will hold private keys: created exclusively, never through a link, for their owner only.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
};

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone: mode 0644, less what the umask takes away.
    Everyone,
    /// The owner only: mode 0600.
    Owner,
}

impl Access {
    /// The permissions of a file, before the umask.
    pub(crate) fn mode(self) -> u32 {
        match self {
            Self::Everyone => 0o644,
            Self::Owner => 0o600,
        }
    }
}

/// Creates a file that does not exist. A link of that name, dangling or not, is an error and is not followed.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when there is anything of that name.
pub(crate) fn create_new(path: &Path, access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, access.mode());
    // Elsewhere a file takes the access rules of its directory, as is the custom there.
    #[cfg(not(unix))]
    let _ = access;
    options.open(path)
}

/// Creates a directory that does not exist, in which only its owner can create and remove files, regardless of the umask.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when there is anything of that name.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    directories().create(path)
}

/// Creates a directory like [`create_directory`] and those above it, unless they exist.
///
/// # Errors
/// What the system says.
pub(crate) fn create_directory_all(path: &Path) -> io::Result<()> {
    directories().recursive(true).create(path)
}

fn directories() -> fs::DirBuilder {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
    builder
}

/// Opens a file of an earlier run to write on, or creates it.
///
/// # Errors
/// An error that says why when the file is a link or no regular file, belongs to another user, or is accessible by
/// others although only its owner should read it.
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
        // The flags of open(2) are an int.
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits().cast_signed());
    }
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

/// Fails when the file that is open is no longer the one of that name: somebody removed or replaced it meanwhile.
///
/// # Errors
/// [`io::ErrorKind::NotFound`].
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
    // Elsewhere a file that is open cannot be removed.
    #[cfg(not(unix))]
    {
        let _ = file;
        path.metadata().map(drop).map_err(|_| gone())
    }
}
