//! Devices: what the application knows of each, and how each one proves who it is.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::{
    change::{Change, json_of, object},
    client::Client,
    endpoint::ApiVersion,
    enrollment_groups::{DeviceType, SymmetricKeys, WireInfo},
    filter::DeviceQuery,
    id::{DeviceId, Etag},
};
use crate::{
    certificate::{Certificate, Thumbprint, ThumbprintError},
    transport::{Call, Error, Listing, items, pages},
};

pub(super) const COLLECTION: &str = "devices";

/// The devices of an application: `/devices` of the API.
///
/// ```no_run
/// use futures_util::TryStreamExt;
/// use iot_enroll::central::{Change, Client, DeviceQuery, DeviceUpdate, Field, Filter, NewDevice};
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let devices = client.devices();
/// let id = "thermostat1".parse()?;
/// let template = Some("dtmi:contoso:Thermostat;1".to_owned());
/// let device = devices.create(&id, &NewDevice { template, ..NewDevice::named("CheckoutThermostat") }).await?;
/// let update = DeviceUpdate { display_name: Change::Clear, etag: device.etag, ..Default::default() };
/// devices.update(&id, &update).await?;
///
/// let filter = Some(Filter::field(Field::DISPLAY_NAME).contains("thermostat"));
/// let found: Vec<_> = devices.list(&DeviceQuery { filter, ..Default::default() }).try_collect().await?;
/// # Ok(())
/// # }
/// ```
///
/// Every call fails with [`Error`], which names the call; what may be tried again has been
/// ([`RetryPolicy`](super::RetryPolicy)). For bulk work, have a few dozen calls in flight at once: they keep to one rate.
#[derive(Debug, Clone)]
pub struct Devices {
    client: Client,
}

impl Client {
    /// The devices of the application.
    #[must_use]
    pub fn devices(&self) -> Devices {
        Devices { client: self.clone() }
    }
}

impl Devices {
    /// The devices that meet the query.
    #[must_use]
    pub fn list(&self, query: &DeviceQuery) -> Listing<Device> {
        items(self.client.rest().clone(), self.first(query), query.limit)
    }

    /// As [`list`](Self::list), whole pages at a time.
    #[must_use]
    pub fn list_pages(&self, query: &DeviceQuery) -> Listing<Vec<Device>> {
        pages(self.client.rest().clone(), self.first(query), query.limit)
    }

    fn first(&self, query: &DeviceQuery) -> Call {
        Call::get(&[COLLECTION]).with_query(query.parameters(self.client.api_version()))
    }

    /// One device.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where there is none by this id.
    pub async fn get(&self, id: &DeviceId) -> Result<Device, Error> {
        self.client.rest().read(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// One device, or nothing where there is none by this id.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find(&self, id: &DeviceId) -> Result<Option<Device>, Error> {
        self.client.rest().find(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Creates a device, or **replaces** the one that has this id: the service's PUT does either. To leave an existing
    /// device alone, [`find`](Self::find) first; to change one, [`update`](Self::update) it.
    ///
    /// A device with [types](NewDevice::device_types) is created in version 2022-10-31-preview of the API, whatever the
    /// client's: no other has them.
    ///
    /// # Errors
    /// [`Error`]; its status is 412 where the device has an etag and was changed since, and it is [`Error::Lost`] where
    /// that was perhaps this very call.
    pub async fn create(&self, id: &DeviceId, device: &NewDevice) -> Result<Device, Error> {
        let call = Call::put(&[COLLECTION, id.as_str()], &device.body());
        self.knowing_types(!device.device_types.is_empty()).rest().read(&call).await
    }

    /// The client, with the version of the API that knows types where there are any to tell.
    fn knowing_types(&self, are_told: bool) -> Client {
        if are_told { self.client.with_api_version(ApiVersion::V2022_10_31Preview) } else { self.client.clone() }
    }

    /// Changes what the update names and leaves the rest (JSON merge patch, RFC 7396). With
    /// [types](DeviceUpdate::device_types) it is sent in version 2022-10-31-preview of the API.
    ///
    /// # Errors
    /// [`Error`]; its status is 412 where the update has an etag and the device was changed meanwhile, and it is
    /// [`Error::Lost`] where that was perhaps this very call.
    pub async fn update(&self, id: &DeviceId, update: &DeviceUpdate) -> Result<Device, Error> {
        let call = Call::merge_patch(&[COLLECTION, id.as_str()], &update.body());
        self.knowing_types(update.device_types.is_some()).rest().read(&call).await
    }

    /// Deletes a device.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where there was none.
    pub async fn delete(&self, id: &DeviceId) -> Result<(), Error> {
        self.client.rest().carry_out(&Call::delete(&[COLLECTION, id.as_str()])).await
    }

    /// What a device connects with. The keys among it are secrets.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where there is no such device.
    pub async fn credentials(&self, id: &DeviceId) -> Result<DeviceCredentials, Error> {
        self.client.rest().read(&Call::get(&[COLLECTION, id.as_str(), "credentials"])).await
    }

    /// How a device alone proves who it is.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where there is no such device, and where it has no attestation of
    /// its own, as when it came through an enrollment group.
    pub async fn attestation(&self, id: &DeviceId) -> Result<DeviceAttestation, Error> {
        self.client.rest().read(&Call::get(&attestation_path(id))).await
    }

    /// As [`attestation`](Self::attestation), or nothing where there is none.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find_attestation(&self, id: &DeviceId) -> Result<Option<DeviceAttestation>, Error> {
        self.client.rest().find(&Call::get(&attestation_path(id))).await
    }

    /// Sets how a device alone shall prove who it is, replacing what it had.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn set_attestation(
        &self,
        id: &DeviceId,
        attestation: &NewDeviceAttestation,
    ) -> Result<DeviceAttestation, Error> {
        let call = Call::put(&attestation_path(id), &attestation.body());
        self.client.rest().read(&call.with_secrets(attestation.secrets())).await
    }

    /// Changes a part of how a device proves who it is (JSON merge patch, RFC 7396).
    ///
    /// # Errors
    /// [`Error`]
    pub async fn update_attestation(
        &self,
        id: &DeviceId,
        update: &DeviceAttestationUpdate,
    ) -> Result<DeviceAttestation, Error> {
        let call = Call::merge_patch(&attestation_path(id), &update.body());
        self.client.rest().read(&call.with_secrets(update.secrets())).await
    }

    /// Removes a device's own attestation.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where there was none.
    pub async fn delete_attestation(&self, id: &DeviceId) -> Result<(), Error> {
        self.client.rest().carry_out(&Call::delete(&attestation_path(id))).await
    }
}

fn attestation_path(id: &DeviceId) -> [&str; 3] {
    [COLLECTION, id.as_str(), "attestation"]
}

/// A device, as the service describes it. It is serialised as the service does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "WireDevice", rename_all = "camelCase")]
#[non_exhaustive]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<Etag>,
    /// Its name, as people see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The id of its device template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Whether it may connect.
    pub enabled: bool,
    /// Whether it has connected.
    pub provisioned: bool,
    /// Whether the application plays it.
    pub simulated: bool,
    /// The ids of its organizations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,
    /// What it is besides a device. Told in version 2022-10-31-preview of the API only
    /// ([`Client::with_api_version`]).
    #[serde(rename = "type", skip_serializing_if = "Vec::is_empty")]
    pub device_types: Vec<DeviceType>,
}

/// A device to be.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// Its name, as people see it. The service takes the id without one.
    pub display_name: Option<String>,
    /// The id of its device template. The service may find one when the device connects.
    pub template: Option<String>,
    /// Whether it may connect.
    pub enabled: bool,
    /// Whether the application plays it.
    pub simulated: bool,
    /// The ids of its organizations. Named to the service where there are any.
    pub organizations: Vec<String>,
    /// What it is besides a device: [`DeviceType::IotEdge`] is what the service knows.
    pub device_types: Vec<DeviceType>,
    /// The state of the device that this replaces: the service refuses with 412 if it has changed since.
    pub etag: Option<Etag>,
}

impl Default for NewDevice {
    /// An enabled, real device.
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
    /// An enabled, real device with this name.
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

/// A change to a device: what is named is changed, the rest is left.
#[derive(Debug, Clone, Default)]
pub struct DeviceUpdate {
    /// The new name.
    pub display_name: Change<String>,
    /// The id of the new device template.
    pub template: Change<String>,
    /// Whether it may connect.
    pub enabled: Option<bool>,
    /// Whether the application plays it.
    pub simulated: Option<bool>,
    /// The ids of its organizations, all of them.
    pub organizations: Option<Vec<String>>,
    /// What it is besides a device, all of it.
    pub device_types: Option<Vec<DeviceType>>,
    /// The state of the device that this changes: the service refuses with 412 if it has changed since.
    pub etag: Option<Etag>,
}

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

/// What a device connects with. `Debug` hides the keys; they are serialised only by way of [`secrecy::ExposeSecret`].
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "WireCredentials")]
#[non_exhaustive]
pub struct DeviceCredentials {
    /// The id scope of the Device Provisioning Service that the device registers with.
    pub id_scope: String,
    /// Its symmetric keys.
    pub symmetric_key: Option<SymmetricKeys>,
    /// Its client certificates.
    pub x509: Option<ClientCertificates>,
    /// The public part of its TPM's endorsement key, in base64.
    pub endorsement_key: Option<SecretString>,
}

/// How a device alone proves who it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "WireAttestation")]
#[non_exhaustive]
pub enum DeviceAttestation {
    /// By one of these X.509 certificates.
    X509(ClientCertificates),
    /// By symmetric keys.
    SymmetricKey(Option<SymmetricKeys>),
    /// By a TPM, whose endorsement key (its public part, in base64) this is.
    Tpm(Option<SecretString>),
    /// In a way later than this client.
    Other(String),
}

impl DeviceAttestation {
    /// The kind, as the service writes it.
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

/// Without keys: who wants them printed has to name them.
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

/// The client certificates of a device. Two, so that one can be exchanged while the other serves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[non_exhaustive]
pub struct ClientCertificates {
    /// The primary one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<ClientCertificate>,
    /// The secondary one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secondary: Option<ClientCertificate>,
}

/// A client certificate of a device. The service seldom gives the certificate back, only its thumbprint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "WireCertificate", into = "WireCertificate")]
#[non_exhaustive]
pub struct ClientCertificate {
    /// Its SHA-1 thumbprint.
    pub sha1_thumbprint: Option<Thumbprint>,
    /// The certificate as the service gives it, where it does.
    pub certificate: Option<String>,
}

/// How a device alone shall prove who it is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NewDeviceAttestation {
    /// By one of these X.509 certificates.
    X509 {
        /// The primary one.
        primary: Box<Certificate>,
        /// The secondary one.
        secondary: Option<Box<Certificate>>,
    },
    /// By symmetric keys: these, or such as the service makes.
    SymmetricKey(Option<SymmetricKeys>),
    /// By a TPM, whose endorsement key (its public part, in base64) this is.
    Tpm(SecretString),
}

impl NewDeviceAttestation {
    /// By this one X.509 certificate.
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

    fn secrets(&self) -> Vec<SecretString> {
        match self {
            Self::SymmetricKey(Some(keys)) => vec![keys.primary_key.clone(), keys.secondary_key.clone()],
            Self::Tpm(key) => vec![key.clone()],
            _ => Vec::new(),
        }
    }
}

/// A change to how a device proves who it is: what is named is changed, the rest is left. The kind has to be the one that
/// the device has; to exchange the kind, [set](Devices::set_attestation) another.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DeviceAttestationUpdate {
    /// Other X.509 certificates.
    X509 {
        /// The new primary one. There is always one.
        primary: Option<Box<Certificate>>,
        /// The new secondary one, or none.
        secondary: Change<Box<Certificate>>,
    },
    /// Other symmetric keys, in base64.
    SymmetricKey {
        /// The new primary key.
        primary: Option<SecretString>,
        /// The new secondary key.
        secondary: Option<SecretString>,
    },
    /// Another TPM, by its endorsement key (its public part, in base64).
    Tpm(SecretString),
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

    fn secrets(&self) -> Vec<SecretString> {
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

fn keys_body(keys: [(&str, Option<&SecretString>); 2]) -> Value {
    let keys = keys.map(|(name, key)| (name, key.map(|key| json!(key.expose_secret()))));
    json!({ "type": SYMMETRIC_KEY, "symmetricKey": object(keys) })
}

fn tpm_body(key: &SecretString) -> Value {
    json!({ "type": TPM, "tpm": { "endorsementKey": key.expose_secret() } })
}

/// A device as it travels.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDevice {
    id: DeviceId,
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

/// The credentials of a device as they travel.
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

/// The attestation of a device as it travels.
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
    endorsement_key: SecretString,
}

/// A client certificate as it travels.
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
