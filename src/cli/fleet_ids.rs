//! The devices of a fleet: numbered, from a file of ids, or from a folder of certificate requests.

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

/// How many hashes of ids are held at once: 16 MiB of them. More ids are read several times instead.
const HASHES: usize = 1 << 21;

/// How many faults are told before it is enough.
const FAULTS: usize = 10;

/// The most bytes of a line, or of a row with line breaks in it: what has more is no list of ids.
const LONGEST_LINE: u64 = 1 << 20;

/// The most bytes that are kept of what can be read once only.
const LARGEST_STREAM: u64 = 1 << 30;

/// The most bytes of a certificate request; one with an RSA key of 16384 bits has 5 KiB.
const LARGEST_REQUEST: u64 = 1 << 18;

/// How many digits the numbers of ids may be asked to have.
pub(super) fn digits() -> impl clap::builder::TypedValueParser<Value = u8> {
    clap::value_parser!(u8).range(1..=19)
}

/// `PREFIX` and a number from 1, with leading zeros so that all have so many digits; those that the count has without.
pub(super) fn numbered(prefix: &str, count: u64, digits: Option<u8>) -> anyhow::Result<FleetDevices> {
    let width = digits.map_or_else(|| count.to_string().len(), usize::from);
    let id = move |prefix: &str, number: u64| device_id(&format!("{prefix}{number:0width$}"));
    // All are of one form: where the last is good the others are.
    id(prefix, count).map_err(|error| anyhow!("{prefix:?} cannot be the beginning of device ids: {error}"))?;
    let prefix = prefix.to_owned();
    Ok(Box::new((1..=count).map(move |number| {
        let id = id(&prefix, number)?;
        Ok(FleetDevice { id, name: None, public_key: None })
    })))
}

/// A device id that fits a common name.
fn device_id(text: &str) -> Result<DeviceId, SourceError> {
    let id = DeviceId::new(text)?;
    id.common_name()?;
    Ok(id)
}

/// A file of ids: text with an id on each line, or CSV with a header.
pub(super) struct IdFile {
    path: PathBuf,
    /// Read several times from its beginning.
    file: File,
    form: Form,
    /// The name of the column, where there is but one.
    lone_header: Option<String>,
    /// Whether each device has the key of the certificate that the file names for it.
    keep_keys: bool,
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Csv { delimiter: u8, id: usize, name: Option<usize>, certificate: Option<usize> },
}

/// The names a column of ids may have, in lower case and without what parts words.
const ID_COLUMNS: [&str; 3] = ["iotcdeviceid", "deviceid", "id"];

/// The line of an entry and the device it names, or what is wrong with it.
type Entry = (u64, Result<FleetDevice, String>);

impl IdFile {
    /// Opens a file; `-` is standard input. With `keep_keys` it has to name a certificate for each device, as the manifest
    /// of a fleet does, and the device's public key is read from that.
    pub(super) fn open(path: &Path, keep_keys: bool) -> anyhow::Result<Self> {
        let unreadable = || format!("no device ids could be read from {}", path.display());
        let is_stdin = path == Path::new("-");
        let file = if is_stdin { None } else { Some(File::open(path).with_context(unreadable)?) };
        let file = match file {
            Some(file) if file.metadata().with_context(unreadable)?.is_file() => file,
            Some(file) => kept(file).with_context(unreadable)?,
            None => kept(io::stdin().lock()).with_context(unreadable)?,
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

    /// The first line where it is nothing but the name of a column, which an id may be called as well.
    pub(super) fn lone_header(&self) -> Option<&str> {
        self.lone_header.as_deref()
    }

    /// The file from its beginning. The number is of the bytes read since it was last set to nothing, which has to be done
    /// after each line.
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
                let folder = self.path.parent().map(Path::to_owned).unwrap_or_default();
                let certificate = certificate.filter(|_| self.keep_keys);
                let reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(file);
                Box::new((2..).zip(reader.into_records()).map(move |(number, record)| {
                    since.store(0, Relaxed);
                    match record {
                        Ok(record) => {
                            let line = record.position().map_or(number, csv::Position::line);
                            let name = name.and_then(|name| record.get(name));
                            let device = device(record.get(id).unwrap_or_default(), name);
                            let keep = |device| match certificate {
                                Some(at) => with_key(device, &folder.join(record.get(at).unwrap_or_default())),
                                None => Ok(device),
                            };
                            (line, device.and_then(keep))
                        }
                        Err(error) => (error.position().map_or(number, csv::Position::line), Err(error.to_string())),
                    }
                }))
            }
        })
    }

    /// Reads all of it and finds what is malformed or named twice; the number of devices.
    ///
    /// The memory it takes does not grow with the file: of the ids only hashes are held, and of those so many at once.
    pub(super) fn check(&self) -> anyhow::Result<u64> {
        let unreadable = || format!("no device ids could be read from {}", self.path.display());
        let mut faults = Vec::new();
        let mut count: u64 = 0;
        for (line, device) in self.entries().with_context(unreadable)? {
            count += 1;
            if let Err(fault) = device {
                faults.push(format!("line {line}: {fault}"));
                if faults.len() == FAULTS {
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
            let twice: Vec<_> = hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
            if !twice.is_empty() {
                self.refuse(&self.duplicates(&twice).with_context(unreadable)?)?;
            }
        }
        Ok(count)
    }

    /// Those of the devices with these hashes that are the same, and not by chance.
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
                if faults.len() == FAULTS {
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

/// A file that is not read on where a line does not end.
struct Bounded {
    file: File,
    since: Arc<AtomicU64>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since.load(Relaxed) > LONGEST_LINE {
            return Err(io::Error::other(TOO_LONG));
        }
        let read = self.file.read(buffer)?;
        self.since.fetch_add(read as u64, Relaxed);
        Ok(read)
    }
}

const TOO_LONG: &str = "a line has more than 1 MiB, and no list of ids has such lines";

/// Keeps what can be read once only where it can be read again.
fn kept(source: impl Read) -> anyhow::Result<File> {
    let kept = tempfile::tempfile();
    let kept = kept.with_context(|| format!("could not make a temporary file in {}", env::temp_dir().display()))?;
    let (mut source, mut out) = (BufReader::new(source), BufWriter::new(&kept));
    let (mut line, mut total) = (Vec::new(), 0);
    while source.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut line)? > 0 {
        let length = line.len() as u64;
        total += length;
        if length > LONGEST_LINE {
            bail!(TOO_LONG);
        }
        if total > LARGEST_STREAM {
            bail!("more than 1 GiB came: put the ids into a file");
        }
        out.write_all(&line)?;
        line.clear();
    }
    out.flush()?;
    drop(out);
    Ok(kept)
}

/// The device with the key of its certificate in that file.
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
    let more = if faults.len() == FAULTS { "\n  and perhaps more" } else { "" };
    match faults {
        [] => Ok(()),
        faults => {
            bail!("{} cannot be used, and no certificate was made:\n  {}{more}", path.display(), faults.join("\n  "))
        }
    }
}

/// The services compare ids without regard to case.
fn hash(device: &FleetDevice) -> u64 {
    let mut hasher = DefaultHasher::new();
    device.id.as_str().to_ascii_lowercase().hash(&mut hasher);
    hasher.finish()
}

/// Whether the first line is the header of a CSV file. Ids have neither commas nor semicolons nor tabs.
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

/// The requests of a folder, in the order of their files' names.
pub(super) struct Requests {
    files: Vec<PathBuf>,
}

impl Requests {
    /// Reads and checks all of them. Files that hold no request are passed over, unless they are called as one.
    pub(super) fn check(folder: &Path, output: &Output) -> anyhow::Result<Self> {
        let unreadable = || format!("no requests could be read from {}", folder.display());
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).with_context(unreadable)? {
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
        let mut passed_over = 0;
        for path in files {
            match read_request(&path) {
                Ok(None) => {
                    passed_over += 1;
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
            if faults.len() == FAULTS {
                break;
            }
        }
        refuse(folder, &faults)?;
        if requests.is_empty() {
            bail!("{} holds no certificate requests", folder.display());
        }
        if passed_over > 0 {
            output.note(format_args!("{passed_over} files hold no certificate request and were passed over"));
        }
        for (name, count) in ignored {
            output.note(format_args!("{count} requests have {}, which was passed over", clean(&name)));
        }
        Ok(Self { files: requests })
    }

    pub(super) fn count(&self) -> u64 {
        self.files.len() as u64
    }

    pub(super) fn devices(self) -> FleetDevices {
        Box::new(self.files.into_iter().map(|path| match read_request(&path) {
            Ok(Some((device, _))) => Ok(device),
            Ok(None) => Err(format!("{} holds no request any more", path.display()).into()),
            Err(error) => Err(format!("{}: {error}", path.display()).into()),
        }))
    }
}

/// The request of a file and the device its common name says it is of; nothing where there is no request in a file that
/// is not called as one.
fn read_request(path: &Path) -> Result<Option<(FleetDevice, CertificateRequest)>, SourceError> {
    let called_so = path
        .extension()
        .is_some_and(|extension| ["csr", "req", "p10"].into_iter().any(|known| extension.eq_ignore_ascii_case(known)));
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_REQUEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_REQUEST {
        return if called_so { Err("it has more than 256 KiB, and no request has".into()) } else { Ok(None) };
    }
    let request = match CertificateRequest::read(&bytes) {
        Err(RequestError::NoRequest(_)) if !called_so => return Ok(None),
        other => other?,
    };
    let id =
        device_id(request.subject().common_name().ok_or("its subject has no common name, which names the device")?)?;
    Ok(Some((FleetDevice { id, name: None, public_key: Some(request.public_key().to_vec()) }, request)))
}
