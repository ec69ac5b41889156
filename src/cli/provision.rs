//! `provision`: an enrollment group from nothing to verified.

use std::{fmt::Write, num::NonZeroU32, path::PathBuf};

use super::{
    any_service::{AnyService, ServiceKind},
    args::{CERTIFICATES, Confirmation, KeyPassword, Keys, Pfx, certificate_entry, days, lifetime},
    error::{AlreadyReported, UsageError},
    issuer::authority_source,
    many_devices::ManyDevices,
    output::{DIM, GOOD, Output, WARN},
    progress::{Steps, plan},
    provision_target::Target,
    registration::{Provisioning, read_id_scope},
    service::block_on,
};
use crate::{
    central::{CertificateEntry, DeviceType},
    certificate::{
        Certificate, CommonName, DeviceId,
        files::{FileSet, read_certificates},
    },
    dps::{DpsCertificateName, device::RegistrationClient},
    workflow::{
        AuthoritySource, EntryState, FleetRequest, FleetSummary, GroupId, Outcome, ProvisionReport, ProvisionRequest,
        ProvisionedDevice, RefusedDevice, Service, Step, StepReport, WorkflowEvent, provision, read_entries,
    },
};

/// Enroll a CA in an enrollment group, and issue its devices' certificates
///
/// Finds or creates the root, finds or creates the group, uploads the certificate, proves possession of its key, and
/// issues the devices' certificates. At DPS the certificate belongs to the instance, and the group refers to it by name. It is idempotent: completed steps are left unchanged, and the next run resumes an
/// interrupted one. Concurrent runs on one group or directory converge.
///
/// A second CA beside one that is verified in the group's other entry needs --add-ca, so that an old command cannot bring
/// back a retired root. To replace a root without downtime, use rollover.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll provision --emulator --register
  iot-enroll provision --app contoso --token-file token --group myx509eg --root mytestrootcert --device sample-device-01
  iot-enroll provision --app contoso --token-file token --group myx509eg --root mytestrootcert --dry-run
  iot-enroll provision --app contoso --token-file token --group myx509eg --root mytestrootcert --devices ids.csv \\
      --create-devices --template 'dtmi:contoso:Thermostat;1'
  iot-enroll provision --dps contoso-dps --group myx509eg --root mytestrootcert --device sample-device-01 --register
  iot-enroll provision --emulator dps --register")]
#[command(group(clap::ArgGroup::new("which").args(["devices", "ids", "count", "emulator"]).multiple(true)))]
pub(super) struct Provision {
    /// Run against an embedded emulator of IoT Central, or of DPS
    ///
    /// Without a value it is IoT Central.
    #[arg(
        long,
        value_name = "SERVICE",
        num_args = 0..=1,
        default_missing_value = "central",
        conflicts_with_all = [
            "app", "endpoint", "token_file", "entra", "dps", "subscription", "resource_group", "arm_token_file",
            "connection_string_file", "arm_endpoint", "arm_api_version", "ca_file", "api_version", "rate", "id_scope",
            "dps_endpoint"
        ]
    )]
    emulator: Option<EmulatedService>,
    /// Enrollment group, created if missing [with --emulator: myx509eg]
    #[arg(long, value_name = "ID", required_unless_present = "emulator")]
    group: Option<GroupId>,
    /// Name of a group that is created, at IoT Central [default: its ID]
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// Type of devices the group is for [default: iot for a new group, otherwise any]
    #[arg(long = "type", value_name = "TYPE")]
    device_type: Option<DeviceKind>,
    /// Entry for the certificate [default: the one that already holds it, or primary]
    #[arg(long, value_parser = certificate_entry())]
    entry: Option<CertificateEntry>,
    /// Common name of the root, created if missing [with --emulator: mytestrootcert]
    #[arg(long, value_name = "NAME", required_unless_present_any = ["emulator", "ca_cert"])]
    root: Option<CommonName>,
    /// Certificate of an existing CA, a root or an intermediate, instead of --root
    #[arg(long, value_name = "FILE", requires = "ca_key", conflicts_with = "root")]
    ca_cert: Option<PathBuf>,
    /// Private key of --ca-cert, a file or the PKCS#11 URI of a key in a token
    // A flag that is required is not missed where another one that is given excludes it.
    #[arg(long, value_name = "FILE|URI", requires = "ca_cert", conflicts_with = "root")]
    ca_key: Option<PathBuf>,
    /// Name of the certificate in the DPS instance [default: made of its name]
    ///
    /// The default is the CA's common name and the start of its thumbprint.
    #[arg(long, value_name = "NAME")]
    certificate_name: Option<DpsCertificateName>,
    #[command(flatten)]
    key_password: KeyPassword,
    /// Device to certify, may be repeated [with --emulator: sample-device-01]
    #[arg(long = "device", value_name = "ID")]
    devices: Vec<DeviceId>,
    #[command(flatten)]
    many: ManyDevices,
    /// Directory for the files of --devices and --count [default: fleet in --dir]
    #[arg(long, value_name = "DIR", help_heading = "Many devices", requires = "many")]
    out: Option<PathBuf>,
    /// Create the devices that are missing; at DPS, individual enrollments
    #[arg(long, requires = "which")]
    create_devices: bool,
    /// Device template of devices that are created, at IoT Central
    ///
    /// Without one, the service finds a template when the device connects.
    #[arg(long, value_name = "ID", requires = "create_devices")]
    template: Option<String>,
    /// Register the devices as they do it themselves, as a test that they can connect
    ///
    /// At IoT Central this needs --id-scope, or a device in the application. The outcome for each device of --devices
    /// and --count is in manifest.registrations.csv; devices that it lists as assigned with the same certificate are
    /// skipped.
    #[arg(long, requires = "which")]
    register: bool,
    #[command(flatten)]
    provisioning: Provisioning,
    /// Validity of device certificates in days [default: 1 year]
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
    skip_proof: bool,
    /// Overwrite another certificate in the entry
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    confirmation: Confirmation,
    /// Enroll the CA beside another verified one, so that devices of both can connect
    #[arg(long)]
    add_ca: bool,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Directory of the root's files and of those of --device
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    service: AnyService,
}

/// A service of the emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum EmulatedService {
    /// An IoT Central application
    Central,
    /// A DPS instance
    Dps,
}

/// The type of devices a group is for.
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
        let key_password = self.key_password.given_for(self.ca_key.as_deref(), &self.keys)?;
        self.check_options()?;
        let target = self.target().await?;
        let pfx = self.keys.pfx()?;
        let request = self
            .request(target.registration.clone(), output)?
            .key_password(key_password.as_ref().map(|password| password.as_str()))
            .pfx(pfx.as_ref().map(Pfx::options));
        if let Some(emulator) = &target.emulator {
            let service = if self.emulator == Some(EmulatedService::Dps) { "DPS" } else { "IoT Central" };
            output.progress(format_args!("{DIM}An embedded {service} listens on {}.{DIM:#}", emulator.endpoint()));
        }
        if request.replace && !request.dry_run {
            confirm_replacement(&target.service, &request, &self.confirmation).await?;
        }
        let steps = Steps::new(output);
        // The plan of a dry run is its result, not its progress.
        let mut observe = |event: WorkflowEvent<'_>| {
            if !self.dry_run {
                steps.show(&event);
            }
        };
        let provisioned = provision(&target.service, &request, &mut observe).await;
        steps.finish();
        if let Some(emulator) = target.emulator {
            emulator.stop().await;
        }
        let report = provisioned?;
        note_password(pfx.as_ref(), request.fleet.as_ref(), &report.steps, output);
        let reasons: Vec<_> = report.refused.iter().map(|RefusedDevice { reason, .. }| reason.clone()).collect();
        output.failures(&reasons);
        output.result(&report, || if self.dry_run { plan(&report.steps) } else { summary(&report) })?;
        if report.steps.iter().any(|step| step.outcome == Outcome::Failed) {
            Err(AlreadyReported.into())
        } else {
            Ok(())
        }
    }

    /// Builds the request, without its passwords.
    fn request(
        &self,
        registration: Option<RegistrationClient>,
        output: &Output,
    ) -> anyhow::Result<ProvisionRequest<'static>> {
        let authority = match (&self.ca_cert, &self.ca_key, &self.root) {
            (Some(certificate), Some(key), _) => authority_source(certificate, key, output)?,
            (_, _, Some(root)) => AuthoritySource::Root(root.clone()),
            _ => AuthoritySource::Root(CommonName::new("mytestrootcert")?),
        };
        let group = match &self.group {
            Some(group) => group.clone(),
            None => GroupId::new("myx509eg")?,
        };
        let mut devices = self.devices.clone();
        if self.emulator.is_some() && devices.is_empty() && !self.many.is_given() {
            devices.push(DeviceId::new("sample-device-01")?);
        }
        let fleet_directory = self.out.clone().unwrap_or_else(|| self.dir.join("fleet"));
        Ok(ProvisionRequest::new(group, authority)
            .certificate_name(self.certificate_name.clone())
            .display_name(self.display_name.clone())
            .device_type(self.device_type.map(DeviceType::from))
            .entry(self.entry)
            .devices(devices)
            .fleet(self.many.request(&fleet_directory, false)?)
            .create_devices(self.create_devices)
            .template(self.template.clone())
            .register(registration)
            .directory(&self.dir)
            .algorithm(self.keys.algorithm)
            .device_lifetime(lifetime(self.days))
            .skip_proof(self.skip_proof)
            .replace(self.replace)
            .add_ca(self.add_ca)
            .dry_run(self.dry_run))
    }

    /// Refuses options that the service does not have.
    fn check_options(&self) -> anyhow::Result<()> {
        let kind = match self.emulator {
            Some(EmulatedService::Central) => ServiceKind::Central,
            Some(EmulatedService::Dps) => ServiceKind::Dps,
            None => self.service.kind()?,
        };
        if let Some(group) = &self.group {
            kind.check_group(group)?;
        }
        let wrong = match kind {
            ServiceKind::Central if self.certificate_name.is_some() => {
                "--certificate-name is for DPS, not for IoT Central"
            }
            ServiceKind::Dps if self.display_name.is_some() => "--display-name is for IoT Central, not for DPS",
            ServiceKind::Dps if self.template.is_some() => "--template is for IoT Central, not for DPS",
            _ => return Ok(()),
        };
        Err(UsageError::new(wrong).into())
    }

    /// Starts the emulator if requested, and builds the clients.
    async fn target(&self) -> anyhow::Result<Target> {
        match self.emulator {
            Some(EmulatedService::Central) => return Target::start_application(self.register).await,
            Some(EmulatedService::Dps) => return Target::start_instance(self.register).await,
            None => {}
        }
        let service = self.service.open().await?;
        let place = match &service {
            _ if !self.register => None,
            Service::Dps(instance) => Some(self.provisioning.of_instance(instance.properties())),
            Service::Central(client) => {
                let id_scope = match self.provisioning.given_id_scope()? {
                    Some(id_scope) => id_scope,
                    None => read_id_scope(client).await?,
                };
                Some(self.provisioning.with_id_scope(id_scope)?)
            }
        };
        let registration = place.map(|place| place.client(&self.service.connection)).transpose()?;
        Ok(Target { emulator: None, service, registration })
    }
}

/// Asks before a verified certificate is replaced.
async fn confirm_replacement(
    service: &Service,
    request: &ProvisionRequest<'_>,
    confirmation: &Confirmation,
) -> anyhow::Result<()> {
    let Some(entries) = read_entries(service, &request.group).await? else { return Ok(()) };
    let entry = request.entry.unwrap_or(CertificateEntry::Primary);
    let Some(replaced) = entries.iter().find(|state| state.entry == entry && state.verified) else { return Ok(()) };
    let file = match &request.authority {
        AuthoritySource::Files { certificate, .. } => certificate.clone(),
        AuthoritySource::Root(root) => FileSet::new(&request.directory, root)?.certificate(),
        AuthoritySource::Authority(authority) => authority.files().first().cloned().unwrap_or_default(),
    };
    // If the root cannot be read here, it is another one, or the workflow reports why.
    let ours = read_certificates(&file).ok().and_then(|found| found.first().map(Certificate::sha1_thumbprint));
    // Without --entry, the entry that already holds the certificate is kept.
    let is_kept = |state: &EntryState| {
        ours.is_some() && state.sha1_thumbprint == ours && request.entry.is_none_or(|entry| entry == state.entry)
    };
    if entries.iter().any(is_kept) {
        return Ok(());
    }
    let thumbprint = replaced.sha1_thumbprint.map(|thumbprint| thumbprint.to_string()).unwrap_or_default();
    let group = &request.group;
    confirmation.ask(&format!("replace the verified {entry} certificate of {group}, {thumbprint}?"))
}

/// Formats the result for people.
fn summary(report: &ProvisionReport) -> String {
    let ProvisionReport { group, entry, .. } = report;
    let thumbprint = report.sha1_thumbprint.map(|thumbprint| thumbprint.to_string()).unwrap_or_default();
    let (style, state) = if report.verified { (GOOD, "verified") } else { (WARN, "not verified") };
    let text = format!("The {entry} certificate of {group}, {thumbprint}, is {style}{state}{style:#}.\n");
    text + &connecting(&report.devices, &report.refused, report.fleet.as_ref(), report.obstacle.as_deref())
}

/// Notes that new PFX files have the default password, if they have it.
pub(super) fn note_password(pfx: Option<&Pfx>, fleet: Option<&FleetRequest>, steps: &[StepReport], output: &Output) {
    let with_pfx = |step: &StepReport| match step.step {
        Step::Root | Step::Device => true,
        Step::Fleet => fleet.is_some_and(|fleet| fleet.pfx),
        _ => false,
    };
    if let Some(pfx) = pfx.filter(|_| steps.iter().any(|step| step.outcome == Outcome::Done && with_pfx(step))) {
        pfx.note_default_password(output);
    }
}

/// Returns what the devices connect with, except those that were refused. `obstacle` is why none can connect.
pub(super) fn connecting(
    devices: &[ProvisionedDevice],
    refused: &[RefusedDevice],
    fleet: Option<&FleetSummary>,
    obstacle: Option<&str>,
) -> String {
    let mut text = String::new();
    if let Some(obstacle) = obstacle {
        let _ = writeln!(text, "{WARN}No device can connect through the group{WARN:#}: {obstacle}.");
    }
    for device in devices.iter().filter(|device| refused.iter().all(|refused| refused.id != device.id)) {
        let (chain, key) = (device.record.fullchain.display(), device.key_file().display());
        if obstacle.is_some() && device.assigned_hub.is_none() {
            let _ = writeln!(text, "The files of {} are {chain} and {key}.", device.id);
            continue;
        }
        let hub = device.assigned_hub.as_ref().map(|hub| format!(" to {hub}")).unwrap_or_default();
        let _ = writeln!(text, "{} connects{hub} with {chain} and {key}.", device.id);
    }
    if let Some(fleet) = fleet {
        let _ = writeln!(text, "The files of {} devices are listed in {}.", fleet.devices, fleet.manifest.display());
        if let Some(registrations) = &fleet.registrations {
            let _ = writeln!(text, "The outcome of each registration is in {}.", registrations.display());
        }
    }
    text
}
