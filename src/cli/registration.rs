//! What `device register`, for one device or many, and `provision --register` share.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::Value;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::{
    any_service::{AnyService, ServiceKind},
    args::{KeyPassword, Pfx, PfxPassword},
    error::UsageError,
    input::{parse_json, read, secret},
    output::Output,
    service::{Connection, from_variable},
};
use crate::{
    arm::ProvisioningService,
    central::{Client, DeviceQuery},
    certificate::{Certificate, DeviceId, ReadError, files, pfx},
    dps::device::{
        ApiVersion, Assignment, Attempt, Cause, Credential, DeviceCertificate, DiagnosedError, EnrollmentState,
        ISSUING_API_VERSION, IdScope, IdScopeError, OperationalRequest, ProvisioningEndpoint,
        ProvisioningEndpointError, RegistrationClient, RegistrationClientBuilder, RegistrationError,
        RegistrationErrorKind, SymmetricKey, diagnose,
    },
    workflow,
};

const ID_SCOPE: &str = "IOT_ENROLL_ID_SCOPE";
const DPS_ENDPOINT: &str = "IOT_ENROLL_DPS_ENDPOINT";
/// The first version of the device API that takes certificate requests.
const FIRST_ISSUING: &str = "2025-07-01";
const PROVISIONING: &str = "Provisioning service";
pub(super) const GROUP_KEY: &str = "IOT_ENROLL_GROUP_KEY";

/// Options of the provisioning service.
///
/// Each has the heading itself: the heading of a flattened struct also applies to the options after it.
#[derive(clap::Args)]
pub(super) struct Provisioning {
    /// ID scope [env: IOT_ENROLL_ID_SCOPE] [default: read from the service]
    ///
    /// The page Device connection of the application shows it, and dps show. With --dps the default is the ID scope of the
    /// instance.
    #[arg(long, value_name = "SCOPE", help_heading = PROVISIONING)]
    id_scope: Option<IdScope>,
    /// URL of the provisioning service [env: IOT_ENROLL_DPS_ENDPOINT]
    ///
    /// [default: that of the instance if its ID scope is read, or https://global.azure-devices-provisioning.net]
    #[arg(long, value_name = "URL", help_heading = PROVISIONING)]
    dps_endpoint: Option<ProvisioningEndpoint>,
}

impl Provisioning {
    /// Returns the ID scope from the command line or else from the environment.
    pub(super) fn given_id_scope(&self) -> anyhow::Result<Option<IdScope>> {
        if let Some(scope) = &self.id_scope {
            return Ok(Some(scope.clone()));
        }
        from_variable(ID_SCOPE, |scope| scope.parse().map_err(|error: IdScopeError| error.to_string()))
    }

    /// Returns the ID scope and the address of an instance, unless the command line names others. The environment may be
    /// meant for another service.
    pub(super) fn of_instance(&self, instance: &ProvisioningService) -> Place {
        Place {
            id_scope: self.id_scope.clone().unwrap_or_else(|| instance.id_scope.clone()),
            endpoint: self.dps_endpoint.clone().unwrap_or_else(|| instance.device_endpoint.clone()),
        }
    }

    /// Returns an ID scope and the address from the command line or the environment.
    pub(super) fn with_id_scope(&self, id_scope: IdScope) -> anyhow::Result<Place> {
        let endpoint = match &self.dps_endpoint {
            Some(endpoint) => Some(endpoint.clone()),
            None => from_variable(DPS_ENDPOINT, |text| {
                text.parse().map_err(|error: ProvisioningEndpointError| error.to_string())
            })?,
        };
        Ok(Place { id_scope, endpoint: endpoint.unwrap_or_default() })
    }
}

/// Where devices register.
pub(super) struct Place {
    id_scope: IdScope,
    endpoint: ProvisioningEndpoint,
}

impl Place {
    /// Builds a client with the trusted root and the rate of the service options.
    pub(super) fn client(self, connection: &Connection) -> anyhow::Result<RegistrationClient> {
        Ok(self.builder(connection)?.build()?)
    }

    fn builder(self, connection: &Connection) -> anyhow::Result<RegistrationClientBuilder> {
        let mut builder = RegistrationClient::builder(self.id_scope).endpoint(self.endpoint);
        if let Some(root) = connection.root()? {
            builder = root.context(builder.add_root_certificate(&root.bytes))?;
        }
        if let Some(rate) = connection.rate {
            builder = builder.rate(rate);
        }
        Ok(builder)
    }
}

/// Reads the ID scope of an application from the credentials of any device: the REST API has it nowhere else.
pub(super) async fn read_id_scope(client: &Client) -> anyhow::Result<IdScope> {
    let any = DeviceQuery { limit: Some(1), ..DeviceQuery::default() };
    let any: Vec<_> = client.devices().list(&any).try_collect().await?;
    let Some(device) = any.first() else {
        let error = UsageError::new("could not read the ID scope from the application: it has no devices");
        let hint = "use --id-scope SCOPE; the application's page Device connection shows it";
        return Err(error.with_hint(hint).into());
    };
    let credentials = client.devices().credentials(&device.id).await?;
    credentials.id_scope.parse().context("the application returned an invalid ID scope")
}

/// Symmetric key of an enrollment group.
#[derive(clap::Args)]
pub(super) struct GroupKey {
    /// File with the group's symmetric key (or set IOT_ENROLL_GROUP_KEY to it)
    ///
    /// The key of the enrollment group is the first line of the file, in base64. The device's key is derived from it.
    #[arg(long, value_name = "FILE")]
    group_key_file: Option<PathBuf>,
}

impl GroupKey {
    pub(super) fn read(&self) -> anyhow::Result<Option<SymmetricKey>> {
        let key = secret(self.group_key_file.as_deref(), GROUP_KEY)?;
        key.map(|key| SymmetricKey::from_base64(&key)).transpose().context("could not use the enrollment group's key")
    }

    /// Reads the key, if the devices of a manifest register by it. Notes which of the key and the manifest's files is not
    /// used.
    pub(super) fn for_manifest(&self, names_files: bool, output: &Output) -> anyhow::Result<Option<SymmetricKey>> {
        if !names_files {
            return self.read();
        }
        if self.group_key_file.is_some() {
            output.note("the devices register by the group's key, and the files that the manifest names are not used");
            return self.read();
        }
        if std::env::var_os(GROUP_KEY).is_some_and(|value| !value.is_empty()) {
            output.note(format_args!(
                "the devices register with the files that the manifest names, and the key in {GROUP_KEY} is not used; \
                 --group-key-file would use one"
            ));
        }
        Ok(None)
    }
}

/// Options that registering one device and registering many share.
#[derive(clap::Args)]
pub(super) struct RegistrationArgs {
    #[command(flatten)]
    pfx_password: PfxPassword,
    #[command(flatten)]
    key_password: KeyPassword,
    #[command(flatten)]
    pub(super) group_key: GroupKey,
    /// JSON file to pass to the allocation policy of the service
    #[arg(long, value_name = "JSON")]
    payload: Option<PathBuf>,
    #[command(flatten)]
    provisioning: Provisioning,
    #[command(flatten)]
    service: AnyService,
}

impl RegistrationArgs {
    pub(super) fn passwords(&self) -> anyhow::Result<Passwords> {
        Ok(Passwords { pfx: self.pfx_password.given()?, key: self.key_password.given()? })
    }

    /// Returns the options of a new PFX file.
    pub(super) fn pfx(&self, legacy: bool) -> anyhow::Result<Pfx> {
        Pfx::new(&self.pfx_password, legacy)
    }

    /// Connects to the provisioning service. Without an ID scope, reads it from the service that is named.
    pub(super) async fn registrar(self) -> anyhow::Result<Registrar> {
        self.registrar_with(None).await
    }

    /// Connects as [`registrar`](Self::registrar) does, to register with certificate requests. `--api-version` is then that
    /// of the device API, and not of the service that a cause is looked up at.
    pub(super) async fn issuing_registrar(mut self) -> anyhow::Result<Registrar> {
        let version = self.service.connection.version::<ApiVersion>()?;
        if let Some(version) = version.as_ref().filter(|version| version.is_before(FIRST_ISSUING)) {
            let hint = format!("omit --api-version, or use {ISSUING_API_VERSION}");
            let message = format!("version {version} of the device API takes no certificate request");
            return Err(UsageError::new(message).with_hint(hint).into());
        }
        self.service.connection.api_version = None;
        self.registrar_with(version).await
    }

    async fn registrar_with(self, version: Option<ApiVersion>) -> anyhow::Result<Registrar> {
        let payload = self.payload.as_deref().map(|file| parse_json(file, &read(file)?, "JSON")).transpose()?;
        let mut builder = self.place().await?.builder(&self.service.connection)?;
        if let Some(version) = version {
            builder = builder.api_version(version);
        }
        Ok(Registrar { client: builder.build()?, payload, service: self.service, enrollment: OnceCell::new() })
    }

    async fn place(&self) -> anyhow::Result<Place> {
        let AnyService { application, instance, connection } = &self.service;
        // Only the instance has the address of its device API. The ID scope in the environment may be that of another service.
        if instance.is_named() {
            self.service.named()?;
            return Ok(self.provisioning.of_instance(&instance.find(connection).await?.properties));
        }
        if let Some(id_scope) = self.provisioning.given_id_scope()? {
            return self.provisioning.with_id_scope(id_scope);
        }
        match self.service.named()? {
            Some(ServiceKind::Dps) => Ok(self.provisioning.of_instance(&instance.find(connection).await?.properties)),
            Some(ServiceKind::Central) if application.is_named() || application.is_usable() => {
                self.provisioning.with_id_scope(read_id_scope(&application.client(connection)?).await?)
            }
            _ => {
                let hint = format!(
                    "use --id-scope SCOPE or set {ID_SCOPE}, or read it from the application with --app SUBDOMAIN and a \
                     token, or from a DPS instance with --dps NAME; the application's page Device connection shows it"
                );
                Err(UsageError::new("no ID scope given").with_hint(hint).into())
            }
        }
    }
}

/// The passwords of the files that hold private keys.
pub(super) struct Passwords {
    pub(super) pfx: Option<Zeroizing<String>>,
    pub(super) key: Option<Zeroizing<String>>,
}

impl Passwords {
    /// Reads the certificate, chain and key of a device from a certificate and a key file, or from one PEM or PFX file.
    pub(super) fn device_certificate(&self, cert: &Path, key: Option<&Path>) -> anyhow::Result<DeviceCertificate> {
        let no_certificate = || format!("could not read a certificate from {}", cert.display());
        let bytes = read(cert)?;
        let pfx_password = self.pfx.as_ref().map(|password| password.as_str());
        let passwords =
            files::Passwords { key: self.key.as_ref().map(|password| password.as_str()), pfx: pfx_password };
        let read_key = |file: &Path, bytes: &[u8]| files::parse_key(file, bytes, passwords);
        let (certificates, key) = match (Certificate::read_all(&bytes), key) {
            (Err(ReadError::Pfx), None) => {
                let (key, certificates) = pfx::read_identity(&bytes, pfx_password).with_context(no_certificate)?;
                (certificates, key)
            }
            (Err(ReadError::Pfx), Some(key)) => {
                (pfx::read(&bytes, pfx_password).with_context(no_certificate)?, read_key(key, &read(key)?)?)
            }
            (certificates, Some(key)) => (certificates.with_context(no_certificate)?, read_key(key, &read(key)?)?),
            (certificates, None) => (
                certificates.with_context(no_certificate)?,
                read_key(cert, &bytes).context("no private key for the device: give it with --key FILE")?,
            ),
        };
        Ok(DeviceCertificate::new(certificates, &key)?)
    }
}

/// Registers devices, and finds out why one was refused.
pub(super) struct Registrar {
    pub(super) client: RegistrationClient,
    pub(super) payload: Option<Value>,
    pub(super) service: AnyService,
    /// The state of the service when the first device was refused. `None` if it could not be read.
    enrollment: OnceCell<Option<(workflow::Service, EnrollmentState)>>,
}

impl Registrar {
    pub(super) async fn register(
        &self,
        id: &DeviceId,
        credential: &Credential,
    ) -> Result<Assignment, RegistrationError> {
        self.client.register(id, credential, self.payload.as_ref()).await
    }

    pub(super) async fn register_for_certificate(
        &self,
        request: &OperationalRequest,
        credential: &Credential,
    ) -> Result<Assignment, RegistrationError> {
        self.client.register_for_certificate(request, credential, self.payload.as_ref()).await
    }

    /// Finds out why a device was not registered. Reads the service only if that can tell.
    pub(super) async fn explain(
        &self,
        attempt: &Attempt<'_>,
        error: RegistrationError,
        output: &Output,
    ) -> RegistrationFailure {
        let mut diagnosis = diagnose(attempt, &error, None);
        if diagnosis.needs_application
            && let Some(state) = self.state(attempt.id, output).await
        {
            diagnosis = diagnose(attempt, &error, Some(&state));
        }
        let asks_for_service = diagnosis.needs_application
            && !self.service.is_usable()
            && !matches!(diagnosis.first(), Some(Cause::TlsIntercepted { .. }));
        if matches!(error.kind, RegistrationErrorKind::IssuedCertificate { .. }) {
            let hint = Some("nothing was written; the same command requests another certificate".to_owned());
            return RegistrationFailure { unregistered: DiagnosedError::new(error, diagnosis), hint };
        }
        let hint = "give --app SUBDOMAIN or --endpoint URL and a token, or --dps NAME, to look up what is enrolled, verified \
                    and enabled";
        RegistrationFailure {
            unregistered: DiagnosedError::new(error, diagnosis),
            hint: asks_for_service.then(|| hint.to_owned()),
        }
    }

    async fn state(&self, id: &DeviceId, output: &Output) -> Option<EnrollmentState> {
        if !self.service.is_usable() {
            return None;
        }
        let note = |error: anyhow::Error| {
            output.note(format_args!("could not look up the cause at the service: {error:#}"));
        };
        let read = || async {
            let read = async {
                let service = self.service.open().await?;
                let state = workflow::read_enrollment_state(&service).await?;
                anyhow::Ok((service, state))
            };
            read.await.map_err(note).ok()
        };
        let (service, state) = self.enrollment.get_or_init(read).await.as_ref()?;
        workflow::read_device_state(service, state, id).await.map_err(|error| note(error.into())).ok()
    }
}

/// A device that was not registered, with the diagnosis.
#[derive(Debug)]
pub(super) struct RegistrationFailure {
    pub(super) unregistered: DiagnosedError,
    pub(super) hint: Option<String>,
}

impl RegistrationFailure {
    pub(super) fn lacks_chain(&self) -> bool {
        matches!(self.unregistered.diagnosis.first(), Some(Cause::ChainNotSent { .. }))
    }
}

impl fmt::Display for RegistrationFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.unregistered.fmt(f)
    }
}

impl std::error::Error for RegistrationFailure {}
