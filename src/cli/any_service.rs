//! The options of the commands that enroll at IoT Central or at DPS.

use super::{
    dps_service::{FoundInstance, Instance, Records},
    error::UsageError,
    next_command::NextCommand,
    service::{Application, Connection},
};
use crate::{
    central,
    dps::service,
    workflow::{self, DpsInstance, GroupId},
};

/// Options of the commands that speak to IoT Central or to DPS.
#[derive(clap::Args)]
pub(super) struct AnyService {
    #[command(flatten)]
    pub(super) application: Application,
    // Before the connection, because the heading of a flattened struct also applies to the options after it.
    #[command(flatten)]
    pub(super) instance: Instance,
    #[command(flatten)]
    pub(super) connection: Connection,
}

/// A kind of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServiceKind {
    Central,
    Dps,
}

impl ServiceKind {
    /// Checks an enrollment group ID by the rule of the service.
    pub(super) fn check_group(self, group: &GroupId) -> anyhow::Result<()> {
        let checked = match self {
            Self::Central => {
                central::EnrollmentGroupId::new(group.as_str()).map(drop).map_err(|error| error.to_string())
            }
            Self::Dps => service::EnrollmentGroupId::new(group.as_str()).map(drop).map_err(|error| error.to_string()),
        };
        checked.map_err(|error| UsageError::new(format!("the value of --group is not valid: {error}")).into())
    }
}

impl AnyService {
    /// Returns which service is named, if one is. The command line overrides the environment.
    pub(super) fn named(&self) -> anyhow::Result<Option<ServiceKind>> {
        let kind = match (self.application.is_named(), self.instance.is_named()) {
            (true, true) => return Err(two_services("--app (or --endpoint) and --dps")),
            (true, false) => Some(ServiceKind::Central),
            (false, true) => Some(ServiceKind::Dps),
            (false, false) => match (Application::is_in_environment(), Instance::is_in_environment()) {
                (true, true) => return Err(two_services("the environment variables")),
                (true, false) => Some(ServiceKind::Central),
                (false, true) => Some(ServiceKind::Dps),
                (false, false) => None,
            },
        };
        if kind == Some(ServiceKind::Dps) && self.application.has_token_file() {
            let hint = "use --arm-token-file FILE, or sign in with Microsoft Entra";
            return Err(UsageError::new("--token-file is for IoT Central, not for a DPS instance")
                .with_hint(hint)
                .into());
        }
        if kind != Some(ServiceKind::Dps) && self.instance.has_options() {
            let hint = "name the instance with --dps NAME, or omit the options of the DPS instance";
            return Err(UsageError::new("options of a DPS instance are given, but no instance is named")
                .with_hint(hint)
                .into());
        }
        Ok(kind)
    }

    /// Returns which service is named. It is wrong usage if none is.
    pub(super) fn kind(&self) -> anyhow::Result<ServiceKind> {
        self.named()?.ok_or_else(|| {
            let hint = "use --app SUBDOMAIN or --endpoint URL for IoT Central, or --dps NAME for DPS; or set IOT_ENROLL_APP, \
                        IOT_ENROLL_ENDPOINT or IOT_ENROLL_DPS";
            UsageError::new("no application or DPS instance given").with_hint(hint).into()
        })
    }

    /// Returns whether a service is named and a sign-in there is given. At DPS it is with Microsoft Entra by default.
    pub(super) fn is_usable(&self) -> bool {
        match self.named() {
            Ok(Some(ServiceKind::Dps)) => true,
            Ok(Some(ServiceKind::Central)) => self.application.is_usable(),
            Ok(None) | Err(_) => false,
        }
    }

    /// Builds the clients of the service. A DPS instance is found and read.
    pub(super) async fn open(&self) -> anyhow::Result<workflow::Service> {
        match self.kind()? {
            ServiceKind::Central => Ok(self.application.client(&self.connection)?.into()),
            ServiceKind::Dps => {
                let found = self.instance.find(&self.connection).await?;
                Ok(self.open_instance(found).await?.into())
            }
        }
    }

    /// Builds the clients of an instance that was found.
    pub(super) async fn open_instance(&self, found: FoundInstance) -> anyhow::Result<DpsInstance> {
        let client = self.instance.service_of(&found, Records::Enrollments, &self.connection).await?;
        Ok(DpsInstance::new(&found.arm, found.properties, client))
    }

    /// Adds these options to the next command. Environment variables need not be repeated.
    pub(super) fn repeat_in(&self, command: &mut NextCommand) {
        self.application.repeat_in(command);
        self.instance.repeat_in(command);
        self.connection.repeat_in(command);
    }
}

fn two_services(what: &str) -> anyhow::Error {
    let hint = "name one: --app SUBDOMAIN for IoT Central, or --dps NAME for DPS";
    UsageError::new(format!("{what} name both an application and a DPS instance")).with_hint(hint).into()
}
