//! The options of the commands that move devices from IoT Central to DPS: both services at once.

use std::{num::NonZeroU32, path::PathBuf};

use super::{
    dps_service::{Instance, Records},
    error::UsageError,
    next_command::NextCommand,
    service::{Application, Connection},
};
use crate::{
    central,
    dps::service,
    workflow::{DpsInstance, migrate::PlanHeader},
};

/// Options of the commands that speak to an application and to a DPS instance.
#[derive(clap::Args)]
pub(super) struct BothServices {
    #[command(flatten)]
    application: Application,
    // Before the connection, because the heading of a flattened struct also applies to the options after it.
    #[command(flatten)]
    instance: Instance,
    #[command(flatten)]
    connection: BothConnections,
}

/// How to speak to both services.
#[derive(clap::Args)]
#[command(next_help_heading = "Service")]
struct BothConnections {
    /// File with one more root certificate to trust for TLS, in PEM
    #[arg(long = "tls-ca", value_name = "FILE", alias = "ca-file")]
    ca_file: Option<PathBuf>,
    /// Maximum number of requests per second to each service [default: 20, DPS: 16]
    ///
    /// All clients of an application or a DPS share its limit.
    #[arg(long, value_name = "REQUESTS_PER_SECOND")]
    rate: Option<NonZeroU32>,
}

impl BothServices {
    /// Builds a client of the application that is named.
    pub(super) fn application(&self) -> anyhow::Result<central::Client> {
        self.application.client(&self.connection())
    }

    /// Finds the instance that is named, and builds its clients.
    pub(super) async fn instance(&self) -> anyhow::Result<DpsInstance> {
        let connection = self.connection();
        let found = self.instance.find(&connection).await?;
        let client = self.instance.service_of(&found, Records::Enrollments, &connection).await?;
        Ok(DpsInstance::new(&found.arm, found.properties, client))
    }

    /// Builds a client of the application of a plan. One that is named has to be the same.
    ///
    /// An application may have been deleted, and another one created at its address: the ID scope is compared if the plan has
    /// it, and a device of the application tells it.
    pub(super) async fn planned_application(&self, plan: &PlanHeader) -> anyhow::Result<central::Client> {
        let planned = plan.application.endpoint.parse().map_err(|_| mismatch("an address that is not valid"))?;
        if let Some(named) = self.application.named()?.filter(|named| *named != planned) {
            return Err(mismatch(&format!("the application {planned}, not {named}")));
        }
        let client = self.application.client_at(planned, &self.connection())?;
        if let Some(planned) = &plan.application.id_scope
            && let Some(found) = id_scope(&client).await?.filter(|found| !found.eq_ignore_ascii_case(planned))
        {
            let message = format!("the plan is for the application with the ID scope {planned}, not {found}");
            let hint = "another application has its address now, or the file was changed: make a plan again";
            return Err(UsageError::new(message).with_hint(hint).into());
        }
        Ok(client)
    }

    /// Finds the instance of a plan, and builds its clients. One that is named has to be the same.
    pub(super) async fn planned_instance(&self, plan: &PlanHeader) -> anyhow::Result<DpsInstance> {
        self.open_planned(plan, Records::Enrollments).await
    }

    /// Does the same with a client that may manage registration records.
    pub(super) async fn planned_registrations(&self, plan: &PlanHeader) -> anyhow::Result<service::Client> {
        Ok(self.open_planned(plan, Records::Registrations).await?.client().clone())
    }

    async fn open_planned(&self, plan: &PlanHeader, records: Records) -> anyhow::Result<DpsInstance> {
        let connection = self.connection();
        let planned = &plan.instance;
        let found = self.instance.find_planned(planned, &connection).await?;
        let (id, scope) = (&found.properties.id, &found.properties.id_scope);
        let is_same = id.name == planned.name
            && id.subscription == planned.subscription
            && id.resource_group == planned.resource_group
            && scope.as_str().eq_ignore_ascii_case(&planned.id_scope);
        if !is_same {
            return Err(mismatch(&format!(
                "the instance {} with the ID scope {}, not {id} with the ID scope {scope}",
                planned.name, planned.id_scope
            )));
        }
        let client = self.instance.service_of(&found, records, &connection).await?;
        Ok(DpsInstance::new(&found.arm, found.properties, client))
    }

    /// Returns whether the command line names an application, or how to sign in there.
    pub(super) fn names_application(&self) -> bool {
        self.application.is_named() || self.application.has_token_file()
    }

    /// Returns the file of one more trusted root, for clients of other endpoints.
    pub(super) fn connection(&self) -> Connection {
        let BothConnections { ca_file, rate } = &self.connection;
        // The services have different versions.
        Connection { ca_file: ca_file.clone(), api_version: None, rate: *rate }
    }

    /// Adds the options for signing in to the next command. A plan names the services themselves.
    pub(super) fn repeat_in(&self, command: &mut NextCommand) {
        self.application.repeat_in(command);
        self.instance.repeat_in(command);
        self.connection().repeat_in(command);
    }
}

/// Reads the ID scope of an application from the credentials of one of its devices. Returns none if it has no device, or the
/// sign-in may not read credentials.
async fn id_scope(client: &central::Client) -> Result<Option<String>, central::Error> {
    let mut devices = client.devices().list(&central::DeviceQuery::new());
    while let Some(device) = devices.next().await.transpose()? {
        if !device.simulated {
            return match client.devices().credentials(&device.id).await {
                Ok(credentials) => Ok(Some(credentials.id_scope)),
                Err(error) if error.is_not_found() || error.status() == Some(403) => Ok(None),
                Err(error) => Err(error),
            };
        }
    }
    Ok(None)
}

fn mismatch(found: &str) -> anyhow::Error {
    let hint = "omit --app, --endpoint and --dps, and unset IOT_ENROLL_APP, IOT_ENROLL_ENDPOINT and IOT_ENROLL_DPS: the plan \
                names the services; or make a plan for these";
    UsageError::new(format!("the plan is for {found}")).with_hint(hint).into()
}
