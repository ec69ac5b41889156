//! `cert root`, `intermediate`, `device` and `verification`: issue a certificate.

use std::path::PathBuf;

use anyhow::Context;

use super::{
    args::{IssueArgs, KeyPassword, Pfx},
    cert_pair::issue_pair,
    cert_request::{read_request, sign_authority_request, sign_device_request},
    certificate_text::{name_of, note_removed, note_shortened, note_weak_signature, record_rows},
    issuer::{Issuer, MISSING_ISSUER, read_authority},
    output::{Output, clean, fields},
    token_key::{ExistingKey, key_stays, new_authority_key},
};
use crate::{
    certificate::{
        AlternativeName, CertificateAuthority, CommonName, DeviceId, IssuedCertificate, LeafParams,
        files::{self, FileSet},
    },
    workflow::CertificateRecord,
};

/// Create a self-signed root certificate
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert root mytestrootcert
  iot-enroll cert root lab-root --ca-key 'pkcs11:token=lab;object=root?pin-source=file:pin'")]
#[command(mut_arg("existing_key", |flag| flag.requires("ca_key")))]
#[command(mut_arg("days", |days| days.help("Validity of the certificate in days [default: 10 years]")))]
pub(super) struct Root {
    /// Common name of the root
    #[arg(default_value = "Test Root Cert")]
    name: CommonName,
    /// PKCS#11 URI of the private key, which is created in the token
    ///
    /// The key stays in the token: neither a key file nor a PFX file is written.
    #[arg(long, alias = "key", value_name = "URI")]
    ca_key: Option<PathBuf>,
    #[command(flatten)]
    existing_key: ExistingKey,
    #[command(flatten)]
    issue: IssueArgs,
}

/// Issue an intermediate CA certificate
///
/// With --csr, the certificate is for the key of a request, as Azure Device Registry creates one for an issuing CA under a
/// root of yours. The subject is that of the request, the path length is 0, and the certificate is valid for at least 365
/// days. The full chain file is in the order that the service takes: the certificate, then its issuers up to the root.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert intermediate factory-1 mytestrootcert
  iot-enroll cert intermediate contoso-ica mytestrootcert --csr contoso-ica.csr
  iot-enroll cert intermediate factory-1 --ca-cert company_cert.pem --ca-key company_key.pem
  iot-enroll cert intermediate factory-1 mytestrootcert --key 'pkcs11:token=lab;object=factory-1'")]
#[command(mut_arg("existing_key", |flag| flag.requires("own_key").conflicts_with("csr")))]
#[command(group(clap::ArgGroup::new("issuer").required(true).args(["parent", "ca_cert"])))]
#[command(override_usage = "iot-enroll cert intermediate [OPTIONS] <NAME> <PARENT|--ca-cert <FILE>>")]
#[command(mut_arg("days", |days| days.help("Validity of the certificate in days [default: 5 years]")))]
pub(super) struct Intermediate {
    /// Common name of the intermediate CA
    name: CommonName,
    #[command(flatten)]
    issuer: Issuer,
    /// Certificate request (PKCS#10) to sign instead of creating a key
    ///
    /// The common name of its subject must be NAME, and its key an EC key. - is standard input. A key file of the
    /// set that belongs to the request is kept; --force removes another key and the PFX file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["algorithm", "pfx_password_file", "pfx_legacy"])]
    csr: Option<PathBuf>,
    /// PKCS#11 URI of the new CA's own private key, which is created in the token
    ///
    /// The key stays in the token: neither a key file nor a PFX file is written.
    #[arg(long = "key", value_name = "URI", conflicts_with = "csr")]
    own_key: Option<PathBuf>,
    #[command(flatten)]
    existing_key: ExistingKey,
    #[command(flatten)]
    issue: IssueArgs,
}

/// Issue a device certificate
///
/// Without an issuer the certificate is self-signed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert device sample-device-01 mytestrootcert
  iot-enroll cert device sample-device-01 --ca-cert company_cert.pem --ca-key company_key.pem
  iot-enroll cert device sample-device-01 mytestrootcert --csr sample-device-01.csr
  iot-enroll cert device sample-device-01 --pair")]
#[command(group(clap::ArgGroup::new("issuer").args(["parent", "ca_cert"])))]
#[command(mut_arg("days", |days| days.help("Validity of the certificate in days [default: 1 year]")))]
pub(super) struct Device {
    /// Device ID, which becomes the common name
    id: DeviceId,
    #[command(flatten)]
    issuer: Issuer,
    /// Certificate request (PKCS#10) to sign instead of creating a key
    ///
    /// The common name of its subject must be the ID. - is standard input. A key file of the
    /// set that belongs to the request is kept; --force removes another key and the PFX file.
    #[arg(long, value_name = "FILE", requires = "issuer", conflicts_with_all = ["algorithm", "pfx_password_file", "pfx_legacy"])]
    csr: Option<PathBuf>,
    /// Issue the certificate for the ID even if the subject of the request differs
    #[arg(long, requires = "csr")]
    replace_subject: bool,
    /// DNS name or IP address to add as subject alternative name (can be repeated)
    #[arg(long = "san", value_name = "NAME-OR-ADDRESS", value_delimiter = ',', conflicts_with = "csr")]
    alternative_names: Vec<AlternativeName>,
    /// Create two self-signed certificates, for an individual enrollment
    ///
    /// The files of the secondary certificate are named after the ID and Secondary.
    #[arg(long, conflicts_with_all = ["issuer", "ca_key", "csr", "replace_subject"])]
    pair: bool,
    #[command(flatten)]
    issue: IssueArgs,
}

/// Create a proof of possession of a CA's private key
///
/// The proof is a certificate for the verification code of the service, signed by the CA. Its files are always named
/// verification. A proof for another code is overwritten.
#[derive(clap::Args)]
#[command(after_help = "Example:
  iot-enroll cert verification --ca-cert mytestrootcert_cert.pem --ca-key mytestrootcert_key.pem --code CODE")]
#[command(mut_arg("days", |days| days.help("Validity of the certificate in days [default: 1 day]")))]
pub(super) struct Verification {
    /// Certificate of the CA
    #[arg(long, alias = "ca", value_name = "FILE")]
    ca_cert: PathBuf,
    /// Private key of the CA, a file or the PKCS#11 URI of a key in a token
    #[arg(long, alias = "key", value_name = "FILE|URI")]
    ca_key: PathBuf,
    /// Verification code from the service
    #[arg(long, alias = "nonce", value_name = "CODE")]
    code: CommonName,
    #[command(flatten)]
    key_password: KeyPassword,
    #[command(flatten)]
    issue: IssueArgs,
}

impl Root {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<()> {
        let files = FileSet::new(&self.issue.dir, &self.name)?;
        let options = self.issue.options();
        let issued = match &self.ca_key {
            None => CertificateAuthority::new_root(&self.name, &options)?,
            Some(uri) => {
                files.check_available(self.issue.if_exists())?;
                let key = new_authority_key("--ca-key", uri, &self.existing_key, self.issue.keys.algorithm, output)?;
                CertificateAuthority::new_root_with_key(&self.name, key, &options)
                    .with_context(|| key_stays(&self.existing_key))?
            }
        };
        write("root certificate", &files, &issued, &self.issue, output)
    }
}

impl Intermediate {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<()> {
        let request = read_request(self.csr.as_deref())?;
        let files = FileSet::new(&self.issue.dir, &self.name)?;
        check_before_login(&self.issuer, request.is_some(), &files, &self.issue)?;
        let authority = read_issuer(&self.issuer, &self.issue, output)?.context(MISSING_ISSUER)?;
        if let Some((csr, request)) = &request {
            return sign_authority_request((csr, request), &self.name, &authority, &self.issue, output);
        }
        files.check_apart(&authority)?;
        let options = self.issue.options();
        let issued = match &self.own_key {
            None => authority.issue_intermediate(&self.name, &options)?,
            Some(uri) => {
                authority.check_intermediate(&options)?;
                files.check_available(self.issue.if_exists())?;
                let key = new_authority_key("--key", uri, &self.existing_key, self.issue.keys.algorithm, output)?;
                authority
                    .issue_intermediate_with_key(&self.name, key, &options)
                    .with_context(|| key_stays(&self.existing_key))?
            }
        };
        write("intermediate certificate", &files, &issued, &self.issue, output)
    }
}

impl Device {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<()> {
        let request = read_request(self.csr.as_deref())?;
        let files = FileSet::new(&self.issue.dir, &self.id.common_name()?)?;
        check_before_login(&self.issuer, request.is_some(), &files, &self.issue)?;
        let authority = read_issuer(&self.issuer, &self.issue, output)?;
        if let Some((csr, request)) = &request {
            let authority = authority.context(MISSING_ISSUER)?;
            return sign_device_request(
                (csr, request),
                &self.id,
                self.replace_subject,
                &authority,
                &self.issue,
                output,
            );
        }
        let leaf = LeafParams::device(&self.id)?.alternative_names(self.alternative_names.iter().cloned());
        if self.pair {
            return issue_pair(&self.id, &leaf, &self.issue, output);
        }
        let issued = issue_leaf(&leaf, authority.as_ref(), &files, &self.issue)?;
        write("device certificate", &files, &issued, &self.issue, output)
    }
}

/// Issues a certificate under a CA whose files differ from those of the certificate, or self-signed.
pub(super) fn issue_leaf(
    leaf: &LeafParams,
    authority: Option<&CertificateAuthority>,
    files: &FileSet,
    issue: &IssueArgs,
) -> anyhow::Result<IssuedCertificate> {
    let Some(authority) = authority else { return Ok(leaf.self_signed(&issue.options())?) };
    files.check_apart(authority)?;
    Ok(authority.issue_leaf(leaf, &issue.options())?)
}

impl Verification {
    pub(super) fn run(mut self, output: &Output) -> anyhow::Result<()> {
        let options = self.issue.options();
        let pfx_password = &self.issue.keys.pfx_password;
        let at = options.issue_time();
        let authority = read_authority(&self.ca_cert, &self.ca_key, &self.key_password, pfx_password, at, output)?;
        let files = FileSet::verification(&self.issue.dir);
        files.check_apart(&authority)?;
        let issued = authority.issue_verification(&self.code, &options)?;
        self.issue.force |= holds_proof_for_another_code(&files, &self.code);
        write("verification certificate", &files, &issued, &self.issue, output)
    }
}

/// Checks that the files of a certificate can be written, before a PIN is asked for. Files for a request are checked with its
/// key, when they are written.
pub(super) fn check_before_login(
    issuer: &Issuer,
    has_request: bool,
    files: &FileSet,
    issue: &IssueArgs,
) -> anyhow::Result<()> {
    if issuer.is_in_token()? && !has_request {
        files.check_available(issue.if_exists())?;
    }
    Ok(())
}

pub(super) fn read_issuer(
    issuer: &Issuer,
    issue: &IssueArgs,
    output: &Output,
) -> anyhow::Result<Option<CertificateAuthority>> {
    issuer.read(&issue.dir, &issue.keys.pfx_password, issue.options().issue_time(), output)
}

/// Returns whether the files are an earlier proof of possession, which no service accepts for the new code. They can also
/// belong to a certificate with the name "verification", which must not be overwritten.
fn holds_proof_for_another_code(files: &FileSet, code: &CommonName) -> bool {
    let Ok(certificates) = files::read_certificates(&files.certificate()) else { return false };
    let Some(proof) = certificates.first() else { return false };
    let Some(name) = proof.subject().common_name() else { return false };
    let is_named_verification = CommonName::new(name)
        .ok()
        .and_then(|name| FileSet::new(".", &name).ok())
        .is_none_or(|named| named == FileSet::verification("."));
    let is_authority = proof.basic_constraints().is_some_and(|constraints| constraints.authority);
    let has_key = files::read_key(&files.private_key(), None).is_ok_and(|key| key.belongs_to(proof));
    name != code.as_str()
        && !is_named_verification
        && !is_authority
        && !proof.issuer().matches(proof.subject())
        && has_key
}

/// Writes the files of a certificate and prints what was written.
pub(super) fn write(
    kind: &str,
    files: &FileSet,
    issued: &IssuedCertificate,
    issue: &IssueArgs,
    output: &Output,
) -> anyhow::Result<()> {
    let in_token = issued.key.token_uri();
    let pfx = if in_token.is_some() { None } else { issue.keys.pfx()? };
    let before = files.existing().unwrap_or_default();
    let written = files.write(issued, pfx.as_ref().map(Pfx::options), issue.if_exists());
    if in_token.is_some() {
        written.context("the key stays in the token, for --existing-key, but its certificate was not written")?;
    } else {
        written?;
    }
    note_removed(&before, output);
    let mut record = CertificateRecord::new(&issued.certificate, files, pfx.is_some().then(|| files.pfx()));
    if let Some(uri) = in_token {
        record.private_key = Some(uri.into());
        output.note("the private key stays in the token: neither a key file nor a PFX file was written");
    }
    note_shortened(issued.certificate.not_after(), issued.shortened_from, output);
    note_weak_signature(issued.issuers.last(), output);
    if let Some(pfx) = &pfx {
        pfx.note_default_password(output);
    }
    output.result(&record, || {
        let signer = match issued.issuers.first() {
            Some(signer) => format!("issued by {}", clean(&name_of(signer))),
            None => "self-signed".to_owned(),
        };
        let whose = if in_token.is_some() { "in the token" } else { "readable only by you" };
        let rows = record_rows(&record, whose);
        format!(
            "Created the {kind} {}, {signer}, valid until {}.\n{}",
            clean(&name_of(&issued.certificate)),
            issued.certificate.not_after().date(),
            fields(&rows)
        )
    })
}
