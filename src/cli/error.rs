//! Errors that only the command line has. Each stands for an exit status.

use std::{error::Error, fmt};

use crate::certificate::files::FileError;

/// A command line that is wrong in a way the parser cannot see. The exit status is 2.
#[derive(Debug)]
pub(super) struct UsageError {
    message: String,
    hint: Option<String>,
}

impl UsageError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for UsageError {}

/// An error about files whose place is given with `--out`. Others are placed with `--dir`, which hints name.
#[derive(Debug)]
pub(super) struct WithOut(FileError);

impl WithOut {
    pub(super) fn new(error: FileError) -> Self {
        Self(error)
    }

    pub(super) fn file_error(&self) -> &FileError {
        &self.0
    }
}

impl fmt::Display for WithOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for WithOut {}

/// A failure that the result of the command already reports. The exit status is 1, and nothing more is printed.
#[derive(Debug)]
pub(super) struct AlreadyReported;

impl fmt::Display for AlreadyReported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl Error for AlreadyReported {}

/// A check that could not be completed, because nothing was found or a file could not be read. The exit status is 3, so
/// that a monitor can tell it from "a certificate expires".
#[derive(Debug)]
pub(super) struct Undetermined(pub(super) anyhow::Error);

impl Undetermined {
    pub(super) fn new(error: impl Into<anyhow::Error>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Undetermined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Undetermined {}
