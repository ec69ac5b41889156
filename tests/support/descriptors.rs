//! Copies of open files, which a child process has until it runs its program.

use std::{fs, os::fd::OwnedFd, path::Path};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// Copies the descriptors that this process has of a file or directory. Where the system does not allow it, returns nothing
/// and reports that.
pub(crate) fn copy_open_files(path: &Path) -> Vec<OwnedFd> {
    let path = path.canonicalize().expect("a path");
    let open = fs::read_dir("/proc/self/fd").expect("the open files").flatten();
    let open = open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == path));
    let numbers: Vec<_> = open.map(|entry| entry.file_name().to_string_lossy().parse().expect("a number")).collect();
    assert!(!numbers.is_empty(), "{} is open", path.display());
    let process = pidfd_open(getpid(), PidfdFlags::empty());
    let copy = |number| pidfd_getfd(process.as_ref().ok()?, number, PidfdGetfdFlags::empty()).ok();
    let copies: Vec<_> = numbers.into_iter().filter_map(copy).collect();
    if copies.is_empty() {
        super::skipped("this system does not copy descriptors");
    }
    copies
}
