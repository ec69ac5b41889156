//! What `provision` runs against: a service, or the emulator.

use std::{num::NonZeroU32, time::Duration};

use crate::{
    arm::{self, InstanceQuery},
    central::{self, Authorization},
    dps::{
        device::{IdScope, RegistrationClient},
        service::{self, ConnectionString},
    },
    emulator::Emulator,
    workflow::{DpsInstance, Service},
};

/// The service to provision at.
pub(super) struct Target {
    /// The emulator, if this command started one.
    pub(super) emulator: Option<Emulator>,
    pub(super) service: Service,
    /// The client that devices register with, if they do.
    pub(super) registration: Option<RegistrationClient>,
}

impl Target {
    /// Starts an emulator for its application.
    pub(super) async fn start_application(register: bool) -> anyhow::Result<Self> {
        let emulator = start_emulator(register).await?;
        let mut client = central::Client::builder(emulator.endpoint().parse()?)
            .authorization(Authorization::parse(emulator.token().to_owned())?)
            .rate(NonZeroU32::MAX);
        if let Some(root) = emulator.ca_pem() {
            client = client.add_root_certificate(root.as_bytes())?;
        }
        let id_scope = emulator.id_scope().parse()?;
        let registration = if register { Some(registration_client(&emulator, id_scope)?) } else { None };
        Ok(Self { service: client.build()?.into(), registration, emulator: Some(emulator) })
    }

    /// Starts an emulator for its DPS instance.
    pub(super) async fn start_instance(register: bool) -> anyhow::Result<Self> {
        let emulator = start_emulator(register).await?;
        let root = emulator.ca_pem().map(str::as_bytes);
        let token = emulator.arm_token().trim_start_matches("Bearer ");
        let mut arm = arm::Client::builder(emulator.endpoint().parse()?)
            .authorization(Authorization::parse(format!("Bearer {token}"))?)
            .rate(NonZeroU32::MAX);
        if let Some(root) = root {
            arm = arm.add_root_certificate(root)?;
        }
        let arm = arm.build()?;
        let found = arm.find(&InstanceQuery::new(emulator.dps_name().parse()?)).await?;
        let connection: ConnectionString = emulator.dps_connection_string().parse()?;
        let mut client = service::Client::builder(found.service_endpoint.clone())
            .authorization(Authorization::from_connection_string(&connection))
            .rate(NonZeroU32::MAX);
        if let Some(root) = root {
            client = client.add_root_certificate(root)?;
        }
        let registration = if register { Some(registration_client(&emulator, found.id_scope.clone())?) } else { None };
        let service = DpsInstance::new(&arm, found, client.build()?).into();
        Ok(Self { service, registration, emulator: Some(emulator) })
    }
}

/// Starts an emulator, over TLS if devices register, because they do it with their certificates. Only this command uses it,
/// so the clients need no limit.
async fn start_emulator(register: bool) -> anyhow::Result<Emulator> {
    Ok(Emulator::builder().tls(register).registration_retry_after(Duration::ZERO).start().await?)
}

fn registration_client(emulator: &Emulator, id_scope: IdScope) -> anyhow::Result<RegistrationClient> {
    let mut client = RegistrationClient::builder(id_scope).endpoint(emulator.endpoint().parse()?).rate(NonZeroU32::MAX);
    if let Some(root) = emulator.ca_pem() {
        client = client.add_root_certificate(root.as_bytes())?;
    }
    Ok(client.build()?)
}
