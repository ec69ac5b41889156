//! Deployment manifests: the modules that IoT Edge devices run.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    client::Client,
    device_groups::or_empty,
    devices,
    endpoint::ApiVersion,
    id::{CentralDeviceId, DeploymentManifestId},
};
use crate::transport::{Call, Error, Etag, Listing, Secret, items, json_of, object, setters};

const COLLECTION: &str = "deploymentManifests";

/// The deployment manifests of an application: `/deploymentManifests` of the API.
///
/// Calls use version 2022-10-31-preview of the API regardless of the client's version: no other has them.
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
/// Failed calls are retried by the client's [`RetryPolicy`](super::RetryPolicy).
#[derive(Debug, Clone)]
pub struct DeploymentManifests {
    client: Client,
}

impl Client {
    /// Returns the deployment manifests of the application.
    #[must_use]
    pub fn deployment_manifests(&self) -> DeploymentManifests {
        DeploymentManifests { client: self.with_api_version(ApiVersion::V2022_10_31Preview) }
    }
}

impl DeploymentManifests {
    /// Lists all deployment manifests.
    pub fn list(&self) -> Listing<DeploymentManifest> {
        items(self.client.rest().clone(), Call::get(&[COLLECTION]), None)
    }

    /// Reads a deployment manifest.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the deployment manifest does not exist.
    pub async fn get(&self, id: &DeploymentManifestId) -> Result<DeploymentManifest, Error> {
        self.client.rest().read(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Reads a deployment manifest. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn find(&self, id: &DeploymentManifestId) -> Result<Option<DeploymentManifest>, Error> {
        self.client.rest().find(&Call::get(&[COLLECTION, id.as_str()])).await
    }

    /// Creates a deployment manifest. Sends two requests: one to see that it does not exist, and one to create it.
    ///
    /// The API has no conditional create. A deployment manifest that another client creates between the two requests is
    /// replaced.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the deployment manifest exists, or another [`Error`].
    pub async fn create(
        &self,
        id: &DeploymentManifestId,
        manifest: &NewDeploymentManifest,
    ) -> Result<DeploymentManifest, Error> {
        self.client.create(&Self::put(id, manifest)).await
    }

    /// Replaces a deployment manifest, or creates it if missing. To change an existing deployment manifest,
    /// [`update`](Self::update) it.
    ///
    /// # Errors
    /// [`Error`]. If the new deployment manifest has an etag that is not the current one, the status is 412, or the
    /// error is [`Error::OutcomeUnknown`] if an answer was lost before.
    pub async fn replace(
        &self,
        id: &DeploymentManifestId,
        manifest: &NewDeploymentManifest,
    ) -> Result<DeploymentManifest, Error> {
        self.client.rest().read(&Self::put(id, manifest)).await
    }

    fn put(id: &DeploymentManifestId, manifest: &NewDeploymentManifest) -> Call {
        Call::put(&[COLLECTION, id.as_str()], &manifest.body()).with_secrets(secrets(&manifest.data))
    }

    /// Changes the fields that the update names and keeps the rest (JSON merge patch, RFC 7396).
    ///
    /// # Errors
    /// [`Error`]. If the update has an etag that is not the deployment manifest's current one, the status is 412, or
    /// the error is [`Error::OutcomeUnknown`] if an answer was lost before.
    pub async fn update(
        &self,
        id: &DeploymentManifestId,
        update: &DeploymentManifestUpdate,
    ) -> Result<DeploymentManifest, Error> {
        let call = Call::merge_patch(&[COLLECTION, id.as_str()], &update.body());
        self.client.rest().read(&call.with_secrets(update.data.iter().flat_map(secrets))).await
    }

    /// Deletes a deployment manifest. Devices that it was assigned to keep their modules.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the deployment manifest does not exist.
    pub async fn delete(&self, id: &DeploymentManifestId) -> Result<(), Error> {
        self.client.rest().execute(&Call::delete(&[COLLECTION, id.as_str()])).await
    }

    /// Assigns the content of a deployment manifest to a device (`applyDeploymentManifest`). The call is idempotent, so
    /// it is retried if its answer is lost.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the device does not exist.
    pub async fn assign(&self, device: &CentralDeviceId, data: &Map<String, Value>) -> Result<(), Error> {
        let path = [devices::COLLECTION, device.as_str(), "applyDeploymentManifest"];
        let call = Call::post(&path, &json!({ "data": data })).repeatable();
        self.client.rest().execute(&call.with_secrets(secrets(data))).await
    }
}

/// Returns the passwords in a manifest, which are those of container registries.
fn secrets(data: &Map<String, Value>) -> Vec<Secret> {
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

/// A deployment manifest. It serializes to the service's JSON. `Debug` omits the content, which may contain passwords.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DeploymentManifest {
    /// The ID.
    pub id: DeploymentManifestId,
    /// The display name.
    pub display_name: String,
    /// The content: `modulesContent` and related fields.
    pub data: Map<String, Value>,
    /// The IDs of its organizations.
    #[serde(default, deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,
    /// The version of the resource.
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

/// The fields of a deployment manifest to create. `Debug` omits the content.
#[derive(Clone)]
#[non_exhaustive]
pub struct NewDeploymentManifest {
    /// The display name.
    pub display_name: String,
    /// The content: `modulesContent` and related fields.
    pub data: Map<String, Value>,
    /// The IDs of its organizations. Sent if there are any.
    pub organizations: Vec<String>,
    /// The version of the deployment manifest to replace. The service refuses to replace another version (412).
    pub etag: Option<Etag>,
}

impl NewDeploymentManifest {
    /// Returns a deployment manifest with this display name and content.
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

setters!(NewDeploymentManifest {
    organizations: Vec<String>,
    etag: Option<Etag>,
});

/// A change to a deployment manifest. Fields that are not set keep their value. `Debug` omits the content.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct DeploymentManifestUpdate {
    /// The display name.
    pub display_name: Option<String>,
    /// The change of the content, which is a merge patch itself: null removes a field, and a missing field is kept.
    pub data: Option<Map<String, Value>>,
    /// The IDs of all its organizations.
    pub organizations: Option<Vec<String>>,
    /// The version of the deployment manifest to change. The service refuses to change another version (412).
    pub etag: Option<Etag>,
}

setters!(DeploymentManifestUpdate {
    display_name: Option<String>,
    data: Option<Map<String, Value>>,
    organizations: Option<Vec<String>>,
    etag: Option<Etag>,
});

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
