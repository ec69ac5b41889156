//! Keys in PKCS#11 tokens: the module, the PIN, and the login.

use std::{env, path::PathBuf};

use anyhow::Context;
use zeroize::Zeroizing;

use super::{
    error::UsageError,
    hidden_question::ask_hidden,
    input::{note_readable, secret},
    output::{Output, WARN, clean},
};
use crate::certificate::{
    KeyAlgorithm, PrivateKey,
    pkcs11::{PinTries, Pkcs11Uri, Pkcs11UriError, Token, TokenSession},
};

const MODULE: &str = "PKCS11_MODULE_PATH";
const PIN: &str = "IOT_ENROLL_PIN";

/// Checks a URI before anything else is done. No error repeats it.
pub(super) fn check_uri(uri: &str) -> Result<(), UsageError> {
    parse(uri).map(drop)
}

fn parse(uri: &str) -> Result<Pkcs11Uri, UsageError> {
    uri.parse().map_err(|error: Pkcs11UriError| {
        let hint = match error {
            Pkcs11UriError::PinValue => {
                "write the PIN to a file that only you can read, and name it with pin-source=file:FILE after the \
                 question mark; or omit it to be asked"
            }
            Pkcs11UriError::Value { name: "pin-source", .. } => {
                "write the PIN to a file that only you can read, such as pin-source=file:/run/user/1000/pin"
            }
            Pkcs11UriError::Unsupported("module-name") => "module-path=FILE names the library of the module",
            Pkcs11UriError::Unsupported(_) => "select the token by token, serial, model, manufacturer or slot-id",
            _ => "such as \"pkcs11:token=lab;object=root?pin-source=file:pin\", in quotes",
        };
        UsageError::new(error.to_string()).with_hint(hint)
    })
}

/// Finds the key of a URI, and logs in to its token.
pub(super) fn find_key(uri: &str, output: &Output) -> anyhow::Result<PrivateKey> {
    let uri = parse(uri)?;
    Ok(open(&uri, output)?.find_key(&uri)?)
}

/// Finds the key of a URI for a new CA. It must be one that cannot be read from the token.
pub(super) fn find_guarded_key(uri: &str, output: &Output) -> anyhow::Result<PrivateKey> {
    let uri = parse(uri)?;
    Ok(open(&uri, output)?.find_guarded_key(&uri)?)
}

/// Creates a key in the token of a URI.
pub(super) fn create_key(uri: &str, algorithm: KeyAlgorithm, output: &Output) -> anyhow::Result<PrivateKey> {
    let uri = parse(uri)?;
    Ok(open(&uri, output)?.create_key(&uri, algorithm)?)
}

fn open(uri: &Pkcs11Uri, output: &Output) -> anyhow::Result<TokenSession> {
    let token = Token::find(uri, &module_path(uri)?)?;
    // The file is read where the token is open already, too: the result names the URI for later runs.
    let in_file = pin_of_file(uri, output)?;
    let pin = match in_file {
        None if token.needs_pin() && token.tries() != PinTries::None => pin(&token, output)?,
        in_file => in_file,
    };
    Ok(token.log_in(pin.as_ref().map(|pin| pin.as_str()))?)
}

/// Returns the path of the module: that of the URI, or else of the environment.
fn module_path(uri: &Pkcs11Uri) -> Result<PathBuf, UsageError> {
    let variable = || env::var_os(MODULE).filter(|path| !path.is_empty()).map(PathBuf::from);
    uri.module_path().map(PathBuf::from).or_else(variable).ok_or_else(|| {
        UsageError::new("no PKCS#11 module is named, the library that speaks to the token").with_hint(format!(
            "add module-path=FILE to the URI after the question mark, or set {MODULE}; SoftHSM on Debian is \
             /usr/lib/softhsm/libsofthsm2.so"
        ))
    })
}

/// Returns the PIN from the file of the URI, if it names one.
fn pin_of_file(uri: &Pkcs11Uri, output: &Output) -> anyhow::Result<Option<Zeroizing<String>>> {
    let Some(file) = uri.pin_file() else { return Ok(None) };
    if !file.exists() {
        // The value may be the PIN itself.
        let error = UsageError::new("the file that pin-source names in the PKCS#11 URI does not exist");
        return Err(error.with_hint("a relative path starts at the current directory").into());
    }
    note_readable("pin-source", file, output);
    secret(Some(file), PIN).context("could not read the PIN that pin-source names")
}

/// Returns the PIN from the environment or a terminal. `None` if it is entered at the token, or there is none.
fn pin(token: &Token, output: &Output) -> anyhow::Result<Option<Zeroizing<String>>> {
    if let Some(pin) = secret(None, PIN)? {
        return Ok(Some(pin));
    }
    if token.has_pin_pad() {
        output.progress(format_args!("Enter the PIN of {} at the token.", clean(token.label())));
        return Ok(None);
    }
    let tries = match token.tries() {
        PinTries::Last => " (a wrong one locks it)",
        PinTries::Fewer => " (it was wrong the last time)",
        _ => "",
    };
    let question = format!("{WARN}PIN of the token {}{tries}:{WARN:#} ", clean(token.label()));
    // Without a PIN, the login says that one is needed.
    Ok(ask_hidden(&question).context("could not read the PIN")?.filter(|pin| !pin.is_empty()))
}
