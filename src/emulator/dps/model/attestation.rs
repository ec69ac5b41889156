//! The attestation of an enrollment: how its devices prove their identity.
//!
//! # Where the documentation is silent
//! - **Sections**: the body has the section that its type names, and no other (400). `symmetricKey` may be omitted.
//! - **The type `none`** is refused (400): no device could prove its identity. A group cannot have the type `tpm`.
//! - **Symmetric keys** that a body omits are generated, also when it replaces an enrollment that has keys: PUT resets
//!   what it omits.
//! - **A certificate** must be in the body. A body with its `info` only, as GET returns it, is refused (400), since it is
//!   not documented that the service keeps the certificate. An `info` beside a certificate is ignored.
//! - **The same certificate** or name as `primary` and `secondary` is 400.
//! - **The answer of `attestationmechanism`** has the symmetric keys. Certificates are as in GET.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    certificate::{Certificate, Timestamp},
    emulator::{
        api_error::ApiError,
        credential::{self, SymmetricKey, parse_authority, parse_certificate_with_accepted_key},
        dps::registration::CertificateInfo,
        fields::{FieldError, Fields},
    },
};

/// The attestation of an enrollment.
#[derive(Serialize, Deserialize)]
pub(crate) enum Attestation {
    Tpm {
        endorsement_key: String,
        storage_root_key: Option<String>,
    },
    SymmetricKey(SymmetricKey),
    /// The certificates of one device.
    ClientCertificates(#[serde(with = "shared_pair")] Box<Pair<Arc<Certificate>>>),
    /// The certificates of CAs.
    SigningCertificates(#[serde(with = "shared_pair")] Box<Pair<Arc<Certificate>>>),
    /// The names of the instance's CA certificates.
    CaReferences(Pair<String>),
}

/// A primary and an optional secondary value.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pair<T> {
    pub(crate) primary: T,
    pub(crate) secondary: Option<T>,
}

impl<T> Pair<T> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        [Some(&self.primary), self.secondary.as_ref()].into_iter().flatten()
    }

    fn map<'a, U>(&'a self, map: impl Fn(&'a T) -> U) -> Pair<U> {
        Pair { primary: map(&self.primary), secondary: self.secondary.as_ref().map(map) }
    }

    /// Removes a pair from an X.509 section.
    fn read(
        fields: &mut Fields,
        name: &str,
        read: impl Fn(&mut Fields, &str) -> Result<Option<T>, FieldError>,
        is_same: impl Fn(&T, &T) -> bool,
    ) -> Result<Self, FieldError> {
        let mut fields = fields.required(name, Fields::object)?.without_nulls();
        let primary = fields.required("primary", &read)?;
        let secondary = read(&mut fields, "secondary")?;
        if secondary.as_ref().is_some_and(|secondary| is_same(secondary, &primary)) {
            return Err(fields.invalid("secondary", "it is already the primary one"));
        }
        fields.finish()?;
        Ok(Self { primary, secondary })
    }

    fn show(&self, show: impl Fn(&T) -> Value) -> Value {
        let mut shown = json!({ "primary": show(&self.primary) });
        if let Some(secondary) = &self.secondary {
            shown["secondary"] = show(secondary);
        }
        shown
    }
}

impl Attestation {
    /// Reads the attestation of an individual enrollment or a group.
    pub(crate) fn read(fields: Fields, is_for_group: bool, now: Timestamp) -> Result<Self, ApiError> {
        let mut fields = fields.without_nulls();
        let kind = fields.required("type", Fields::string)?;
        let attestation = match kind.as_str() {
            "tpm" if !is_for_group => Self::read_tpm(&mut fields)?,
            "symmetricKey" => Self::SymmetricKey(SymmetricKey::read_or_generate(&mut fields)?),
            "x509" => {
                let section = fields.required("x509", Fields::object)?.without_nulls();
                Self::read_x509(section, is_for_group, now)?
            }
            _ => {
                let expected = if is_for_group { "x509 or symmetricKey" } else { "x509, symmetricKey or tpm" };
                return Err(fields.invalid("type", format_args!("expected {expected}, found {kind:?}")).into());
            }
        };
        fields.finish()?;
        Ok(attestation)
    }

    fn read_tpm(fields: &mut Fields) -> Result<Self, FieldError> {
        let mut section = fields.required("tpm", Fields::object)?.without_nulls();
        let endorsement_key = section.required("endorsementKey", Fields::string)?;
        if !BASE64_STANDARD.decode(&endorsement_key).is_ok_and(|key| !key.is_empty()) {
            return Err(section.invalid("endorsementKey", "expected the key in base64"));
        }
        let storage_root_key = section.string("storageRootKey")?;
        section.finish()?;
        Ok(Self::Tpm { endorsement_key, storage_root_key })
    }

    fn read_x509(mut section: Fields, is_for_group: bool, now: Timestamp) -> Result<Self, FieldError> {
        let attestation = if is_for_group && section.has("caReferences") {
            let is_same = |one: &String, other: &String| one.eq_ignore_ascii_case(other);
            Self::CaReferences(Pair::read(&mut section, "caReferences", Fields::string, is_same)?)
        } else if is_for_group {
            let read = |fields: &mut Fields, name: &str| read_certificate(fields, name, Some(now));
            Self::SigningCertificates(Box::new(Pair::read(&mut section, "signingCertificates", read, PartialEq::eq)?))
        } else {
            let read = |fields: &mut Fields, name: &str| read_certificate(fields, name, None);
            Self::ClientCertificates(Box::new(Pair::read(&mut section, "clientCertificates", read, PartialEq::eq)?))
        };
        section.finish()?;
        Ok(attestation)
    }

    /// Returns the certificates in the attestation itself.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        let pair = match self {
            Self::ClientCertificates(pair) | Self::SigningCertificates(pair) => Some(pair.as_ref()),
            _ => None,
        };
        pair.into_iter().flat_map(Pair::iter)
    }

    /// Returns the names of the CA certificates that the attestation refers to.
    pub(crate) fn references(&self) -> impl Iterator<Item = &String> {
        let pair = match self {
            Self::CaReferences(pair) => Some(pair),
            _ => None,
        };
        pair.into_iter().flat_map(Pair::iter)
    }

    /// Returns the JSON of GET, which has no keys.
    pub(crate) fn show(&self) -> Value {
        match self {
            Self::Tpm { endorsement_key, .. } => {
                json!({ "type": "tpm", "tpm": { "endorsementKey": endorsement_key } })
            }
            Self::SymmetricKey(_) => json!({ "type": "symmetricKey" }),
            Self::ClientCertificates(pair) => {
                show_x509("clientCertificates", &pair.show(|found| show_certificate(found)))
            }
            Self::SigningCertificates(pair) => {
                show_x509("signingCertificates", &pair.show(|found| show_certificate(found)))
            }
            Self::CaReferences(pair) => show_x509("caReferences", &pair.show(|name| json!(name))),
        }
    }

    /// Returns the JSON of `attestationmechanism`, which has the keys.
    pub(crate) fn show_with_keys(&self) -> Value {
        let mut shown = self.show();
        match self {
            Self::SymmetricKey(key) => shown["symmetricKey"] = key.show(),
            Self::Tpm { storage_root_key: Some(key), .. } => shown["tpm"]["storageRootKey"] = json!(key),
            _ => {}
        }
        shown
    }
}

fn show_x509(name: &str, pair: &Value) -> Value {
    json!({ "type": "x509", "x509": { name: pair } })
}

fn show_certificate(certificate: &Certificate) -> Value {
    json!({ "info": CertificateInfo::new(certificate).show() })
}

/// Removes a certificate: PEM, or base64 of DER or PEM. With a time it must be that of a CA.
fn read_certificate(
    fields: &mut Fields,
    name: &str,
    ca_at: Option<Timestamp>,
) -> Result<Option<Arc<Certificate>>, FieldError> {
    let Some(fields) = fields.object(name)? else { return Ok(None) };
    let mut fields = fields.without_nulls();
    let certificate = credential::read_certificate(&mut fields, |text| match ca_at {
        Some(now) => parse_authority(text, now),
        None => parse_certificate_with_accepted_key(text),
    })?;
    fields.any("info");
    fields.finish()?;
    Ok(Some(certificate.into()))
}

/// A pair of shared certificates by their content, for serde.
mod shared_pair {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Certificate, Pair};

    pub(super) fn serialize<S: Serializer>(pair: &Pair<Arc<Certificate>>, serializer: S) -> Result<S::Ok, S::Error> {
        pair.map(Arc::as_ref).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Box<Pair<Arc<Certificate>>>, D::Error> {
        let pair = Pair::<Certificate>::deserialize(deserializer)?;
        Ok(Box::new(Pair { primary: pair.primary.into(), secondary: pair.secondary.map(Into::into) }))
    }
}
