//! How devices prove their identity: with certificates, symmetric keys or a TPM.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{super::DpsCertificateName, record::shown_time};
use crate::{
    certificate::{Certificate, Thumbprint, Timestamp},
    transport::{Change, Secret, SymmetricKeys},
};

/// How the devices of an enrollment prove their identity, as the service returns it.
///
/// It serializes to the service's JSON without symmetric keys.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Attestation {
    /// With an X.509 certificate whose chain contains one of these CA certificates of the instance. Groups only.
    CaReferences(CaReferences),
    /// With an X.509 certificate whose chain contains one of these certificates. Groups only.
    SigningCertificates(EnrolledCertificates),
    /// With one of these X.509 certificates. Individual enrollments only.
    ClientCertificates(EnrolledCertificates),
    /// With a symmetric key: one of these, or derived from one of these if the enrollment is a group. Only
    /// [`attestation`](super::EnrollmentGroups::attestation) returns the keys.
    SymmetricKey(Option<SymmetricKeys>),
    /// With a TPM that has this endorsement key, in base64. Individual enrollments only.
    Tpm {
        /// The endorsement key, which is public.
        endorsement_key: Option<String>,
    },
    /// In a way that this client does not know.
    Other(String),
}

impl Attestation {
    /// Returns the kind as the service writes it.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::CaReferences(_) | Self::SigningCertificates(_) | Self::ClientCertificates(_) => "x509",
            Self::SymmetricKey(_) => "symmetricKey",
            Self::Tpm { .. } => "tpm",
            Self::Other(name) => name,
        }
    }

    /// Returns the names of the CA certificates, if it has any.
    #[must_use]
    pub fn ca_references(&self) -> Option<&CaReferences> {
        if let Self::CaReferences(names) = self { Some(names) } else { None }
    }

    /// Returns the symmetric keys, if they are known.
    #[must_use]
    pub fn symmetric_keys(&self) -> Option<&SymmetricKeys> {
        if let Self::SymmetricKey(keys) = self { keys.as_ref() } else { None }
    }
}

/// Omits the symmetric keys, so that printing an enrollment does not reveal them.
impl Serialize for Attestation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = json!({ "type": self.kind() });
        match self {
            Self::CaReferences(names) => value["x509"] = json!({ "caReferences": names }),
            Self::SigningCertificates(found) => value["x509"] = json!({ "signingCertificates": found }),
            Self::ClientCertificates(found) => value["x509"] = json!({ "clientCertificates": found }),
            Self::Tpm { endorsement_key } => value["tpm"] = json!({ "endorsementKey": endorsement_key }),
            Self::SymmetricKey(_) | Self::Other(_) => {}
        }
        value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Attestation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            #[serde(rename = "type")]
            kind: String,
            x509: Option<WireX509>,
            symmetric_key: Option<WireKeys>,
            tpm: Option<WireTpm>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct WireX509 {
            ca_references: Option<CaReferences>,
            signing_certificates: Option<EnrolledCertificates>,
            client_certificates: Option<EnrolledCertificates>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct WireKeys {
            primary_key: Option<Secret>,
            secondary_key: Option<Secret>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct WireTpm {
            endorsement_key: Option<String>,
        }
        let Wire { kind, x509, symmetric_key, tpm } = Wire::deserialize(deserializer)?;
        Ok(match (kind.as_str(), x509) {
            ("x509", Some(WireX509 { ca_references: Some(names), .. })) => Self::CaReferences(names),
            ("x509", Some(WireX509 { signing_certificates: Some(found), .. })) => Self::SigningCertificates(found),
            ("x509", Some(WireX509 { client_certificates: Some(found), .. })) => Self::ClientCertificates(found),
            ("symmetricKey", _) => Self::SymmetricKey(symmetric_key.and_then(|keys| {
                let present = |key: Option<Secret>| key.filter(|key| !key.expose().is_empty());
                let (primary_key, secondary_key) = (present(keys.primary_key)?, present(keys.secondary_key)?);
                Some(SymmetricKeys { primary_key, secondary_key })
            })),
            ("tpm", _) => Self::Tpm { endorsement_key: tpm.and_then(|tpm| tpm.endorsement_key) },
            _ => Self::Other(kind),
        })
    }
}

/// The names of the CA certificates that an enrollment group admits devices by. The certificates belong to the instance:
/// see [`arm`](crate::arm).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
pub struct CaReferences {
    /// The primary one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<DpsCertificateName>,
    /// The secondary one. With two, a CA can be replaced without downtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secondary: Option<DpsCertificateName>,
}

impl CaReferences {
    /// Returns a reference to one certificate, as the primary one.
    #[must_use]
    pub fn primary(name: DpsCertificateName) -> Self {
        Self { primary: Some(name), secondary: None }
    }

    /// Returns the names in use.
    pub fn names(&self) -> impl Iterator<Item = &DpsCertificateName> {
        self.primary.iter().chain(&self.secondary)
    }
}

/// Describes the certificates of an enrollment. The service does not return the certificates themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EnrolledCertificates {
    /// The primary one.
    pub primary: Option<CertificateInfo>,
    /// The secondary one.
    pub secondary: Option<CertificateInfo>,
}

impl<'de> Deserialize<'de> for EnrolledCertificates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            primary: Option<WireCertificate>,
            secondary: Option<WireCertificate>,
        }
        #[derive(Deserialize)]
        struct WireCertificate {
            #[serde(default)]
            info: CertificateInfo,
        }
        let Wire { primary, secondary } = Wire::deserialize(deserializer)?;
        Ok(Self { primary: primary.map(|it| it.info), secondary: secondary.map(|it| it.info) })
    }
}

impl Serialize for EnrolledCertificates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = [("primary", &self.primary), ("secondary", &self.secondary)];
        let present = entries.into_iter().filter_map(|(name, info)| Some((name, json!({ "info": info.as_ref()? }))));
        serializer.collect_map(present)
    }
}

/// Describes a certificate of an enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// The subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_name: Option<String>,
    /// The SHA-1 thumbprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha1_thumbprint: Option<Thumbprint>,
    /// The SHA-256 thumbprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256_thumbprint: Option<Thumbprint>,
    /// The issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_name: Option<String>,
    /// The first moment of its validity.
    #[serde(rename = "notBeforeUtc", deserialize_with = "shown_time", skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The last moment of its validity.
    #[serde(rename = "notAfterUtc", deserialize_with = "shown_time", skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// The serial number in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// The X.509 version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

impl CertificateInfo {
    /// Returns whether the certificate names itself as its issuer, as a root does.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject_name.is_some() && self.subject_name == self.issuer_name
    }
}

/// How the devices of a new or changed enrollment prove their identity.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NewAttestation {
    /// With an X.509 certificate whose chain contains one of these CA certificates of the instance. Groups only.
    CaReferences(CaReferences),
    /// With an X.509 certificate whose chain contains one of these certificates. Groups only. Updates of such a group need
    /// the certificates again, because the service does not return them.
    SigningCertificates(NewCertificates),
    /// With one of these X.509 certificates. Individual enrollments only. Updates of such an enrollment need the
    /// certificates again, because the service does not return them.
    ClientCertificates(NewCertificates),
    /// With a symmetric key: these, or keys that the service generates.
    SymmetricKey(Option<SymmetricKeys>),
    /// With a TPM. Individual enrollments only.
    Tpm {
        /// The endorsement key in base64, which is public.
        endorsement_key: String,
    },
}

impl From<CaReferences> for NewAttestation {
    fn from(names: CaReferences) -> Self {
        Self::CaReferences(names)
    }
}

/// The certificates of a new or changed enrollment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewCertificates {
    /// The primary one.
    pub primary: Certificate,
    /// The secondary one. With [`Change::Keep`], a new enrollment has none, and an update fails if the enrollment has one,
    /// because the service does not return it.
    pub secondary: Change<Certificate>,
}

impl NewCertificates {
    /// Returns one certificate, as the primary one.
    #[must_use]
    pub fn new(primary: Certificate) -> Self {
        Self { primary, secondary: Change::Keep }
    }

    /// Sets or removes the secondary certificate.
    #[must_use]
    pub fn secondary(mut self, certificate: impl Into<Change<Certificate>>) -> Self {
        self.secondary = certificate.into();
        self
    }

    fn body(&self) -> Value {
        let entry = |certificate: &Certificate| json!({ "certificate": BASE64_STANDARD.encode(certificate.der()) });
        let mut body = json!({ "primary": entry(&self.primary) });
        if let Change::Set(secondary) = &self.secondary {
            body["secondary"] = entry(secondary);
        }
        body
    }
}

/// The members of an attestation that its kind decides.
const KINDS: [&str; 3] = ["x509", "symmetricKey", "tpm"];

/// The members of `x509`, of which an attestation has one.
const X509_KINDS: [&str; 3] = ["caReferences", "signingCertificates", "clientCertificates"];

impl NewAttestation {
    /// Replaces the attestation in a record. Keeps members that this client does not know.
    pub(super) fn apply(&self, attestation: &mut Map<String, Value>) {
        let (kind, content) = match self {
            Self::CaReferences(names) => ("x509", Some(("caReferences", json!(names)))),
            Self::SigningCertificates(certificates) => ("x509", Some(("signingCertificates", certificates.body()))),
            Self::ClientCertificates(certificates) => ("x509", Some(("clientCertificates", certificates.body()))),
            Self::SymmetricKey(_) => ("symmetricKey", None),
            Self::Tpm { .. } => ("tpm", None),
        };
        let x509 = attestation.remove("x509");
        for member in KINDS {
            attestation.remove(member);
        }
        attestation.insert("type".to_owned(), kind.into());
        match self {
            Self::SymmetricKey(Some(SymmetricKeys { primary_key, secondary_key })) => {
                let keys = json!({ "primaryKey": primary_key.expose(), "secondaryKey": secondary_key.expose() });
                attestation.insert(kind.to_owned(), keys);
            }
            Self::Tpm { endorsement_key } => {
                attestation.insert(kind.to_owned(), json!({ "endorsementKey": endorsement_key }));
            }
            _ => {}
        }
        if let Some((member, content)) = content {
            let mut x509 = match x509 {
                Some(Value::Object(x509)) => x509,
                _ => Map::new(),
            };
            x509.retain(|name, _| !X509_KINDS.contains(&name.as_str()));
            x509.insert(member.to_owned(), content);
            attestation.insert(kind.to_owned(), x509.into());
        }
    }

    /// Returns what this would remove from an attestation without naming it, if there is any.
    pub(super) fn omitted_member(&self, attestation: &Value) -> Option<String> {
        let (kind, certificates) = match self {
            Self::SigningCertificates(certificates) => ("signingCertificates", certificates),
            Self::ClientCertificates(certificates) => ("clientCertificates", certificates),
            _ => return None,
        };
        let found = attestation.pointer(&format!("/x509/{kind}/secondary")).and_then(Value::as_object);
        let is_removed = matches!(certificates.secondary, Change::Keep) && found.is_some_and(|found| !found.is_empty());
        is_removed.then(|| format!("the certificate in {kind}.secondary"))
    }

    /// Returns the texts that no message may repeat.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        match self {
            Self::SymmetricKey(Some(keys)) => vec![keys.primary_key.clone(), keys.secondary_key.clone()],
            _ => Vec::new(),
        }
    }
}
