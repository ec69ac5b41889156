//! `cert expiring`: the certificates that expire soon.

use std::{
    collections::{HashMap, HashSet, hash_map},
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::{anyhow, bail};
use serde::Serialize;

use super::{
    args::{PfxPassword, Within},
    certificate_search::{SearchReport, search},
    error::{AlreadyReported, Undetermined, UsageError},
    output::{BAD, Format, GOOD, Output, WARN, clean, table},
    prometheus::Metrics,
};
use crate::{
    certificate::{
        Certificate, Thumbprint, Timestamp,
        files::{IfExists, Readers, write_file},
    },
    workflow::lossy_path,
};

/// List the certificates in a directory that expire soon
///
/// Searches all files, independent of their names, for PEM, DER, base64, PKCS#7 and PFX, including the members of tar files.
/// Symbolic links are followed. A certificate in several files is listed once. A PEM, DER or PFX file larger than 16 MiB is
/// listed as unreadable.
///
/// The exit status is 0 if no certificate expires in that time, 1 if one expires or has expired, and 2 for wrong usage. It
/// is 3 if the check could not be completed, because a certificate file could not be read or no certificate was found.
///
/// With --format prometheus, all certificates are listed as metrics, for the textfile collector of the node exporter. The
/// exit status is then 0 also if a certificate expires.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert expiring fleet --within 90d
  iot-enroll cert expiring fleet --within 33%
  iot-enroll cert expiring fleet.tar
  iot-enroll cert expiring /etc/pki --format prometheus --out /var/lib/prometheus/node-exporter/certificates.prom")]
pub(super) struct Expiring {
    /// File, or directory to search with its subdirectories
    path: PathBuf,
    /// Time until expiry, such as 30d, 4w, 12h or 33%
    ///
    /// A percentage is that of the lifetime of each certificate.
    #[arg(long, value_name = "TIME|PERCENT", default_value = "30d")]
    within: Within,
    /// Format of the list
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: ListFormat,
    /// File to write the metrics to, replaced at once [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    pfx_password: PfxPassword,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ListFormat {
    /// What expires in that time, sorted by date
    Table,
    /// All certificates, as metrics for Prometheus
    Prometheus,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(serialize_with = "lossy_path")]
    file: PathBuf,
    /// The number of other files with the same certificate.
    also_in: usize,
    subject: String,
    not_after: String,
    days_left: i64,
    expired: bool,
    sha1_thumbprint: String,
    #[serde(skip)]
    end: Timestamp,
}

#[derive(Serialize)]
struct Report {
    /// The number of certificates found.
    certificates: usize,
    expiring: Vec<Entry>,
    #[serde(flatten)]
    searched: SearchReport,
}

impl Expiring {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        if self.format == ListFormat::Prometheus {
            return self.metrics(output);
        }
        if self.out.is_some() {
            let error = UsageError::new("--out is only for metrics, and the table is printed to standard output");
            bail!(error.with_hint("add --format prometheus"));
        }
        let mut collector =
            Collector { within: self.within, at: Timestamp::now(), seen: HashMap::new(), expiring: Vec::new() };
        let searched = search(&self.path, self.pfx_password.given()?, &mut |path, certificate| {
            collector.add(path, certificate);
        })
        .map_err(Undetermined::new)?;
        let Collector { seen, mut expiring, .. } = collector;
        expiring.sort_by(|a, b| a.end.cmp(&b.end).then_with(|| a.file.cmp(&b.file)));
        let report = Report { certificates: seen.len(), expiring, searched };
        output.result(&report, || human(&report))?;
        report.searched.note_skipped(output);
        if report.certificates == 0 {
            bail!(Undetermined::new(anyhow!("no certificate found in {}", self.path.display())));
        }
        if !report.expiring.is_empty() {
            bail!(AlreadyReported);
        }
        if report.searched.unreadable.is_empty() { Ok(()) } else { bail!(Undetermined::new(AlreadyReported)) }
    }

    /// Prints or writes the metrics. They are complete also if a file could not be read: one of them is the number of such
    /// files.
    fn metrics(&self, output: &Output) -> anyhow::Result<()> {
        if output.format() == Format::Json {
            bail!(UsageError::new("--format prometheus and -o json exclude each other"));
        }
        let mut metrics = Metrics::default();
        let mut seen = HashSet::new();
        let searched = search(&self.path, self.pfx_password.given()?, &mut |path, certificate| {
            if seen.insert(certificate.sha256_thumbprint()) {
                metrics.add(path, certificate);
            }
        })
        .map_err(Undetermined::new)?;
        let text = metrics.text(seen.len(), searched.unreadable.len());
        match &self.out {
            // The collector has a user of its own, and may read the file at any moment.
            Some(out) => {
                write_file(out, text.as_bytes(), Readers::Everyone, IfExists::Overwrite).map_err(Undetermined::new)?;
            }
            None => Output::raw(text.as_bytes())?,
        }
        searched.note_skipped(output);
        for unreadable in &searched.unreadable {
            output.note(format_args!("unreadable: {}: {}", unreadable.file.display(), unreadable.reason));
        }
        if seen.is_empty() {
            bail!(Undetermined::new(anyhow!("no certificate found in {}", self.path.display())));
        }
        if searched.unreadable.is_empty() { Ok(()) } else { bail!(Undetermined::new(AlreadyReported)) }
    }
}

fn human(report: &Report) -> String {
    let count = report.certificates;
    let mut text = if count == 0 {
        String::new()
    } else if report.expiring.is_empty() {
        format!("{GOOD}None of {count} certificates expires{GOOD:#} within the given time.\n")
    } else {
        let rows = report.expiring.iter().map(|entry| {
            let left = if entry.expired { "expired".to_owned() } else { format!("{} days", entry.days_left) };
            let others = if entry.also_in > 0 { format!(" and {} more", entry.also_in) } else { String::new() };
            [entry.not_after.clone(), left, entry.subject.clone(), format!("{}{others}", entry.file.display())]
        });
        let table = table(["NOT AFTER", "LEFT", "SUBJECT", "FILE"], rows);
        format!("{table}{BAD}{} of {count} certificates expire{BAD:#} within the given time.\n", report.expiring.len())
    };
    for unreadable in &report.searched.unreadable {
        let file = clean(&unreadable.file.display().to_string());
        let _ = writeln!(text, "{WARN}unreadable{WARN:#}: {file}: {}", clean(&unreadable.reason));
    }
    text
}

/// Collects the certificates that expire, each once.
struct Collector {
    within: Within,
    at: Timestamp,
    /// The certificates seen, with the index in `expiring` of those that expire.
    seen: HashMap<Thumbprint, Option<usize>>,
    expiring: Vec<Entry>,
}

impl Collector {
    fn add(&mut self, path: &Path, certificate: &Certificate) {
        match self.seen.entry(certificate.sha256_thumbprint()) {
            hash_map::Entry::Occupied(seen) => {
                if let Some(entry) = seen.get().and_then(|index| self.expiring.get_mut(index)) {
                    entry.also_in += 1;
                }
            }
            hash_map::Entry::Vacant(unseen) => {
                let end = certificate.not_after();
                let expires = self.within.includes(certificate, self.at);
                unseen.insert(expires.then_some(self.expiring.len()));
                if expires {
                    self.expiring.push(Entry {
                        file: path.to_owned(),
                        also_in: 0,
                        subject: certificate.subject().to_string(),
                        not_after: end.to_string(),
                        days_left: end.days_since(self.at),
                        expired: end < self.at,
                        sha1_thumbprint: certificate.sha1_thumbprint().to_string(),
                        end,
                    });
                }
            }
        }
    }
}
