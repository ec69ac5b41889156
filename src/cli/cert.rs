//! `cert`: make and look at certificates.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::{
    args::{IssuerFiles, KeyPassword, Making, PfxPassword, Within, read},
    cert_expiring::Expiring,
    cert_fleet::Fleet,
    cert_inspect::{JSON, inspect},
    output::{BAD, GOOD, Output, Told, clean, fields},
};
use crate::{
    certificate::{
        Certificate, CertificateAuthority, CertificateRequest, CommonName, ContentKind, DeviceId, DeviceIssuer,
        IssuedCertificate, Timestamp, chain, content_kinds,
        files::{self, FileSet, IfExists, Passwords},
        find_leaf,
    },
    workflow::{CertificateRecord, lossy_path},
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make a self-signed root certificate
    #[command(after_help = "Example:\n  iot-enroll cert root mytestrootcert")]
    Root {
        /// The common name
        #[arg(default_value = "Test Root Cert")]
        name: CommonName,
        #[command(flatten)]
        making: Making,
    },
    /// Make an intermediate CA certificate under another CA
    #[command(after_help = "Examples:
  iot-enroll cert intermediate factory-1 mytestrootcert
  iot-enroll cert intermediate factory-1 --ca-cert company_cert.pem --ca-key company_key.pem")]
    #[command(group(clap::ArgGroup::new("issuer").required(true).args(["parent", "ca_cert"])))]
    Intermediate {
        /// The common name
        name: CommonName,
        /// The common name of the issuer; its files are looked up in --dir, and its certificate must have that name
        parent: Option<CommonName>,
        #[command(flatten)]
        issuer: IssuerFiles,
        #[command(flatten)]
        key_password: KeyPassword,
        #[command(flatten)]
        making: Making,
    },
    /// Make a device certificate under a CA, or self-signed
    #[command(after_help = "Examples:
  iot-enroll cert device sample-device-01 mytestrootcert
  iot-enroll cert device sample-device-01 --ca-cert company_cert.pem --ca-key company_key.pem
  iot-enroll cert device sample-device-01 mytestrootcert --csr sample-device-01.csr")]
    #[command(group(clap::ArgGroup::new("issuer").args(["parent", "ca_cert"])))]
    Device {
        /// The device ID, which becomes the common name
        id: DeviceId,
        /// The common name of the issuer; its files are looked up in --dir, and its certificate must have that name. Without an
        /// issuer the certificate is self-signed
        parent: Option<CommonName>,
        #[command(flatten)]
        issuer: IssuerFiles,
        #[command(flatten)]
        key_password: KeyPassword,
        /// Sign this certificate request (PKCS#10) instead of making a key; - is standard input
        ///
        /// Its common name has to be the ID.
        #[arg(long, value_name = "FILE", requires = "issuer", conflicts_with_all = ["algorithm", "pfx_password_file", "pfx_legacy"])]
        csr: Option<PathBuf>,
        /// Sign the request even if its subject is not the ID
        #[arg(long, requires = "csr")]
        replace_subject: bool,
        #[command(flatten)]
        making: Making,
    },
    Fleet(Box<Fleet>),
    /// Make a proof of possession of a CA's private key for a verification code
    ///
    /// The files are always named verification. A proof for another code is overwritten.
    #[command(after_help = "Example:
  iot-enroll cert verification --ca-cert mytestrootcert_cert.pem --ca-key mytestrootcert_key.pem --code CODE")]
    Verification {
        /// The certificate of the CA
        #[arg(long = "ca-cert", alias = "ca", value_name = "FILE")]
        ca: PathBuf,
        /// The private key of the CA
        #[arg(long = "ca-key", alias = "key", value_name = "FILE")]
        key: PathBuf,
        /// The verification code from the service
        #[arg(long = "code", alias = "nonce", value_name = "CODE")]
        nonce: CommonName,
        #[command(flatten)]
        key_password: KeyPassword,
        #[command(flatten)]
        making: Making,
    },
    /// Show the contents of certificates, and what a service would refuse
    ///
    /// Shows names, validity, key, signature, extensions and thumbprints. Extensions that do not decode are named in a
    /// warning, and the rest is shown.
    ///
    /// The exit status is 0 despite warnings. With --within it is 1 if a certificate expires in that time or has expired,
    /// and 3 if the file could not be read; --within 0d is about expired ones only.
    #[command(after_help = "Examples:\n  iot-enroll cert inspect sampleDevice01_fullchain.pem\n  \
                            iot-enroll cert inspect sampleDevice01_fullchain.pem --within 30d",
              after_long_help = JSON)]
    Inspect {
        /// PEM, DER, base64 of either, PKCS#7 or PFX; - is standard input
        file: PathBuf,
        /// Fail if a certificate runs out so soon: a number and d for days, w for weeks or h for hours
        #[arg(long, value_name = "TIME")]
        within: Option<Within>,
        #[command(flatten)]
        pfx_password: PfxPassword,
    },
    /// Check that a chain leads to a certificate, or that a proof of possession is valid
    #[command(
        after_help = "Examples:\n  iot-enroll cert verify sampleDevice01_fullchain.pem --ca-cert mytestrootcert_cert.pem\n  \
                      iot-enroll cert verify verification_cert.pem --ca-cert mytestrootcert_cert.pem --code CODE"
    )]
    Verify {
        /// The certificate to check, with the others of its chain in any order
        file: PathBuf,
        /// The file of the CA certificate it has to lead to; of several, any one
        #[arg(long = "ca-cert", alias = "ca", value_name = "FILE")]
        ca: PathBuf,
        /// The verification code of a proof of possession
        #[arg(long)]
        code: Option<String>,
        #[command(flatten)]
        pfx_password: PfxPassword,
    },
    Expiring(Expiring),
    /// Print the thumbprint of certificates, as the services show it
    ///
    /// If a file cannot be read, the others are printed and the exit status is 1.
    #[command(after_help = "Example:\n  iot-enroll cert thumbprint sampleDevice01_cert.pem")]
    Thumbprint {
        /// PEM, DER, base64 of either, PKCS#7 or PFX; of several certificates the first counts; - is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// SHA-256 instead of SHA-1
        #[arg(long)]
        sha256: bool,
        #[command(flatten)]
        pfx_password: PfxPassword,
    },
    /// Print a file in base64 on one line, as the service's certificate fields take it
    #[command(after_help = "Example:\n  iot-enroll cert base64 mytestrootcert_cert.pem")]
    Base64 {
        /// The file; - is standard input
        file: PathBuf,
    },
}

impl Command {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::Root { name, making } => {
                let issued = CertificateAuthority::new_root(&name, &making.options())?;
                write("a root certificate", &FileSet::new(&making.dir, &name)?, &issued, &making, output)
            }
            Self::Intermediate { name, parent, issuer, key_password, making } => {
                let authority = read_issuer(parent.as_ref(), &issuer, &making, &key_password)?.context(NO_ISSUER)?;
                let files = FileSet::new(&making.dir, &name)?;
                files.check_apart(&authority)?;
                let issued = authority.issue_intermediate(&name, &making.options())?;
                write("an intermediate certificate", &files, &issued, &making, output)
            }
            Self::Fleet(fleet) => fleet.run(output),
            Self::Expiring(expiring) => expiring.run(output),
            Self::Device { id, parent, issuer, key_password, csr: Some(csr), replace_subject, making } => {
                let authority = read_issuer(parent.as_ref(), &issuer, &making, &key_password)?.context(NO_ISSUER)?;
                sign_request(&csr, &id, &authority, replace_subject, &making, output)
            }
            Self::Device { id, parent, issuer, key_password, making, .. } => {
                let files = FileSet::new(&making.dir, &id.common_name()?)?;
                let issued = match read_issuer(parent.as_ref(), &issuer, &making, &key_password)? {
                    Some(authority) => {
                        files.check_apart(&authority)?;
                        authority.issue_device(&id, &making.options())?
                    }
                    None => CertificateAuthority::self_signed_device(&id, &making.options())?,
                };
                write("a device certificate", &files, &issued, &making, output)
            }
            Self::Verification { ca, key, nonce, key_password, mut making } => {
                let options = making.options();
                let (key_password, pfx_password) = (key_password.given()?, making.keys.pfx_password()?);
                let passwords = Passwords {
                    key: key_password.as_ref().map(|password| password.as_str()),
                    pfx: pfx_password.as_ref().map(|password| password.as_str()),
                };
                let authority = files::read_authority(&ca, &key, passwords, options.issue_time())?;
                let files = FileSet::verification(&making.dir);
                files.check_apart(&authority)?;
                let issued = authority.issue_verification(&nonce, &options)?;
                making.force |= holds_proof_for_another_code(&files, &nonce);
                write("a verification certificate", &files, &issued, &making, output)
            }
            Self::Inspect { file, within, pfx_password } => inspect(&file, &pfx_password, within, output),
            Self::Verify { file, ca, code, pfx_password } => {
                let certificates = leaf_first(pfx_password.read_certificates(&file)?);
                let anchors = pfx_password.read_certificates(&ca)?;
                verify(&certificates, &anchors, code.as_deref(), output)
            }
            Self::Thumbprint { files, sha256, pfx_password } => thumbprint(&files, sha256, &pfx_password, output),
            Self::Base64 { file } => base64(&file, output),
        }
    }
}

const NO_ISSUER: &str = "an issuer is needed: PARENT, or --ca-cert and --ca-key";

/// The authority that signs: PARENT, or that of the two files; nothing if neither is given.
fn read_issuer(
    parent: Option<&CommonName>,
    issuer: &IssuerFiles,
    making: &Making,
    key_password: &KeyPassword,
) -> anyhow::Result<Option<CertificateAuthority>> {
    let password = key_password.given()?;
    let password = password.as_ref().map(|password| password.as_str());
    let at = Timestamp::now();
    if let Some((certificate, key)) = issuer.given() {
        let pfx = making.keys.pfx_password()?;
        let passwords = Passwords { key: password, pfx: pfx.as_ref().map(|password| password.as_str()) };
        return Ok(Some(files::read_authority(certificate, key, passwords, at)?));
    }
    let Some(parent) = parent else { return Ok(None) };
    let authority = FileSet::new(&making.dir, parent)?
        .read_authority(password, at)
        .with_context(|| format!("there is no authority {parent} to sign with"))?;
    Ok(Some(authority))
}

/// Whether the set is an earlier proof of possession, which no service takes for the new code. The same files can belong
/// to a certificate of the name "verification", which is not overwritten.
fn holds_proof_for_another_code(files: &FileSet, code: &CommonName) -> bool {
    let Ok(certificates) = files::read_certificates(&files.certificate()) else { return false };
    let Some(proof) = certificates.first() else { return false };
    let Some(name) = proof.subject().common_name() else { return false };
    let named_so = CommonName::new(name)
        .ok()
        .and_then(|name| FileSet::new(".", &name).ok())
        .is_none_or(|own| own == FileSet::verification("."));
    let is_authority = proof.basic_constraints().is_some_and(|constraints| constraints.authority);
    let has_key = files::read_key(&files.private_key(), None).is_ok_and(|key| key.belongs_to(proof));
    name != code.as_str() && !named_so && !is_authority && !proof.issuer().matches(proof.subject()) && has_key
}

fn write(
    what: &str,
    files: &FileSet,
    issued: &IssuedCertificate,
    making: &Making,
    output: &Output,
) -> anyhow::Result<()> {
    let pfx = making.keys.pfx()?;
    files.write(issued, pfx.as_ref().map(super::args::Pfx::options), if_exists(making))?;
    let record = CertificateRecord::new(&issued.certificate, files, pfx.is_some());
    tell_shortened(&issued.certificate, issued.shortened_from, output);
    tell_weak(issued.issuers.last(), output);
    if let Some(pfx) = &pfx {
        pfx.tell(output);
    }
    output.result(&record, || {
        let signer = match issued.issuers.first() {
            Some(signer) => format!("signed by {}", clean(&name_of(signer))),
            None => "signed by itself".to_owned(),
        };
        let mut text = format!(
            "Made {what} for {}, {signer}, valid until {}.\n",
            clean(&name_of(&issued.certificate)),
            issued.certificate.not_after().date()
        );
        let mut rows = vec![
            ("certificate", record.certificate.display().to_string()),
            ("private key", format!("{} (readable by you alone)", record.private_key.display())),
            ("full chain", record.fullchain.display().to_string()),
        ];
        rows.extend(record.pfx.as_ref().map(|pfx| ("PFX", pfx.display().to_string())));
        rows.push(("thumbprint", record.sha1_thumbprint.clone()));
        text.push_str(&fields(&rows));
        text
    })
}

fn tell_shortened(certificate: &Certificate, from: Option<Timestamp>, output: &Output) {
    if let Some(asked) = from {
        output.note(format_args!(
            "the certificate ends on {} with its issuer, not on {} as its lifetime would have it",
            certificate.not_after().date(),
            asked.date()
        ));
    }
}

/// Warns of a certificate at the top of the chain that is no root and that nobody above it can vouch for: its signature was
/// not checked when the new certificate was, since the certificates above it are not known.
pub(super) fn tell_weak(top: Option<&Certificate>, output: &Output) {
    let weak = |top: &&Certificate| !top.is_self_issued() && top.signature_algorithm().is_weak();
    if let Some(top) = top.filter(weak) {
        output.note(format_args!(
            "{} is signed with {}, which is broken: no chain through it to a CA above it is valid",
            top.subject(),
            top.signature_algorithm()
        ));
    }
}

/// Makes a certificate for a key that is somewhere else.
fn sign_request(
    file: &Path,
    id: &DeviceId,
    authority: &CertificateAuthority,
    replace_subject: bool,
    making: &Making,
    output: &Output,
) -> anyhow::Result<()> {
    let request = CertificateRequest::read(&read(file)?)
        .with_context(|| format!("the request in {} cannot be signed", file.display()))?;
    if !replace_subject && request.subject().common_name() != Some(id.as_str()) {
        let found = match request.subject().common_name() {
            Some(name) => format!("has the common name {name:?}"),
            None => "has no common name".to_owned(),
        };
        bail!(
            "the request in {} {found}, and the device ID is {:?}: --replace-subject signs it under the device ID",
            file.display(),
            id.as_str()
        );
    }
    let files = FileSet::new(&making.dir, &id.common_name()?)?;
    files.check_apart(authority)?;
    let issuer = DeviceIssuer::new(authority, &making.options())?;
    let (der, _) = issuer.issue_for_key(id, request.public_key())?;
    let certificate = Certificate::from_der(&der)?;
    let chain: Vec<_> = [&certificate, authority.certificate()].into_iter().chain(authority.issuers()).collect();
    files.write_without_key(&chain, if_exists(making))?;
    tell_shortened(&certificate, issuer.shortened_from(), output);
    tell_weak(chain.last().copied(), output);
    for name in request.ignored() {
        output.note(format_args!("the request has {}, which was passed over", clean(name)));
    }
    let record = CertificateRecord::new(&certificate, &files, false);
    let text = format!(
        "Signed the request of {}, under {}, valid until {}.\n{}",
        clean(&name_of(&certificate)),
        clean(&name_of(authority.certificate())),
        certificate.not_after().date(),
        fields(&[
            ("certificate", record.certificate.display().to_string()),
            ("full chain", record.fullchain.display().to_string()),
            ("thumbprint", record.sha1_thumbprint.clone()),
        ])
    );
    // As of any other certificate, but for the key, which is not here.
    let mut signed = serde_json::to_value(&record)?;
    signed["privateKey"] = serde_json::Value::Null;
    signed["passedOver"] = request.ignored().into();
    output.result(&signed, || text)
}

/// The common name of a certificate's subject, or the whole name when it has none; without a name, the serial number.
fn name_of(certificate: &Certificate) -> String {
    let subject = certificate.subject();
    match subject.common_name() {
        Some(name) if !name.trim().is_empty() => name.to_owned(),
        _ if subject.is_empty() => format!("the certificate with the serial number {}", certificate.serial_number()),
        _ => subject.to_string(),
    }
}

fn if_exists(making: &Making) -> IfExists {
    if making.force { IfExists::Overwrite } else { IfExists::Fail }
}

/// The certificates with the one first that issued none of the others: bundles come in either order.
fn leaf_first(mut certificates: Vec<Certificate>) -> Vec<Certificate> {
    let leaf = find_leaf(&certificates).unwrap_or_default();
    certificates[..=leaf].rotate_right(1);
    certificates
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    valid: bool,
    /// The subjects from the certificate to the CA certificate.
    path: Vec<String>,
    /// The SHA-1 thumbprint of the CA certificate that the path leads to.
    anchor_sha1_thumbprint: Option<String>,
    reason: Option<String>,
}

fn verify(
    certificates: &[Certificate],
    anchors: &[Certificate],
    code: Option<&str>,
    output: &Output,
) -> anyhow::Result<()> {
    let at = Timestamp::now();
    let checked = match code {
        Some(code) => {
            let proof = &certificates[0];
            let signer = anchors.iter().find(|anchor| proof.verify_signature(anchor).is_ok()).unwrap_or(&anchors[0]);
            chain::verify_possession(proof, signer, code, at).map(|()| vec![proof, signer])
        }
        None => chain::verify(certificates, anchors, at),
    };
    let verdict = match &checked {
        Ok(path) => Verdict {
            valid: true,
            path: path.iter().map(|certificate| name_of(certificate)).collect(),
            anchor_sha1_thumbprint: path.last().map(|anchor| anchor.sha1_thumbprint().to_string()),
            reason: None,
        },
        Err(error) => {
            Verdict { valid: false, path: Vec::new(), anchor_sha1_thumbprint: None, reason: Some(error.to_string()) }
        }
    };
    output.result(&verdict, || {
        let mut text = match (&verdict.reason, verdict.path.last(), code) {
            (Some(reason), ..) => format!("{BAD}Not valid{BAD:#}: {}", clean(reason)),
            (None, Some(anchor), Some(_)) => {
                format!("{GOOD}Valid{GOOD:#}: it proves possession of the key of {}.", clean(anchor))
            }
            _ => format!("{GOOD}Valid{GOOD:#}: {}.", clean(&verdict.path.join(", under "))),
        };
        if let Some(thumbprint) = verdict.anchor_sha1_thumbprint.as_ref().filter(|_| anchors.len() > 1) {
            let _ = write!(
                text,
                "\nOf the {} CA certificates, this is the one with thumbprint {thumbprint}.",
                anchors.len()
            );
        }
        text
    })?;
    if verdict.valid { Ok(()) } else { Err(Told.into()) }
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

fn thumbprint(files: &[PathBuf], sha256: bool, pfx: &PfxPassword, output: &Output) -> anyhow::Result<()> {
    let mut thumbprints = Vec::new();
    let mut errors = Vec::new();
    for file in files {
        match pfx.read_certificates(file) {
            Ok(mut certificates) => {
                let certificate = certificates.swap_remove(0);
                thumbprints.push(FileThumbprint {
                    file: file.clone(),
                    sha1_thumbprint: (!sha256).then(|| certificate.sha1_thumbprint().to_string()),
                    sha256_thumbprint: sha256.then(|| certificate.sha256_thumbprint().to_string()),
                });
            }
            Err(error) if files.len() == 1 => return Err(error),
            Err(error) => errors.push(error),
        }
    }
    output.result(&thumbprints, || {
        let line = |entry: &FileThumbprint| {
            let thumbprint = entry.sha1_thumbprint.as_ref().or(entry.sha256_thumbprint.as_ref()).cloned();
            let thumbprint = thumbprint.unwrap_or_default();
            if files.len() > 1 { format!("{thumbprint}  {}\n", entry.file.display()) } else { thumbprint }
        };
        thumbprints.iter().map(line).collect()
    })?;
    match (errors.pop(), errors.len()) {
        (None, _) => Ok(()),
        (Some(only), 0) => Err(only),
        (Some(last), others) => {
            let lines: String = errors.iter().chain([&last]).map(|error| format!("\n  {error:#}")).collect();
            bail!("{} of {} files could not be read:{lines}", others + 1, files.len())
        }
    }
}

#[derive(Serialize)]
struct Base64File {
    #[serde(serialize_with = "lossy_path")]
    file: PathBuf,
    base64: String,
}

fn base64(file: &Path, output: &Output) -> anyhow::Result<()> {
    let bytes = read(file)?;
    if bytes.is_empty() {
        bail!("{} is empty", file.display());
    }
    let kinds = content_kinds(&bytes).unwrap_or_default();
    if kinds.contains(&ContentKind::Pfx) {
        output.note(format_args!(
            "{} is a PFX (PKCS#12) file, which usually holds a private key: never send that to a service",
            file.display()
        ));
    } else if kinds.iter().any(ContentKind::holds_private_key) || contains_key_label(&bytes) {
        output.note(format_args!("{} holds a private key: never send it to a service", file.display()));
    }
    let encoded = Base64File { file: file.to_owned(), base64: BASE64_STANDARD.encode(&*bytes) };
    output.result(&encoded, || encoded.base64.clone())
}

/// Whether there is the end of a PEM boundary of a private key, also in what cannot be read.
fn contains_key_label(bytes: &[u8]) -> bool {
    const LABEL: &[u8] = b"PRIVATE KEY-";
    bytes.windows(LABEL.len()).any(|window| window == LABEL)
}
