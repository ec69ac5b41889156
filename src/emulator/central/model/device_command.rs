//! Commands that were sent to devices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::device_properties::id_key;
use crate::emulator::{
    fields::{FieldError, Fields},
    json_text,
    random::{self, RandomError},
};

/// The status with which an emulated device answers every command.
const ANSWERED: u16 = 200;

/// A command that was sent to a device, and that the device answered.
#[derive(Serialize, Deserialize)]
pub(crate) struct DeviceCommand {
    id: String,
    connection_timeout: Option<u64>,
    response_timeout: Option<u64>,
    #[serde(with = "json_text")]
    request: Option<Value>,
}

impl DeviceCommand {
    /// Returns the command that the body of a POST describes.
    pub(crate) fn read(mut fields: Fields) -> Result<NewDeviceCommand, FieldError> {
        let command = NewDeviceCommand {
            connection_timeout: fields.integer("connectionTimeout", 0..=30)?,
            response_timeout: fields.integer("responseTimeout", 5..=30)?,
            request: fields.any("request"),
        };
        fields.finish()?;
        Ok(command)
    }

    /// Returns the command as JSON.
    pub(crate) fn show(&self) -> Value {
        let mut shown = json!({ "id": self.id, "responseCode": ANSWERED });
        let optional = [
            ("connectionTimeout", self.connection_timeout.map(Value::from)),
            ("responseTimeout", self.response_timeout.map(Value::from)),
            ("request", self.request.clone()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                shown[name] = value;
            }
        }
        shown
    }
}

/// The body of a POST.
pub(crate) struct NewDeviceCommand {
    connection_timeout: Option<u64>,
    response_timeout: Option<u64>,
    request: Option<Value>,
}

impl NewDeviceCommand {
    pub(crate) fn into_command(self) -> Result<DeviceCommand, RandomError> {
        let Self { connection_timeout, response_timeout, request } = self;
        Ok(DeviceCommand { id: random::uuid()?, connection_timeout, response_timeout, request })
    }
}

/// The last run of each command of each device: by the key of the device ID, then by component and command.
#[derive(Default, Deserialize)]
#[serde(from = "Vec<(String, CommandKey, DeviceCommand)>")]
pub(crate) struct CommandHistory(BTreeMap<String, BTreeMap<CommandKey, DeviceCommand>>);

/// The component, if there is one, and the name of the command.
pub(crate) type CommandKey = (Option<String>, String);

/// A list of all commands: JSON has no keys with several parts.
impl Serialize for CommandHistory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0
                .iter()
                .flat_map(|(device, commands)| commands.iter().map(move |(key, command)| (device, key, command))),
        )
    }
}

impl From<Vec<(String, CommandKey, DeviceCommand)>> for CommandHistory {
    fn from(commands: Vec<(String, CommandKey, DeviceCommand)>) -> Self {
        let mut history = Self::default();
        for (device, key, command) in commands {
            history.record(&device, key, command);
        }
        history
    }
}

impl CommandHistory {
    pub(crate) fn last(&self, device_id: &str, key: &CommandKey) -> Option<&DeviceCommand> {
        self.0.get(&id_key(device_id))?.get(key)
    }

    pub(crate) fn record(&mut self, device_id: &str, key: CommandKey, command: DeviceCommand) {
        self.0.entry(id_key(device_id)).or_default().insert(key, command);
    }

    /// Forgets the commands of a device that was deleted.
    pub(crate) fn forget(&mut self, device_id: &str) {
        self.0.remove(&id_key(device_id));
    }
}
