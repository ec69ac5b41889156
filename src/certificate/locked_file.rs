//! Files that are locked by their owner.

use std::{
    fs::{File, TryLockError},
    io::{self, Write},
    ops::{Deref, DerefMut},
};

/// A file whose lock is released when this is dropped.
///
/// Closing the file is not enough: a child process that another thread starts at that moment has a copy of it until it runs its
/// program, and the lock lasts as long.
#[derive(Debug)]
pub(crate) struct LockedFile(File);

impl LockedFile {
    /// Takes over a file, which may be locked already.
    pub(crate) fn new(file: File) -> Self {
        Self(file)
    }

    /// Locks a file or directory. Returns nothing if it is locked already.
    ///
    /// Some network file systems have no locks, and must work too: there, the file is not locked.
    pub(crate) fn try_lock(file: File) -> Option<Self> {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            Ok(()) | Err(TryLockError::Error(_)) => Some(Self(file)),
        }
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // If it fails, closing the file releases the lock.
        let _ = self.0.unlock();
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for LockedFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Write for LockedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_ends_with_its_owner_although_a_copy_of_the_file_is_open() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let open = || file.reopen().expect("opened");
        let locked = LockedFile::try_lock(open()).expect("locked");
        let _copy = locked.try_clone().expect("a copy");
        assert!(LockedFile::try_lock(open()).is_none());
        drop(locked);
        assert!(LockedFile::try_lock(open()).is_some());
    }
}
