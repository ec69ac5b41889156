//! Input files: secrets, certificates and JSON. `-` is standard input.

use std::{
    env,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::output::Output;
use crate::{
    central::{Secret, SymmetricKeys},
    certificate::{
        Certificate, ReadError,
        files::{MAX_FILE, read_limited},
        pfx::PfxError,
    },
};

/// Reads a secret from the first line of a file or else from an environment variable. Other users can see the command line,
/// so no secret is read from there.
///
/// An empty variable is ignored. An empty first line is an error.
pub(super) fn secret(file: Option<&Path>, variable: &str) -> anyhow::Result<Option<Zeroizing<String>>> {
    match (secret_or_empty(file, variable)?.filter(|secret| !secret.is_empty()), file) {
        (None, Some(file)) => bail!("the first line of {} is empty: it must hold the secret", file.display()),
        (secret, _) => Ok(secret),
    }
}

/// Reads a secret as [`secret`] does, but an empty first line or variable is the empty secret.
pub(super) fn secret_or_empty(file: Option<&Path>, variable: &str) -> anyhow::Result<Option<Zeroizing<String>>> {
    let Some(file) = file else {
        return match env::var(variable) {
            Ok(value) => Ok(Some(Zeroizing::new(value))),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => bail!("the environment variable {variable} is not valid UTF-8"),
        };
    };
    let bytes = read(file)?;
    let line = text(file, &bytes)?.lines().next().unwrap_or_default();
    // The first line of a key or certificate is known to everyone: as a password it would protect nothing.
    if line.trim_start().starts_with("-----BEGIN ") {
        bail!("{} holds PEM, and not a secret on its first line", file.display());
    }
    Ok(Some(Zeroizing::new(line.to_owned())))
}

/// Reads a secret from a file that may break it into lines.
pub(super) fn secret_in_lines(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let bytes = read(file)?;
    let secret = Zeroizing::new(text(file, &bytes)?.lines().map(str::trim).collect::<String>());
    if secret.is_empty() {
        bail!("{} is empty: it must hold the secret", file.display());
    }
    Ok(secret)
}

/// Reads secrets from a file, one a line. Empty lines are skipped; `what` names the secrets.
pub(super) fn secret_lines<const N: usize>(file: &Path, what: &str) -> anyhow::Result<[Secret; N]> {
    let bytes = read(file)?;
    let lines = text(file, &bytes)?.lines().map(str::trim).filter(|line| !line.is_empty()).map(Secret::from);
    lines.collect::<Vec<_>>().try_into().map_err(|found: Vec<_>| {
        let lines = if N == 1 { "line" } else { "lines" };
        anyhow!("{} must have {N} {lines}, {what}: found {}", file.display(), found.len())
    })
}

/// Reads a primary and a secondary symmetric key, one a line.
pub(super) fn symmetric_keys(file: &Path) -> anyhow::Result<SymmetricKeys> {
    let [primary_key, secondary_key] = secret_lines(file, "the primary and the secondary key")?;
    Ok(SymmetricKeys { primary_key, secondary_key })
}

/// Returns the text of a file, without the byte-order mark that some editors write.
fn text<'a>(file: &Path, bytes: &'a [u8]) -> anyhow::Result<&'a str> {
    let text = std::str::from_utf8(bytes).map_err(|_| anyhow!("{} is not valid UTF-8", file.display()))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Returns the name of an input file in messages.
pub(super) fn file_name(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

/// Reads a file of certificates or keys.
pub(super) fn read(file: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    if file == Path::new("-") {
        read_up_to(file, MAX_FILE >> 20, "certificates and keys are smaller")
    } else {
        Ok(read_limited(file)?)
    }
}

/// Reads a file of at most this many MiB. `reason` says why a larger file is an error.
pub(super) fn read_up_to(file: &Path, mebibytes: u64, reason: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let stdin = file == Path::new("-");
    let name = file_name(file);
    let unreadable = || format!("could not read {name}");
    let source: Box<dyn Read> =
        if stdin { Box::new(io::stdin()) } else { Box::new(File::open(file).with_context(unreadable)?) };
    let mut bytes = Zeroizing::new(Vec::new());
    source.take((mebibytes << 20) + 1).read_to_end(&mut bytes).with_context(unreadable)?;
    if bytes.len() as u64 > mebibytes << 20 {
        bail!("{name} is larger than {mebibytes} MiB: {reason}");
    }
    Ok(bytes)
}

/// Parses certificates in any encoding. The password is only asked for if the bytes are PFX, which `read_pfx` reads.
pub(super) fn certificates_of(
    bytes: &[u8],
    pfx_password: impl FnOnce() -> anyhow::Result<Option<Zeroizing<String>>>,
    read_pfx: impl FnOnce(&[u8], Option<&str>) -> Result<Vec<Certificate>, PfxError>,
) -> anyhow::Result<Vec<Certificate>> {
    match Certificate::read_all(bytes) {
        Err(ReadError::Pfx) => {
            let password = pfx_password()?;
            Ok(read_pfx(bytes, password.as_ref().map(|password| password.as_str()))?)
        }
        other => Ok(other?),
    }
}

/// Parses the JSON in a file. The message says where it is malformed, without quoting it.
pub(super) fn parse_json<T: DeserializeOwned>(file: &Path, bytes: &[u8], expected: &str) -> anyhow::Result<T> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(bytes).map_err(|error| {
        let file = file.display();
        match error.classify() {
            serde_json::error::Category::Data => anyhow!("{file} does not hold {expected}"),
            serde_json::error::Category::Eof => anyhow!("{file} is not valid JSON: it ends too early"),
            _ => anyhow!("{file} is not valid JSON: line {}, column {}", error.line(), error.column()),
        }
    })
}

/// Notes if other users have access to a file with a secret.
#[cfg(unix)]
pub(super) fn note_readable(option: &str, file: &Path, output: &Output) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(found) = fs::metadata(file) else { return };
    let mode = found.permissions().mode() & 0o777;
    if found.is_file() && mode & 0o077 != 0 {
        let file = file.display();
        output.note(format_args!(
            "other users have access to {file}, the secret of {option} (mode {mode:04o}): run `chmod 600 {file}`"
        ));
    }
}

/// Other systems do not have access rights in the mode of a file.
#[cfg(not(unix))]
pub(super) fn note_readable(_: &str, _: &Path, _: &Output) {}
