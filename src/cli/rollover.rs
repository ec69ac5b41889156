//! `rollover`: from one authority to another.

use std::{num::NonZeroU32, path::PathBuf};

use anyhow::Context;

use super::{
    args::{KeyPassword, Keys, Pfx, lifetime},
    many_devices::ManyDevices,
    output::{GOOD, Output, Usage},
    progress::{Steps, plan},
    provision::{connecting, tell_password},
    service::{Service, block_on},
};
use crate::{
    central::{Client, EnrollmentGroupId},
    certificate::{
        CommonName, DeviceId,
        files::{FileSet, read_certificates},
    },
    workflow::{AuthoritySource, RetireReport, RolloverReport, RolloverRequest, WorkflowEvent, retire, rollover},
};

/// Take a verified enrollment group from one root to another, with no moment in which no device could connect
///
/// Brings the new root into the group's free entry, proves possession of its key, and makes the devices' certificates
/// under it, for the same ids. Devices connect by either root then. When each has its new certificate, the same command
/// with --retire removes the old root; it is refused where the new one is not verified. Both can be run as often as one
/// likes, and finish what was interrupted.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll rollover --app contoso --token-file token --group myx509eg --root root2027 --device sensor-1 --dry-run
  iot-enroll rollover --app contoso --token-file token --group myx509eg --root root2027 --devices fleet/manifest.csv
  iot-enroll rollover --app contoso --token-file token --group myx509eg --root root2027 --retire")]
pub(super) struct Rollover {
    /// The enrollment group
    #[arg(long, value_name = "ID")]
    group: EnrollmentGroupId,
    /// The common name of the new root, made where it does not exist; with --retire of the one that stays
    #[arg(long, value_name = "NAME", required_unless_present = "ca_cert")]
    root: Option<CommonName>,
    /// The certificate of your own new authority, a root or an intermediate, instead of --root
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    ca_cert: Option<PathBuf>,
    /// Its private key, which --retire alone does not need
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    #[command(flatten)]
    key_password: KeyPassword,
    /// A device to make a new certificate for; may be given more than once
    #[arg(long = "device", value_name = "ID")]
    devices: Vec<DeviceId>,
    #[command(flatten)]
    many: ManyDevices,
    /// Make the new certificates for the keys that the devices have, which stay where they are: of --device, by their
    /// certificates in --dir; of --devices, by the certificates that the file, the manifest of a fleet, names
    #[arg(long, conflicts_with_all = ["count", "algorithm"])]
    keep_keys: bool,
    /// The folder for the new device certificates [default: in --dir, called as the files of --root are, and
    /// rollover with --ca-cert]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// How many days device certificates are valid [default: a year]
    #[arg(long)]
    days: Option<NonZeroU32>,
    /// Upload the certificate as verified instead of proving possession of its key
    #[arg(long)]
    attest: bool,
    /// Remove the old root: only devices with certificates under the new one connect from then on
    #[arg(long, conflicts_with_all = ["devices", "ids", "count", "keep_keys", "out", "attest", "days"])]
    retire: bool,
    /// Only read, and tell what would be done
    #[arg(long)]
    dry_run: bool,
    /// The folder of the roots, and of the devices' old certificates
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    service: Service,
}

impl Rollover {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        block_on(async { if self.retire { self.retire(output).await } else { self.begin(output).await } })
    }

    async fn begin(self, output: &Output) -> anyhow::Result<()> {
        let key_password = self.key_password.given_for(self.ca_key.as_deref(), &self.keys)?;
        let (authority, called) = match (self.ca_cert, self.ca_key, self.root) {
            (_, _, Some(root)) => {
                let stem = root.file_stem()?;
                (AuthoritySource::Root(root), Some(stem))
            }
            (Some(certificate), Some(key), _) => (AuthoritySource::Files { certificate, key }, None),
            _ => return Err(Usage::error("the proof needs the key of --ca-cert: give it with --ca-key")),
        };
        let device_directory = match (self.out, called) {
            (Some(out), _) => out,
            (None, Some(called)) => self.dir.join(called),
            (None, None) => self.dir.join("rollover"),
        };
        let pfx = self.keys.pfx()?;
        let request = RolloverRequest {
            group: self.group,
            authority,
            key_password: key_password.as_ref().map(|password| password.as_str()),
            attest: self.attest,
            devices: self.devices,
            fleet: self.many.request(&device_directory, self.keep_keys)?,
            directory: self.dir,
            device_directory,
            keep_keys: self.keep_keys,
            algorithm: self.keys.algorithm,
            device_lifetime: lifetime(self.days),
            pfx: pfx.as_ref().map(Pfx::options),
            dry_run: self.dry_run,
        };
        let client = self.service.client()?;
        let steps = Steps::new(output);
        let rolled = rollover(&client, &request, &mut |event| observe(&steps, &event, self.dry_run)).await;
        steps.finish();
        let report = rolled?;
        tell_password(pfx.as_ref(), request.fleet.as_ref(), &report.steps, output);
        output.result(&report, || if self.dry_run { plan(&report.steps) } else { human(&report) })
    }

    async fn retire(self, output: &Output) -> anyhow::Result<()> {
        let (file, set) = match (self.ca_cert, self.root) {
            (Some(certificate), _) => (certificate, None),
            (None, Some(root)) => {
                let set = FileSet::new(&self.dir, &root)?;
                (set.certificate(), Some(set))
            }
            (None, None) => return Err(Usage::error("--root or --ca-cert says which certificate stays")),
        };
        let stays = read_certificates(&file).context("the certificate that stays could not be read")?.swap_remove(0);
        if let Some(set) = set {
            set.check_name(&stays)?;
        }
        let client: Client = self.service.client()?;
        let steps = Steps::new(output);
        let observe = &mut |event: WorkflowEvent<'_>| observe(&steps, &event, self.dry_run);
        let retired = retire(&client, &self.group, &stays, self.dry_run, observe).await;
        steps.finish();
        let report = retired?;
        output.result(&report, || if self.dry_run { plan(&report.steps) } else { retired_text(&report) })
    }
}

/// The plan of a dry run is its result, not its progress.
fn observe(steps: &Steps<'_>, event: &WorkflowEvent<'_>, dry_run: bool) {
    if !dry_run {
        steps.show(event);
    }
}

fn human(report: &RolloverReport) -> String {
    let RolloverReport { group, from, to, .. } = report;
    let thumbprint = |of: Option<crate::certificate::Thumbprint>| of.map(|of| of.to_string()).unwrap_or_default();
    let connecting = connecting(&report.devices, report.fleet.as_ref());
    let disabled = if report.enabled { "" } else { "The group is disabled: no device connects until it is enabled.\n" };
    format!(
        "{GOOD}{group} takes devices of either certificate now{GOOD:#}: {}, as before, and {}, the {} one.\n\
         {disabled}{connecting}When each device has its new certificate, the same command with --retire instead of devices removes \
         the old one.\n",
        thumbprint(from.sha1_thumbprint),
        thumbprint(to.sha1_thumbprint),
        to.entry,
    )
}

fn retired_text(report: &RetireReport) -> String {
    let RetireReport { group, to, .. } = report;
    let stays = to.sha1_thumbprint.map(|stays| stays.to_string()).unwrap_or_default();
    let disabled = if report.enabled { "" } else { "The group is disabled: no device connects until it is enabled.\n" };
    format!("{GOOD}{group} takes devices of {stays} alone now{GOOD:#}, its {} certificate.\n{disabled}", to.entry)
}
