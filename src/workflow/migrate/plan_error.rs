//! Why a plan cannot be read or written.

use std::{io, path::PathBuf};

use super::plan::PLAN_VERSION;

/// Why a plan cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The file could not be read.
    #[error("could not read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file could not be written.
    #[error("could not write {}: {error}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file exists. Plans are not overwritten.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// Another run writes the plan.
    #[error("another run makes {}: wait until it has ended", .0.display())]
    Locked(PathBuf),
    /// The file is not a plan.
    #[error("{} is not a plan of a migration: {problem}", .path.display())]
    NotAPlan {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The plan has a form that this version does not know.
    #[error(
        "{} is a plan of version {version}, and this program reads version {PLAN_VERSION}: make the plan again",
        .path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}
