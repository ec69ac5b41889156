//! The options of DPS: its instance and the sign-in there.

use std::path::PathBuf;

use anyhow::{Context, bail};

use super::{
    error::UsageError,
    input::{secret, secret_in_lines},
    next_command::NextCommand,
    service::{Connection, entra, from_variable, is_set},
};
use crate::{
    arm::{
        self, AccessRight, InstanceName, InstanceQuery, ProvisioningService, ResourceGroupName, SharedAccessPolicy,
        SubscriptionId,
    },
    certificate::NameError,
    dps::service::{self, ApiVersion, Authorization, ConnectionString, Secret},
    workflow::migrate::PlannedInstance,
};

const DPS: &str = "IOT_ENROLL_DPS";
const SUBSCRIPTION: &str = "AZURE_SUBSCRIPTION_ID";
const ARM_TOKEN: &str = "IOT_ENROLL_ARM_TOKEN";
const ARM_ENDPOINT: &str = "IOT_ENROLL_ARM_ENDPOINT";
const CONNECTION_STRING: &str = "IOT_ENROLL_DPS_CONNECTION_STRING";

/// Options of the commands that speak to DPS only.
#[derive(clap::Args)]
pub(super) struct DpsService {
    #[command(flatten)]
    instance: Instance,
    #[command(flatten)]
    connection: Connection,
}

/// The instance, and the sign-in there.
#[derive(clap::Args)]
#[command(next_help_heading = "DPS instance")]
pub(super) struct Instance {
    /// Name of the DPS instance [env: IOT_ENROLL_DPS]
    ///
    /// It is searched for in the subscriptions that the sign-in can see.
    #[arg(long, value_name = "NAME")]
    dps: Option<InstanceName>,
    /// Subscription of the instance [env: AZURE_SUBSCRIPTION_ID]
    #[arg(long, value_name = "ID")]
    subscription: Option<SubscriptionId>,
    /// Resource group of the instance
    #[arg(long, value_name = "NAME")]
    resource_group: Option<ResourceGroupName>,
    /// File with a token for Resource Manager (or set IOT_ENROLL_ARM_TOKEN to it)
    ///
    /// The first line of the file is a Microsoft Entra token. Enrollments are then managed with a key of the instance, which
    /// Resource Manager returns. By default the sign-in is with Microsoft Entra for both: it uses the AZURE_* environment
    /// variables, a managed identity, the Azure CLI or the Azure Developer CLI.
    #[arg(long, value_name = "FILE")]
    arm_token_file: Option<PathBuf>,
    /// File with a connection string (or set IOT_ENROLL_DPS_CONNECTION_STRING to it)
    ///
    /// Enrollments are managed with its key. Commands that only need enrollments then need no --dps.
    #[arg(long, value_name = "FILE")]
    connection_string_file: Option<PathBuf>,
    /// URL of Resource Manager elsewhere, or an emulator [env: IOT_ENROLL_ARM_ENDPOINT]
    ///
    /// [default: https://management.azure.com]
    #[arg(long, value_name = "URL")]
    arm_endpoint: Option<arm::Endpoint>,
    /// Version of the Resource Manager API
    ///
    /// [default: 2022-12-12]
    #[arg(long, value_name = "VERSION")]
    arm_api_version: Option<ApiVersion>,
}

/// An instance that was found.
pub(super) struct FoundInstance {
    pub(super) arm: arm::Client,
    pub(super) properties: ProvisioningService,
}

impl FoundInstance {
    /// Returns access to its certificates and keys.
    pub(super) fn resource(&self) -> arm::Instance {
        self.arm.instance(&self.properties.id)
    }
}

impl DpsService {
    /// Builds a client of the service API to manage enrollments.
    pub(super) async fn client(&self) -> anyhow::Result<service::Client> {
        self.instance.service(Records::Enrollments, &self.connection).await
    }

    /// Builds a client of the service API to manage registration records.
    pub(super) async fn registrations_client(&self) -> anyhow::Result<service::Client> {
        self.instance.service(Records::Registrations, &self.connection).await
    }

    /// Finds the instance.
    pub(super) async fn find(&self) -> anyhow::Result<FoundInstance> {
        self.instance.find(&self.connection).await
    }

    /// Builds a client of the service API of an instance that was found.
    pub(super) async fn client_of(&self, found: &FoundInstance) -> anyhow::Result<service::Client> {
        self.instance.service_of(found, Records::Enrollments, &self.connection).await
    }
}

/// What a client of the service API manages, which needs different rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Records {
    Enrollments,
    Registrations,
}

impl Records {
    /// Returns the rights to change the records, and to read them.
    fn rights(self) -> [AccessRight; 2] {
        match self {
            Self::Enrollments => [AccessRight::EnrollmentWrite, AccessRight::EnrollmentRead],
            Self::Registrations => [AccessRight::RegistrationStatusWrite, AccessRight::RegistrationStatusRead],
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Enrollments => Self::Registrations,
            Self::Registrations => Self::Enrollments,
        }
    }

    /// Chooses a policy: the one that may change these records, or else read them; among several the one with the most
    /// rights on the other records.
    fn choose(self, policies: Vec<SharedAccessPolicy>) -> Option<SharedAccessPolicy> {
        let level = |records: Self, policy: &SharedAccessPolicy| {
            let [write, read] = records.rights();
            if policy.has(&write) { 2 } else { u8::from(policy.has(&read)) }
        };
        let usable = policies.into_iter().filter(|policy| level(self, policy) > 0);
        usable.max_by_key(|policy| (level(self, policy), level(self.other(), policy)))
    }
}

impl Instance {
    /// Finds the instance by its name.
    pub(super) async fn find(&self, connection: &Connection) -> anyhow::Result<FoundInstance> {
        let name = self.name()?.ok_or_else(|| {
            UsageError::new("no DPS instance given").with_hint(format!("use --dps NAME, or set {DPS}"))
        })?;
        let subscription = match &self.subscription {
            Some(id) => Some(id.clone()),
            None => from_variable(SUBSCRIPTION, |text| text.parse().map_err(|error: NameError| error.to_string()))?,
        };
        let query = InstanceQuery::new(name).subscription(subscription).resource_group(self.resource_group.clone());
        self.find_by(&query, connection).await
    }

    /// Finds the instance of a plan. What is given on the command line takes precedence, for the caller to compare.
    pub(super) async fn find_planned(
        &self,
        planned: &PlannedInstance,
        connection: &Connection,
    ) -> anyhow::Result<FoundInstance> {
        let name = self.name()?.unwrap_or_else(|| planned.name.clone());
        let subscription = self.subscription.as_ref().unwrap_or(&planned.subscription);
        let group = self.resource_group.as_ref().unwrap_or(&planned.resource_group);
        let query = InstanceQuery::new(name).subscription(subscription.clone()).resource_group(group.clone());
        self.find_by(&query, connection).await
    }

    async fn find_by(&self, query: &InstanceQuery, connection: &Connection) -> anyhow::Result<FoundInstance> {
        let arm = self.resource_manager(connection)?;
        let properties = arm.find(query).await?;
        Ok(FoundInstance { arm, properties })
    }

    /// Builds a client of the service API. A named instance is found first: its address is not composed, and a connection
    /// string must be its own.
    async fn service(&self, records: Records, connection: &Connection) -> anyhow::Result<service::Client> {
        if self.name()?.is_some() {
            return self.service_of(&self.find(connection).await?, records, connection).await;
        }
        let Some(string) = self.connection_string()? else {
            let hint = format!("use --dps NAME or --connection-string-file FILE, or set {DPS} or {CONNECTION_STRING}");
            return Err(UsageError::new("no DPS instance given").with_hint(hint).into());
        };
        // A connection string has no scheme. Resource Manager at the same address has one. Otherwise, without --tls-ca, an
        // address of this machine is that of an emulator without TLS: no public CA issues certificates for it.
        let arm = self.arm_endpoint()?;
        let is_plain = if arm.host() == string.host() { !arm.is_https() } else { connection.ca_file.is_none() };
        let plain = format!("http://{}", string.host()).parse().ok();
        let plain = plain.filter(|endpoint: &service::Endpoint| is_plain && endpoint.is_loopback());
        let endpoint = match plain {
            Some(endpoint) => endpoint,
            None => string.host().parse().context("the host of the connection string is not valid")?,
        };
        service_client(endpoint, Authorization::from_connection_string(&string), connection)
    }

    /// Builds a client of the service API of an instance that was found.
    pub(super) async fn service_of(
        &self,
        found: &FoundInstance,
        records: Records,
        connection: &Connection,
    ) -> anyhow::Result<service::Client> {
        let endpoint = &found.properties.service_endpoint;
        let authorization = if let Some(string) = self.connection_string()? {
            if !string.host().eq_ignore_ascii_case(endpoint.host()) {
                let (host, name) = (endpoint.host(), &found.properties.id.name);
                let message =
                    format!("the connection string is for {}, but the host of {name} is {host}", string.host());
                let hint = format!("use a connection string of {name}, or omit --dps");
                return Err(UsageError::new(message).with_hint(hint).into());
            }
            Authorization::from_connection_string(&string)
        } else if self.has_token() {
            found.policy_key(records).await?
        } else {
            entra(service::ENTRA_SCOPE, connection.root()?.as_ref())?
        };
        service_client(endpoint.clone(), authorization, connection)
    }

    /// Adds these options to the next command.
    pub(super) fn repeat_in(&self, command: &mut NextCommand) {
        command.optional("--dps", self.dps.as_ref().map(InstanceName::as_str));
        command.optional("--subscription", self.subscription.as_ref().map(SubscriptionId::as_str));
        command.optional("--resource-group", self.resource_group.as_ref().map(ResourceGroupName::as_str));
        command.optional("--arm-token-file", self.arm_token_file.as_ref());
        command.optional("--connection-string-file", self.connection_string_file.as_ref());
        command.optional("--arm-endpoint", self.arm_endpoint.as_ref().map(arm::Endpoint::as_str));
        command.optional("--arm-api-version", self.arm_api_version.as_ref().map(ApiVersion::as_str));
    }

    /// Returns whether the command line names an instance.
    pub(super) fn is_named(&self) -> bool {
        self.dps.is_some()
    }

    /// Returns whether the command line has other options of an instance.
    pub(super) fn has_options(&self) -> bool {
        self.subscription.is_some()
            || self.resource_group.is_some()
            || self.arm_token_file.is_some()
            || self.connection_string_file.is_some()
            || self.arm_endpoint.is_some()
            || self.arm_api_version.is_some()
    }

    /// Returns whether the environment names an instance.
    pub(super) fn is_in_environment() -> bool {
        is_set(DPS)
    }

    fn name(&self) -> anyhow::Result<Option<InstanceName>> {
        match &self.dps {
            Some(name) => Ok(Some(name.clone())),
            None => from_variable(DPS, |text| text.parse().map_err(|error: NameError| error.to_string())),
        }
    }

    /// Returns whether a token for Resource Manager is given, so that the sign-in is not with Microsoft Entra.
    fn has_token(&self) -> bool {
        self.arm_token_file.is_some() || is_set(ARM_TOKEN)
    }

    fn connection_string(&self) -> anyhow::Result<Option<ConnectionString>> {
        let text = match &self.connection_string_file {
            Some(file) => Some(secret_in_lines(file)?),
            None => secret(None, CONNECTION_STRING)?,
        };
        let parsed = text.map(|text| text.parse::<ConnectionString>()).transpose();
        parsed.map_err(|error| UsageError::new(error.to_string()).into())
    }

    fn arm_endpoint(&self) -> anyhow::Result<arm::Endpoint> {
        if let Some(endpoint) = &self.arm_endpoint {
            return Ok(endpoint.clone());
        }
        let endpoint =
            from_variable(ARM_ENDPOINT, |text| text.parse().map_err(|error: arm::EndpointError| error.to_string()));
        Ok(endpoint?.unwrap_or_default())
    }

    /// Builds a client of Resource Manager.
    fn resource_manager(&self, connection: &Connection) -> anyhow::Result<arm::Client> {
        let endpoint = self.arm_endpoint()?;
        let root = connection.root()?;
        let authorization = match secret(self.arm_token_file.as_deref(), ARM_TOKEN)? {
            Some(token) => bearer(token.trim())?,
            None => entra(&endpoint.entra_scope(), root.as_ref())?,
        };
        let mut builder = arm::Client::builder(endpoint).authorization(authorization);
        if let Some(version) = &self.arm_api_version {
            builder = builder.api_version(version.clone());
        }
        if let Some(rate) = connection.rate {
            builder = builder.rate(rate);
        }
        if let Some(root) = &root {
            builder = root.context(builder.add_root_certificate(&root.bytes))?;
        }
        Ok(builder.build()?)
    }
}

/// Returns the token as it is sent. `az account get-access-token` prints it without the scheme.
fn bearer(token: &str) -> anyhow::Result<Authorization> {
    let (scheme, rest) = token.split_once(' ').unwrap_or(("", token));
    if scheme.eq_ignore_ascii_case("SharedAccessSignature") {
        let hint = "use --connection-string-file FILE for a key of the instance";
        return Err(UsageError::new("Resource Manager accepts no shared access signature").with_hint(hint).into());
    }
    let token = if scheme.is_empty() { format!("Bearer {rest}") } else { token.to_owned() };
    Ok(Authorization::parse(Secret::from(token))?)
}

impl FoundInstance {
    /// Reads a key of the instance that may change these records, or else only read them.
    async fn policy_key(&self, records: Records) -> anyhow::Result<Authorization> {
        let name = &self.properties.id.name;
        if self.properties.disable_local_auth {
            let message = format!(
                "{name} accepts no keys (disableLocalAuth), and a token for Resource Manager manages no enrollments"
            );
            let hint = "sign in with Microsoft Entra: omit --arm-token-file and IOT_ENROLL_ARM_TOKEN";
            return Err(UsageError::new(message).with_hint(hint).into());
        }
        let policies: Vec<_> = self.resource().policies().try_collect().await?;
        let Some(policy) = records.choose(policies) else {
            let [write, read] = records.rights();
            bail!("no shared access policy of {name} has the right {write} or {read}");
        };
        Ok(Authorization::from_shared_access_key(policy.key()?))
    }
}

fn service_client(
    endpoint: service::Endpoint,
    authorization: Authorization,
    connection: &Connection,
) -> anyhow::Result<service::Client> {
    let mut builder = service::Client::builder(endpoint).authorization(authorization);
    if let Some(version) = connection.version()? {
        builder = builder.api_version(version);
    }
    if let Some(rate) = connection.rate {
        builder = builder.rate(rate);
    }
    if let Some(root) = connection.root()? {
        builder = root.context(builder.add_root_certificate(&root.bytes))?;
    }
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chosen(records: Records, policies: &[(&str, &str)]) -> Option<String> {
        let policy = |(name, rights): &(&str, &str)| {
            let json = json!({ "keyName": name, "rights": rights, "primaryKey": "a2V5", "secondaryKey": "a2V5" });
            serde_json::from_value(json).expect("a policy")
        };
        records.choose(policies.iter().map(policy).collect()).map(|policy| policy.name)
    }

    #[test]
    fn policy_with_the_right_is_chosen_and_reading_is_enough() {
        let (enrollments, registrations) = (Records::Enrollments, Records::Registrations);
        let readers = [("d", "DeviceConnect"), ("e", "EnrollmentRead"), ("r", "RegistrationStatusRead")];
        assert_eq!(chosen(enrollments, &readers).as_deref(), Some("e"));
        assert_eq!(chosen(registrations, &readers).as_deref(), Some("r"));
        assert_eq!(chosen(registrations, &readers[..2]), None);
        let all = "EnrollmentWrite, RegistrationStatusWrite";
        let writers =
            [("e", "EnrollmentWrite"), ("all", all), ("r", "RegistrationStatusWrite"), ("x", "EnrollmentRead")];
        assert_eq!(chosen(enrollments, &writers).as_deref(), Some("all"));
        assert_eq!(chosen(registrations, &writers).as_deref(), Some("all"));
    }
}
