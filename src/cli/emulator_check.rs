//! `emulator --check`: whether an emulator serves. For container images without a shell and curl.

use std::{error::Error, fmt, path::Path, time::Duration};

use anyhow::Context;
use reqwest::Url;
use serde_json::Value;
use tokio::time::timeout;

use super::{error::UsageError, input::read, output::Output};
use crate::{
    certificate::Certificate,
    transport::{BuildError, NetworkFailure, http_builder, network_cause, read_body},
};

/// The path of the health check.
const PATH: &str = "/health";

/// The time that the check may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Parses the URL of an emulator or of its health check. Unlike other commands, the check sends no secret, so that plain HTTP
/// is allowed to any host.
pub(super) fn url(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|_| "expected a URL, such as http://127.0.0.1:8080".to_owned())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("expected a URL that starts with http:// or https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("expected a URL without a user name, a query or a fragment".to_owned());
    }
    if !matches!(url.path(), "/" | PATH) {
        return Err(format!("expected a URL without a path, or with {PATH}"));
    }
    url.set_path(PATH);
    Ok(url)
}

/// An emulator that does not serve, or that cannot be asked.
#[derive(Debug)]
pub(super) struct Unhealthy {
    message: String,
    /// Whether the certificate of the emulator is not trusted, and no file with its CA was given.
    pub(super) needs_root: bool,
}

impl Unhealthy {
    fn new(message: String) -> Self {
        Self { message, needs_root: false }
    }
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the emulator is not healthy: {}", self.message)
    }
}

impl Error for Unhealthy {}

/// Checks an emulator. `ca_file` has the certificate of its CA.
pub(super) async fn check(url: &Url, ca_file: Option<&Path>, output: &Output) -> anyhow::Result<()> {
    let at = format!("{}://{}", url.scheme(), url.authority());
    let http = client(url, ca_file)?;
    let asked = timeout(TIMEOUT, async {
        let answer = http.get(url.clone()).send().await.map_err(Some)?;
        let status = answer.status().as_u16();
        Ok((status, read_body(answer).await?))
    });
    let failed = |failure: NetworkFailure, cause: &str| Unhealthy {
        message: format!("{} {at}: {cause}", failure.summary()),
        needs_root: failure == NetworkFailure::Tls && ca_file.is_none(),
    };
    let (status, body) = match asked.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(Some(error))) => {
            return Err(failed(NetworkFailure::of(&error), &network_cause(&error.without_url())).into());
        }
        Ok(Err(None)) => return Err(Unhealthy::new(format!("the answer of {at} is too large")).into()),
        Err(_) => {
            let cause = format!("it took longer than {} s", TIMEOUT.as_secs());
            return Err(failed(NetworkFailure::TimedOut, &cause).into());
        }
    };
    let health: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status == 200 && health["status"] == "ok" {
        return output.result(&health, || format!("{at} is healthy"));
    }
    let message = match health["error"]["message"].as_str() {
        Some(why) => format!("{at} answered with status {status}: {why}"),
        None => format!("{at} answered {PATH} with status {status} and other content than an emulator"),
    };
    Err(Unhealthy::new(message).into())
}

/// Builds a client that trusts the CA of the file, or those of the platform without one.
fn client(url: &Url, ca_file: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    let is_https = url.scheme() == "https";
    if ca_file.is_some() && !is_https {
        return Err(UsageError::new("--tls-ca is for a URL that starts with https://").into());
    }
    // A proxy has no place between an emulator and its probe.
    let http = http_builder(TIMEOUT, TIMEOUT, false).no_proxy();
    let http = match ca_file {
        Some(file) => {
            let unreadable = || format!("could not read a certificate from {}", file.display());
            let roots = Certificate::read_all(&read(file)?).with_context(unreadable)?;
            let roots = roots.iter().map(|root| reqwest::Certificate::from_der(root.der()));
            http.tls_certs_only(roots.collect::<Result<Vec<_>, _>>().with_context(unreadable)?)
        }
        // Without TLS the platform's roots are not read: an image may have none.
        None if is_https => http,
        None => http.tls_certs_only([]),
    };
    http.build().map_err(|error| Unhealthy { message: BuildError::tls(&error).to_string(), needs_root: true }.into())
}
