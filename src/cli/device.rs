//! `device`: the devices of an application.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    args::{Confirmation, PfxPassword, count, secret_lines},
    device_import::Import,
    device_register::{ComputeKey, Register},
    json_file::JsonFile,
    output::{Output, Usage, fields, table, yes},
    service::{Service, block_on},
};
use crate::central::{
    CentralDeviceId, Change, ClientCertificate, Device, DeviceAttestation, DeviceAttestationUpdate, DeviceCredentials,
    DeviceQuery, DeviceType, DeviceUpdate, Devices, Etag, Filter, NewDevice, NewDeviceAttestation, OrderBy, Secret,
    SymmetricKeys,
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the devices
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
    /// Its type, such as IoT Edge, is shown only with --api-version 2022-10-31-preview.
    #[command(after_help = "Example:\n  iot-enroll device show thermostat1 --app contoso --token-file token")]
    Show {
        /// The device
        id: CentralDeviceId,
        #[command(flatten)]
        service: Service,
    },
    /// Create a device
    #[command(after_help = "Examples:
  iot-enroll device create thermostat1 --display-name CheckoutThermostat --template 'dtmi:contoso:Thermostat;1'
  iot-enroll device create thermostat1 --file thermostat1.json
  iot-enroll device create gateway-1 --type iot-edge")]
    Create {
        /// The device
        id: CentralDeviceId,
        /// The display name [default: the ID]
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// The ID of its device template
        #[arg(long, value_name = "DTMI")]
        template: Option<String>,
        /// Create a simulated device
        #[arg(long)]
        simulated: bool,
        /// Do not let it connect
        #[arg(long)]
        disabled: bool,
        /// An organization it belongs to; can be repeated
        #[arg(long = "organization", value_name = "ID")]
        organizations: Vec<String>,
        /// The type of device
        #[arg(long = "type", value_name = "TYPE", value_parser = ["iot-edge"])]
        device_type: Option<String>,
        /// A JSON file with the body, as the REST API takes it, in place of the options
        #[arg(
            long,
            value_name = "JSON",
            conflicts_with_all = ["display_name", "template", "simulated", "disabled", "organizations", "device_type"]
        )]
        file: Option<PathBuf>,
        /// Overwrite it only if it still has this etag
        #[arg(long, conflicts_with = "force")]
        etag: Option<String>,
        /// Overwrite an existing device
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        service: Service,
    },
    /// Update a device; what is not named stays unchanged
    #[command(after_help = "Examples:
  iot-enroll device update thermostat1 --display-name CheckoutThermostat5
  iot-enroll device update thermostat1 --enabled false --etag ETAG")]
    Update {
        /// The device
        id: CentralDeviceId,
        #[command(flatten)]
        change: Box<Changes>,
        /// Update it only if it still has this etag
        #[arg(long)]
        etag: Option<String>,
        #[command(flatten)]
        service: Service,
    },
    /// Delete a device
    #[command(after_help = "Example:\n  iot-enroll device delete thermostat1 --app contoso --token-file token")]
    Delete {
        /// The device
        id: CentralDeviceId,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        service: Service,
    },
    /// Show the credentials of a device
    #[command(after_help = "Example:\n  iot-enroll device credentials thermostat1 --show-keys")]
    Credentials {
        /// The device
        id: CentralDeviceId,
        /// Show the symmetric keys too
        #[arg(long)]
        show_keys: bool,
        #[command(flatten)]
        service: Service,
    },
    /// The individual attestation of a device, apart from enrollment groups
    #[command(subcommand)]
    Attestation(AttestationAction),
    Import(Box<Import>),
    Register(Box<Register>),
    ComputeKey(ComputeKey),
}

/// Which devices, in what order, how many.
#[derive(clap::Args)]
pub(super) struct Query {
    /// Stop after this many; without it, every page is followed
    #[arg(long, value_parser = count, allow_negative_numbers = true)]
    top: Option<usize>,
    /// An OData expression that devices have to match
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// The order: displayName, or 'displayName desc'
    #[arg(long, value_name = "FIELD[ desc]")]
    order_by: Option<OrderBy>,
}

/// What an update changes.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Changes {
    /// The new display name
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// Remove the display name
    #[arg(long, conflicts_with = "display_name")]
    clear_display_name: bool,
    /// The ID of the new device template
    #[arg(long, value_name = "DTMI")]
    template: Option<String>,
    /// Remove the device template
    #[arg(long, conflicts_with = "template")]
    clear_template: bool,
    /// Whether it may connect
    #[arg(long, value_name = "BOOLEAN")]
    enabled: Option<bool>,
    /// Whether it is simulated
    #[arg(long, value_name = "BOOLEAN")]
    simulated: Option<bool>,
    /// All organizations it belongs to, separated by commas; empty for none
    #[arg(long, value_name = "IDS")]
    organizations: Option<String>,
    /// A JSON file with the changes as a merge patch, in place of the options
    #[arg(
        long,
        value_name = "JSON",
        conflicts_with_all = [
            "display_name", "clear_display_name", "template", "clear_template", "enabled", "simulated", "organizations"
        ]
    )]
    file: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
pub(super) enum AttestationAction {
    /// Show the attestation
    #[command(after_help = "Example:\n  iot-enroll device attestation show thermostat1")]
    Show {
        /// The device
        id: CentralDeviceId,
        /// Show the symmetric keys too
        #[arg(long)]
        show_keys: bool,
        #[command(flatten)]
        service: Service,
    },
    /// Set the attestation; overwrites the existing one
    #[command(after_help = "Examples:
  iot-enroll device attestation set thermostat1 --certificate thermostat1_cert.pem
  iot-enroll device attestation set thermostat1 --symmetric-key")]
    Set {
        /// The device
        id: CentralDeviceId,
        #[command(flatten)]
        proof: Box<Proof>,
        /// Symmetric keys that the service generates
        #[arg(long, conflicts_with_all = ["certificate", "secondary_certificate", "endorsement_key_file"])]
        symmetric_key: bool,
        #[command(flatten)]
        service: Service,
    },
    /// Update a part of the attestation; what is not named stays unchanged
    #[command(
        after_help = "Example:\n  iot-enroll device attestation update thermostat1 --secondary-certificate new_cert.pem"
    )]
    Update {
        /// The device
        id: CentralDeviceId,
        #[command(flatten)]
        proof: Box<Proof>,
        /// Remove the secondary certificate
        #[arg(long, conflicts_with = "secondary_certificate")]
        clear_secondary_certificate: bool,
        #[command(flatten)]
        service: Service,
    },
    /// Delete the attestation; only an enrollment group can admit the device then
    #[command(after_help = "Example:\n  iot-enroll device attestation delete thermostat1")]
    Delete {
        /// The device
        id: CentralDeviceId,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        service: Service,
    },
}

/// What a device proves who it is with.
#[derive(clap::Args)]
pub(super) struct Proof {
    /// The certificate; if the file has several, the first
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keys_file", "endorsement_key_file"])]
    certificate: Option<PathBuf>,
    /// A second certificate, for rolling over from the first
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keys_file", "endorsement_key_file"])]
    secondary_certificate: Option<PathBuf>,
    #[command(flatten)]
    pfx_password: PfxPassword,
    /// A file with the two symmetric keys in base64, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "endorsement_key_file")]
    keys_file: Option<PathBuf>,
    /// A file with the public part of the TPM's endorsement key in base64
    #[arg(long, value_name = "FILE")]
    endorsement_key_file: Option<PathBuf>,
}

impl Command {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        block_on(self.act(output))
    }

    async fn act(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::List { query, service } => {
                let found: Vec<_> = devices(&service)?.list(&query.into()).try_collect().await?;
                list(&found, output)
            }
            Self::Show { id, service } => show(&devices(&service)?.get(&id).await?, output),
            Self::Create {
                id,
                display_name,
                template,
                simulated,
                disabled,
                organizations,
                device_type,
                file,
                etag,
                force,
                service,
            } => {
                let device = match file {
                    Some(file) => new_device(&file, &id, output)?,
                    None => NewDevice {
                        display_name,
                        template,
                        enabled: !disabled,
                        simulated,
                        organizations,
                        device_types: device_type.map(|_| DeviceType::IotEdge).into_iter().collect(),
                        etag: None,
                    },
                };
                let device = NewDevice { etag: etag.map(Etag::new).or(device.etag), ..device };
                let devices = devices(&service)?;
                // The service's PUT would replace a device.
                if !force && device.etag.is_none() && devices.find(&id).await?.is_some() {
                    bail!("the device {id} exists already: update it, or replace it with --force");
                }
                show(&devices.replace(&id, &device).await?, output)
            }
            Self::Update { id, change, etag, service } => {
                let update = change.update(&id, output)?;
                let update = DeviceUpdate { etag: etag.map(Etag::new).or(update.etag), ..update };
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
            Self::Attestation(action) => action.act(output).await,
            Self::Import(import) => import.run(output).await,
            Self::Register(register) => register.run(output).await,
            Self::ComputeKey(compute) => compute.run(output),
        }
    }
}

impl AttestationAction {
    async fn act(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::Show { id, show_keys, service } => {
                let devices = devices(&service)?;
                let Some(attestation) = devices.find_attestation(&id).await? else {
                    // 404 also for a device that does not exist, which is an error.
                    devices.get(&id).await?;
                    return output.result(&Value::Null, || {
                        format!("{id} has no attestation of its own; only an enrollment group can admit it.")
                    });
                };
                show_attestation(&attestation, show_keys, output)
            }
            Self::Set { id, proof, symmetric_key, service } => {
                let attestation = proof.attestation(symmetric_key)?;
                show_attestation(&devices(&service)?.set_attestation(&id, &attestation).await?, false, output)
            }
            Self::Update { id, proof, clear_secondary_certificate, service } => {
                let update = proof.update(clear_secondary_certificate)?;
                show_attestation(&devices(&service)?.update_attestation(&id, &update).await?, false, output)
            }
            Self::Delete { id, confirmation, service } => {
                confirmation.ask(&format!("delete the attestation of the device {id}?"))?;
                devices(&service)?.delete_attestation(&id).await?;
                output.result(&json!({ "id": id, "deleted": true }), || {
                    format!("Removed the attestation of the device {id}.")
                })
            }
        }
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
            return device_update(&file, id, output);
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

impl Proof {
    fn attestation(self, symmetric_key: bool) -> anyhow::Result<NewDeviceAttestation> {
        let certificate =
            |file: &Path| Ok::<_, anyhow::Error>(self.pfx_password.read_certificates(file)?.swap_remove(0));
        if let Some(primary) = &self.certificate {
            return Ok(NewDeviceAttestation::X509 {
                primary: Box::new(certificate(primary)?),
                secondary: self.secondary_certificate.as_deref().map(certificate).transpose()?.map(Box::new),
            });
        }
        if let Some(file) = &self.endorsement_key_file {
            return Ok(NewDeviceAttestation::Tpm(endorsement_key(file)?));
        }
        if symmetric_key || self.keys_file.is_some() {
            return Ok(NewDeviceAttestation::SymmetricKey(self.keys_file.as_deref().map(symmetric_keys).transpose()?));
        }
        Err(Usage::error(
            "no attestation is given: use --certificate FILE, --symmetric-key, --keys-file FILE or --endorsement-key-file FILE",
        ))
    }

    fn update(self, clear_secondary: bool) -> anyhow::Result<DeviceAttestationUpdate> {
        let certificate = |file: &PathBuf| {
            Ok::<_, anyhow::Error>(Box::new(self.pfx_password.read_certificates(file)?.swap_remove(0)))
        };
        if let Some(file) = &self.endorsement_key_file {
            return Ok(DeviceAttestationUpdate::Tpm(endorsement_key(file)?));
        }
        if let Some(file) = &self.keys_file {
            let keys = symmetric_keys(file)?;
            return Ok(DeviceAttestationUpdate::SymmetricKey {
                primary: Some(keys.primary_key),
                secondary: Some(keys.secondary_key),
            });
        }
        if self.certificate.is_none() && self.secondary_certificate.is_none() && !clear_secondary {
            return Err(Usage::error(
                "nothing to change: name at least one of --certificate, --secondary-certificate, --keys-file and \
                 --endorsement-key-file",
            ));
        }
        Ok(DeviceAttestationUpdate::X509 {
            primary: self.certificate.as_ref().map(certificate).transpose()?,
            secondary: match &self.secondary_certificate {
                Some(file) => Change::Set(certificate(file)?),
                None if clear_secondary => Change::Clear,
                None => Change::Keep,
            },
        })
    }
}

fn devices(service: &Service) -> anyhow::Result<Devices> {
    Ok(service.client()?.devices())
}

/// A device as the body of the REST API has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DeviceFile {
    display_name: Option<String>,
    template: Option<String>,
    enabled: Option<bool>,
    simulated: Option<bool>,
    organizations: Option<Vec<String>>,
    #[serde(rename = "type")]
    device_types: Option<Vec<DeviceType>>,
    etag: Option<Etag>,
}

/// What `device show` prints can be the body, so it may hold the id and what the service alone sets.
fn read_device(path: &Path, id: &CentralDeviceId, output: &Output) -> anyhow::Result<JsonFile> {
    let mut file = JsonFile::read(path)?;
    file.take_id(id.as_str())?;
    file.take_read_only("provisioned", output);
    Ok(file)
}

fn new_device(path: &Path, id: &CentralDeviceId, output: &Output) -> anyhow::Result<NewDevice> {
    let file = read_device(path, id, output)?;
    file.only_nullable(&[])?;
    let read: DeviceFile = file.into()?;
    Ok(NewDevice {
        display_name: read.display_name,
        template: read.template,
        enabled: read.enabled.unwrap_or(true),
        simulated: read.simulated.unwrap_or(false),
        organizations: read.organizations.unwrap_or_default(),
        device_types: read.device_types.unwrap_or_default(),
        etag: read.etag,
    })
}

/// A merge patch, in which null and absence are two things.
fn device_update(path: &Path, id: &CentralDeviceId, output: &Output) -> anyhow::Result<DeviceUpdate> {
    let file = read_device(path, id, output)?;
    if file.members.keys().all(|name| name == "etag") {
        return file.refuse("it changes nothing");
    }
    file.only_nullable(&["displayName", "template"])?;
    let cleared = |name: &str| file.members.get(name).is_some_and(Value::is_null);
    let (name, template) = (cleared("displayName"), cleared("template"));
    let read: DeviceFile = file.into()?;
    Ok(DeviceUpdate {
        display_name: change(read.display_name, name),
        template: change(read.template, template),
        enabled: read.enabled,
        simulated: read.simulated,
        organizations: read.organizations,
        device_types: read.device_types,
        etag: read.etag,
    })
}

/// What a value and a wish to be without one come to.
pub(super) fn change(value: Option<String>, clear: bool) -> Change<String> {
    match value {
        Some(value) => Change::Set(value),
        None if clear => Change::Clear,
        None => Change::Keep,
    }
}

/// The parts of a list on the command line.
pub(super) fn comma_separated(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Two symmetric keys from a file.
pub(super) fn symmetric_keys(file: &Path) -> anyhow::Result<SymmetricKeys> {
    let [primary_key, secondary_key] = secret_lines(file, "the primary and the secondary key")?;
    Ok(SymmetricKeys { primary_key, secondary_key })
}

fn endorsement_key(file: &Path) -> anyhow::Result<Secret> {
    let [key] = secret_lines(file, "the endorsement key")?;
    Ok(key)
}

/// Devices as a table.
pub(super) fn list(devices: &[Device], output: &Output) -> anyhow::Result<()> {
    output.result(devices, || {
        let rows = devices.iter().map(|device| {
            [
                device.id.to_string(),
                device.display_name.clone().unwrap_or_default(),
                device.template.clone().unwrap_or_default(),
                yes(device.enabled),
                yes(device.provisioned),
                yes(device.simulated),
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
        rows.push(("enabled", yes(device.enabled)));
        rows.push(("provisioned", yes(device.provisioned)));
        rows.push(("simulated", yes(device.simulated)));
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

fn show_credentials(credentials: &DeviceCredentials, show_keys: bool, output: &Output) -> anyhow::Result<()> {
    let mut value = json!({ "idScope": credentials.id_scope });
    let mut rows = vec![("id scope", credentials.id_scope.clone())];
    if let Some(keys) = &credentials.symmetric_key {
        show_symmetric_keys(keys, show_keys, &mut value, &mut rows);
    }
    if let Some(certificates) = &credentials.x509 {
        value["x509"] = json!({ "clientCertificates": certificates });
        rows.extend([
            ("primary", thumbprint(certificates.primary.as_ref())),
            ("secondary", thumbprint(certificates.secondary.as_ref())),
        ]);
    }
    if let Some(key) = &credentials.endorsement_key {
        show_endorsement_key(key, show_keys, &mut value, &mut rows);
    }
    output.result(&value, || fields(&rows))
}

fn show_attestation(attestation: &DeviceAttestation, show_keys: bool, output: &Output) -> anyhow::Result<()> {
    let mut value = serde_json::to_value(attestation)?;
    let mut rows = vec![("attestation", attestation.kind().to_owned())];
    match attestation {
        DeviceAttestation::X509(certificates) => rows.extend([
            ("primary", thumbprint(certificates.primary.as_ref())),
            ("secondary", thumbprint(certificates.secondary.as_ref())),
        ]),
        DeviceAttestation::SymmetricKey(Some(keys)) => show_symmetric_keys(keys, show_keys, &mut value, &mut rows),
        DeviceAttestation::Tpm(Some(key)) => show_endorsement_key(key, show_keys, &mut value, &mut rows),
        _ => {}
    }
    output.result(&value, || fields(&rows))
}

fn show_symmetric_keys(keys: &SymmetricKeys, show: bool, value: &mut Value, rows: &mut Vec<(&str, String)>) {
    if show {
        let (primary, secondary) = (keys.primary_key.expose(), keys.secondary_key.expose());
        value["symmetricKey"] = json!({ "primaryKey": primary, "secondaryKey": secondary });
        rows.extend([("primary key", primary.to_owned()), ("secondary key", secondary.to_owned())]);
    } else {
        rows.push(("keys", "not shown without --show-keys".to_owned()));
    }
}

fn show_endorsement_key(key: &Secret, show: bool, value: &mut Value, rows: &mut Vec<(&str, String)>) {
    if show {
        value["tpm"] = json!({ "endorsementKey": key.expose() });
        rows.push(("endorsement key", key.expose().to_owned()));
    } else {
        rows.push(("keys", "not shown without --show-keys".to_owned()));
    }
}

fn thumbprint(certificate: Option<&ClientCertificate>) -> String {
    match certificate.map(|certificate| certificate.sha1_thumbprint) {
        Some(Some(thumbprint)) => thumbprint.to_string(),
        Some(None) => "set".to_owned(),
        None => "empty".to_owned(),
    }
}
