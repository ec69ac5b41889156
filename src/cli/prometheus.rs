//! Metrics of certificates in the text format of Prometheus, for the textfile collector of its node exporter.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Write as _,
    path::Path,
};

use crate::certificate::{Certificate, Timestamp};

const NOT_AFTER: &str = "iot_enroll_certificate_not_after_timestamp_seconds";
const NOT_BEFORE: &str = "iot_enroll_certificate_not_before_timestamp_seconds";
const CERTIFICATES: &str = "iot_enroll_certificates";
const UNREADABLE: &str = "iot_enroll_certificate_unreadable_files";

/// The samples of certificates.
#[derive(Default)]
pub(super) struct Metrics {
    /// The labels of each certificate, and the start and end of its validity.
    series: Vec<(String, Timestamp, Timestamp)>,
    /// Where the labels are in `series`: no series may occur twice.
    positions: HashMap<String, usize>,
}

impl Metrics {
    /// Adds a certificate. Of those with the same labels, the one that expires first counts.
    pub(super) fn add(&mut self, path: &Path, certificate: &Certificate) {
        let labels = format!(
            "{{path=\"{}\",subject=\"{}\",issuer=\"{}\",serial=\"{}\"}}",
            escaped(&path.to_string_lossy()),
            escaped(&certificate.subject().to_string()),
            escaped(&certificate.issuer().to_string()),
            certificate.serial_number(),
        );
        let (not_before, not_after) = (certificate.not_before(), certificate.not_after());
        match self.positions.entry(labels) {
            Entry::Vacant(unseen) => {
                self.series.push((unseen.key().clone(), not_before, not_after));
                unseen.insert(self.series.len() - 1);
            }
            Entry::Occupied(seen) => {
                let series = &mut self.series[*seen.get()];
                if not_after < series.2 {
                    (series.1, series.2) = (not_before, not_after);
                }
            }
        }
    }

    /// Returns the metrics in the text format.
    pub(super) fn text(&self, certificates: usize, unreadable: usize) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, help: &str, samples: &str| {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{samples}");
        };
        let (mut starts, mut ends) = (String::new(), String::new());
        for (labels, not_before, not_after) in &self.series {
            let _ = writeln!(starts, "{NOT_BEFORE}{labels} {}", not_before.unix_seconds());
            let _ = writeln!(ends, "{NOT_AFTER}{labels} {}", not_after.unix_seconds());
        }
        // A metric without samples is left out.
        if !self.series.is_empty() {
            metric(NOT_AFTER, "End of the validity of a certificate, in seconds since 1970.", &ends);
            metric(NOT_BEFORE, "Start of the validity of a certificate, in seconds since 1970.", &starts);
        }
        metric(CERTIFICATES, "Number of certificates that were found.", &format!("{CERTIFICATES} {certificates}\n"));
        let help = "Number of files that should hold a certificate and could not be read.";
        metric(UNREADABLE, help, &format!("{UNREADABLE} {unreadable}\n"));
        text
    }
}

/// Writes a label value: backslashes, quotes and line feeds are escaped, all other characters are allowed.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
