//! The individual attestation of a device.
//!
//! # Where the documentation is silent
//! - **A device without an individual attestation** has symmetric keys that are derived from two keys of the
//!   application, as those of an enrollment group's devices are derived: HMAC-SHA256 of the device ID in lower case.
//!   They stay the same if the device is deleted and created again. GET, PATCH and DELETE of its attestation are 404.
//! - **Setting an attestation** (PUT) replaces all of it. Symmetric keys are generated if the body has none.
//! - **Sections**: the body must have the section that its type names, except `symmetricKey`, and no other (422).
//! - **A certificate** is given as the certificate, its thumbprint, or both, which must match (422). Like a signing
//!   certificate it is not shown, and the Device Provisioning Service must accept its key. Its validity is not checked.
//!   The same certificate in both entries is 422.
//! - **A patch** may change the type if it also removes the other section with null. A certificate in it replaces the
//!   current thumbprint.
//! - **The endorsement key** of a TPM is base64 of at least one byte, and is not checked further.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::device_properties::id_key;
use crate::{
    certificate::Thumbprint,
    emulator::{
        api_error::ApiError,
        credential::{
            SymmetricKey, check_thumbprint, parse_certificate_with_accepted_key, read_certificate, read_thumbprint,
        },
        fields::{FieldError, Fields},
        random::RandomError,
    },
};

/// The individual attestation of a device.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum DeviceAttestation {
    SymmetricKey(SymmetricKey),
    X509 { primary: Thumbprint, secondary: Option<Thumbprint> },
    Tpm { endorsement_key: String },
}

impl DeviceAttestation {
    /// Returns the type, which is also the name of the section.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::SymmetricKey(_) => "symmetricKey",
            Self::X509 { .. } => "x509",
            Self::Tpm { .. } => "tpm",
        }
    }

    /// Returns the content of the section.
    pub(crate) fn section(&self) -> Value {
        let certificate = |thumbprint: &Thumbprint| json!({ "info": { "sha1Thumbprint": thumbprint.to_string() } });
        match self {
            Self::SymmetricKey(key) => key.show(),
            Self::X509 { primary, secondary } => {
                let mut certificates = json!({ "primary": certificate(primary) });
                if let Some(secondary) = secondary {
                    certificates["secondary"] = certificate(secondary);
                }
                json!({ "clientCertificates": certificates })
            }
            Self::Tpm { endorsement_key } => json!({ "endorsementKey": endorsement_key }),
        }
    }

    pub(crate) fn show(&self) -> Value {
        json!({ "type": self.name(), self.name(): self.section() })
    }

    pub(crate) fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let read = fields.required("type", |fields, name| {
            fields.choice(name, "symmetricKey, x509 or tpm", |text| match text {
                "symmetricKey" => Some(Self::read_symmetric_key as fn(&mut Fields) -> Result<Self, ApiError>),
                "x509" => Some(|fields| Ok(Self::read_x509(fields)?)),
                "tpm" => Some(|fields| Ok(Self::read_tpm(fields)?)),
                _ => None,
            })
        })?;
        let attestation = read(&mut fields)?;
        for other in ["symmetricKey", "x509", "tpm"] {
            if fields.any(other).is_some() {
                let problem = format_args!("not allowed with the type {}", attestation.name());
                return Err(fields.invalid(other, problem).into());
            }
        }
        fields.finish()?;
        Ok(attestation)
    }

    fn read_symmetric_key(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self::SymmetricKey(match SymmetricKey::read(fields)? {
            Some(given) => given,
            None => SymmetricKey::random()?,
        }))
    }

    fn read_x509(fields: &mut Fields) -> Result<Self, FieldError> {
        let mut section = fields.required("x509", Fields::object)?;
        let mut certificates = section.required("clientCertificates", Fields::object)?;
        section.finish()?;
        let primary = read_client_certificate(certificates.required("primary", Fields::object)?)?;
        let secondary = certificates.object("secondary")?.map(read_client_certificate).transpose()?;
        if secondary == Some(primary) {
            return Err(certificates.invalid("secondary", "it is already the primary certificate"));
        }
        certificates.finish()?;
        Ok(Self::X509 { primary, secondary })
    }

    fn read_tpm(fields: &mut Fields) -> Result<Self, FieldError> {
        let mut section = fields.required("tpm", Fields::object)?;
        let endorsement_key = section.required("endorsementKey", Fields::string)?;
        if !BASE64_STANDARD.decode(&endorsement_key).is_ok_and(|key| !key.is_empty()) {
            return Err(section.invalid("endorsementKey", "expected the key in base64"));
        }
        section.finish()?;
        Ok(Self::Tpm { endorsement_key })
    }
}

fn read_client_certificate(mut fields: Fields) -> Result<Thumbprint, FieldError> {
    let given = read_thumbprint(&mut fields)?;
    if let (Some(given), false) = (given, fields.has("certificate")) {
        fields.finish()?;
        return Ok(given);
    }
    let certificate = read_certificate(&mut fields, parse_certificate_with_accepted_key)?;
    check_thumbprint(given, &certificate, &fields)?;
    fields.finish()?;
    Ok(certificate.sha1_thumbprint())
}

/// The keys that those of devices without an individual attestation are derived from. Secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "SymmetricKey", into = "SymmetricKey")]
pub(crate) struct DeviceKeys {
    keys: SymmetricKey,
    primary: hmac::Key,
    secondary: hmac::Key,
}

impl From<SymmetricKey> for DeviceKeys {
    fn from(keys: SymmetricKey) -> Self {
        let mut hmac_keys = keys.keys().map(|key| hmac::Key::new(hmac::HMAC_SHA256, &key));
        let mut next = || hmac_keys.next().unwrap_or_else(|| hmac::Key::new(hmac::HMAC_SHA256, &[]));
        let (primary, secondary) = (next(), next());
        drop(hmac_keys);
        Self { keys, primary, secondary }
    }
}

impl From<DeviceKeys> for SymmetricKey {
    fn from(keys: DeviceKeys) -> Self {
        keys.keys
    }
}

impl DeviceKeys {
    pub(crate) fn random() -> Result<Self, RandomError> {
        SymmetricKey::random().map(Self::from)
    }

    /// Derives the keys of a device.
    pub(crate) fn derive(&self, id: &str) -> SymmetricKey {
        let derive = |key| hmac::sign(key, id_key(id).as_bytes());
        SymmetricKey::new(derive(&self.primary).as_ref(), derive(&self.secondary).as_ref())
    }
}
