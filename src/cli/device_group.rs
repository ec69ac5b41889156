//! `device-group`: device groups of an application, which are queries over its devices.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::json;

use super::{
    args::{Confirmation, comma_separated, count, etag},
    device::{change, list as list_devices},
    json_file::JsonFile,
    output::{Output, fields, table},
    service::{Service, block_on},
};
use crate::central::{DeviceGroup, DeviceGroupId, DeviceGroupUpdate, DeviceGroups, Etag, NewDeviceGroup};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List device groups
    #[command(after_help = "Example:\n  iot-enroll device-group list --app contoso --token-file token")]
    List {
        /// Maximum number of groups to list [default: all]
        #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
        top: Option<usize>,
        #[command(flatten)]
        service: Service,
    },
    /// Show a device group
    #[command(after_help = "Example:\n  iot-enroll device-group show group1")]
    Show {
        /// ID of the device group
        id: DeviceGroupId,
        #[command(flatten)]
        service: Service,
    },
    Create(Box<Create>),
    /// Update a device group
    ///
    /// Values that are not given stay unchanged.
    #[command(override_usage = "iot-enroll device-group update [OPTIONS] <ID>")]
    #[command(after_help = "Example:\n  iot-enroll device-group update group1 --display-name 'New group name'")]
    Update {
        /// ID of the device group
        id: DeviceGroupId,
        #[command(flatten)]
        change: Changes,
        /// Update the group only if it still has this etag
        #[arg(long, value_parser = etag)]
        etag: Option<Etag>,
        #[command(flatten)]
        service: Service,
    },
    /// Delete a device group
    #[command(after_help = "Example:\n  iot-enroll device-group delete group1")]
    Delete {
        /// ID of the device group
        id: DeviceGroupId,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        service: Service,
    },
    /// List the devices that a group selects
    #[command(after_help = "Example:\n  iot-enroll device-group devices group1")]
    Devices {
        /// ID of the device group
        id: DeviceGroupId,
        /// Maximum number of devices to list [default: all]
        #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
        top: Option<usize>,
        #[command(flatten)]
        service: Service,
    },
}

/// Create a device group
#[derive(clap::Args)]
#[command(after_help = "Example:\n  iot-enroll device-group create group1 --display-name 'Device group 1' --filter \
                  'SELECT * FROM devices WHERE $provisioned = true'")]
pub(super) struct Create {
    /// ID of the device group
    id: DeviceGroupId,
    /// Display name [default: the ID]
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// Query that selects the devices
    #[arg(long, value_name = "QUERY", required_unless_present = "file")]
    filter: Option<String>,
    /// Description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Organization of the group; can be repeated
    #[arg(long = "organization", value_name = "ID")]
    organizations: Vec<String>,
    /// JSON file with the request body; - is standard input
    ///
    /// Replaces the options above.
    #[arg(
        long,
        value_name = "JSON",
        conflicts_with_all = ["display_name", "filter", "description", "organizations"]
    )]
    file: Option<PathBuf>,
    /// Overwrite the group only if it still has this etag
    #[arg(long, conflicts_with = "force", value_parser = etag)]
    etag: Option<Etag>,
    /// Overwrite an existing group
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
    /// New query
    #[arg(long, value_name = "QUERY")]
    filter: Option<String>,
    /// New description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Remove the description
    #[arg(long, conflicts_with = "description")]
    clear_description: bool,
    /// All organizations of the group, separated by commas; empty for none
    #[arg(long, value_name = "IDS")]
    organizations: Option<String>,
    /// JSON file with a merge patch; - is standard input
    ///
    /// Replaces the options above.
    #[arg(
        long,
        value_name = "JSON",
        conflicts_with_all = ["display_name", "filter", "description", "clear_description", "organizations"]
    )]
    file: Option<PathBuf>,
}

impl Command {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        block_on(self.run_async(output))
    }

    async fn run_async(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::List { top, service } => {
                let found: Vec<_> = groups(&service)?.list().take(top.unwrap_or(usize::MAX)).try_collect().await?;
                output.result(&found, || {
                    let rows = found.iter().map(|it| [it.id.to_string(), it.display_name.clone(), it.filter.clone()]);
                    table(["ID", "NAME", "FILTER"], rows)
                })
            }
            Self::Show { id, service } => show(&groups(&service)?.get(&id).await?, output),
            Self::Create(create) => create.run(output).await,
            Self::Update { id, change, etag, service } => {
                let update = change.update(&id)?;
                let update = DeviceGroupUpdate { etag: etag.or(update.etag), ..update };
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

impl Create {
    async fn run(self, output: &Output) -> anyhow::Result<()> {
        let Self { id, display_name, filter, description, organizations, file, etag, force, service } = self;
        let group = match file {
            Some(file) => read_new_group(&file, &id)?,
            None => NewDeviceGroup {
                description,
                organizations,
                ..NewDeviceGroup::new(display_name.unwrap_or_else(|| id.to_string()), filter.unwrap_or_default())
            },
        };
        let group = NewDeviceGroup { etag: etag.or(group.etag), ..group };
        let groups = groups(&service)?;
        // The service's PUT overwrites a group.
        if !force && group.etag.is_none() && groups.find(&id).await?.is_some() {
            bail!("the device group {id} already exists: update it, or overwrite it with --force");
        }
        show(&groups.replace(&id, &group).await?, output)
    }
}

impl Changes {
    fn update(self, id: &DeviceGroupId) -> anyhow::Result<DeviceGroupUpdate> {
        if let Some(file) = self.file {
            return read_update(&file, id);
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

fn read_new_group(path: &Path, id: &DeviceGroupId) -> anyhow::Result<NewDeviceGroup> {
    let mut file = JsonFile::read(path)?;
    file.take_id(id.as_str())?;
    let Some(filter) = file.take_string("filter")? else { return file.refuse("it has no filter, the group's query") };
    let group = NewDeviceGroup {
        display_name: file.take_string("displayName")?.unwrap_or_else(|| id.to_string()),
        filter,
        description: file.take_string("description")?,
        organizations: file.take_strings("organizations")?.unwrap_or_default(),
        etag: file.take("etag", "a string")?,
    };
    file.finish()?;
    Ok(group)
}

fn read_update(path: &Path, id: &DeviceGroupId) -> anyhow::Result<DeviceGroupUpdate> {
    let mut file = JsonFile::read(path)?;
    file.take_id(id.as_str())?;
    if file.members.keys().all(|name| name == "etag") {
        return file.refuse("it changes nothing");
    }
    let update = DeviceGroupUpdate {
        display_name: file.take_string("displayName")?,
        filter: file.take_string("filter")?,
        description: file.take_change("description")?,
        organizations: file.take_strings("organizations")?,
        etag: file.take("etag", "a string")?,
    };
    file.finish()?;
    Ok(update)
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
