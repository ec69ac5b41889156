//! The value of `--results`.

use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};

/// Parses the path of a results file. A results file is read again by the next run, so it cannot be standard output.
pub(super) fn results_file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        if path == Path::new("-") { Err("results go to a file, not to standard output") } else { Ok(path) }
    })
}
