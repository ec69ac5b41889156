//! `cert device --pair`: a primary and a secondary certificate for the individual enrollment of one device.

use serde::Serialize;

use super::{
    args::{IssueArgs, Pfx},
    certificate_text::{note_removed, record_rows},
    next_command::NextCommand,
    output::{Output, fields},
};
use crate::{
    certificate::{DeviceId, LeafParams, files::FileSet},
    workflow::CertificateRecord,
};

#[derive(Serialize)]
struct Pair {
    primary: CertificateRecord,
    secondary: CertificateRecord,
}

/// Issues two self-signed certificates. If the files of one of them exist, neither is written.
pub(super) fn issue_pair(id: &DeviceId, leaf: &LeafParams, issue: &IssueArgs, output: &Output) -> anyhow::Result<()> {
    let name = id.common_name()?;
    let (primary, secondary) = (FileSet::new(&issue.dir, &name)?, FileSet::secondary(&issue.dir, &name)?);
    for files in [&primary, &secondary] {
        files.check_available(issue.if_exists())?;
    }
    let pfx = issue.keys.pfx()?;
    let options = issue.options();
    // Both are issued before one is written.
    let issued = [(leaf.self_signed(&options)?, primary), (leaf.self_signed(&options)?, secondary)];
    let [primary, secondary] = issued.map(|(issued, files)| {
        let before = files.existing().unwrap_or_default();
        files.write(&issued, pfx.as_ref().map(Pfx::options), issue.if_exists())?;
        note_removed(&before, output);
        Ok::<_, anyhow::Error>(CertificateRecord::new(&issued.certificate, &files, pfx.is_some().then(|| files.pfx())))
    });
    let pair = Pair { primary: primary?, secondary: secondary? };
    if let Some(pfx) = &pfx {
        pfx.note_default_password(output);
    }
    output.result(&pair, || pair.human(id))
}

impl Pair {
    fn human(&self, id: &DeviceId) -> String {
        let Self { primary, secondary } = self;
        let rows = |record: &CertificateRecord| {
            let rows = record_rows(record, "readable only by you");
            fields(&rows).trim_end().to_owned()
        };
        let mut enrollment = NextCommand::new("dps");
        enrollment.flag("enrollment", true);
        enrollment.option("create", id.as_str());
        enrollment.option("--cert", &primary.certificate);
        enrollment.option("--secondary-cert", &secondary.certificate);
        let mut attestation = NextCommand::new("device");
        attestation.flag("attestation", true);
        attestation.option("set", id.as_str());
        attestation.option("--certificate", &primary.certificate);
        attestation.option("--secondary-certificate", &secondary.certificate);
        format!(
            "Created two device certificates for {id}, self-signed, valid until {}.\n\n\
             Primary:\n{}\n\nSecondary:\n{}\n\n\
             To enroll the device with both, at DPS or IoT Central:\n  {enrollment}\n  {attestation}",
            primary.not_after.split('T').next().unwrap_or_default(),
            rows(primary),
            rows(secondary),
        )
    }
}
