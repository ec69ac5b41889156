//! Which service the commands speak to, and with what right.

use std::{
    env,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use secrecy::SecretString;

use super::{
    args::{read, secret},
    next_command::NextCommand,
    output::Usage,
};
use crate::central::{ApiVersion, Authorization, Client, Endpoint, EntraCredential};

const APP: &str = "IOT_ENROLL_APP";
const ENDPOINT: &str = "IOT_ENROLL_ENDPOINT";
const TOKEN: &str = "IOT_ENROLL_TOKEN";

/// The application and the token.
#[derive(clap::Args)]
#[command(next_help_heading = "Service")]
pub(super) struct Service {
    /// The application's subdomain: APP of APP.azureiotcentral.com [env: IOT_ENROLL_APP]
    #[arg(long, value_name = "SUBDOMAIN", conflicts_with = "endpoint")]
    app: Option<String>,
    /// The application's address, where it is not under azureiotcentral.com [env: IOT_ENROLL_ENDPOINT]
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
    /// The file whose first line is the API token, or Bearer and a Microsoft Entra token; without, the environment
    /// variable IOT_ENROLL_TOKEN holds it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Sign in with Microsoft Entra instead of a token: by the usual AZURE_ variables, managed identity, or the sign-in of
    /// the Azure command-line tools
    #[arg(long, conflicts_with = "token_file")]
    entra: bool,
    /// A PEM file with one more root to trust for TLS
    #[arg(long, value_name = "PEM")]
    pub(super) ca_file: Option<PathBuf>,
    /// The version of the REST API [default: 2022-07-31, and 2022-10-31-preview for what that version alone has]
    #[arg(long, value_name = "VERSION")]
    api_version: Option<ApiVersion>,
    /// How many requests a second are sent at most; the application takes 20 from all its clients together
    /// [default: 20; of registrations 16]
    #[arg(long, value_name = "REQUESTS_PER_SECOND")]
    pub(super) rate: Option<NonZeroU32>,
}

impl Service {
    /// A client for what the preview version of the API alone has.
    pub(super) fn preview_client(&self) -> anyhow::Result<Client> {
        let preview = ApiVersion::V2022_10_31Preview;
        if let Some(version) = self.api_version.filter(|version| *version != preview) {
            return Err(Usage::error(format!(
                "version {version} of the API does not have this: leave --api-version out, or name {preview}"
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
            let mut credential = EntraCredential::builder();
            if let Some((file, bytes)) = &root {
                credential = credential.add_root_certificate(bytes).with_context(|| unreadable(file))?;
            }
            Authorization::from_credential(credential.build()?)
        } else {
            let token = secret(self.token_file.as_deref(), TOKEN)?.with_context(|| {
                format!(
                    "no token is given: name its file with --token-file FILE, set {TOKEN} in the environment, or sign in \
                     with --entra"
                )
            })?;
            Authorization::parse(SecretString::from(token.trim()))?
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
        command.optional("--ca-file", self.ca_file.as_ref());
        command.optional("--api-version", self.api_version.map(|version| version.to_string()));
        command.optional("--rate", self.rate.map(|rate| rate.to_string()));
    }

    /// Whether an application and a token are named, on the command line or in the environment.
    pub(super) fn is_named(&self) -> bool {
        let application =
            self.app.is_some() || self.endpoint.is_some() || variable(ENDPOINT).or(variable(APP)).is_some();
        application && (self.entra || self.token_file.is_some() || variable(TOKEN).is_some())
    }

    /// The address. Whatever the command line names counts before the environment: clap's own reading of variables
    /// would take `--endpoint` and IOT_ENROLL_APP for a contradiction.
    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        if let Some(endpoint) = &self.endpoint {
            return Ok(endpoint.clone());
        }
        if let Some(app) = &self.app {
            return Ok(Endpoint::from_subdomain(app)?);
        }
        if let Some(endpoint) = variable(ENDPOINT) {
            return endpoint.parse().with_context(|| format!("the environment variable {ENDPOINT} is no address"));
        }
        if let Some(app) = variable(APP) {
            return Endpoint::from_subdomain(&app)
                .with_context(|| format!("the environment variable {APP} is no subdomain"));
        }
        bail!("no application is named: give --app SUBDOMAIN or --endpoint URL, or set {APP} or {ENDPOINT}")
    }
}

/// The value of an environment variable that is set to something.
pub(super) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Runs what waits for the network.
pub(super) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the program could not start its threads")?
        .block_on(future)
}
