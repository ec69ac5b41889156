//! The file of a plan that is not whole yet, beside its place: what is known of each device so far, a line each. A run that was
//! killed leaves it, and the next run continues.

use std::{
    collections::HashMap,
    ffi::OsString,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, BufRead, BufReader, Seek, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    inspection::{ListedDevice, inspected_flags},
    plan::PlannedDevice,
    plan_error::PlanError,
    plan_file::parse_device,
};
use crate::certificate::{
    locked_file::LockedFile,
    secure_file::{Access, check_in_place, open_own},
};

/// The suffix of the file.
const SUFFIX: &str = ".partial";

/// The first line: what the lines after it depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PartialHeader {
    pub(super) version: u32,
    /// The ID of the plan.
    pub(super) id: String,
    /// The address of the application.
    pub(super) application: String,
    pub(super) includes_keys: bool,
    /// The groups that devices are assigned to, and the fingerprints of their keys.
    pub(super) groups: Vec<(String, String)>,
    /// Whether there are X.509 groups.
    pub(super) has_x509_groups: bool,
}

/// Returns eight bytes that stand for an ID. IDs that differ in case are different devices of an application.
fn exact_hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// The latest line of a device.
struct Latest {
    line: u64,
    flags: [bool; 4],
    is_listed: bool,
}

/// The devices that were inspected so far. Locked against other runs until it is dropped.
pub(super) struct Partial {
    path: PathBuf,
    /// The place of the plan.
    plan: PathBuf,
    file: LockedFile,
    /// The lines so far, of which the first is the header.
    lines: u64,
    latest: HashMap<u64, Latest>,
    /// The ID scope that a device told.
    pub(super) id_scope: Option<String>,
}

/// A line of the file: a device, or what was learned of the application.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scope {
    id_scope: String,
}

impl Partial {
    /// Opens the file for a plan, and creates it if missing. Returns the header of an earlier run, if it left one.
    pub(super) fn open(plan: &Path) -> Result<(Self, Option<PartialHeader>), PlanError> {
        let mut name = OsString::from(plan);
        name.push(SUFFIX);
        let path = PathBuf::from(name);
        let unreadable = |error| PlanError::Read { path: path.clone(), error };
        let file = open_own(&path, Access::Owner).map_err(|error| PlanError::Write { path: path.clone(), error })?;
        let file = LockedFile::try_lock(file).ok_or_else(|| PlanError::Locked(plan.to_owned()))?;
        // A run that ended in between has removed it.
        check_in_place(&file, &path).map_err(unreadable)?;
        let mut first = Vec::new();
        BufReader::new(&*file).read_until(b'\n', &mut first).map_err(unreadable)?;
        let header = if first.ends_with(b"\n") { serde_json::from_slice(&first).ok() } else { None };
        if header.is_none() && first.ends_with(b"\n") {
            let problem = "it is no plan of an earlier run: remove it, or name another file for the plan".to_owned();
            return Err(PlanError::NotAPlan { path, problem });
        }
        let partial = Self { path, plan: plan.to_owned(), file, lines: 0, latest: HashMap::new(), id_scope: None };
        Ok((partial, header))
    }

    /// Continues with the lines that an earlier run left.
    pub(super) fn resume(&mut self) -> Result<(), PlanError> {
        let unreadable = |error| PlanError::Read { path: self.path.clone(), error };
        self.file.rewind().map_err(unreadable)?;
        let mut reader = BufReader::new(&*self.file);
        let (mut line, mut whole) = (Vec::new(), 0);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(unreadable)?;
            // A run that was killed may have left a part of a line.
            if read == 0 || !line.ends_with(b"\n") {
                break;
            }
            whole += read as u64;
            if let Some(device) = parse_device(&line) {
                let latest = Latest { line: self.lines, flags: inspected_flags(&device), is_listed: false };
                self.latest.insert(exact_hash(device.id.as_str()), latest);
            } else if let Ok(Scope { id_scope }) = serde_json::from_slice(&line) {
                self.id_scope = Some(id_scope);
            }
            self.lines += 1;
        }
        let written = self.file.set_len(whole).and_then(|()| self.file.seek(io::SeekFrom::End(0)));
        written.map(drop).map_err(|error| PlanError::Write { path: self.path.clone(), error })
    }

    /// Starts without devices.
    pub(super) fn start(&mut self, header: &PartialHeader) -> Result<(), PlanError> {
        self.latest.clear();
        (self.lines, self.id_scope) = (0, None);
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|error| PlanError::Write { path: self.path.clone(), error })?;
        self.write(header)
    }

    /// Notes that the application has a device. Returns whether it has to be inspected.
    pub(super) fn list(&mut self, device: &ListedDevice) -> bool {
        match self.latest.get_mut(&exact_hash(device.id.as_str())) {
            Some(latest) => {
                latest.is_listed = true;
                latest.flags != device.flags()
            }
            None => true,
        }
    }

    /// Returns the number of devices that are known.
    pub(super) fn known(&self) -> u64 {
        self.latest.len() as u64
    }

    /// Adds a device that was inspected.
    pub(super) fn add(&mut self, device: &PlannedDevice) -> Result<(), PlanError> {
        let latest = Latest { line: self.lines, flags: inspected_flags(device), is_listed: true };
        self.latest.insert(exact_hash(device.id.as_str()), latest);
        self.write(device)
    }

    /// Adds the ID scope of the application, unless it is known.
    pub(super) fn add_scope(&mut self, scope: String) -> Result<(), PlanError> {
        if self.id_scope.is_none() {
            self.write(&Scope { id_scope: scope.clone() })?;
            self.id_scope = Some(scope);
        }
        Ok(())
    }

    /// Appends a line. It is in the file when this returns.
    fn write(&mut self, value: &impl Serialize) -> Result<(), PlanError> {
        let unwritable = |error: io::Error| PlanError::Write { path: self.path.clone(), error };
        let mut line = serde_json::to_vec(value).map_err(|error| unwritable(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| check_in_place(&self.file, &self.path)).map_err(unwritable)?;
        self.lines += 1;
        Ok(())
    }

    /// Reads the devices that the application has.
    pub(super) fn devices(&self) -> Result<impl Iterator<Item = Result<PlannedDevice, PlanError>>, PlanError> {
        let unreadable = |error| PlanError::Read { path: self.path.clone(), error };
        let mut file = self.file.try_clone().map_err(unreadable)?;
        file.rewind().map_err(unreadable)?;
        let path = self.path.clone();
        let lines = BufReader::new(file).split(b'\n').enumerate();
        Ok(lines.filter_map(move |(number, line)| {
            let line = match line {
                Ok(line) => line,
                Err(error) => return Some(Err(PlanError::Read { path: path.clone(), error })),
            };
            let device = parse_device(&line)?;
            let latest = self.latest.get(&exact_hash(device.id.as_str()))?;
            (latest.is_listed && latest.line == number as u64).then_some(Ok(device))
        }))
    }

    /// Returns the place of the plan.
    pub(super) fn plan(&self) -> &Path {
        &self.plan
    }

    /// Removes the file, because the plan is whole.
    pub(super) fn remove(self) -> Result<(), PlanError> {
        std::fs::remove_file(&self.path).map_err(|error| PlanError::Write { path: self.path.clone(), error })
    }
}
