//! `device-group`: queries over the devices of an application.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    args::{Confirmation, count},
    device::{change, comma_separated, list as list_devices},
    json_file::JsonFile,
    output::{Output, fields, table},
    service::{Service, block_on},
};
use crate::central::{DeviceGroup, DeviceGroupId, DeviceGroupUpdate, DeviceGroups, Etag, NewDeviceGroup};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the device groups
    #[command(after_help = "Example:\n  iot-enroll device-group list --app contoso --token-file token")]
    List {
        /// Stop after this many
        #[arg(long, value_parser = count, allow_negative_numbers = true)]
        top: Option<usize>,
        #[command(flatten)]
        service: Service,
    },
    /// Show a device group
    #[command(after_help = "Example:\n  iot-enroll device-group show group1")]
    Show {
        /// The group
        id: DeviceGroupId,
        #[command(flatten)]
        service: Service,
    },
    /// Create a device group
    #[command(
        after_help = "Example:\n  iot-enroll device-group create group1 --display-name 'Device group 1' --filter \
                      'SELECT * FROM devices WHERE $provisioned = true'"
    )]
    Create {
        /// The group
        id: DeviceGroupId,
        /// The display name [default: the ID]
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// The query
        #[arg(long, value_name = "QUERY", required_unless_present = "file")]
        filter: Option<String>,
        /// The description
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// An organization it belongs to; can be repeated
        #[arg(long = "organization", value_name = "ID")]
        organizations: Vec<String>,
        /// A JSON file with the body, as the REST API takes it, in place of the options
        #[arg(
            long,
            value_name = "JSON",
            conflicts_with_all = ["display_name", "filter", "description", "organizations"]
        )]
        file: Option<PathBuf>,
        /// Overwrite it only if it still has this etag
        #[arg(long, conflicts_with = "force")]
        etag: Option<String>,
        /// Overwrite an existing group
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        service: Service,
    },
    /// Update a device group; what is not named stays unchanged
    #[command(after_help = "Example:\n  iot-enroll device-group update group1 --display-name 'New group name'")]
    Update {
        /// The group
        id: DeviceGroupId,
        #[command(flatten)]
        change: Changes,
        /// Update it only if it still has this etag
        #[arg(long)]
        etag: Option<String>,
        #[command(flatten)]
        service: Service,
    },
    /// Delete a device group
    #[command(after_help = "Example:\n  iot-enroll device-group delete group1")]
    Delete {
        /// The group
        id: DeviceGroupId,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        service: Service,
    },
    /// List the devices that a group selects
    #[command(after_help = "Example:\n  iot-enroll device-group devices group1")]
    Devices {
        /// The group
        id: DeviceGroupId,
        /// Stop after this many
        #[arg(long, value_parser = count, allow_negative_numbers = true)]
        top: Option<usize>,
        #[command(flatten)]
        service: Service,
    },
}

/// What an update changes.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Changes {
    /// The new display name
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// The new query
    #[arg(long, value_name = "QUERY")]
    filter: Option<String>,
    /// The description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Remove the description
    #[arg(long, conflicts_with = "description")]
    clear_description: bool,
    /// All organizations it belongs to, separated by commas; empty for none
    #[arg(long, value_name = "IDS")]
    organizations: Option<String>,
    /// A JSON file with the changes as a merge patch, in place of the options
    #[arg(
        long,
        value_name = "JSON",
        conflicts_with_all = ["display_name", "filter", "description", "clear_description", "organizations"]
    )]
    file: Option<PathBuf>,
}

impl Command {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        block_on(self.act(output))
    }

    async fn act(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::List { top, service } => {
                let found: Vec<_> = groups(&service)?.list().take(top.unwrap_or(usize::MAX)).try_collect().await?;
                output.result(&found, || {
                    let rows = found.iter().map(|it| [it.id.to_string(), it.display_name.clone(), it.filter.clone()]);
                    table(["ID", "NAME", "FILTER"], rows)
                })
            }
            Self::Show { id, service } => show(&groups(&service)?.get(&id).await?, output),
            Self::Create { id, display_name, filter, description, organizations, file, etag, force, service } => {
                let group = match file {
                    Some(file) => new_group(&file, &id)?,
                    None => NewDeviceGroup {
                        description,
                        organizations,
                        ..NewDeviceGroup::new(
                            display_name.unwrap_or_else(|| id.to_string()),
                            filter.unwrap_or_default(),
                        )
                    },
                };
                let group = NewDeviceGroup { etag: etag.map(Etag::new).or(group.etag), ..group };
                let groups = groups(&service)?;
                // The service's PUT would replace a group.
                if !force && group.etag.is_none() && groups.find(&id).await?.is_some() {
                    bail!("the device group {id} exists already: update it, or replace it with --force");
                }
                show(&groups.replace(&id, &group).await?, output)
            }
            Self::Update { id, change, etag, service } => {
                let update = change.update(&id)?;
                let update = DeviceGroupUpdate { etag: etag.map(Etag::new).or(update.etag), ..update };
                show(&groups(&service)?.update(&id, &update).await?, output)
            }
            Self::Delete { id, confirmation, service } => {
                confirmation.ask(&format!("delete the device group {id}?"))?;
                groups(&service)?.delete(&id).await?;
                output.result(&json!({ "id": id, "deleted": true }), || format!("Deleted the device group {id}."))
            }
            Self::Devices { id, top, service } => {
                let devices = groups(&service)?.devices(&id).take(top.unwrap_or(usize::MAX));
                list_devices(&devices.try_collect::<Vec<_>>().await?, output)
            }
        }
    }
}

impl Changes {
    fn update(self, id: &DeviceGroupId) -> anyhow::Result<DeviceGroupUpdate> {
        if let Some(file) = self.file {
            return group_update(&file, id);
        }
        Ok(DeviceGroupUpdate {
            display_name: self.display_name,
            filter: self.filter,
            description: change(self.description, self.clear_description),
            organizations: self.organizations.map(|ids| comma_separated(&ids)),
            etag: None,
        })
    }
}

/// A device group as the body of the REST API has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupFile {
    display_name: Option<String>,
    filter: Option<String>,
    description: Option<String>,
    organizations: Option<Vec<String>>,
    etag: Option<Etag>,
}

fn new_group(path: &Path, id: &DeviceGroupId) -> anyhow::Result<NewDeviceGroup> {
    let mut file = JsonFile::read(path)?;
    file.take_id(id.as_str())?;
    file.only_nullable(&[])?;
    let read: GroupFile = file.into()?;
    let Some(filter) = read.filter else { bail!("{} has no filter, which is a device group's query", path.display()) };
    Ok(NewDeviceGroup {
        display_name: read.display_name.unwrap_or_else(|| id.to_string()),
        filter,
        description: read.description,
        organizations: read.organizations.unwrap_or_default(),
        etag: read.etag,
    })
}

/// A merge patch, in which null and absence are two things.
fn group_update(path: &Path, id: &DeviceGroupId) -> anyhow::Result<DeviceGroupUpdate> {
    let mut file = JsonFile::read(path)?;
    file.take_id(id.as_str())?;
    if file.members.keys().all(|name| name == "etag") {
        return file.refuse("it changes nothing");
    }
    file.only_nullable(&["description"])?;
    let cleared = file.members.get("description").is_some_and(Value::is_null);
    let read: GroupFile = file.into()?;
    Ok(DeviceGroupUpdate {
        display_name: read.display_name,
        filter: read.filter,
        description: change(read.description, cleared),
        organizations: read.organizations,
        etag: read.etag,
    })
}

fn groups(service: &Service) -> anyhow::Result<DeviceGroups> {
    Ok(service.client()?.device_groups())
}

fn show(group: &DeviceGroup, output: &Output) -> anyhow::Result<()> {
    output.result(group, || {
        let mut rows =
            vec![("id", group.id.to_string()), ("name", group.display_name.clone()), ("filter", group.filter.clone())];
        rows.extend(group.description.clone().map(|description| ("description", description)));
        if !group.organizations.is_empty() {
            rows.push(("organizations", group.organizations.join(", ")));
        }
        rows.extend(group.etag.as_ref().map(|etag| ("etag", etag.as_str().to_owned())));
        fields(&rows)
    })
}
