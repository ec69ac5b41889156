//! Devices, their credentials and their attestations.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::{
    client::Client,
    endpoint::ApiVersion,
    enrollment_groups::{DeviceType, WireInfo},
    filter::DeviceQuery,
    id::CentralDeviceId,
};
use crate::{
    certificate::{Certificate, Thumbprint, ThumbprintError},
    transport::{Call, Change, Error, Etag, Listing, Secret, SymmetricKeys, items, json_of, object, pages, setters},
};

pub(super) const COLLECTION: &str = "devices";

/// The devices of an application: `/devices` of the API.
///
/// ```no_run
/// use iot_enroll::central::{Change, Client, DeviceQuery, DeviceUpdate, Field, Filter, NewDevice};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let devices = client.devices();
/// let id = "thermostat1".parse()?;
/// let new = NewDevice::named("CheckoutThermostat").template("dtmi:contoso:Thermostat;1".to_owned());
/// let device = devices.create(&id, &new).await?;
/// devices.update(&id, &DeviceUpdate::default().display_name(Change::Clear).etag(device.etag)).await?;
///
/// let query = DeviceQuery::new().filter(Filter::field(Field::DISPLAY_NAME).contains("thermostat"));
/// let found: Vec<_> = devices.list(&query).try_collect().await?;
/// # Ok(())
/// # }
/// ```
///
/// Failed calls are retried by the client's [`RetryPolicy`](super::RetryPolicy). For bulk work, run a few dozen calls
/// concurrently: they share one rate limit.
#[derive(Debug, Clone)]
pub struct Devices {
    client: Client,
}

impl Client {
    /// Returns the devices of the application.
    #[must_use]
    pub fn devices(&self) -> Devices {
        Devices { client: self.clone() }
    }
}

impl Devices {
    /// Lists the devices that match a query.
    pub fn list(&self, query: &DeviceQuery) -> Listing<Device> {
        items(self.client.rest().clone(), self.first(query), query.limit)
    }

    /// Does the same as [`list`](Self::list), page by page.
    pub fn list_pages(&self, query: &DeviceQuery) -> Listing<Vec<Device>> {
        pages(self.client.rest().clone(), self.first(query), query.limit)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    fn first(&self, query: &DeviceQuery) -> Call {
        Call::get(&[COLLECTION]).with_query(query.parameters(self.client.api_version()))
    }

    /// Reads a device.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the device does not exist.
    pub async fn get(&self, id: &CentralDeviceId) -> Result<Device, Error> {
        self.client.rest().read(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Reads a device. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find(&self, id: &CentralDeviceId) -> Result<Option<Device>, Error> {
        self.client.rest().find(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Creates a device. Sends two requests: one to see that it does not exist, and one to create it.
    ///
    /// The API has no conditional create. A device that another client creates between the two requests is replaced.
    ///
    /// A device with [types](NewDevice::device_types) is created with version 2022-10-31-preview of the API, the only
    /// one that has them.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the device exists, or another [`Error`].
    pub async fn create(&self, id: &CentralDeviceId, device: &NewDevice) -> Result<Device, Error> {
        let call = Call::put(&[COLLECTION, id.as_str()], &device.body());
        self.client_for(&device.device_types).create(&call).await
    }

    /// Replaces a device, or creates it if missing. To change an existing device, [`update`](Self::update) it.
    ///
    /// # Errors
    /// [`Error`]. If the new device has an etag that is not the current one, the status is 412, or the error is
    /// [`Error::OutcomeUnknown`] if an answer was lost before.
    pub async fn replace(&self, id: &CentralDeviceId, device: &NewDevice) -> Result<Device, Error> {
        let call = Call::put(&[COLLECTION, id.as_str()], &device.body());
        self.client_for(&device.device_types).rest().read(&call).await
    }

    /// Returns the client, with the preview version of the API if there are types to send.
    fn client_for(&self, types: &[DeviceType]) -> Client {
        if types.is_empty() { self.client.clone() } else { self.preview_client() }
    }

    fn preview_client(&self) -> Client {
        self.client.with_api_version(ApiVersion::V2022_10_31Preview)
    }

    /// Changes the fields that the update names and keeps the rest (JSON merge patch, RFC 7396).
    ///
    /// An update of [types](DeviceUpdate::device_types) is sent with version 2022-10-31-preview of the API.
    ///
    /// # Errors
    /// [`Error`]. If the update has an etag that is not the device's current one, the status is 412, or the error is
    /// [`Error::OutcomeUnknown`] if an answer was lost before.
    pub async fn update(&self, id: &CentralDeviceId, update: &DeviceUpdate) -> Result<Device, Error> {
        let call = Call::merge_patch(&[COLLECTION, id.as_str()], &update.body());
        let client = if update.device_types.is_some() { self.preview_client() } else { self.client.clone() };
        client.rest().read(&call).await
    }

    /// Deletes a device.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the device does not exist.
    pub async fn delete(&self, id: &CentralDeviceId) -> Result<(), Error> {
        self.client.rest().execute(&Call::delete(&[COLLECTION, id.as_str()])).await
    }

    /// Reads the credentials with which a device connects.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the device does not exist.
    pub async fn credentials(&self, id: &CentralDeviceId) -> Result<DeviceCredentials, Error> {
        self.client.rest().read(&Call::get(&[COLLECTION, id.as_str(), "credentials"]).reading_keys()).await
    }

    /// Reads a device's individual attestation.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the device does not exist, or has no
    /// attestation of its own because it connects through an enrollment group.
    pub async fn attestation(&self, id: &CentralDeviceId) -> Result<DeviceAttestation, Error> {
        self.client.rest().read(&Call::get(&attestation_path(id))).await
    }

    /// Reads a device's individual attestation. Returns `None` if it has none.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find_attestation(&self, id: &CentralDeviceId) -> Result<Option<DeviceAttestation>, Error> {
        self.client.rest().find(&Call::get(&attestation_path(id))).await
    }

    /// Sets a device's individual attestation, replacing the present one.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn set_attestation(
        &self,
        id: &CentralDeviceId,
        attestation: &NewDeviceAttestation,
    ) -> Result<DeviceAttestation, Error> {
        let call = Call::put(&attestation_path(id), &attestation.body());
        self.client.rest().read(&call.with_secrets(attestation.secrets())).await
    }

    /// Changes a part of a device's individual attestation (JSON merge patch, RFC 7396).
    ///
    /// # Errors
    /// [`Error`]
    pub async fn update_attestation(
        &self,
        id: &CentralDeviceId,
        update: &DeviceAttestationUpdate,
    ) -> Result<DeviceAttestation, Error> {
        let call = Call::merge_patch(&attestation_path(id), &update.body());
        self.client.rest().read(&call.with_secrets(update.secrets())).await
    }

    /// Deletes a device's individual attestation.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if it has none.
    pub async fn delete_attestation(&self, id: &CentralDeviceId) -> Result<(), Error> {
        self.client.rest().execute(&Call::delete(&attestation_path(id))).await
    }
}

fn attestation_path(id: &CentralDeviceId) -> [&str; 3] {
    [COLLECTION, id.as_str(), "attestation"]
}

/// A device. It serializes to the service's JSON.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "WireDevice", rename_all = "camelCase")]
#[non_exhaustive]
pub struct Device {
    /// The ID.
    pub id: CentralDeviceId,
    /// The version of the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<Etag>,
    /// The display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The ID of its device template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Whether the device can connect.
    pub enabled: bool,
    /// Whether the device has connected.
    pub provisioned: bool,
    /// Whether the application simulates the device.
    pub simulated: bool,
    /// The IDs of its organizations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,
    /// The types of the device. Only version 2022-10-31-preview of the API has them ([`Client::with_api_version`]).
    #[serde(rename = "type", skip_serializing_if = "Vec::is_empty")]
    pub device_types: Vec<DeviceType>,
}

/// The fields of a device to create.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewDevice {
    /// The display name. By default the service uses the ID.
    pub display_name: Option<String>,
    /// The ID of its device template. Without one, the service may assign a template when the device connects.
    pub template: Option<String>,
    /// Whether the device can connect.
    pub enabled: bool,
    /// Whether the application simulates the device.
    pub simulated: bool,
    /// The IDs of its organizations. Sent if there are any.
    pub organizations: Vec<String>,
    /// The types of the device. The service supports [`DeviceType::IotEdge`].
    pub device_types: Vec<DeviceType>,
    /// The version of the device to replace. The service refuses to replace another version (412).
    pub etag: Option<Etag>,
}

impl Default for NewDevice {
    /// Returns an enabled device that is not simulated.
    fn default() -> Self {
        Self {
            display_name: None,
            template: None,
            enabled: true,
            simulated: false,
            organizations: Vec::new(),
            device_types: Vec::new(),
            etag: None,
        }
    }
}

impl NewDevice {
    /// Returns an enabled device with this display name that is not simulated.
    #[must_use]
    pub fn named(display_name: impl Into<String>) -> Self {
        Self { display_name: Some(display_name.into()), ..Self::default() }
    }

    fn body(&self) -> Value {
        object([
            ("displayName", json_of(self.display_name.as_ref())),
            ("template", json_of(self.template.as_ref())),
            ("enabled", Some(json!(self.enabled))),
            ("simulated", Some(json!(self.simulated))),
            ("organizations", (!self.organizations.is_empty()).then(|| json!(self.organizations))),
            ("type", (!self.device_types.is_empty()).then(|| json!(self.device_types))),
            ("etag", json_of(self.etag.as_ref())),
        ])
    }
}

setters!(NewDevice {
    display_name: Option<String>,
    template: Option<String>,
    enabled: bool,
    simulated: bool,
    organizations: Vec<String>,
    device_types: Vec<DeviceType>,
    etag: Option<Etag>,
});

/// A change to a device. Fields that are not set keep their value.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeviceUpdate {
    /// The display name.
    pub display_name: Change<String>,
    /// The ID of the device template.
    pub template: Change<String>,
    /// Whether the device can connect.
    pub enabled: Option<bool>,
    /// Whether the application simulates the device.
    pub simulated: Option<bool>,
    /// The IDs of all its organizations.
    pub organizations: Option<Vec<String>>,
    /// All types of the device.
    pub device_types: Option<Vec<DeviceType>>,
    /// The version of the device to change. The service refuses to change another version (412).
    pub etag: Option<Etag>,
}

setters!(DeviceUpdate {
    display_name: Change<String>,
    template: Change<String>,
    enabled: Option<bool>,
    simulated: Option<bool>,
    organizations: Option<Vec<String>>,
    device_types: Option<Vec<DeviceType>>,
    etag: Option<Etag>,
});

impl DeviceUpdate {
    fn body(&self) -> Value {
        object([
            ("displayName", self.display_name.body(|it| json!(it))),
            ("template", self.template.body(|it| json!(it))),
            ("enabled", json_of(self.enabled.as_ref())),
            ("simulated", json_of(self.simulated.as_ref())),
            ("organizations", json_of(self.organizations.as_ref())),
            ("type", json_of(self.device_types.as_ref())),
            ("etag", json_of(self.etag.as_ref())),
        ])
    }
}

/// The credentials with which a device connects.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "WireCredentials")]
#[non_exhaustive]
pub struct DeviceCredentials {
    /// The ID scope of the Device Provisioning Service at which the device registers.
    pub id_scope: String,
    /// The symmetric keys.
    pub symmetric_key: Option<SymmetricKeys>,
    /// The client certificates.
    pub x509: Option<ClientCertificates>,
    /// The public part of the TPM's endorsement key, in base64.
    pub endorsement_key: Option<Secret>,
}

/// How a device proves its identity, if not through an enrollment group.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "WireAttestation")]
#[non_exhaustive]
pub enum DeviceAttestation {
    /// With one of these X.509 certificates.
    X509(ClientCertificates),
    /// With one of these symmetric keys.
    SymmetricKey(Option<SymmetricKeys>),
    /// With a TPM that has this endorsement key (the public part, in base64).
    Tpm(Option<Secret>),
    /// In a way that this client does not know.
    Other(String),
}

impl DeviceAttestation {
    /// Returns the kind as the service writes it.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::X509(_) => X509,
            Self::SymmetricKey(_) => SYMMETRIC_KEY,
            Self::Tpm(_) => TPM,
            Self::Other(name) => name,
        }
    }
}

/// Omits the keys, so that printing an attestation does not reveal them.
impl Serialize for DeviceAttestation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = json!({ "type": self.kind() });
        if let Self::X509(certificates) = self {
            value["x509"] = json!({ "clientCertificates": certificates });
        }
        value.serialize(serializer)
    }
}

const X509: &str = "x509";
const SYMMETRIC_KEY: &str = "symmetricKey";
const TPM: &str = "tpm";

/// The client certificates of a device. With two, a certificate can be replaced without downtime.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[non_exhaustive]
pub struct ClientCertificates {
    /// The primary certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<ClientCertificate>,
    /// The secondary certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secondary: Option<ClientCertificate>,
}

/// A client certificate of a device. The service usually returns its thumbprint only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "WireCertificate", into = "WireCertificate")]
#[non_exhaustive]
pub struct ClientCertificate {
    /// The SHA-1 thumbprint.
    pub sha1_thumbprint: Option<Thumbprint>,
    /// The certificate, if the service returns it.
    pub certificate: Option<String>,
}

/// The individual attestation to set for a device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NewDeviceAttestation {
    /// With one of these X.509 certificates.
    X509 {
        /// The primary certificate.
        primary: Box<Certificate>,
        /// The secondary certificate.
        secondary: Option<Box<Certificate>>,
    },
    /// With symmetric keys: these, or keys that the service generates.
    SymmetricKey(Option<SymmetricKeys>),
    /// With a TPM that has this endorsement key (the public part, in base64).
    Tpm(Secret),
}

impl NewDeviceAttestation {
    /// Returns an attestation with one X.509 certificate.
    #[must_use]
    pub fn x509(certificate: Certificate) -> Self {
        Self::X509 { primary: Box::new(certificate), secondary: None }
    }

    fn body(&self) -> Value {
        match self {
            Self::X509 { primary, secondary } => x509_body([
                ("primary", Some(certificate_body(primary))),
                ("secondary", secondary.as_deref().map(certificate_body)),
            ]),
            Self::SymmetricKey(None) => json!({ "type": SYMMETRIC_KEY }),
            Self::SymmetricKey(Some(keys)) => {
                keys_body([("primaryKey", Some(&keys.primary_key)), ("secondaryKey", Some(&keys.secondary_key))])
            }
            Self::Tpm(key) => tpm_body(key),
        }
    }

    fn secrets(&self) -> Vec<Secret> {
        match self {
            Self::SymmetricKey(Some(keys)) => vec![keys.primary_key.clone(), keys.secondary_key.clone()],
            Self::Tpm(key) => vec![key.clone()],
            _ => Vec::new(),
        }
    }
}

/// A change to a device's individual attestation. Values that are not set are kept. The kind must be the present one;
/// to change the kind, [set](Devices::set_attestation) another attestation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DeviceAttestationUpdate {
    /// Changes the X.509 certificates.
    X509 {
        /// The new primary certificate, which cannot be removed.
        primary: Option<Box<Certificate>>,
        /// The change of the secondary certificate.
        secondary: Change<Box<Certificate>>,
    },
    /// Changes the symmetric keys, in base64.
    SymmetricKey {
        /// The new primary key.
        primary: Option<Secret>,
        /// The new secondary key.
        secondary: Option<Secret>,
    },
    /// Changes the TPM's endorsement key (the public part, in base64).
    Tpm(Secret),
}

impl DeviceAttestationUpdate {
    fn body(&self) -> Value {
        match self {
            Self::X509 { primary, secondary } => x509_body([
                ("primary", primary.as_deref().map(certificate_body)),
                ("secondary", secondary.body(|it| certificate_body(it))),
            ]),
            Self::SymmetricKey { primary, secondary } => {
                keys_body([("primaryKey", primary.as_ref()), ("secondaryKey", secondary.as_ref())])
            }
            Self::Tpm(key) => tpm_body(key),
        }
    }

    fn secrets(&self) -> Vec<Secret> {
        match self {
            Self::X509 { .. } => Vec::new(),
            Self::SymmetricKey { primary, secondary } => [primary, secondary].into_iter().flatten().cloned().collect(),
            Self::Tpm(key) => vec![key.clone()],
        }
    }
}

fn x509_body(certificates: [(&str, Option<Value>); 2]) -> Value {
    json!({ "type": X509, "x509": { "clientCertificates": object(certificates) } })
}

fn certificate_body(certificate: &Certificate) -> Value {
    json!({ "certificate": certificate.to_base64_pem() })
}

fn keys_body(keys: [(&str, Option<&Secret>); 2]) -> Value {
    let keys = keys.map(|(name, key)| (name, key.map(|key| json!(key.expose()))));
    json!({ "type": SYMMETRIC_KEY, "symmetricKey": object(keys) })
}

fn tpm_body(key: &Secret) -> Value {
    json!({ "type": TPM, "tpm": { "endorsementKey": key.expose() } })
}

/// The JSON of a device.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDevice {
    id: CentralDeviceId,
    etag: Option<Etag>,
    display_name: Option<String>,
    template: Option<String>,
    enabled: Option<bool>,
    provisioned: Option<bool>,
    simulated: Option<bool>,
    organizations: Option<Vec<String>>,
    #[serde(rename = "type")]
    device_types: Option<Vec<DeviceType>>,
}

impl From<WireDevice> for Device {
    fn from(wire: WireDevice) -> Self {
        Self {
            id: wire.id,
            etag: wire.etag,
            display_name: wire.display_name,
            template: wire.template,
            enabled: wire.enabled.unwrap_or(true),
            provisioned: wire.provisioned.unwrap_or_default(),
            simulated: wire.simulated.unwrap_or_default(),
            organizations: wire.organizations.unwrap_or_default(),
            device_types: wire.device_types.unwrap_or_default(),
        }
    }
}

/// The JSON of the credentials of a device.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCredentials {
    id_scope: String,
    symmetric_key: Option<SymmetricKeys>,
    x509: Option<WireX509>,
    tpm: Option<WireTpm>,
}

impl From<WireCredentials> for DeviceCredentials {
    fn from(wire: WireCredentials) -> Self {
        Self {
            id_scope: wire.id_scope,
            symmetric_key: wire.symmetric_key,
            x509: wire.x509.and_then(|x509| x509.client_certificates),
            endorsement_key: wire.tpm.map(|tpm| tpm.endorsement_key),
        }
    }
}

/// The JSON of the attestation of a device.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAttestation {
    #[serde(rename = "type")]
    kind: String,
    symmetric_key: Option<SymmetricKeys>,
    x509: Option<WireX509>,
    tpm: Option<WireTpm>,
}

impl From<WireAttestation> for DeviceAttestation {
    fn from(wire: WireAttestation) -> Self {
        match wire.kind.as_str() {
            X509 => Self::X509(wire.x509.and_then(|x509| x509.client_certificates).unwrap_or_default()),
            SYMMETRIC_KEY => Self::SymmetricKey(wire.symmetric_key),
            TPM => Self::Tpm(wire.tpm.map(|tpm| tpm.endorsement_key)),
            _ => Self::Other(wire.kind),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireX509 {
    client_certificates: Option<ClientCertificates>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireTpm {
    endorsement_key: Secret,
}

/// The JSON of a client certificate.
#[derive(Deserialize, Serialize)]
struct WireCertificate {
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<WireInfo>,
}

impl TryFrom<WireCertificate> for ClientCertificate {
    type Error = ThumbprintError;

    fn try_from(wire: WireCertificate) -> Result<Self, ThumbprintError> {
        Ok(Self { sha1_thumbprint: WireInfo::thumbprint(wire.info)?, certificate: wire.certificate })
    }
}

impl From<ClientCertificate> for WireCertificate {
    fn from(certificate: ClientCertificate) -> Self {
        Self { certificate: certificate.certificate, info: certificate.sha1_thumbprint.map(WireInfo::of) }
    }
}
