//! `cert`: issue and examine certificates.

use std::{fmt::Write, path::PathBuf};

use anyhow::bail;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::{
    args::PfxPassword,
    cert_convert::Convert,
    cert_edge::{Edge, EdgeCa},
    cert_expiring::Expiring,
    cert_fleet::Fleet,
    cert_inspect::Inspect,
    cert_issue::{Device, Intermediate, Root, Verification},
    cert_server::Server,
    cert_verify::Verify,
    input::read,
    output::Output,
};
use crate::{
    certificate::{ContentKind, content_kinds},
    workflow::lossy_path,
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    Root(Root),
    Intermediate(Intermediate),
    Device(Device),
    Server(Server),
    EdgeCa(EdgeCa),
    Edge(Edge),
    Fleet(Box<Fleet>),
    Verification(Verification),
    Inspect(Inspect),
    Verify(Verify),
    Expiring(Expiring),
    Convert(Box<Convert>),
    Thumbprint(ThumbprintCommand),
    Base64(Base64Command),
}

impl Command {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::Root(command) => command.run(output),
            Self::Intermediate(command) => command.run(output),
            Self::Device(command) => command.run(output),
            Self::Server(command) => command.run(output),
            Self::EdgeCa(command) => command.run(output),
            Self::Edge(command) => command.run(output),
            Self::Fleet(command) => command.run(output),
            Self::Verification(command) => command.run(output),
            Self::Inspect(command) => command.run(output),
            Self::Verify(command) => command.run(output),
            Self::Expiring(command) => command.run(output),
            Self::Convert(command) => command.run(output),
            Self::Thumbprint(command) => command.run(output),
            Self::Base64(command) => command.run(output),
        }
    }
}

/// Print the thumbprints of certificates
///
/// The thumbprint is the upper-case hexadecimal SHA-1 hash, as IoT Central and DPS show it.
///
/// If a file cannot be read, the thumbprints of the others are printed and the exit status is 1.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert thumbprint sampleDevice01_cert.pem
  iot-enroll cert thumbprint *_cert.pem --sha256")]
pub(super) struct ThumbprintCommand {
    /// Certificate files in any encoding; - is standard input
    ///
    /// PEM, DER, base64 of either, PKCS#7 or PFX. Only the first certificate of a file is used.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print the SHA-256 hash instead of SHA-1
    #[arg(long)]
    sha256: bool,
    #[command(flatten)]
    pfx_password: PfxPassword,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileThumbprint {
    #[serde(serialize_with = "lossy_path")]
    file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha1_thumbprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256_thumbprint: Option<String>,
}

impl ThumbprintCommand {
    fn run(&self, output: &Output) -> anyhow::Result<()> {
        let mut thumbprints = Vec::new();
        let mut errors = Vec::new();
        for file in &self.files {
            match self.pfx_password.read_certificates(file) {
                Ok(mut certificates) => {
                    let certificate = certificates.swap_remove(0);
                    thumbprints.push(FileThumbprint {
                        file: file.clone(),
                        sha1_thumbprint: (!self.sha256).then(|| certificate.sha1_thumbprint().to_string()),
                        sha256_thumbprint: self.sha256.then(|| certificate.sha256_thumbprint().to_string()),
                    });
                }
                Err(error) if self.files.len() == 1 => return Err(error),
                Err(error) => errors.push(error),
            }
        }
        output.result(&thumbprints, || self.human(&thumbprints))?;
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.swap_remove(0)),
            count => {
                let lines: String = errors.iter().map(|error| format!("\n  {error:#}")).collect();
                bail!("could not read {count} of {} files:{lines}", self.files.len())
            }
        }
    }

    fn human(&self, thumbprints: &[FileThumbprint]) -> String {
        thumbprints.iter().fold(String::new(), |mut text, entry| {
            let thumbprint = entry.sha1_thumbprint.as_ref().or(entry.sha256_thumbprint.as_ref());
            text.push_str(thumbprint.map_or("", String::as_str));
            if self.files.len() > 1 {
                let _ = writeln!(text, "  {}", entry.file.display());
            }
            text
        })
    }
}

/// Print a file in base64 on one line, as the REST APIs take certificates
#[derive(clap::Args)]
#[command(after_help = "Example:\n  iot-enroll cert base64 mytestrootcert_cert.pem")]
pub(super) struct Base64Command {
    /// File to encode; - is standard input
    file: PathBuf,
}

#[derive(Serialize)]
struct Base64File {
    #[serde(serialize_with = "lossy_path")]
    file: PathBuf,
    base64: String,
}

impl Base64Command {
    fn run(self, output: &Output) -> anyhow::Result<()> {
        let bytes = read(&self.file)?;
        let file = self.file.display();
        if bytes.is_empty() {
            bail!("{file} is empty");
        }
        let kinds = content_kinds(&bytes).unwrap_or_default();
        if kinds.contains(&ContentKind::Pfx) {
            output.note(format_args!(
                "{file} is a PFX (PKCS#12) file, which usually holds a private key: never send that to a service"
            ));
        } else if kinds.iter().any(ContentKind::holds_private_key) || contains_key_label(&bytes) {
            output.note(format_args!("{file} holds a private key: never send it to a service"));
        }
        let encoded = Base64File { base64: BASE64_STANDARD.encode(&*bytes), file: self.file };
        output.result(&encoded, || encoded.base64.clone())
    }
}

/// Returns whether there is a PEM boundary of a private key, even if the content is malformed.
fn contains_key_label(bytes: &[u8]) -> bool {
    const LABEL: &[u8] = b"PRIVATE KEY-";
    bytes.windows(LABEL.len()).any(|window| window == LABEL)
}
