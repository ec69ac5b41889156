//! What several tests need.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The path of a file in `fixtures/authorities`.
pub(crate) fn authority_fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/authorities").join(name)
}

/// Runs the `openssl` program in a folder; nothing where there is none.
pub(crate) fn openssl(folder: &Path, arguments: &[&str]) -> Option<Output> {
    match Command::new("openssl").current_dir(folder).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("openssl could not be run: {error}"),
    }
}
