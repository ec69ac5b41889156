//! Symmetric keys and certificates in bodies.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    api_error::ApiError,
    fields::{FieldError, Fields},
    random::{self, RandomError},
};
use crate::certificate::{Certificate, PublicKeyAlgorithm, Thumbprint, Timestamp, chain};

/// The minimum size of an RSA key in bits, as documented for X.509 attestation at the Device Provisioning Service.
const MIN_RSA_BITS: usize = 2048;

/// The size of a generated symmetric key in bytes.
const KEY_BYTES: usize = 64;

/// A primary and a secondary symmetric key, in base64. Secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SymmetricKey {
    primary: String,
    secondary: String,
}

impl SymmetricKey {
    pub(super) fn new(primary: &[u8], secondary: &[u8]) -> Self {
        Self { primary: BASE64_STANDARD.encode(primary), secondary: BASE64_STANDARD.encode(secondary) }
    }

    pub(super) fn random() -> Result<Self, RandomError> {
        Ok(Self::new(&random::bytes::<KEY_BYTES>()?, &random::bytes::<KEY_BYTES>()?))
    }

    /// Derives the keys of a device of an enrollment group that has these.
    pub(super) fn derive(&self, id: &str) -> Self {
        let derive = |key: &str| {
            // It is valid base64 since it was created.
            let key = BASE64_STANDARD.decode(key).unwrap_or_default();
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), id.as_bytes())
        };
        Self::new(derive(&self.primary).as_ref(), derive(&self.secondary).as_ref())
    }

    /// Returns the bytes of both keys, the primary first.
    pub(super) fn keys(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        // Both are valid base64 since they were created.
        [&self.primary, &self.secondary].into_iter().filter_map(|key| BASE64_STANDARD.decode(key).ok())
    }

    pub(super) fn show(&self) -> Value {
        json!({ "primaryKey": self.primary, "secondaryKey": self.secondary })
    }

    /// Removes the field `symmetricKey`. Keys have 16 to 64 bytes, as at the Device Provisioning Service.
    pub(super) fn read(fields: &mut Fields) -> Result<Option<Self>, FieldError> {
        let Some(mut fields) = fields.object("symmetricKey")? else { return Ok(None) };
        let primary = fields.required("primaryKey", read_key)?;
        let secondary = fields.required("secondaryKey", read_key)?;
        fields.finish()?;
        Ok(Some(Self { primary, secondary }))
    }

    /// Removes the field `symmetricKey`. Keys that it omits are generated.
    pub(super) fn read_or_generate(fields: &mut Fields) -> Result<Self, ApiError> {
        let mut key = Self::random()?;
        if let Some(fields) = fields.object("symmetricKey")? {
            let mut fields = fields.without_nulls();
            key.primary = read_key(&mut fields, "primaryKey")?.unwrap_or(key.primary);
            key.secondary = read_key(&mut fields, "secondaryKey")?.unwrap_or(key.secondary);
            fields.finish()?;
        }
        Ok(key)
    }

    /// Returns both keys in base64.
    pub(super) fn encoded(&self) -> [&str; 2] {
        [&self.primary, &self.secondary]
    }

    /// Returns the primary key in base64.
    pub(super) fn primary(&self) -> &str {
        &self.primary
    }
}

/// Removes a key in base64.
fn read_key(fields: &mut Fields, name: &str) -> Result<Option<String>, FieldError> {
    let Some(text) = fields.string(name)? else { return Ok(None) };
    match BASE64_STANDARD.decode(&text) {
        Ok(bytes) if (16..=64).contains(&bytes.len()) => Ok(Some(text)),
        Ok(bytes) => Err(fields.invalid(name, format_args!("a key has 16 to 64 bytes, found {}", bytes.len()))),
        Err(_) => Err(fields.invalid(name, "it is not base64")),
    }
}

/// Returns whether the Device Provisioning Service accepts the certificate's key.
pub(super) fn has_accepted_key(certificate: &Certificate) -> bool {
    match certificate.public_key_algorithm() {
        PublicKeyAlgorithm::Rsa { bits } => *bits >= MIN_RSA_BITS,
        PublicKeyAlgorithm::EcP256 | PublicKeyAlgorithm::EcP384 | PublicKeyAlgorithm::EcP521 => true,
        _ => false,
    }
}

/// A certificate that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct CertificateError(String);

/// Parses one certificate: base64 of PEM or DER, or PEM.
pub(super) fn parse_certificate(text: &str) -> Result<Certificate, CertificateError> {
    let mut all = Certificate::read_all(text.as_bytes())
        .map_err(|error| CertificateError(format!("cannot read a certificate: {error}")))?;
    match (all.pop(), all.len()) {
        (Some(only), 0) => Ok(only),
        (_, others) => Err(CertificateError(format!("expected one certificate, found {}", others + 1))),
    }
}

/// Parses one certificate and checks that the Device Provisioning Service accepts the key.
pub(super) fn parse_certificate_with_accepted_key(text: &str) -> Result<Certificate, CertificateError> {
    let certificate = parse_certificate(text)?;
    if has_accepted_key(&certificate) {
        return Ok(certificate);
    }
    let algorithm = certificate.public_key_algorithm();
    let problem = format!("its key is {algorithm}; use RSA of {MIN_RSA_BITS} bits or more, or a NIST curve");
    Err(CertificateError(problem))
}

/// Parses the certificate of a CA and checks that it could sign for a device.
pub(super) fn parse_authority(text: &str, now: Timestamp) -> Result<Certificate, CertificateError> {
    let certificate = parse_certificate_with_accepted_key(text)?;
    chain::check_authority(&certificate, now).map_err(|error| CertificateError(error.to_string()))?;
    Ok(certificate)
}

/// Removes the field `certificate` and parses it.
pub(super) fn read_certificate(
    fields: &mut Fields,
    parse: impl FnOnce(&str) -> Result<Certificate, CertificateError>,
) -> Result<Certificate, FieldError> {
    let text = fields.required("certificate", Fields::string)?;
    parse(&text).map_err(|error| fields.invalid("certificate", error))
}

/// Removes the field `info` and returns the thumbprint in it.
///
/// It has 40 upper-case hexadecimal digits, by the pattern in the API description.
pub(super) fn read_thumbprint(fields: &mut Fields) -> Result<Option<Thumbprint>, FieldError> {
    let Some(mut info) = fields.object("info")? else { return Ok(None) };
    let text = info.required("sha1Thumbprint", Fields::string)?;
    let thumbprint = text
        .parse()
        .ok()
        .filter(|thumbprint: &Thumbprint| matches!(thumbprint, Thumbprint::Sha1(_)) && thumbprint.to_string() == text);
    let thumbprint =
        thumbprint.ok_or_else(|| info.invalid("sha1Thumbprint", "expected 40 upper-case hexadecimal digits"))?;
    info.finish()?;
    Ok(Some(thumbprint))
}

/// Checks that a given thumbprint is that of the certificate.
pub(super) fn check_thumbprint(
    given: Option<Thumbprint>,
    certificate: &Certificate,
    fields: &Fields,
) -> Result<(), FieldError> {
    if given.is_some_and(|given| given != certificate.sha1_thumbprint()) {
        return Err(fields.invalid("info.sha1Thumbprint", "it is not the thumbprint of the certificate"));
    }
    Ok(())
}
