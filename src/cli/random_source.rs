//! Whether the system provides random numbers.

use std::{error::Error, fmt, io};

/// The system provides no random numbers.
#[derive(Debug)]
pub(super) enum NoRandomSource {
    /// The system call is refused.
    Refused(io::Error),
    /// There is no such system call, and the device is missing or is none.
    Missing(io::Error),
}

impl NoRandomSource {
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Refused(_) => "the seccomp profile or sandbox of the process has to allow getrandom",
            Self::Missing(_) => {
                "the seccomp profile or sandbox of the process has to allow getrandom, or provide /dev/urandom"
            }
        }
    }
}

impl fmt::Display for NoRandomSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system provides no random numbers: ")?;
        match self {
            Self::Refused(error) => write!(f, "getrandom failed: {error}"),
            Self::Missing(error) => write!(f, "there is no getrandom, and /dev/urandom cannot be used: {error}"),
        }
    }
}

impl Error for NoRandomSource {}

/// Checks that the system provides random numbers. The standard library panics without them, and AWS-LC aborts the process.
/// This asks for them in the same way as AWS-LC, which is the more demanding one.
#[cfg(target_os = "linux")]
pub(super) fn check_random_source() -> Result<(), NoRandomSource> {
    use rustix::{
        io::Errno,
        rand::{GetRandomFlags, getrandom},
    };
    use std::os::unix::fs::FileTypeExt;

    match getrandom(&mut [0_u8], GetRandomFlags::NONBLOCK) {
        // Soon after the start of a machine there may be none yet. Both libraries wait for them.
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
        Err(Errno::NOSYS) => {
            let device = std::fs::File::open("/dev/urandom").map_err(NoRandomSource::Missing)?;
            let is_device = device.metadata().is_ok_and(|found| found.file_type().is_char_device());
            let not_one = || NoRandomSource::Missing(io::Error::other("it is not a device"));
            if is_device { Ok(()) } else { Err(not_one()) }
        }
        Err(error) => Err(NoRandomSource::Refused(error.into())),
    }
}

/// On other systems, random numbers are always there.
#[cfg(not(target_os = "linux"))]
pub(super) fn check_random_source() -> Result<(), NoRandomSource> {
    Ok(())
}
