//! Object identifiers and their names.

use std::{fmt::Write as _, sync::LazyLock};

use x509_parser::oid_registry::{Oid, OidEntry, OidRegistry};

use super::hex::hexadecimal;

static REGISTRY: LazyLock<OidRegistry<'static>> = LazyLock::new(|| OidRegistry::default().with_crypto().with_x509());

/// Names that the registry of x509-parser lacks.
const MORE_NAMES: [(&str, &str); 12] = [
    ("1.3.6.1.4.1.11129.2.4.2", "signedCertificateTimestampList"),
    ("1.3.6.1.5.5.7.1.24", "tlsFeature"),
    ("1.3.6.1.5.5.7.48.1.5", "ocspNoCheck"),
    ("1.3.6.1.4.1.311.20.2", "certificateTemplateName"),
    ("1.3.6.1.4.1.311.21.1", "caVersion"),
    ("1.3.6.1.4.1.311.21.2", "previousCaCertificateHash"),
    ("1.3.6.1.4.1.311.21.7", "certificateTemplate"),
    ("1.3.6.1.4.1.311.21.10", "applicationCertPolicies"),
    ("1.3.6.1.4.1.311.20.2.3", "userPrincipalName"),
    ("1.3.6.1.5.5.7.8.9", "smtpUtf8Mailbox"),
    ("2.5.29.9", "subjectDirectoryAttributes"),
    ("2.5.29.16", "privateKeyUsagePeriod"),
];

/// Returns the registered name of an object identifier, or its dotted form.
pub(super) fn oid_name(oid: &Oid<'_>) -> String {
    oid_content_name(oid.as_bytes())
}

/// Returns the name for the content octets of an object identifier, as [`oid_name`] does.
pub(super) fn oid_content_name(content: &[u8]) -> String {
    let dotted = dotted_oid(content);
    if let Some((_, name)) = MORE_NAMES.iter().find(|(oid, _)| *oid == dotted) {
        return (*name).to_owned();
    }
    // The registry has entries without a name.
    let entry = REGISTRY.get(&Oid::new(content.into())).map(OidEntry::sn).filter(|name| !name.is_empty());
    entry.map_or(dotted, str::to_owned)
}

/// Returns the dotted form for the content octets of an object identifier (X.690 section 8.19). Malformed octets become
/// `#` and hexadecimal.
pub(super) fn dotted_oid(content: &[u8]) -> String {
    let malformed = || format!("#{}", hexadecimal(content));
    let mut text = String::new();
    let mut arc = 0_u128;
    for (at, octet) in content.iter().enumerate() {
        let Some(shifted) = arc.checked_mul(0x80) else { return malformed() };
        arc = shifted | u128::from(octet & 0x7f);
        if octet & 0x80 != 0 {
            if at + 1 == content.len() {
                return malformed();
            }
            continue;
        }
        if text.is_empty() {
            let first = (arc / 40).min(2);
            let _ = write!(text, "{first}.{}", arc - first * 40);
        } else {
            let _ = write!(text, ".{arc}");
        }
        arc = 0;
    }
    if text.is_empty() { malformed() } else { text }
}
