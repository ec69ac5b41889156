//! The many devices of a workflow: numbered, or listed in a file.

use std::{
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use super::{
    fleet_ids::{IdFile, digits, numbered},
    next_command::NextCommand,
};
use crate::workflow::FleetRequest;

/// Many devices.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("many").args(["ids", "count"])))]
pub(super) struct ManyDevices {
    /// File with the devices to issue certificates for
    ///
    /// It has an ID on each line, or is CSV with a header and a column IOTC_DEVICEID, deviceId or id.
    #[arg(long = "devices", value_name = "FILE", conflicts_with = "count", help_heading = "Many devices")]
    ids: Option<PathBuf>,
    /// Number of devices to issue certificates for
    ///
    /// Their IDs are the prefix and a number from 1 with leading zeros.
    #[arg(long, value_name = "N", help_heading = "Many devices")]
    count: Option<NonZeroU64>,
    /// Prefix of the IDs of --count
    #[arg(long, default_value = "device-", requires = "count", help_heading = "Many devices")]
    prefix: String,
    /// Minimum number of digits in the IDs of --count [default: as many as N has]
    ///
    /// With more digits than N has, the fleet can grow past a power of ten and keep its IDs.
    #[arg(long, value_name = "DIGITS", value_parser = digits(), requires = "count", help_heading = "Many devices")]
    digits: Option<u8>,
    /// Write PFX files for them too
    #[arg(long, conflicts_with = "no_pfx", requires = "many", help_heading = "Many devices")]
    pfx: bool,
}

impl ManyDevices {
    /// Returns whether devices are given.
    pub(super) fn is_given(&self) -> bool {
        self.ids.is_some() || self.count.is_some()
    }

    /// Adds the options to a command for the same devices.
    pub(super) fn repeat_in(&self, command: &mut NextCommand) {
        command.optional("--devices", self.ids.as_ref());
        if let Some(count) = self.count {
            command.option("--count", count.to_string());
            command.option("--prefix", &self.prefix);
            command.optional("--digits", self.digits.map(|digits| digits.to_string()));
        }
        command.flag("--pfx", self.pfx);
    }

    /// Returns the devices as a workflow takes them, for a directory. With `keep_keys`, each has the key of the certificate
    /// that the file names for it.
    pub(super) fn request(&self, directory: &Path, keep_keys: bool) -> anyhow::Result<Option<FleetRequest>> {
        if let Some(ids) = &self.ids {
            let ids = IdFile::open(ids, keep_keys)?;
            let count = ids.check()?;
            return Ok(Some(FleetRequest::new(directory, count, move || Ok(ids.devices()?)).pfx(self.pfx)));
        }
        let Some(count) = self.count.map(NonZeroU64::get) else { return Ok(None) };
        // Fails before anything is done.
        let _ = numbered(&self.prefix, count, self.digits)?;
        let (prefix, digits) = (self.prefix.clone(), self.digits);
        let request = FleetRequest::new(directory, count, move || Ok(numbered(&prefix, count, digits)?));
        Ok(Some(request.pfx(self.pfx)))
    }
}
