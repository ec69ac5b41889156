//! `cert expiring`: which certificates run out.

use std::{
    collections::HashMap,
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use serde::Serialize;

use super::{
    args::{PfxPassword, Within},
    certificate_search::{Searched, search},
    output::{BAD, GOOD, Output, Told, Undetermined, WARN, clean, table},
};
use crate::{
    certificate::{Certificate, Thumbprint, Timestamp},
    workflow::lossy_path,
};

/// List the certificates at a path that run out
///
/// Every file is looked at for what it holds, PEM, DER, base64, PKCS#7 or PFX, the members of tar files too. Links are followed. A
/// certificate that is in several files is listed once. A PEM, DER or PFX file of more than 16 MiB is listed as unreadable.
///
/// The exit status is 0 if no certificate expires in that time, 1 if one does or has expired, and 2 if the command line is
/// wrong. It is 3 if that could not be determined: a file that should hold a certificate could not be read, or no certificate
/// was found.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  iot-enroll cert expiring fleet --within 90d\n  iot-enroll cert expiring fleet.tar"
)]
pub(super) struct Expiring {
    /// A folder, which is searched with all folders below it, or a file
    path: PathBuf,
    /// How soon: a number and d for days, w for weeks or h for hours
    #[arg(long, value_name = "TIME", default_value = "30d")]
    within: Within,
    #[command(flatten)]
    pfx_password: PfxPassword,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(serialize_with = "lossy_path")]
    file: PathBuf,
    /// How many other files hold it.
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
    /// How many certificates were looked at.
    certificates: usize,
    expiring: Vec<Entry>,
    #[serde(flatten)]
    searched: Searched,
}

impl Expiring {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        let mut ends =
            Ends { until: self.within.until(), at: Timestamp::now(), seen: HashMap::new(), found: Vec::new() };
        let searched = search(&self.path, self.pfx_password.given()?, &mut |path, certificate| {
            ends.certificate(path, certificate);
        })
        .map_err(Undetermined::error)?;
        let Ends { seen, mut found, .. } = ends;
        found.sort_by(|a, b| a.end.cmp(&b.end).then_with(|| a.file.cmp(&b.file)));
        let report = Report { certificates: seen.len(), expiring: found, searched };
        output.result(&report, || human(&report))?;
        report.searched.tell(output);
        if report.certificates == 0 {
            return Err(Undetermined::error(anyhow!("no certificate was found in {}", self.path.display())));
        }
        if !report.expiring.is_empty() {
            return Err(Told.into());
        }
        if report.searched.unreadable.is_empty() { Ok(()) } else { Err(Undetermined::error(Told)) }
    }
}

fn human(report: &Report) -> String {
    let count = report.certificates;
    let mut text = if count == 0 {
        String::new()
    } else if report.expiring.is_empty() {
        format!("{GOOD}None of {count} certificates runs out{GOOD:#} in that time.\n")
    } else {
        let rows = report.expiring.iter().map(|entry| {
            let left = if entry.expired { "expired".to_owned() } else { format!("{} days", entry.days_left) };
            let others = if entry.also_in > 0 { format!(" and {} more", entry.also_in) } else { String::new() };
            [entry.not_after.clone(), left, entry.subject.clone(), format!("{}{others}", entry.file.display())]
        });
        let table = table(["NOT AFTER", "LEFT", "SUBJECT", "FILE"], rows);
        format!("{table}{BAD}{} of {count} certificates run out{BAD:#}.\n", report.expiring.len())
    };
    for unreadable in &report.searched.unreadable {
        let file = clean(&unreadable.file.display().to_string());
        let _ = writeln!(text, "{WARN}unreadable{WARN:#}: {file}: {}", clean(&unreadable.reason));
    }
    text
}

struct Ends {
    until: Timestamp,
    at: Timestamp,
    /// The certificates seen, and the place of those that run out among what was found.
    seen: HashMap<Thumbprint, Option<usize>>,
    found: Vec<Entry>,
}

impl Ends {
    fn certificate(&mut self, path: &Path, certificate: &Certificate) {
        let end = certificate.not_after();
        let place = self.seen.entry(certificate.sha256_thumbprint()).or_insert_with(|| {
            (end <= self.until).then(|| {
                self.found.push(Entry {
                    file: path.to_owned(),
                    also_in: usize::MAX,
                    subject: certificate.subject().to_string(),
                    not_after: end.to_string(),
                    days_left: end.days_since(self.at),
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
