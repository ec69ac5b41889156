//! Deployment manifests: which modules `IoT` Edge devices run.

use std::fmt;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    change::{json_of, object},
    client::Client,
    device_groups::or_empty,
    devices,
    endpoint::ApiVersion,
    id::{DeploymentManifestId, DeviceId, Etag},
};
use crate::transport::{Call, Error, Listing, items};

const COLLECTION: &str = "deploymentManifests";

/// The deployment manifests of an application: `/deploymentManifests` of the API, which only version 2022-10-31-preview
/// has. The calls name that version whatever the client's.
///
/// ```no_run
/// use iot_enroll::central::{Client, NewDeploymentManifest};
///
/// # async fn example(client: Client, file: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let manifests = client.deployment_manifests();
/// let id = "cameras".parse()?;
/// let manifest = manifests.create(&id, &NewDeploymentManifest::new("Cameras", serde_json::from_str(file)?)).await?;
/// manifests.assign(&"gateway1".parse()?, &manifest.data).await?;
/// # Ok(())
/// # }
/// ```
///
/// Every call fails with [`Error`], which names the call; what may be tried again has been
/// ([`RetryPolicy`](super::RetryPolicy)).
#[derive(Debug, Clone)]
pub struct DeploymentManifests {
    client: Client,
}

impl Client {
    /// The deployment manifests of the application, in version 2022-10-31-preview of the API: no other has them.
    #[must_use]
    pub fn deployment_manifests(&self) -> DeploymentManifests {
        DeploymentManifests { client: self.with_api_version(ApiVersion::V2022_10_31Preview) }
    }
}

impl DeploymentManifests {
    /// Every deployment manifest.
    #[must_use]
    pub fn list(&self) -> Listing<DeploymentManifest> {
        items(self.client.rest().clone(), Call::get(&[COLLECTION]), None)
    }

    /// One deployment manifest.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where there is none by this id.
    pub async fn get(&self, id: &DeploymentManifestId) -> Result<DeploymentManifest, Error> {
        self.client.rest().read(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// One deployment manifest, or nothing where there is none by this id.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find(&self, id: &DeploymentManifestId) -> Result<Option<DeploymentManifest>, Error> {
        self.client.rest().find(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Creates a deployment manifest, or **replaces** the one that has this id: the service's PUT does either.
    ///
    /// # Errors
    /// [`Error`]; its status is 412 where the manifest has an etag and was changed since, and it is [`Error::Lost`] where
    /// that was perhaps this very call.
    pub async fn create(
        &self,
        id: &DeploymentManifestId,
        manifest: &NewDeploymentManifest,
    ) -> Result<DeploymentManifest, Error> {
        let call = Call::put(&[COLLECTION, id.as_str()], &manifest.body());
        self.client.rest().read(&call.with_secrets(secrets(&manifest.data))).await
    }

    /// Changes what the update names and leaves the rest (JSON merge patch, RFC 7396).
    ///
    /// # Errors
    /// [`Error`]; its status is 412 where the update has an etag and the manifest was changed meanwhile, and it is
    /// [`Error::Lost`] where that was perhaps this very call.
    pub async fn update(
        &self,
        id: &DeploymentManifestId,
        update: &DeploymentManifestUpdate,
    ) -> Result<DeploymentManifest, Error> {
        let call = Call::merge_patch(&[COLLECTION, id.as_str()], &update.body());
        self.client.rest().read(&call.with_secrets(update.data.iter().flat_map(secrets))).await
    }

    /// Deletes a deployment manifest. Devices that it was assigned to keep what they run.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where there was none.
    pub async fn delete(&self, id: &DeploymentManifestId) -> Result<(), Error> {
        self.client.rest().carry_out(&Call::delete(&[COLLECTION, id.as_str()])).await
    }

    /// Gives a device the content of a deployment manifest: `applyDeploymentManifest`. The same content twice has the
    /// effect of once, so a call whose answer was lost is repeated.
    ///
    /// # Errors
    /// [`Error`]; [`is_not_found`](Error::is_not_found) where there is no such device.
    pub async fn assign(&self, device: &DeviceId, data: &Map<String, Value>) -> Result<(), Error> {
        let path = [devices::COLLECTION, device.as_str(), "applyDeploymentManifest"];
        let call = Call::post(&path, &json!({ "data": data })).repeatable();
        self.client.rest().carry_out(&call.with_secrets(secrets(data))).await
    }
}

/// The passwords in a manifest: those of the registries that modules come from.
fn secrets(data: &Map<String, Value>) -> Vec<SecretString> {
    let mut found = Vec::new();
    let mut rest: Vec<_> = data.iter().map(|(name, value)| (name.as_str(), value)).collect();
    while let Some((name, value)) = rest.pop() {
        match value {
            Value::String(text) if name.to_ascii_lowercase().contains("password") => found.push(text.as_str().into()),
            Value::Object(fields) => rest.extend(fields.iter().map(|(name, value)| (name.as_str(), value))),
            Value::Array(values) => rest.extend(values.iter().map(|value| (name, value))),
            _ => {}
        }
    }
    found
}

/// A deployment manifest, as the service describes it. It is serialised as the service does; `Debug` leaves its content
/// out, which may hold passwords.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DeploymentManifest {
    /// Its id.
    pub id: DeploymentManifestId,
    /// Its name, as people see it.
    pub display_name: String,
    /// Its content: `modulesContent` and what else belongs to it.
    pub data: Map<String, Value>,
    /// The ids of its organizations.
    #[serde(default, deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,
    /// Its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<Etag>,
}

impl fmt::Debug for DeploymentManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeploymentManifest")
            .field("id", &self.id)
            .field("display_name", &self.display_name)
            .field("organizations", &self.organizations)
            .field("etag", &self.etag)
            .finish_non_exhaustive()
    }
}

/// A deployment manifest to be. `Debug` leaves its content out.
#[derive(Clone)]
pub struct NewDeploymentManifest {
    /// Its name, as people see it.
    pub display_name: String,
    /// Its content: `modulesContent` and what else belongs to it.
    pub data: Map<String, Value>,
    /// The ids of its organizations. Named to the service where there are any.
    pub organizations: Vec<String>,
    /// The state of the manifest that this replaces: the service refuses with 412 if it has changed since.
    pub etag: Option<Etag>,
}

impl NewDeploymentManifest {
    /// A deployment manifest with this name and content.
    #[must_use]
    pub fn new(display_name: impl Into<String>, data: Map<String, Value>) -> Self {
        Self { display_name: display_name.into(), data, organizations: Vec::new(), etag: None }
    }

    fn body(&self) -> Value {
        object([
            ("displayName", Some(json!(self.display_name))),
            ("data", Some(json!(self.data))),
            ("organizations", (!self.organizations.is_empty()).then(|| json!(self.organizations))),
            ("etag", json_of(self.etag.as_ref())),
        ])
    }
}

impl fmt::Debug for NewDeploymentManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewDeploymentManifest")
            .field("display_name", &self.display_name)
            .field("organizations", &self.organizations)
            .field("etag", &self.etag)
            .finish_non_exhaustive()
    }
}

/// A change to a deployment manifest: what is named is changed, the rest is left. `Debug` leaves its content out.
#[derive(Clone, Default)]
pub struct DeploymentManifestUpdate {
    /// The new name.
    pub display_name: Option<String>,
    /// What changes in the content, itself a merge patch: a field that is null is removed, one that is not named stays.
    pub data: Option<Map<String, Value>>,
    /// The ids of its organizations, all of them.
    pub organizations: Option<Vec<String>>,
    /// The state of the manifest that this changes: the service refuses with 412 if it has changed since.
    pub etag: Option<Etag>,
}

impl DeploymentManifestUpdate {
    fn body(&self) -> Value {
        object([
            ("displayName", json_of(self.display_name.as_ref())),
            ("data", json_of(self.data.as_ref())),
            ("organizations", json_of(self.organizations.as_ref())),
            ("etag", json_of(self.etag.as_ref())),
        ])
    }
}

impl fmt::Debug for DeploymentManifestUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeploymentManifestUpdate")
            .field("display_name", &self.display_name)
            .field("organizations", &self.organizations)
            .field("etag", &self.etag)
            .finish_non_exhaustive()
    }
}
