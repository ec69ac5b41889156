//! The options of the service: its address and the credential.

use std::{
    env,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use anyhow::Context;

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

/// Options of the service.
#[derive(clap::Args)]
#[command(next_help_heading = "Service")]
pub(super) struct Service {
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
    /// File with one more root certificate to trust for TLS, in PEM
    #[arg(long = "tls-ca", value_name = "FILE", alias = "ca-file")]
    pub(super) ca_file: Option<PathBuf>,
    /// Version of the REST API
    ///
    /// [default: 2022-07-31, or 2022-10-31-preview for commands that need it]
    #[arg(long, value_name = "VERSION")]
    api_version: Option<ApiVersion>,
    /// Maximum number of requests per second [default: 20, or 16 for registrations]
    ///
    /// All clients of an application share its limit of 20.
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
        if let Some(version) = self.api_version.filter(|version| *version != preview) {
            let message =
                format!("API version {version} does not have this resource: omit --api-version, or use {preview}");
            return Err(UsageError::new(message).into());
        }
        self.client()
    }

    /// Builds a client.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let endpoint = self.endpoint()?;
        let root = self.ca_file.as_deref().map(|file| Ok::<_, anyhow::Error>((file, read(file)?))).transpose()?;
        let unreadable = |file: &Path| format!("could not read a certificate from {}", file.display());
        let authorization = if self.entra {
            let mut credential = EntraCredential::builder(ENTRA_SCOPE);
            if let Some((file, bytes)) = &root {
                credential = credential.add_root_certificate(bytes).with_context(|| unreadable(file))?;
            }
            Authorization::from_credential(credential.build()?)
        } else {
            let token = secret(self.token_file.as_deref(), TOKEN)?.ok_or_else(|| {
                let hint = format!("use --token-file FILE, set {TOKEN}, or sign in with --entra");
                UsageError::new("no token given").with_hint(hint)
            })?;
            Authorization::parse(Secret::from(token.trim()))?
        };
        let mut builder =
            Client::builder(endpoint).authorization(authorization).api_version(self.api_version.unwrap_or_default());
        if let Some(rate) = self.rate {
            builder = builder.rate(rate);
        }
        if let Some((file, bytes)) = &root {
            builder = builder.add_root_certificate(bytes).with_context(|| unreadable(file))?;
        }
        Ok(builder.build()?)
    }

    /// Adds these options to the next command. Environment variables need not be repeated.
    pub(super) fn repeat_in(&self, command: &mut NextCommand) {
        command.optional("--app", self.app.as_ref());
        command.optional("--endpoint", self.endpoint.as_ref().map(Endpoint::as_str));
        command.optional("--token-file", self.token_file.as_ref());
        command.flag("--entra", self.entra);
        command.optional("--tls-ca", self.ca_file.as_ref());
        command.optional("--api-version", self.api_version.map(|version| version.to_string()));
        command.optional("--rate", self.rate.map(|rate| rate.to_string()));
    }

    /// Returns whether an application and a token are named, on the command line or in the environment.
    pub(super) fn is_named(&self) -> bool {
        let environment = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let application = self.is_application_named() || environment(ENDPOINT) || environment(APP);
        application && (self.entra || self.token_file.is_some() || environment(TOKEN))
    }

    /// Returns whether the command line names an application.
    pub(super) fn is_application_named(&self) -> bool {
        self.app.is_some() || self.endpoint.is_some()
    }

    /// Returns the address. The command line overrides the environment. clap cannot read the variables, because it would
    /// report a conflict between `--endpoint` and `IOT_ENROLL_APP`.
    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        if let Some(endpoint) = &self.endpoint {
            return Ok(endpoint.clone());
        }
        if let Some(app) = &self.app {
            return parsed("the value of --app", app, application);
        }
        if let Some(endpoint) =
            from_variable(ENDPOINT, |text| text.parse().map_err(|error: EndpointError| error.to_string()))?
        {
            return Ok(endpoint);
        }
        from_variable(APP, application)?.ok_or_else(|| {
            let hint = format!("use --app SUBDOMAIN or --endpoint URL, or set {APP} or {ENDPOINT}");
            UsageError::new("no application given").with_hint(hint).into()
        })
    }
}

/// Parses the value of an environment variable that is set and not empty. An invalid value is wrong usage; it is not
/// repeated if it may be a secret.
pub(super) fn from_variable<T>(name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> anyhow::Result<Option<T>> {
    let Some(value) = variable(name)? else { return Ok(None) };
    parsed(&format!("the environment variable {name}"), &value, parse).map(Some)
}

/// Parses a value; `what` names it in the error.
fn parsed<T>(what: &str, value: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> anyhow::Result<T> {
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
