//! The options of the service: its address and the credential.

use std::{
    env,
    fmt::Display,
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::Context;
use zeroize::Zeroizing;

use super::{
    error::UsageError,
    input::{read, secret},
    next_command::NextCommand,
    secrets::{is_secret, may_be_secret},
};
use crate::central::{
    ApiVersion, Authorization, Client, ENTRA_SCOPE, Endpoint, EndpointError, EntraCredential, Secret,
};

const APP: &str = "IOT_ENROLL_APP";
const ENDPOINT: &str = "IOT_ENROLL_ENDPOINT";
const TOKEN: &str = "IOT_ENROLL_TOKEN";

/// Options of the commands that speak to IoT Central.
#[derive(clap::Args)]
pub(super) struct Service {
    #[command(flatten)]
    application: Application,
    #[command(flatten)]
    connection: Connection,
}

/// The application, and the sign-in there.
#[derive(clap::Args)]
#[command(next_help_heading = "Service")]
pub(super) struct Application {
    /// Subdomain, host name or URL of the application [env: IOT_ENROLL_APP]
    #[arg(long, value_name = "SUBDOMAIN", conflicts_with = "endpoint")]
    app: Option<String>,
    /// URL of an application elsewhere, or of the emulator [env: IOT_ENROLL_ENDPOINT]
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
    /// File with the API token (or set IOT_ENROLL_TOKEN to the token)
    ///
    /// The token is the first line of the file: an API token of the application, or Bearer and a Microsoft Entra token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Sign in with Microsoft Entra
    ///
    /// Uses the AZURE_* environment variables, a managed identity, the Azure CLI or the Azure Developer CLI.
    #[arg(long, conflicts_with = "token_file")]
    entra: bool,
}

/// How to speak to a service.
#[derive(clap::Args)]
#[command(next_help_heading = "Service")]
pub(super) struct Connection {
    /// File with one more root certificate to trust for TLS, in PEM
    #[arg(long = "tls-ca", value_name = "FILE", alias = "ca-file")]
    pub(super) ca_file: Option<PathBuf>,
    /// Version of the REST API
    ///
    /// [default: 2022-07-31, or 2022-10-31-preview for commands that need it; for DPS 2021-10-01]
    #[arg(long, value_name = "VERSION")]
    pub(super) api_version: Option<String>,
    /// Maximum number of requests per second [default: 20, or 16 for DPS]
    ///
    /// All clients of an application or a DPS share its limit.
    #[arg(long, value_name = "REQUESTS_PER_SECOND")]
    pub(super) rate: Option<NonZeroU32>,
}

/// Parses the subdomain, host name or URL of an application. Only the host of a URL is used, so that one can be copied from
/// a browser.
fn application(text: &str) -> Result<Endpoint, String> {
    let text = text.trim();
    if let Some((scheme, _)) = text.split_once("://") {
        let mut url = reqwest::Url::parse(text).map_err(|_| "not a URL: write it as https://HOST".to_owned())?;
        if scheme.eq_ignore_ascii_case("https") {
            url.set_path("/");
            url.set_query(None);
            url.set_fragment(None);
        }
        return url.as_str().parse().map_err(|error: EndpointError| error.to_string());
    }
    if text.contains(['.', ':']) {
        let host = text.trim_end_matches('/');
        return format!("https://{host}").parse().map_err(|error: EndpointError| error.to_string());
    }
    Endpoint::from_subdomain(text).map_err(|error| error.to_string())
}

impl Service {
    /// Builds a client of the preview version of the API, which some resources need.
    pub(super) fn preview_client(&self) -> anyhow::Result<Client> {
        let preview = ApiVersion::V2022_10_31Preview;
        if let Some(version) = self.connection.version::<ApiVersion>()?.filter(|version| *version != preview) {
            let message =
                format!("API version {version} does not have this resource: omit --api-version, or use {preview}");
            return Err(UsageError::new(message).into());
        }
        self.client()
    }

    /// Builds a client.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        self.application.client(&self.connection)
    }
}

impl Application {
    /// Builds a client.
    pub(super) fn client(&self, connection: &Connection) -> anyhow::Result<Client> {
        self.client_at(self.address()?, connection)
    }

    /// Builds a client of the application at this address.
    pub(super) fn client_at(&self, endpoint: Endpoint, connection: &Connection) -> anyhow::Result<Client> {
        let root = connection.root()?;
        let authorization = if self.entra {
            entra(ENTRA_SCOPE, root.as_ref())?
        } else {
            let token = secret(self.token_file.as_deref(), TOKEN)?.ok_or_else(|| {
                let hint = format!("use --token-file FILE, set {TOKEN}, or sign in with --entra");
                UsageError::new("no token given").with_hint(hint)
            })?;
            Authorization::parse(Secret::from(token.trim()))?
        };
        let version = connection.version()?.unwrap_or_default();
        let mut builder = Client::builder(endpoint).authorization(authorization).api_version(version);
        if let Some(rate) = connection.rate {
            builder = builder.rate(rate);
        }
        if let Some(root) = &root {
            builder = root.context(builder.add_root_certificate(&root.bytes))?;
        }
        Ok(builder.build()?)
    }

    /// Adds these options to the next command.
    pub(super) fn repeat_in(&self, command: &mut NextCommand) {
        command.optional("--app", self.app.as_ref());
        command.optional("--endpoint", self.endpoint.as_ref().map(Endpoint::as_str));
        command.optional("--token-file", self.token_file.as_ref());
        command.flag("--entra", self.entra);
    }

    /// Returns whether an application and a token are named, on the command line or in the environment.
    pub(super) fn is_usable(&self) -> bool {
        (self.is_named() || Self::is_in_environment()) && (self.entra || self.token_file.is_some() || is_set(TOKEN))
    }

    /// Returns whether the command line names an application.
    pub(super) fn is_named(&self) -> bool {
        self.app.is_some() || self.endpoint.is_some()
    }

    /// Returns whether the command line names a file with a token.
    pub(super) fn has_token_file(&self) -> bool {
        self.token_file.is_some()
    }

    /// Returns whether the environment names an application.
    pub(super) fn is_in_environment() -> bool {
        is_set(ENDPOINT) || is_set(APP)
    }

    /// Returns the address. The command line overrides the environment. clap cannot read the variables, because it would
    /// report a conflict between `--endpoint` and `IOT_ENROLL_APP`.
    fn address(&self) -> anyhow::Result<Endpoint> {
        self.named()?.ok_or_else(|| {
            let hint = format!("use --app SUBDOMAIN or --endpoint URL, or set {APP} or {ENDPOINT}");
            UsageError::new("no application given").with_hint(hint).into()
        })
    }

    /// Returns the address of the application that is named, on the command line or in the environment.
    pub(super) fn named(&self) -> anyhow::Result<Option<Endpoint>> {
        if let Some(endpoint) = &self.endpoint {
            return Ok(Some(endpoint.clone()));
        }
        if let Some(app) = &self.app {
            return parsed("the value of --app", app, application).map(Some);
        }
        let endpoint = from_variable(ENDPOINT, |text| text.parse().map_err(|error: EndpointError| error.to_string()))?;
        if endpoint.is_some() { Ok(endpoint) } else { from_variable(APP, application) }
    }
}

impl Connection {
    /// Reads the file of `--tls-ca`.
    pub(super) fn root(&self) -> anyhow::Result<Option<TrustedRoot<'_>>> {
        let root = self.ca_file.as_deref().map(|file| anyhow::Ok(TrustedRoot { file, bytes: read(file)? }));
        root.transpose()
    }

    /// Parses the value of `--api-version`.
    pub(super) fn version<V: FromStr<Err: Display>>(&self) -> anyhow::Result<Option<V>> {
        let version = self.api_version.as_deref().map(|text| {
            parsed("the value of --api-version", text, |text| text.parse().map_err(|error: V::Err| error.to_string()))
        });
        version.transpose()
    }

    /// Adds these options to the next command.
    pub(super) fn repeat_in(&self, command: &mut NextCommand) {
        command.optional("--tls-ca", self.ca_file.as_ref());
        command.optional("--api-version", self.api_version.as_ref());
        command.optional("--rate", self.rate.map(|rate| rate.to_string()));
    }
}

/// The file of one more trusted root.
pub(super) struct TrustedRoot<'a> {
    file: &'a Path,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

impl TrustedRoot<'_> {
    /// Names the file in an error about its content.
    pub(super) fn context<T, E>(&self, result: Result<T, E>) -> anyhow::Result<T>
    where
        Result<T, E>: Context<T, E>,
    {
        result.with_context(|| format!("could not read a certificate from {}", self.file.display()))
    }
}

/// Builds a sign-in with Microsoft Entra.
pub(super) fn entra(scope: &str, root: Option<&TrustedRoot<'_>>) -> anyhow::Result<Authorization> {
    let mut credential = EntraCredential::builder(scope);
    if let Some(root) = root {
        credential = root.context(credential.add_root_certificate(&root.bytes))?;
    }
    Ok(Authorization::from_credential(credential.build()?))
}

/// Returns whether an environment variable is set and not empty.
pub(super) fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// Parses the value of an environment variable that is set and not empty. An invalid value is wrong usage; it is not
/// repeated if it may be a secret.
pub(super) fn from_variable<T>(name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> anyhow::Result<Option<T>> {
    let Some(value) = variable(name)? else { return Ok(None) };
    parsed(&format!("the environment variable {name}"), &value, parse).map(Some)
}

/// Parses a value; `what` names it in the error.
pub(super) fn parsed<T>(what: &str, value: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> anyhow::Result<T> {
    // A JSON Web Token looks like a host name, and would be sent to a name server.
    let parsed = if is_secret(value) { Err(String::new()) } else { parse(value) };
    parsed.map_err(|error| {
        let error = if may_be_secret(value) { "it looks like a secret".to_owned() } else { error };
        UsageError::new(format!("{what} is not valid: {error}")).into()
    })
}

/// Returns the value of an environment variable, or `None` if it is not set or empty.
fn variable(name: &str) -> anyhow::Result<Option<String>> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => {
            Err(UsageError::new(format!("the environment variable {name} is not valid UTF-8")).into())
        }
    }
}

/// Runs a future to completion on a new runtime.
pub(super) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?
        .block_on(future)
}
