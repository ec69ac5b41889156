//! `cert verify`: validate a chain or a proof of possession.

use std::{fmt::Write, path::PathBuf};

use serde::Serialize;

use super::{
    args::PfxPassword,
    certificate_text::name_of,
    error::AlreadyReported,
    output::{BAD, GOOD, Output, clean},
};
use crate::certificate::{Certificate, ChainError, Timestamp, chain, find_leaf};

/// Check that a chain leads to a CA, or that a proof of possession is valid
///
/// The exit status is 0 if the chain or proof is valid, and 1 if not.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert verify sampleDevice01_fullchain.pem --ca-cert mytestrootcert_cert.pem
  iot-enroll cert verify verification_cert.pem --ca-cert mytestrootcert_cert.pem --code CODE")]
pub(super) struct Verify {
    /// Certificate to check, with the rest of its chain in any order
    file: PathBuf,
    /// CA certificate that the chain must lead to; if the file has several, any of them
    #[arg(long, alias = "ca", value_name = "FILE")]
    ca_cert: PathBuf,
    /// Verification code, to check a proof of possession
    #[arg(long)]
    code: Option<String>,
    #[command(flatten)]
    pfx_password: PfxPassword,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    valid: bool,
    /// The names from the certificate to the CA.
    path: Vec<String>,
    /// The SHA-1 thumbprint of the CA that the path leads to.
    anchor_sha1_thumbprint: Option<String>,
    reason: Option<String>,
}

impl Verify {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<()> {
        let certificates = leaf_first(self.pfx_password.read_certificates(&self.file)?);
        let anchors = self.pfx_password.read_certificates(&self.ca_cert)?;
        let verdict = Verdict::new(self.check(&certificates, &anchors));
        output.result(&verdict, || self.human(&verdict, anchors.len()))?;
        if verdict.valid { Ok(()) } else { Err(AlreadyReported.into()) }
    }

    /// Returns the certificates from the first to the CA.
    fn check<'a>(
        &self,
        certificates: &'a [Certificate],
        anchors: &'a [Certificate],
    ) -> Result<Vec<&'a Certificate>, ChainError> {
        let at = Timestamp::now();
        let Some(code) = &self.code else { return chain::verify(certificates, anchors, at) };
        let proof = &certificates[0];
        let signer = anchors.iter().find(|anchor| proof.verify_signature(anchor).is_ok()).unwrap_or(&anchors[0]);
        chain::verify_possession(proof, signer, code, at)?;
        Ok(vec![proof, signer])
    }

    fn human(&self, verdict: &Verdict, anchors: usize) -> String {
        let mut text = match (&verdict.reason, verdict.path.last(), &self.code) {
            (Some(reason), ..) => format!("{BAD}Not valid{BAD:#}: {}", clean(reason)),
            (None, Some(anchor), Some(_)) => {
                format!("{GOOD}Valid{GOOD:#}: proves possession of the private key of {}.", clean(anchor))
            }
            _ => format!("{GOOD}Valid{GOOD:#}: {}.", clean(&verdict.path.join(", issued by "))),
        };
        if let Some(thumbprint) = verdict.anchor_sha1_thumbprint.as_ref().filter(|_| anchors > 1) {
            let _ = write!(text, "\nThe CA is the one of {anchors} with the thumbprint {thumbprint}.");
        }
        text
    }
}

impl Verdict {
    fn new(checked: Result<Vec<&Certificate>, ChainError>) -> Self {
        match checked {
            Ok(path) => Self {
                valid: true,
                path: path.iter().map(|certificate| name_of(certificate)).collect(),
                anchor_sha1_thumbprint: path.last().map(|anchor| anchor.sha1_thumbprint().to_string()),
                reason: None,
            },
            Err(error) => {
                Self { valid: false, path: Vec::new(), anchor_sha1_thumbprint: None, reason: Some(error.to_string()) }
            }
        }
    }
}

/// Moves the certificate that issued none of the others to the front: bundles come in either order.
fn leaf_first(mut certificates: Vec<Certificate>) -> Vec<Certificate> {
    let leaf = find_leaf(&certificates).unwrap_or_default();
    certificates[..=leaf].rotate_right(1);
    certificates
}
