//! Enrollment groups: which devices may connect, and by what proof.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::{
    change::{json_of, object},
    client::Client,
    id::{CertificateEntry, EnrollmentGroupId, Etag},
};
use crate::{
    certificate::{Certificate, Thumbprint, ThumbprintError},
    transport::{Call, Error, Listing, Repeat, items, pages},
};

const COLLECTION: &str = "enrollmentGroups";

/// The enrollment groups of an application: `/enrollmentGroups` of the API.
///
/// ```no_run
/// use futures_util::TryStreamExt;
/// use iot_enroll::central::{Client, EnrollmentGroupUpdate, NewEnrollmentGroup};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let groups = client.enrollment_groups();
/// let id = "myx509eg".parse()?;
/// let group = groups.create(&id, &NewEnrollmentGroup::x509("My group")).await?;
/// groups
///     .update(
///         &id,
///         &EnrollmentGroupUpdate {
///             display_name: Some("My new group name".to_owned()),
///             etag: group.etag,
///             ..Default::default()
///         },
///     )
///     .await?;
/// let all: Vec<_> = groups.list().try_collect().await?;
/// # Ok(())
/// # }
/// ```
///
/// Every call fails with [`Error`], which names the call; what may be tried again has been
/// ([`RetryPolicy`](super::RetryPolicy)).
#[derive(Debug, Clone)]
pub struct EnrollmentGroups {
    client: Client,
}

impl Client {
    /// The enrollment groups of the application.
    #[must_use]
    pub fn enrollment_groups(&self) -> EnrollmentGroups {
        EnrollmentGroups { client: self.clone() }
    }
}

impl EnrollmentGroups {
    /// Every enrollment group.
    #[must_use]
    pub fn list(&self) -> Listing<EnrollmentGroup> {
        items(self.client.rest().clone(), Call::get(&[COLLECTION]), None)
    }

    /// As [`list`](Self::list), whole pages at a time.
    #[must_use]
    pub fn list_pages(&self) -> Listing<Vec<EnrollmentGroup>> {
        pages(self.client.rest().clone(), Call::get(&[COLLECTION]), None)
    }

    /// One enrollment group.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where there is none by this id.
    pub async fn get(&self, id: &EnrollmentGroupId) -> Result<EnrollmentGroup, Error> {
        self.client.rest().read(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// One enrollment group, or nothing where there is none by this id.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find(&self, id: &EnrollmentGroupId) -> Result<Option<EnrollmentGroup>, Error> {
        self.client.rest().find(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Creates an enrollment group, or **replaces** the one that has this id: the service's PUT does either. To leave an
    /// existing group alone, [`find`](Self::find) first; to change one, [`update`](Self::update) it.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn create(&self, id: &EnrollmentGroupId, group: &NewEnrollmentGroup) -> Result<EnrollmentGroup, Error> {
        let call = Call::put(&[COLLECTION, id.as_str()], &group.body());
        self.client.rest().read(&call.with_secrets(group.attestation.secrets())).await
    }

    /// Changes what the update names and leaves the rest (JSON merge patch, RFC 7396).
    ///
    /// # Errors
    /// [`Error`]; its status is 412 where the update has an etag and the group was changed meanwhile, and it is
    /// [`Error::Lost`] where that was perhaps this very call.
    pub async fn update(
        &self,
        id: &EnrollmentGroupId,
        update: &EnrollmentGroupUpdate,
    ) -> Result<EnrollmentGroup, Error> {
        let call = Call::merge_patch(&[COLLECTION, id.as_str()], &update.body());
        self.client.rest().read(&call.with_secrets(update.attestation.iter().flat_map(NewAttestation::secrets))).await
    }

    /// Deletes an enrollment group. Devices that came through it can no longer do so.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where there was none.
    pub async fn delete(&self, id: &EnrollmentGroupId) -> Result<(), Error> {
        self.client.rest().carry_out(&Call::delete(&[COLLECTION, id.as_str()])).await
    }

    /// A signing certificate of a group.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where the entry is empty or there is no such group.
    pub async fn certificate(
        &self,
        id: &EnrollmentGroupId,
        entry: CertificateEntry,
    ) -> Result<SigningCertificate, Error> {
        let call = Call::get(&certificate_path(id, entry));
        let found: SigningCertificate = self.client.rest().read(&call).await?;
        found.present().ok_or_else(|| Error::NoCertificate { operation: call.operation() })
    }

    /// A signing certificate of a group, or nothing where the entry is empty or there is no such group. An entry is empty
    /// where the service answers 404, and where it answers without a thumbprint.
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

    /// Sets a signing certificate, replacing what the entry held. `verified` attests that the certificate is yours;
    /// without it, prove it with [`generate_verification_code`](Self::generate_verification_code) and
    /// [`verify_certificate`](Self::verify_certificate). With an etag, the entry is replaced only if it is unchanged since.
    ///
    /// # Errors
    /// [`Error`]; its status is 412 where the etag does not match, and it is [`Error::Lost`] where that was perhaps this
    /// very call's doing.
    pub async fn set_certificate(
        &self,
        id: &EnrollmentGroupId,
        entry: CertificateEntry,
        certificate: &Certificate,
        verified: bool,
        etag: Option<&Etag>,
    ) -> Result<SigningCertificate, Error> {
        let mut body = json!({ "verified": verified, "certificate": certificate.to_base64_pem() });
        if let Some(etag) = etag {
            body["etag"] = json!(etag);
        }
        self.client.rest().read(&Call::put(&certificate_path(id, entry), &body)).await
    }

    /// Removes a signing certificate.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where there was none.
    pub async fn delete_certificate(&self, id: &EnrollmentGroupId, entry: CertificateEntry) -> Result<(), Error> {
        self.client.rest().carry_out(&Call::delete(&certificate_path(id, entry))).await
    }

    /// Makes a verification code for a signing certificate. A new code makes the one before void, so a call whose answer
    /// was lost is repeated.
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

    /// Proves possession of a signing certificate's key: `proof` is a certificate that the key signed and whose common
    /// name is the verification code.
    ///
    /// The call is not one to repeat blindly, since it may use the code up. Where its answer is lost, the entry is read:
    /// if it is verified, all is well; if not, the proof is sent again.
    ///
    /// # Errors
    /// [`Error`]; where [`answer_was_lost`](Error::answer_was_lost), the entry may have been verified nevertheless.
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
            let Err(error) = self.client.rest().carry_out_within(&call, &mut attempts).await else { return Ok(()) };
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
            // A repetition that the service refused is refused for good; one that got lost may be sent again.
            if !now_lost || !self.client.rest().pause(&mut attempts, &error, Repeat::Safe).await {
                return Err(error);
            }
        }
    }
}

fn certificate_path(id: &EnrollmentGroupId, entry: CertificateEntry) -> [&str; 4] {
    [COLLECTION, id.as_str(), "certificates", entry.as_str()]
}

/// An enrollment group, as the service describes it.
///
/// It is serialised as the service does, but without symmetric keys.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(from = "WireGroup", rename_all = "camelCase")]
#[non_exhaustive]
pub struct EnrollmentGroup {
    /// Its id.
    pub id: EnrollmentGroupId,
    /// Its name, as people see it.
    pub display_name: String,
    /// Whether devices may connect through it.
    pub enabled: bool,
    /// What devices it is for.
    #[serde(rename = "type")]
    pub device_type: DeviceType,
    /// How devices prove who they are.
    pub attestation: Attestation,
    /// Its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<Etag>,
}

/// What devices a group is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum DeviceType {
    /// `iot`: devices.
    #[default]
    Iot,
    /// `iotEdge`: gateways that run Azure IoT Edge.
    IotEdge,
    /// Something later than this client.
    Other(String),
}

impl DeviceType {
    /// The type as the service writes it.
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

/// How devices of a group prove who they are.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Attestation {
    /// By an X.509 certificate that leads to one of these.
    X509 {
        /// The primary signing certificate, where one is set and the service tells.
        primary: Option<SigningCertificate>,
        /// The secondary.
        secondary: Option<SigningCertificate>,
    },
    /// By keys derived from a symmetric key.
    SymmetricKey(Option<SymmetricKeys>),
    /// In a way later than this client.
    Other(String),
}

impl Attestation {
    /// The kind, as the service writes it.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::X509 { .. } => "x509",
            Self::SymmetricKey(_) => "symmetricKey",
            Self::Other(name) => name,
        }
    }
}

/// Without symmetric keys: who wants them printed has to name them.
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

/// The two symmetric keys of a group, in base64. They are secrets: `Debug` hides them, and they are serialised only by
/// way of [`secrecy::ExposeSecret`].
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SymmetricKeys {
    /// The primary key.
    pub primary_key: SecretString,
    /// The secondary key.
    pub secondary_key: SecretString,
}

/// A signing certificate of a group. The service does not give the certificate back, only its thumbprint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "WireCertificate", into = "WireCertificate")]
#[non_exhaustive]
pub struct SigningCertificate {
    /// Whether possession of its key was proven or attested. Only then devices can connect by it.
    pub verified: bool,
    /// Its SHA-1 thumbprint.
    pub sha1_thumbprint: Option<Thumbprint>,
    /// The state of the entry.
    pub etag: Option<Etag>,
}

impl SigningCertificate {
    /// The certificate, unless this is how the service describes an empty entry.
    fn present(self) -> Option<Self> {
        self.sha1_thumbprint.is_some().then_some(self)
    }
}

/// What the subject's common name of a proof of possession has to be.
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

/// An enrollment group to be.
#[derive(Debug, Clone)]
pub struct NewEnrollmentGroup {
    /// Its name, as people see it.
    pub display_name: String,
    /// Whether devices may connect through it.
    pub enabled: bool,
    /// What devices it is for.
    pub device_type: DeviceType,
    /// How devices prove who they are.
    pub attestation: NewAttestation,
    /// The state of the group that this replaces: the service refuses with 412 if it has changed since.
    pub etag: Option<Etag>,
}

impl NewEnrollmentGroup {
    /// An enabled group for devices with X.509 certificates.
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

/// How devices of a new or changed group shall prove who they are.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NewAttestation {
    /// By X.509 certificates; the signing certificates are set apart.
    X509,
    /// By symmetric keys: these, or such as the service makes.
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
                    "primaryKey": keys.primary_key.expose_secret(),
                    "secondaryKey": keys.secondary_key.expose_secret(),
                },
            }),
        }
    }

    fn secrets(&self) -> Vec<SecretString> {
        match self {
            Self::SymmetricKey(Some(keys)) => vec![keys.primary_key.clone(), keys.secondary_key.clone()],
            _ => Vec::new(),
        }
    }
}

/// A change to an enrollment group: what is named is changed, the rest is left.
#[derive(Debug, Clone, Default)]
pub struct EnrollmentGroupUpdate {
    /// The new name.
    pub display_name: Option<String>,
    /// Whether devices may connect through it.
    pub enabled: Option<bool>,
    /// What devices it is for.
    pub device_type: Option<DeviceType>,
    /// How devices prove who they are.
    pub attestation: Option<NewAttestation>,
    /// The state of the group that this changes: the service refuses with 412 if it has changed since.
    pub etag: Option<Etag>,
}

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

/// A group as it travels.
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

/// A signing certificate as it travels.
#[derive(Deserialize, Serialize)]
struct WireCertificate {
    verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<WireInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<Etag>,
}

/// What the service tells of a certificate that it does not give back.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireInfo {
    sha1_thumbprint: Option<String>,
}

impl WireInfo {
    pub(super) fn of(thumbprint: Thumbprint) -> Self {
        Self { sha1_thumbprint: Some(thumbprint.to_string()) }
    }

    /// The thumbprint in it; an empty one is none.
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
