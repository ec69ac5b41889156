//! `device attestation`: the individual attestation of a device, and its credentials.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    args::{Confirmation, PfxPassword},
    error::UsageError,
    input::{secret_lines, symmetric_keys},
    output::{Output, fields},
    service::Service,
};
use crate::central::{
    CentralDeviceId, Change, ClientCertificate, DeviceAttestation, DeviceAttestationUpdate, DeviceCredentials, Devices,
    NewDeviceAttestation, Secret, SymmetricKeys,
};

#[derive(clap::Subcommand)]
pub(super) enum AttestationCommand {
    /// Show the individual attestation
    #[command(after_help = "Example:\n  iot-enroll device attestation show thermostat1")]
    Show {
        /// Device ID
        id: CentralDeviceId,
        /// Also show the keys
        #[arg(long)]
        show_keys: bool,
        #[command(flatten)]
        service: Service,
    },
    /// Set the individual attestation, overwriting an existing one
    #[command(after_help = "Examples:
  iot-enroll device attestation set thermostat1 --certificate thermostat1_cert.pem
  iot-enroll device attestation set thermostat1 --symmetric-key")]
    Set {
        /// Device ID
        id: CentralDeviceId,
        #[command(flatten)]
        credentials: Box<Credentials>,
        /// Use symmetric keys that the service generates
        #[arg(long, conflicts_with_all = ["certificate", "secondary_certificate", "endorsement_key_file"])]
        symmetric_key: bool,
        #[command(flatten)]
        service: Service,
    },
    /// Update a part of the individual attestation
    ///
    /// Values that are not given stay unchanged.
    #[command(
        after_help = "Example:\n  iot-enroll device attestation update thermostat1 --secondary-certificate new_cert.pem"
    )]
    Update {
        /// Device ID
        id: CentralDeviceId,
        #[command(flatten)]
        credentials: Box<Credentials>,
        /// Remove the secondary certificate
        #[arg(long, conflicts_with = "secondary_certificate")]
        clear_secondary_certificate: bool,
        #[command(flatten)]
        service: Service,
    },
    /// Delete the individual attestation
    ///
    /// Then only an enrollment group can admit the device.
    #[command(after_help = "Example:\n  iot-enroll device attestation delete thermostat1")]
    Delete {
        /// Device ID
        id: CentralDeviceId,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        service: Service,
    },
}

/// Credentials of a device.
#[derive(clap::Args)]
pub(super) struct Credentials {
    /// Device certificate; if the file has several, the first one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keys_file", "endorsement_key_file"])]
    certificate: Option<PathBuf>,
    /// Secondary device certificate, for a rollover
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keys_file", "endorsement_key_file"])]
    secondary_certificate: Option<PathBuf>,
    #[command(flatten)]
    pfx_password: PfxPassword,
    /// File with the primary and secondary symmetric key in base64, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "endorsement_key_file")]
    keys_file: Option<PathBuf>,
    /// File with the public endorsement key of the TPM in base64
    #[arg(long, value_name = "FILE")]
    endorsement_key_file: Option<PathBuf>,
}

impl AttestationCommand {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::Show { id, show_keys, service } => {
                let devices = devices(&service)?;
                let Some(attestation) = devices.find_attestation(&id).await? else {
                    // The service also answers 404 if the device does not exist, which is an error.
                    devices.get(&id).await?;
                    return output.result(&Value::Null, || {
                        format!("{id} has no individual attestation; only an enrollment group can admit it.")
                    });
                };
                show_attestation(&attestation, show_keys, output)
            }
            Self::Set { id, credentials, symmetric_key, service } => {
                let attestation = credentials.attestation(symmetric_key)?;
                show_attestation(&devices(&service)?.set_attestation(&id, &attestation).await?, false, output)
            }
            Self::Update { id, credentials, clear_secondary_certificate, service } => {
                let update = credentials.update(clear_secondary_certificate)?;
                show_attestation(&devices(&service)?.update_attestation(&id, &update).await?, false, output)
            }
            Self::Delete { id, confirmation, service } => {
                confirmation.ask(&format!("delete the individual attestation of the device {id}?"))?;
                devices(&service)?.delete_attestation(&id).await?;
                output.result(&json!({ "id": id, "deleted": true }), || {
                    format!("Deleted the individual attestation of the device {id}.")
                })
            }
        }
    }
}

impl Credentials {
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
        let message = "no attestation given: use --certificate FILE, --symmetric-key, --keys-file FILE or \
                       --endorsement-key-file FILE";
        Err(UsageError::new(message).into())
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
            let message = "nothing to change: use --certificate, --secondary-certificate, --keys-file or \
                           --endorsement-key-file";
            return Err(UsageError::new(message).into());
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

/// Prints the credentials of a device. Keys are hidden unless `show_keys`.
pub(super) fn show_credentials(
    credentials: &DeviceCredentials,
    show_keys: bool,
    output: &Output,
) -> anyhow::Result<()> {
    let mut value = json!({ "idScope": credentials.id_scope });
    let mut rows = vec![("ID scope", credentials.id_scope.clone())];
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

fn devices(service: &Service) -> anyhow::Result<Devices> {
    Ok(service.client()?.devices())
}

fn endorsement_key(file: &Path) -> anyhow::Result<Secret> {
    let [key] = secret_lines(file, "the endorsement key")?;
    Ok(key)
}

/// Prints an attestation. Keys are hidden unless `show_keys`.
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
        rows.push(("keys", "hidden; --show-keys shows them".to_owned()));
    }
}

fn show_endorsement_key(key: &Secret, show: bool, value: &mut Value, rows: &mut Vec<(&str, String)>) {
    if show {
        value["tpm"] = json!({ "endorsementKey": key.expose() });
        rows.push(("endorsement key", key.expose().to_owned()));
    } else {
        rows.push(("keys", "hidden; --show-keys shows them".to_owned()));
    }
}

fn thumbprint(certificate: Option<&ClientCertificate>) -> String {
    match certificate.map(|certificate| certificate.sha1_thumbprint) {
        Some(Some(thumbprint)) => thumbprint.to_string(),
        Some(None) => "set".to_owned(),
        None => "empty".to_owned(),
    }
}
