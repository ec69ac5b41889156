//! PKCS#11 modules: the libraries that speak to tokens.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
};

use super::error::{TokenError, code};

/// The loaded modules. One is initialized once for each process (PKCS#11 3.1 section 5.4), and stays loaded: other threads
/// may be in its code.
static LOADED: Mutex<Vec<(PathBuf, Pkcs11)>> = Mutex::new(Vec::new());

/// Loads and initializes a module, unless that was done before.
pub(super) fn load(path: &Path) -> Result<Pkcs11, TokenError> {
    let failed = |reason: String| TokenError::Module { path: path.to_owned(), reason };
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, module)) = loaded.iter().find(|(known, _)| known == path) {
        return Ok(module.clone());
    }
    // A name without a directory is searched for by the system.
    if path.components().count() > 1 {
        match path.metadata() {
            Ok(found) if found.is_dir() => return Err(failed("it is a directory".to_owned())),
            Ok(_) => {}
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    let module = Pkcs11::new(path).map_err(|error| {
        failed(match &error {
            Error::LibraryLoading(error) => without_path(&error.to_string(), path),
            Error::MissingSymbol(_) => {
                "it is not a PKCS#11 module, since it has no function C_GetFunctionList".to_owned()
            }
            error => format!("it reports {}", code(error)),
        })
    })?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // The same module under another path, or another part of this process uses it.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(failed(format!("it could not be initialized, and reports {}", code(&error)))),
    }
    loaded.push((path.to_owned(), module.clone()));
    Ok(module)
}

/// Removes the path of the module from the message of the dynamic linker, which begins with it.
fn without_path(message: &str, path: &Path) -> String {
    let prefix = format!("{}: ", path.display());
    message.split_once(&prefix).map_or(message, |(_, reason)| reason).to_owned()
}
