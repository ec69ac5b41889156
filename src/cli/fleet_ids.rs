//! The devices of a fleet: numbered, listed in a file, or in a directory of certificate requests.

use std::{
    collections::{BTreeMap, HashMap},
    env,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::{Context, anyhow, bail};

use super::output::{Output, clean};
use crate::{
    certificate::{
        CertificateRequest, DeviceId, RequestError, files,
        fleet::{FleetDevice, SourceError},
    },
    workflow::FleetDevices,
};

/// How many hashes of IDs are held at once: 16 MiB. A file with more IDs is read several times.
const HASHES: usize = 1 << 21;

/// How many faults are listed.
const MAX_FAULTS: usize = 10;

/// The size limit of a line, or of a row with line breaks in it.
const MAX_LINE: u64 = 1 << 20;

/// The size limit of a stream, which is copied to a temporary file.
const MAX_STREAM: u64 = 1 << 30;

/// The size limit of a certificate request. One with an RSA key of 16384 bits has 5 KiB.
const MAX_REQUEST: u64 = 1 << 18;

/// Parses the minimum number of digits in numbered IDs.
pub(super) fn digits() -> impl clap::builder::TypedValueParser<Value = u8> {
    clap::value_parser!(u8).range(1..=19)
}

/// Returns devices whose IDs are the prefix and a number from 1 with leading zeros, as many digits as the count has or more.
pub(super) fn numbered(prefix: &str, count: u64, digits: Option<u8>) -> anyhow::Result<FleetDevices> {
    let width = digits.map_or_else(|| count.to_string().len(), usize::from);
    let id = move |prefix: &str, number: u64| device_id(&format!("{prefix}{number:0width$}"));
    // All IDs have the same form, so one is enough to check.
    id(prefix, count).map_err(|error| anyhow!("{prefix:?} cannot be the prefix of device IDs: {error}"))?;
    let prefix = prefix.to_owned();
    Ok(Box::new((1..=count).map(move |number| {
        let id = id(&prefix, number)?;
        Ok(FleetDevice { id, name: None, public_key: None })
    })))
}

/// Parses a device ID that is short enough for a common name.
fn device_id(text: &str) -> Result<DeviceId, SourceError> {
    let id = DeviceId::new(text)?;
    id.common_name()?;
    Ok(id)
}

/// A file of device IDs: text with an ID on each line, or CSV with a header.
pub(super) struct IdFile {
    path: PathBuf,
    /// Read several times from the beginning.
    file: File,
    form: Form,
    /// The header, if it is a single column name.
    lone_header: Option<String>,
    /// Whether each device has the key of the certificate that the file names for it.
    keep_keys: bool,
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Csv { delimiter: u8, id: usize, name: Option<usize>, certificate: Option<usize> },
}

/// The names of the ID column, in lower case and without separators between words.
const ID_COLUMNS: [&str; 3] = ["iotcdeviceid", "deviceid", "id"];

/// A line number and the device on that line, or why there is none.
type Entry = (u64, Result<FleetDevice, String>);

impl IdFile {
    /// Opens a file; `-` is standard input. With `keep_keys`, the file has to name a certificate for each device, as the
    /// manifest of a fleet does, and the device's public key is read from it.
    pub(super) fn open(path: &Path, keep_keys: bool) -> anyhow::Result<Self> {
        let unreadable = || format!("no device IDs could be read from {}", path.display());
        let is_stdin = path == Path::new("-");
        let file = if is_stdin { None } else { Some(File::open(path).with_context(unreadable)?) };
        let file = match file {
            Some(file) if file.metadata().with_context(unreadable)?.is_file() => file,
            Some(file) => spool(file).with_context(unreadable)?,
            None => spool(io::stdin().lock()).with_context(unreadable)?,
        };
        let mut ids = Self { path: path.to_owned(), file, form: Form::Text, lone_header: None, keep_keys };
        let (mut reader, _) = ids.rewound().with_context(unreadable)?;
        if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=255, ..] | [1..=255, 0, ..] =
            reader.fill_buf().with_context(unreadable)?
        {
            bail!("{} is in UTF-16: save it in UTF-8", path.display());
        }
        let mut first = String::new();
        reader.read_line(&mut first).with_context(unreadable)?;
        ids.form = form(first.trim()).with_context(unreadable)?;
        ids.lone_header = match ids.form {
            Form::Csv { .. } if !first.contains([',', ';', '\t']) => Some(first.trim().to_owned()),
            _ => None,
        };
        if keep_keys && !matches!(ids.form, Form::Csv { certificate: Some(_), .. }) {
            bail!(
                "{} has no column named certificate, as the manifest of a fleet has, so the devices' keys cannot be kept",
                path.display()
            );
        }
        Ok(ids)
    }

    /// Returns the header if it is a single column name, which could be a device ID too.
    pub(super) fn lone_header(&self) -> Option<&str> {
        self.lone_header.as_deref()
    }

    /// Reads the file from the beginning. The counter holds the bytes read since it was last reset, which has to be done after
    /// each line.
    fn rewound(&self) -> io::Result<(BufReader<Bounded>, Arc<AtomicU64>)> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        let mut mark = Vec::new();
        (&file).take(3).read_to_end(&mut mark)?;
        // The byte-order mark that spreadsheets write.
        if mark != b"\xef\xbb\xbf" {
            file.rewind()?;
        }
        let since = Arc::new(AtomicU64::new(0));
        Ok((BufReader::with_capacity(1 << 16, Bounded { file, since: Arc::clone(&since) }), since))
    }

    fn entries(&self) -> io::Result<Box<dyn Iterator<Item = Entry> + Send>> {
        let (file, since) = self.rewound()?;
        let device = |id: &str, name: Option<&str>| {
            let name = name.map(str::trim).filter(|name| !name.is_empty());
            if name.is_some_and(|name| name.contains(char::is_control)) {
                return Err("its name has a control character".to_owned());
            }
            let id = device_id(id.trim()).map_err(|error| error.to_string())?;
            Ok(FleetDevice { id, name: name.map(str::to_owned), public_key: None })
        };
        Ok(match self.form {
            Form::Text => Box::new((1..).zip(file.lines()).filter_map(move |(line, text)| {
                since.store(0, Relaxed);
                match text {
                    Ok(text) if text.trim().is_empty() => None,
                    Ok(text) => Some((line, device(&text, None))),
                    Err(error) => Some((line, Err(error.to_string()))),
                }
            })),
            Form::Csv { delimiter, id, name, certificate } => {
                // The paths are relative to the file.
                let directory = self.path.parent().map(Path::to_owned).unwrap_or_default();
                let certificate = certificate.filter(|_| self.keep_keys);
                let reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(file);
                Box::new((2..).zip(reader.into_records()).map(move |(number, record)| {
                    since.store(0, Relaxed);
                    match record {
                        Ok(record) => {
                            let line = record.position().map_or(number, csv::Position::line);
                            let name = name.and_then(|name| record.get(name));
                            let device = device(record.get(id).unwrap_or_default(), name);
                            let with_kept_key = |device| match certificate {
                                Some(at) => with_key(device, &directory.join(record.get(at).unwrap_or_default())),
                                None => Ok(device),
                            };
                            (line, device.and_then(with_kept_key))
                        }
                        Err(error) => (error.position().map_or(number, csv::Position::line), Err(error.to_string())),
                    }
                }))
            }
        })
    }

    /// Reads the whole file, and fails if an entry is malformed or a device is listed more than once. Returns the number of
    /// devices.
    ///
    /// Memory stays flat: only hashes of IDs are held, and a limited number of them at once.
    pub(super) fn check(&self) -> anyhow::Result<u64> {
        let unreadable = || format!("no device IDs could be read from {}", self.path.display());
        let mut faults = Vec::new();
        let mut count: u64 = 0;
        for (line, device) in self.entries().with_context(unreadable)? {
            count += 1;
            if let Err(fault) = device {
                faults.push(format!("line {line}: {fault}"));
                if faults.len() == MAX_FAULTS {
                    break;
                }
            }
        }
        self.refuse(&faults)?;
        if count == 0 {
            bail!("{} names no device", self.path.display());
        }
        let parts = count.div_ceil(HASHES as u64);
        for part in 0..parts {
            let mut hashes = Vec::new();
            for (_, device) in self.entries().with_context(unreadable)? {
                let hash = device.map(|device| hash(&device)).unwrap_or_default();
                if hash % parts == part {
                    hashes.push(hash);
                }
            }
            hashes.sort_unstable();
            let repeated: Vec<_> = hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
            if !repeated.is_empty() {
                self.refuse(&self.duplicates(&repeated).with_context(unreadable)?)?;
            }
        }
        Ok(count)
    }

    /// Finds devices that are listed more than once, among those with these hashes.
    fn duplicates(&self, hashes: &[u64]) -> io::Result<Vec<String>> {
        let mut first: HashMap<String, (u64, DeviceId)> = HashMap::new();
        let mut faults = Vec::new();
        for (line, device) in self.entries()? {
            let Ok(device) = device else { continue };
            if hashes.binary_search(&hash(&device)).is_err() {
                continue;
            }
            if let Some((before, id)) = first.get(&device.id.as_str().to_ascii_lowercase()) {
                let spelling =
                    if *id == device.id { String::new() } else { format!(" as {id}; IDs are compared without case") };
                faults.push(format!("line {line}: {} is on line {before} already{spelling}", device.id));
                if faults.len() == MAX_FAULTS {
                    break;
                }
            } else {
                first.insert(device.id.as_str().to_ascii_lowercase(), (line, device.id));
            }
        }
        Ok(faults)
    }

    fn refuse(&self, faults: &[String]) -> anyhow::Result<()> {
        refuse(&self.path, faults)
    }

    pub(super) fn devices(&self) -> anyhow::Result<FleetDevices> {
        let entries = self.entries().with_context(|| format!("could not read {}", self.path.display()))?;
        let path = self.path.clone();
        Ok(Box::new(entries.map(move |(line, device)| {
            device.map_err(|fault| format!("{}, line {line}: {fault}: was it changed?", path.display()).into())
        })))
    }
}

/// A reader that fails on a line that is too long.
struct Bounded {
    file: File,
    since: Arc<AtomicU64>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since.load(Relaxed) > MAX_LINE {
            return Err(io::Error::other(TOO_LONG));
        }
        let read = self.file.read(buffer)?;
        self.since.fetch_add(read as u64, Relaxed);
        Ok(read)
    }
}

const TOO_LONG: &str = "a line has more than 1 MiB, so this is no list of device IDs";

/// Copies a stream to a temporary file, which can be read several times.
fn spool(source: impl Read) -> anyhow::Result<File> {
    let spool = tempfile::tempfile();
    let spool = spool.with_context(|| format!("could not create a temporary file in {}", env::temp_dir().display()))?;
    let (mut source, mut out) = (BufReader::new(source), BufWriter::new(&spool));
    let (mut line, mut total) = (Vec::new(), 0);
    while source.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line)? > 0 {
        let length = line.len() as u64;
        total += length;
        if length > MAX_LINE {
            bail!(TOO_LONG);
        }
        if total > MAX_STREAM {
            bail!("more than 1 GiB was read: pass the IDs as a file");
        }
        out.write_all(&line)?;
        line.clear();
    }
    out.flush()?;
    drop(out);
    Ok(spool)
}

/// Adds the public key of the certificate in a file to a device.
fn with_key(mut device: FleetDevice, file: &Path) -> Result<FleetDevice, String> {
    let certificates = files::read_certificates(file).map_err(|error| error.to_string())?;
    let subject = certificates[0].subject();
    if !subject.common_name().is_some_and(|name| name.eq_ignore_ascii_case(device.id.as_str())) {
        return Err(format!("{} is for {subject}, not for {}", file.display(), device.id));
    }
    device.public_key = Some(certificates[0].uncompressed_public_key().into_owned());
    Ok(device)
}

fn refuse(path: &Path, faults: &[String]) -> anyhow::Result<()> {
    let more = if faults.len() == MAX_FAULTS { "\n  and perhaps more" } else { "" };
    match faults {
        [] => Ok(()),
        faults => {
            bail!("{} cannot be used, and no certificate was issued:\n  {}{more}", path.display(), faults.join("\n  "))
        }
    }
}

/// Returns the hash of a device ID. The services compare IDs without case.
fn hash(device: &FleetDevice) -> u64 {
    let mut hasher = DefaultHasher::new();
    device.id.as_str().to_ascii_lowercase().hash(&mut hasher);
    hasher.finish()
}

/// Recognizes CSV with a header by the first line. IDs have no commas, semicolons or tabs.
fn form(first: &str) -> anyhow::Result<Form> {
    let delimiter = [',', ';', '\t'].into_iter().find(|&delimiter| first.contains(delimiter));
    let columns: Vec<String> = first
        .split(delimiter.unwrap_or(','))
        .map(|name| name.trim().trim_matches('"').to_ascii_lowercase().replace(['_', '-', ' '], ""))
        .collect();
    let find = |wanted: &[&str]| wanted.iter().find_map(|wanted| columns.iter().position(|name| name == wanted));
    match find(&ID_COLUMNS) {
        Some(id) => {
            let delimiter = u8::try_from(delimiter.unwrap_or(',')).unwrap_or(b',');
            let name = find(&["iotcdevicename", "devicename", "displayname"]);
            Ok(Form::Csv { delimiter, id, name, certificate: find(&["certificate"]) })
        }
        None if delimiter.is_some() => {
            // The line is not repeated: a file named by mistake may hold a token or a key.
            bail!("its first line names no column IOTC_DEVICEID, deviceId or id")
        }
        None => Ok(Form::Text),
    }
}

/// The certificate requests of a directory, sorted by file name.
pub(super) struct Requests {
    files: Vec<PathBuf>,
}

impl Requests {
    /// Reads and checks all requests. Skips files that hold no request, unless they are named like one.
    pub(super) fn check(directory: &Path, output: &Output) -> anyhow::Result<Self> {
        let unreadable = || format!("no requests could be read from {}", directory.display());
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).with_context(unreadable)? {
            let path = entry.with_context(unreadable)?.path();
            if path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        let mut faults = Vec::new();
        let mut ignored: BTreeMap<String, usize> = BTreeMap::new();
        let mut first: HashMap<String, PathBuf> = HashMap::new();
        let mut requests = Vec::new();
        let mut skipped = 0;
        for path in files {
            match read_request(&path) {
                Ok(None) => {
                    skipped += 1;
                    continue;
                }
                Ok(Some((device, request))) => {
                    for name in request.ignored() {
                        *ignored.entry(name.clone()).or_default() += 1;
                    }
                    if let Some(before) = first.insert(device.id.as_str().to_ascii_lowercase(), path.clone()) {
                        faults.push(format!("{}: {} is in {} already", path.display(), device.id, before.display()));
                    }
                }
                Err(error) => faults.push(format!("{}: {error}", path.display())),
            }
            requests.push(path);
            if faults.len() == MAX_FAULTS {
                break;
            }
        }
        refuse(directory, &faults)?;
        if requests.is_empty() {
            bail!("{} holds no certificate requests", directory.display());
        }
        if skipped > 0 {
            output.note(format_args!("{skipped} files hold no certificate request and were skipped"));
        }
        for (name, count) in ignored {
            output.note(format_args!("{count} requests have {}, which was ignored", clean(&name)));
        }
        Ok(Self { files: requests })
    }

    pub(super) fn count(&self) -> u64 {
        self.files.len() as u64
    }

    pub(super) fn devices(self) -> FleetDevices {
        Box::new(self.files.into_iter().map(|path| match read_request(&path) {
            Ok(Some((device, _))) => Ok(device),
            Ok(None) => Err(format!("{} no longer holds a request", path.display()).into()),
            Err(error) => Err(format!("{}: {error}", path.display()).into()),
        }))
    }
}

/// Reads the request of a file and the device that its common name names. Returns none for a file that holds no request and
/// is not named like one.
fn read_request(path: &Path) -> Result<Option<(FleetDevice, CertificateRequest)>, SourceError> {
    let is_named_so = path
        .extension()
        .is_some_and(|extension| ["csr", "req", "p10"].into_iter().any(|known| extension.eq_ignore_ascii_case(known)));
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_REQUEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_REQUEST {
        return if is_named_so { Err("it has more than 256 KiB, so this is no request".into()) } else { Ok(None) };
    }
    let request = match CertificateRequest::read(&bytes) {
        Err(RequestError::NoRequest(_)) if !is_named_so => return Ok(None),
        other => other?,
    };
    let id = device_id(
        request.subject().common_name().ok_or("its subject has no common name, which would be the device ID")?,
    )?;
    Ok(Some((FleetDevice { id, name: None, public_key: Some(request.public_key().to_vec()) }, request)))
}
