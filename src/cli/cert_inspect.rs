//! `cert inspect`: the contents of certificates, and what a service would refuse.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::Serialize;

use super::{
    args::{PfxPassword, Within},
    error::{AlreadyReported, Undetermined},
    input::{certificates_of, read},
    output::{BAD, GOOD, Output, WARN, clean, fields},
};
use crate::certificate::{
    AuthorityKeyIdentifier, Certificate, CertificateRequest, Extension, GeneralName, GeneralSubtree, Timestamp, chain,
    objections,
    pfx::{self, PfxError},
};

/// Show the contents of certificates and what a service would refuse
///
/// Shows names, validity, key, signature, extensions and thumbprints. An extension that cannot be decoded is a warning.
///
/// The exit status is 0 even if there are warnings. With --within it is 1 if a certificate expires in that time or has
/// expired, and 3 if the file cannot be read. --within 0d checks for expired certificates only.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{JSON}\n\n{EXAMPLES}"))]
pub(super) struct Inspect {
    /// Certificate file in any encoding; - is standard input
    ///
    /// PEM, DER, base64 of either, PKCS#7 or PFX.
    file: PathBuf,
    /// Fail if a certificate expires within this time, such as 30d, 4w, 12h or 33%
    ///
    /// A percentage is that of the certificate's lifetime.
    #[arg(long, value_name = "TIME|PERCENT")]
    within: Option<Within>,
    #[command(flatten)]
    pfx_password: PfxPassword,
}

const EXAMPLES: &str = "\
Examples:
  iot-enroll cert inspect sampleDevice01_fullchain.pem
  iot-enroll cert inspect sampleDevice01_fullchain.pem --within 30d";

/// The members of the JSON output.
const JSON: &str = "\
JSON (-o json): one object with
  certificates             in the order of the file, each with
    subject, commonName, issuer, serialNumber, version
    notBefore, notAfter, daysLeft, expired
    publicKey              such as \"EC P-256\", \"RSA 2048\", \"EC brainpoolP256r1\"
    signatureAlgorithm, signatureHash
    authority, pathLength  from the basic constraints
    keyUsage               such as [\"digitalSignature\"]
    extendedKeyUsage       such as [\"clientAuth\"]; unnamed ones as object identifiers
    subjectAlternativeNames
                           such as [\"DNS:gateway.example.com\", \"IP:192.0.2.1\"]
    subjectKeyIdentifier, authorityKeyIdentifier
                           in upper-case hexadecimal
    authorityCertificate   {issuer, serialNumber} of the issuer's certificate
    nameConstraints        {permitted, excluded}, each like subjectAlternativeNames
    extensions             all extensions: {oid, name, critical}
    malformedExtensions    undecodable or duplicate ones: {oid, name, critical, reason}
    sha1Thumbprint, sha256Thumbprint
    warnings               what a service would refuse
  chainError               why the certificates are not a valid chain
A member is null if the certificate does not have it.";

/// A certificate as JSON. The names are stable; [`JSON`] documents them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspection {
    subject: String,
    common_name: Option<String>,
    issuer: String,
    serial_number: String,
    version: u32,
    not_before: String,
    not_after: String,
    days_left: i64,
    expired: bool,
    public_key: String,
    signature_algorithm: String,
    signature_hash: Option<String>,
    authority: bool,
    path_length: Option<u32>,
    key_usage: Option<Vec<String>>,
    extended_key_usage: Option<Vec<String>>,
    subject_alternative_names: Option<Vec<String>>,
    subject_key_identifier: Option<String>,
    authority_key_identifier: Option<String>,
    authority_certificate: Option<AuthorityCertificate>,
    name_constraints: Option<NameConstraints>,
    extensions: Vec<ExtensionSummary>,
    malformed_extensions: Vec<MalformedExtension>,
    sha1_thumbprint: String,
    sha256_thumbprint: String,
    warnings: Vec<String>,
}

/// The issuer's certificate as the authority key identifier names it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthorityCertificate {
    issuer: Vec<String>,
    serial_number: Option<String>,
}

#[derive(Serialize)]
struct NameConstraints {
    permitted: Vec<String>,
    excluded: Vec<String>,
}

#[derive(Serialize)]
struct ExtensionSummary {
    oid: String,
    name: String,
    critical: bool,
}

#[derive(Serialize)]
struct MalformedExtension {
    oid: String,
    name: String,
    critical: bool,
    reason: String,
}

// The extensions that have a row of their own.
const BASIC_CONSTRAINTS: &str = "2.5.29.19";
const KEY_USAGE: &str = "2.5.29.15";
const EXTENDED_KEY_USAGE: &str = "2.5.29.37";
const SUBJECT_ALTERNATIVE_NAME: &str = "2.5.29.17";
const SUBJECT_KEY_IDENTIFIER: &str = "2.5.29.14";
const AUTHORITY_KEY_IDENTIFIER: &str = "2.5.29.35";
const NAME_CONSTRAINTS: &str = "2.5.29.30";

impl Inspection {
    fn new(certificate: &Certificate, at: Timestamp) -> Self {
        let constraints = certificate.basic_constraints();
        let algorithm = certificate.signature_algorithm();
        let issuer = certificate.authority_key_identifier_extension();
        let usages = certificate.extended_key_usage_names().filter(|names| !names.is_empty());
        let malformed = certificate.malformed_extensions().iter();
        Self {
            subject: certificate.subject().to_string(),
            common_name: certificate.subject().common_name().map(str::to_owned),
            issuer: certificate.issuer().to_string(),
            serial_number: certificate.serial_number(),
            version: certificate.version(),
            not_before: certificate.not_before().to_string(),
            not_after: certificate.not_after().to_string(),
            days_left: certificate.not_after().days_since(at),
            expired: certificate.not_after() < at,
            public_key: certificate.public_key_algorithm().to_string(),
            signature_algorithm: algorithm.to_string(),
            signature_hash: algorithm.hash().map(|hash| hash.to_string()),
            authority: constraints.is_some_and(|constraints| constraints.authority),
            path_length: constraints.and_then(|constraints| constraints.path_length),
            key_usage: certificate.key_usage().map(|usage| usage.names().map(str::to_owned).collect()),
            extended_key_usage: usages.map(|names| names.into_iter().map(str::to_owned).collect()),
            subject_alternative_names: certificate
                .subject_alternative_names()
                .map(|names| names.iter().map(GeneralName::to_string).collect()),
            subject_key_identifier: certificate.subject_key_identifier().map(hexadecimal),
            authority_key_identifier: certificate.authority_key_identifier().map(hexadecimal),
            authority_certificate: issuer.and_then(AuthorityCertificate::new),
            name_constraints: certificate.name_constraints().map(|constraints| NameConstraints {
                permitted: constraints.permitted.iter().map(subtree).collect(),
                excluded: constraints.excluded.iter().map(subtree).collect(),
            }),
            extensions: certificate.extensions().iter().map(ExtensionSummary::new).collect(),
            malformed_extensions: malformed
                .map(|extension| MalformedExtension {
                    oid: extension.oid.clone(),
                    name: extension.name.clone(),
                    critical: extension.critical,
                    reason: extension.reason.clone(),
                })
                .collect(),
            sha1_thumbprint: certificate.sha1_thumbprint().to_string(),
            sha256_thumbprint: certificate.sha256_thumbprint().to_string(),
            warnings: objections(certificate, at).iter().map(ToString::to_string).collect(),
        }
    }

    fn human(&self) -> String {
        let kind = if self.authority { "certificate authority (CA)" } else { "end entity" };
        let mut rows = vec![
            ("subject", self.subject.clone()),
            ("issuer", self.issuer.clone()),
            ("kind", kind.to_owned()),
            ("serial number", self.serial_number.clone()),
            ("not before", self.not_before.clone()),
            ("not after", self.not_after.clone()),
            ("public key", self.public_key.clone()),
            ("signature algorithm", self.signature_algorithm.clone()),
        ];
        let mut row = |name, oid, value: Option<String>| {
            let critical = self.extensions.iter().any(|extension| extension.oid == oid && extension.critical);
            let critical = if critical { " (critical)" } else { "" };
            rows.extend(value.map(|value| (name, format!("{value}{critical}"))));
        };
        row("path length", "", self.path_length.map(|length| length.to_string()));
        row("key usage", KEY_USAGE, self.key_usage.as_deref().map(list));
        row("extended key usage", EXTENDED_KEY_USAGE, self.extended_key_usage.as_deref().map(list));
        let names = self.subject_alternative_names.as_deref();
        row("subject alternative names", SUBJECT_ALTERNATIVE_NAME, names.map(list));
        row("subject key identifier", SUBJECT_KEY_IDENTIFIER, self.subject_key_identifier.clone());
        let issuer = self.authority_certificate.as_ref().map(AuthorityCertificate::human);
        let issuer = [self.authority_key_identifier.clone(), issuer].into_iter().flatten().collect::<Vec<_>>();
        let issuer = (!issuer.is_empty()).then(|| issuer.join(", "));
        row("authority key identifier", AUTHORITY_KEY_IDENTIFIER, issuer);
        row("name constraints", NAME_CONSTRAINTS, self.name_constraints.as_ref().map(NameConstraints::human));
        let others = self.extensions.iter().filter(|extension| !extension.has_row());
        let others: Vec<_> = others.map(ExtensionSummary::human).collect();
        if !others.is_empty() {
            rows.push(("other extensions", others.join(", ")));
        }
        rows.push(("SHA-1", self.sha1_thumbprint.clone()));
        rows.push(("SHA-256", self.sha256_thumbprint.clone()));
        let mut text = fields(&rows);
        for warning in &self.warnings {
            let _ = writeln!(text, "{WARN}warning{WARN:#}: {}", clean(warning));
        }
        text
    }
}

impl AuthorityCertificate {
    fn new(identifier: &AuthorityKeyIdentifier) -> Option<Self> {
        let issuer = identifier.issuer.iter().flatten().map(GeneralName::to_string).collect::<Vec<_>>();
        let serial_number = identifier.serial_number.as_deref().map(hexadecimal);
        (!issuer.is_empty() || serial_number.is_some()).then_some(Self { issuer, serial_number })
    }

    fn human(&self) -> String {
        let serial = self.serial_number.as_ref().map(|number| format!("serial number {number}"));
        let parts = self.issuer.iter().map(|name| quoted(name)).chain(serial);
        parts.collect::<Vec<_>>().join(", ")
    }
}

impl NameConstraints {
    fn human(&self) -> String {
        let parts = [("permitted", &self.permitted), ("excluded", &self.excluded)];
        let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
        parts.map(|(what, names)| format!("{what} {}", list(names))).collect::<Vec<_>>().join("; ")
    }
}

impl ExtensionSummary {
    fn new(extension: &Extension) -> Self {
        let Extension { oid, name, critical, .. } = extension;
        Self { oid: oid.clone(), name: name.clone(), critical: *critical }
    }

    fn has_row(&self) -> bool {
        [
            BASIC_CONSTRAINTS,
            KEY_USAGE,
            EXTENDED_KEY_USAGE,
            SUBJECT_ALTERNATIVE_NAME,
            SUBJECT_KEY_IDENTIFIER,
            AUTHORITY_KEY_IDENTIFIER,
            NAME_CONSTRAINTS,
        ]
        .contains(&self.oid.as_str())
    }

    fn human(&self) -> String {
        format!("{}{}", self.name, if self.critical { " (critical)" } else { "" })
    }
}

fn subtree(subtree: &GeneralSubtree) -> String {
    let distances = if subtree.has_distances { " (with a minimum or maximum)" } else { "" };
    format!("{}{distances}", subtree.base)
}

/// Joins names on one line.
fn list(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// Quotes a name that contains a separator, so that it cannot be mistaken for several names.
fn quoted(name: &str) -> String {
    if name.contains([',', ';', '"']) && !name.starts_with("DirName:") {
        format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        name.to_owned()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InspectionReport {
    certificates: Vec<Inspection>,
    /// Why the certificates are not a valid chain for the first one.
    chain_error: Option<String>,
}

impl Inspect {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<()> {
        let certificates = read_certificates(&self.file, &self.pfx_password)
            .map_err(|error| if self.within.is_some() { Undetermined::new(error).into() } else { error })?;
        let at = Timestamp::now();
        let expires = |certificate: &&Certificate| self.within.is_some_and(|within| within.includes(certificate, at));
        let expiring = certificates.iter().filter(expires).count();
        let report = InspectionReport {
            certificates: certificates.iter().map(|certificate| Inspection::new(certificate, at)).collect(),
            chain_error: chain_error(&certificates, at),
        };
        output.result(&report, || report.human(expiring))?;
        if expiring == 0 { Ok(()) } else { Err(AlreadyReported.into()) }
    }
}

impl InspectionReport {
    fn human(&self, expiring: usize) -> String {
        let mut text = self.certificates.iter().map(Inspection::human).collect::<Vec<_>>().join("\n");
        let count = self.certificates.len();
        match &self.chain_error {
            Some(error) => {
                let error = clean(error);
                let _ = writeln!(text, "\n{WARN}warning{WARN:#}: the certificates are not a valid chain: {error}");
            }
            None if count > 1 => {
                let _ = writeln!(text, "\n{GOOD}The {count} certificates are a valid chain.{GOOD:#}");
            }
            None => {}
        }
        if expiring > 0 {
            let _ = writeln!(text, "\n{BAD}{expiring} of {count} certificates expire{BAD:#} within the given time.");
        }
        text
    }
}

/// Reads the certificates of a file. The error says so if it holds a certificate request.
fn read_certificates(file: &Path, pfx_password: &PfxPassword) -> anyhow::Result<Vec<Certificate>> {
    let bytes = read(file)?;
    // Certificates can be shown even if none belongs to the key.
    let read_pfx = |bytes: &[u8], password: Option<&str>| match pfx::read(bytes, password) {
        Err(PfxError::NoMatch | PfxError::Ambiguous(_)) => pfx::read_in_file_order(bytes, password),
        other => other,
    };
    let certificates = certificates_of(&bytes, || pfx_password.given(), read_pfx);
    if certificates.is_err()
        && let Ok(request) = CertificateRequest::read(&bytes)
    {
        bail!(
            "{} holds a certificate request, not a certificate: it is for {}, its key is {}, and its signature is valid",
            file.display(),
            request.subject(),
            request.public_key_algorithm()
        );
    }
    certificates.with_context(|| format!("could not read a certificate from {}", file.display()))
}

fn chain_error(certificates: &[Certificate], at: Timestamp) -> Option<String> {
    let [first, .., last] = certificates else { return None };
    match chain::verify(certificates, std::slice::from_ref(last), at) {
        Err(error) => Some(error.to_string()),
        Ok(path) => {
            let unrelated = certificates.iter().filter(|it| !path.contains(it)).count();
            (unrelated > 0).then(|| format!("{unrelated} of them did not issue the first, {}", first.subject()))
        }
    }
}
