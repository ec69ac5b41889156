//! Which service the commands speak to, and with what right.

use std::{
    env,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{
    args::{read, secret},
    next_command::NextCommand,
    output::Usage,
    secret_arguments::{is_certain, may_be_secret},
};
use crate::central::{
    ApiVersion, Authorization, Client, ENTRA_SCOPE, Endpoint, EndpointError, EntraCredential, Secret,
};

const APP: &str = "IOT_ENROLL_APP";
const ENDPOINT: &str = "IOT_ENROLL_ENDPOINT";
const TOKEN: &str = "IOT_ENROLL_TOKEN";

/// The application and the token.
#[derive(clap::Args)]
#[command(next_help_heading = "Service")]
pub(super) struct Service {
    /// The application: its subdomain, host name or URL [env: IOT_ENROLL_APP]
    #[arg(long, value_name = "SUBDOMAIN", conflicts_with = "endpoint")]
    app: Option<String>,
    /// The URL of an application outside azureiotcentral.com, or of the emulator [env: IOT_ENROLL_ENDPOINT]
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
    /// A file whose first line is the API token, or Bearer and a Microsoft Entra token [env: IOT_ENROLL_TOKEN holds
    /// the token itself]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Sign in with Microsoft Entra: by the AZURE_ variables, a managed identity, az or azd
    #[arg(long, conflicts_with = "token_file")]
    entra: bool,
    /// A PEM file with one more root certificate to trust for TLS
    #[arg(long = "tls-ca", value_name = "FILE", alias = "ca-file")]
    pub(super) ca_file: Option<PathBuf>,
    /// The version of the REST API [default: 2022-07-31, or 2022-10-31-preview for commands that need it]
    #[arg(long, value_name = "VERSION")]
    api_version: Option<ApiVersion>,
    /// The most requests to send in a second; all clients of an application share its 20 [default: 20, or 16 for
    /// registrations]
    #[arg(long, value_name = "REQUESTS_PER_SECOND")]
    pub(super) rate: Option<NonZeroU32>,
}

/// The endpoint of an application by its subdomain, host name or URL. Of a URL from a browser only the host counts.
fn application(text: &str) -> Result<Endpoint, String> {
    let text = text.trim();
    if let Some((scheme, _)) = text.split_once("://") {
        let mut url = reqwest::Url::parse(text).map_err(|error| format!("it is not a URL: {error}"))?;
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
    /// A client for what the preview version of the API alone has.
    pub(super) fn preview_client(&self) -> anyhow::Result<Client> {
        let preview = ApiVersion::V2022_10_31Preview;
        if let Some(version) = self.api_version.filter(|version| *version != preview) {
            return Err(Usage::error(format!(
                "version {version} of the API does not have this: omit --api-version, or use {preview}"
            )));
        }
        self.client()
    }

    /// A client of that service.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let endpoint = self.endpoint()?;
        let root = self.ca_file.as_deref().map(|file| Ok::<_, anyhow::Error>((file, read(file)?))).transpose()?;
        let unreadable = |file: &Path| format!("no certificate could be read from {}", file.display());
        let authorization = if self.entra {
            let mut credential = EntraCredential::builder(ENTRA_SCOPE);
            if let Some((file, bytes)) = &root {
                credential = credential.add_root_certificate(bytes).with_context(|| unreadable(file))?;
            }
            Authorization::from_credential(credential.build()?)
        } else {
            let token = secret(self.token_file.as_deref(), TOKEN)?.ok_or_else(|| {
                Usage::with_hint(
                    "no token is given",
                    format!(
                        "name its file with --token-file FILE, set {TOKEN} in the environment, or sign in with --entra"
                    ),
                )
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

    /// Adds the options that were given to a command for the same application. The environment is still there then.
    pub(super) fn repeat_in(&self, command: &mut NextCommand) {
        command.optional("--app", self.app.as_ref());
        command.optional("--endpoint", self.endpoint.as_ref().map(Endpoint::as_str));
        command.optional("--token-file", self.token_file.as_ref());
        command.flag("--entra", self.entra);
        command.optional("--tls-ca", self.ca_file.as_ref());
        command.optional("--api-version", self.api_version.map(|version| version.to_string()));
        command.optional("--rate", self.rate.map(|rate| rate.to_string()));
    }

    /// Whether an application and a token are named, on the command line or in the environment.
    pub(super) fn is_named(&self) -> bool {
        let environment = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let application = self.is_application_named() || environment(ENDPOINT) || environment(APP);
        application && (self.entra || self.token_file.is_some() || environment(TOKEN))
    }

    /// Whether the command line names an application.
    pub(super) fn is_application_named(&self) -> bool {
        self.app.is_some() || self.endpoint.is_some()
    }

    /// The address. The command line counts before the environment: clap's own reading of variables would report a
    /// conflict between `--endpoint` and IOT_ENROLL_APP.
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
            Usage::with_hint(
                "no application is named",
                format!(
                    "name it with --app SUBDOMAIN or --endpoint URL, or set {APP} or {ENDPOINT} in the environment"
                ),
            )
        })
    }
}

/// The value of an environment variable that is set to something, as `parse` reads it. An invalid one is wrong usage; its
/// value is not repeated if it may be a secret.
pub(super) fn from_variable<T>(name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> anyhow::Result<Option<T>> {
    let Some(value) = variable(name)? else { return Ok(None) };
    parsed(&format!("the environment variable {name}"), &value, parse).map(Some)
}

/// The value as `parse` reads it; `what` names it.
fn parsed<T>(what: &str, value: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> anyhow::Result<T> {
    // A JSON Web Token could pass for a host name, and would be sent to a name server.
    let parsed = if is_certain(value) { Err(String::new()) } else { parse(value) };
    parsed.map_err(|error| {
        let error = if may_be_secret(value) { "it looks like a secret".to_owned() } else { error };
        Usage::error(format!("{what} is not valid: {error}"))
    })
}

/// The value of an environment variable that is set to something.
fn variable(name: &str) -> anyhow::Result<Option<String>> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => {
            Err(Usage::error(format!("the environment variable {name} is not valid: it is not UTF-8")))
        }
    }
}

/// Runs what waits for the network.
pub(super) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the program could not start its threads")?
        .block_on(future)
}
