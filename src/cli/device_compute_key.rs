//! `device compute-key`: derive a device's key from the key of its enrollment group.

use serde_json::json;

use super::{
    error::UsageError,
    output::Output,
    registration::{GROUP_KEY, GroupKey},
};
use crate::{certificate::DeviceId, dps::device::derive_device_key};

/// Derive a device's symmetric key from the key of its enrollment group
#[derive(clap::Args)]
#[command(after_help = "Example:\n  iot-enroll device compute-key sensor-1 --group-key-file group.key > sensor-1.key")]
pub(super) struct ComputeKey {
    /// Registration ID, exactly as the device registers
    id: DeviceId,
    #[command(flatten)]
    group_key: GroupKey,
}

impl ComputeKey {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<()> {
        let group_key = self.group_key.read()?.ok_or_else(|| {
            UsageError::new("no group key given").with_hint(format!("use --group-key-file FILE, or set {GROUP_KEY}"))
        })?;
        let key = derive_device_key(&group_key, &self.id).to_base64();
        let document = json!({ "id": self.id.as_str(), "key": key.expose() });
        output.result(&document, || key.expose().to_owned())
    }
}
