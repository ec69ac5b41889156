//! Whether the system provides random numbers.

use std::{error::Error, fmt, io};

/// The system provides no random numbers.
#[derive(Debug)]
pub(super) enum NoRandomSource {
    /// The system call getrandom failed.
    Call(io::Error),
    /// The system call is not available, and the devices that replace it cannot be used.
    Device(io::Error),
}

impl NoRandomSource {
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Call(_) => "the seccomp profile or sandbox of the process has to allow getrandom",
            Self::Device(_) => {
                "the seccomp profile or sandbox of the process has to allow getrandom, or to provide /dev/random and /dev/urandom"
            }
        }
    }
}

impl fmt::Display for NoRandomSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system provides no random numbers: ")?;
        match self {
            Self::Call(error) => write!(f, "getrandom failed: {error}"),
            Self::Device(error) => {
                write!(f, "getrandom is not available, and /dev/random and /dev/urandom cannot be used: {error}")
            }
        }
    }
}

impl Error for NoRandomSource {}

/// Checks that the system provides random numbers. Without them the standard library and the crate rand panic, and AWS-LC
/// aborts the process.
pub(super) fn check_random_source() -> Result<(), NoRandomSource> {
    check_system_call()?;
    // The crate rand asks in this way, which also needs /dev/random. A program that is statically linked with glibc uses only
    // the devices.
    getrandom::fill(&mut [0]).map_err(|error| NoRandomSource::Device(io_error(error)))
}

/// Asks in the way of AWS-LC, which is the one that accepts the least.
#[cfg(target_os = "linux")]
fn check_system_call() -> Result<(), NoRandomSource> {
    use std::os::unix::fs::FileTypeExt;

    use rustix::{
        io::Errno,
        rand::{GetRandomFlags, getrandom},
    };

    match getrandom(&mut [0_u8], GetRandomFlags::NONBLOCK) {
        // Soon after the start of a machine there may be none yet. All wait for them.
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
        Err(Errno::NOSYS) => {
            let device = std::fs::File::open("/dev/urandom").map_err(NoRandomSource::Device)?;
            let is_device = device.metadata().is_ok_and(|found| found.file_type().is_char_device());
            let other = || NoRandomSource::Device(io::Error::other("it is not a device"));
            if is_device { Ok(()) } else { Err(other()) }
        }
        Err(error) => Err(NoRandomSource::Call(error.into())),
    }
}

#[cfg(not(target_os = "linux"))]
fn check_system_call() -> Result<(), NoRandomSource> {
    Ok(())
}

fn io_error(error: getrandom::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::other("it gave none"), io::Error::from_raw_os_error)
}
