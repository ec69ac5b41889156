//! Enrollment groups: which devices can connect, and how they prove their identity.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::{
    client::Client,
    id::{CertificateEntry, EnrollmentGroupId},
};
use crate::{
    certificate::{Certificate, Possession, Thumbprint, ThumbprintError},
    transport::{Call, Error, Etag, Listing, Repeat, Secret, SymmetricKeys, items, json_of, object, pages, setters},
};

const COLLECTION: &str = "enrollmentGroups";

const EMPTY_ENTRY: &str = "there is no certificate in this entry: set one first";

/// The enrollment groups of an application: `/enrollmentGroups` of the API.
///
/// ```no_run
/// use iot_enroll::central::{Client, EnrollmentGroupUpdate, NewEnrollmentGroup};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let groups = client.enrollment_groups();
/// let id = "myx509eg".parse()?;
/// let group = groups.create(&id, &NewEnrollmentGroup::x509("My group")).await?;
/// let update = EnrollmentGroupUpdate::default().display_name("My new group name".to_owned()).etag(group.etag);
/// groups.update(&id, &update).await?;
/// let all: Vec<_> = groups.list().try_collect().await?;
/// # Ok(())
/// # }
/// ```
///
/// Failed calls are retried by the client's [`RetryPolicy`](super::RetryPolicy).
#[derive(Debug, Clone)]
pub struct EnrollmentGroups {
    client: Client,
}

impl Client {
    /// Returns the enrollment groups of the application.
    #[must_use]
    pub fn enrollment_groups(&self) -> EnrollmentGroups {
        EnrollmentGroups { client: self.clone() }
    }
}

impl EnrollmentGroups {
    /// Lists all enrollment groups.
    pub fn list(&self) -> Listing<EnrollmentGroup> {
        items(self.client.rest().clone(), Call::get(&[COLLECTION]), None)
    }

    /// Does the same as [`list`](Self::list), page by page.
    pub fn list_pages(&self) -> Listing<Vec<EnrollmentGroup>> {
        pages(self.client.rest().clone(), Call::get(&[COLLECTION]), None)
    }

    /// Reads an enrollment group.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the enrollment group does not exist.
    pub async fn get(&self, id: &EnrollmentGroupId) -> Result<EnrollmentGroup, Error> {
        self.client.rest().read(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Reads an enrollment group. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find(&self, id: &EnrollmentGroupId) -> Result<Option<EnrollmentGroup>, Error> {
        self.client.rest().find(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Creates an enrollment group. Sends two requests: one to see that it does not exist, and one to create it.
    ///
    /// The API has no conditional create. An enrollment group that another client creates between the two requests is
    /// replaced.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the enrollment group exists, or another [`Error`].
    pub async fn create(&self, id: &EnrollmentGroupId, group: &NewEnrollmentGroup) -> Result<EnrollmentGroup, Error> {
        self.client.create(&Self::put(id, group)).await
    }

    /// Replaces an enrollment group, or creates it if missing. To change an existing enrollment group,
    /// [`update`](Self::update) it. Replacing may remove the group's signing certificates.
    ///
    /// # Errors
    /// [`Error`]. If the new enrollment group has an etag that is not the current one, the status is 412, or the error
    /// is [`Error::OutcomeUnknown`] if an answer was lost before.
    pub async fn replace(&self, id: &EnrollmentGroupId, group: &NewEnrollmentGroup) -> Result<EnrollmentGroup, Error> {
        self.client.rest().read(&Self::put(id, group)).await
    }

    fn put(id: &EnrollmentGroupId, group: &NewEnrollmentGroup) -> Call {
        Call::put(&[COLLECTION, id.as_str()], &group.body()).with_secrets(group.attestation.secrets())
    }

    /// Changes the fields that the update names and keeps the rest (JSON merge patch, RFC 7396).
    ///
    /// # Errors
    /// [`Error`]. If the update has an etag that is not the enrollment group's current one, the status is 412, or the
    /// error is [`Error::OutcomeUnknown`] if an answer was lost before.
    pub async fn update(
        &self,
        id: &EnrollmentGroupId,
        update: &EnrollmentGroupUpdate,
    ) -> Result<EnrollmentGroup, Error> {
        let call = Call::merge_patch(&[COLLECTION, id.as_str()], &update.body());
        self.client.rest().read(&call.with_secrets(update.attestation.iter().flat_map(NewAttestation::secrets))).await
    }

    /// Deletes an enrollment group. Devices can no longer connect through it.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the enrollment group does not exist.
    pub async fn delete(&self, id: &EnrollmentGroupId) -> Result<(), Error> {
        self.client.rest().execute(&Call::delete(&[COLLECTION, id.as_str()])).await
    }

    /// Reads a signing certificate of a group.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the entry is empty or the group does not
    /// exist.
    pub async fn certificate(
        &self,
        id: &EnrollmentGroupId,
        entry: CertificateEntry,
    ) -> Result<SigningCertificate, Error> {
        let call = Call::get(&certificate_path(id, entry));
        let found: SigningCertificate = self.client.rest().read(&call).await?;
        found.present().ok_or_else(|| Error::NotFound { operation: call.operation(), problem: EMPTY_ENTRY })
    }

    /// Reads a signing certificate of a group. Returns `None` if the entry is empty or the group does not exist. An
    /// entry is empty if the service answers 404, or answers without a thumbprint.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find_certificate(
        &self,
        id: &EnrollmentGroupId,
        entry: CertificateEntry,
    ) -> Result<Option<SigningCertificate>, Error> {
        let found: Option<SigningCertificate> =
            self.client.rest().find(&Call::get(&certificate_path(id, entry))).await?;
        Ok(found.and_then(SigningCertificate::present))
    }

    /// Sets the signing certificate of an entry, replacing the present one.
    ///
    /// With [`Possession::Attested`] the service accepts the certificate as verified. Otherwise prove possession of its
    /// key with [`generate_verification_code`](Self::generate_verification_code) and
    /// [`verify_certificate`](Self::verify_certificate). With an etag, the entry is only replaced if it still has that
    /// etag.
    ///
    /// # Errors
    /// [`Error`]. If the etag is not the entry's current one, the status is 412, or the error is
    /// [`Error::OutcomeUnknown`] if an answer was lost before.
    pub async fn set_certificate(
        &self,
        id: &EnrollmentGroupId,
        entry: CertificateEntry,
        certificate: &Certificate,
        possession: Possession,
        etag: Option<&Etag>,
    ) -> Result<SigningCertificate, Error> {
        let mut body =
            json!({ "verified": possession == Possession::Attested, "certificate": certificate.to_base64_pem() });
        if let Some(etag) = etag {
            body["etag"] = json!(etag);
        }
        self.client.rest().read(&Call::put(&certificate_path(id, entry), &body)).await
    }

    /// Removes a signing certificate.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the enrollment group does not exist.
    pub async fn delete_certificate(&self, id: &EnrollmentGroupId, entry: CertificateEntry) -> Result<(), Error> {
        self.client.rest().execute(&Call::delete(&certificate_path(id, entry))).await
    }

    /// Generates a verification code for a signing certificate. It invalidates the previous code, so the call is
    /// retried if its answer is lost.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn generate_verification_code(
        &self,
        id: &EnrollmentGroupId,
        entry: CertificateEntry,
    ) -> Result<VerificationCode, Error> {
        let [collection, group, certificates, entry] = certificate_path(id, entry);
        let call = Call::post_empty(&[collection, group, certificates, entry, "generateVerificationCode"]);
        self.client.rest().read(&call).await
    }

    /// Proves possession of a signing certificate's key. `proof` is a certificate that the key signed and whose common
    /// name is the verification code.
    ///
    /// The call may consume the code, so it is not simply retried: if its answer is lost, the entry is read, and the
    /// proof is sent again only if the entry is not verified.
    ///
    /// # Errors
    /// [`Error`]. If [`answer_was_lost`](Error::answer_was_lost), the entry may be verified all the same.
    pub async fn verify_certificate(
        &self,
        id: &EnrollmentGroupId,
        entry: CertificateEntry,
        proof: &Certificate,
    ) -> Result<(), Error> {
        let [collection, group, certificates, name] = certificate_path(id, entry);
        let body = json!({ "certificate": proof.to_base64_pem() });
        let call = Call::post(&[collection, group, certificates, name, "verify"], &body);
        let mut attempts = self.client.rest().attempts();
        let mut lost = false;
        loop {
            let Err(error) = self.client.rest().execute_within(&call, &mut attempts).await else { return Ok(()) };
            let now_lost = error.answer_was_lost();
            lost |= now_lost;
            if !lost {
                return Err(error);
            }
            let Ok(state) = self.find_certificate(id, entry).await else {
                return Err(error.after(attempts.count(), true));
            };
            if state.is_some_and(|certificate| certificate.verified) {
                return Ok(());
            }
            // A retry that the service refused is final. One whose answer was lost can be retried.
            if !now_lost || !self.client.rest().pause(&mut attempts, &error, Repeat::Safe).await {
                return Err(error);
            }
        }
    }
}

fn certificate_path(id: &EnrollmentGroupId, entry: CertificateEntry) -> [&str; 4] {
    [COLLECTION, id.as_str(), "certificates", entry.as_str()]
}

/// An enrollment group. It serializes to the service's JSON without symmetric keys.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(from = "WireGroup", rename_all = "camelCase")]
#[non_exhaustive]
pub struct EnrollmentGroup {
    /// The ID.
    pub id: EnrollmentGroupId,
    /// The display name.
    pub display_name: String,
    /// Whether devices can connect through it.
    pub enabled: bool,
    /// The type of its devices.
    #[serde(rename = "type")]
    pub device_type: DeviceType,
    /// How devices prove their identity.
    pub attestation: Attestation,
    /// The version of the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<Etag>,
}

/// The type of a group's devices, or of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum DeviceType {
    /// `iot`: devices.
    #[default]
    Iot,
    /// `iotEdge`: gateways that run Azure IoT Edge.
    IotEdge,
    /// A type that this client does not know.
    Other(String),
}

impl DeviceType {
    /// Returns the type as the service writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Iot => "iot",
            Self::IotEdge => "iotEdge",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for DeviceType {
    fn from(text: String) -> Self {
        match text.as_str() {
            "iot" => Self::Iot,
            "iotEdge" => Self::IotEdge,
            _ => Self::Other(text),
        }
    }
}

impl From<DeviceType> for String {
    fn from(device_type: DeviceType) -> Self {
        device_type.as_str().to_owned()
    }
}

impl fmt::Display for DeviceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the devices of a group prove their identity.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Attestation {
    /// With an X.509 certificate whose chain contains one of these certificates.
    X509 {
        /// The primary signing certificate, if one is set and the service includes it.
        primary: Option<SigningCertificate>,
        /// The secondary signing certificate.
        secondary: Option<SigningCertificate>,
    },
    /// With a symmetric key that is derived from one of these.
    SymmetricKey(Option<SymmetricKeys>),
    /// In a way that this client does not know.
    Other(String),
}

impl Attestation {
    /// Returns the kind as the service writes it.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::X509 { .. } => "x509",
            Self::SymmetricKey(_) => "symmetricKey",
            Self::Other(name) => name,
        }
    }
}

/// Omits the symmetric keys, so that printing a group does not reveal them.
impl Serialize for Attestation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = json!({ "type": self.kind() });
        if let Self::X509 { primary, secondary } = self {
            let entries = [("primary", primary), ("secondary", secondary)];
            let certificates = entries.map(|(entry, certificate)| (entry, json_of(certificate.as_ref())));
            value["x509"] = json!({ "signingCertificates": object(certificates) });
        }
        value.serialize(serializer)
    }
}

/// A signing certificate of a group. The service returns its thumbprint and not the certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "WireCertificate", into = "WireCertificate")]
#[non_exhaustive]
pub struct SigningCertificate {
    /// Whether possession of its key was proven or attested. Until then no device can connect through it.
    pub verified: bool,
    /// The SHA-1 thumbprint.
    pub sha1_thumbprint: Option<Thumbprint>,
    /// The version of the entry.
    pub etag: Option<Etag>,
}

impl SigningCertificate {
    /// Returns the certificate, or `None` if this describes an empty entry.
    fn present(self) -> Option<Self> {
        self.sha1_thumbprint.is_some().then_some(self)
    }
}

/// A verification code: the common name that a proof of possession must have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct VerificationCode {
    /// The code.
    #[serde(rename = "verificationCode")]
    pub code: String,
}

impl fmt::Display for VerificationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)
    }
}

/// The fields of an enrollment group to create.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewEnrollmentGroup {
    /// The display name.
    pub display_name: String,
    /// Whether devices can connect through it.
    pub enabled: bool,
    /// The type of its devices.
    pub device_type: DeviceType,
    /// How devices prove their identity.
    pub attestation: NewAttestation,
    /// The version of the enrollment group to replace. The service refuses to replace another version (412).
    pub etag: Option<Etag>,
}

impl NewEnrollmentGroup {
    /// Returns an enabled group for devices with X.509 certificates.
    #[must_use]
    pub fn x509(display_name: impl Into<String>) -> Self {
        Self {
            display_name: display_name.into(),
            enabled: true,
            device_type: DeviceType::Iot,
            attestation: NewAttestation::X509,
            etag: None,
        }
    }

    fn body(&self) -> Value {
        let mut body = json!({
            "displayName": self.display_name,
            "enabled": self.enabled,
            "type": self.device_type,
            "attestation": self.attestation.body(),
        });
        if let Some(etag) = &self.etag {
            body["etag"] = json!(etag);
        }
        body
    }
}

setters!(NewEnrollmentGroup {
    enabled: bool,
    device_type: DeviceType,
    attestation: NewAttestation,
    etag: Option<Etag>,
});

/// How the devices of a new or changed group prove their identity.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NewAttestation {
    /// With X.509 certificates. The signing certificates are set by separate calls.
    X509,
    /// With symmetric keys: these, or keys that the service generates.
    SymmetricKey(Option<SymmetricKeys>),
}

impl NewAttestation {
    fn body(&self) -> Value {
        match self {
            Self::X509 => json!({ "type": "x509" }),
            Self::SymmetricKey(None) => json!({ "type": "symmetricKey" }),
            Self::SymmetricKey(Some(keys)) => json!({
                "type": "symmetricKey",
                "symmetricKey": {
                    "primaryKey": keys.primary_key.expose(),
                    "secondaryKey": keys.secondary_key.expose(),
                },
            }),
        }
    }

    fn secrets(&self) -> Vec<Secret> {
        match self {
            Self::SymmetricKey(Some(keys)) => vec![keys.primary_key.clone(), keys.secondary_key.clone()],
            _ => Vec::new(),
        }
    }
}

/// A change to an enrollment group. Fields that are not set keep their value.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EnrollmentGroupUpdate {
    /// The display name.
    pub display_name: Option<String>,
    /// Whether devices can connect through it.
    pub enabled: Option<bool>,
    /// The type of its devices.
    pub device_type: Option<DeviceType>,
    /// How devices prove their identity.
    pub attestation: Option<NewAttestation>,
    /// The version of the enrollment group to change. The service refuses to change another version (412).
    pub etag: Option<Etag>,
}

setters!(EnrollmentGroupUpdate {
    display_name: Option<String>,
    enabled: Option<bool>,
    device_type: Option<DeviceType>,
    attestation: Option<NewAttestation>,
    etag: Option<Etag>,
});

impl EnrollmentGroupUpdate {
    fn body(&self) -> Value {
        object([
            ("displayName", json_of(self.display_name.as_ref())),
            ("enabled", json_of(self.enabled.as_ref())),
            ("type", json_of(self.device_type.as_ref())),
            ("attestation", self.attestation.as_ref().map(NewAttestation::body)),
            ("etag", json_of(self.etag.as_ref())),
        ])
    }
}

/// The JSON of a group.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireGroup {
    id: EnrollmentGroupId,
    display_name: String,
    enabled: Option<bool>,
    #[serde(rename = "type")]
    device_type: DeviceType,
    attestation: WireAttestation,
    etag: Option<Etag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAttestation {
    #[serde(rename = "type")]
    kind: String,
    symmetric_key: Option<SymmetricKeys>,
    x509: Option<WireX509>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireX509 {
    signing_certificates: Option<WireCertificates>,
}

#[derive(Deserialize, Default)]
struct WireCertificates {
    primary: Option<SigningCertificate>,
    secondary: Option<SigningCertificate>,
}

/// The JSON of a signing certificate.
#[derive(Deserialize, Serialize)]
struct WireCertificate {
    verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<WireInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<Etag>,
}

/// The JSON of what the service returns about a certificate.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireInfo {
    sha1_thumbprint: Option<String>,
}

impl WireInfo {
    pub(super) fn of(thumbprint: Thumbprint) -> Self {
        Self { sha1_thumbprint: Some(thumbprint.to_string()) }
    }

    /// Returns the thumbprint. An empty one counts as none.
    pub(super) fn thumbprint(info: Option<Self>) -> Result<Option<Thumbprint>, ThumbprintError> {
        let text = info.and_then(|info| info.sha1_thumbprint).filter(|text| !text.is_empty());
        text.map(|text| text.parse()).transpose()
    }
}

impl From<WireGroup> for EnrollmentGroup {
    fn from(wire: WireGroup) -> Self {
        let WireAttestation { kind, symmetric_key, x509 } = wire.attestation;
        let certificates = x509.and_then(|x509| x509.signing_certificates).unwrap_or_default();
        Self {
            id: wire.id,
            display_name: wire.display_name,
            // The API's default.
            enabled: wire.enabled.unwrap_or(true),
            device_type: wire.device_type,
            attestation: match kind.as_str() {
                "x509" => Attestation::X509 {
                    primary: certificates.primary.and_then(SigningCertificate::present),
                    secondary: certificates.secondary.and_then(SigningCertificate::present),
                },
                "symmetricKey" => Attestation::SymmetricKey(symmetric_key),
                _ => Attestation::Other(kind),
            },
            etag: wire.etag,
        }
    }
}

impl TryFrom<WireCertificate> for SigningCertificate {
    type Error = ThumbprintError;

    fn try_from(wire: WireCertificate) -> Result<Self, ThumbprintError> {
        Ok(Self {
            verified: wire.verified.unwrap_or_default(),
            sha1_thumbprint: WireInfo::thumbprint(wire.info)?,
            etag: wire.etag,
        })
    }
}

impl From<SigningCertificate> for WireCertificate {
    fn from(certificate: SigningCertificate) -> Self {
        Self {
            verified: Some(certificate.verified),
            info: certificate.sha1_thumbprint.map(WireInfo::of),
            etag: certificate.etag,
        }
    }
}
