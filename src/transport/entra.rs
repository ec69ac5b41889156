//! Sign-in with Microsoft Entra: which credential of the environment gives a token, and when it is asked for another.

use std::{
    env,
    error::Error as StdError,
    fmt, fs,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use azure_core::{
    cloud::{CloudConfiguration, CustomConfiguration},
    credentials::{AccessToken, Secret, TokenCredential as AzureCredential},
    http::{ClientOptions, ExponentialRetryOptions, RetryOptions, Transport},
    time::Duration as AzureDuration,
};
use azure_identity::{
    AzureCliCredential, AzureDeveloperCliCredential, ClientAssertionCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use reqwest::{Url, redirect};
use secrecy::{ExposeSecret, SecretString};
use tracing::debug;

use super::{
    authorization::{AuthorizationError, TokenCredential},
    clock::{Clock, SystemClock},
    connection::BuildError,
    entra_certificate::CertificateAssertion,
    network::error_chain,
    redact::sanitise,
};
use crate::certificate::{Certificate, ReadError};

/// What a token for IoT Central is asked for.
const SCOPE: &str = "https://apps.azureiotcentral.com/.default";

/// The authority of the public cloud.
const PUBLIC_AUTHORITY: &str = "https://login.microsoftonline.com";

/// Where machines of Azure learn who they are.
const METADATA_SERVICE: &str = "169.254.169.254:80";

/// How long the metadata service has to take a connection. It is on the very machine, or not at all.
const METADATA_CONNECT: Duration = Duration::from_secs(1);

/// How long one credential has to give a token.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a request for a token that failed on the way is sent again, and when at first. It is repeated even where the
/// authority's certificate is not trusted, so a person waits for this.
const RETRIES: u32 = 2;
const RETRY_DELAY: AzureDuration = AzureDuration::milliseconds(200);

/// How long before a token expires another is asked for; half of its time where that is less.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// How long a token that could not be renewed, but is still good, is used before that is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// A Microsoft Entra credential, as the environment has it.
///
/// These are tried in turn; the first that gives a token is kept to:
///
/// | credential | set up by |
/// | --- | --- |
/// | client secret | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET` |
/// | client certificate | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_CERTIFICATE_PATH` (PEM or PFX with an RSA key), `AZURE_CLIENT_CERTIFICATE_PASSWORD`, `AZURE_CLIENT_SEND_CERTIFICATE_CHAIN` |
/// | workload identity | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_FEDERATED_TOKEN_FILE` |
/// | managed identity | being in Azure; `AZURE_CLIENT_ID` names a user-assigned identity |
/// | Azure CLI | `az login` |
/// | Azure Developer CLI | `azd auth login` |
///
/// One of the first three that is set up and fails ends the search, and so does a managed identity whose address
/// `IDENTITY_ENDPOINT` or `MSI_ENDPOINT` gives: to go on would be to act as somebody else.
/// `AZURE_AUTHORITY_HOST` names the authority of another cloud; it must be `https`.
///
/// A token is kept, and renewed five minutes before it expires; one request for a token is under way at a time, and
/// callers go on with the old token meanwhile. While the renewal fails the old token serves as long as it is good.
///
/// ```no_run
/// use iot_enroll::central::{Authorization, Client, Endpoint, EntraCredential};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder(Endpoint::from_subdomain("contoso")?)
///     .authorization(Authorization::from_credential(EntraCredential::from_env()?))
///     .build()?;
/// # Ok(())
/// # }
/// ```
pub struct EntraCredential {
    environment: Environment,
    /// For the authority, and for what is on this machine: no proxy between.
    authority: ClientOptions,
    local: ClientOptions,
    clock: Arc<dyn Clock>,
    current: Mutex<Option<Current>>,
    /// The credential that gave a token before. Held while another token is asked for.
    renewal: tokio::sync::Mutex<Option<Source>>,
}

/// A token that was given.
#[derive(Clone)]
struct Current {
    token: SecretString,
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

/// Why a credential gave no token.
enum Failure {
    /// It is not set up here.
    Absent(String),
    /// It is, as far as one can see, and does not work.
    Failed(String),
}

/// The variables that set credentials up.
struct Environment {
    tenant: Option<String>,
    client: Option<String>,
    secret: Option<SecretString>,
    certificate: Option<PathBuf>,
    password: Option<SecretString>,
    send_chain: bool,
    token_file: Option<PathBuf>,
    authority: String,
    /// Whether the host says where its managed identity is to be asked.
    names_identity: bool,
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
            names_identity: ["IDENTITY_ENDPOINT", "MSI_ENDPOINT"].into_iter().any(|name| get(name).is_some()),
        }
    }

    /// Tenant, client and what the credential needs beside them, if all of them are set.
    fn application<'a, T>(&'a self, name: &str, value: Option<&'a T>) -> Result<(&'a str, &'a str, &'a T), Failure> {
        match (&self.tenant, &self.client, value) {
            (Some(tenant), Some(client), Some(value)) => match Url::parse(&self.authority) {
                Ok(url) if url.has_host() => Ok((tenant, client, value)),
                _ => Err(Failure::Failed(format!(
                    "AZURE_AUTHORITY_HOST is {:?}, which is no address such as {PUBLIC_AUTHORITY}",
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

    /// What no message may repeat.
    fn secrets(&self) -> Vec<SecretString> {
        let file = self.token_file.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let file = file.map(|text| text.trim().into());
        self.secret.iter().chain(&self.password).cloned().chain(file).collect()
    }
}

impl EntraCredential {
    /// The credential of this process's environment, which is read now. Nothing is sent.
    ///
    /// # Errors
    /// [`BuildError`] when TLS cannot be set up here.
    pub fn from_env() -> Result<Self, BuildError> {
        Self::builder().build()
    }

    /// As [`from_env`](Self::from_env), with more to say.
    pub fn builder() -> EntraCredentialBuilder {
        EntraCredentialBuilder { roots: Vec::new(), clock: Arc::new(SystemClock::new()) }
    }

    fn current(&self) -> Option<Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, current: Current) -> SecretString {
        let token = current.token.clone();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(current);
        token
    }

    async fn token(&self) -> Result<SecretString, AuthorizationError> {
        let now = self.clock.now();
        let current = self.current();
        if let Some(current) = current.as_ref().filter(|it| now < it.renew_at) {
            return Ok(current.token.clone());
        }
        let good = current.filter(|it| now < it.expires_at);
        let mut chosen = match (self.renewal.try_lock(), &good) {
            (Ok(turn), _) => turn,
            // Somebody is at it.
            (Err(_), Some(current)) => return Ok(current.token.clone()),
            (Err(_), None) => self.renewal.lock().await,
        };
        // Somebody was at it.
        if let Some(current) = self.current().filter(|it| now < it.renew_at) {
            return Ok(current.token);
        }
        match self.ask_in_turn(&mut chosen).await {
            Ok(token) => {
                let expires_at = SystemTime::from(token.expires_on);
                let time_left = expires_at.duration_since(now).unwrap_or_default();
                let renew_at = expires_at - RENEW_BEFORE.min(time_left / 2);
                Ok(self.keep(Current { token: token.token.secret().into(), renew_at, expires_at }))
            }
            Err(error) => match good {
                Some(current) => {
                    debug!(%error, "the token was not renewed; the one there is serves for now");
                    Ok(self.keep(Current { renew_at: now + RENEW_AGAIN, ..current }))
                }
                None => Err(error),
            },
        }
    }

    /// Asks one credential after the other, or the one that gave a token before.
    async fn ask_in_turn(&self, chosen: &mut Option<Source>) -> Result<AccessToken, AuthorizationError> {
        let mut tried = Vec::new();
        let mut advice = "Sign in with az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET";
        for source in Source::ALL.into_iter().filter(|source| chosen.is_none_or(|chosen| chosen == *source)) {
            let (reason, stop) = match self.ask(source).await {
                Ok(token) => {
                    debug!(credential = source.name(), "a token was given");
                    *chosen = Some(source);
                    return Ok(token);
                }
                Err(Failure::Absent(reason)) => (reason, false),
                Err(Failure::Failed(reason)) => (reason, true),
            };
            let reason = sanitise(&reason, &self.environment.secrets());
            tried.push(format!("{}: {}", source.name(), reason.trim_end_matches('.')));
            if stop {
                advice = "That one is set up here, so no other was tried after it: correct it or unset its variables";
                break;
            }
        }
        Err(AuthorizationError::Credential(format!("tried {}. {advice}", tried.join("; "))))
    }

    async fn ask(&self, source: Source) -> Result<AccessToken, Failure> {
        // The first three are set up by variables of their own, so their failures are meant to be seen.
        let failed = match source {
            Source::ClientSecret | Source::ClientCertificate | Source::WorkloadIdentity => Failure::Failed,
            Source::ManagedIdentity if self.environment.names_identity => Failure::Failed,
            Source::ManagedIdentity | Source::AzureCli | Source::AzureDeveloperCli => Failure::Absent,
        };
        let credential = self.credential(source).await?.map_err(|error| match source {
            // A kind of host that cannot be asked.
            Source::ManagedIdentity => Failure::Absent(describe(&error)),
            _ => failed(describe(&error)),
        })?;
        match tokio::time::timeout(PATIENCE, credential.get_token(&[SCOPE], None)).await {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(error)) => Err(failed(describe(&error))),
            Err(_) => Err(failed(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    /// A new credential for each token: what it would keep is kept here, once for all kinds.
    async fn credential(&self, source: Source) -> Result<azure_core::Result<Arc<dyn AzureCredential>>, Failure> {
        let environment = &self.environment;
        let client_options = self.authority.clone();
        Ok(match source {
            Source::ClientSecret => {
                let (tenant, client, secret) =
                    environment.application("AZURE_CLIENT_SECRET", environment.secret.as_ref())?;
                let secret = Secret::new(secret.expose_secret().to_owned());
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
                    return Err(Failure::Failed(format!("{} is empty; it should hold a token", path.display())));
                }
                let mut options = WorkloadIdentityCredentialOptions::default();
                options.credential_options.client_options = client_options;
                options.client_id = Some(client.to_owned());
                options.tenant_id = Some(tenant.to_owned());
                options.token_file_path = Some(path.clone());
                WorkloadIdentityCredential::new(Some(options)).map(|it| it as Arc<_>)
            }
            Source::ManagedIdentity => {
                // Outside Azure the credential would search for more than a minute.
                if !environment.names_identity {
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
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<SecretString, AuthorizationError>> + Send + '_>> {
        Box::pin(Self::token(self))
    }
}

impl fmt::Debug for EntraCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntraCredential").finish_non_exhaustive()
    }
}

/// Looks whether this is a machine of Azure, which has a managed identity there.
async fn metadata_service() -> Result<(), Failure> {
    match tokio::time::timeout(METADATA_CONNECT, tokio::net::TcpStream::connect(METADATA_SERVICE)).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Failure::Absent(format!("no metadata service at {METADATA_SERVICE}: this is no machine of Azure"))),
    }
}

/// What `azure_identity` says, without its own name for the credential and the pointer to its manual, and the innermost
/// cause, which its words leave out.
fn describe(error: &azure_core::Error) -> String {
    let text = error.to_string();
    let said = text.split_once("authentication failed. ").map_or(text.as_str(), |(_, said)| said);
    let said = said.split("To troubleshoot, visit ").next().unwrap_or_default().trim();
    let mut innermost: &dyn StdError = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    let cause = innermost.to_string();
    if text.contains(&cause) { said.to_owned() } else { format!("{said}: {cause}") }
}

/// Builds an [`EntraCredential`].
#[must_use]
pub struct EntraCredentialBuilder {
    roots: Vec<Certificate>,
    clock: Arc<dyn Clock>,
}

impl EntraCredentialBuilder {
    /// Trusts the certificates of this file as roots, beside those of the platform, when it speaks to the authority. PEM,
    /// DER or base64 of either.
    ///
    /// # Errors
    /// [`ReadError`] when there is no certificate in it.
    pub fn add_root_certificate(mut self, bytes: &[u8]) -> Result<Self, ReadError> {
        self.roots.extend(Certificate::read_all(bytes)?);
        Ok(self)
    }

    /// Another source of time, for tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Reads the environment. Nothing is sent.
    ///
    /// # Errors
    /// [`BuildError`] when TLS cannot be set up here.
    pub fn build(self) -> Result<EntraCredential, BuildError> {
        let environment = Environment::read();
        let roots =
            self.roots.iter().map(|root| reqwest::Certificate::from_der(root.der())).collect::<Result<Vec<_>, _>>();
        let tls = |error: reqwest::Error| BuildError::Tls(error_chain(&error));
        // A redirect would carry a secret to another host.
        let http = || reqwest::Client::builder().redirect(redirect::Policy::none()).referer(false).timeout(PATIENCE);
        let authority = http().tls_certs_merge(roots.map_err(tls)?).build().map_err(tls)?;
        let local = http().no_proxy().build().map_err(tls)?;
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
