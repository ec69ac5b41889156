//! `cert intermediate --csr` and `cert device --csr`: issue a certificate for the key of a request.

use std::path::Path;

use anyhow::{Context, bail};

use super::{
    args::IssueArgs,
    certificate_text::{name_of, note_removed, note_shortened, note_weak_signature, record_rows},
    input::{file_name, read},
    output::{Output, clean, fields},
};
use crate::{
    certificate::{
        Certificate, CertificateAuthority, CertificateRequest, CommonName, DeviceId, DeviceIssuer, Timestamp,
        files::FileSet,
    },
    workflow::CertificateRecord,
};

/// The extensions that a CA certificate has whether they are requested or not.
const OF_AUTHORITIES: [&str; 3] = ["basicConstraints", "keyUsage", "subjectKeyIdentifier"];

/// Issues a device certificate for the key of a request.
pub(super) fn sign_device_request(
    (file, request): (&Path, &CertificateRequest),
    id: &DeviceId,
    replace_subject: bool,
    authority: &CertificateAuthority,
    issue: &IssueArgs,
    output: &Output,
) -> anyhow::Result<()> {
    if !replace_subject && let Some(found) = other_name(request, id.as_str()) {
        bail!(
            "the request in {} {found}, but the device ID is {:?}: --replace-subject issues it for the device ID",
            file_name(file),
            id.as_str()
        );
    }
    let files = FileSet::new(&issue.dir, &id.common_name()?)?;
    files.check_apart(authority)?;
    let issuer = DeviceIssuer::new(authority, &issue.options())?;
    let (der, _) = issuer.issue_for_key(id, request.public_key())?;
    let certificate = Certificate::from_der(&der)?;
    let chain: Vec<_> = [&certificate, authority.certificate()].into_iter().chain(authority.issuers()).collect();
    let ignored: Vec<_> = request.ignored().iter().map(String::as_str).collect();
    Signed { chain, shortened_from: issuer.shortened_from(), ignored }.write(&files, issue, output)
}

/// Issues an intermediate CA certificate for the key of a request.
pub(super) fn sign_authority_request(
    (file, request): (&Path, &CertificateRequest),
    name: &CommonName,
    authority: &CertificateAuthority,
    issue: &IssueArgs,
    output: &Output,
) -> anyhow::Result<()> {
    // Without a common name in the request, NAME only names the files.
    if request.subject().common_name().is_some()
        && let Some(found) = other_name(request, name.as_str())
    {
        bail!(
            "the request in {} {found}, not {:?}: the subject is never changed, so give that common name as NAME",
            file_name(file),
            name.as_str()
        );
    }
    let files = FileSet::new(&issue.dir, name)?;
    files.check_apart(authority)?;
    let signed = authority
        .sign_authority_request(request, &issue.options())
        .with_context(|| format!("could not sign the request in {}", file_name(file)))?;
    let ignored = request.ignored().iter().map(String::as_str).filter(|name| !OF_AUTHORITIES.contains(name)).collect();
    let chain = signed.fullchain().collect();
    Signed { chain, shortened_from: signed.shortened_from, ignored }.write(&files, issue, output)
}

/// Reads a request, or nothing without a file.
pub(super) fn read_request(file: Option<&Path>) -> anyhow::Result<Option<(&Path, CertificateRequest)>> {
    file.map(|file| parse_request(file).map(|request| (file, request))).transpose()
}

fn parse_request(file: &Path) -> anyhow::Result<CertificateRequest> {
    CertificateRequest::read(&read(file)?).with_context(|| format!("could not sign the request in {}", file_name(file)))
}

/// Returns what the common name of a request is instead of this one.
fn other_name(request: &CertificateRequest, name: &str) -> Option<String> {
    match request.subject().common_name() {
        Some(found) if found == name => None,
        Some(found) => Some(format!("has the common name {found:?}")),
        None => Some("has no common name".to_owned()),
    }
}

/// A certificate for the key of a request.
struct Signed<'a> {
    /// The certificate, then those above it.
    chain: Vec<&'a Certificate>,
    shortened_from: Option<Timestamp>,
    /// What the request asked for in vain.
    ignored: Vec<&'a str>,
}

impl Signed<'_> {
    /// Writes the files and prints what was written.
    fn write(&self, files: &FileSet, issue: &IssueArgs, output: &Output) -> anyhow::Result<()> {
        let [certificate, issuer, ..] = self.chain.as_slice() else { bail!("the chain has no issuer") };
        let before = files.existing()?;
        files.write_without_key(&self.chain, issue.if_exists())?;
        note_removed(&before, output);
        note_shortened(certificate.not_after(), self.shortened_from, output);
        note_weak_signature(self.chain.last().copied(), output);
        for name in &self.ignored {
            output.note(format_args!("{} of the request was ignored", clean(name)));
        }
        let mut record = CertificateRecord::new(certificate, files, None);
        // A key file that is left belongs to the certificate. Otherwise the key is elsewhere.
        if !files.private_key().exists() {
            record.private_key = None;
        }
        let text = format!(
            "Signed the request of {}, issued by {}, valid until {}.\n{}",
            clean(&name_of(certificate)),
            clean(&name_of(issuer)),
            certificate.not_after().date(),
            fields(&record_rows(&record, "unchanged"))
        );
        let mut signed = serde_json::to_value(&record)?;
        signed["passedOver"] = self.ignored.as_slice().into();
        output.result(&signed, || text)
    }
}
