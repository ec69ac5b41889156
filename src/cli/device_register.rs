//! `device register`: a device, as it would do it itself. And `device compute-key`.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::{
    args::{KeyPassword, PfxPassword, read, secret},
    device_register_many::Many,
    output::{GOOD, Output, Usage, fields},
    service::{Service, from_variable},
};
use crate::{
    central::{Client, DeviceQuery},
    certificate::{Certificate, DeviceId, ReadError, Timestamp, files, pfx},
    dps::device::{
        Assignment, Attempt, Cause, Credential, DeviceCertificate, DiagnosedError, EnrollmentState, IdScope,
        IdScopeError, ProvisioningEndpoint, ProvisioningEndpointError, RegistrationClient, RegistrationError,
        SymmetricKey, derive_device_key, diagnose, objections,
    },
    workflow,
};

const ID_SCOPE: &str = "IOT_ENROLL_ID_SCOPE";
const DPS_ENDPOINT: &str = "IOT_ENROLL_DPS_ENDPOINT";
const PROVISIONING: &str = "Provisioning service";
pub(super) const GROUP_KEY: &str = "IOT_ENROLL_GROUP_KEY";

/// What a certificate's file is called, and the file beside it that has the chain too.
const CERTIFICATE: &str = "_cert.pem";
const FULL_CHAIN: &str = "_fullchain.pem";

/// Register a device at the Device Provisioning Service, as the device would do it itself
///
/// It does what the device's firmware would: it presents the certificate, or a token of the symmetric key, and waits
/// until the device is assigned to a hub. If it is refused, the cause is told, as far as it can be found; with an
/// application and a token, which are asked for nothing else, that is nearly always. To register again does no harm.
///
/// With --manifest all devices of a fleet are registered. Each row's outcome is in the results file; those that are
/// assigned there already are left alone, so that the same command goes on after an interruption. With --group-key-file
/// they register by the group's key, and the files that the manifest names are not used; the key in the environment is used
/// only where the manifest names none.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll device register sensor-1 --cert sensor1_fullchain.pem --key sensor1_key.pem --id-scope 0ne00A1B2C3
  iot-enroll device register sensor-1 --cert sensor1.pfx --app contoso --token-file token
  iot-enroll device register sensor-1 --group-key-file group.key --id-scope 0ne00A1B2C3
  iot-enroll device register --manifest fleet/manifest.csv --id-scope 0ne00A1B2C3")]
#[command(group(clap::ArgGroup::new("which").required(true).args(["id", "manifest"])))]
pub(super) struct Register {
    /// The device: its registration id, which is its certificate's common name
    id: Option<DeviceId>,
    /// Its certificate with the chain above it, as PEM (_fullchain.pem), or a PFX file with its key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["symmetric_key_file", "group_key_file", "manifest"])]
    cert: Option<PathBuf>,
    /// Its private key [default: the one in the certificate's file]
    #[arg(long, value_name = "FILE", requires = "cert", conflicts_with_all = ["symmetric_key_file", "group_key_file", "manifest"])]
    key: Option<PathBuf>,
    #[command(flatten)]
    pub(super) pfx_password: PfxPassword,
    #[command(flatten)]
    pub(super) key_password: KeyPassword,
    /// A file whose first line is the device's symmetric key in base64
    #[arg(long, value_name = "FILE", conflicts_with_all = ["group_key_file", "manifest"])]
    symmetric_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) group_key: GroupKey,
    /// A JSON file that the service's allocation policy is given
    #[arg(long, value_name = "JSON")]
    payload: Option<PathBuf>,
    #[command(flatten)]
    pub(super) many: Many,
    #[command(flatten)]
    provisioning: Provisioning,
    #[command(flatten)]
    pub(super) service: Service,
}

/// Which provisioning service.
///
/// The heading is each argument's: a struct's would go on over what follows it where it is flattened.
#[derive(clap::Args)]
pub(super) struct Provisioning {
    /// The ID scope, as the application's page Device connection shows it [env: IOT_ENROLL_ID_SCOPE]
    /// [default: the application's own]
    #[arg(long, value_name = "SCOPE", help_heading = PROVISIONING)]
    id_scope: Option<IdScope>,
    /// The URL of the provisioning service [env: IOT_ENROLL_DPS_ENDPOINT]
    /// [default: https://global.azure-devices-provisioning.net]
    #[arg(long, value_name = "URL", help_heading = PROVISIONING)]
    dps_endpoint: Option<ProvisioningEndpoint>,
}

/// The key of an enrollment group.
#[derive(clap::Args)]
pub(super) struct GroupKey {
    /// A file whose first line is the enrollment group's symmetric key in base64; the device's key is derived from it
    /// [env: IOT_ENROLL_GROUP_KEY holds the key itself]
    #[arg(long, value_name = "FILE")]
    group_key_file: Option<PathBuf>,
}

impl GroupKey {
    pub(super) fn read(&self) -> anyhow::Result<Option<SymmetricKey>> {
        let key = secret(self.group_key_file.as_deref(), GROUP_KEY)?;
        let key = key.map(|key| SymmetricKey::from_base64(&key)).transpose();
        key.context("the enrollment group's key cannot be used")
    }

    /// Whether it is named on the command line.
    pub(super) fn is_named(&self) -> bool {
        self.group_key_file.is_some()
    }

    /// Whether the environment has one.
    pub(super) fn is_in_environment() -> bool {
        std::env::var_os(GROUP_KEY).is_some_and(|value| !value.is_empty())
    }
}

/// An assignment, in the service's words.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Assigned<'a> {
    registration_id: &'a str,
    status: &'static str,
    assigned_hub: &'a str,
    device_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    substatus: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_date_time_utc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_updated_date_time_utc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a Value>,
}

impl Register {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        let Some(id) = self.id.clone() else { return super::device_register_many::run(self, output).await };
        let (credential, unsent) = self.credential(&id)?;
        let full_chain = self.full_chain();
        let registrar = self.registrar().await?;
        let attempt =
            Attempt { id: &id, id_scope: registrar.client.id_scope(), credential: &credential, unsent: &unsent };
        for objection in objections(&attempt, Timestamp::now()) {
            if matches!(objection, Cause::Expired { .. } | Cause::NotYetValid { .. } | Cause::Certificate { .. }) {
                output.note(format_args!("{objection}; it is for the service to judge"));
            }
        }
        let assignment = match registrar.register(&id, &credential).await {
            Ok(assignment) => assignment,
            Err(error) => {
                let mut failure = registrar.explain(&attempt, error, output).await;
                if let Some(file) = full_chain.filter(|file| file.exists() && failure.lacks_chain()) {
                    failure.hint = Some(format!("{} is there: give it with --cert", file.display()));
                }
                return Err(failure.into());
            }
        };
        let moment = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let assigned = Assigned {
            registration_id: &assignment.registration_id,
            status: "assigned",
            assigned_hub: &assignment.assigned_hub,
            device_id: &assignment.device_id,
            substatus: assignment.substatus.as_deref(),
            created_date_time_utc: moment(assignment.created_at),
            last_updated_date_time_utc: moment(assignment.updated_at),
            payload: assignment.payload.as_ref(),
        };
        output.result(&assigned, || {
            let mut rows =
                vec![("assigned hub", assignment.assigned_hub.clone()), ("device id", assignment.device_id.clone())];
            rows.extend(assignment.substatus.clone().map(|substatus| ("substatus", substatus)));
            rows.extend(moment(assignment.created_at).map(|at| ("first registered", at)));
            format!("{GOOD}{id} is registered.{GOOD:#}\n{}", fields(&rows))
        })
    }

    /// What the device proves itself with, and what is known of its chain besides.
    fn credential(&self, id: &DeviceId) -> anyhow::Result<(Credential, Vec<Certificate>)> {
        if let Some(file) = &self.cert {
            let device = self.passwords()?.device_certificate(file, self.key.as_deref())?;
            let unsent = self.full_chain().and_then(|file| Certificate::read_all(&read(&file).ok()?).ok());
            return Ok((device.into(), unsent.unwrap_or_default()));
        }
        if let Some(file) = &self.symmetric_key_file {
            let text = secret(Some(file), "")?.unwrap_or_default();
            let key = SymmetricKey::from_base64(&text);
            return Ok((key.with_context(|| format!("{} cannot be used", file.display()))?.into(), Vec::new()));
        }
        if let Some(key) = self.group_key.read()? {
            return Ok((derive_device_key(&key, id).into(), Vec::new()));
        }
        Err(Usage::with_hint(
            "no certificate or key of the device is given",
            "use --cert FILE and --key FILE, --symmetric-key-file FILE or --group-key-file FILE",
        ))
    }

    /// The file beside the certificate's that has its chain.
    fn full_chain(&self) -> Option<PathBuf> {
        let file = self.cert.as_ref()?;
        let stem = file.file_name()?.to_str()?.strip_suffix(CERTIFICATE)?;
        Some(file.with_file_name(format!("{stem}{FULL_CHAIN}")))
    }

    pub(super) fn passwords(&self) -> anyhow::Result<Passwords> {
        Ok(Passwords { pfx: self.pfx_password.given()?, key: self.key_password.given()? })
    }

    pub(super) async fn registrar(self) -> anyhow::Result<Registrar> {
        let payload = self.payload.as_deref().map(payload).transpose()?;
        let id_scope = match self.provisioning.given_id_scope()? {
            Some(id_scope) => id_scope,
            None if self.service.is_application_named() || self.service.is_named() => {
                read_id_scope(&self.service.client()?).await?
            }
            None => {
                return Err(Usage::with_hint(
                    "no ID scope is given",
                    format!(
                        "use --id-scope SCOPE or {ID_SCOPE} in the environment, or --app SUBDOMAIN and a token to read it \
                         from the application; the application's page Device connection shows it"
                    ),
                ));
            }
        };
        let client = self.provisioning.client(id_scope, &self.service)?;
        Ok(Registrar { client, payload, service: self.service, application: OnceCell::new() })
    }
}

/// Reads the ID scope of an application. Only the credentials of a device show it.
pub(super) async fn read_id_scope(client: &Client) -> anyhow::Result<IdScope> {
    let any = DeviceQuery { limit: Some(1), ..DeviceQuery::default() };
    let any: Vec<_> = client.devices().list(&any).try_collect().await?;
    let Some(device) = any.first() else {
        return Err(Usage::with_hint(
            "the ID scope cannot be read from the application, because it has no devices",
            "use --id-scope SCOPE; the application's page Device connection shows it",
        ));
    };
    let credentials = client.devices().credentials(&device.id).await?;
    credentials.id_scope.parse().context("the application shows an ID scope that is not one")
}

impl Provisioning {
    /// The id scope, where it is given.
    pub(super) fn given_id_scope(&self) -> anyhow::Result<Option<IdScope>> {
        if let Some(scope) = &self.id_scope {
            return Ok(Some(scope.clone()));
        }
        from_variable(ID_SCOPE, |scope| scope.parse().map_err(|error: IdScopeError| error.to_string()))
    }

    /// A client of that provisioning service, with the root and the rate that the application has.
    pub(super) fn client(&self, id_scope: IdScope, service: &Service) -> anyhow::Result<RegistrationClient> {
        let mut builder = RegistrationClient::builder(id_scope).endpoint(self.endpoint()?);
        if let Some(file) = &service.ca_file {
            let unreadable = || format!("no certificate could be read from {}", file.display());
            builder = builder.add_root_certificate(&read(file)?).with_context(unreadable)?;
        }
        if let Some(rate) = service.rate {
            builder = builder.rate(rate);
        }
        Ok(builder.build()?)
    }

    fn endpoint(&self) -> anyhow::Result<ProvisioningEndpoint> {
        if let Some(endpoint) = &self.dps_endpoint {
            return Ok(endpoint.clone());
        }
        let endpoint = from_variable(DPS_ENDPOINT, |text| {
            text.parse().map_err(|error: ProvisioningEndpointError| error.to_string())
        });
        Ok(endpoint?.unwrap_or_default())
    }
}

fn payload(file: &Path) -> anyhow::Result<Value> {
    serde_json::from_slice(&read(file)?).with_context(|| format!("{} is not JSON", file.display()))
}

/// The passwords of the files that devices' keys are in.
pub(super) struct Passwords {
    pfx: Option<Zeroizing<String>>,
    key: Option<Zeroizing<String>>,
}

impl Passwords {
    /// Reads a device's certificate, chain and key: from two PEM files, or from one that has it all, PEM or PFX.
    pub(super) fn device_certificate(&self, cert: &Path, key: Option<&Path>) -> anyhow::Result<DeviceCertificate> {
        let no_certificate = || format!("no certificate could be read from {}", cert.display());
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
                read_key(cert, &bytes).context("give its private key with --key FILE")?,
            ),
        };
        Ok(DeviceCertificate::new(certificates, &key)?)
    }
}

/// Registers devices, and asks the application why one was refused.
pub(super) struct Registrar {
    pub(super) client: RegistrationClient,
    payload: Option<Value>,
    service: Service,
    /// The application as it was when the first device was refused; nothing where it is not named or does not answer.
    application: OnceCell<Option<(Client, EnrollmentState)>>,
}

impl Registrar {
    pub(super) async fn register(
        &self,
        id: &DeviceId,
        credential: &Credential,
    ) -> Result<Assignment, RegistrationError> {
        self.client.register(id, credential, self.payload.as_ref()).await
    }

    /// Finds out why a device was not registered.
    pub(super) async fn explain(&self, attempt: &Attempt<'_>, error: RegistrationError, output: &Output) -> Failed {
        let mut diagnosis = diagnose(attempt, &error, None);
        if diagnosis.needs_application
            && let Some(application) = self.application(attempt.id, output).await
        {
            diagnosis = diagnose(attempt, &error, Some(&application));
        }
        let hint = match diagnosis.first() {
            Some(Cause::TlsIntercepted { .. }) => {
                Some("--tls-ca FILE trusts one more root; the emulator prints the file of its own as caFile")
            }
            _ if diagnosis.needs_application && !self.service.is_named() => Some(
                "give --app SUBDOMAIN or --endpoint URL, and a token: then it is looked up what is enrolled, verified and \
                 enabled",
            ),
            _ => None,
        };
        let hint = hint.map(str::to_owned);
        Failed { unregistered: DiagnosedError::new(error, diagnosis), hint }
    }

    async fn application(&self, id: &DeviceId, output: &Output) -> Option<EnrollmentState> {
        if !self.service.is_named() {
            return None;
        }
        let unasked = |error: anyhow::Error| {
            output.note(format_args!("the application could not be asked for the cause: {error:#}"));
        };
        let groups = || async {
            let read = async {
                let client = self.service.client()?;
                let application = workflow::read_enrollment_state(&client).await?;
                anyhow::Ok((client, application))
            };
            read.await.map_err(unasked).ok()
        };
        let (client, application) = self.application.get_or_init(groups).await.as_ref()?;
        workflow::read_device_state(client, application, id).await.map_err(|error| unasked(error.into())).ok()
    }
}

/// A device that was not registered, and why.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) unregistered: DiagnosedError,
    /// What else can be done, in the words of the command line.
    pub(super) hint: Option<String>,
}

impl Failed {
    fn lacks_chain(&self) -> bool {
        matches!(self.unregistered.diagnosis.first(), Some(Cause::ChainNotSent { .. }))
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.unregistered.fmt(f)
    }
}

impl std::error::Error for Failed {}

/// Derive a device's symmetric key from its enrollment group's
#[derive(clap::Args)]
#[command(after_help = "Example:\n  iot-enroll device compute-key sensor-1 --group-key-file group.key > sensor-1.key")]
pub(super) struct ComputeKey {
    /// The device: its registration id, exactly as it will register
    id: DeviceId,
    #[command(flatten)]
    group_key: GroupKey,
}

impl ComputeKey {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<()> {
        let group_key = self.group_key.read()?.ok_or_else(|| {
            Usage::with_hint(
                "no group key is given",
                format!("name its file with --group-key-file FILE, or set {GROUP_KEY} in the environment"),
            )
        })?;
        let key = derive_device_key(&group_key, &self.id).to_base64();
        let document = json!({ "id": self.id.as_str(), "key": key.expose() });
        output.result(&document, || key.expose().to_owned())
    }
}
