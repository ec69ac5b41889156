//! CA keys in PKCS#11 tokens, which options name by URI (RFC 7512).

use std::path::Path;

#[cfg(feature = "pkcs11")]
pub(super) use super::token_login::{check_uri, find_key};
#[cfg(feature = "pkcs11")]
use super::token_login::{create_key, find_guarded_key};
use super::{error::UsageError, output::Output};
use crate::certificate::{KeyAlgorithm, PrivateKey};

/// Returns the URI if the value of an option is a PKCS#11 URI, and not the path of a file.
pub(super) fn token_uri(value: &Path) -> Option<&str> {
    const SCHEME: &str = "pkcs11:";
    let text = value.to_str()?;
    text.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME)).then_some(text)
}

/// Options of a CA key that a token holds or will hold.
#[derive(clap::Args)]
pub(super) struct ExistingKey {
    /// Use the key that the token already has, instead of creating one
    #[arg(long, conflicts_with = "algorithm")]
    existing_key: bool,
}

/// Creates the key of a new CA in a token, or finds it there. `option` named the URI.
pub(super) fn new_authority_key(
    option: &str,
    value: &Path,
    existing: &ExistingKey,
    algorithm: KeyAlgorithm,
    output: &Output,
) -> anyhow::Result<PrivateKey> {
    let Some(uri) = token_uri(value) else {
        return Err(not_a_uri(option).with_hint(format!("omit {option} to create a key file")).into());
    };
    if existing.existing_key { find_guarded_key(uri, output) } else { create_key(uri, algorithm, output) }
}

/// Finds the key of a CA where only keys in tokens are taken.
pub(super) fn authority_key(value: &Path, output: &Output) -> anyhow::Result<PrivateKey> {
    let uri =
        token_uri(value).ok_or_else(|| not_a_uri("--ca-key").with_hint("migrate plan finds key files in --ca-dir"))?;
    find_key(uri, output)
}

fn not_a_uri(option: &str) -> UsageError {
    UsageError::new(format!("{option} takes the PKCS#11 URI of a key in a token here, and not a file"))
}

/// Says that a key was created, in the error of what came after it.
pub(super) fn key_stays(existing: &ExistingKey) -> &'static str {
    if existing.existing_key {
        "no certificate was issued for the key in the token"
    } else {
        "the key was created in the token, and stays there for --existing-key, but no certificate was issued for it"
    }
}

/// Refuses every URI.
#[cfg(not(feature = "pkcs11"))]
pub(super) fn check_uri(_: &str) -> Result<(), UsageError> {
    let why = if cfg!(target_feature = "crt-static") {
        "this program is statically linked and cannot load PKCS#11 modules"
    } else {
        "this program was built without support for keys in PKCS#11 tokens"
    };
    Err(UsageError::new(why).with_hint("build it from its source with `cargo install --features pkcs11`"))
}

#[cfg(not(feature = "pkcs11"))]
pub(super) fn find_key(uri: &str, _: &Output) -> anyhow::Result<PrivateKey> {
    check_uri(uri)?;
    // No URI gets here.
    anyhow::bail!("there is no support for tokens")
}

#[cfg(not(feature = "pkcs11"))]
fn find_guarded_key(uri: &str, output: &Output) -> anyhow::Result<PrivateKey> {
    find_key(uri, output)
}

#[cfg(not(feature = "pkcs11"))]
fn create_key(uri: &str, _: KeyAlgorithm, output: &Output) -> anyhow::Result<PrivateKey> {
    find_key(uri, output)
}
