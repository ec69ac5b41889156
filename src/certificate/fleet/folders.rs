//! A fleet as files, in folders of a thousand devices.
//!
//! A folder is filled under a hidden name, `.NNNN.tmp`, together with its own part of the manifest, and gets its name by
//! one rename when all in it is whole. What has no name yet when a process is killed is removed by the next, if it holds
//! nothing but files of a fleet. A run that resumes begins a new folder, so that a named one is never changed. No link of
//! a hidden name is followed: files are only created in directories that this run has created.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, atomic::AtomicBool},
};

use super::{
    AHEAD, Batch, DEVICES_IN_FOLDER, Fleet, FleetControl, FleetDevice, FleetError, FleetReport, Kind, MANIFEST, Made,
    SourceError, folder_name, lock,
    manifest::{header, lists_devices, paths_of},
    ordered::in_order,
    other_devices,
};
use crate::certificate::{
    files::open_to_lock,
    secure_file::{self, Access, check_in_place},
};

impl Fleet<'_> {
    /// Writes the devices' files below a folder, which is made where it is missing: each set in a folder of a thousand,
    /// `0000/ID_cert.pem` and so on, and the manifest with them.
    ///
    /// With `resume`, what an earlier run left there is kept, and the devices that are missing are made. `devices` has to
    /// give the same devices in the same order.
    ///
    /// # Errors
    /// [`FleetError::Exists`] when there is a fleet already and `resume` is not given, [`FleetError::Earlier`] when it
    /// cannot be gone on with, [`FleetError::Busy`] when another process has locked the folder, which this one does until
    /// it is done, [`FleetError::Interrupted`] when not all could be made.
    pub fn write_folders(
        &self,
        mut devices: impl Iterator<Item = Result<FleetDevice, SourceError>> + Send,
        folder: &Path,
        resume: bool,
        control: FleetControl<'_>,
    ) -> Result<FleetReport, FleetError> {
        secure_file::create_directory_all(folder).map_err(FleetError::io("create the directory", folder))?;
        let turn = open_to_lock(folder).map_err(FleetError::io("open the directory", folder))?;
        lock(&turn, folder)?;
        let manifest = folder.join(MANIFEST);
        let first = completed(folder)?.first().map(|&number| folder.join(folder_name(number)));
        let places = [manifest.clone(), folder.join(folder_name(0)), hidden(folder, 0)];
        if !resume && let Some(found) = places.into_iter().chain(first).find(|path| path.symlink_metadata().is_ok()) {
            return Err(FleetError::Exists(found));
        }
        let earlier = if resume { earlier(folder)? } else { 0 };
        let mut writer = FolderWriter::create(folder)?;
        if resume {
            let adopted = (0..earlier).try_for_each(|number| {
                let (rows, count) = self.read_folder(folder, number, &mut devices)?;
                writer.made += count;
                writer.append(rows.as_bytes())
            });
            adopted.inspect_err(|_| {
                let _ = fs::remove_file(folder.join(HIDDEN_MANIFEST));
            })?;
            remove_hidden(folder)?;
            (control.progress)(writer.made);
        }
        writer.publish()?;
        let resumed = writer.made;
        let stopped = AtomicBool::new(false);
        let created = Mutex::new(HashSet::new());
        let ended = in_order(
            // A folder for each thread: threads that write to one folder wait for one another in the file system.
            (self.threads, if self.quick { 1 } else { AHEAD }),
            self.batches(DEVICES_IN_FOLDER, devices, earlier, 0, (control.stop, &stopped)),
            |batch, made: &mut Made| {
                made.failure = self.write_sets((folder, &created), &batch, made, control.progress).err();
                Ok(())
            },
            |made| writer.take(made),
        );
        let finished = writer.finish(ended.is_err());
        let sync = sync_all(folder);
        let made = writer.made;
        ended.and(finished).and(sync).and_then(|()| writer.check_in_place(&turn)).map_err(|error| error.after(made))?;
        Ok(FleetReport { devices: made, resumed, stopped: stopped.into_inner(), manifest: Some(manifest) })
    }

    /// Checks, without a change, that [`write_folders`](Self::write_folders) can go on with what an earlier run left in a
    /// folder.
    ///
    /// # Errors
    /// [`FleetError::Earlier`], or [`FleetError::Io`] when the system refuses.
    pub fn check_folders(
        &self,
        mut devices: impl Iterator<Item = Result<FleetDevice, SourceError>>,
        folder: &Path,
    ) -> Result<(), FleetError> {
        if !folder.exists() {
            return Ok(());
        }
        (0..earlier(folder)?).try_for_each(|number| self.read_folder(folder, number, &mut devices).map(drop))
    }

    fn write_sets(
        &self,
        (folder, created): (&Path, &Mutex<HashSet<u64>>),
        batch: &Batch,
        made: &mut Made,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), FleetError> {
        (made.folder, made.devices) = (batch.folder, 0);
        made.rows.clear();
        let staging = hidden(folder, batch.folder);
        {
            // Another thread may have created it for an earlier batch; anybody else's is not written to.
            let mut created = created.lock().unwrap_or_else(PoisonError::into_inner);
            if !created.contains(&batch.folder) {
                secure_file::create_directory(&staging).map_err(FleetError::io("create the directory", &staging))?;
                created.insert(batch.folder);
            }
        }
        let name = folder_name(batch.folder);
        for device in &batch.devices {
            let names = self.names(&name, device);
            self.make(&names, device, made, |_, kind, content| {
                let path = names.path(kind);
                let path = staging.join(path.rsplit('/').next().unwrap_or_default());
                write_new(&path, kind, content).map_err(FleetError::io("write", &path))
            })?;
            progress(1);
        }
        Ok(())
    }

    /// The rows of a folder that an earlier run completed, and how many they are: of the devices that are asked for, and
    /// whole.
    fn read_folder(
        &self,
        root: &Path,
        number: u64,
        devices: &mut impl Iterator<Item = Result<FleetDevice, SourceError>>,
    ) -> Result<(String, u64), FleetError> {
        let name = folder_name(number);
        let folder = root.join(&name);
        let part = folder.join(MANIFEST);
        let text = fs::read_to_string(&part).map_err(FleetError::io("read", &part))?;
        let rows = text.strip_prefix(&header()).filter(|rows| rows.ends_with('\n'));
        let rows = rows.ok_or_else(|| unfit(&folder, format!("its {MANIFEST} is not whole: {ANEW}")))?;
        for (index, row) in rows.lines().enumerate() {
            let device = devices.next().transpose().map_err(FleetError::Source)?;
            let device = device.ok_or_else(|| other_devices(&folder, row, None))?;
            let names = self.names(&name, &device);
            Self::check_row(&folder, row, &device, &names)?;
            for path in paths_of(row) {
                let path = root.join(path);
                // After a loss of power a file may be there without its content.
                if !fs::metadata(&path).is_ok_and(|found| found.len() > 0) {
                    return Err(unfit(&folder, format!("{} is missing or empty: {ANEW}", path.display())));
                }
            }
            if index == 0 || device.public_key.is_some() {
                let path = root.join(names.path(Kind::Certificate));
                let pem = fs::read(&path).map_err(FleetError::io("read", &path))?;
                if index == 0 {
                    self.check_earlier(&folder, &pem)?;
                }
                Self::check_certificate(&folder, row, &device, &pem)?;
            }
        }
        let told = rows.lines().count();
        let found = fs::read_dir(&folder).map_err(FleetError::io("read", &folder))?.flatten();
        // Not the hidden files that some systems put beside others.
        let certificate = |name: &str| name.ends_with(Kind::Certificate.suffix()) && !name.starts_with('.');
        let found = found.filter(|entry| certificate(&entry.file_name().to_string_lossy())).count();
        if found != told {
            let reason = format!("it has {found} certificates, and its {MANIFEST} lists {told}: {ANEW}");
            return Err(unfit(&folder, reason));
        }
        Ok((rows.to_owned(), told as u64))
    }
}

/// What helps where a folder is not whole.
const ANEW: &str = "to have it made anew, remove it and the numbered folders after it";

fn unfit(path: &Path, reason: String) -> FleetError {
    FleetError::Earlier { path: path.to_owned(), reason }
}

/// The numbers of the folders that earlier runs completed, in order.
fn completed(root: &Path) -> Result<Vec<u64>, FleetError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(root).map_err(FleetError::io("read", root))? {
        let entry = entry.map_err(FleetError::io("read", root))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| Some((name, name.parse().ok()?)));
        // A folder of somebody else may be called by a number too, but has no manifest.
        if let Some((name, number)) = number
            && folder_name(number) == name
            && entry.path().join(MANIFEST).exists()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// How many folders earlier runs completed, which have to follow one another from the first.
fn earlier(root: &Path) -> Result<u64, FleetError> {
    let manifest = root.join(MANIFEST);
    let completed = completed(root)?;
    if lists_devices(&manifest)? && completed.is_empty() {
        let reason =
            "it lists devices whose folders are not there: put them back, or remove it to have the fleet made anew";
        return Err(unfit(&manifest, reason.to_owned()));
    }
    for (&number, expected) in completed.iter().zip(0..) {
        if number != expected {
            let missing = folder_name(expected);
            let reason =
                format!("the folder {missing} before it is missing or has no {MANIFEST}: put that back, or, {ANEW}");
            return Err(unfit(&root.join(folder_name(number)), reason));
        }
    }
    let next = root.join(folder_name(completed.len() as u64));
    if next.exists() {
        return Err(unfit(&next, format!("it has no {MANIFEST}: {ANEW}")));
    }
    Ok(completed.len() as u64)
}

/// The name of a folder while it is being filled.
fn hidden(root: &Path, number: u64) -> PathBuf {
    root.join(format!(".{}.tmp", folder_name(number)))
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
                let reason = "it was not made by an earlier run: move it elsewhere".to_owned();
                return Err(unfit(&path, reason));
            }
            fs::remove_dir_all(&path).map_err(FleetError::io("remove", path))?;
        }
    }
    Ok(())
}

/// Whether it is a directory that holds only what a run puts there: files of sets, and a manifest.
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

/// Names the folders and keeps the manifest.
struct FolderWriter {
    root: PathBuf,
    manifest: File,
    /// The length of the manifest up to its last whole row.
    length: u64,
    /// The devices in named folders.
    made: u64,
    /// The folder being filled, its devices and their rows.
    folder: u64,
    devices: u64,
    rows: Vec<u8>,
}

impl FolderWriter {
    /// Begins a manifest under a hidden name: what is there is replaced only when the new one tells as much.
    fn create(root: &Path) -> Result<Self, FleetError> {
        let path = root.join(HIDDEN_MANIFEST);
        // A killed run may have left one, which lists nothing that is not in the directories.
        if path.symlink_metadata().is_ok_and(|found| found.is_file()) {
            lists_devices(&path)?;
            fs::remove_file(&path).map_err(FleetError::io("remove", &path))?;
        }
        let manifest = secure_file::create_new(&path, Access::Everyone).map_err(FleetError::io("write", path))?;
        let mut writer =
            Self { root: root.to_owned(), manifest, length: 0, made: 0, folder: 0, devices: 0, rows: Vec::new() };
        writer.append(header().as_bytes())?;
        Ok(writer)
    }

    fn publish(&self) -> Result<(), FleetError> {
        let path = self.root.join(MANIFEST);
        fs::rename(self.root.join(HIDDEN_MANIFEST), &path).map_err(FleetError::io("put in place", path))
    }

    /// Fails when somebody has removed or replaced what the run wrote.
    fn check_in_place(&self, root: &File) -> Result<(), FleetError> {
        let manifest = self.root.join(MANIFEST);
        if cfg!(unix) {
            check_in_place(root, &self.root).map_err(FleetError::io("write", &self.root))?;
        }
        check_in_place(&self.manifest, &manifest).map_err(FleetError::io("write", &manifest))?;
        for number in 0..=self.folder {
            let part = self.root.join(folder_name(number)).join(MANIFEST);
            if self.made > 0 && !part.exists() {
                let error = io::Error::new(io::ErrorKind::NotFound, "it was removed during the run");
                return Err(FleetError::io("write", &part)(error));
            }
        }
        Ok(())
    }

    fn append(&mut self, rows: &[u8]) -> Result<(), FleetError> {
        if let Err(error) = self.manifest.write_all(rows) {
            // Nothing of a row that is not whole.
            let _ = self.manifest.set_len(self.length);
            let _ = self.manifest.seek(io::SeekFrom::End(0));
            return Err(FleetError::io("write", self.root.join(MANIFEST))(error));
        }
        self.length += rows.len() as u64;
        Ok(())
    }

    fn take(&mut self, made: &mut Made) -> Result<(), FleetError> {
        if made.folder != self.folder {
            self.name_folder()?;
            self.folder = made.folder;
        }
        self.rows.extend_from_slice(&made.rows);
        self.devices += made.devices;
        if let Some(failure) = made.failure.take() {
            return Err(failure);
        }
        if self.devices == DEVICES_IN_FOLDER { self.name_folder() } else { Ok(()) }
    }

    /// Gives the folder its name, then tells of its devices; both or neither.
    fn name_folder(&mut self) -> Result<(), FleetError> {
        if self.devices == 0 {
            return Ok(());
        }
        let staging = hidden(&self.root, self.folder);
        let part = staging.join(MANIFEST);
        // One attempt on a full disk may have left a part of it.
        let _ = fs::remove_file(&part);
        secure_file::create_new(&part, Access::Everyone)
            .and_then(|mut file| file.write_all(&[header().as_bytes(), &self.rows].concat()))
            .map_err(FleetError::io("write", part))?;
        let named = self.root.join(folder_name(self.folder));
        fs::rename(&staging, &named).map_err(FleetError::io("put in place", &named))?;
        let mut rows = std::mem::take(&mut self.rows);
        if let Err(error) = self.append(&rows) {
            self.rows = rows;
            fs::rename(&named, &staging).map_err(FleetError::io("put aside", named))?;
            return Err(error);
        }
        // For its memory.
        rows.clear();
        self.rows = rows;
        self.made += std::mem::take(&mut self.devices);
        Ok(())
    }

    /// Names the last folder, and removes what later batches have left of a run that failed. Where a full disk has no
    /// room for the manifest, the last devices go until it has.
    fn finish(&mut self, failed: bool) -> Result<(), FleetError> {
        let staging = hidden(&self.root, self.folder);
        if failed && self.devices > 0 {
            self.remove_untold(&staging)?;
        }
        let named = self.name_folder();
        while named.is_err() && self.devices > 0 {
            let kept = self.devices - self.devices.div_ceil(8);
            let ends = self.rows.iter().enumerate().filter(|&(_, &byte)| byte == b'\n').map(|(at, _)| at + 1);
            let end = ends.take(usize::try_from(kept).unwrap_or_default()).last().unwrap_or_default();
            self.rows.truncate(end);
            self.devices = kept;
            self.remove_untold(&staging)?;
            if self.name_folder().is_ok() {
                break;
            }
        }
        remove_hidden(&self.root)?;
        named
    }

    fn remove_untold(&self, staging: &Path) -> Result<(), FleetError> {
        let rows = String::from_utf8_lossy(&self.rows);
        let told: HashSet<_> = rows.lines().flat_map(paths_of).filter_map(|path| path.rsplit('/').next()).collect();
        for entry in fs::read_dir(staging).map_err(FleetError::io("read", staging))?.flatten() {
            if !told.contains(&*entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).map_err(FleetError::io("remove", entry.path()))?;
            }
        }
        Ok(())
    }
}

const HIDDEN_MANIFEST: &str = ".manifest.csv.tmp";

/// Makes all of it lasting at once: a call for each file would cost more than all the rest.
#[cfg(target_os = "linux")]
fn sync_all(root: &Path) -> Result<(), FleetError> {
    let sync = || rustix::fs::syncfs(File::open(root)?).map_err(io::Error::from);
    sync().map_err(FleetError::io("flush to the disk", root))
}

/// Elsewhere only the folder itself can be flushed; the system writes the files in its own time.
#[cfg(not(target_os = "linux"))]
fn sync_all(root: &Path) -> Result<(), FleetError> {
    if let Ok(root) = File::open(root) {
        let _ = root.sync_all();
    }
    Ok(())
}
