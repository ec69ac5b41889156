//! A fleet as files, in folders of a thousand devices.
//!
//! A folder is filled under a hidden name, `.NNNN.tmp`, together with its own part of the manifest, and gets its name by
//! one rename when all in it is whole. What has no name yet when a process is killed is removed by the next. A run that
//! goes on begins a new folder, so that a named one is never changed.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
};

use super::{
    AHEAD, Batch, DEVICES_IN_FOLDER, Fleet, FleetControl, FleetDevice, FleetError, FleetReport, Kind, MANIFEST, Made,
    SourceError, folder_name, lock,
    manifest::{header, id_of, lists_devices, paths_of},
    ordered::in_order,
};
use crate::certificate::files::open_to_lock;

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
        fs::create_dir_all(folder).map_err(FleetError::io("make the folder", folder))?;
        let turn = open_to_lock(folder).map_err(FleetError::io("open the folder", folder))?;
        lock(&turn, folder)?;
        let manifest = folder.join(MANIFEST);
        let first = folder.join(folder_name(0));
        if !resume && let Some(found) = [&manifest, &first, &hidden(folder, 0)].into_iter().find(|path| path.exists()) {
            return Err(FleetError::Exists(found.clone()));
        }
        if resume && lists_devices(&manifest)? && !first.exists() {
            let reason = "it lists devices whose folders are not there: put them back, or remove it to have the fleet \
                          made anew"
                .to_owned();
            return Err(FleetError::Earlier { path: manifest, reason });
        }
        let mut writer = FolderWriter::create(folder)?;
        let mut number = 0;
        if resume {
            number = self.adopt_all(&mut writer, &mut devices).inspect_err(|_| {
                let _ = fs::remove_file(folder.join(HIDDEN_MANIFEST));
            })?;
            (control.progress)(writer.made);
        }
        writer.publish()?;
        let resumed = writer.made;
        let ended = in_order(
            // A folder for each thread: threads that write to one folder wait for one another in the file system.
            (self.threads, if self.quick { 1 } else { AHEAD }),
            self.batches(DEVICES_IN_FOLDER, devices, number, 0, control.stop),
            |batch, made: &mut Made| {
                made.failure = self.write_sets(folder, &batch, made, control.progress).err();
                Ok(())
            },
            |made| writer.take(made),
        );
        let finished = writer.finish(ended.is_err());
        let sync = sync_all(folder);
        let made = writer.made;
        ended.and(finished).and(sync).map_err(|error| error.after(made))?;
        let stopped = control.stop.load(std::sync::atomic::Ordering::Relaxed);
        Ok(FleetReport { devices: made, resumed, stopped, manifest: Some(manifest) })
    }

    /// Checks, without a change, that what an earlier run left in a folder was made by this authority and is valid
    /// still.
    ///
    /// # Errors
    /// [`FleetError::Earlier`], or [`FleetError::Io`] when the system refuses.
    pub fn check_folders(&self, folder: &Path) -> Result<(), FleetError> {
        for number in 0.. {
            let folder = folder.join(folder_name(number));
            if !folder.exists() {
                break;
            }
            let part = folder.join(MANIFEST);
            let rows = fs::read_to_string(&part).map_err(FleetError::io("read", &part))?;
            if let Some(path) = rows.lines().nth(1).and_then(|row| paths_of(row).last()) {
                let path = folder.with_file_name("").join(path);
                let pem = fs::read(&path).map_err(FleetError::io("read", &path))?;
                self.check_earlier(&folder, &pem)?;
            }
        }
        Ok(())
    }

    fn write_sets(
        &self,
        folder: &Path,
        batch: &Batch,
        made: &mut Made,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), FleetError> {
        (made.folder, made.devices) = (batch.folder, 0);
        made.rows.clear();
        let staging = hidden(folder, batch.folder);
        // Another thread may have made it for an earlier batch.
        if let Err(error) = fs::create_dir(&staging)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(FleetError::io("make the folder", staging)(error));
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

    /// Takes over what earlier runs completed; the number of folders.
    fn adopt_all(
        &self,
        writer: &mut FolderWriter,
        devices: &mut impl Iterator<Item = Result<FleetDevice, SourceError>>,
    ) -> Result<u64, FleetError> {
        let mut number = 0;
        while self.adopt(writer, number, devices)? {
            number += 1;
        }
        remove_hidden(&writer.root)?;
        Ok(number)
    }

    /// Takes over a folder that an earlier run completed, if there is one of that number.
    fn adopt(
        &self,
        writer: &mut FolderWriter,
        number: u64,
        devices: &mut impl Iterator<Item = Result<FleetDevice, SourceError>>,
    ) -> Result<bool, FleetError> {
        let name = folder_name(number);
        let folder = writer.root.join(&name);
        if !folder.exists() {
            return Ok(false);
        }
        let unfit = |reason: String| FleetError::Earlier { path: folder.clone(), reason };
        let part = folder.join(MANIFEST);
        let rows = fs::read_to_string(&part).map_err(FleetError::io("read", &part))?;
        for (index, row) in rows.lines().skip(1).enumerate() {
            let device = devices.next().transpose().map_err(FleetError::Source)?;
            let device = device.ok_or_else(|| unfit(format!("it has {}, which is not asked for", id_of(row))))?;
            if device.id.as_str() != id_of(row) {
                return Err(unfit(format!("it has {} where {} is asked for", id_of(row), device.id)));
            }
            let mut expected: Vec<_> = self.names(&name, &device).kinds().collect();
            for path in paths_of(row) {
                let path = writer.root.join(path);
                // After a loss of power a file may be there without its content.
                if !fs::metadata(&path).is_ok_and(|found| found.len() > 0) {
                    return Err(unfit(format!(
                        "{} is missing or empty; remove the folder to have it made anew",
                        path.display()
                    )));
                }
                expected.retain(|kind| !path.to_string_lossy().ends_with(kind.suffix()));
            }
            if let Some(kind) = expected.first() {
                return Err(unfit(format!("{} has no file of the kind {}", device.id, kind.suffix())));
            }
            if index == 0 {
                let path = writer.root.join(self.names(&name, &device).path(Kind::Certificate));
                let pem = fs::read(&path).map_err(FleetError::io("read", &path))?;
                self.check_earlier(&folder, &pem)?;
            }
            writer.made += 1;
        }
        let rows = rows.split_once('\n').map_or("", |(_, rows)| rows);
        writer.append(rows.as_bytes())?;
        Ok(true)
    }
}

/// The name of a folder while it is being filled.
fn hidden(root: &Path, number: u64) -> PathBuf {
    root.join(format!(".{}.tmp", folder_name(number)))
}

fn remove_hidden(root: &Path) -> Result<(), FleetError> {
    for entry in fs::read_dir(root).map_err(FleetError::io("read", root))? {
        let entry = entry.map_err(FleetError::io("read", root))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".tmp"));
        if number.is_some_and(|number| number.len() >= 4 && number.bytes().all(|byte| byte.is_ascii_digit())) {
            fs::remove_dir_all(entry.path()).map_err(FleetError::io("remove", entry.path()))?;
        }
    }
    Ok(())
}

fn write_new(path: &Path, kind: Kind, content: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, kind.mode());
    #[cfg(not(unix))]
    let _ = kind;
    options.open(path)?.write_all(content)
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
        let manifest = File::create(&path).map_err(FleetError::io("write", path))?;
        let mut writer =
            Self { root: root.to_owned(), manifest, length: 0, made: 0, folder: 0, devices: 0, rows: Vec::new() };
        writer.append(header().as_bytes())?;
        Ok(writer)
    }

    fn publish(&self) -> Result<(), FleetError> {
        let path = self.root.join(MANIFEST);
        fs::rename(self.root.join(HIDDEN_MANIFEST), &path).map_err(FleetError::io("put in place", path))
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
        fs::write(&part, [header().as_bytes(), &self.rows].concat()).map_err(FleetError::io("write", part))?;
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
