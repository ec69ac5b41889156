//! `deployment-manifest`: deployment manifests, which define the modules of IoT Edge devices.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::{
    args::{Confirmation, comma_separated, count, etag},
    json_file::JsonFile,
    output::{Output, fields, table},
    service::{Service, block_on},
};
use crate::central::{
    CentralDeviceId, DeploymentManifest, DeploymentManifestId, DeploymentManifestUpdate, DeploymentManifests, Etag,
    NewDeploymentManifest,
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List deployment manifests
    #[command(after_help = "Example:\n  iot-enroll deployment-manifest list --app contoso --token-file token")]
    List {
        /// Maximum number of manifests to list [default: all]
        #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
        top: Option<usize>,
        #[command(flatten)]
        service: Service,
    },
    /// Show a deployment manifest
    #[command(after_help = "Example:\n  iot-enroll deployment-manifest show manifest1")]
    Show {
        /// ID of the deployment manifest
        id: DeploymentManifestId,
        #[command(flatten)]
        service: Service,
    },
    Create(Box<Create>),
    /// Update a deployment manifest
    ///
    /// Values that are not given stay unchanged.
    #[command(override_usage = "iot-enroll deployment-manifest update [OPTIONS] <ID>")]
    #[command(after_help = "Example:\n  iot-enroll deployment-manifest update manifest1 --display-name 'Second try'")]
    Update {
        /// ID of the deployment manifest
        id: DeploymentManifestId,
        #[command(flatten)]
        change: Changes,
        /// Update the manifest only if it still has this etag
        #[arg(long, value_parser = etag)]
        etag: Option<Etag>,
        #[command(flatten)]
        service: Service,
    },
    /// Delete a deployment manifest
    #[command(after_help = "Example:\n  iot-enroll deployment-manifest delete manifest1")]
    Delete {
        /// ID of the deployment manifest
        id: DeploymentManifestId,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        service: Service,
    },
    /// Assign a deployment manifest to an IoT Edge device
    #[command(after_help = "Examples:
  iot-enroll deployment-manifest assign manifest1 --device gateway-1
  iot-enroll deployment-manifest assign --file deployment.json --device gateway-1")]
    Assign {
        /// ID of the deployment manifest
        #[arg(required_unless_present = "file")]
        id: Option<DeploymentManifestId>,
        /// JSON file with the content, instead of a manifest of the application
        #[arg(long, value_name = "JSON", conflicts_with = "id")]
        file: Option<PathBuf>,
        /// ID of the IoT Edge device
        #[arg(long, value_name = "ID")]
        device: CentralDeviceId,
        #[command(flatten)]
        service: Service,
    },
}

/// Create a deployment manifest
#[derive(clap::Args)]
#[command(after_help = "Example:\n  iot-enroll deployment-manifest create manifest1 --file deployment.json")]
pub(super) struct Create {
    /// ID of the deployment manifest
    id: DeploymentManifestId,
    /// Display name [default: the ID]
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// JSON file with the content or the request body; - is standard input
    ///
    /// The content has modulesContent. The request body has data, and optionally displayName and organizations.
    #[arg(long, value_name = "JSON")]
    file: PathBuf,
    /// Organization of the manifest; can be repeated
    #[arg(long = "organization", value_name = "ID")]
    organizations: Vec<String>,
    /// Overwrite the manifest only if it still has this etag
    #[arg(long, conflicts_with = "force", value_parser = etag)]
    etag: Option<Etag>,
    /// Overwrite an existing manifest
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    service: Service,
}

/// The changes of an update.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Changes {
    /// New display name
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// JSON file with a merge patch of the content or of the request body
    ///
    /// - is standard input.
    #[arg(long, value_name = "JSON")]
    file: Option<PathBuf>,
    /// All organizations of the manifest, separated by commas; empty for none
    #[arg(long, value_name = "IDS")]
    organizations: Option<String>,
}

impl Command {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        block_on(self.run_async(output))
    }

    async fn run_async(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::List { top, service } => {
                let found: Vec<_> = manifests(&service)?.list().take(top.unwrap_or(usize::MAX)).try_collect().await?;
                output.result(&found, || {
                    table(["ID", "NAME"], found.iter().map(|it| [it.id.to_string(), it.display_name.clone()]))
                })
            }
            Self::Show { id, service } => show(&manifests(&service)?.get(&id).await?, output),
            Self::Create(create) => create.run(output).await,
            Self::Update { id, change, etag, service } => {
                let file =
                    change.file.map(|file| ManifestFile::read(&file, Some(&id))).transpose()?.unwrap_or_default();
                let update = DeploymentManifestUpdate {
                    display_name: change.display_name.or(file.display_name),
                    data: file.data,
                    organizations: change.organizations.map(|ids| comma_separated(&ids)).or(file.organizations),
                    etag: etag.or(file.etag),
                };
                if update.display_name.is_none() && update.data.is_none() && update.organizations.is_none() {
                    bail!("the file changes nothing in the deployment manifest {id}");
                }
                show(&manifests(&service)?.update(&id, &update).await?, output)
            }
            Self::Delete { id, confirmation, service } => {
                confirmation.ask(&format!("delete the deployment manifest {id}?"))?;
                manifests(&service)?.delete(&id).await?;
                output
                    .result(&json!({ "id": id, "deleted": true }), || format!("Deleted the deployment manifest {id}."))
            }
            Self::Assign { id, file, device, service } => {
                let file = file.map(|file| ManifestFile::read_with_data(&file, None)).transpose()?;
                let manifests = manifests(&service)?;
                let data = match (file, &id) {
                    (Some((_, data)), _) => data,
                    (None, Some(id)) => manifests.get(id).await?.data,
                    (None, None) => bail!("a manifest is required: give its ID or --file FILE"),
                };
                manifests.assign(&device, &data).await?;
                let what = id.map_or("the manifest".to_owned(), |id| id.to_string());
                output
                    .result(&json!({ "device": device, "assigned": true }), || format!("Assigned {what} to {device}."))
            }
        }
    }
}

impl Create {
    async fn run(self, output: &Output) -> anyhow::Result<()> {
        let Self { id, display_name, file, organizations, etag, force, service } = self;
        let (file, data) = ManifestFile::read_with_data(&file, Some(&id))?;
        let manifest = NewDeploymentManifest {
            display_name: display_name.or(file.display_name).unwrap_or_else(|| id.to_string()),
            data,
            organizations: match file.organizations {
                Some(of_file) if organizations.is_empty() => of_file,
                _ => organizations,
            },
            etag: etag.or(file.etag),
        };
        let manifests = manifests(&service)?;
        // The service's PUT overwrites a manifest.
        if !force && manifest.etag.is_none() && manifests.find(&id).await?.is_some() {
            bail!("the deployment manifest {id} already exists: update it, or overwrite it with --force");
        }
        show(&manifests.replace(&id, &manifest).await?, output)
    }
}

fn manifests(service: &Service) -> anyhow::Result<DeploymentManifests> {
    Ok(service.preview_client()?.deployment_manifests())
}

/// A file with the request body of a deployment manifest, or with its content only.
#[derive(Default)]
struct ManifestFile {
    display_name: Option<String>,
    data: Option<Map<String, Value>>,
    organizations: Option<Vec<String>>,
    etag: Option<Etag>,
}

impl ManifestFile {
    /// The members of a request body. Content has none of them.
    const MEMBERS: [&str; 5] = ["id", "displayName", "data", "organizations", "etag"];

    fn read(path: &Path, id: Option<&DeploymentManifestId>) -> anyhow::Result<Self> {
        let mut file = JsonFile::read(path)?;
        if file.members.is_empty() {
            return file.refuse("it is empty; a deployment manifest has content, such as modulesContent");
        }
        if !file.members.keys().any(|name| Self::MEMBERS.contains(&name.as_str())) {
            return Ok(Self { data: Some(file.members), ..Self::default() });
        }
        match id {
            Some(id) => file.take_id(id.as_str())?,
            None => drop(file.members.remove("id")),
        }
        let manifest = Self {
            display_name: file.take_string("displayName")?,
            data: file.take("data", "an object")?,
            organizations: file.take_strings("organizations")?,
            etag: file.take("etag", "a string")?,
        };
        file.finish()?;
        Ok(manifest)
    }

    /// Reads a file that must have content.
    fn read_with_data(path: &Path, id: Option<&DeploymentManifestId>) -> anyhow::Result<(Self, Map<String, Value>)> {
        let mut file = Self::read(path, id)?;
        let data = file.data.take();
        let data = data.with_context(|| format!("{} has no data, the content of the manifest", path.display()))?;
        Ok((file, data))
    }
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
