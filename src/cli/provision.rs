//! `provision`: the whole sequence.

use std::{fmt::Write, num::NonZeroU32, path::PathBuf, time::Duration};

use super::{
    args::{CERTIFICATES, Confirmation, KeyPassword, Keys, Pfx, certificate_entry, days, lifetime},
    error::AlreadyReported,
    many_devices::ManyDevices,
    output::{DIM, GOOD, Output},
    progress::{Steps, plan},
    registration::{Provisioning, read_id_scope},
    service::{Service, block_on},
};
use crate::{
    central::{Authorization, CertificateEntry, Client, DeviceType, Endpoint, EnrollmentGroupId},
    certificate::{
        Certificate, CommonName, DeviceId,
        files::{FileSet, read_certificates},
    },
    dps::device::RegistrationClient,
    emulator::Emulator,
    workflow::{
        AuthoritySource, FleetRequest, FleetSummary, Outcome, ProvisionReport, ProvisionRequest, ProvisionedDevice,
        RefusedDevice, Step, StepReport, WorkflowEvent, provision,
    },
};

/// Take an enrollment group from nothing to verified, and make its devices' certificates
///
/// Finds or creates the root, finds or creates the group, uploads the certificate, proves possession of its key, and
/// issues the devices' certificates. It is idempotent: completed steps are left unchanged, and the next run resumes an
/// interrupted one. Several runs at once on one group or directory converge.
///
/// A second CA beside one that is verified in the group's other entry needs --add-ca, so that an old command cannot bring
/// back a root that was retired. To replace a root, use rollover.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll provision --emulator --register
  iot-enroll provision --app contoso --token-file token --group myx509eg --root mytestrootcert --device sample-device-01
  iot-enroll provision --app contoso --token-file token --group myx509eg --root mytestrootcert --dry-run
  iot-enroll provision --app contoso --token-file token --group myx509eg --root mytestrootcert --devices ids.csv \\
      --create-devices --template 'dtmi:contoso:Thermostat;1'")]
#[command(group(clap::ArgGroup::new("which").args(["devices", "ids", "count", "emulator"]).multiple(true)))]
pub(super) struct Provision {
    /// Run against an embedded service, started for the purpose
    #[arg(long, conflicts_with_all = ["app", "endpoint", "token_file", "entra", "ca_file", "api_version", "rate", "id_scope", "dps_endpoint"])]
    emulator: bool,
    /// The enrollment group, created where it does not exist [with --emulator by default: myx509eg]
    #[arg(long, value_name = "ID", required_unless_present = "emulator")]
    group: Option<EnrollmentGroupId>,
    /// The name of a group that is created [default: its id]
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// What devices the group is for [default: iot for a group that is created, any for one that exists]
    #[arg(long = "type", value_name = "TYPE")]
    device_type: Option<DeviceKind>,
    /// The entry for the certificate [default: the entry that already holds it, otherwise primary]
    #[arg(long, value_parser = certificate_entry())]
    entry: Option<CertificateEntry>,
    /// The common name of the root, made where it does not exist [with --emulator by default: mytestrootcert]
    #[arg(long, value_name = "NAME", required_unless_present_any = ["emulator", "ca_cert"])]
    root: Option<CommonName>,
    /// The certificate of your own authority, a root or an intermediate, instead of --root
    #[arg(long, value_name = "FILE", requires = "ca_key", conflicts_with = "root")]
    ca_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    #[command(flatten)]
    key_password: KeyPassword,
    /// A device to make a certificate for; may be given more than once [with --emulator by default: sample-device-01]
    #[arg(long = "device", value_name = "ID")]
    devices: Vec<DeviceId>,
    #[command(flatten)]
    many: ManyDevices,
    /// The folder for the certificates of --devices and --count [default: fleet in --dir]
    #[arg(long, value_name = "FOLDER", help_heading = "Many devices", requires = "many")]
    out: Option<PathBuf>,
    /// Create the devices in the application, as far as it does not have them
    #[arg(long, requires = "which")]
    create_devices: bool,
    /// The device template of devices that are created [default: the service finds one when the device connects]
    #[arg(long, value_name = "ID", requires = "create_devices")]
    template: Option<String>,
    /// Register the devices at the end, as they would do it themselves: proof that they get in. Without --emulator it needs
    /// --id-scope, or a device in the application
    #[arg(long, requires = "which")]
    register: bool,
    #[command(flatten)]
    provisioning: Provisioning,
    /// How many days device certificates are valid [default: 1 year]
    #[arg(
        long,
        value_name = "DAYS",
        value_parser = days,
        allow_negative_numbers = true,
        help_heading = CERTIFICATES
    )]
    days: Option<NonZeroU32>,
    /// Upload the certificate as verified, without a proof of possession
    #[arg(long = "verified", alias = "attest")]
    attest: bool,
    /// Replace another certificate in the entry
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    confirmation: Confirmation,
    /// Enroll the CA although the group's other entry holds another CA that is verified: devices of both can connect
    #[arg(long)]
    add_ca: bool,
    /// Only read, and print what would be done
    #[arg(long)]
    dry_run: bool,
    /// The folder for the root's files, where it is looked for too, and for those of --device
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    service: Service,
}

/// What devices a group is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum DeviceKind {
    /// Devices
    Iot,
    /// Gateways that run Azure IoT Edge
    #[value(alias = "iotEdge")]
    IotEdge,
}

impl From<DeviceKind> for DeviceType {
    fn from(kind: DeviceKind) -> Self {
        match kind {
            DeviceKind::Iot => Self::Iot,
            DeviceKind::IotEdge => Self::IotEdge,
        }
    }
}

impl Provision {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        block_on(self.provision(output))
    }

    async fn provision(self, output: &Output) -> anyhow::Result<()> {
        let name = |text: &str| CommonName::new(text);
        let key_password = self.key_password.given_for(self.ca_key.as_deref(), &self.keys)?;
        let authority = match (self.ca_cert, self.ca_key, self.root) {
            (Some(certificate), Some(key), _) => AuthoritySource::Files { certificate, key },
            (_, _, Some(root)) => AuthoritySource::Root(root),
            _ => AuthoritySource::Root(name("mytestrootcert")?),
        };
        let mut devices = self.devices;
        if self.emulator && devices.is_empty() && !self.many.asked_for() {
            devices.push(DeviceId::new("sample-device-01")?);
        }
        let emulator = if self.emulator { Some(emulator(self.register).await?) } else { None };
        let client = match &emulator {
            Some(emulator) => emulator_client(emulator)?,
            None => self.service.client()?,
        };
        let register = match &emulator {
            _ if !self.register => None,
            Some(emulator) => Some(emulator_registration(emulator)?),
            None => Some(registration(&self.provisioning, &self.service, &client).await?),
        };
        let pfx = self.keys.pfx()?;
        let request = ProvisionRequest {
            group: match self.group {
                Some(group) => group,
                None => EnrollmentGroupId::new("myx509eg")?,
            },
            display_name: self.display_name,
            device_type: self.device_type.map(DeviceType::from),
            entry: self.entry,
            authority,
            key_password: key_password.as_ref().map(|password| password.as_str()),
            devices,
            fleet: self.many.request(&self.out.unwrap_or_else(|| self.dir.join("fleet")), false)?,
            create_devices: self.create_devices,
            template: self.template,
            register,
            directory: self.dir,
            algorithm: self.keys.algorithm,
            device_lifetime: lifetime(self.days),
            pfx: pfx.as_ref().map(Pfx::options),
            attest: self.attest,
            replace: self.replace,
            add_ca: self.add_ca,
            dry_run: self.dry_run,
        };
        if let Some(emulator) = &emulator {
            output.progress(format_args!("{DIM}An embedded IoT Central listens on {}.{DIM:#}", emulator.endpoint()));
        }
        if self.replace && !self.dry_run {
            confirm_replacement(&client, &request, &self.confirmation).await?;
        }
        let steps = Steps::new(output);
        // The plan of a dry run is its result, not its progress.
        let mut observe = |event: WorkflowEvent<'_>| {
            if !self.dry_run {
                steps.show(&event);
            }
        };
        let provisioned = provision(&client, &request, &mut observe).await;
        steps.finish();
        if let Some(emulator) = emulator {
            emulator.stop().await;
        }
        let report = provisioned?;
        tell_password(pfx.as_ref(), request.fleet.as_ref(), &report.steps, output);
        let refused: Vec<_> = report.refused.iter().map(|RefusedDevice { reason, .. }| reason.clone()).collect();
        output.failures(&refused);
        output.result(&report, || if self.dry_run { plan(&report.steps) } else { human(&report) })?;
        if report.steps.iter().any(|step| step.outcome == Outcome::Failed) {
            Err(AlreadyReported.into())
        } else {
            Ok(())
        }
    }
}

/// Asks before a verified certificate is replaced.
async fn confirm_replacement(
    client: &Client,
    request: &ProvisionRequest<'_>,
    confirmation: &Confirmation,
) -> anyhow::Result<()> {
    let groups = client.enrollment_groups();
    let entry = request.entry.unwrap_or(CertificateEntry::Primary);
    let found = groups.find_certificate(&request.group, entry).await?;
    let Some(found) = found.filter(|found| found.verified) else { return Ok(()) };
    let file = match &request.authority {
        AuthoritySource::Files { certificate, .. } => certificate.clone(),
        AuthoritySource::Root(root) => FileSet::new(&request.directory, root)?.certificate(),
    };
    // A root that cannot be read here is another one, or is reported by what follows.
    let ours = read_certificates(&file).ok().and_then(|found| found.first().map(Certificate::sha1_thumbprint));
    if found.sha1_thumbprint.is_some() && found.sha1_thumbprint == ours {
        return Ok(());
    }
    // Without --entry, the entry that already holds the certificate is kept.
    if request.entry.is_none()
        && let Some(other) = groups.find_certificate(&request.group, CertificateEntry::Secondary).await?
        && other.sha1_thumbprint.is_some()
        && other.sha1_thumbprint == ours
    {
        return Ok(());
    }
    let thumbprint = found.sha1_thumbprint.map(|thumbprint| thumbprint.to_string()).unwrap_or_default();
    let group = &request.group;
    confirmation.ask(&format!("replace the verified {entry} certificate of {group}, {thumbprint}?"))
}

/// The embedded service; over TLS where devices register, as they do it with their certificates.
async fn emulator(register: bool) -> anyhow::Result<Emulator> {
    Ok(Emulator::builder().tls(register).registration_retry_after(Duration::ZERO).start().await?)
}

fn emulator_client(emulator: &Emulator) -> anyhow::Result<Client> {
    let mut client = Client::builder(emulator.endpoint().parse::<Endpoint>()?)
        .authorization(Authorization::parse(emulator.token().to_owned())?)
        // The embedded service is ours alone and has no limit.
        .rate(NonZeroU32::MAX);
    if let Some(root) = emulator.ca_pem() {
        client = client.add_root_certificate(root.as_bytes())?;
    }
    Ok(client.build()?)
}

fn emulator_registration(emulator: &Emulator) -> anyhow::Result<RegistrationClient> {
    let mut client = RegistrationClient::builder(emulator.id_scope().parse()?)
        .endpoint(emulator.endpoint().parse()?)
        .rate(NonZeroU32::MAX);
    if let Some(root) = emulator.ca_pem() {
        client = client.add_root_certificate(root.as_bytes())?;
    }
    Ok(client.build()?)
}

async fn registration(
    provisioning: &Provisioning,
    service: &Service,
    client: &Client,
) -> anyhow::Result<RegistrationClient> {
    let id_scope = match provisioning.given_id_scope()? {
        Some(id_scope) => id_scope,
        None => read_id_scope(client).await?,
    };
    provisioning.client(id_scope, service)
}

fn human(report: &ProvisionReport) -> String {
    let ProvisionReport { group, entry, .. } = report;
    let thumbprint = report.sha1_thumbprint.map(|thumbprint| thumbprint.to_string()).unwrap_or_default();
    let text = format!("The {entry} certificate of {group}, {thumbprint}, is {GOOD}verified{GOOD:#}.\n");
    let is_refused = |device: &ProvisionedDevice| report.refused.iter().any(|refused| refused.id == device.id);
    let devices = report.devices.iter().filter(|device| !is_refused(device));
    text + &connecting(devices, report.fleet.as_ref())
}

/// Tells of the password that everybody knows, where PFX files with it were made.
pub(super) fn tell_password(pfx: Option<&Pfx>, fleet: Option<&FleetRequest>, steps: &[StepReport], output: &Output) {
    let with_pfx = |step: &StepReport| match step.step {
        Step::Root | Step::Device => true,
        Step::Fleet => fleet.is_some_and(|fleet| fleet.pfx),
        _ => false,
    };
    if let Some(pfx) = pfx.filter(|_| steps.iter().any(|step| step.outcome == Outcome::Done && with_pfx(step))) {
        pfx.note_default_password(output);
    }
}

/// What the devices connect with.
pub(super) fn connecting<'a>(
    devices: impl IntoIterator<Item = &'a ProvisionedDevice>,
    fleet: Option<&FleetSummary>,
) -> String {
    let mut text = String::new();
    for device in devices {
        let (chain, key) = (device.record.fullchain.display(), device.record.private_key.display());
        let hub = device.assigned_hub.as_ref().map(|hub| format!(" to {hub}")).unwrap_or_default();
        let _ = writeln!(text, "{} connects{hub} with {chain} and {key}.", device.id);
    }
    if let Some(fleet) = fleet {
        let _ = writeln!(text, "The files of {} devices are listed in {}.", fleet.devices, fleet.manifest.display());
    }
    text
}
