//! Writing of PEM sections (RFC 7468).

use base64::{Engine, prelude::BASE64_STANDARD};

/// The width of PEM lines (RFC 7468 section 2).
const COLUMNS: usize = 64;

/// Returns a PEM section.
pub(super) fn pem_block(label: &str, der: &[u8]) -> String {
    let mut pem = Vec::with_capacity(der.len() / 48 * 65 + 128);
    push_pem(&mut pem, label, der);
    // Labels and base64 are ASCII.
    String::from_utf8(pem).unwrap_or_default()
}

/// Appends a PEM section.
pub(super) fn push_pem(pem: &mut Vec<u8>, label: &str, der: &[u8]) {
    for part in ["-----BEGIN ", label, "-----\n"] {
        pem.extend_from_slice(part.as_bytes());
    }
    // Encodes everything at once, with room for the line ends in front, then moves each line to its place.
    let (length, start) = (der.len().div_ceil(3) * 4, pem.len());
    let lines = length.div_ceil(COLUMNS);
    pem.resize(start + lines + length, 0);
    // The buffer has the size that is needed.
    let _ = BASE64_STANDARD.encode_slice(der, &mut pem[start + lines..]);
    for line in 0..lines {
        let from = start + lines + line * COLUMNS;
        let to = start + line * (COLUMNS + 1);
        let width = COLUMNS.min(pem.len() - from);
        pem.copy_within(from..from + width, to);
        pem[to + width] = b'\n';
    }
    for part in ["-----END ", label, "-----\n"] {
        pem.extend_from_slice(part.as_bytes());
    }
}
