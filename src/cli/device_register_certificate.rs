//! `device register --csr` and `--new-key`: an operational certificate for the device.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::{
    args::Pfx,
    certificate_text::{note_removed, record_rows},
    input::{file_name, read},
    output::Output,
};
use crate::{
    certificate::{CertificateRequest, DeviceId, Timestamp, files::IfExists},
    dps::device::Assignment,
    workflow::{CertificateRecord, OperationalFiles},
};

const HEADING: &str = "Operational certificate";

/// Options of an operational certificate.
///
/// Each has the heading itself: the heading of a flattened struct also applies to the options after it.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("request").args(["csr", "new_key"])))]
pub(super) struct OperationalArgs {
    /// Certificate request (PKCS#10) to send, on EC P-384; the common name is the ID
    ///
    /// The service issues a short-lived certificate for the hub, if the enrollment has a certificate policy. - is standard
    /// input. The device API is called with version 2026-11-01, or with that of --api-version.
    #[arg(long, value_name = "FILE", conflicts_with = "manifest", help_heading = HEADING)]
    csr: Option<PathBuf>,
    /// Create a private key on EC P-384, and send a certificate request for it
    #[arg(long, conflicts_with = "manifest", help_heading = HEADING)]
    new_key: bool,
    /// Directory for the files of the certificate
    #[arg(long, value_name = "DIR", default_value = ".", requires = "request", help_heading = HEADING)]
    dir: PathBuf,
    /// Overwrite existing files of the same name
    ///
    /// Files that the device registers with are never overwritten. With --csr, a private key that belongs to the request is
    /// kept; another key and the PFX file are removed.
    #[arg(long, requires = "request", help_heading = HEADING)]
    force: bool,
    /// Encrypt the PFX file with 3DES and SHA-1 for Windows Server 2016 and macOS
    #[arg(long, requires = "new_key", help_heading = HEADING)]
    pfx_legacy: bool,
    /// Do not write a PFX file (--csr writes none)
    #[arg(long, requires = "new_key", conflicts_with = "pfx_legacy", help_heading = HEADING)]
    no_pfx: bool,
}

impl OperationalArgs {
    /// Returns whether a certificate is requested.
    pub(super) fn is_requested(&self) -> bool {
        self.csr.is_some() || self.new_key
    }

    /// Returns whether a PFX file is written, and whether with old algorithms.
    pub(super) fn pfx(&self) -> Option<bool> {
        (self.new_key && !self.no_pfx).then_some(self.pfx_legacy)
    }

    /// Reads or creates the request, and checks that its certificate can be stored. `inputs` are the files that the device
    /// registers with.
    pub(super) fn prepare(&self, id: &DeviceId, inputs: &[&Path]) -> anyhow::Result<OperationalFiles> {
        let files = match &self.csr {
            Some(file) => {
                let context = || format!("could not use the request in {}", file_name(file));
                let request = CertificateRequest::read(&read(file)?).with_context(context)?;
                OperationalFiles::for_request(id, request, &self.dir).with_context(context)?
            }
            None => OperationalFiles::for_new_key(id, &self.dir)?,
        };
        let mut files = files.if_exists(if self.force { IfExists::Overwrite } else { IfExists::Fail });
        files.check(&[inputs, &self.csr.as_deref().map_or(vec![], |csr| vec![csr])].concat())?;
        Ok(files)
    }
}

/// An operational certificate that was stored. A key that the device keeps is null.
#[derive(Serialize)]
pub(super) struct Stored {
    #[serde(flatten)]
    record: CertificateRecord,
    /// Whether the key was there before.
    #[serde(skip)]
    keeps_key: bool,
}

impl Stored {
    /// Stores the certificate of an assignment, and notes when it expires.
    pub(super) fn write(
        files: &OperationalFiles,
        assignment: &Assignment,
        pfx: Option<&Pfx>,
        output: &Output,
    ) -> anyhow::Result<Self> {
        let before = files.set().existing().unwrap_or_default();
        let record = files.write(assignment, pfx.map(Pfx::options))?;
        note_removed(&before, output);
        if let Some(pfx) = pfx {
            pfx.note_default_password(output);
        }
        if let Some(leaf) = assignment.certificate_chain.iter().flatten().next() {
            let end = leaf.not_after().date();
            let left = match (end - Timestamp::now().date()).whole_days() {
                0 => "today".to_owned(),
                1 => "tomorrow".to_owned(),
                days => format!("in {days} days"),
            };
            output.note(format_args!("the certificate expires {left}: register again with a new request before {end}"));
        }
        Ok(Self { record, keeps_key: files.keeps_key() })
    }

    /// Returns the rows for people.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        record_rows(&self.record, if self.keeps_key { "unchanged" } else { "readable only by you" })
    }
}
