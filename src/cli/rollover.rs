//! `rollover`: an enrollment group from one CA to the next.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;

use super::{
    any_service::{AnyService, ServiceKind},
    args::{CERTIFICATES, Confirmation, KeyPassword, Keys, Pfx, days, lifetime},
    error::{AlreadyReported, UsageError},
    issuer::authority_source,
    many_devices::ManyDevices,
    next_command::NextCommand,
    output::{GOOD, Output},
    progress::{Steps, plan},
    provision::{connecting, note_password},
    service::block_on,
};
use crate::{
    certificate::{
        CommonName, DeviceId,
        files::{FileSet, read_certificates},
        fleet::{MANIFEST, read_manifest},
    },
    dps::DpsCertificateName,
    workflow::{
        AuthoritySource, GroupId, RetireReport, RetireRequest, RolloverReport, RolloverRequest, WorkflowEvent, retire,
        rollover,
    },
};

/// Take a verified enrollment group from one root to the next without downtime
///
/// Uploads the new root for the group's free entry, proves possession of its key, and issues the devices' certificates
/// under it, for the same IDs. Devices can then connect with certificates under either root. When each device has its new
/// certificate, the same command with --retire removes the old root; it fails if the new one is not verified. Both are
/// idempotent, resume an interrupted run, and print the next command.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll rollover --app contoso --token-file token --group myx509eg --root root2027 --device sensor-1 --dry-run
  iot-enroll rollover --app contoso --token-file token --group myx509eg --root root2027 --devices fleet/manifest.csv
  iot-enroll rollover --app contoso --token-file token --group myx509eg --root root2027 --retire
  iot-enroll rollover --dps contoso-dps --group myx509eg --root root2027 --device sensor-1")]
pub(super) struct Rollover {
    /// Enrollment group
    #[arg(long, value_name = "ID")]
    group: GroupId,
    /// Common name of the new root, created if missing; with --retire, the one to keep
    #[arg(long, value_name = "NAME", required_unless_present = "ca_cert")]
    root: Option<CommonName>,
    /// Certificate of an existing CA, a root or an intermediate, instead of --root
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    ca_cert: Option<PathBuf>,
    /// Private key of --ca-cert, a file or a PKCS#11 URI; not needed with --retire
    // A flag that is required is not missed where another one that is given excludes it.
    #[arg(long, value_name = "FILE|URI", requires = "ca_cert", conflicts_with = "root")]
    ca_key: Option<PathBuf>,
    /// Name of the new certificate in the DPS instance [default: made of its name]
    ///
    /// The default is the CA's common name and the start of its thumbprint.
    #[arg(long, value_name = "NAME")]
    certificate_name: Option<DpsCertificateName>,
    #[command(flatten)]
    key_password: KeyPassword,
    /// Device to issue a new certificate for, may be repeated
    #[arg(long = "device", value_name = "ID")]
    devices: Vec<DeviceId>,
    #[command(flatten)]
    many: ManyDevices,
    /// Issue the new certificates for the keys that the devices have
    ///
    /// The keys stay in their files. For --device, the old certificates are in --dir; for --devices, the file is the manifest
    /// of a fleet, which names the old certificates.
    #[arg(long, conflicts_with_all = ["count", "algorithm"])]
    keep_keys: bool,
    /// Directory for new device certificates [default: in --dir, named after --root]
    ///
    /// With --ca-cert the default is rollover in --dir.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
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
    /// Remove the old root; only devices under the new one can connect then
    ///
    /// Options for devices are only repeated in the command that is printed.
    #[arg(long)]
    retire: bool,
    #[command(flatten)]
    confirmation: Confirmation,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Directory of the roots, and of the devices' old certificates
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    service: AnyService,
}

impl Rollover {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        let kind = self.service.kind()?;
        kind.check_group(&self.group)?;
        if self.certificate_name.is_some() && kind == ServiceKind::Central {
            return Err(
                UsageError::new("--certificate-name is for DPS: at IoT Central certificates have no names").into()
            );
        }
        block_on(async { if self.retire { self.retire(output).await } else { self.begin(output).await } })
    }

    /// Returns the directory of the new device certificates.
    fn device_directory(&self) -> anyhow::Result<PathBuf> {
        Ok(match (&self.out, &self.root) {
            (Some(out), _) => out.clone(),
            (None, Some(root)) => self.dir.join(root.file_stem()?),
            (None, None) => self.dir.join("rollover"),
        })
    }

    /// Returns the command that ends the rollover: this one with `--retire`.
    fn next_retire(&self) -> NextCommand {
        let mut command = NextCommand::new("rollover");
        self.service.repeat_in(&mut command);
        command.option("--group", self.group.as_str());
        command.optional("--root", self.root.as_ref().map(CommonName::as_str));
        command.optional("--ca-cert", self.ca_cert.as_ref());
        command.optional("--ca-key", self.ca_key.as_ref());
        command.optional("--certificate-name", self.certificate_name.as_ref().map(DpsCertificateName::as_str));
        self.key_password.repeat_in(&mut command);
        for device in &self.devices {
            command.option("--device", device.as_str());
        }
        self.many.repeat_in(&mut command);
        command.optional("--days", self.days.map(|days| days.to_string()));
        self.keys.repeat_in(&mut command);
        command.flag("--keep-keys", self.keep_keys);
        command.optional("--out", self.out.as_ref());
        command.option("--dir", &self.dir);
        command.flag("--retire", true);
        command
    }

    /// Returns the command that provisions the group after the rollover. The device certificates are in a directory of their own,
    /// where provision finds them if it takes the CA by its files. None without the CA's key.
    fn next_provision(&self, device_directory: &Path) -> anyhow::Result<Option<NextCommand>> {
        let mut command = NextCommand::new("provision");
        self.service.repeat_in(&mut command);
        command.option("--group", self.group.as_str());
        let files = match (&self.root, &self.ca_cert, &self.ca_key) {
            (Some(root), ..) => {
                let set = FileSet::new(&self.dir, root)?;
                Some((set.certificate(), set.private_key()))
            }
            (None, Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            _ => None,
        };
        let Some((certificate, key)) = files else { return Ok(None) };
        if let Some(root) = self.root.as_ref().filter(|_| !device_directory.is_dir()) {
            command.option("--root", root.as_str());
            command.option("--dir", &self.dir);
        } else {
            command.option("--ca-cert", certificate);
            command.option("--ca-key", key);
            command.option("--dir", device_directory);
        }
        self.key_password.repeat_in(&mut command);
        // Devices that keep their keys have them in the old directory, where provision does not look for them.
        for device in &self.devices {
            let set = FileSet::new(device_directory, &device.common_name()?)?;
            if set.private_key().exists() || !set.certificate().exists() {
                command.option("--device", device.as_str());
            }
        }
        let manifest = device_directory.join(MANIFEST);
        if self.many.is_given() && (!manifest.exists() || read_manifest(&manifest)?.next().is_some()) {
            self.many.repeat_in(&mut command);
            command.option("--out", device_directory);
        }
        command.optional("--days", self.days.map(|days| days.to_string()));
        self.keys.repeat_in(&mut command);
        Ok(Some(command))
    }

    async fn begin(self, output: &Output) -> anyhow::Result<()> {
        let next = self.next_retire();
        let device_directory = self.device_directory()?;
        let key_password = self.key_password.given_for(self.ca_key.as_deref(), &self.keys)?;
        let authority = match (self.ca_cert, self.ca_key, self.root) {
            (_, _, Some(root)) => AuthoritySource::Root(root),
            (Some(certificate), Some(key), _) => authority_source(&certificate, &key, output)?,
            _ => {
                return Err(UsageError::new(
                    "the proof of possession needs the key of --ca-cert: give it with --ca-key",
                )
                .into());
            }
        };
        let pfx = self.keys.pfx()?;
        let request = RolloverRequest::new(self.group, authority, &device_directory)
            .certificate_name(self.certificate_name)
            .key_password(key_password.as_ref().map(|password| password.as_str()))
            .skip_proof(self.skip_proof)
            .devices(self.devices)
            .fleet(self.many.request(&device_directory, self.keep_keys)?)
            .directory(self.dir)
            .keep_keys(self.keep_keys)
            .algorithm(self.keys.algorithm)
            .device_lifetime(lifetime(self.days))
            .pfx(pfx.as_ref().map(Pfx::options))
            .dry_run(self.dry_run);
        let service = self.service.open().await?;
        let steps = Steps::new(output);
        let rolled = rollover(&service, &request, &mut |event| observe(&steps, &event, self.dry_run)).await;
        steps.finish();
        let report = rolled?;
        note_password(pfx.as_ref(), request.fleet.as_ref(), &report.steps, output);
        let next = Some(next).filter(|_| !self.dry_run).map(|next| next.to_string());
        let text = || if self.dry_run { plan(&report.steps) } else { summary(&report, next.as_deref()) };
        let reasons: Vec<_> = report.refused.iter().map(|refused| refused.reason.clone()).collect();
        output.failures(&reasons);
        output.result(&WithNext { report: &report, next: next.as_deref() }, text)?;
        if report.refused.is_empty() { Ok(()) } else { Err(AlreadyReported.into()) }
    }

    async fn retire(self, output: &Output) -> anyhow::Result<()> {
        let next = self.next_provision(&self.device_directory()?)?;
        let (file, set) = match (self.ca_cert, self.root) {
            (Some(certificate), _) => (certificate, None),
            (None, Some(root)) => {
                let set = FileSet::new(&self.dir, &root)?;
                (set.certificate(), Some(set))
            }
            (None, None) => {
                return Err(
                    UsageError::new("the certificate that stays is missing: name it with --root or --ca-cert").into()
                );
            }
        };
        let stays = read_certificates(&file).context("the certificate that stays could not be read")?.swap_remove(0);
        if let Some(set) = set {
            set.check_name(&stays)?;
        }
        if !self.dry_run {
            let question = format!("let only devices under {} connect through {}?", stays.subject(), self.group);
            self.confirmation.ask(&question)?;
        }
        let service = self.service.open().await?;
        let steps = Steps::new(output);
        let observe = &mut |event: WorkflowEvent<'_>| observe(&steps, &event, self.dry_run);
        let request = RetireRequest::new(self.group, stays).dry_run(self.dry_run);
        let retired = retire(&service, &request, observe).await;
        steps.finish();
        let report = retired?;
        let next = next.filter(|_| !self.dry_run).map(|next| next.to_string());
        let text = || if self.dry_run { plan(&report.steps) } else { retired_summary(&report, next.as_deref()) };
        output.result(&WithNext { report: &report, next: next.as_deref() }, text)
    }
}

/// A report and the next command.
#[derive(Serialize)]
struct WithNext<'a, R: Serialize> {
    #[serde(flatten)]
    report: &'a R,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

/// The plan of a dry run is its result, not its progress.
fn observe(steps: &Steps<'_>, event: &WorkflowEvent<'_>, dry_run: bool) {
    if !dry_run {
        steps.show(event);
    }
}

fn summary(report: &RolloverReport, next: Option<&str>) -> String {
    let RolloverReport { group, from, to, .. } = report;
    let thumbprint = |of: Option<crate::certificate::Thumbprint>| of.map(|of| of.to_string()).unwrap_or_default();
    let connecting = connecting(&report.devices, &report.refused, report.fleet.as_ref(), report.obstacle.as_deref());
    let next = next.map(|next| {
        format!("When each device has its new certificate, remove the old root from the group with:\n  {next}\n")
    });
    format!(
        "{GOOD}{group} now accepts devices under either root{GOOD:#}: {}, as before, and {}, its {} certificate.\n\
         {connecting}{}",
        thumbprint(from.sha1_thumbprint),
        thumbprint(to.sha1_thumbprint),
        to.entry,
        next.unwrap_or_default(),
    )
}

fn retired_summary(report: &RetireReport, next: Option<&str>) -> String {
    let RetireReport { group, to, .. } = report;
    let stays = to.sha1_thumbprint.map(|stays| stays.to_string()).unwrap_or_default();
    let next = next.map(|next| format!("From now on, provision the group with:\n  {next}\n"));
    format!(
        "{GOOD}{group} now accepts only devices under {stays}{GOOD:#}, its {} certificate.\n{}{}",
        to.entry,
        disabled(report.enabled),
        next.unwrap_or_default(),
    )
}

fn disabled(is_enabled: bool) -> &'static str {
    if is_enabled { "" } else { "The group is disabled: no device can connect until it is enabled.\n" }
}
