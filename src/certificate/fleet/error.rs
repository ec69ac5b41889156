//! Why the certificates of a fleet could not be issued or read.

use std::{io, path::PathBuf};

use crate::certificate::{AuthorityError, ReadError, pfx::PfxError};

/// The error of the caller's source of devices.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// The reason why a fleet could not be issued, or its manifest could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// A file of the fleet exists, and resuming was not requested.
    #[error("{} already exists, and nothing was written", .0.display())]
    Exists(PathBuf),
    /// The output of an earlier run does not fit this run.
    #[error("{} cannot be resumed: {reason}", .path.display())]
    CannotResume {
        /// The file or directory.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// An earlier run was for other devices, or in another order.
    #[error(
        "{} cannot be resumed: it has {found} where {} is requested, and devices can only be added at the end",
        .path.display(),
        .requested.as_deref().unwrap_or("no further device")
    )]
    OtherDevices {
        /// The file or directory.
        path: PathBuf,
        /// The device of the earlier run.
        found: String,
        /// The device of this run at the same position. `None` if this run has fewer devices.
        requested: Option<String>,
    },
    /// A file is not the manifest of a fleet.
    #[error("{} is not the manifest of a fleet: {reason}", .path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The run ended early. The devices before are complete, and are in the manifest.
    #[error("{made} devices have been made, then: {error}")]
    Interrupted {
        /// The number of devices that have their files.
        made: u64,
        /// The reason.
        #[source]
        error: Box<FleetError>,
    },
    /// The CA cannot sign now, or X.509 cannot express the lifetime.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A certificate could not be issued.
    #[error("the certificate of {id} could not be issued: {error}")]
    Device {
        /// The device.
        id: String,
        /// The reason.
        error: AuthorityError,
    },
    /// A PFX file could not be written.
    #[error("the PFX file of {id} could not be made: {error}")]
    Pfx {
        /// The device.
        id: String,
        /// The reason.
        error: PfxError,
    },
    /// The source of devices failed.
    #[error(transparent)]
    Source(SourceError),
    /// Another process works on the same output.
    #[error("another process is at work on {}, and nothing was written: wait until it has ended", .0.display())]
    Busy(PathBuf),
    /// An operation of the file system failed.
    #[error("could not {doing} {}: {error}", .path.display())]
    Io {
        /// The operation, such as `write`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
}

impl FleetError {
    pub(in crate::certificate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { doing, path, error }
    }

    pub(super) fn cannot_resume(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::CannotResume { path: path.into(), reason: reason.into() }
    }

    /// Adds the number of complete devices.
    pub(super) fn after(self, made: u64) -> Self {
        Self::Interrupted { made, error: Box::new(self) }
    }
}

impl From<ReadError> for FleetError {
    fn from(error: ReadError) -> Self {
        Self::Source(Box::new(error))
    }
}
