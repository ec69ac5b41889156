//! The command to run next, quoted so that it can be pasted into a shell.

use std::{
    ffi::OsStr,
    fmt::{self, Display},
};

/// A command line of this program.
pub(super) struct NextCommand {
    words: Vec<String>,
}

impl NextCommand {
    /// Starts with the subcommand.
    pub(super) fn new(subcommand: &str) -> Self {
        Self { words: vec!["iot-enroll".to_owned(), subcommand.to_owned()] }
    }

    /// Adds an option and its value.
    pub(super) fn option(&mut self, name: &str, value: impl AsRef<OsStr>) {
        let value = value.as_ref().to_string_lossy();
        // Only so is a value that starts with a hyphen not an option itself.
        if value.len() > 1 && value.starts_with('-') {
            self.words.push(format!("{name}={value}"));
        } else {
            self.words.extend([name.to_owned(), value.into_owned()]);
        }
    }

    /// Adds an option if it has a value.
    pub(super) fn optional(&mut self, name: &str, value: Option<impl AsRef<OsStr>>) {
        if let Some(value) = value {
            self.option(name, value);
        }
    }

    /// Adds a flag if it is set.
    pub(super) fn flag(&mut self, name: &str, is_set: bool) {
        if is_set {
            self.words.push(name.to_owned());
        }
    }
}

impl Display for NextCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments of a process hold no NUL, which is all that cannot be quoted.
        f.write_str(&shlex::try_join(self.words.iter().map(String::as_str)).unwrap_or_default())
    }
}
