//! What Java does not read: one such certificate or password makes a whole truststore unreadable.
//!
//! The rules are those of Java 17 (`X509CertImpl`, `X509CertInfo`, `CurveDB` and `PBEKey`), tried with `keytool`.

use std::collections::HashSet;

use super::PfxError;
use crate::certificate::{
    Certificate, PublicKeyAlgorithm,
    der::{BIT_STRING, DerReader, INTEGER, OBJECT_IDENTIFIER, SEQUENCE},
};

/// Checks that Java can open a truststore with that password.
pub(super) fn check_password(password: &str) -> Result<(), PfxError> {
    // Java derives keys from passwords that are printable ASCII only ("Password is not ASCII").
    let is_readable = password.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    let reason = "its password has other characters than printable ASCII ones";
    if is_readable { Ok(()) } else { Err(PfxError::Truststore(reason.to_owned())) }
}

/// Checks that Java can parse a certificate.
pub(super) fn check_certificate(certificate: &Certificate) -> Result<(), PfxError> {
    match objection(certificate) {
        Some(reason) => Err(PfxError::Truststore(format!("{certificate} {reason}"))),
        None => Ok(()),
    }
}

fn objection(certificate: &Certificate) -> Option<String> {
    if certificate.issuer().is_empty() {
        return Some("has no issuer name".to_owned());
    }
    let mut seen = HashSet::new();
    if let Some(repeated) = certificate.extensions().iter().find(|extension| !seen.insert(extension.oid.as_str())) {
        return Some(format!("has the extension {} twice", repeated.name));
    }
    if certificate.version() < 3 && !certificate.extensions().is_empty() {
        return Some("has extensions, which only version 3 has".to_owned());
    }
    let is_name = |oid: &str| oid == SUBJECT_ALTERNATIVE_NAME;
    let has_critical_name = certificate.extensions().iter().any(|it| is_name(&it.oid) && it.critical);
    if certificate.subject().is_empty() && !has_critical_name {
        return Some("has neither a subject nor a critical subject alternative name".to_owned());
    }
    if let Some(malformed) = certificate.malformed_extensions().iter().find(|extension| extension.critical) {
        return Some(format!("has a malformed extension, {}", malformed.name));
    }
    if !has_one_signature_algorithm(certificate.der()) {
        return Some("has different signature algorithms inside and outside its signed part".to_owned());
    }
    key_objection(certificate)
}

const SUBJECT_ALTERNATIVE_NAME: &str = "2.5.29.17";

/// Returns whether the signature algorithms inside and outside the signed part are the same, with their parameters.
fn has_one_signature_algorithm(der: &[u8]) -> bool {
    let algorithms = || {
        let mut outer = DerReader::new(der).inside(SEQUENCE)?;
        let mut signed = outer.inside(SEQUENCE)?;
        if signed.tag() != Some(INTEGER) {
            // The version.
            signed.element()?;
        }
        signed.content(INTEGER)?;
        Some((signed.element()?, outer.element()?))
    };
    algorithms().is_some_and(|(inside, outside)| inside == outside)
}

/// Returns why Java cannot read a public key. It reads those whose algorithm it does not know.
fn key_objection(certificate: &Certificate) -> Option<String> {
    const EC: &str = "1.2.840.10045.2.1";
    let key = certificate.public_key_algorithm();
    if matches!(key, PublicKeyAlgorithm::Rsa { bits } if *bits < 512) {
        return Some(format!("has a key that is too short, {key}"));
    }
    let mut info = DerReader::new(certificate.public_key()).inside(SEQUENCE)?;
    let mut algorithm = info.inside(SEQUENCE)?;
    if algorithm.oid()? != EC {
        return None;
    }
    let is_known = algorithm.tag() == Some(OBJECT_IDENTIFIER) && algorithm.oid().is_some_and(|oid| knows_curve(&oid));
    if !is_known {
        return Some(format!("has a key on a curve that Java does not know, {key}"));
    }
    // A bit string begins with the number of unused bits, a point with its form (SEC 1 section 2.3.3).
    match info.content(BIT_STRING)? {
        [0, 4, ..] => None,
        _ => Some("has an EC key whose point is compressed".to_owned()),
    }
}

/// Returns whether Java knows a curve by its object identifier.
fn knows_curve(oid: &str) -> bool {
    let last = |prefix: &str| oid.strip_prefix(prefix).and_then(|last| last.parse::<u32>().ok());
    // The curves of SEC 2 and the prime curves of X9.62.
    last("1.3.132.0.").is_some()
        || last("1.2.840.10045.3.1.").is_some()
        // Of the Brainpool curves, those whose names end with r1, and not the twisted ones.
        || last("1.3.36.3.3.2.8.1.1.").is_some_and(|last| last % 2 == 1)
        // The binary curves c2tnb of X9.62, and not c2pnb.
        || last("1.2.840.10045.3.0.").is_some_and(|last| [5, 6, 7, 11, 12, 13, 18, 20].contains(&last))
}
