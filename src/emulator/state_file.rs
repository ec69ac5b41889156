//! The state file: the identity of an emulator and the state of its services, as JSON.
//!
//! The file has mode 0600, since it holds keys and tokens. It is replaced atomically, and locked while an emulator uses it. A
//! file that cannot be read completely is refused and left as it is.

use std::{
    fs::{File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    error::EmulatorError,
    identity::Identity,
    state::{State, Store},
};
use crate::certificate::secure_file::{Access, check_in_place, open_own};

const FORMAT: &str = "iot-enroll emulator state";

/// The version of the format. It increases with every change that an older program would not understand.
const VERSION: u32 = 1;

/// The first members of a state file, of any version.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
}

/// The content of a state file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(rename = "format")]
    _format: String,
    #[serde(rename = "version")]
    _version: u32,
    identity: Identity,
    state: State,
}

/// The content of a state file, to be written.
#[derive(Serialize)]
struct Written<'a> {
    format: &'static str,
    version: u32,
    identity: &'a Identity,
    state: &'a State,
}

/// A state file, which is locked until this is dropped.
pub(super) struct StateFile {
    path: PathBuf,
    lock: File,
}

impl StateFile {
    /// Locks a state file, and returns it and its content. Creates an empty file if it does not exist; it has no content.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<(Identity, State)>), EmulatorError> {
        let failed = |problem: String| EmulatorError::StateFile { path: path.to_owned(), problem };
        let unreadable = |error: io::Error| failed(format!("cannot open it: {error}"));
        close_empty(path);
        let mut lock = loop {
            let file = open_own(path, Access::Owner).map_err(unreadable)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(failed("another emulator uses it".to_owned())),
                Err(TryLockError::Error(error)) => return Err(failed(format!("cannot lock it: {error}"))),
            }
            // An emulator that has just stopped may have replaced the file.
            match check_in_place(&file, path) {
                Ok(()) => break file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(error)),
            }
        };
        let mut bytes = Vec::new();
        lock.read_to_end(&mut bytes).map_err(unreadable)?;
        let content = if bytes.is_empty() { None } else { Some(parse(&bytes).map_err(failed)?) };
        Ok((Self { path: path.to_owned(), lock }, content))
    }

    /// Replaces the file.
    pub(super) fn save(&mut self, identity: &Identity, store: &Store) -> Result<(), EmulatorError> {
        let failed = |problem: String| EmulatorError::StateFile { path: self.path.clone(), problem };
        // Another emulator may have created it after it was removed.
        if check_in_place(&self.lock, &self.path).is_err() && self.path.symlink_metadata().is_ok() {
            return Err(failed("it was replaced while the emulator ran, and is left as it is".to_owned()));
        }
        let text = store
            .with(|state| serde_json::to_vec(&Written { format: FORMAT, version: VERSION, identity, state }))
            .map_err(|_| failed("the state cannot be written as JSON".to_owned()))?;
        self.lock = replace(&self.path, &text).map_err(|error| failed(format!("cannot write it: {error}")))?;
        Ok(())
    }
}

/// Makes an empty file, as `touch` creates it, readable by its owner only. It holds no secret yet.
fn close_empty(path: &Path) {
    #[cfg(unix)]
    if path.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() == 0) {
        // If it fails, opening it fails with the reason.
        let _ = std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600));
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Replaces a file, and returns it. It is locked before it has its name, so that no other emulator can lock it.
fn replace(path: &Path, text: &[u8]) -> io::Result<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Only its owner can read a temporary file.
    let mut file = tempfile::Builder::new().prefix(".iot-enroll-state-").tempfile_in(directory)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.as_file().lock()?;
    let file = file.persist(path)?;
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    Ok(file)
}

/// Reads the content of a file, or describes the problem.
fn parse(bytes: &[u8]) -> Result<(Identity, State), String> {
    // Texts of the parser could repeat a secret.
    let at = |error: serde_json::Error| format!("at line {}, column {}", error.line(), error.column());
    let header: Header =
        serde_json::from_slice(bytes).map_err(|_| "it is damaged, or not the state file of an emulator".to_owned())?;
    if header.format != FORMAT {
        return Err("it is not the state file of an emulator".to_owned());
    }
    if header.version != VERSION {
        let version = header.version;
        return Err(format!("it has version {version} of the format, and this program reads version {VERSION} only"));
    }
    let content: Content = serde_json::from_slice(bytes)
        .map_err(|error| format!("it is damaged, or written by another version of this program: {}", at(error)))?;
    let Content { identity, mut state, .. } = content;
    state.instance.index();
    Ok((identity, state))
}
