//! Fleets as files, in directories of a thousand devices.
//!
//! A directory is filled under a hidden name, `.NNNN.tmp`, together with its own part of the manifest. One rename publishes
//! it when it is complete. The next run removes hidden directories that a killed process left, if they hold only files of a
//! fleet. A resumed run starts a new directory, so that published directories never change. Links with a hidden name are
//! not followed: files are only created in directories that this run has created.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, atomic::AtomicBool},
};

use super::{
    AHEAD, Batch, BatchOutput, Fleet, FleetControl, FleetDevice, FleetReport, IfExists,
    error::{FleetError, SourceError},
    layout::{DEVICES_PER_DIRECTORY, Kind, directory_name},
    lock,
    manifest::{MANIFEST, Row, header, lists_devices},
    ordered::{Parallelism, in_order},
};
use crate::certificate::{
    files::open_to_lock,
    secure_file::{self, Access, check_in_place},
};

impl Fleet<'_> {
    /// Writes the files of the devices below a directory, which is created if missing: `0000/ID_cert.pem` and so on, with a
    /// thousand devices in each subdirectory, and the manifest.
    ///
    /// The directory is locked until the call returns.
    ///
    /// # Errors
    /// Returns [`FleetError::Exists`] if there is a fleet and [`IfExists::Fail`] is given, [`FleetError::CannotResume`] or
    /// [`FleetError::OtherDevices`] if it cannot be resumed, [`FleetError::Busy`] if another process has locked the
    /// directory, and [`FleetError::Interrupted`] if the run failed after it began.
    pub fn write_directory(
        &self,
        mut devices: impl Iterator<Item = Result<FleetDevice, SourceError>> + Send,
        directory: &Path,
        if_exists: IfExists,
        control: FleetControl<'_>,
    ) -> Result<FleetReport, FleetError> {
        secure_file::create_directory_all(directory).map_err(FleetError::io("create the directory", directory))?;
        let resume = if_exists == IfExists::Resume;
        let locked = open_to_lock(directory).map_err(FleetError::io("open the directory", directory))?;
        let locked = lock(locked, directory)?;
        let manifest = directory.join(MANIFEST);
        let first = completed(directory)?.first().map(|&number| directory.join(directory_name(number)));
        let places = [manifest.clone(), directory.join(directory_name(0)), hidden(directory, 0)];
        if !resume && let Some(found) = places.into_iter().chain(first).find(|path| path.symlink_metadata().is_ok()) {
            return Err(FleetError::Exists(found));
        }
        let earlier = if resume { earlier(directory)? } else { 0 };
        let mut writer = DirectoryWriter::create(directory)?;
        if resume {
            let adopted = (0..earlier).try_for_each(|number| {
                let (rows, count) = self.read_directory(directory, number, &mut devices)?;
                writer.made += count;
                writer.append(rows.as_bytes())
            });
            adopted.inspect_err(|_| {
                let _ = fs::remove_file(directory.join(HIDDEN_MANIFEST));
            })?;
            remove_hidden(directory)?;
            (control.progress)(writer.made);
        }
        writer.publish()?;
        let resumed = writer.made;
        let stopped = AtomicBool::new(false);
        let created = Mutex::new(HashSet::new());
        let ended = in_order(
            // A directory for each thread: threads that write to the same directory wait for each other in the file system.
            Parallelism { threads: self.threads, ahead: if self.is_quick { 1 } else { AHEAD } },
            self.batches(DEVICES_PER_DIRECTORY, devices, earlier, 0, (control.stop, &stopped)),
            |batch, output: &mut BatchOutput| {
                output.failure = self.write_sets((directory, &created), &batch, output, control.progress).err();
                Ok(())
            },
            |output| writer.take(output),
        );
        let finished = writer.finish(ended.is_err());
        let sync = sync_all(directory);
        let made = writer.made;
        ended
            .and(finished)
            .and(sync)
            .and_then(|()| writer.check_in_place(&locked))
            .map_err(|error| error.after(made))?;
        Ok(FleetReport { devices: made, resumed, stopped: stopped.into_inner(), manifest: Some(manifest) })
    }

    /// Checks, without changes, that [`write_directory`](Self::write_directory) can resume the output of an earlier run.
    ///
    /// # Errors
    /// Returns [`FleetError::CannotResume`] or [`FleetError::OtherDevices`] if it cannot, [`FleetError::Io`] if a file
    /// cannot be read.
    pub fn check_directory(
        &self,
        mut devices: impl Iterator<Item = Result<FleetDevice, SourceError>>,
        directory: &Path,
    ) -> Result<(), FleetError> {
        if !directory.exists() {
            return Ok(());
        }
        (0..earlier(directory)?).try_for_each(|number| self.read_directory(directory, number, &mut devices).map(drop))
    }

    fn write_sets(
        &self,
        (directory, created): (&Path, &Mutex<HashSet<u64>>),
        batch: &Batch,
        output: &mut BatchOutput,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), FleetError> {
        (output.directory, output.devices) = (batch.directory, 0);
        output.rows.clear();
        let staging = hidden(directory, batch.directory);
        {
            // Another thread may have created it for an earlier batch. A directory of another process is not used.
            let mut created = created.lock().unwrap_or_else(PoisonError::into_inner);
            if !created.contains(&batch.directory) {
                secure_file::create_directory(&staging).map_err(FleetError::io("create the directory", &staging))?;
                created.insert(batch.directory);
            }
        }
        let name = directory_name(batch.directory);
        for device in &batch.devices {
            let names = self.names(&name, device);
            self.issue(&names, device, output, |_, kind, content| {
                let path = names.path(kind);
                let path = staging.join(path.rsplit('/').next().unwrap_or_default());
                write_new(&path, kind, content).map_err(FleetError::io("write", &path))
            })?;
            progress(1);
        }
        Ok(())
    }

    /// Checks a directory that an earlier run completed. Returns its rows of the manifest and their number.
    fn read_directory(
        &self,
        root: &Path,
        number: u64,
        devices: &mut impl Iterator<Item = Result<FleetDevice, SourceError>>,
    ) -> Result<(String, u64), FleetError> {
        let name = directory_name(number);
        let directory = root.join(&name);
        let part = directory.join(MANIFEST);
        let text = fs::read_to_string(&part).map_err(FleetError::io("read", &part))?;
        let rows = text.strip_prefix(&header()).filter(|rows| rows.ends_with('\n'));
        let rows = rows.ok_or_else(|| unfit(&directory, format!("its {MANIFEST} is not complete: {REISSUE}")))?;
        for (index, line) in rows.lines().enumerate() {
            let device = devices.next().transpose().map_err(FleetError::Source)?;
            let row = self.check_row(&directory, line, device.as_ref(), &name)?;
            let Some(device) = device else { continue };
            for path in row.files() {
                let path = root.join(path);
                // After a loss of power, a file may exist without its content.
                if !fs::metadata(&path).is_ok_and(|found| found.len() > 0) {
                    return Err(unfit(&directory, format!("{} is missing or empty: {REISSUE}", path.display())));
                }
            }
            if index == 0 || device.public_key.is_some() {
                let path = root.join(self.names(&name, &device).path(Kind::Certificate));
                let pem = fs::read(&path).map_err(FleetError::io("read", &path))?;
                if index == 0 {
                    self.check_earlier(&directory, &pem)?;
                }
                Self::check_certificate(&directory, &row, &device, &pem)?;
            }
        }
        let listed = rows.lines().count();
        let found = fs::read_dir(&directory).map_err(FleetError::io("read", &directory))?.flatten();
        // Some systems add hidden files beside others.
        let certificate = |name: &str| name.ends_with(Kind::Certificate.suffix()) && !name.starts_with('.');
        let found = found.filter(|entry| certificate(&entry.file_name().to_string_lossy())).count();
        if found != listed {
            let reason = format!("it has {found} certificates, and its {MANIFEST} lists {listed}: {REISSUE}");
            return Err(unfit(&directory, reason));
        }
        Ok((rows.to_owned(), listed as u64))
    }
}

/// The remedy for an incomplete directory.
const REISSUE: &str = "to issue it again, remove it and the numbered directories after it, and the fleet's manifest.csv if \
                       no numbered directory is left";

fn unfit(path: &Path, reason: String) -> FleetError {
    FleetError::cannot_resume(path, reason)
}

/// Returns the numbers of the directories that earlier runs completed, in order.
fn completed(root: &Path) -> Result<Vec<u64>, FleetError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(root).map_err(FleetError::io("read", root))? {
        let entry = entry.map_err(FleetError::io("read", root))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| Some((name, name.parse().ok()?)));
        // Other directories may have a number as their name, but have no manifest.
        if let Some((name, number)) = number
            && directory_name(number) == name
            && entry.path().join(MANIFEST).exists()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Returns how many directories earlier runs completed, and checks that none before the last is missing.
fn earlier(root: &Path) -> Result<u64, FleetError> {
    let manifest = root.join(MANIFEST);
    let completed = completed(root)?;
    if lists_devices(&manifest)? && completed.is_empty() {
        let reason =
            "it lists devices whose directories are missing: restore them, or remove it to issue the fleet again";
        return Err(unfit(&manifest, reason.to_owned()));
    }
    for (&number, expected) in completed.iter().zip(0..) {
        if number != expected {
            let missing = directory_name(expected);
            let reason =
                format!("the directory {missing} before it is missing or has no {MANIFEST}: restore it, or, {REISSUE}");
            return Err(unfit(&root.join(directory_name(number)), reason));
        }
    }
    let next = root.join(directory_name(completed.len() as u64));
    if next.exists() {
        return Err(unfit(&next, format!("it has no {MANIFEST}: {REISSUE}")));
    }
    Ok(completed.len() as u64)
}

/// Returns the path of a directory while it is filled.
fn hidden(root: &Path, number: u64) -> PathBuf {
    root.join(format!(".{}.tmp", directory_name(number)))
}

/// Removes the hidden directories that a killed run left.
fn remove_hidden(root: &Path) -> Result<(), FleetError> {
    for entry in fs::read_dir(root).map_err(FleetError::io("read", root))? {
        let entry = entry.map_err(FleetError::io("read", root))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".tmp"));
        if number.is_some_and(|number| number.len() >= 4 && number.bytes().all(|byte| byte.is_ascii_digit())) {
            let path = entry.path();
            if !holds_sets(&path).map_err(FleetError::io("read", &path))? {
                let reason = "it was not created by an earlier run: move it elsewhere".to_owned();
                return Err(unfit(&path, reason));
            }
            fs::remove_dir_all(&path).map_err(FleetError::io("remove", path))?;
        }
    }
    Ok(())
}

/// Returns whether a path is a directory with nothing but the files of devices and a manifest.
fn holds_sets(path: &Path) -> io::Result<bool> {
    if !path.symlink_metadata()?.is_dir() {
        return Ok(false);
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let known = name == MANIFEST || Kind::ALL.iter().any(|kind| name.ends_with(kind.suffix()));
        if !known || !entry.file_type()?.is_file() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write_new(path: &Path, kind: Kind, content: &[u8]) -> io::Result<()> {
    secure_file::create_new(path, kind.access())?.write_all(content)
}

/// Publishes the directories and writes the manifest.
struct DirectoryWriter {
    root: PathBuf,
    manifest: File,
    /// The length of the manifest up to its last complete row.
    length: u64,
    /// The number of devices in published directories.
    made: u64,
    /// The directory that is being filled, its number of devices, and their rows.
    directory: u64,
    devices: u64,
    rows: Vec<u8>,
}

impl DirectoryWriter {
    /// Starts a manifest under a hidden name. It replaces an existing one when it lists as many devices.
    fn create(root: &Path) -> Result<Self, FleetError> {
        let path = root.join(HIDDEN_MANIFEST);
        // A killed run may have left one. The directories have all of its rows.
        if path.symlink_metadata().is_ok_and(|found| found.is_file()) {
            lists_devices(&path)?;
            fs::remove_file(&path).map_err(FleetError::io("remove", &path))?;
        }
        let manifest = secure_file::create_new(&path, Access::Everyone).map_err(FleetError::io("write", path))?;
        let mut writer =
            Self { root: root.to_owned(), manifest, length: 0, made: 0, directory: 0, devices: 0, rows: Vec::new() };
        writer.append(header().as_bytes())?;
        Ok(writer)
    }

    fn publish(&self) -> Result<(), FleetError> {
        let path = self.root.join(MANIFEST);
        fs::rename(self.root.join(HIDDEN_MANIFEST), &path).map_err(FleetError::io("put in place", path))
    }

    /// Checks that no other process has removed or replaced the output.
    fn check_in_place(&self, root: &File) -> Result<(), FleetError> {
        let manifest = self.root.join(MANIFEST);
        if cfg!(unix) {
            check_in_place(root, &self.root).map_err(FleetError::io("write", &self.root))?;
        }
        check_in_place(&self.manifest, &manifest).map_err(FleetError::io("write", &manifest))?;
        for number in 0..=self.directory {
            let part = self.root.join(directory_name(number)).join(MANIFEST);
            if self.made > 0 && !part.exists() {
                let error = io::Error::new(io::ErrorKind::NotFound, "it was removed during the run");
                return Err(FleetError::io("write", &part)(error));
            }
        }
        Ok(())
    }

    fn append(&mut self, rows: &[u8]) -> Result<(), FleetError> {
        if let Err(error) = self.manifest.write_all(rows) {
            // Removes an incomplete row.
            let _ = self.manifest.set_len(self.length);
            let _ = self.manifest.seek(io::SeekFrom::End(0));
            return Err(FleetError::io("write", self.root.join(MANIFEST))(error));
        }
        self.length += rows.len() as u64;
        Ok(())
    }

    fn take(&mut self, output: &mut BatchOutput) -> Result<(), FleetError> {
        if output.directory != self.directory {
            self.name_directory()?;
            self.directory = output.directory;
        }
        self.rows.extend_from_slice(&output.rows);
        self.devices += output.devices;
        if let Some(failure) = output.failure.take() {
            return Err(failure);
        }
        if self.devices == DEVICES_PER_DIRECTORY { self.name_directory() } else { Ok(()) }
    }

    /// Publishes the directory and adds its rows to the manifest: both or neither.
    fn name_directory(&mut self) -> Result<(), FleetError> {
        if self.devices == 0 {
            return Ok(());
        }
        let staging = hidden(&self.root, self.directory);
        let part = staging.join(MANIFEST);
        // A previous attempt on a full disk may have left a part of it.
        let _ = fs::remove_file(&part);
        secure_file::create_new(&part, Access::Everyone)
            .and_then(|mut file| file.write_all(&[header().as_bytes(), &self.rows].concat()))
            .map_err(FleetError::io("write", part))?;
        let named = self.root.join(directory_name(self.directory));
        fs::rename(&staging, &named).map_err(FleetError::io("put in place", &named))?;
        let mut rows = std::mem::take(&mut self.rows);
        if let Err(error) = self.append(&rows) {
            self.rows = rows;
            fs::rename(&named, &staging).map_err(FleetError::io("put aside", named))?;
            return Err(error);
        }
        // Keeps the memory for reuse.
        rows.clear();
        self.rows = rows;
        self.made += std::mem::take(&mut self.devices);
        Ok(())
    }

    /// Publishes the last directory, and removes the files of later batches if the run failed. If the disk is too full for
    /// the manifest, removes the last devices until it fits.
    fn finish(&mut self, failed: bool) -> Result<(), FleetError> {
        let staging = hidden(&self.root, self.directory);
        if failed && self.devices > 0 {
            self.remove_unlisted(&staging)?;
        }
        let named = self.name_directory();
        while named.is_err() && self.devices > 0 {
            let kept = self.devices - self.devices.div_ceil(8);
            let ends = self.rows.iter().enumerate().filter(|&(_, &byte)| byte == b'\n').map(|(at, _)| at + 1);
            let end = ends.take(usize::try_from(kept).unwrap_or_default()).last().unwrap_or_default();
            self.rows.truncate(end);
            self.devices = kept;
            self.remove_unlisted(&staging)?;
            if self.name_directory().is_ok() {
                break;
            }
        }
        remove_hidden(&self.root)?;
        named
    }

    fn remove_unlisted(&self, staging: &Path) -> Result<(), FleetError> {
        let rows = String::from_utf8_lossy(&self.rows);
        let rows: Vec<Row> = rows.lines().filter_map(Row::read).collect();
        let listed: HashSet<_> = rows.iter().flat_map(Row::files).filter_map(|path| path.rsplit('/').next()).collect();
        for entry in fs::read_dir(staging).map_err(FleetError::io("read", staging))?.flatten() {
            if !listed.contains(&*entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).map_err(FleetError::io("remove", entry.path()))?;
            }
        }
        Ok(())
    }
}

const HIDDEN_MANIFEST: &str = ".manifest.csv.tmp";

/// Flushes everything to the disk at once: a call for each file would take longer than all other work.
#[cfg(target_os = "linux")]
fn sync_all(root: &Path) -> Result<(), FleetError> {
    let sync = || rustix::fs::syncfs(File::open(root)?).map_err(io::Error::from);
    sync().map_err(FleetError::io("flush to the disk", root))
}

/// Flushes the directory. Other systems have no call for all files of a file system, and write them later.
#[cfg(not(target_os = "linux"))]
fn sync_all(root: &Path) -> Result<(), FleetError> {
    if let Ok(root) = File::open(root) {
        let _ = root.sync_all();
    }
    Ok(())
}
