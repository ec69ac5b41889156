//! `cert renew`: new certificates for old ones.

use std::{
    fmt::Write as _,
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::bail;
use serde::Serialize;

use super::{
    args::{CERTIFICATES, Confirmation, KeyPassword, PfxPassword, Within, days, lifetime},
    cert_fleet::{stop_flag, threads},
    certificate_text::{name_of, note_shortened, note_weak_signature, record_rows},
    error::AlreadyReported,
    next_command::NextCommand,
    output::{GOOD, Output, clean, counted, fields, table},
    progress::bar,
    token_key::{find_key, token_uri},
};
use crate::{
    certificate::{
        Certificate, CertificateAuthority, CommonName, Timestamp,
        chain::moment,
        files::{self, FileSet, Passwords, read_certificates},
        renewal::{
            FleetPart, NotDue, RenewalControl, RenewalError, RenewalOptions, RenewalReport, Renewed, RenewedSet,
            Renewer, set_of_file,
        },
    },
    workflow::{CertificateRecord, lossy_path},
};

/// How many renewed certificates of a directory are listed. The others are only counted.
const MAX_LISTED: usize = 1000;

/// How many of them are printed as a table.
const MAX_ROWS: usize = 50;

/// Renew certificates, with the same subject, extensions, issuer and key
///
/// FILE is a file of a set, such as sensor1_cert.pem. DIR is a directory with sets, or a fleet with its manifest, whose rows
/// are updated. Serial number and validity are new; the lifetime is the one that the certificate had. All files of a set
/// are replaced together, and no PFX file is written where there was none.
///
/// The files of the issuing CA are found beside the certificate, in the two directories above it, or in the working
/// directory, by the common name of the issuer. Only the CA that signed a certificate can renew it; it may have been renewed itself.
/// In a directory, CAs are renewed before the certificates that they issued.
///
/// With --if-within, certificates that are not due are left as they are, which is no failure. A run that was interrupted is
/// completed by running the command again.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert renew sampleDevice01_cert.pem
  iot-enroll cert renew sampleDevice01_cert.pem --new-key --days 90
  iot-enroll cert renew fleet --if-within 33%
  iot-enroll cert renew . --if-within 30d --dry-run
  iot-enroll cert renew device_cert.pem --ca-cert company_cert.pem --ca-key company_key.pem")]
#[command(mut_arg("pfx_password_file", |argument| argument.help_heading(CERTIFICATES)))]
pub(super) struct Renew {
    /// File of a set, directory with sets, or directory of a fleet
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// Renew only what expires within this time, such as 30d, 4w, 12h or 33%
    ///
    /// A percentage is that of the certificate's lifetime. Expired certificates are always renewed.
    #[arg(long, value_name = "TIME|PERCENT")]
    if_within: Option<Within>,
    /// Generate new private keys, of the same algorithm and size
    ///
    /// The old key is removed. In a directory, CAs keep their keys.
    #[arg(long)]
    new_key: bool,
    /// Print what would be renewed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Validity of the certificates in days [default: as before]
    #[arg(long, value_name = "DAYS", value_parser = days, allow_negative_numbers = true, help_heading = CERTIFICATES)]
    days: Option<NonZeroU32>,
    /// Directory with the files of the issuing CA, by its common name
    #[arg(long, value_name = "DIR", conflicts_with = "ca_cert", help_heading = CERTIFICATES)]
    dir: Option<PathBuf>,
    /// Certificate of the issuing CA, with its chain if it has one
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    ca_cert: Option<PathBuf>,
    /// Private key of the issuing CA
    // A flag that is required is not missed where another one that is given excludes it.
    #[arg(long, value_name = "FILE", requires = "ca_cert", conflicts_with = "dir")]
    ca_key: Option<PathBuf>,
    #[command(flatten)]
    key_password: KeyPassword,
    #[command(flatten)]
    pfx_password: PfxPassword,
    /// Number of threads, at most 512 [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: Option<u16>,
    #[command(flatten)]
    confirmation: Confirmation,
}

/// What is renewed.
enum Target {
    Set(FileSet),
    Directory(PathBuf),
    Fleet(FleetPart),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    dry_run: bool,
    renewed: u64,
    not_due: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_due: Option<String>,
    failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
    /// The renewed certificates, except for those of a fleet, which its manifest lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificates: Option<Vec<Entry>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<Failure>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(flatten)]
    record: CertificateRecord,
    new_key: bool,
    previous: Previous,
}

/// The certificate that was replaced.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Previous {
    serial_number: String,
    not_after: String,
    sha1_thumbprint: String,
    sha256_thumbprint: String,
}

#[derive(Serialize)]
struct Failure {
    #[serde(serialize_with = "lossy_path")]
    certificate: PathBuf,
    message: String,
}

impl Entry {
    fn new(set: &RenewedSet) -> Self {
        let old = &set.old;
        let mut record = CertificateRecord::new(&set.certificate, &set.files, set.has_pfx.then(|| set.files.pfx()));
        if !set.has_key_file {
            record.private_key = None;
        }
        Self {
            record,
            new_key: set.has_new_key,
            previous: Previous {
                serial_number: old.serial_number(),
                not_after: old.not_after().to_string(),
                sha1_thumbprint: old.sha1_thumbprint().to_string(),
                sha256_thumbprint: old.sha256_thumbprint().to_string(),
            },
        }
    }
}

impl Renew {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        let target = self.target()?;
        let at = Timestamp::now();
        let (key_password, pfx_password) = (self.key_password.given()?, self.pfx_password.given()?);
        let passwords = Passwords::new()
            .key(key_password.as_ref().map(|password| password.as_str()))
            .pfx(pfx_password.as_ref().map(|password| password.as_str()));
        let authority = self.authority(passwords, at, output)?;
        let renewer = Renewer::new(self.options(at))
            .authority(authority.as_ref())
            .issuer_directory(self.dir.clone())
            .passwords(passwords)
            .threads(threads(self.threads));
        match target {
            Target::Set(files) => {
                self.confirm_new_authority_key(&files)?;
                self.renew_set(&renewer, &files, at, output)
            }
            Target::Directory(directory) => {
                let count = fs::read_dir(&directory).map_or(0, |entries| {
                    let is_certificate = |name: &str| name.ends_with("_cert.pem");
                    entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_certificate)).count()
                });
                let renew = |control: RenewalControl<'_>| renewer.renew_directory(&directory, control);
                self.renew_many(renew, count, true, output)
            }
            Target::Fleet(fleet) => {
                let count = fs::read_to_string(fleet.root.join("manifest.csv")).map_or(0, |text| text.lines().count());
                let renew = |control: RenewalControl<'_>| renewer.renew_fleet(&fleet, control);
                self.renew_many(renew, count.saturating_sub(1), false, output)
            }
        }
    }

    fn target(&self) -> anyhow::Result<Target> {
        if self.path.is_dir() {
            return Ok(match FleetPart::containing(&self.path)? {
                Some(fleet) => Target::Fleet(fleet),
                None => Target::Directory(self.path.clone()),
            });
        }
        let files = set_of_file(&self.path)?;
        Ok(match FleetPart::containing(&files.certificate())? {
            Some(fleet) => Target::Fleet(fleet),
            None => Target::Set(files),
        })
    }

    fn options(&self, at: Timestamp) -> RenewalOptions {
        let mut options = RenewalOptions::new().lifetime(lifetime(self.days)).at(at);
        options = options.threshold(self.if_within.map(Within::threshold));
        if self.new_key {
            options = options.new_key();
        }
        if self.dry_run { options.dry_run() } else { options }
    }

    fn authority(
        &self,
        passwords: Passwords<'_>,
        at: Timestamp,
        output: &Output,
    ) -> anyhow::Result<Option<CertificateAuthority>> {
        let (Some(certificate), Some(key)) = (&self.ca_cert, &self.ca_key) else { return Ok(None) };
        let Some(uri) = token_uri(key) else {
            return Ok(Some(files::read_authority(certificate, key, passwords, at)?));
        };
        // A PIN is asked for only if the rest is in order.
        files::read_certificates_with(certificate, passwords)?;
        Ok(Some(files::read_authority_with_key(certificate, find_key(uri, output)?, passwords, at)?))
    }

    /// Asks before the key of a CA is replaced: that cannot be undone.
    fn confirm_new_authority_key(&self, files: &FileSet) -> anyhow::Result<()> {
        if !self.new_key || self.dry_run {
            return Ok(());
        }
        // What cannot be read is reported when it is renewed.
        let _ = files.existing();
        let path = files.certificate();
        let found = if path.is_file() { read_certificates(&path) } else { return Ok(()) };
        let Ok(found) = found else { return Ok(()) };
        let certificate = &found[0];
        if !is_authority(certificate)
            || self.if_within.is_some_and(|within| !within.includes(certificate, Timestamp::now()))
        {
            return Ok(());
        }
        let name = name_of(certificate);
        self.confirmation.ask(&format!(
            "replace the key of the CA {name}? The certificates that it issued are not valid under the new one, and the old \
             key is removed"
        ))
    }

    fn renew_set(&self, renewer: &Renewer<'_>, files: &FileSet, at: Timestamp, output: &Output) -> anyhow::Result<()> {
        let mut report = Report {
            dry_run: self.dry_run,
            renewed: 0,
            not_due: 0,
            next_due: None,
            failed: 0,
            manifest: None,
            certificates: Some(Vec::new()),
            failures: Vec::new(),
        };
        match renewer.renew_set(files)? {
            Renewed::NotDue(not_due) => {
                (report.not_due, report.next_due) = (1, Some(not_due.due_at.to_string()));
                output.result(&report, || not_due_text(&not_due))
            }
            Renewed::Done(set) => {
                note_shortened(set.certificate.not_after(), set.shortened_from, output);
                note_weak_signature(set.issuers.last(), output);
                if set.certificate.not_after() < set.old.not_after() {
                    let old_end = set.old.not_after().date();
                    output.note(format_args!(
                        "the new certificate expires before the old one, which was valid until {old_end}"
                    ));
                }
                if set.old.is_expired_at(at) {
                    output.note(format_args!("the old certificate expired on {}", set.old.not_after().date()));
                }
                let entry = Entry::new(&set);
                let text = self.set_text(&set, &entry);
                report.renewed = 1;
                report.certificates = Some(vec![entry]);
                output.result(&report, || text)
            }
        }
    }

    fn set_text(&self, set: &RenewedSet, entry: &Entry) -> String {
        let record = &entry.record;
        let signer = match set.issuers.first() {
            Some(signer) => format!("issued by {}", clean(&name_of(signer))),
            None => "self-signed".to_owned(),
        };
        let done = if self.dry_run { "Would renew" } else { "Renewed" };
        let heading = format!(
            "{done} the certificate {}, {signer}, valid until {} instead of {}.",
            clean(&name_of(&set.certificate)),
            set.certificate.not_after().date(),
            set.old.not_after().date(),
        );
        if self.dry_run {
            return format!("{heading}\nThis was a dry run: nothing was changed.");
        }
        let rows = record_rows(record, if set.has_new_key { "new" } else { "unchanged" });
        format!("{heading}\n{}\n{}", fields(&rows), next_steps(set))
    }

    fn renew_many(
        &self,
        renew: impl FnOnce(RenewalControl<'_>) -> Result<RenewalReport, RenewalError>,
        count: usize,
        is_listed: bool,
        output: &Output,
    ) -> anyhow::Result<()> {
        let stop = stop_flag()?;
        let progress = bar(output, count as u64, "certificates");
        let entries = Mutex::new(Vec::new());
        let list = |set: &RenewedSet| {
            let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
            if is_listed && entries.len() < MAX_LISTED {
                entries.push(Entry::new(set));
            }
        };
        let add = |done| progress.inc(done);
        let report = renew(RenewalControl::new(&stop, &add, &list));
        progress.finish_and_clear();
        let report = report?;
        let entries = entries.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.print(&report, is_listed.then_some(entries), output)?;
        let messages: Vec<_> = report
            .failures
            .iter()
            .map(|failure| format!("{} was not renewed: {}", failure.certificate.display(), failure.error))
            .collect();
        output.failures(&messages);
        if report.stopped {
            bail!("stopped: run the same command again to renew the rest");
        }
        if report.failed > 0 {
            let more = report.failed - messages.len() as u64;
            if more > 0 {
                output.note(format_args!("{more} more certificates were not renewed"));
            }
            bail!(AlreadyReported);
        }
        Ok(())
    }

    fn print(&self, report: &RenewalReport, entries: Option<Vec<Entry>>, output: &Output) -> anyhow::Result<()> {
        if report.kept_authority_keys > 0 {
            let count = counted(report.kept_authority_keys, "CA");
            output.note(format_args!("{count} kept the key: renew a CA with a new key by its own file"));
        }
        if report.proofs > 0 {
            let count = counted(report.proofs, "proof");
            output.note(format_args!("left out {count} of possession"));
        }
        let summary = Report {
            dry_run: self.dry_run,
            renewed: report.renewed,
            not_due: report.not_due,
            next_due: report.next_due.map(|due| due.to_string()),
            failed: report.failed,
            manifest: report.manifest.as_ref().map(|path| path.to_string_lossy().into_owned()),
            certificates: entries,
            failures: report
                .failures
                .iter()
                .map(|it| Failure { certificate: it.certificate.clone(), message: it.error.to_string() })
                .collect(),
        };
        output.result(&summary, || summary.human(report.next_due))
    }
}

impl Report {
    fn human(&self, next_due: Option<Timestamp>) -> String {
        let mut text = String::new();
        if let Some(entries) = self.certificates.as_deref().filter(|entries| (1..=MAX_ROWS).contains(&entries.len())) {
            let date = |time: &str| time.split('T').next().unwrap_or_default().to_owned();
            let rows = entries.iter().map(|entry| {
                let Entry { record, previous, .. } = entry;
                [
                    date(&previous.not_after),
                    date(&record.not_after),
                    record.subject.clone(),
                    record.certificate.display().to_string(),
                ]
            });
            text = table(["WAS VALID UNTIL", "VALID UNTIL", "SUBJECT", "CERTIFICATE"], rows);
        }
        let done = if self.dry_run { "Would renew" } else { "Renewed" };
        let certificates = counted(self.renewed, "certificate");
        let _ = write!(text, "{GOOD}{done} {certificates}{GOOD:#}");
        if self.failed > 0 {
            let _ = write!(text, "; {} could not be renewed", self.failed);
        }
        if let Some(due) = next_due {
            let _ = write!(text, "; {} not due, the first on {}", self.not_due, due.date());
        }
        text.push_str(".\n");
        if self.dry_run {
            text.push_str("This was a dry run: nothing was changed.\n");
        }
        if let Some(manifest) = self.manifest.as_ref().filter(|_| self.renewed > 0 && !self.dry_run) {
            let _ = writeln!(text, "The manifest {} lists the new certificates.", clean(manifest));
        }
        text
    }
}

fn not_due_text(not_due: &NotDue) -> String {
    let certificate = &not_due.certificate;
    format!(
        "{} is valid until {}, and due for renewal from {}: nothing was changed.",
        clean(&name_of(certificate)),
        moment(certificate.not_after()),
        moment(not_due.due_at),
    )
}

fn is_authority(certificate: &Certificate) -> bool {
    certificate.basic_constraints().is_some_and(|constraints| constraints.authority)
}

/// Returns what is left to do with a renewed certificate.
fn next_steps(set: &RenewedSet) -> String {
    let certificate = &set.certificate;
    if is_authority(certificate) {
        let old_end = set.old.not_after().date();
        return if set.has_new_key {
            "Certificates that this CA issued before are not valid under the new certificate: issue them again."
                .to_owned()
        } else {
            format!(
                "Certificates that this CA issued stay valid. Until {old_end}, replace the old certificate where it is enrolled \
                 or trusted, and renew the certificates below it, whose full chain files hold the old one."
            )
        };
    }
    if !certificate.allows_client_authentication() {
        return "Install the new files on the server.".to_owned();
    }
    let commands = enrollment_commands(set);
    if set.issuers.is_empty() {
        format!(
            "The services know the certificate by its thumbprint. At DPS or IoT Central, replace it with:\n{commands}"
        )
    } else {
        format!(
            "In an enrollment group, there is nothing to do at the service. An individual enrollment knows the certificate by \
             its thumbprint. At DPS or IoT Central, replace it with:\n{commands}"
        )
    }
}

/// Returns the commands that give a service the certificate of an individual enrollment, with the other one of a pair.
fn enrollment_commands(set: &RenewedSet) -> String {
    let name = name_of(&set.certificate);
    let ours = set.files.certificate();
    let (primary, secondary) = pair(&ours, &name).unwrap_or((ours, None));
    let mut enrollment = NextCommand::new("dps");
    enrollment.flag("enrollment", true);
    enrollment.option("update", &name);
    enrollment.option("--cert", &primary);
    enrollment.optional("--secondary-cert", secondary.as_ref());
    let mut attestation = NextCommand::new("device");
    attestation.flag("attestation", true);
    attestation.option("set", &name);
    attestation.option("--certificate", &primary);
    attestation.optional("--secondary-certificate", secondary.as_ref());
    format!("  {enrollment}\n  {attestation}")
}

/// Returns the certificate files of a pair, primary and secondary, if a file is one of them.
fn pair(certificate: &Path, name: &str) -> Option<(PathBuf, Option<PathBuf>)> {
    let directory = certificate.parent()?;
    let name = CommonName::new(name).ok()?;
    let primary = FileSet::new(directory, &name).ok()?.certificate();
    let secondary = FileSet::secondary(directory, &name).ok()?.certificate();
    let is_pair = [&primary, &secondary].into_iter().any(|path| path == certificate);
    (is_pair && primary.exists()).then(|| (primary, secondary.exists().then_some(secondary)))
}
