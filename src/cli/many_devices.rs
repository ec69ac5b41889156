//! The many devices of a workflow: numbered, or from a file of ids.

use std::{
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    fleet_ids::{IdFile, digits, numbered},
    next_command::NextCommand,
};
use crate::workflow::{FleetDevices, FleetRequest};

/// Many devices.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("many").args(["ids", "count"])))]
pub(super) struct ManyDevices {
    /// Make certificates for the devices of a file: an id on each line, or CSV with a header and a column IOTC_DEVICEID,
    /// deviceId or id
    #[arg(long = "devices", value_name = "FILE", conflicts_with = "count", help_heading = "Many devices")]
    ids: Option<PathBuf>,
    /// Make certificates for so many devices, with ids made of the prefix and a number from 1 with leading zeros
    #[arg(long, value_name = "N", help_heading = "Many devices")]
    count: Option<NonZeroU64>,
    /// What the ids of --count begin with
    #[arg(long, default_value = "device-", requires = "count", help_heading = "Many devices")]
    prefix: String,
    /// How many digits these numbers have at least, so that the fleet can grow past a power of ten [default: as many as N
    /// has]
    #[arg(long, value_name = "DIGITS", value_parser = digits(), requires = "count", help_heading = "Many devices")]
    digits: Option<u8>,
    /// Make PFX files for them too
    #[arg(long, conflicts_with = "no_pfx", requires = "many", help_heading = "Many devices")]
    pfx: bool,
}

impl ManyDevices {
    /// Whether there are any.
    pub(super) fn asked_for(&self) -> bool {
        self.ids.is_some() || self.count.is_some()
    }

    /// Adds the options that were given to a command for the same devices.
    pub(super) fn repeat_in(&self, command: &mut NextCommand) {
        command.optional("--devices", self.ids.as_ref());
        if let Some(count) = self.count {
            command.option("--count", count.to_string());
            command.option("--prefix", &self.prefix);
            command.optional("--digits", self.digits.map(|digits| digits.to_string()));
        }
        command.flag("--pfx", self.pfx);
    }

    /// The devices as a workflow takes them, for a folder. With `keep_keys` each has the key of the certificate that the
    /// file names for it.
    pub(super) fn request(&self, folder: &Path, keep_keys: bool) -> anyhow::Result<Option<FleetRequest>> {
        let request = |count, devices| FleetRequest { folder: folder.to_owned(), count, devices, pfx: self.pfx };
        if let Some(ids) = &self.ids {
            let ids = IdFile::open(ids, keep_keys)?;
            let count = ids.check()?;
            return Ok(Some(request(count, Arc::new(move || Ok(ids.devices()?)))));
        }
        let Some(count) = self.count.map(NonZeroU64::get) else { return Ok(None) };
        // Found out before anything is done.
        let _ = numbered(&self.prefix, count, self.digits)?;
        let (prefix, digits) = (self.prefix.clone(), self.digits);
        let devices = move || -> Result<FleetDevices, _> { Ok(numbered(&prefix, count, digits)?) };
        Ok(Some(request(count, Arc::new(devices))))
    }
}
