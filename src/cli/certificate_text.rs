//! What several commands say about a certificate.

use std::path::PathBuf;

use super::output::Output;
use crate::{
    certificate::{Certificate, Timestamp},
    workflow::CertificateRecord,
};

/// Returns the common name of the subject, or the whole subject without one, or the serial number without a subject.
pub(super) fn name_of(certificate: &Certificate) -> String {
    let subject = certificate.subject();
    match subject.common_name() {
        Some(name) if !name.trim().is_empty() => name.to_owned(),
        _ if subject.is_empty() => format!("the certificate with the serial number {}", certificate.serial_number()),
        _ => subject.to_string(),
    }
}

/// Notes that a certificate expires earlier than requested, together with its issuer.
pub(super) fn note_shortened(not_after: Timestamp, requested: Option<Timestamp>, output: &Output) {
    if let Some(requested) = requested {
        output.note(format_args!(
            "valid only until {}, when the issuer expires, instead of {}",
            not_after.date(),
            requested.date()
        ));
    }
}

/// Notes which files of an overwritten set were removed, because the new set does not have them.
pub(super) fn note_removed(before: &[PathBuf], output: &Output) {
    for file in before.iter().filter(|file| file.symlink_metadata().is_err()) {
        output.note(format_args!("{} was removed with the overwritten set", file.display()));
    }
}

/// Notes that the top of a chain is not a root and has a weak signature. The signature was not verified, since its issuer is
/// not known.
pub(super) fn note_weak_signature(top: Option<&Certificate>, output: &Output) {
    let is_weak = |top: &&Certificate| !top.is_self_issued() && top.signature_algorithm().is_weak();
    if let Some(top) = top.filter(is_weak) {
        output.note(format_args!(
            "{} is signed with {}, which is broken: no chain through it to a CA above it is valid",
            top.subject(),
            top.signature_algorithm()
        ));
    }
}

/// Returns the files and the thumbprint of a certificate, for [`fields`](super::output::fields). `key_state` follows the file of
/// the key.
pub(super) fn record_rows(record: &CertificateRecord, key_state: &str) -> Vec<(&'static str, String)> {
    let mut rows = vec![("certificate", record.certificate.display().to_string())];
    rows.extend(record.private_key.as_ref().map(|key| ("private key", format!("{} ({key_state})", key.display()))));
    rows.push(("full chain", record.fullchain.display().to_string()));
    rows.extend(record.pfx.as_ref().map(|pfx| ("PFX", pfx.display().to_string())));
    rows.push(("thumbprint", record.sha1_thumbprint.clone()));
    rows
}
