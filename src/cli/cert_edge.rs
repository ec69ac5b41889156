//! `cert edge-ca` and `cert edge`: certificates of IoT Edge devices.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    args::{IssueArgs, PfxPassword, algorithm, days, lifetime},
    cert_issue::{read_issuer, write},
    certificate_text::{note_removed, note_shortened, note_weak_signature},
    error::WithOut,
    issuer::Issuer,
    output::{Output, clean, fields},
};
use crate::{
    certificate::{
        CertificateAuthority, CommonName, DeviceId, IssueOptions, KeyAlgorithm, Timestamp,
        edge::{EdgeCertificates, EdgeFiles, EdgeHostname, EdgeSettings, edge_ca_name},
        files::{FileSet, IfExists},
    },
    dps::device::IdScope,
    workflow::{CertificateRecord, lossy_path},
};

/// Issue a CA certificate for an IoT Edge device
///
/// The common name is NAME and " Edge CA", or NAME as it is if it has a space: it must never be the host name of the device,
/// since the server certificates of the device have that as their common name. A NAME of more than 56 characters is shortened.
/// Without an issuer the certificate is self-signed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert edge-ca edge-1 mytestrootcert
  iot-enroll cert edge-ca 'Line 1 CA' --ca-cert company_cert.pem --ca-key company_key.pem")]
#[command(group(clap::ArgGroup::new("issuer").args(["parent", "ca_cert"])))]
#[command(mut_arg("days", |days| days.help("Validity of the certificate in days [default: 2 years]")))]
pub(super) struct EdgeCa {
    /// Name of the device or of its CA
    name: CommonName,
    #[command(flatten)]
    issuer: Issuer,
    #[command(flatten)]
    issue: IssueArgs,
}

/// Issue all certificates of an IoT Edge device, with its configuration
///
/// Creates the identity of the device, its Edge CA, the trust bundle, and a part of /etc/aziot/config.toml that names these
/// files. Without an issuer, identity and Edge CA are self-signed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert edge edge-1 mytestrootcert --hostname edge-1.plant.example
  iot-enroll cert edge edge-1 mytestrootcert --hostname 192.0.2.7 --id-scope 0ne00A1B2C3 --install-dir /var/aziot/edge-1")]
#[command(group(clap::ArgGroup::new("issuer").args(["parent", "ca_cert"])))]
pub(super) struct Edge {
    /// Device ID, which is also the registration ID
    device: DeviceId,
    #[command(flatten)]
    issuer: Issuer,
    /// Host name or IP address by which modules and downstream devices reach the device
    #[arg(long, value_name = "NAME-OR-ADDRESS")]
    hostname: EdgeHostname,
    /// ID scope of the Device Provisioning Service, for the configuration
    #[arg(long, value_name = "SCOPE")]
    id_scope: Option<IdScope>,
    /// Absolute path of the directory on the device that will hold the files
    ///
    /// Without it, the configuration names the files where they are written.
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    install_dir: Option<String>,
    /// Directory of the files of PARENT
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Directory for the files [default: the device ID in camel case, in --dir]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Validity of both certificates in days [default: 1 year, and 2 of the Edge CA]
    #[arg(long, value_name = "DAYS", value_parser = days, allow_negative_numbers = true)]
    days: Option<NonZeroU32>,
    /// Algorithm of the private keys
    #[arg(long, value_name = "ALGORITHM", default_value = "ec-p256", value_parser = algorithm())]
    algorithm: KeyAlgorithm,
    #[command(flatten)]
    pfx_password: PfxPassword,
    /// Overwrite existing files of the same device
    #[arg(long)]
    force: bool,
}

fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("expected an absolute path on the device, such as /var/aziot/edge-1".to_owned())
    }
}

impl EdgeCa {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<()> {
        let authority = read_issuer(&self.issuer, &self.issue, output)?;
        let files = FileSet::new(&self.issue.dir, &edge_ca_name(&self.name)?)?;
        let options = self.issue.options();
        let issued = match &authority {
            Some(authority) => {
                files.check_apart(authority)?;
                authority.issue_edge_ca(&self.name, &options)?
            }
            None => CertificateAuthority::new_edge_ca(&self.name, &options)?,
        };
        write("Edge CA certificate", &files, &issued, &self.issue, output)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EdgeRecord {
    hostname: String,
    identity: CertificateRecord,
    edge_ca: CertificateRecord,
    #[serde(serialize_with = "lossy_path")]
    trust_bundle: PathBuf,
    #[serde(serialize_with = "lossy_path")]
    config: PathBuf,
}

impl Edge {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<()> {
        let options = IssueOptions::new().algorithm(self.algorithm).lifetime(lifetime(self.days)).at(Timestamp::now());
        let authority = self.issuer.read(&self.dir, &self.pfx_password, options.issue_time(), output)?;
        let directory = match &self.out {
            Some(directory) => directory.clone(),
            None => self.dir.join(self.device.common_name()?.file_stem()?),
        };
        let files = EdgeCertificates::files(&directory, &self.device)?;
        if let Some(authority) = &authority {
            files.check_apart(authority).map_err(WithOut::new)?;
        }
        let certificates = EdgeCertificates::issue(&self.device, &self.hostname, authority.as_ref(), &options)?;
        let settings = EdgeSettings::new(self.hostname.clone())
            .id_scope(self.id_scope.as_ref().map(ToString::to_string))
            .installed_in(self.install_dir.clone());
        let if_exists = if self.force { IfExists::Overwrite } else { IfExists::Fail };
        let before = [&files.identity, &files.edge_ca].map(|set| set.existing().unwrap_or_default()).concat();
        certificates.write(&files, &settings, if_exists).map_err(WithOut::new)?;
        note_removed(&before, output);
        for issued in [&certificates.identity, &certificates.edge_ca] {
            note_shortened(issued.certificate.not_after(), issued.shortened_from, output);
        }
        note_weak_signature(certificates.edge_ca.issuers.last(), output);
        if !certificates.trust_anchor().is_self_issued() {
            output.note(format_args!(
                "the trust bundle holds {}, which is not a root: some TLS clients trust only roots",
                clean(&certificates.trust_anchor().subject().to_string())
            ));
        }
        let record = EdgeRecord {
            hostname: self.hostname.to_string(),
            identity: CertificateRecord::new(&certificates.identity.certificate, &files.identity, None),
            edge_ca: CertificateRecord::new(&certificates.edge_ca.certificate, &files.edge_ca, None),
            trust_bundle: files.trust_bundle.clone(),
            config: files.config.clone(),
        };
        output.result(&record, || self.human(&directory, &files, &record))
    }

    fn human(&self, directory: &Path, files: &EdgeFiles, record: &EdgeRecord) -> String {
        let date = |time: &str| time.split('T').next().unwrap_or_default().to_owned();
        let rows = fields(&[
            ("identity", record.identity.fullchain.display().to_string()),
            ("identity key", format!("{} (readable only by you)", files.identity.private_key().display())),
            ("identity valid until", date(&record.identity.not_after)),
            ("Edge CA", record.edge_ca.fullchain.display().to_string()),
            ("Edge CA key", format!("{} (readable only by you)", files.edge_ca.private_key().display())),
            ("Edge CA valid until", date(&record.edge_ca.not_after)),
            ("trust bundle", files.trust_bundle.display().to_string()),
            ("configuration", files.config.display().to_string()),
            ("thumbprint", record.identity.sha1_thumbprint.clone()),
        ]);
        let (copy, place) = match &self.install_dir {
            Some(place) => (format!("Copy the files to {place} on the device, then run there:"), PathBuf::from(place)),
            None => {
                ("On the device, run:".to_owned(), directory.canonicalize().unwrap_or_else(|_| directory.to_owned()))
            }
        };
        let at_place = |paths: &[&Path]| {
            let names = paths.iter().filter_map(|path| path.file_name());
            let paths: Vec<_> = names.map(|name| place.join(name).display().to_string()).collect();
            shlex::try_join(paths.iter().map(String::as_str)).unwrap_or_default()
        };
        let (identity, edge_ca) = (&record.identity, &record.edge_ca);
        let certificates = at_place(&[&identity.fullchain, &edge_ca.fullchain, &files.trust_bundle]);
        let keys = at_place(&[&files.identity.private_key(), &files.edge_ca.private_key()]);
        format!(
            "Created the certificates of the IoT Edge device {}, reached as {}.\n{}\n\n{copy}\n  \
             sudo chown aziotcs:aziotcs {certificates}\n  sudo chown aziotks:aziotks {keys}\n\
             Both users must be able to enter the directory. Then add the configuration to /etc/aziot/config.toml{}, and \
             run:\n  sudo iotedge config apply",
            self.device,
            record.hostname,
            rows.trim_end(),
            if self.id_scope.is_some() { "" } else { ", with the ID scope of DPS" },
        )
    }
}
