//! `deployment-manifest`: what runs on IoT Edge devices.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Map, Value, json};

use super::{
    device::{comma_separated, json_file},
    output::{Output, fields, table},
    service::{Service, block_on},
};
use crate::central::{
    DeploymentManifest, DeploymentManifestId, DeploymentManifestUpdate, DeploymentManifests, DeviceId, Etag,
    NewDeploymentManifest,
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the deployment manifests
    #[command(after_help = "Example:\n  iot-enroll deployment-manifest list --app contoso --token-file token")]
    List {
        /// Stop after so many
        #[arg(long)]
        top: Option<usize>,
        #[command(flatten)]
        service: Service,
    },
    /// Show a deployment manifest
    #[command(after_help = "Example:\n  iot-enroll deployment-manifest show manifest1")]
    Show {
        /// The manifest
        id: DeploymentManifestId,
        #[command(flatten)]
        service: Service,
    },
    /// Create a deployment manifest
    #[command(after_help = "Example:\n  iot-enroll deployment-manifest create manifest1 --file deployment.json")]
    Create {
        /// The manifest
        id: DeploymentManifestId,
        /// Its name, as people see it [default: its id]
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// A JSON file with its content: modulesContent and what else belongs to it
        #[arg(long, value_name = "JSON")]
        file: PathBuf,
        /// An organization it belongs to; may be given more than once
        #[arg(long = "organization", value_name = "ID")]
        organizations: Vec<String>,
        /// Replace a manifest that exists
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        service: Service,
    },
    /// Change a deployment manifest; what is not named stays as it is
    #[command(after_help = "Example:\n  iot-enroll deployment-manifest update manifest1 --display-name 'Second try'")]
    Update {
        /// The manifest
        id: DeploymentManifestId,
        #[command(flatten)]
        change: Changes,
        /// Change it only if it still has this etag
        #[arg(long)]
        etag: Option<String>,
        #[command(flatten)]
        service: Service,
    },
    /// Delete a deployment manifest
    #[command(after_help = "Example:\n  iot-enroll deployment-manifest delete manifest1")]
    Delete {
        /// The manifest
        id: DeploymentManifestId,
        #[command(flatten)]
        service: Service,
    },
    /// Assign a deployment manifest to an IoT Edge device
    #[command(after_help = "Examples:
  iot-enroll deployment-manifest assign manifest1 --device gateway-1
  iot-enroll deployment-manifest assign --file deployment.json --device gateway-1")]
    Assign {
        /// The manifest
        #[arg(required_unless_present = "file")]
        id: Option<DeploymentManifestId>,
        /// A JSON file with the content, instead of a manifest of the application
        #[arg(long, value_name = "JSON", conflicts_with = "id")]
        file: Option<PathBuf>,
        /// The device
        #[arg(long, value_name = "ID")]
        device: DeviceId,
        #[command(flatten)]
        service: Service,
    },
}

/// What an update changes.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Changes {
    /// The new name
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// A JSON file with what changes in its content, as a merge patch
    #[arg(long, value_name = "JSON")]
    file: Option<PathBuf>,
    /// All organizations it belongs to, parted by commas; empty for none
    #[arg(long, value_name = "IDS")]
    organizations: Option<String>,
}

impl Command {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        block_on(self.act(output))
    }

    async fn act(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::List { top, service } => {
                let found: Vec<_> = manifests(service)?.list().take(top.unwrap_or(usize::MAX)).try_collect().await?;
                output.result(&found, || {
                    table(["ID", "NAME"], found.iter().map(|it| [it.id.to_string(), it.display_name.clone()]))
                })
            }
            Self::Show { id, service } => show(&manifests(service)?.get(&id).await?, output),
            Self::Create { id, display_name, file, organizations, force, service } => {
                let data = content(&file)?;
                let manifests = manifests(service)?;
                // The service's PUT would replace a manifest.
                if !force && manifests.find(&id).await?.is_some() {
                    bail!("the deployment manifest {id} exists already: update it, or replace it with --force");
                }
                let name = display_name.unwrap_or_else(|| id.to_string());
                let manifest = NewDeploymentManifest { organizations, ..NewDeploymentManifest::new(name, data) };
                show(&manifests.create(&id, &manifest).await?, output)
            }
            Self::Update { id, change, etag, service } => {
                let update = DeploymentManifestUpdate {
                    display_name: change.display_name,
                    data: change.file.as_deref().map(content).transpose()?,
                    organizations: change.organizations.map(|ids| comma_separated(&ids)),
                    etag: etag.map(Etag::new),
                };
                show(&manifests(service)?.update(&id, &update).await?, output)
            }
            Self::Delete { id, service } => {
                manifests(service)?.delete(&id).await?;
                output
                    .result(&json!({ "id": id, "deleted": true }), || format!("Deleted the deployment manifest {id}."))
            }
            Self::Assign { id, file, device, service } => {
                let content = file.as_deref().map(content).transpose()?;
                let manifests = manifests(service)?;
                let data = match (content, &id) {
                    (Some(data), _) => data,
                    (None, Some(id)) => manifests.get(id).await?.data,
                    (None, None) => bail!("name a manifest, or a file with --file"),
                };
                manifests.assign(&device, &data).await?;
                let what = id.map_or("the manifest".to_owned(), |id| id.to_string());
                output
                    .result(&json!({ "device": device, "assigned": true }), || format!("Assigned {what} to {device}."))
            }
        }
    }
}

fn manifests(service: Service) -> anyhow::Result<DeploymentManifests> {
    Ok(service.client()?.deployment_manifests())
}

/// The content of a manifest: the file itself, or its `data` where it is the whole body of the REST API.
fn content(file: &Path) -> anyhow::Result<Map<String, Value>> {
    let mut read: Map<String, Value> = json_file(file)?;
    match read.remove("data") {
        Some(Value::Object(data))
            if read.keys().all(|name| matches!(name.as_str(), "id" | "displayName" | "etag" | "organizations")) =>
        {
            Ok(data)
        }
        Some(data) => {
            read.insert("data".to_owned(), data);
            Ok(read)
        }
        None if read.is_empty() => Err(anyhow::anyhow!("{} is empty", file.display())),
        None => Ok(read),
    }
    .with_context(|| "a deployment manifest has content, such as modulesContent".to_owned())
}

fn show(manifest: &DeploymentManifest, output: &Output) -> anyhow::Result<()> {
    output.result(manifest, || {
        let mut rows = vec![("id", manifest.id.to_string()), ("name", manifest.display_name.clone())];
        if !manifest.organizations.is_empty() {
            rows.push(("organizations", manifest.organizations.join(", ")));
        }
        rows.push(("content", manifest.data.keys().cloned().collect::<Vec<_>>().join(", ")));
        rows.extend(manifest.etag.as_ref().map(|etag| ("etag", etag.as_str().to_owned())));
        fields(&rows)
    })
}
