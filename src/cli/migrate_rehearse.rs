//! `migrate rehearse`: one device registers at the new ID scope with its own credential.

use std::{fmt::Write, path::PathBuf};

use anyhow::Context;

use super::{
    args::{KeyPassword, PfxPassword},
    error::{AlreadyReported, UsageError},
    input::secret,
    output::{BAD, GOOD, Output, clean, fields},
    planned_services::BothServices,
    registration::{GroupKey, Passwords, RegistrationFailure},
};
use crate::{
    certificate::DeviceId,
    dps::device::{Credential, RegistrationClient, SymmetricKey, derive_device_key},
    workflow::{
        Registrar, Service,
        migrate::{Plan, Rehearsal, RehearsalError, RehearsalRecord, rehearse},
    },
};

/// Register one device at the DPS instance, and remove its registration again
///
/// Needs the credential of a real device, such as one in the lab. Compares the result with the plan: the device ID, the hub,
/// and the enrollment group or individual enrollment that admitted the device. Run it after migrate apply, for a device of
/// each group, before devices are moved.
///
/// The registration record is removed again, unless there was one before: then the device itself may have arrived. If the
/// command is interrupted, the file plan.json.rehearsal-ID remains: rehearse the device again to remove its record. The identity
/// of the device at its hub stays, because DPS does not remove it with the record.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll migrate rehearse plan.json --device sensor-1 --cert sensor1_fullchain.pem --key sensor1_key.pem
  iot-enroll migrate rehearse plan.json --device sensor-2 --group-key-file group.key")]
pub(super) struct Rehearse {
    /// File with the plan
    plan: PathBuf,
    /// ID of the device
    #[arg(long, value_name = "ID")]
    device: DeviceId,
    /// Certificate with its chain (_fullchain.pem), or a PFX file with both and the key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["symmetric_key_file", "group_key_file"])]
    cert: Option<PathBuf>,
    /// Private key [default: the key in the certificate's file]
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// File with the device's symmetric key in base64 on its first line
    #[arg(long, value_name = "FILE", conflicts_with = "group_key_file")]
    symmetric_key_file: Option<PathBuf>,
    #[command(flatten)]
    group_key: GroupKey,
    #[command(flatten)]
    pfx_password: PfxPassword,
    #[command(flatten)]
    key_password: KeyPassword,
    #[command(flatten)]
    services: BothServices,
}

impl Rehearse {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        let credential = self.credential()?;
        let plan = Plan::read(&self.plan)?;
        let records = self.services.planned_registrations(plan.header()).await?;
        let instance = self.services.planned_instance(plan.header()).await?;
        let properties = instance.properties();
        let connection = self.services.connection();
        let mut builder =
            RegistrationClient::builder(properties.id_scope.clone()).endpoint(properties.device_endpoint.clone());
        if let Some(root) = connection.root()? {
            builder = root.context(builder.add_root_certificate(&root.bytes))?;
        }
        let registrar = Registrar::new(builder.build()?).service(Service::from(&instance));
        match rehearse(&plan, &self.device, &credential, &registrar, &records.registrations()).await {
            Ok(rehearsal) => report(&rehearsal, output),
            Err(RehearsalError::Registration { error, record }) => {
                note(&self.device, &record, output);
                Err(RegistrationFailure { unregistered: *error, hint: None }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn credential(&self) -> anyhow::Result<Credential> {
        if let Some(cert) = &self.cert {
            let passwords = Passwords { pfx: self.pfx_password.given()?, key: self.key_password.given()? };
            return Ok(passwords.device_certificate(cert, self.key.as_deref())?.into());
        }
        if let Some(file) = &self.symmetric_key_file {
            let text = secret(Some(file), "")?.unwrap_or_default();
            let key = SymmetricKey::from_base64(&text);
            return Ok(key.with_context(|| format!("could not use the key in {}", file.display()))?.into());
        }
        if let Some(key) = self.group_key.read()? {
            return Ok(derive_device_key(&key, &self.device).into());
        }
        let hint = "use --cert FILE and --key FILE, --symmetric-key-file FILE or --group-key-file FILE";
        Err(UsageError::new("no certificate or key of the device given").with_hint(hint).into())
    }
}

fn report(rehearsal: &Rehearsal, output: &Output) -> anyhow::Result<()> {
    note(&rehearsal.device, &rehearsal.record, output);
    output.note(format_args!(
        "the identity of {} at {} stays: it is not removed with the registration",
        rehearsal.device, rehearsal.assigned_hub
    ));
    output.result(rehearsal, || summary(rehearsal))?;
    let is_left = matches!(rehearsal.record, RehearsalRecord::Left(_));
    if rehearsal.differences.is_empty() && !is_left { Ok(()) } else { Err(AlreadyReported.into()) }
}

/// Notes what became of the registration record, unless it was removed.
fn note(device: &DeviceId, record: &RehearsalRecord, output: &Output) {
    match record {
        RehearsalRecord::Kept => output.note(format_args!(
            "{device} was registered before the rehearsal, so its registration was kept; `iot-enroll dps registration delete \
             {device}` removes it"
        )),
        RehearsalRecord::Left(reason) => output.note(format_args!(
            "the registration of {device} could not be removed: {reason}; `iot-enroll dps registration delete {device}` \
             removes it"
        )),
        _ => {}
    }
}

fn summary(rehearsal: &Rehearsal) -> String {
    let record = match &rehearsal.record {
        RehearsalRecord::Removed => "removed",
        RehearsalRecord::Kept => "kept",
        RehearsalRecord::Left(_) => "not removed",
        _ => "none",
    };
    let admitted_by = match &rehearsal.enrollment_group {
        Some(group) => format!("enrollment group {group}"),
        None => "individual enrollment".to_owned(),
    };
    let mut text = fields(&[
        ("device", rehearsal.device.to_string()),
        ("ID scope", rehearsal.id_scope.clone()),
        ("assigned hub", rehearsal.assigned_hub.clone()),
        ("device ID", rehearsal.device_id.clone()),
        ("admitted by", admitted_by),
        ("registration", record.to_owned()),
    ]);
    if rehearsal.differences.is_empty() {
        let _ = writeln!(text, "{GOOD}The device registers as planned.{GOOD:#}");
    } else {
        let _ = writeln!(text, "{BAD}The result differs from the plan:{BAD:#}");
        for difference in &rehearsal.differences {
            let _ = writeln!(text, "  {}", clean(difference));
        }
    }
    text
}
