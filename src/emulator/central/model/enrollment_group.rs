//! Enrollment groups and their signing certificates.
//!
//! # Where the documentation is silent
//! - **Replacing a group** (PUT on an existing one) sets the display name, `enabled` and the device type. The
//!   attestation stays: the signing certificates, which have operations of their own, and the symmetric keys unless the
//!   body has others. A sequence that starts with the group is therefore idempotent.
//! - **The attestation type** of a group cannot change, neither by PUT nor by PATCH (422), since no device under it
//!   could connect afterwards. Delete the group instead.
//! - **`signingCertificates` in the body of a group** may only repeat the current ones, so that the response of GET can
//!   be sent back. Other content is 422, with the operation to use.
//! - **`id` in a body** may only repeat that of the path (422).
//! - **Etags**: the group and each certificate have separate etags, which guard their own PUT and PATCH. A change of a
//!   certificate does not change the etag of the group. Every successful PUT and PATCH creates a new etag, even without
//!   a difference, and so does a successful `verify`.
//! - **Symmetric keys** in a body have 16 to 64 bytes, as at the Device Provisioning Service; generated keys have 64.
//! - **Two groups with the same pair of symmetric keys** are a conflict (409): a device's signature would fit both.
//! - **`If-Match`** is honored by GET, PUT, PATCH and DELETE of a group, and by GET, PUT and DELETE of a certificate.
//! - **Setting a certificate** (PUT) replaces the entry, even with the same certificate: `verified` is that of the
//!   body, `false` by default, and the verification code is invalidated. The field `certificate` is required; `info`
//!   may only repeat its thumbprint.
//! - **Several certificates** in one field are 422, since the intended one would be a guess.
//! - **The same certificate in both entries** is 422, since the second could not replace the first when it expires.
//! - **A group with symmetric keys** has no certificates: setting one is 422, other operations on an entry are 404.
//! - **`verify`** without a current code, or with an invalid proof, is 422. A verified certificate can be verified
//!   again with a new code. A failed attempt keeps the code valid; a successful one uses it up.
//! - **An entry** other than `primary` and `secondary`, and an invalid ID, are 400.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    document::Document,
    resource::{Resource, consists_of, read_id},
};
use crate::{
    certificate::{Certificate, Timestamp, chain},
    emulator::{
        api_error::ApiError,
        credential::{
            SymmetricKey, check_thumbprint, parse_authority, parse_certificate, read_certificate, read_thumbprint,
        },
        etag::Etag,
        fields::{FieldError, Fields},
        precondition::{IfMatch, check_etag},
        random::{self, RandomError},
        shared,
    },
};

/// The size of a verification code in bytes. Its hexadecimal digits must fit into a common name, which has at most 64
/// characters.
const CODE_BYTES: usize = 24;

/// An enrollment group.
#[derive(Serialize, Deserialize)]
pub(crate) struct EnrollmentGroup {
    display_name: String,
    enabled: bool,
    device_type: DeviceType,
    attestation: Attestation,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum DeviceType {
    Iot,
    IotEdge,
}

/// The way in which the devices of a group prove their identity.
#[derive(Clone, Serialize, Deserialize)]
enum Attestation {
    X509(Box<SigningCertificates>),
    SymmetricKey(SymmetricKey),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AttestationType {
    X509,
    SymmetricKey,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct SigningCertificates {
    primary: Option<SigningCertificate>,
    secondary: Option<SigningCertificate>,
}

/// A certificate that the chains of the group's devices must lead to.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SigningCertificate {
    /// Shared with the registrations of devices.
    #[serde(with = "shared")]
    certificate: Arc<Certificate>,
    verified: bool,
    /// The current verification code.
    code: Option<String>,
    pub(crate) etag: Etag,
}

/// One of the two certificates of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Primary,
    Secondary,
}

impl Entry {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Primary, Self::Secondary].into_iter().find(|entry| entry.name() == text)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

/// IDs follow the pattern `^[a-zA-Z0-9-]+$` of the API description.
impl Resource for EnrollmentGroup {
    const NAME: &'static str = "enrollment group";
    const ID_RULE: &'static str = "1 to 255 letters, digits and hyphens";

    fn is_id(text: &str) -> bool {
        consists_of(text, 255, |byte| byte.is_ascii_alphanumeric() || byte == b'-')
    }
}

impl Document for EnrollmentGroup {
    const COLLECTION: &'static str = "enrollmentGroups";
    const NULLABLE: Option<&'static [&'static str]> = None;

    type Body = GroupBody;

    fn read(fields: &mut Fields, id: &str) -> Result<GroupBody, ApiError> {
        read_id::<Self>(fields, id)?;
        Ok(GroupBody {
            display_name: fields.required("displayName", Fields::string)?,
            enabled: fields.boolean("enabled")?.unwrap_or(true),
            device_type: fields.required("type", DeviceType::read)?,
            attestation: AttestationBody::read(fields.required("attestation", Fields::object)?)?,
        })
    }

    fn from_body(body: GroupBody, current: Option<&Self>) -> Result<Self, ApiError> {
        Ok(Self {
            display_name: body.display_name,
            enabled: body.enabled,
            device_type: body.device_type,
            attestation: body.attestation.into_attestation(current.map(|group| &group.attestation))?,
        })
    }

    /// Refuses to remove keys and certificates: PUT keeps what its body omits, but a patch removes it intentionally.
    fn check_patch(before: &Value, after: &Value) -> Result<(), ApiError> {
        let (before, after) = (&before["attestation"], &after["attestation"]);
        if before["x509"] != after["x509"] || before["symmetricKey"].is_null() != after["symmetricKey"].is_null() {
            let problem = "a patch cannot remove keys or certificates; use DELETE on certificates/{entry}";
            return Err(FieldError::new("attestation", problem).into());
        }
        Ok(())
    }

    fn show(&self, id: &str, etag: &Etag) -> Value {
        json!({
            "id": id,
            "displayName": self.display_name,
            "enabled": self.enabled,
            "type": match self.device_type {
                DeviceType::Iot => "iot",
                DeviceType::IotEdge => "iotEdge",
            },
            "attestation": self.attestation.show(),
            "etag": etag.encoded(),
        })
    }
}

impl EnrollmentGroup {
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn is_for_iot_edge(&self) -> bool {
        matches!(self.device_type, DeviceType::IotEdge)
    }

    /// Returns the certificates that admit devices: those that are verified.
    pub(crate) fn verified_certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        let certificates = match &self.attestation {
            Attestation::X509(certificates) => [&certificates.primary, &certificates.secondary].map(Option::as_ref),
            Attestation::SymmetricKey(_) => [None, None],
        };
        certificates.into_iter().flatten().filter(|entry| entry.verified).map(|entry| &entry.certificate)
    }

    /// Returns the keys that those of the group's devices are derived from.
    pub(crate) fn symmetric_key(&self) -> Option<&SymmetricKey> {
        match &self.attestation {
            Attestation::SymmetricKey(key) => Some(key),
            Attestation::X509(_) => None,
        }
    }

    /// Returns the certificate in an entry.
    pub(crate) fn certificate(&mut self, entry: Entry) -> Option<&mut SigningCertificate> {
        self.slot(entry)?.as_mut()
    }

    /// Removes the certificate in an entry.
    pub(crate) fn remove_certificate(&mut self, entry: Entry) {
        if let Some(slot) = self.slot(entry) {
            *slot = None;
        }
    }

    /// Sets the certificate in an entry of the group with this ID. The group's other entry must have another
    /// certificate.
    pub(crate) fn set_certificate(
        &mut self,
        id: &str,
        entry: Entry,
        body: CertificateBody,
        if_match: &IfMatch,
    ) -> Result<&SigningCertificate, ApiError> {
        let Attestation::X509(certificates) = &mut self.attestation else {
            return Err(ApiError::invalid_body(format!(
                "the enrollment group {id:?} attests devices by symmetric keys and has no certificates"
            )));
        };
        let (this, other) = match entry {
            Entry::Primary => (&mut certificates.primary, &certificates.secondary),
            Entry::Secondary => (&mut certificates.secondary, &certificates.primary),
        };
        let current = this.as_ref().map(|certificate| &certificate.etag);
        if_match.check(current)?;
        check_etag(body.etag.as_deref(), current)?;
        if other.as_ref().is_some_and(|other| *other.certificate == body.certificate) {
            return Err(FieldError::new("certificate", "it is already in the group's other entry").into());
        }
        Ok(this.insert(SigningCertificate {
            certificate: body.certificate.into(),
            verified: body.verified,
            code: None,
            etag: Etag::new()?,
        }))
    }

    fn slot(&mut self, entry: Entry) -> Option<&mut Option<SigningCertificate>> {
        match (&mut self.attestation, entry) {
            (Attestation::X509(certificates), Entry::Primary) => Some(&mut certificates.primary),
            (Attestation::X509(certificates), Entry::Secondary) => Some(&mut certificates.secondary),
            (Attestation::SymmetricKey(_), _) => None,
        }
    }
}

impl Attestation {
    fn show(&self) -> Value {
        match self {
            Self::X509(certificates) => {
                json!({ "type": "x509", "x509": { "signingCertificates": certificates.show() } })
            }
            Self::SymmetricKey(key) => json!({ "type": "symmetricKey", "symmetricKey": key.show() }),
        }
    }
}

impl SigningCertificates {
    fn show(&self) -> Value {
        let entries = [(Entry::Primary, &self.primary), (Entry::Secondary, &self.secondary)];
        let set =
            entries.into_iter().filter_map(|(entry, certificate)| Some((entry.name(), certificate.as_ref()?.show())));
        set.collect()
    }
}

impl SigningCertificate {
    /// Generates a verification code, which invalidates the previous one.
    pub(crate) fn generate_code(&mut self) -> Result<&str, RandomError> {
        Ok(self.code.insert(random::hexadecimal::<CODE_BYTES>()?))
    }

    /// Checks a proof of possession and marks the certificate as verified.
    pub(crate) fn verify(&mut self, proof: &Certificate, now: Timestamp) -> Result<(), ApiError> {
        let code = self.code.as_deref().ok_or_else(|| {
            ApiError::invalid_body("there is no current verification code; create one with generateVerificationCode")
        })?;
        chain::verify_possession(proof, &self.certificate, code, now).map_err(|error| {
            FieldError::new("certificate", format_args!("not a valid proof of possession: {error}"))
        })?;
        self.etag = Etag::new()?;
        self.verified = true;
        self.code = None;
        Ok(())
    }

    /// Returns the JSON, which never contains the certificate itself.
    pub(crate) fn show(&self) -> Value {
        json!({
            "verified": self.verified,
            "info": { "sha1Thumbprint": self.certificate.sha1_thumbprint().to_string() },
            "etag": self.etag.encoded(),
        })
    }
}

/// The body of a PUT of a group, or the result of a patch.
pub(crate) struct GroupBody {
    display_name: String,
    enabled: bool,
    device_type: DeviceType,
    attestation: AttestationBody,
}

struct AttestationBody {
    attestation_type: AttestationType,
    symmetric_key: Option<SymmetricKey>,
    /// The JSON of the certificates.
    certificates: [(Entry, Option<Value>); 2],
}

/// The body of a PUT of a certificate.
pub(crate) struct CertificateBody {
    certificate: Certificate,
    verified: bool,
    etag: Option<String>,
}

impl DeviceType {
    fn read(fields: &mut Fields, name: &str) -> Result<Option<Self>, FieldError> {
        fields.choice(name, "iot or iotEdge", |text| match text {
            "iot" => Some(Self::Iot),
            "iotEdge" => Some(Self::IotEdge),
            _ => None,
        })
    }
}

impl AttestationType {
    fn read(fields: &mut Fields, name: &str) -> Result<Option<Self>, FieldError> {
        fields.choice(name, "symmetricKey or x509", |text| match text {
            "symmetricKey" => Some(Self::SymmetricKey),
            "x509" => Some(Self::X509),
            _ => None,
        })
    }
}

impl AttestationBody {
    fn read(mut fields: Fields) -> Result<Self, FieldError> {
        let attestation_type = fields.required("type", AttestationType::read)?;
        let symmetric_key = SymmetricKey::read(&mut fields)?;
        let x509 = fields.object("x509")?;
        match attestation_type {
            AttestationType::X509 if symmetric_key.is_some() => {
                return Err(fields.invalid("symmetricKey", "not allowed with the type x509"));
            }
            AttestationType::SymmetricKey if x509.is_some() => {
                return Err(fields.invalid("x509", "not allowed with the type symmetricKey"));
            }
            _ => {}
        }
        fields.finish()?;
        let mut certificates = [(Entry::Primary, None), (Entry::Secondary, None)];
        if let Some(mut x509) = x509 {
            if let Some(mut given) = x509.object("signingCertificates")? {
                for (entry, certificate) in &mut certificates {
                    *certificate = given.any(entry.name());
                }
                given.finish()?;
            }
            x509.finish()?;
        }
        Ok(Self { attestation_type, symmetric_key, certificates })
    }

    /// Creates the attestation that replaces the current one.
    fn into_attestation(self, current: Option<&Attestation>) -> Result<Attestation, ApiError> {
        let attestation = match (self.attestation_type, self.symmetric_key, current) {
            (AttestationType::X509, _, None) => Attestation::X509(Box::default()),
            (AttestationType::X509, _, Some(Attestation::X509(kept))) => Attestation::X509(kept.clone()),
            (AttestationType::SymmetricKey, Some(key), None | Some(Attestation::SymmetricKey(_))) => {
                Attestation::SymmetricKey(key)
            }
            (AttestationType::SymmetricKey, None, Some(Attestation::SymmetricKey(kept))) => {
                Attestation::SymmetricKey(kept.clone())
            }
            (AttestationType::SymmetricKey, None, None) => Attestation::SymmetricKey(SymmetricKey::random()?),
            _ => {
                let problem = "it cannot change; delete the enrollment group and create it again";
                return Err(FieldError::new("attestation.type", problem).into());
            }
        };
        let shown = attestation.show();
        for (entry, given) in self.certificates {
            let entry = entry.name();
            if given.is_some_and(|given| shown["x509"]["signingCertificates"].get(entry) != Some(&given)) {
                let path = format!("attestation.x509.signingCertificates.{entry}");
                let problem =
                    format_args!("it may only repeat the current one; set it with PUT on certificates/{entry}");
                return Err(FieldError::new(&path, problem).into());
            }
        }
        Ok(attestation)
    }
}

impl CertificateBody {
    pub(crate) fn read(mut fields: Fields, now: Timestamp) -> Result<Self, FieldError> {
        let certificate = read_certificate(&mut fields, |text| parse_authority(text, now))?;
        check_thumbprint(read_thumbprint(&mut fields)?, &certificate, &fields)?;
        let verified = fields.boolean("verified")?.unwrap_or(false);
        let etag = fields.string("etag")?;
        fields.finish()?;
        Ok(Self { certificate, verified, etag })
    }
}

/// Reads the body of `verify`, which is the proof of possession.
pub(crate) fn read_proof(mut fields: Fields) -> Result<Certificate, FieldError> {
    let proof = read_certificate(&mut fields, parse_certificate)?;
    fields.finish()?;
    Ok(proof)
}
