//! PEM of what rcgen makes. Its own feature for that would compile it, and all that depends on it, once more for the tests.

use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::certificate::PrivateKey;
use rcgen::{Certificate, KeyPair};

/// Returns a key as rcgen reads it, which encodes and signs without our own code.
pub(crate) fn rcgen_key(key: &PrivateKey) -> KeyPair {
    KeyPair::try_from(key.to_pkcs8_der().expect("DER").as_slice()).expect("a key")
}

/// Returns the PEM of a certificate.
pub(crate) fn certificate_pem(certificate: &Certificate) -> String {
    pem("CERTIFICATE", certificate.der())
}

/// Returns the PEM of a private key, in PKCS#8.
pub(crate) fn key_pem(key: &KeyPair) -> String {
    pem("PRIVATE KEY", key.serialized_der())
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
