//! Commands of devices.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    devices::{self, Devices},
    id::CentralDeviceId,
};
use crate::transport::{Call, Error, Gate, Listing, items, json_of, object, setters};

/// The longest time that the service waits for a device to connect, and again for its answer.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The most characters of a component or command name: the limit of DTDL version 3, the larger one.
const MAX_NAME: usize = 512;

/// The name of a command, and of the component that has it: `DeviceMove` or `migration.DeviceMove`.
///
/// The API sets no rule. Names are those of DTDL: ASCII letters, digits and underscores, with a letter first.
///
/// ```
/// use iot_enroll::central::CommandPath;
///
/// let path: CommandPath = "migration.DeviceMove".parse()?;
/// assert_eq!((path.component(), path.command()), (Some("migration"), "DeviceMove"));
/// assert!("migration.".parse::<CommandPath>().is_err());
/// # Ok::<(), iot_enroll::central::CommandPathError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandPath {
    component: Option<String>,
    command: String,
}

impl CommandPath {
    /// Checks a text and returns it as the path of a command.
    ///
    /// # Errors
    /// [`CommandPathError`] if it is not one name, or two names with a dot between them.
    pub fn new(text: impl AsRef<str>) -> Result<Self, CommandPathError> {
        let text = text.as_ref();
        let (component, command) = match text.split_once('.') {
            Some((component, command)) => (Some(component), command),
            None => (None, text),
        };
        let mut names = component.into_iter().chain([command]);
        if !names.all(is_name) {
            return Err(CommandPathError { found: text.to_owned() });
        }
        Ok(Self { component: component.map(str::to_owned), command: command.to_owned() })
    }

    /// Returns the name of the component. Returns `None` for a command of the device itself.
    #[must_use]
    pub fn component(&self) -> Option<&str> {
        self.component.as_deref()
    }

    /// Returns the name of the command.
    #[must_use]
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Returns the segments of the path at a device.
    fn segments<'a>(&'a self, id: &'a CentralDeviceId) -> Vec<&'a str> {
        let mut segments = vec![devices::COLLECTION, id.as_str()];
        if let Some(component) = &self.component {
            segments.extend(["components", component]);
        }
        segments.extend(["commands", &self.command]);
        segments
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl fmt::Display for CommandPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.component {
            Some(component) => write!(f, "{component}.{}", self.command),
            None => f.write_str(&self.command),
        }
    }
}

impl FromStr for CommandPath {
    type Err = CommandPathError;

    fn from_str(text: &str) -> Result<Self, CommandPathError> {
        Self::new(text)
    }
}

impl TryFrom<String> for CommandPath {
    type Error = CommandPathError;

    fn try_from(text: String) -> Result<Self, CommandPathError> {
        Self::new(text)
    }
}

impl From<CommandPath> for String {
    fn from(path: CommandPath) -> Self {
        path.to_string()
    }
}

/// A text is not the path of a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not COMMAND or COMPONENT.COMMAND, names of letters, digits and underscores with a letter first")]
#[non_exhaustive]
pub struct CommandPathError {
    /// The text.
    pub found: String,
}

/// A command to run on a device.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct NewCommand {
    /// The payload.
    pub request: Option<Value>,
    /// The time that the service waits for the device to connect: up to 30 seconds, rounded up to whole seconds. The
    /// service's default is not to wait.
    pub connection_timeout: Option<Duration>,
    /// The time that the service waits for the device to answer: 5 to 30 seconds, rounded up to whole seconds. The
    /// service's default is 30 seconds.
    pub response_timeout: Option<Duration>,
}

impl NewCommand {
    /// Returns a command with a payload.
    #[must_use]
    pub fn with_request(request: impl Into<Value>) -> Self {
        Self { request: Some(request.into()), ..Self::default() }
    }

    fn body(&self) -> Value {
        let seconds = |time: Duration| json!(time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)));
        object([
            ("request", json_of(self.request.as_ref())),
            ("connectionTimeout", self.connection_timeout.map(seconds)),
            ("responseTimeout", self.response_timeout.map(seconds)),
        ])
    }

    /// Returns the longest time that the service waits before it answers.
    fn wait(&self) -> Duration {
        self.connection_timeout.unwrap_or_default().saturating_add(self.response_timeout.unwrap_or(MAX_WAIT))
    }
}

setters!(NewCommand {
    request: Option<Value>,
    connection_timeout: Option<Duration>,
    response_timeout: Option<Duration>,
});

/// A command that was run on a device. It serializes to the service's JSON.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DeviceCommand {
    /// The service's ID of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    /// The payload of the device's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Value>,
    /// The status of the device's answer, by the conventions of HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_code: Option<i64>,
}

impl DeviceCommand {
    /// Returns whether the device answered with an error. A missing status is none: commands that are queued for an
    /// offline device have no answer yet.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.response_code.is_some_and(|code| !(200..300).contains(&code))
    }
}

/// Commands of devices.
impl Devices {
    /// Runs a command on a device and waits for its answer. The call succeeds even if the device
    /// [answers with an error](DeviceCommand::is_failure).
    ///
    /// A command is not sent again after a failure by which the device may have received it.
    ///
    /// # Errors
    /// [`Error`], for which [`answer_was_lost`](Error::answer_was_lost) is true if the device may have received the
    /// command. The service answers 408 if the device does not answer in time.
    pub async fn run_command(
        &self,
        id: &CentralDeviceId,
        path: &CommandPath,
        command: &NewCommand,
    ) -> Result<DeviceCommand, Error> {
        self.run_gated_command(id, path, command, None).await
    }

    /// Does the same as [`run_command`](Self::run_command), with a check right before the command is sent.
    pub(crate) async fn run_gated_command(
        &self,
        id: &CentralDeviceId,
        path: &CommandPath,
        command: &NewCommand,
        gate: Option<Gate>,
    ) -> Result<DeviceCommand, Error> {
        let call = Call::post(&path.segments(id), &command.body()).with_wait(command.wait()).with_gate(gate);
        self.client().rest().read(&call).await
    }

    /// Lists the last runs of a command on a device. The service documents that it keeps the most recent one.
    pub fn command_history(&self, id: &CentralDeviceId, path: &CommandPath) -> Listing<DeviceCommand> {
        items(self.client().rest().clone(), Call::get(&path.segments(id)), None)
    }
}
