//! Keys and certificates as bodies carry them.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{error::ApiError, json::Fields, random};
use crate::certificate::{Certificate, PublicKeyAlgorithm, Thumbprint};

/// The fewest bits of an RSA key.
const MIN_RSA_BITS: usize = 2048;

/// The bytes of a symmetric key that the emulator makes.
const KEY_BYTES: usize = 64;

/// Two symmetric keys, in base64. Secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SymmetricKey {
    primary: String,
    secondary: String,
}

impl SymmetricKey {
    pub(super) fn new(primary: &[u8], secondary: &[u8]) -> Self {
        Self { primary: BASE64_STANDARD.encode(primary), secondary: BASE64_STANDARD.encode(secondary) }
    }

    pub(super) fn random() -> Result<Self, ApiError> {
        Ok(Self::new(&random::bytes::<KEY_BYTES>()?, &random::bytes::<KEY_BYTES>()?))
    }

    /// The bytes of both, the primary first.
    pub(super) fn keys(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        // They were read from base64, or written to it.
        [&self.primary, &self.secondary].into_iter().filter_map(|key| BASE64_STANDARD.decode(key).ok())
    }

    pub(super) fn show(&self) -> Value {
        json!({ "primaryKey": self.primary, "secondaryKey": self.secondary })
    }

    /// The field `symmetricKey`.
    pub(super) fn read(fields: &mut Fields) -> Result<Option<Self>, ApiError> {
        let Some(mut fields) = fields.object("symmetricKey")? else { return Ok(None) };
        let mut key = |name| {
            let text = fields.required(name, Fields::string)?;
            match BASE64_STANDARD.decode(&text) {
                Ok(bytes) if (16..=64).contains(&bytes.len()) => Ok(text),
                Ok(bytes) => Err(fields.refuse(name, format_args!("a key has 16 to 64 bytes, found {}", bytes.len()))),
                Err(_) => Err(fields.refuse(name, "it is not base64")),
            }
        };
        let (primary, secondary) = (key("primaryKey")?, key("secondaryKey")?);
        fields.finish()?;
        Ok(Some(Self { primary, secondary }))
    }
}

/// Whether the certificate's key is one that the Device Provisioning Service takes.
pub(super) fn has_fitting_key(certificate: &Certificate) -> bool {
    match certificate.public_key_algorithm() {
        PublicKeyAlgorithm::Rsa { bits } => *bits >= MIN_RSA_BITS,
        PublicKeyAlgorithm::EcP256 | PublicKeyAlgorithm::EcP384 | PublicKeyAlgorithm::EcP521 => true,
        _ => false,
    }
}

/// Refuses the field `certificate` where its key is none that the Device Provisioning Service takes.
pub(super) fn check_key(certificate: &Certificate, fields: &Fields) -> Result<(), ApiError> {
    if has_fitting_key(certificate) {
        return Ok(());
    }
    let algorithm = certificate.public_key_algorithm();
    let why = format!("its key is {algorithm}; use RSA of {MIN_RSA_BITS} bits or more, or a NIST curve");
    Err(fields.refuse("certificate", why))
}

/// The thumbprint in the field `info`. Choice: only as the service writes it, 40 upper-case hexadecimal digits.
pub(super) fn read_thumbprint(fields: &mut Fields) -> Result<Option<Thumbprint>, ApiError> {
    let Some(mut info) = fields.object("info")? else { return Ok(None) };
    let text = info.required("sha1Thumbprint", Fields::string)?;
    let thumbprint = text
        .parse()
        .ok()
        .filter(|thumbprint: &Thumbprint| matches!(thumbprint, Thumbprint::Sha1(_)) && thumbprint.to_string() == text);
    let thumbprint =
        thumbprint.ok_or_else(|| info.refuse("sha1Thumbprint", "expected 40 upper-case hexadecimal digits"))?;
    info.finish()?;
    Ok(Some(thumbprint))
}

/// The one certificate in the field `certificate`: base64 of PEM or of DER, or PEM as it is.
pub(super) fn read_certificate(fields: &mut Fields) -> Result<Certificate, ApiError> {
    let text = fields.required("certificate", Fields::string)?;
    let mut all = Certificate::read_all(text.as_bytes())
        .map_err(|error| fields.refuse("certificate", format_args!("no certificate can be read from it: {error}")))?;
    match (all.pop(), all.len()) {
        (Some(only), 0) => Ok(only),
        (_, others) => Err(fields.refuse("certificate", format_args!("send one certificate, found {}", others + 1))),
    }
}
