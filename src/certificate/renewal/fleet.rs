//! Renewal of a fleet, and of the rows of its manifest.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{BufReader, BufWriter, Read},
    path::{Component, Path, PathBuf},
    sync::atomic::Ordering,
};

use csv::StringRecord;

use super::{
    error::RenewalError,
    report::{RenewalControl, RenewalReport},
    set::{KeyHolder, Renewed, Renewer, batch_size, set_of_file},
};
use crate::certificate::{
    files::{FileSet, open_to_lock, read_certificates, recover_directory},
    fleet::{
        FleetError, MANIFEST, lock,
        manifest::{Columns, csv_error},
        ordered::{Parallelism, in_order},
    },
    secure_file::{self, Access},
};

/// How many batches for each thread may be in progress or done before the oldest is taken.
const AHEAD: usize = 4;

/// The manifest while it is written.
const HIDDEN_MANIFEST: &str = ".manifest.csv.renewal.tmp";

/// A fleet, or the part of it below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetPart {
    /// The directory with the manifest.
    pub root: PathBuf,
    /// The directory or certificate file to renew, relative to `root`. `None` for the whole fleet.
    pub below: Option<PathBuf>,
}

/// A row of the manifest, and what becomes of it.
struct Device {
    row: StringRecord,
    /// `None` if the row is copied unchanged.
    set: Option<(FileSet, KeyHolder)>,
    /// Why the row is not renewed.
    refusal: Option<(FileSet, RenewalError)>,
    /// Whether the run was stopped before this device.
    is_stopped: bool,
}

/// A row after the renewal.
struct Done {
    row: StringRecord,
    /// Whether the row describes the certificate as it is now.
    is_current: bool,
    is_stopped: bool,
    outcome: Option<(FileSet, Result<Renewed, RenewalError>)>,
}

impl FleetPart {
    /// Returns the fleet that a directory or a certificate file belongs to, by the manifest in the directory or in one of
    /// the two above. `None` if it belongs to none.
    ///
    /// # Errors
    /// Returns [`FleetError`] if a manifest cannot be read.
    pub fn containing(path: &Path) -> Result<Option<Self>, FleetError> {
        if path.is_dir() && lists(path, |_| true)? {
            return Ok(Some(Self { root: path.to_owned(), below: None }));
        }
        let Some(full) = full_path(path) else { return Ok(None) };
        let (Some(name), Some(found)) = (full.file_name(), full.parent()) else { return Ok(None) };
        let mut below = PathBuf::from(name);
        for root in found.ancestors().take(2) {
            if lists(root, |certificate| certificate.starts_with(&below))? {
                return Ok(Some(Self { root: root.to_owned(), below: Some(below) }));
            }
            let Some(name) = root.file_name() else { break };
            below = Path::new(name).join(below);
        }
        Ok(None)
    }

    fn includes(&self, certificate: &Path) -> bool {
        self.below.as_ref().is_none_or(|below| certificate.starts_with(below))
    }
}

/// Returns the path of a file or directory without links. The file may be missing while its set is being replaced.
fn full_path(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return fs::canonicalize(path).ok();
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(fs::canonicalize(directory).ok()?.join(path.file_name()?))
}

/// Returns whether the manifest of a directory lists a certificate file for which the predicate holds, and which exists or
/// will once an interrupted replacement is finished. A file of that name may be something else.
fn lists(root: &Path, mut is_meant: impl FnMut(&Path) -> bool) -> Result<bool, FleetError> {
    let path = root.join(MANIFEST);
    if !path.is_file() {
        return Ok(false);
    }
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).from_path(&path).map_err(|error| csv_error(&path, error))?;
    let Some(columns) = reader.headers().ok().and_then(Columns::of) else { return Ok(false) };
    for row in reader.records() {
        let row = row.map_err(|error| csv_error(&path, error))?;
        let certificate = Path::new(columns.certificate(&row));
        if is_meant(certificate) {
            // The parts of a manifest in the numbered directories name files relative to the directory above.
            return Ok(root.join(certificate).parent().is_some_and(Path::is_dir));
        }
    }
    Ok(false)
}

impl Renewer<'_> {
    /// Renews the certificates of a fleet, and the rows of its manifest: thumbprints, serial number and validity.
    ///
    /// The manifest is replaced at the end, and those in the numbered directories after each of them. Until then, they list
    /// the old certificates of renewed devices. If the process is killed, the next run corrects all rows, also those of
    /// devices that are not due.
    ///
    /// A device that keeps its own key, whose row names no key file, gets a new certificate for the same key.
    ///
    /// # Errors
    /// Returns [`FleetError::Busy`] if another process has locked the fleet, and other errors if the manifest cannot be read
    /// or the file system fails.
    pub fn renew_fleet(&self, fleet: &FleetPart, control: RenewalControl<'_>) -> Result<RenewalReport, RenewalError> {
        let root = &fleet.root;
        let locked = open_to_lock(root).map_err(FleetError::io("open the directory", root))?;
        let _turn = lock(locked, root)?;
        self.issuers.set_locked(root);
        let path = root.join(MANIFEST);
        let mut reader = csv::Reader::from_path(&path).map_err(|error| csv_error(&path, error))?;
        let header = reader.headers().map_err(|error| csv_error(&path, error))?.clone();
        let columns = Columns::of(&header).ok_or_else(|| FleetError::Manifest {
            path: path.clone(),
            reason: "its header has no column certificate".to_owned(),
        })?;
        let mut report = RenewalReport { manifest: Some(path.clone()), ..RenewalReport::default() };
        let mut writer = ManifestWriter::create(root, &path, &header, self.options.is_dry_run)?;
        let mut rows = reader.into_records().peekable();
        let first = rows.peek().and_then(|row| row.as_ref().ok());
        let size = batch_size(&self.options, first.is_some_and(|row| !columns.pfx(row).is_empty()));
        let mut finished: Option<PathBuf> = None;
        let mut seen = HashSet::new();
        let next = || {
            let mut batch = Vec::new();
            for row in rows.by_ref().take(size) {
                let row = row.map_err(|error| csv_error(&path, error))?;
                let is_stopped = control.stop.load(Ordering::Relaxed);
                let certificate = Path::new(columns.certificate(&row));
                let mut refusal = None;
                let mut set = if is_stopped || !fleet.includes(certificate) {
                    None
                } else {
                    let directory = root.join(certificate.parent().unwrap_or(Path::new("")));
                    let is_root = certificate.parent() == Some(Path::new(""));
                    if finished.as_ref() != Some(&directory) {
                        recover_directory(&directory, is_root)?;
                        finished = Some(directory);
                    }
                    let (files, holder) = columns.set(root, &path, &row)?;
                    Some((if is_root { files.in_locked_directory() } else { files }, holder))
                };
                // Renewed twice, one of the rows would be of a certificate that is no longer there.
                if !seen.insert(columns.identity(&row).to_owned()) {
                    let repeated =
                        || RenewalError::RepeatedRow { manifest: path.clone(), id: columns.id(&row).to_owned() };
                    refusal = set.take().map(|(files, _)| (files, repeated()));
                }
                batch.push(Device { row, set, refusal, is_stopped });
            }
            Ok((!batch.is_empty()).then_some(batch))
        };
        let mut stopped = false;
        in_order(
            Parallelism { threads: self.threads, ahead: AHEAD },
            next,
            |batch: Vec<Device>, done: &mut Vec<Done>| {
                done.extend(self.renew_devices(batch, &columns));
                Ok(())
            },
            |done| {
                for Done { row, is_current, is_stopped, outcome } in done.drain(..) {
                    stopped |= is_stopped;
                    writer.add(&row, is_current, &columns)?;
                    if let Some((files, outcome)) = outcome {
                        report.add(&files, outcome, control)?;
                    }
                }
                Ok::<_, RenewalError>(())
            },
        )?;
        writer.finish(&columns)?;
        report.stopped = stopped;
        Ok(report)
    }

    fn renew_devices(&self, devices: Vec<Device>, columns: &Columns) -> Vec<Done> {
        let sets = devices.iter().filter_map(|device| device.set.clone()).collect();
        let mut outcomes = self.renew_batch(sets, &self.options).into_iter();
        let done = |Device { mut row, set, refusal, is_stopped }: Device| {
            if let Some((files, error)) = refusal {
                return Done { row, is_current: false, is_stopped, outcome: Some((files, Err(error))) };
            }
            let outcome = set.and_then(|_| outcomes.next());
            let in_place;
            let certificate = match &outcome {
                Some((_, Ok(Renewed::Done(set)))) => Some(&set.certificate),
                // A killed run may have renewed the certificate, and not the row.
                Some((_, Ok(Renewed::NotDue(not_due)))) => Some(&not_due.certificate),
                Some((files, Err(_))) => {
                    let path = files.certificate();
                    in_place = if path.is_file() { read_certificates(&path).unwrap_or_default() } else { Vec::new() };
                    // A row never vouches for the certificate of another device.
                    in_place.first().filter(|found| files.check_name(found).is_ok())
                }
                None => None,
            };
            if let Some(certificate) = certificate {
                columns.update(&mut row, certificate);
            }
            Done { row, is_current: certificate.is_some(), is_stopped, outcome }
        };
        devices.into_iter().map(done).collect()
    }
}

impl Columns {
    /// Returns the set of a row, and who holds its key.
    fn set(&self, root: &Path, manifest: &Path, row: &StringRecord) -> Result<(FileSet, KeyHolder), RenewalError> {
        let unfit = || RenewalError::Row { manifest: manifest.to_owned(), id: self.id(row).to_owned() };
        let certificate = Path::new(self.certificate(row));
        // A manifest that came with a tar file must not lead to other files.
        if !certificate.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(unfit());
        }
        let files = set_of_file(&root.join(certificate)).map_err(|_| unfit())?;
        let named = [(self.fullchain(row), files.fullchain()), (self.private_key(row), files.private_key())];
        let fits = |(name, path): &(&str, PathBuf)| name.is_empty() || root.join(name) == *path;
        if files.certificate() != root.join(certificate) || !named.iter().all(fits) {
            return Err(unfit());
        }
        let holder = if self.private_key(row).is_empty() { KeyHolder::Device } else { KeyHolder::Files };
        Ok((if self.has_ids() { files.of_name(self.id(row)) } else { files }, holder))
    }

    /// Returns what no two rows have in common.
    fn identity<'r>(&self, row: &'r StringRecord) -> &'r str {
        if self.has_ids() { self.id(row) } else { self.certificate(row) }
    }
}

/// Writes the manifest of the fleet, and those in its directories.
struct ManifestWriter<'a> {
    root: &'a Path,
    path: &'a Path,
    is_dry_run: bool,
    out: Option<csv::Writer<BufWriter<File>>>,
    /// The directory of the last rows, and its rows by certificate file.
    directory: PathBuf,
    rows: HashMap<String, StringRecord>,
}

impl<'a> ManifestWriter<'a> {
    fn create(root: &'a Path, path: &'a Path, header: &StringRecord, is_dry_run: bool) -> Result<Self, RenewalError> {
        let mut out = None;
        if !is_dry_run {
            let mut writer = create(&root.join(HIDDEN_MANIFEST))?;
            writer.write_record(header).map_err(|error| csv_error(path, error))?;
            out = Some(writer);
        }
        Ok(Self { root, path, is_dry_run, out, directory: PathBuf::new(), rows: HashMap::new() })
    }

    fn add(&mut self, row: &StringRecord, is_current: bool, columns: &Columns) -> Result<(), RenewalError> {
        let Some(out) = &mut self.out else { return Ok(()) };
        out.write_record(row).map_err(|error| csv_error(self.path, error))?;
        let certificate = columns.certificate(row);
        let directory = Path::new(certificate).parent().unwrap_or(Path::new(""));
        if directory != self.directory {
            let directory = directory.to_owned();
            self.finish_directory(columns)?;
            self.directory = directory;
        }
        if is_current && self.directory != Path::new("") {
            self.rows.insert(certificate.to_owned(), row.clone());
        }
        Ok(())
    }

    /// Updates the manifest of a numbered directory, if it has one.
    fn finish_directory(&mut self, columns: &Columns) -> Result<(), RenewalError> {
        let rows = std::mem::take(&mut self.rows);
        let directory = self.root.join(&self.directory);
        let part = directory.join(MANIFEST);
        if rows.is_empty() || !part.is_file() {
            return Ok(());
        }
        let mut reader = csv::Reader::from_path(&part).map_err(|error| csv_error(&part, error))?;
        let header = reader.headers().map_err(|error| csv_error(&part, error))?.clone();
        let Some(its) = Columns::of(&header) else { return Ok(()) };
        let hidden = directory.join(HIDDEN_MANIFEST);
        let mut out = create(&hidden)?;
        out.write_record(&header).map_err(|error| csv_error(&part, error))?;
        for row in reader.records() {
            let mut row = row.map_err(|error| csv_error(&part, error))?;
            if let Some(renewed) = rows.get(its.certificate(&row))
                && (!its.has_ids() || its.id(&row) == columns.id(renewed))
            {
                its.copy(&mut row, renewed, columns);
            }
            out.write_record(&row).map_err(|error| csv_error(&part, error))?;
        }
        put_in_place(out, &hidden, &part)
    }

    fn finish(mut self, columns: &Columns) -> Result<(), RenewalError> {
        self.finish_directory(columns)?;
        match self.out.take() {
            Some(out) if !self.is_dry_run => put_in_place(out, &self.root.join(HIDDEN_MANIFEST), self.path),
            _ => Ok(()),
        }
    }
}

impl Drop for ManifestWriter<'_> {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            // The run failed. The next one corrects the rows of renewed devices.
            let _ = fs::remove_file(self.root.join(HIDDEN_MANIFEST));
        }
    }
}

/// Creates a file in place of one that a killed run left.
fn create(path: &Path) -> Result<csv::Writer<BufWriter<File>>, RenewalError> {
    let _ = fs::remove_file(path);
    let file = secure_file::create_new(path, Access::Everyone).map_err(FleetError::io("write", path))?;
    Ok(csv::Writer::from_writer(BufWriter::new(file)))
}

/// Replaces a manifest by one that is complete, unless both are the same.
fn put_in_place(out: csv::Writer<BufWriter<File>>, hidden: &Path, path: &Path) -> Result<(), RenewalError> {
    let written = out.into_inner().map_err(csv::IntoInnerError::into_error);
    let written = written.and_then(|out| out.into_inner().map_err(std::io::IntoInnerError::into_error));
    let finish = |file: File| secure_file::copy_rights(path, &file).and_then(|()| file.sync_all());
    written.and_then(finish).map_err(FleetError::io("write", hidden))?;
    if is_same(hidden, path) {
        fs::remove_file(hidden).map_err(FleetError::io("remove", hidden))?;
        return Ok(());
    }
    fs::rename(hidden, path).map_err(FleetError::io("put in place", path))?;
    Ok(())
}

/// Returns whether two files have the same content.
fn is_same(one: &Path, other: &Path) -> bool {
    let open = |path: &Path| File::open(path).map(BufReader::new);
    let (Ok(one), Ok(other)) = (open(one), open(other)) else { return false };
    let (mut one, mut other) = (one.bytes(), other.bytes());
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(Ok(a)), Some(Ok(b))) if a == b => {}
            _ => return false,
        }
    }
}
