//! The file of a plan: one JSON document, which is written and read as a stream, because it may name a million devices.

use std::{
    fmt, fs,
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::{
    fingerprint::KeyFingerprint,
    plan::{DeviceAdmission, GroupAttestation, PLAN_VERSION, PlanHeader, PlannedDevice, PlannedKeys},
    plan_error::PlanError,
};
use crate::certificate::secure_file::{Access, open_to_read};

/// The member with the devices.
const DEVICES: &str = "devices";

/// How many devices are read ahead.
const READ_AHEAD: usize = 256;

/// A plan: its header, and where its devices are.
#[derive(Debug, Clone)]
pub struct Plan {
    path: PathBuf,
    header: PlanHeader,
}

impl Plan {
    /// Reads a plan. Every device is read too, to see that the file is whole, and none is kept.
    ///
    /// # Errors
    /// [`PlanError`]. On Unix a plan that other users can change is refused, because it decides where tokens are sent, and so is
    /// one that includes keys and that they can read.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, PlanError> {
        let path = path.into();
        let header = read_document(&path, Access::Everyone, &mut |_| true)?;
        if header.includes_keys {
            // Checks who can read it.
            open(&path, Access::Owner)?;
            check_keys(&path, &header)?;
        }
        Ok(Self { path, header })
    }

    /// Returns the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns everything but the devices.
    #[must_use]
    pub fn header(&self) -> &PlanHeader {
        &self.header
    }

    /// Reads the devices one by one, in the order of their IDs at the application.
    ///
    /// # Errors
    /// [`PlanError`] if the file cannot be opened. An error while it is read is the last item.
    pub fn devices(&self) -> Result<PlannedDevices, PlanError> {
        let access = if self.header.includes_keys { Access::Owner } else { Access::Everyone };
        drop(open(&self.path, access)?);
        let (sender, receiver) = sync_channel(READ_AHEAD);
        let path = self.path.clone();
        // serde_json hands on the items of an array by callback only. The thread ends when the receiver is dropped.
        thread::spawn(move || send_devices(&path, access, &sender));
        Ok(PlannedDevices(receiver))
    }
}

/// The devices of a plan.
#[derive(Debug)]
pub struct PlannedDevices(Receiver<Result<PlannedDevice, PlanError>>);

impl Iterator for PlannedDevices {
    type Item = Result<PlannedDevice, PlanError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.recv().ok()
    }
}

fn send_devices(path: &Path, access: Access, sender: &SyncSender<Result<PlannedDevice, PlanError>>) {
    if let Err(error) = read_document(path, access, &mut |device| sender.send(Ok(device)).is_ok()) {
        // Nobody is there to read it if the receiver was dropped.
        let _ = sender.send(Err(error));
    }
}

fn open(path: &Path, access: Access) -> Result<fs::File, PlanError> {
    open_to_read(path, access).map_err(|error| PlanError::Read { path: path.to_owned(), error })
}

/// Fails if the plan has keys that are not those of its fingerprints: then somebody has replaced them.
fn check_keys(path: &Path, header: &PlanHeader) -> Result<(), PlanError> {
    let is_other = |found: &PlannedKeys| {
        found.keys.as_ref().is_some_and(|keys| KeyFingerprint::new(&header.id, keys) != found.fingerprint)
    };
    let group = header
        .groups
        .iter()
        .find(|group| matches!(&group.attestation, GroupAttestation::SymmetricKey(keys) if is_other(keys)));
    let mut other = group.map(|group| group.id.to_string());
    if other.is_none() {
        read_document(path, Access::Owner, &mut |device| {
            let (DeviceAdmission::SymmetricKey(keys) | DeviceAdmission::SymmetricGroup { keys: Some(keys), .. }) =
                &device.admission
            else {
                return true;
            };
            if is_other(keys) && other.is_none() {
                other = Some(device.id.to_string());
            }
            true
        })?;
    }
    let Some(id) = other else { return Ok(()) };
    let problem = format!("the keys of {id} do not have the fingerprint that it says");
    Err(PlanError::NotAPlan { path: path.to_owned(), problem })
}

/// Reads the document, and hands each device to `found` until that returns false.
fn read_document(
    path: &Path,
    access: Access,
    found: &mut dyn FnMut(PlannedDevice) -> bool,
) -> Result<PlanHeader, PlanError> {
    let file = open(path, access)?;
    let mut deserializer = serde_json::Deserializer::from_reader(BufReader::new(file));
    let read = Document { found }.deserialize(&mut deserializer);
    let read = read.and_then(|header| deserializer.end().map(|()| header));
    let not_a_plan = |problem: String| PlanError::NotAPlan { path: path.to_owned(), problem };
    let header = read.map_err(|error| match error.classify() {
        serde_json::error::Category::Io => PlanError::Read { path: path.to_owned(), error: error.into() },
        serde_json::error::Category::Eof => not_a_plan("it ends too early".to_owned()),
        serde_json::error::Category::Syntax => {
            not_a_plan(format!("it is not valid JSON at line {}, column {}", error.line(), error.column()))
        }
        // The text could repeat a value of the file.
        serde_json::error::Category::Data => {
            not_a_plan(format!("line {}, column {} is not as expected", error.line(), error.column()))
        }
    })?;
    match header.get("version").and_then(Value::as_u64).map(u32::try_from) {
        Some(Ok(PLAN_VERSION)) => {}
        Some(Ok(version)) => return Err(PlanError::Version { path: path.to_owned(), version }),
        _ => return Err(not_a_plan("it has no version".to_owned())),
    }
    serde_json::from_value(Value::Object(header))
        .map_err(|error| not_a_plan(format!("its header is not as expected ({})", what(&error))))
}

/// Returns what is wrong with the header: the name of a member that is missing, and nothing that could be a value.
fn what(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("missing field ").map_or_else(
        || "a member has another form".to_owned(),
        |field| format!("{} is missing", field.split('`').nth(1).unwrap_or("a member")),
    )
}

/// Reads the members of the document, and the devices one by one.
struct Document<'a> {
    found: &'a mut dyn FnMut(PlannedDevice) -> bool,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = serde_json::Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = serde_json::Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plan")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut header, mut has_devices) = (serde_json::Map::new(), false);
        while let Some(name) = map.next_key::<String>()? {
            if name != DEVICES {
                header.insert(name, map.next_value()?);
                continue;
            }
            if has_devices {
                return Err(de::Error::duplicate_field(DEVICES));
            }
            has_devices = true;
            // A plan of another version may have devices of another form.
            let is_known = header.get("version").is_none_or(|version| *version == PLAN_VERSION);
            if is_known {
                map.next_value_seed(Devices { found: &mut *self.found })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if has_devices { Ok(header) } else { Err(de::Error::missing_field(DEVICES)) }
    }
}

/// Reads the array of devices.
struct Devices<'a> {
    found: &'a mut dyn FnMut(PlannedDevice) -> bool,
}

impl<'de> DeserializeSeed<'de> for Devices<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Devices<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("devices")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut devices: A) -> Result<(), A::Error> {
        let mut is_wanted = true;
        while is_wanted && let Some(device) = devices.next_element()? {
            is_wanted = (self.found)(device);
        }
        // The array has to be read to its end.
        while devices.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Writes a plan beside its place, and moves it there when it is whole. An existing file is not overwritten.
pub(super) fn write_plan(
    path: &Path,
    header: &PlanHeader,
    devices: impl Iterator<Item = Result<PlannedDevice, PlanError>>,
) -> Result<(), PlanError> {
    let unwritable = |error: io::Error| PlanError::Write { path: path.to_owned(), error };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Created with mode 0600.
    let temporary = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(directory).map_err(unwritable)?;
    let mut file = BufWriter::new(temporary.as_file());
    let json = |error: serde_json::Error| unwritable(error.into());
    let head = serde_json::to_string_pretty(header).map_err(json)?;
    // The devices are the last member of the same object, one a line.
    let head = head.strip_suffix("\n}").unwrap_or(&head);
    write!(file, "{head},\n  \"{DEVICES}\": [").map_err(unwritable)?;
    for (index, device) in devices.enumerate() {
        write!(file, "{}\n    ", if index > 0 { "," } else { "" }).map_err(unwritable)?;
        serde_json::to_writer(&mut file, &device?).map_err(json)?;
    }
    file.write_all(b"\n  ]\n}\n").and_then(|()| file.flush()).map_err(unwritable)?;
    drop(file);
    temporary.as_file().sync_all().map_err(unwritable)?;
    match temporary.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => Err(PlanError::Exists(path.to_owned())),
        Err(failed) => Err(unwritable(failed.error)),
    }
}

/// Reads a device of a plan that is not whole yet.
pub(super) fn parse_device(line: &[u8]) -> Option<PlannedDevice> {
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    let device = PlannedDevice::deserialize(&mut deserializer).ok()?;
    deserializer.end().ok().map(|()| device)
}
