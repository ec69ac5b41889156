//! `dps enrollment`: individual enrollments of an instance.

use std::path::PathBuf;

use serde_json::json;

use super::{
    args::{Confirmation, PfxPassword, count, etag},
    dps_service::DpsService,
    dps_settings::{
        Settings, SymmetricKeyArgs, attestation_kind, attestation_rows, change, query, read_certificates, setting_rows,
    },
    error::UsageError,
    input::secret_lines,
    output::{Output, fields, table, yes_no},
};
use crate::dps::service::{
    Etag, IndividualEnrollment, IndividualEnrollmentUpdate, NewAttestation, NewIndividualEnrollment, RegistrationId,
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List individual enrollments
    #[command(after_help = "Example:\n  iot-enroll dps enrollment list --top 20 --dps contoso-dps")]
    List {
        /// Maximum number of enrollments to list [default: all]
        #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
        top: Option<usize>,
        #[command(flatten)]
        service: DpsService,
    },
    /// Show an individual enrollment
    #[command(after_help = "Example:\n  iot-enroll dps enrollment show sensor-1 --dps contoso-dps")]
    Show {
        /// Registration ID of the device
        id: RegistrationId,
        #[command(flatten)]
        service: DpsService,
    },
    Create(Box<Create>),
    Update(Box<Update>),
    /// Delete an individual enrollment
    #[command(after_help = "Example:\n  iot-enroll dps enrollment delete sensor-1 --dps contoso-dps")]
    Delete {
        /// Registration ID of the device
        id: RegistrationId,
        /// Delete the enrollment only if it still has this etag
        #[arg(long, value_parser = etag)]
        etag: Option<Etag>,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        service: DpsService,
    },
}

/// How the device proves its identity.
#[derive(clap::Args)]
struct AttestationArgs {
    /// Certificate of the device
    #[arg(long, value_name = "FILE", conflicts_with_all = ["symmetric_key", "endorsement_key_file"])]
    cert: Option<PathBuf>,
    /// Certificate that the device may present instead, as during a renewal
    #[arg(long, value_name = "FILE", requires = "cert")]
    secondary_cert: Option<PathBuf>,
    /// File with the endorsement key of the device's TPM in base64
    #[arg(long, value_name = "FILE", conflicts_with = "symmetric_key")]
    endorsement_key_file: Option<PathBuf>,
    #[command(flatten)]
    keys: SymmetricKeyArgs,
    #[command(flatten)]
    pfx_password: PfxPassword,
}

/// Create an individual enrollment
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll dps enrollment create sensor-1 --cert sensor1_cert.pem --dps contoso-dps
  iot-enroll dps enrollment create sensor-2 --symmetric-key --device-id Sensor2 --dps contoso-dps")]
pub(super) struct Create {
    /// Registration ID of the device
    id: RegistrationId,
    #[command(flatten)]
    attestation: AttestationArgs,
    /// Device ID in the hub [default: the registration ID]
    #[arg(long, value_name = "ID")]
    device_id: Option<String>,
    /// Do not let the device register
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    service: DpsService,
}

/// Update an individual enrollment
///
/// Values that are not given stay unchanged. An enrollment with certificates is updated together with --cert, and
/// --secondary-cert if it has two, because the service does not return them.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  iot-enroll dps enrollment update sensor-1 --cert sensor1_cert.pem --enabled false --dps contoso-dps"
)]
pub(super) struct Update {
    /// Registration ID of the device
    id: RegistrationId,
    #[command(flatten)]
    attestation: AttestationArgs,
    /// Remove the second certificate
    #[arg(long, requires = "cert", conflicts_with = "secondary_cert")]
    clear_secondary_cert: bool,
    /// New device ID in the hub
    #[arg(long, value_name = "ID")]
    device_id: Option<String>,
    /// Whether the device may register
    #[arg(long, value_name = "BOOLEAN")]
    enabled: Option<bool>,
    #[command(flatten)]
    settings: Settings,
    /// Update the enrollment only if it still has this etag
    #[arg(long, value_parser = etag)]
    etag: Option<Etag>,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    service: DpsService,
}

impl Command {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::List { top, service } => {
                let enrollments = service.client().await?.individual_enrollments();
                let found: Vec<_> = enrollments.list(&query(top)).try_collect().await?;
                output.result(&found, || list(&found))
            }
            Self::Show { id, service } => {
                show(&service.client().await?.individual_enrollments().get(&id).await?, output)
            }
            Self::Create(create) => create.run(output).await,
            Self::Update(update) => update.run(output).await,
            Self::Delete { id, etag, confirmation, service } => {
                confirmation.ask(&format!("delete the individual enrollment {id}?"))?;
                service.client().await?.individual_enrollments().delete(&id, etag.as_ref()).await?;
                output.result(&json!({ "registrationId": id, "deleted": true }), || {
                    format!("Deleted the individual enrollment {id}.")
                })
            }
        }
    }
}

impl AttestationArgs {
    fn read(&self, clear_secondary: bool) -> anyhow::Result<Option<NewAttestation>> {
        if let Some(file) = &self.cert {
            let secondary = change(self.secondary_cert.as_deref(), clear_secondary);
            let certificates = read_certificates(file, &secondary, &self.pfx_password)?;
            return Ok(Some(NewAttestation::ClientCertificates(certificates)));
        }
        if let Some(file) = &self.endorsement_key_file {
            let [key] = secret_lines(file, "the endorsement key")?;
            return Ok(Some(NewAttestation::Tpm { endorsement_key: key.expose().to_owned() }));
        }
        self.keys.attestation()
    }
}

impl Create {
    async fn run(self, output: &Output) -> anyhow::Result<()> {
        let Some(attestation) = self.attestation.read(false)? else {
            let hint = "use --cert FILE, --symmetric-key or --endorsement-key-file FILE";
            return Err(UsageError::new("no attestation of the individual enrollment given").with_hint(hint).into());
        };
        let enrollment = NewIndividualEnrollment::new(attestation)
            .device_id(self.device_id)
            .settings(self.settings.read(Some(!self.disabled))?);
        show(&self.service.client().await?.individual_enrollments().create(&self.id, &enrollment).await?, output)
    }
}

impl Update {
    async fn run(self, output: &Output) -> anyhow::Result<()> {
        let attestation = self.attestation.read(self.clear_secondary_cert)?;
        if attestation.is_none() && self.device_id.is_none() && self.enabled.is_none() && self.settings.is_empty() {
            return Err(UsageError::new("the update changes nothing: give at least one new value").into());
        }
        let enrollments = self.service.client().await?.individual_enrollments();
        if self.settings.has_allocation_policy() {
            let existing = enrollments.get(&self.id).await?.settings;
            let name = format!("the individual enrollment {}", self.id);
            self.settings.confirm_allocation_policy(&existing, &self.confirmation, &name)?;
        }
        let update = IndividualEnrollmentUpdate::new()
            .attestation(attestation)
            .device_id(self.device_id)
            .settings(self.settings.read(self.enabled)?)
            .etag(self.etag);
        show(&enrollments.update(&self.id, &update).await?, output)
    }
}

fn list(enrollments: &[IndividualEnrollment]) -> String {
    let rows = enrollments.iter().map(|enrollment| {
        let state = enrollment.registration_state.as_ref();
        [
            enrollment.id.to_string(),
            attestation_kind(&enrollment.attestation),
            yes_no(enrollment.is_enabled()),
            state.map(|state| state.status.to_string()).unwrap_or_default(),
            state.and_then(|state| state.assigned_hub.clone()).unwrap_or_default(),
        ]
    });
    table(["REGISTRATION ID", "ATTESTATION", "ENABLED", "STATUS", "HUB"], rows)
}

fn show(enrollment: &IndividualEnrollment, output: &Output) -> anyhow::Result<()> {
    let mut rows = vec![("registration ID", enrollment.id.to_string())];
    rows.extend(enrollment.device_id.clone().map(|id| ("device ID", id)));
    rows.extend(attestation_rows(&enrollment.attestation));
    rows.extend(setting_rows(&enrollment.settings));
    if let Some(state) = &enrollment.registration_state {
        rows.push(("status", state.status.to_string()));
        rows.extend(state.assigned_hub.clone().map(|hub| ("assigned hub", hub)));
    }
    rows.extend(enrollment.etag.as_ref().map(|etag| ("etag", etag.as_str().to_owned())));
    output.result(enrollment, || fields(&rows))
}
