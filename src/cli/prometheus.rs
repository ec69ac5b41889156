//! Metrics of certificates in the text format of Prometheus, for the textfile collector of its node exporter.

use std::{collections::HashSet, fmt::Write as _, path::Path};

use crate::certificate::Certificate;

const NOT_AFTER: &str = "iot_enroll_certificate_not_after_timestamp_seconds";
const NOT_BEFORE: &str = "iot_enroll_certificate_not_before_timestamp_seconds";
const CERTIFICATES: &str = "iot_enroll_certificates";
const UNREADABLE: &str = "iot_enroll_certificate_unreadable_files";

/// The samples of certificates.
#[derive(Default)]
pub(super) struct Metrics {
    /// The labels of each certificate: no sample may occur twice.
    labels: HashSet<String>,
    not_after: String,
    not_before: String,
}

impl Metrics {
    /// Adds a certificate.
    pub(super) fn add(&mut self, path: &Path, certificate: &Certificate) {
        let labels = format!(
            "{{path=\"{}\",subject=\"{}\",issuer=\"{}\",serial=\"{}\"}}",
            escaped(&path.to_string_lossy()),
            escaped(&certificate.subject().to_string()),
            escaped(&certificate.issuer().to_string()),
            certificate.serial_number(),
        );
        if !self.labels.insert(labels.clone()) {
            return;
        }
        let _ = writeln!(self.not_after, "{NOT_AFTER}{labels} {}", certificate.not_after().unix_seconds());
        let _ = writeln!(self.not_before, "{NOT_BEFORE}{labels} {}", certificate.not_before().unix_seconds());
    }

    /// Returns the metrics in the text format.
    pub(super) fn text(&self, certificates: usize, unreadable: usize) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, help: &str, samples: &str| {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{samples}");
        };
        // A metric without samples is left out.
        if !self.not_after.is_empty() {
            metric(NOT_AFTER, "End of the validity of a certificate, in seconds since 1970.", &self.not_after);
            metric(NOT_BEFORE, "Start of the validity of a certificate, in seconds since 1970.", &self.not_before);
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
