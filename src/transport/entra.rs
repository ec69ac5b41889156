//! Sign-in with Microsoft Entra: finds a credential in the environment, caches its token and renews it.

use std::{
    env, fmt, fs,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use azure_core::{
    cloud::{CloudConfiguration, CustomConfiguration},
    credentials::{AccessToken, Secret as AzureSecret, TokenCredential as AzureCredential},
    http::{ClientOptions, ExponentialRetryOptions, RetryOptions, Transport},
    time::Duration as AzureDuration,
};
use azure_identity::{
    AzureCliCredential, AzureDeveloperCliCredential, ClientAssertionCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use reqwest::{Url, redirect};
use tracing::debug;

use super::{
    authorization::{AuthorizationError, TokenCredential},
    clock::{Clock, SystemClock},
    connection::{BuildError, root_certificates},
    entra_certificate::CertificateAssertion,
    network::network_cause,
    redact::sanitize,
    secret::Secret,
};
use crate::certificate::{Certificate, ReadError};

/// The authority of the public cloud.
const PUBLIC_AUTHORITY: &str = "https://login.microsoftonline.com";

/// The instance metadata service, at which machines in Azure request tokens of their managed identity.
const METADATA_SERVICE: &str = "169.254.169.254:80";

/// How long to wait for a connection to the metadata service, which is local to machines in Azure.
const METADATA_CONNECT: Duration = Duration::from_secs(1);

/// How long one credential may take to provide a token.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

/// How often and after what delay a token request is retried. `azure_core` retries even if the authority's certificate
/// is not trusted, so the values are small.
const RETRIES: u32 = 2;
const RETRY_DELAY: AzureDuration = AzureDuration::milliseconds(200);

/// How long before its expiry a token is renewed, unless half of its lifetime is shorter.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// How long a valid token is used after a failed renewal, until the next try.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// A Microsoft Entra credential from the environment.
///
/// These credentials are tried in turn. The first one that provides a token is used from then on:
///
/// | credential | set up by |
/// | --- | --- |
/// | client secret | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET` |
/// | client certificate | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_CERTIFICATE_PATH` (PEM or PFX with an RSA key), `AZURE_CLIENT_CERTIFICATE_PASSWORD`, `AZURE_CLIENT_SEND_CERTIFICATE_CHAIN` |
/// | workload identity | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_FEDERATED_TOKEN_FILE` |
/// | managed identity | running in Azure; `AZURE_CLIENT_ID` selects a user-assigned identity |
/// | Azure CLI | `az login` |
/// | Azure Developer CLI | `azd auth login` |
///
/// The search ends if one of the first three is set up and fails, or a managed identity whose address is in
/// `IDENTITY_ENDPOINT` or `MSI_ENDPOINT`: another credential could be a different identity. `AZURE_AUTHORITY_HOST` is
/// the authority of another cloud; it must use `https`.
///
/// The token is cached and renewed five minutes before it expires. Callers use the old token during the renewal, and
/// after a failed renewal until it expires.
///
/// ```no_run
/// use iot_enroll::central::{Authorization, Client, ENTRA_SCOPE, Endpoint, EntraCredential};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder(Endpoint::from_subdomain("contoso")?)
///     .authorization(Authorization::from_credential(EntraCredential::from_env(ENTRA_SCOPE)?))
///     .build()?;
/// # Ok(())
/// # }
/// ```
pub struct EntraCredential {
    scope: String,
    environment: Environment,
    /// Connects to the authority.
    authority: ClientOptions,
    /// Connects to services on this machine, without a proxy.
    local: ClientOptions,
    clock: Arc<dyn Clock>,
    current: Mutex<Option<Current>>,
    /// The credential that provided the last token. Locked during a renewal.
    renewal: tokio::sync::Mutex<Option<Source>>,
}

/// The cached token.
#[derive(Clone)]
struct Current {
    token: Secret,
    renew_at: SystemTime,
    expires_at: SystemTime,
}

/// A credential of the chain.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    ClientSecret,
    ClientCertificate,
    WorkloadIdentity,
    ManagedIdentity,
    AzureCli,
    AzureDeveloperCli,
}

impl Source {
    const ALL: [Self; 6] = [
        Self::ClientSecret,
        Self::ClientCertificate,
        Self::WorkloadIdentity,
        Self::ManagedIdentity,
        Self::AzureCli,
        Self::AzureDeveloperCli,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::ClientSecret => "client secret",
            Self::ClientCertificate => "client certificate",
            Self::WorkloadIdentity => "workload identity",
            Self::ManagedIdentity => "managed identity",
            Self::AzureCli => "Azure CLI",
            Self::AzureDeveloperCli => "Azure Developer CLI",
        }
    }
}

/// Why a credential provided no token.
enum Failure {
    /// It is not set up.
    Absent(String),
    /// It is set up and does not work.
    Failed(String),
}

/// The environment variables that set up credentials.
struct Environment {
    tenant: Option<String>,
    client: Option<String>,
    secret: Option<Secret>,
    certificate: Option<PathBuf>,
    password: Option<Secret>,
    send_chain: bool,
    token_file: Option<PathBuf>,
    authority: String,
    /// Whether the host sets the address of its managed identity.
    has_identity_endpoint: bool,
}

impl Environment {
    fn read() -> Self {
        let get = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            tenant: get("AZURE_TENANT_ID"),
            client: get("AZURE_CLIENT_ID"),
            secret: get("AZURE_CLIENT_SECRET").map(Into::into),
            certificate: get("AZURE_CLIENT_CERTIFICATE_PATH").map(Into::into),
            password: get("AZURE_CLIENT_CERTIFICATE_PASSWORD").map(Into::into),
            send_chain: get("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN")
                .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true")),
            token_file: get("AZURE_FEDERATED_TOKEN_FILE").map(Into::into),
            authority: get("AZURE_AUTHORITY_HOST").unwrap_or_else(|| PUBLIC_AUTHORITY.to_owned()),
            has_identity_endpoint: ["IDENTITY_ENDPOINT", "MSI_ENDPOINT"].into_iter().any(|name| get(name).is_some()),
        }
    }

    /// Returns tenant, client and the credential's own variable if all are set.
    fn application<'a, T>(&'a self, name: &str, value: Option<&'a T>) -> Result<(&'a str, &'a str, &'a T), Failure> {
        match (&self.tenant, &self.client, value) {
            (Some(tenant), Some(client), Some(value)) => match Url::parse(&self.authority) {
                Ok(url) if url.has_host() => Ok((tenant, client, value)),
                _ => Err(Failure::Failed(format!(
                    "AZURE_AUTHORITY_HOST is {:?}, which is not an address such as {PUBLIC_AUTHORITY}",
                    self.authority
                ))),
            },
            (tenant, client, value) => {
                let variables = [
                    ("AZURE_TENANT_ID", tenant.is_some()),
                    ("AZURE_CLIENT_ID", client.is_some()),
                    (name, value.is_some()),
                ];
                let missing: Vec<_> = variables.iter().filter(|(_, set)| !set).map(|(name, _)| *name).collect();
                let verb = if missing.len() == 1 { "is" } else { "are" };
                Err(Failure::Absent(format!("{} {verb} not set", missing.join(", "))))
            }
        }
    }

    /// Returns the texts that no message may repeat.
    fn secrets(&self) -> Vec<Secret> {
        let file = self.token_file.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let file = file.map(|text| text.trim().into());
        self.secret.iter().chain(&self.password).cloned().chain(file).collect()
    }
}

impl EntraCredential {
    /// Reads the environment and returns its credential for a scope, such as
    /// [`central::ENTRA_SCOPE`](crate::central::ENTRA_SCOPE). Nothing is sent.
    ///
    /// # Errors
    /// [`BuildError`] if TLS cannot be set up.
    pub fn from_env(scope: impl Into<String>) -> Result<Self, BuildError> {
        Self::builder(scope).build()
    }

    /// Starts building a credential for a scope, such as [`central::ENTRA_SCOPE`](crate::central::ENTRA_SCOPE).
    pub fn builder(scope: impl Into<String>) -> EntraCredentialBuilder {
        EntraCredentialBuilder { scope: scope.into(), roots: Vec::new(), clock: Arc::new(SystemClock::new()) }
    }

    fn current(&self) -> Option<Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cache(&self, current: Current) -> Secret {
        let token = current.token.clone();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(current);
        token
    }

    async fn token(&self) -> Result<Secret, AuthorizationError> {
        let now = self.clock.now();
        let current = self.current();
        if let Some(current) = current.as_ref().filter(|it| now < it.renew_at) {
            return Ok(current.token.clone());
        }
        let good = current.filter(|it| now < it.expires_at);
        let mut chosen = match (self.renewal.try_lock(), &good) {
            (Ok(turn), _) => turn,
            // Another caller is renewing the token.
            (Err(_), Some(current)) => return Ok(current.token.clone()),
            (Err(_), None) => self.renewal.lock().await,
        };
        // Another caller renewed the token in the meantime.
        if let Some(current) = self.current().filter(|it| now < it.renew_at) {
            return Ok(current.token);
        }
        match self.ask_in_turn(&mut chosen).await {
            Ok(token) => {
                let expires_at = SystemTime::from(token.expires_on);
                let time_left = expires_at.duration_since(now).unwrap_or_default();
                let renew_at = expires_at - RENEW_BEFORE.min(time_left / 2);
                Ok(self.cache(Current { token: token.token.secret().into(), renew_at, expires_at }))
            }
            Err(error) => match good {
                Some(current) => {
                    debug!(%error, "the token was not renewed; the one there is serves for now");
                    Ok(self.cache(Current { renew_at: now + RENEW_AGAIN, ..current }))
                }
                None => Err(error),
            },
        }
    }

    /// Tries one credential after the other, or only the one that provided the last token.
    async fn ask_in_turn(&self, chosen: &mut Option<Source>) -> Result<AccessToken, AuthorizationError> {
        let mut tried = Vec::new();
        let mut advice = "Sign in with az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET";
        for source in Source::ALL.into_iter().filter(|source| chosen.is_none_or(|chosen| chosen == *source)) {
            let (reason, stop) = match self.ask(source).await {
                Ok(token) => {
                    debug!(credential = source.name(), "received a token");
                    *chosen = Some(source);
                    return Ok(token);
                }
                Err(Failure::Absent(reason)) => (reason, false),
                Err(Failure::Failed(reason)) => (reason, true),
            };
            let reason = sanitize(&reason, &self.environment.secrets());
            tried.push(format!("{}: {}", source.name(), reason.trim_end_matches('.')));
            if stop {
                advice = "The last one is set up, so no other was tried after it: correct it or unset its variables";
                break;
            }
        }
        Err(AuthorizationError::Credential(format!("tried {}. {advice}", tried.join("; "))))
    }

    async fn ask(&self, source: Source) -> Result<AccessToken, Failure> {
        // The first three have variables of their own: whoever set these wants to see the failure.
        let failed = match source {
            Source::ClientSecret | Source::ClientCertificate | Source::WorkloadIdentity => Failure::Failed,
            Source::ManagedIdentity if self.environment.has_identity_endpoint => Failure::Failed,
            Source::ManagedIdentity | Source::AzureCli | Source::AzureDeveloperCli => Failure::Absent,
        };
        let credential = self.credential(source).await?.map_err(|error| match source {
            // This kind of host has no managed identity.
            Source::ManagedIdentity => Failure::Absent(describe(&error)),
            _ => failed(describe(&error)),
        })?;
        match tokio::time::timeout(TOKEN_TIMEOUT, credential.get_token(&[&self.scope], None)).await {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(error)) => Err(failed(describe(&error))),
            Err(_) => Err(failed(format!("no answer within {} s", TOKEN_TIMEOUT.as_secs()))),
        }
    }

    /// Creates a credential. Each token gets a new one, because the token is cached here, the same way for all kinds.
    async fn credential(&self, source: Source) -> Result<azure_core::Result<Arc<dyn AzureCredential>>, Failure> {
        let environment = &self.environment;
        let client_options = self.authority.clone();
        Ok(match source {
            Source::ClientSecret => {
                let (tenant, client, secret) =
                    environment.application("AZURE_CLIENT_SECRET", environment.secret.as_ref())?;
                let secret = AzureSecret::new(secret.expose().to_owned());
                let options = ClientSecretCredentialOptions { client_options };
                ClientSecretCredential::new(tenant, client.to_owned(), secret, Some(options)).map(|it| it as Arc<_>)
            }
            Source::ClientCertificate => {
                let (tenant, client, path) =
                    environment.application("AZURE_CLIENT_CERTIFICATE_PATH", environment.certificate.as_ref())?;
                let audience = Url::parse(&environment.authority)
                    .and_then(|url| url.join(&format!("/{tenant}/oauth2/v2.0/token")))
                    .map_err(|error| Failure::Failed(format!("AZURE_AUTHORITY_HOST or AZURE_TENANT_ID: {error}")))?;
                let assertion = CertificateAssertion::read(path, environment.password.as_ref())
                    .map_err(|reason| Failure::Failed(format!("{}: {reason}", path.display())))?
                    .about(client, audience.as_str(), environment.send_chain, Arc::clone(&self.clock));
                let options = ClientAssertionCredentialOptions { client_options };
                ClientAssertionCredential::new(tenant.to_owned(), client.to_owned(), assertion, Some(options))
                    .map(|it| it as Arc<_>)
            }
            Source::WorkloadIdentity => {
                let (tenant, client, path) =
                    environment.application("AZURE_FEDERATED_TOKEN_FILE", environment.token_file.as_ref())?;
                if fs::read_to_string(path).is_ok_and(|token| token.trim().is_empty()) {
                    return Err(Failure::Failed(format!("{} is empty; it should contain a token", path.display())));
                }
                let mut options = WorkloadIdentityCredentialOptions::default();
                options.credential_options.client_options = client_options;
                options.client_id = Some(client.to_owned());
                options.tenant_id = Some(tenant.to_owned());
                options.token_file_path = Some(path.clone());
                WorkloadIdentityCredential::new(Some(options)).map(|it| it as Arc<_>)
            }
            Source::ManagedIdentity => {
                // Outside Azure the credential would take more than a minute to fail.
                if !environment.has_identity_endpoint {
                    metadata_service().await?;
                }
                let options = ManagedIdentityCredentialOptions {
                    client_options: self.local.clone(),
                    user_assigned_id: environment.client.clone().map(UserAssignedId::ClientId),
                };
                ManagedIdentityCredential::new(Some(options)).map(|it| it as Arc<_>)
            }
            Source::AzureCli => AzureCliCredential::new(None).map(|it| it as Arc<_>),
            Source::AzureDeveloperCli => AzureDeveloperCliCredential::new(None).map(|it| it as Arc<_>),
        })
    }
}

impl TokenCredential for EntraCredential {
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<Secret, AuthorizationError>> + Send + '_>> {
        Box::pin(Self::token(self))
    }
}

impl fmt::Debug for EntraCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntraCredential").finish_non_exhaustive()
    }
}

/// Fails unless this machine can reach the metadata service, which machines in Azure can.
async fn metadata_service() -> Result<(), Failure> {
    match tokio::time::timeout(METADATA_CONNECT, tokio::net::TcpStream::connect(METADATA_SERVICE)).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Failure::Absent(format!("no metadata service at {METADATA_SERVICE}: this machine is not in Azure"))),
    }
}

/// Returns the message of `azure_identity` without the name of the credential and the link to its manual, and with the
/// innermost cause, which the message omits.
fn describe(error: &azure_core::Error) -> String {
    let text = error.to_string();
    let said = text.split_once("authentication failed. ").map_or(text.as_str(), |(_, said)| said);
    let said = said.split("To troubleshoot, visit ").next().unwrap_or_default().trim();
    let cause = network_cause(error);
    if said.starts_with("retry policy expired") {
        cause
    } else if text.contains(&cause) {
        said.to_owned()
    } else {
        format!("{said}: {cause}")
    }
}

/// Builds an [`EntraCredential`].
#[must_use]
pub struct EntraCredentialBuilder {
    scope: String,
    roots: Vec<Certificate>,
    clock: Arc<dyn Clock>,
}

impl EntraCredentialBuilder {
    /// Trusts the certificates in this file as roots for the authority, in addition to those of the platform. Takes
    /// every encoding that [`Certificate::read_all`] takes.
    ///
    /// # Errors
    /// [`ReadError`] if the file contains no certificate.
    pub fn add_root_certificate(mut self, bytes: &[u8]) -> Result<Self, ReadError> {
        self.roots.extend(Certificate::read_all(bytes)?);
        Ok(self)
    }

    /// Replaces the source of time, for tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Reads the environment and builds the credential. Nothing is sent.
    ///
    /// # Errors
    /// [`BuildError`] if TLS cannot be set up.
    pub fn build(self) -> Result<EntraCredential, BuildError> {
        let environment = Environment::read();
        let tls = |error: reqwest::Error| BuildError::tls(&error);
        // A redirect would carry a secret to another host.
        let http =
            || reqwest::Client::builder().redirect(redirect::Policy::none()).referer(false).timeout(TOKEN_TIMEOUT);
        let roots = root_certificates(&self.roots)?;
        let authority = http().tls_certs_merge(roots.clone()).build().map_err(tls)?;
        let local = http().no_proxy().tls_certs_merge(roots).build().map_err(tls)?;
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host.clone_from(&environment.authority);
        let options = |client: reqwest::Client| ClientOptions {
            transport: Some(Transport::new(Arc::new(client))),
            cloud: Some(Arc::new(CloudConfiguration::Custom(cloud.clone()))),
            retry: RetryOptions::exponential(ExponentialRetryOptions {
                initial_delay: RETRY_DELAY,
                max_retries: RETRIES,
                ..ExponentialRetryOptions::default()
            }),
            ..ClientOptions::default()
        };
        Ok(EntraCredential {
            scope: self.scope,
            authority: options(authority),
            local: options(local),
            environment,
            clock: self.clock,
            current: Mutex::new(None),
            renewal: tokio::sync::Mutex::new(None),
        })
    }
}

impl fmt::Debug for EntraCredentialBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntraCredentialBuilder").finish_non_exhaustive()
    }
}
