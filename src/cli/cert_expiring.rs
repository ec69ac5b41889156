//! `cert expiring`: which certificates of a folder run out.

use std::{
    collections::HashMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, bail};
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::{
    args::PfxPassword,
    output::{BAD, GOOD, Output, Told, WARN, clean, table},
};
use crate::{
    certificate::{Certificate, ReadError, Thumbprint},
    workflow::rfc3339,
};

/// Larger files are no certificates, and are not read.
const LARGEST: u64 = 1 << 20;

/// List the certificates below a folder that run out
///
/// Every file is looked at for what it holds, PEM, DER, base64 or PFX. A certificate that is in several files is listed
/// once. The exit status is 0 when none runs out and all could be read, and 1 otherwise.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  iot-enroll cert expiring fleet --within 90d")]
pub(super) struct Expiring {
    /// The folder
    folder: PathBuf,
    /// How soon: a number and d for days, w for weeks or h for hours
    #[arg(long, value_name = "TIME", default_value = "30d")]
    within: Within,
    #[command(flatten)]
    pfx_password: PfxPassword,
}

#[derive(Debug, Clone, Copy)]
struct Within(Duration);

impl FromStr for Within {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = || format!("a number and d, w or h, such as 30d; found {text:?}");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let hours = match &text[digits.len()..] {
            "h" => 1,
            "" | "d" => 24,
            "w" => 24 * 7,
            _ => return Err(rule()),
        };
        let number: u32 = digits.parse().map_err(|_| rule())?;
        Ok(Self(Duration::hours(i64::from(number) * hours)))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    file: PathBuf,
    /// How many other files hold it.
    also_in: usize,
    subject: String,
    not_after: String,
    days_left: i64,
    expired: bool,
    sha1_thumbprint: String,
    #[serde(skip)]
    end: OffsetDateTime,
}

#[derive(Serialize)]
struct Unreadable {
    file: PathBuf,
    reason: String,
}

#[derive(Serialize)]
struct Report {
    /// How many certificates were looked at.
    certificates: usize,
    expiring: Vec<Entry>,
    unreadable: Vec<Unreadable>,
}

impl Expiring {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        let at = OffsetDateTime::now_utc();
        let Some(until) = at.checked_add(self.within.0) else { bail!("--within leads past the year 9999") };
        let mut search = Search {
            until,
            at,
            pfx_password: self.pfx_password,
            seen: HashMap::new(),
            found: Vec::new(),
            unreadable: Vec::new(),
        };
        search.folder(&self.folder)?;
        let Search { seen, mut found, unreadable, .. } = search;
        found.sort_by(|a, b| a.end.cmp(&b.end).then_with(|| a.file.cmp(&b.file)));
        let report = Report { certificates: seen.len(), expiring: found, unreadable };
        output.result(&report, || human(&report))?;
        if report.expiring.is_empty() && report.unreadable.is_empty() { Ok(()) } else { Err(Told.into()) }
    }
}

fn human(report: &Report) -> String {
    let mut text = if report.expiring.is_empty() {
        format!("{GOOD}None of {} certificates runs out{GOOD:#} in that time.\n", report.certificates)
    } else {
        let rows = report.expiring.iter().map(|entry| {
            let left = if entry.expired { "expired".to_owned() } else { format!("{} days", entry.days_left) };
            let others = if entry.also_in > 0 { format!(" and {} more", entry.also_in) } else { String::new() };
            [entry.not_after.clone(), left, entry.subject.clone(), format!("{}{others}", entry.file.display())]
        });
        let table = table(["NOT AFTER", "LEFT", "SUBJECT", "FILE"], rows);
        let count = report.expiring.len();
        format!("{table}{BAD}{count} of {} certificates run out{BAD:#}.\n", report.certificates)
    };
    for unreadable in &report.unreadable {
        let file = clean(&unreadable.file.display().to_string());
        let _ = writeln!(text, "{WARN}unreadable{WARN:#}: {file}: {}", clean(&unreadable.reason));
    }
    text
}

struct Search {
    until: OffsetDateTime,
    at: OffsetDateTime,
    pfx_password: PfxPassword,
    /// The certificates seen, and the place of those that run out among what was found.
    seen: HashMap<Thumbprint, Option<usize>>,
    found: Vec<Entry>,
    unreadable: Vec<Unreadable>,
}

impl Search {
    fn folder(&mut self, folder: &Path) -> anyhow::Result<()> {
        let unreadable = || format!("could not read {}", folder.display());
        let mut entries: Vec<_> =
            fs::read_dir(folder).and_then(Iterator::collect::<Result<_, _>>).with_context(unreadable)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            // A link may lead in a circle.
            let kind = entry.file_type().with_context(unreadable)?;
            if kind.is_dir() {
                if let Err(error) = self.folder(&path) {
                    self.unreadable.push(Unreadable { file: path, reason: format!("{error:#}") });
                }
            } else if path.is_file() && fs::metadata(&path).is_ok_and(|found| found.len() <= LARGEST) {
                self.file(path);
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf) {
        match fs::read(&path).map_err(anyhow::Error::from).and_then(|bytes| self.certificates(&path, &bytes)) {
            Ok(certificates) => {
                for certificate in certificates {
                    self.certificate(&path, &certificate);
                }
            }
            Err(error) => self.unreadable.push(Unreadable { file: path, reason: format!("{error:#}") }),
        }
    }

    /// The certificates of a file; none where it is something else.
    fn certificates(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<Vec<Certificate>> {
        let named_so = path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| {
            ["cer", "crt", "der", "p12", "pfx"].iter().any(|known| extension.eq_ignore_ascii_case(known))
        });
        match Certificate::read_all(bytes) {
            Err(ReadError::Pfx) => self.pfx_password.read_certificates(path),
            Ok(certificates) => Ok(certificates),
            Err(error) => {
                let claims = named_so || bytes.windows(16).any(|window| window == b"BEGIN CERTIFICAT");
                let is_request = matches!(error, ReadError::NoCertificate(_));
                if claims && !is_request { Err(error.into()) } else { Ok(Vec::new()) }
            }
        }
    }

    fn certificate(&mut self, path: &Path, certificate: &Certificate) {
        let end = certificate.not_after();
        let place = self.seen.entry(certificate.sha256_thumbprint()).or_insert_with(|| {
            (end <= self.until).then(|| {
                self.found.push(Entry {
                    file: path.to_owned(),
                    also_in: usize::MAX,
                    subject: certificate.subject().to_string(),
                    not_after: rfc3339(end),
                    days_left: (end - self.at).whole_days(),
                    expired: end < self.at,
                    sha1_thumbprint: certificate.sha1_thumbprint().to_string(),
                    end,
                });
                self.found.len() - 1
            })
        });
        if let Some(entry) = place.and_then(|place| self.found.get_mut(place)) {
            // From one before none at the first file.
            entry.also_in = entry.also_in.wrapping_add(1);
        }
    }
}
