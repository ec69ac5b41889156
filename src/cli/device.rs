//! `device`: devices of an application.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::json;

use super::{
    args::{Confirmation, comma_separated, count, etag},
    device_attestation::{AttestationCommand, show_credentials},
    device_compute_key::ComputeKey,
    device_import::Import,
    device_register::Register,
    json_file::JsonFile,
    output::{Output, fields, table, yes_no},
    service::{Service, block_on},
};
use crate::central::{
    CentralDeviceId, Change, Device, DeviceQuery, DeviceType, DeviceUpdate, Devices, Etag, Filter, NewDevice, OrderBy,
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List devices
    #[command(after_help = "Examples:
  iot-enroll device list --app contoso --token-file token
  iot-enroll device list --filter \"contains(displayName, 'thermostat') ge 0 and enabled eq true\" --top 10
  iot-enroll device list --order-by 'displayName desc' -o json")]
    List {
        #[command(flatten)]
        query: Query,
        #[command(flatten)]
        service: Service,
    },
    /// Show a device
    ///
    /// The type, such as IoT Edge, is only shown with --api-version 2022-10-31-preview.
    #[command(after_help = "Example:\n  iot-enroll device show thermostat1 --app contoso --token-file token")]
    Show {
        /// Device ID
        id: CentralDeviceId,
        #[command(flatten)]
        service: Service,
    },
    Create(Box<Create>),
    /// Update a device
    ///
    /// Values that are not given stay unchanged.
    #[command(override_usage = "iot-enroll device update [OPTIONS] <ID>")]
    #[command(after_help = "Examples:
  iot-enroll device update thermostat1 --display-name CheckoutThermostat5
  iot-enroll device update thermostat1 --enabled false --etag ETAG")]
    Update {
        /// Device ID
        id: CentralDeviceId,
        #[command(flatten)]
        change: Box<Changes>,
        /// Update the device only if it still has this etag
        #[arg(long, value_parser = etag)]
        etag: Option<Etag>,
        #[command(flatten)]
        service: Service,
    },
    /// Delete a device
    #[command(after_help = "Example:\n  iot-enroll device delete thermostat1 --app contoso --token-file token")]
    Delete {
        /// Device ID
        id: CentralDeviceId,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        service: Service,
    },
    /// Show the credentials of a device
    #[command(after_help = "Example:\n  iot-enroll device credentials thermostat1 --show-keys")]
    Credentials {
        /// Device ID
        id: CentralDeviceId,
        /// Also show the keys
        #[arg(long)]
        show_keys: bool,
        #[command(flatten)]
        service: Service,
    },
    /// Manage the individual attestation of a device (without an enrollment group)
    #[command(subcommand)]
    Attestation(AttestationCommand),
    Import(Box<Import>),
    Register(Box<Register>),
    ComputeKey(ComputeKey),
}

/// Create a device
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll device create thermostat1 --display-name CheckoutThermostat --template 'dtmi:contoso:Thermostat;1'
  iot-enroll device create thermostat1 --file thermostat1.json
  iot-enroll device create gateway-1 --type iot-edge")]
pub(super) struct Create {
    /// Device ID
    id: CentralDeviceId,
    /// Display name [default: the ID]
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// ID of the device template
    #[arg(long, value_name = "DTMI")]
    template: Option<String>,
    /// Create a simulated device
    #[arg(long)]
    simulated: bool,
    /// Do not let the device connect
    #[arg(long)]
    disabled: bool,
    /// Organization of the device; can be repeated
    #[arg(long = "organization", value_name = "ID")]
    organizations: Vec<String>,
    /// Type of the device
    #[arg(long = "type", value_name = "TYPE", value_parser = ["iot-edge"])]
    device_type: Option<String>,
    /// JSON file with the request body; - is standard input
    ///
    /// Replaces the options above.
    #[arg(
        long,
        value_name = "JSON",
        conflicts_with_all = ["display_name", "template", "simulated", "disabled", "organizations", "device_type"]
    )]
    file: Option<PathBuf>,
    /// Overwrite the device only if it still has this etag
    #[arg(long, conflicts_with = "force", value_parser = etag)]
    etag: Option<Etag>,
    /// Overwrite an existing device
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    service: Service,
}

/// Options of a list of devices.
#[derive(clap::Args)]
pub(super) struct Query {
    /// Maximum number of devices to list [default: all]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    top: Option<usize>,
    /// OData expression to select devices
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Sort order, such as displayName or 'displayName desc'
    #[arg(long, value_name = "FIELD[ desc]")]
    order_by: Option<OrderBy>,
}

/// The changes of an update.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Changes {
    /// New display name
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// Remove the display name
    #[arg(long, conflicts_with = "display_name")]
    clear_display_name: bool,
    /// ID of the new device template
    #[arg(long, value_name = "DTMI")]
    template: Option<String>,
    /// Remove the device template
    #[arg(long, conflicts_with = "template")]
    clear_template: bool,
    /// Whether the device may connect
    #[arg(long, value_name = "BOOLEAN")]
    enabled: Option<bool>,
    /// Whether the device is simulated
    #[arg(long, value_name = "BOOLEAN")]
    simulated: Option<bool>,
    /// All organizations of the device, separated by commas; empty for none
    #[arg(long, value_name = "IDS")]
    organizations: Option<String>,
    /// JSON file with a merge patch; - is standard input
    ///
    /// Replaces the options above.
    #[arg(
        long,
        value_name = "JSON",
        conflicts_with_all = [
            "display_name", "clear_display_name", "template", "clear_template", "enabled", "simulated", "organizations"
        ]
    )]
    file: Option<PathBuf>,
}

impl Command {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        block_on(self.run_async(output))
    }

    async fn run_async(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::List { query, service } => {
                let found: Vec<_> = devices(&service)?.list(&query.into()).try_collect().await?;
                list(&found, output)
            }
            Self::Show { id, service } => show(&devices(&service)?.get(&id).await?, output),
            Self::Create(create) => create.run(output).await,
            Self::Update { id, change, etag, service } => {
                let update = change.update(&id, output)?;
                let update = DeviceUpdate { etag: etag.or(update.etag), ..update };
                show(&devices(&service)?.update(&id, &update).await?, output)
            }
            Self::Delete { id, confirmation, service } => {
                confirmation.ask(&format!("delete the device {id}?"))?;
                devices(&service)?.delete(&id).await?;
                output.result(&json!({ "id": id, "deleted": true }), || format!("Deleted the device {id}."))
            }
            Self::Credentials { id, show_keys, service } => {
                let credentials = devices(&service)?.credentials(&id).await?;
                show_credentials(&credentials, show_keys, output)
            }
            Self::Attestation(action) => action.run(output).await,
            Self::Import(import) => import.run(output).await,
            Self::Register(register) => register.run(output).await,
            Self::ComputeKey(compute) => compute.run(output),
        }
    }
}

impl Create {
    async fn run(self, output: &Output) -> anyhow::Result<()> {
        let id = self.id;
        let device = match self.file {
            Some(file) => read_new_device(&file, &id, output)?,
            None => NewDevice {
                display_name: self.display_name,
                template: self.template,
                enabled: !self.disabled,
                simulated: self.simulated,
                organizations: self.organizations,
                device_types: self.device_type.map(|_| DeviceType::IotEdge).into_iter().collect(),
                etag: None,
            },
        };
        let device = NewDevice { etag: self.etag.or(device.etag), ..device };
        let devices = devices(&self.service)?;
        // The service's PUT overwrites a device.
        if !self.force && device.etag.is_none() && devices.find(&id).await?.is_some() {
            bail!("the device {id} already exists: update it, or overwrite it with --force");
        }
        show(&devices.replace(&id, &device).await?, output)
    }
}

impl From<Query> for DeviceQuery {
    fn from(query: Query) -> Self {
        Self { filter: query.filter.map(Filter::raw), order_by: query.order_by, limit: query.top, ..Self::default() }
    }
}

impl Changes {
    fn update(self, id: &CentralDeviceId, output: &Output) -> anyhow::Result<DeviceUpdate> {
        if let Some(file) = self.file {
            return read_update(&file, id, output);
        }
        Ok(DeviceUpdate {
            display_name: change(self.display_name, self.clear_display_name),
            template: change(self.template, self.clear_template),
            enabled: self.enabled,
            simulated: self.simulated,
            organizations: self.organizations.map(|ids| comma_separated(&ids)),
            ..DeviceUpdate::default()
        })
    }
}

fn devices(service: &Service) -> anyhow::Result<Devices> {
    Ok(service.client()?.devices())
}

/// Opens a file with the body of a device. The output of `device show` is accepted.
fn read_body(path: &Path, id: &CentralDeviceId, output: &Output) -> anyhow::Result<JsonFile> {
    let mut file = JsonFile::read(path)?;
    file.take_id(id.as_str())?;
    file.drop_read_only("provisioned", output);
    Ok(file)
}

fn read_new_device(path: &Path, id: &CentralDeviceId, output: &Output) -> anyhow::Result<NewDevice> {
    let mut file = read_body(path, id, output)?;
    let device = NewDevice {
        display_name: file.take_string("displayName")?,
        template: file.take_string("template")?,
        enabled: file.take_bool("enabled")?.unwrap_or(true),
        simulated: file.take_bool("simulated")?.unwrap_or(false),
        organizations: file.take_strings("organizations")?.unwrap_or_default(),
        device_types: file.take("type", DEVICE_TYPES)?.unwrap_or_default(),
        etag: file.take("etag", "a string")?,
    };
    file.finish()?;
    Ok(device)
}

fn read_update(path: &Path, id: &CentralDeviceId, output: &Output) -> anyhow::Result<DeviceUpdate> {
    let mut file = read_body(path, id, output)?;
    if file.members.keys().all(|name| name == "etag") {
        return file.refuse("it changes nothing");
    }
    let update = DeviceUpdate {
        display_name: file.take_change("displayName")?,
        template: file.take_change("template")?,
        enabled: file.take_bool("enabled")?,
        simulated: file.take_bool("simulated")?,
        organizations: file.take_strings("organizations")?,
        device_types: file.take("type", DEVICE_TYPES)?,
        etag: file.take("etag", "a string")?,
    };
    file.finish()?;
    Ok(update)
}

/// The type of the member `type`.
const DEVICE_TYPES: &str = "a list of device types, such as [\"iotEdge\"]";

/// Returns the change of an option and of the flag that clears the value.
pub(super) fn change(value: Option<String>, clear: bool) -> Change<String> {
    match value {
        Some(value) => Change::Set(value),
        None if clear => Change::Clear,
        None => Change::Keep,
    }
}

/// Prints devices as a table.
pub(super) fn list(devices: &[Device], output: &Output) -> anyhow::Result<()> {
    output.result(devices, || {
        let rows = devices.iter().map(|device| {
            [
                device.id.to_string(),
                device.display_name.clone().unwrap_or_default(),
                device.template.clone().unwrap_or_default(),
                yes_no(device.enabled),
                yes_no(device.provisioned),
                yes_no(device.simulated),
            ]
        });
        table(["ID", "NAME", "TEMPLATE", "ENABLED", "PROVISIONED", "SIMULATED"], rows)
    })
}

fn show(device: &Device, output: &Output) -> anyhow::Result<()> {
    output.result(device, || {
        let mut rows = vec![("id", device.id.to_string())];
        let mut optional = |name, value: &Option<String>| rows.extend(value.clone().map(|value| (name, value)));
        optional("name", &device.display_name);
        optional("template", &device.template);
        rows.push(("enabled", yes_no(device.enabled)));
        rows.push(("provisioned", yes_no(device.provisioned)));
        rows.push(("simulated", yes_no(device.simulated)));
        if !device.organizations.is_empty() {
            rows.push(("organizations", device.organizations.join(", ")));
        }
        if !device.device_types.is_empty() {
            let types: Vec<_> = device.device_types.iter().map(DeviceType::as_str).collect();
            rows.push(("type", types.join(", ")));
        }
        rows.extend(device.etag.as_ref().map(|etag| ("etag", etag.as_str().to_owned())));
        fields(&rows)
    })
}
