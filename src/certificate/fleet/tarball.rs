//! Fleets as one tar stream (POSIX ustar).
//!
//! The members have the paths of the files in directories, and the manifest is the last member. In a file, the first block
//! of each batch is written after the rest of the batch. Until then it is zeros, which end an archive. So if a process is
//! killed, every reader sees a file that ends with a complete set.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use tar::{EntryType, Header, PaxExtensions};

use super::{
    AHEAD, BATCH, Batch, BatchOutput, Fleet, FleetControl, FleetDevice, FleetReport, IfExists,
    error::{FleetError, SourceError},
    layout::{DEVICES_PER_DIRECTORY, Kind, directory_name},
    lock,
    manifest::{self, MANIFEST},
    ordered::{Parallelism, in_order},
};
use crate::certificate::{
    locked_file::LockedFile,
    secure_file::{Access, check_in_place, create_new, open_own},
};

/// The size of a block. Headers and contents are padded to whole blocks.
const BLOCK: usize = 512;

/// The end of an archive: two blocks of zeros.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

impl Fleet<'_> {
    /// Writes the files of the devices as a tar stream. The manifest is the last member, and is kept in an unnamed
    /// temporary file until then.
    ///
    /// # Errors
    /// Returns [`FleetError::Interrupted`] if a certificate could not be issued or written.
    pub fn write_tar(
        &self,
        devices: impl Iterator<Item = Result<FleetDevice, SourceError>> + Send,
        out: impl Write + Send,
        control: FleetControl<'_>,
    ) -> Result<FleetReport, FleetError> {
        let path = Path::new("the tar stream");
        let manifest =
            tempfile::tempfile().map_err(FleetError::io("make a temporary file in", std::env::temp_dir()))?;
        let mut rows = Rows::create(manifest, Path::new("the temporary file of the manifest"))?;
        self.run_tar(devices, Stream { out, path }, &mut rows, 0, control)
    }

    /// Writes the files of the devices as a tar file. The manifest is in it and also beside it, with the name of the tar
    /// file in front: `fleet.tar.manifest.csv`.
    ///
    /// The file is locked until the call returns.
    ///
    /// # Errors
    /// Returns [`FleetError::Exists`] if there is a file and [`IfExists::Fail`] is given, [`FleetError::CannotResume`] or
    /// [`FleetError::OtherDevices`] if it cannot be resumed, [`FleetError::Busy`] if another process has locked the file,
    /// and [`FleetError::Interrupted`] if the run failed after it began.
    pub fn write_tar_file(
        &self,
        mut devices: impl Iterator<Item = Result<FleetDevice, SourceError>> + Send,
        path: &Path,
        if_exists: IfExists,
        control: FleetControl<'_>,
    ) -> Result<FleetReport, FleetError> {
        let resume = if_exists == IfExists::Resume;
        let manifest_path = beside(path);
        let is_there = |path: &&Path| path.symlink_metadata().is_ok();
        if !resume && let Some(found) = [path, &manifest_path].into_iter().find(is_there) {
            return Err(FleetError::Exists(found.to_owned()));
        }
        if resume {
            check_pair(path, &manifest_path)?;
        }
        // A file that another process created in the meantime is not used.
        let open = |path: &Path, access| match if resume { open_own(path, access) } else { create_new(path, access) } {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(FleetError::Exists(path.to_owned())),
            opened => opened.map_err(FleetError::io("write", path)),
        };
        let file = lock(open(path, Access::Owner)?, path)?;
        let manifest = open(&manifest_path, Access::Everyone)?;
        let mut earlier = Earlier { position: 0, sets: 0, rows: 0, pending: None };
        if resume {
            self.find_earlier(&file, path, &manifest, &mut devices, &mut earlier)?;
        }
        let mut tarball = Tarball { file, path, position: earlier.position };
        tarball.cut()?;
        let mut rows = Rows { file: manifest, path: manifest_path.clone(), length: earlier.rows };
        rows.cut().map_err(FleetError::io("write", &manifest_path))?;
        if earlier.rows == 0 {
            rows.append(manifest::header().as_bytes())?;
        }
        (control.progress)(earlier.sets);
        let devices = earlier.pending.into_iter().map(Ok).chain(devices);
        let mut report = self.run_tar(devices, tarball, &mut rows, earlier.sets, control)?;
        rows.file.sync_all().map_err(FleetError::io("flush to the disk", &manifest_path))?;
        check_in_place(&rows.file, &manifest_path).map_err(FleetError::io("write", &manifest_path))?;
        report.manifest = Some(manifest_path);
        Ok(report)
    }

    fn run_tar(
        &self,
        devices: impl Iterator<Item = Result<FleetDevice, SourceError>> + Send,
        mut out: impl Members + Send,
        rows: &mut Rows,
        resumed: u64,
        control: FleetControl<'_>,
    ) -> Result<FleetReport, FleetError> {
        let mut total = resumed;
        let stopped = AtomicBool::new(false);
        let headers = Kind::ALL.map(|kind| self.header(kind.access().mode()));
        let ended = in_order(
            Parallelism { threads: self.threads, ahead: AHEAD },
            self.batches(
                BATCH as u64,
                devices,
                resumed / DEVICES_PER_DIRECTORY,
                resumed % DEVICES_PER_DIRECTORY,
                (control.stop, &stopped),
            ),
            |batch, output| {
                self.encode(&headers, &batch, output)?;
                (control.progress)(output.devices);
                Ok(())
            },
            |output| {
                out.append(&output.members)?;
                rows.append(&output.rows)?;
                total += output.devices;
                Ok(())
            },
        );
        ended
            .and_then(|()| {
                let mut header = self.header(Access::Everyone.mode());
                set_member(&mut header, MANIFEST.as_bytes(), rows.length);
                rows.file.rewind().map_err(FleetError::io("read", &rows.path))?;
                out.finish(&header, &mut (&rows.file).take(rows.length), rows.length)
            })
            .map_err(|error| error.after(total))?;
        Ok(FleetReport { devices: total, resumed, stopped: stopped.into_inner(), manifest: None })
    }

    fn header(&self, mode: u32) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::try_from(self.issuer.issue_time().unix_seconds()).unwrap_or_default());
        header
    }

    fn encode(&self, headers: &[Header; 4], batch: &Batch, output: &mut BatchOutput) -> Result<(), FleetError> {
        (output.directory, output.devices) = (batch.directory, 0);
        output.rows.clear();
        output.members.clear();
        let directory = directory_name(batch.directory);
        let mut path = Vec::new();
        for device in &batch.devices {
            let names = self.names(&directory, device);
            self.issue(&names, device, output, |members, kind, content| {
                let mut header = headers[kind as usize].clone();
                path.clear();
                names.push(&mut path, kind);
                if path.len() > LONGEST_NAME {
                    push_long_name(members, &header, &path);
                }
                set_member(&mut header, &path, content.len() as u64);
                members.extend_from_slice(header.as_bytes());
                push_content(members, content);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Finds the sets that are complete both in the file and in the manifest, and checks them against the requested devices.
    fn find_earlier(
        &self,
        file: &File,
        path: &Path,
        manifest: &File,
        devices: &mut impl Iterator<Item = Result<FleetDevice, SourceError>>,
        earlier: &mut Earlier,
    ) -> Result<(), FleetError> {
        let unfit = |reason: String| FleetError::cannot_resume(path, reason);
        let manifest_path = beside(path);
        let length = file.metadata().map_err(FleetError::io("read", path))?.len();
        let mut file = BufReader::with_capacity(1 << 16, file);
        let mut rows = BufReader::new(manifest);
        let mut row = Vec::new();
        let begin = file.fill_buf().map_err(FleetError::io("read", path))?;
        if !(begin.is_empty() || begin[0] == 0 || begin.starts_with(directory_name(0).as_bytes())) {
            return Err(unfit("it is not the tar file of a fleet".to_owned()));
        }
        loop {
            row.clear();
            rows.read_until(b'\n', &mut row).map_err(FleetError::io("read", &manifest_path))?;
            if row.last() != Some(&b'\n') {
                break;
            }
            if earlier.rows == 0 {
                if row != manifest::header().as_bytes() {
                    let reason = "its first line is not the header of a manifest";
                    return Err(FleetError::cannot_resume(manifest_path, reason));
                }
                earlier.rows = row.len() as u64;
                continue;
            }
            let line = String::from_utf8_lossy(&row);
            let directory = directory_name(earlier.sets / DEVICES_PER_DIRECTORY);
            earlier.pending = devices.next().transpose().map_err(FleetError::Source)?;
            let device = earlier.pending.as_ref();
            let listed = self.check_row(path, line.trim_end(), device, &directory)?;
            let Some(device) = device else { break };
            let names = self.names(&directory, device);
            let mut end = earlier.position;
            for kind in names.kinds() {
                let Some((name, content)) =
                    read_member(&mut file, &mut end, length).map_err(FleetError::io("read", path))?
                else {
                    return Ok(());
                };
                if name != names.path(kind).as_bytes() {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    return Err(unfit(format!("it has {name} where {} is expected", names.path(kind))));
                }
                if kind == Kind::Certificate {
                    if earlier.sets == 0 {
                        self.check_earlier(path, &content)?;
                    }
                    Self::check_certificate(path, &listed, device, &content)?;
                }
            }
            earlier.pending = None;
            earlier.position = end;
            earlier.sets += 1;
            earlier.rows += row.len() as u64;
        }
        Ok(())
    }
}

/// Returns the path of the manifest beside a tar file. No two tar files share one.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(MANIFEST);
    path.with_file_name(name)
}

/// Checks that a tar file and its manifest either both exist or both do not: one of them cannot be resumed, and would be
/// overwritten.
fn check_pair(path: &Path, manifest_path: &Path) -> Result<(), FleetError> {
    let listed = manifest::lists_devices(manifest_path)?;
    let (path, missing) = match fs::metadata(path).map_or(0, |found| found.len()) {
        0 if listed => (manifest_path, path),
        length if length > 0 && !manifest_path.exists() => (path, manifest_path),
        _ => return Ok(()),
    };
    let reason = format!(
        "{} is missing or empty: restore it, or remove the other too to issue the fleet again",
        missing.display()
    );
    Err(FleetError::cannot_resume(path, reason))
}

/// The progress of an earlier run.
struct Earlier {
    /// Where the last complete set ends in the file.
    position: u64,
    sets: u64,
    /// Where its row ends in the manifest.
    rows: u64,
    /// The next device, if it was already taken from the source.
    pending: Option<FleetDevice>,
}

/// Reads the name and content of the next member, and moves `position` to its end. `None` if the member is incomplete.
fn read_member(file: &mut impl Read, position: &mut u64, length: u64) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let Some((header, content)) = read_entry(file, position, length)? else { return Ok(None) };
    if header.entry_type() != EntryType::XHeader {
        return Ok(Some((header.path_bytes().into_owned(), content)));
    }
    let path = PaxExtensions::new(&content).flatten().find(|extension| extension.key_bytes() == b"path");
    let path = path.map(|path| path.value_bytes().to_vec()).unwrap_or_default();
    Ok(read_entry(file, position, length)?.map(|(_, content)| (path, content)))
}

fn read_entry(file: &mut impl Read, position: &mut u64, length: u64) -> io::Result<Option<(Header, Vec<u8>)>> {
    let mut block = [0; BLOCK];
    if *position + BLOCK as u64 > length {
        return Ok(None);
    }
    file.read_exact(&mut block)?;
    let header = Header::from_byte_slice(&block);
    if block[0] == 0 || header.as_ustar().is_none() {
        return Ok(None);
    }
    let size = header.entry_size()?;
    let padded =
        size.checked_next_multiple_of(BLOCK as u64).filter(|padded| *padded <= length - *position - BLOCK as u64);
    let Some(padded) = padded else { return Ok(None) };
    let mut content = Vec::new();
    file.take(padded).read_to_end(&mut content)?;
    content.truncate(usize::try_from(size).unwrap_or(usize::MAX));
    *position += BLOCK as u64 + padded;
    Ok(Some((header.clone(), content)))
}

/// The longest name in the header of a member, in bytes.
const LONGEST_NAME: usize = 100;

/// Fills in the header of a member. A name that is too long is truncated.
fn set_member(header: &mut Header, path: &[u8], size: u64) {
    // The crate splits the path into components, which takes as long as the rest of the header.
    let length = path.len().min(LONGEST_NAME);
    header.as_old_mut().name[..length].copy_from_slice(&path[..length]);
    header.set_size(size);
    header.set_cksum();
}

/// Appends a member that gives the next one a longer name (POSIX pax, "extended header"), for an ID with many colons.
fn push_long_name(members: &mut Vec<u8>, header: &Header, path: &[u8]) {
    // A record begins with its own length: three digits for a path of 100 to 985 bytes. An ID has at most 64.
    let record = [format!("{} path=", path.len() + 10).as_bytes(), path, b"\n"].concat();
    let mut header = header.clone();
    header.set_entry_type(EntryType::XHeader);
    set_member(&mut header, path, record.len() as u64);
    members.extend_from_slice(header.as_bytes());
    push_content(members, &record);
}

fn push_content(members: &mut Vec<u8>, content: &[u8]) {
    members.extend_from_slice(content);
    let end = members.len().next_multiple_of(BLOCK);
    members.resize(end, 0);
}

/// The destination of members.
trait Members {
    /// Appends complete sets.
    fn append(&mut self, members: &[u8]) -> Result<(), FleetError>;
    /// Appends the manifest and ends the archive.
    fn finish(&mut self, header: &Header, content: &mut impl Read, length: u64) -> Result<(), FleetError>;
}

fn write_last(out: &mut impl Write, header: &Header, content: &mut impl Read, length: u64) -> io::Result<()> {
    out.write_all(header.as_bytes())?;
    if io::copy(content, out)? != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let padding = length.next_multiple_of(BLOCK as u64) - length;
    io::copy(&mut io::repeat(0).take(padding), out)?;
    out.write_all(&END)?;
    out.flush()
}

/// A stream, which cannot be rewound.
struct Stream<'a, W> {
    out: W,
    path: &'a Path,
}

impl<W: Write> Members for Stream<'_, W> {
    fn append(&mut self, members: &[u8]) -> Result<(), FleetError> {
        self.out.write_all(members).map_err(FleetError::io("write", self.path))
    }

    fn finish(&mut self, header: &Header, content: &mut impl Read, length: u64) -> Result<(), FleetError> {
        write_last(&mut self.out, header, content, length).map_err(FleetError::io("write", self.path))
    }
}

/// A file.
struct Tarball<'a> {
    file: LockedFile,
    path: &'a Path,
    /// Where the last whole set ends.
    position: u64,
}

impl Tarball<'_> {
    fn cut(&mut self) -> Result<(), FleetError> {
        self.file.set_len(self.position).map_err(FleetError::io("write", self.path))
    }

    fn write(&mut self, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), FleetError> {
        write(&mut self.file).map_err(|error| {
            // Removes the incomplete set.
            let _ = self.cut();
            FleetError::io("write", self.path)(error)
        })
    }
}

impl Members for Tarball<'_> {
    fn append(&mut self, members: &[u8]) -> Result<(), FleetError> {
        let (first, rest) = members.split_at(BLOCK.min(members.len()));
        let position = self.position;
        self.write(|file| {
            file.seek(SeekFrom::Start(position + BLOCK as u64))?;
            file.write_all(rest)?;
            file.seek(SeekFrom::Start(position))?;
            file.write_all(first)
        })?;
        self.position += members.len() as u64;
        Ok(())
    }

    fn finish(&mut self, header: &Header, content: &mut impl Read, length: u64) -> Result<(), FleetError> {
        let position = self.position;
        self.write(|file| {
            file.seek(SeekFrom::Start(position))?;
            write_last(file, header, content, length)?;
            file.sync_all()
        })?;
        check_in_place(&self.file, self.path).map_err(FleetError::io("write", self.path))
    }
}

/// The manifest that is being written.
struct Rows {
    file: File,
    path: PathBuf,
    /// The length up to the last complete row.
    length: u64,
}

impl Rows {
    fn create(file: File, path: &Path) -> Result<Self, FleetError> {
        let mut rows = Self { file, path: path.to_owned(), length: 0 };
        rows.append(manifest::header().as_bytes())?;
        Ok(rows)
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length)).map(|_| ())
    }

    fn append(&mut self, rows: &[u8]) -> Result<(), FleetError> {
        if let Err(error) = self.file.write_all(rows) {
            // Removes an incomplete row.
            let _ = self.cut();
            return Err(FleetError::io("write", &self.path)(error));
        }
        self.length += rows.len() as u64;
        Ok(())
    }
}
