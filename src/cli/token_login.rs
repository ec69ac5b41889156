//! Keys in PKCS#11 tokens: the module, the PIN, and the login.

use std::{
    env,
    io::{self, IsTerminal, Write},
    path::PathBuf,
};

use anyhow::Context;
use zeroize::Zeroizing;

use super::{
    error::UsageError,
    input::{note_readable, secret},
    output::{Output, WARN, clean},
};
use crate::certificate::{
    KeyAlgorithm, PrivateKey,
    pkcs11::{PinTries, Pkcs11Uri, Pkcs11UriError, Token, TokenError, TokenSession},
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

/// Creates a key in the token of a URI.
pub(super) fn create_key(uri: &str, algorithm: KeyAlgorithm, output: &Output) -> anyhow::Result<PrivateKey> {
    let uri = parse(uri)?;
    Ok(open(&uri, output)?.create_key(&uri, algorithm)?)
}

fn open(uri: &Pkcs11Uri, output: &Output) -> anyhow::Result<TokenSession> {
    let token = Token::find(uri, &module_path(uri)?)?;
    let pin = if token.needs_pin() && token.tries() != PinTries::None { pin(uri, &token, output)? } else { None };
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

/// Returns the PIN from the file of the URI, or else from the environment or a terminal. `None` if it is entered at the
/// token.
fn pin(uri: &Pkcs11Uri, token: &Token, output: &Output) -> anyhow::Result<Option<Zeroizing<String>>> {
    if let Some(file) = uri.pin_file() {
        if !file.exists() {
            // The value may be the PIN itself.
            let error = UsageError::new("the file that pin-source names in the PKCS#11 URI does not exist");
            return Err(error.with_hint("a relative path starts at the current directory").into());
        }
        note_readable("pin-source", file, output);
        return secret(Some(file), PIN).context("could not read the PIN that pin-source names");
    }
    if let Some(pin) = secret(None, PIN)? {
        return Ok(Some(pin));
    }
    if token.has_pin_pad() {
        output.progress(format_args!("Enter the PIN of {} at the token.", clean(token.label())));
        return Ok(None);
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(TokenError::PinNeeded { token: token.label().to_owned() }.into());
    }
    let tries = match token.tries() {
        PinTries::Last => " (a wrong one locks it)",
        PinTries::Fewer => " (it was wrong the last time)",
        _ => "",
    };
    let question = format!("{WARN}PIN of the token {}{tries}:{WARN:#} ", clean(token.label()));
    let pin = ask_hidden(&question).context("could not read the PIN")?;
    Ok(Some(pin).filter(|pin| !pin.is_empty()))
}

/// Asks on the terminal, and reads the answer without an echo. The echo ends before the question appears, so that a program
/// can answer it at once.
#[cfg(unix)]
fn ask_hidden(question: &str) -> io::Result<Zeroizing<String>> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let _ = write!(anstream::stderr().lock(), "{question}");
    let mut answer = Zeroizing::new(String::new());
    let read = stdin.read_line(&mut answer);
    tcsetattr(&stdin, OptionalActions::Flush, &before)?;
    let _ = writeln!(anstream::stderr().lock());
    read?;
    let length = answer.trim_end_matches(['\r', '\n']).len();
    answer.truncate(length);
    Ok(answer)
}

#[cfg(not(unix))]
fn ask_hidden(question: &str) -> io::Result<Zeroizing<String>> {
    let _ = write!(anstream::stderr().lock(), "{question}");
    console::Term::stderr().read_secure_line().map(Zeroizing::new)
}
