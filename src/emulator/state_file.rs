//! The state file: the identity of an emulator and the state of its services, as JSON.
//!
//! The file has mode 0600, since it holds keys and tokens. It is replaced atomically, and locked while an emulator uses it. A
//! file that cannot be read completely is refused and left as it is. So is one that something else wrote or replaced while the
//! emulator ran: the state then goes to a new file beside it.

use std::{
    ffi::OsString,
    fs::{File, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, PersistError};

use super::{
    error::EmulatorError,
    identity::Identity,
    state::{State, Store},
};
use crate::certificate::{
    locked_file::LockedFile,
    secure_file::{Access, check_in_place, open_own},
};

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

/// The number of names that are tried for a file beside the state file.
const MAX_SAVED_COPIES: u32 = 1000;

/// A state file, which is locked until this is dropped.
pub(super) struct StateFile {
    path: PathBuf,
    lock: LockedFile,
    /// The hash of its content, as this emulator read or wrote it.
    hash: [u8; 32],
}

/// What is found at the path of a state file.
enum Found {
    /// The locked file, with the content that this emulator read or wrote.
    Unchanged,
    /// Nothing: the file was removed.
    Nothing,
    /// Another file, or another content.
    Changed,
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
            let file = LockedFile::new(file);
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
        Ok((Self { path: path.to_owned(), lock, hash: Sha256::digest(&bytes).into() }, content))
    }

    /// Replaces the file, or creates it again if it was removed. If something else wrote or replaced it, writes a new file
    /// beside it.
    ///
    /// # Errors
    /// Returns [`EmulatorError::StateFileChanged`] with the path of the new file.
    pub(super) fn save(&mut self, identity: &Identity, store: &Store) -> Result<(), EmulatorError> {
        let path = self.path.clone();
        let failed = |problem: String| EmulatorError::StateFile { path: path.clone(), problem };
        let unwritable = |error: io::Error| failed(format!("cannot write it: {error}"));
        let text = store
            .with(|state| serde_json::to_vec(&Written { format: FORMAT, version: VERSION, identity, state }))
            .map_err(|_| failed("the state cannot be written as JSON".to_owned()))?;
        let written = prepare(&path, &text).map_err(unwritable)?;
        let written = match self.found() {
            Found::Unchanged => written.persist(&path).map_err(|error| unwritable(error.error)).map(Ok)?,
            // Another emulator may create it at this moment.
            Found::Nothing => match written.persist_noclobber(&path) {
                Err(PersistError { error, file }) if error.kind() == io::ErrorKind::AlreadyExists => Err(file),
                created => Ok(created.map_err(|error| unwritable(error.error))?),
            },
            Found::Changed => Err(written),
        };
        self.lock = match written {
            Ok(file) => LockedFile::new(file),
            Err(written) => {
                let saved = persist_beside(written, &path).map_err(unwritable)?;
                return Err(EmulatorError::StateFileChanged { path, saved });
            }
        };
        self.hash = Sha256::digest(&text).into();
        sync_directory(&path).map_err(unwritable)
    }

    fn found(&mut self) -> Found {
        let Ok(named) = self.path.symlink_metadata() else { return Found::Nothing };
        let is_same = !named.is_symlink() && check_in_place(&self.lock, &self.path).is_ok();
        let mut bytes = Vec::new();
        let read = self.lock.rewind().and_then(|()| self.lock.read_to_end(&mut bytes));
        if is_same && read.is_ok() && self.hash[..] == Sha256::digest(&bytes)[..] {
            Found::Unchanged
        } else {
            Found::Changed
        }
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

/// Writes a temporary file beside a file that it will replace. It is locked before it has its name, so that no other emulator
/// can lock it.
fn prepare(path: &Path, text: &[u8]) -> io::Result<NamedTempFile> {
    // Only its owner can read a temporary file.
    let mut file = tempfile::Builder::new().prefix(".iot-enroll-state-").tempfile_in(directory_of(path))?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.as_file().lock()?;
    Ok(file)
}

/// Gives a temporary file the name of a state file with a number, the first that is free, and returns its path.
fn persist_beside(mut written: NamedTempFile, path: &Path) -> io::Result<PathBuf> {
    for number in 1..=MAX_SAVED_COPIES {
        let mut beside = OsString::from(path);
        beside.push(format!(".{number}"));
        match written.persist_noclobber(&beside) {
            Ok(file) => {
                // An emulator may use it now.
                drop(LockedFile::new(file));
                sync_directory(path)?;
                return Ok(beside.into());
            }
            Err(PersistError { error, file }) if error.kind() == io::ErrorKind::AlreadyExists => written = file,
            Err(error) => return Err(error.error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in the directory of a file durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(directory_of(path))?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
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
