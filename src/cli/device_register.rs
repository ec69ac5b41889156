//! `device register`: register as the device does.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use serde::Serialize;
use serde_json::Value;

use super::{
    device_register_certificate::{OperationalArgs, Stored},
    device_register_many::{self, Many},
    error::UsageError,
    input::{read, secret},
    output::{GOOD, Output, fields},
    registration::{GROUP_KEY, Passwords, Registrar, RegistrationArgs},
};
use crate::{
    certificate::{Certificate, DeviceId, Timestamp},
    dps::device::{Assignment, Attempt, Cause, Credential, SymmetricKey, derive_device_key, objections},
    workflow::{self, ManifestError, OperationalFiles},
};

// The endings of the names of a certificate file and of the file beside it that has the chain too.
const CERTIFICATE: &str = "_cert.pem";
const FULL_CHAIN: &str = "_fullchain.pem";

/// Register a device, or many, at the Device Provisioning Service (DPS)
///
/// Does what the firmware of a device does: presents the certificate, or a token signed with the symmetric key, and waits
/// until the device is assigned to a hub. It is idempotent.
///
/// If the device is refused, the error names the cause if it can be found. Add --app and a token, or --dps, to look up the
/// cause at the service; nothing there is changed. The ID scope is read from there too unless it is given.
///
/// --new-key also requests an operational certificate, which the device connects to the hub with. It is stored as cert
/// device does. It is valid for some weeks: register again with a new request before it expires.
///
/// --manifest registers all devices of a fleet. The outcome of each row is written to the results file. Run the same command
/// again to resume: devices that are already assigned are skipped. With --group-key-file the devices use keys derived from
/// the group's key, and the files in the manifest are ignored. IOT_ENROLL_GROUP_KEY is only used if the manifest names no
/// files.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll device register sensor-1 --cert sensor1_fullchain.pem --key sensor1_key.pem --id-scope 0ne00A1B2C3
  iot-enroll device register sensor-1 --cert sensor1.pfx --app contoso --token-file token
  iot-enroll device register sensor-1 --cert sensor1.pfx --dps contoso-dps
  iot-enroll device register sensor-1 --group-key-file group.key --id-scope 0ne00A1B2C3
  iot-enroll device register sensor-1 --cert sensor1.pfx --dps contoso-dps --new-key --dir operational
  iot-enroll device register --manifest fleet/manifest.csv --id-scope 0ne00A1B2C3")]
#[command(group(clap::ArgGroup::new("which").required(true).args(["id", "manifest"])))]
pub(super) struct Register {
    /// Registration ID, which is the common name of the certificate
    ///
    /// It is also the device ID, unless the service assigns another one, as an individual enrollment with --device-id does.
    id: Option<DeviceId>,
    /// Certificate with its chain (_fullchain.pem), or a PFX file with both and the key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["symmetric_key_file", "group_key_file", "manifest"])]
    cert: Option<PathBuf>,
    /// Private key [default: the key in the certificate's file]
    #[arg(long, value_name = "FILE", requires = "cert", conflicts_with_all = ["symmetric_key_file", "group_key_file", "manifest"])]
    key: Option<PathBuf>,
    /// File with the device's symmetric key in base64 on its first line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["group_key_file", "manifest"])]
    symmetric_key_file: Option<PathBuf>,
    #[command(flatten)]
    operational: OperationalArgs,
    #[command(flatten)]
    registration: RegistrationArgs,
    // Last, because the heading of a flattened struct also applies to the options after it.
    #[command(flatten)]
    many: Many,
}

/// An assignment, with the names that the service uses.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Assigned<'a> {
    registration_id: &'a str,
    status: &'static str,
    assigned_hub: &'a str,
    device_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    substatus: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_date_time_utc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_updated_date_time_utc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a Value>,
    /// The operational certificate, with the members of `cert device`.
    #[serde(flatten)]
    certificate: Option<&'a Stored>,
}

impl Register {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        let Some(id) = &self.id else {
            return self.register_manifest(output).await;
        };
        let (credential, unsent) = self.credential(id)?;
        let full_chain = self.full_chain();
        let operational = self.operational.is_requested().then(|| self.prepare(id)).transpose()?;
        let pfx = self.operational.pfx().map(|legacy| self.registration.pfx(legacy)).transpose()?;
        let registrar = match operational {
            Some(_) => self.registration.issuing_registrar().await?,
            None => self.registration.registrar().await?,
        };
        let attempt = Attempt { id, id_scope: registrar.client.id_scope(), credential: &credential, unsent: &unsent };
        for objection in objections(&attempt, Timestamp::now()) {
            if matches!(objection, Cause::Expired { .. } | Cause::NotYetValid { .. } | Cause::Certificate { .. }) {
                output.note(format_args!("{objection}; the service may refuse it"));
            }
        }
        let registered = match &operational {
            Some(files) => registrar.register_for_certificate(files.request(), &credential).await,
            None => registrar.register(id, &credential).await,
        };
        match registered {
            Ok(assignment) => {
                // Before anything else, since the service does not return the certificate again.
                let stored = operational.map(|files| Stored::write(&files, &assignment, pfx.as_ref(), output));
                print(id, &assignment, stored.transpose()?.as_ref(), output)
            }
            Err(error) => {
                let mut failure = registrar.explain(&attempt, error, output).await;
                if let Some(file) = full_chain.filter(|file| file.exists() && failure.lacks_chain()) {
                    failure.hint = Some(format!("--cert {} sends the chain too", file.display()));
                }
                Err(failure.into())
            }
        }
    }

    /// Registers the devices of a manifest.
    async fn register_manifest(self, output: &Output) -> anyhow::Result<()> {
        let request = self.many.open()?;
        let group_key = self.registration.group_key.for_manifest(request.names_files(), output)?;
        let request = request.group_key(group_key);
        request.check().map_err(|error| match error {
            ManifestError::NoFiles(_) => {
                anyhow!("{error}: give it with --group-key-file, or in the environment as {GROUP_KEY}")
            }
            error => error.into(),
        })?;
        let Passwords { key, pfx } = self.registration.passwords()?;
        let request = request.key_password(key).pfx_password(pfx);
        let Registrar { client, payload, service, .. } = self.registration.registrar().await?;
        let opened = if service.is_usable() { service.open().await.map(Some) } else { Ok(None) };
        let (service, unavailable) = match opened {
            Ok(service) => (service, None),
            Err(error) => (None, Some(error)),
        };
        let registrar = workflow::Registrar::new(client).payload(payload).service(service);
        device_register_many::run(request, &registrar, unavailable, output).await
    }

    /// Checks that an operational certificate can be requested and stored.
    fn prepare(&self, id: &DeviceId) -> anyhow::Result<OperationalFiles> {
        let inputs = [&self.cert, &self.key, &self.symmetric_key_file];
        self.operational.prepare(id, &inputs.into_iter().filter_map(Option::as_deref).collect::<Vec<_>>())
    }

    /// Returns the credential of the device, and certificates of its chain that are known but not sent.
    fn credential(&self, id: &DeviceId) -> anyhow::Result<(Credential, Vec<Certificate>)> {
        if let Some(file) = &self.cert {
            let device = self.registration.passwords()?.device_certificate(file, self.key.as_deref())?;
            let unsent = self.full_chain().and_then(|file| Certificate::read_all(&read(&file).ok()?).ok());
            return Ok((device.into(), unsent.unwrap_or_default()));
        }
        if let Some(file) = &self.symmetric_key_file {
            let text = secret(Some(file), "")?.unwrap_or_default();
            let key = SymmetricKey::from_base64(&text);
            let key = key.with_context(|| format!("could not use the key in {}", file.display()))?;
            return Ok((key.into(), Vec::new()));
        }
        if let Some(key) = self.registration.group_key.read()? {
            return Ok((derive_device_key(&key, id).into(), Vec::new()));
        }
        let hint = "use --cert FILE and --key FILE, --symmetric-key-file FILE or --group-key-file FILE";
        Err(UsageError::new("no certificate or key of the device given").with_hint(hint).into())
    }

    /// Returns the file beside the certificate that has its chain.
    fn full_chain(&self) -> Option<PathBuf> {
        let file = self.cert.as_ref()?;
        let stem = file.file_name()?.to_str()?.strip_suffix(CERTIFICATE)?;
        Some(file.with_file_name(format!("{stem}{FULL_CHAIN}")))
    }
}

fn print(id: &DeviceId, assignment: &Assignment, stored: Option<&Stored>, output: &Output) -> anyhow::Result<()> {
    let assigned = Assigned {
        registration_id: &assignment.registration_id,
        status: "assigned",
        assigned_hub: &assignment.assigned_hub,
        device_id: &assignment.device_id,
        substatus: assignment.substatus.as_deref(),
        created_date_time_utc: assignment.created_at.map(|at| at.to_string()),
        last_updated_date_time_utc: assignment.updated_at.map(|at| at.to_string()),
        payload: assignment.payload.as_ref(),
        certificate: stored,
    };
    output.result(&assigned, || {
        let mut rows =
            vec![("assigned hub", assignment.assigned_hub.clone()), ("device ID", assignment.device_id.clone())];
        rows.extend(assignment.substatus.clone().map(|substatus| ("substatus", substatus)));
        rows.extend(assigned.created_date_time_utc.clone().map(|at| ("first registered", at)));
        rows.extend(stored.map(Stored::rows).unwrap_or_default());
        format!("{GOOD}Registered {id}.{GOOD:#}\n{}", fields(&rows))
    })
}
