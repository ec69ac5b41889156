//! The client of an application, and its builder.

use std::{fmt, num::NonZeroU32};

use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::endpoint::{ApiVersion, Endpoint};
use crate::transport::{
    Authorization, BuildError, Call, ConnectionOptions, Error, ErrorDetails, RestClient, ServiceProfile,
    connection_setters,
};

/// The scope of Microsoft Entra tokens for IoT Central.
pub const ENTRA_SCOPE: &str = "https://apps.azureiotcentral.com/.default";

static PROFILE: ServiceProfile = ServiceProfile {
    name: "an IoT Central application",
    short_name: "application",
    role: "App Administrator",
    base_path: &["api"],
    // The limit of an application, which all its tokens share.
    rate: NonZeroU32::new(20).unwrap(),
    parse_error,
    remedy: |_| None,
};

/// Reads the body of an error.
fn parse_error(text: &str) -> ErrorDetails {
    #[derive(Deserialize)]
    struct Body {
        error: Details,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Details {
        code: Option<String>,
        message: Option<String>,
        request_id: Option<String>,
    }
    serde_json::from_str(text).map_or_else(
        |_| ErrorDetails::default(),
        |Body { error: Details { code, message, request_id } }| ErrorDetails { code, message, request_id },
    )
}

/// A client of one IoT Central application.
///
/// Clones are cheap and share connections, token and rate limit.
///
/// ```
/// use iot_enroll::central::{Authorization, Client, Endpoint};
///
/// let client = Client::builder(Endpoint::from_subdomain("contoso")?)
///     .authorization(Authorization::parse("SharedAccessSignature sr=app&sig=abc&skn=ops&se=4102444800000")?)
///     .build()?;
/// let groups = client.enrollment_groups();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Client {
    rest: RestClient,
    endpoint: Endpoint,
    version: ApiVersion,
}

impl Client {
    /// Starts building a client of the application at this address.
    pub fn builder(endpoint: Endpoint) -> ClientBuilder {
        ClientBuilder {
            endpoint,
            version: ApiVersion::default(),
            authorization: None,
            connection: ConnectionOptions::default(),
        }
    }

    /// Returns the application's address.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the version of the API that calls use.
    #[must_use]
    pub fn api_version(&self) -> ApiVersion {
        self.version
    }

    /// Returns a client that uses another version of the API. It shares everything else with this client, including the
    /// rate limit.
    #[must_use]
    pub fn with_api_version(&self, version: ApiVersion) -> Self {
        Self { rest: self.rest.with_api_version(version.as_str()), endpoint: self.endpoint.clone(), version }
    }

    pub(crate) fn rest(&self) -> &RestClient {
        &self.rest
    }

    /// Sends a PUT that creates a resource, after a GET that fails the call if the resource exists.
    ///
    /// The API describes no conditional PUT for resources that do not exist, so a resource that another client creates
    /// between the two requests is replaced.
    pub(super) async fn create<T: DeserializeOwned>(&self, put: &Call) -> Result<T, Error> {
        match self.rest.find::<IgnoredAny>(&put.to_get()).await? {
            Some(_) => Err(Error::AlreadyExists { operation: put.operation() }),
            None => self.rest.read(put).await,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .field("version", &self.version)
            .field("authorization", self.rest.authorization())
            .finish_non_exhaustive()
    }
}

/// Builds a [`Client`].
#[must_use]
pub struct ClientBuilder {
    endpoint: Endpoint,
    version: ApiVersion,
    authorization: Option<Authorization>,
    connection: ConnectionOptions,
}

impl ClientBuilder {
    /// Sets the token or credential. Required.
    pub fn authorization(mut self, authorization: Authorization) -> Self {
        self.authorization = Some(authorization);
        self
    }

    /// Sets the version of the API. Default: `2022-07-31`.
    pub fn api_version(mut self, version: ApiVersion) -> Self {
        self.version = version;
        self
    }

    connection_setters!();

    /// Sets the most requests per second that all clones send, retries included. Default: 20, the service's limit for
    /// an application.
    ///
    /// Requests are evenly spaced. When the service throttles them (429) because other clients use the application too,
    /// the rate is halved, then rises again within 30 seconds.
    pub fn rate(mut self, per_second: NonZeroU32) -> Self {
        self.connection.rate = Some(per_second);
        self
    }

    /// Builds the client. Nothing is sent.
    ///
    /// # Errors
    /// [`BuildError`] if no token was given, if it has expired, or if TLS cannot be set up.
    pub fn build(self) -> Result<Client, BuildError> {
        let authorization = self.authorization.ok_or(BuildError::NoAuthorization)?;
        let address = self.endpoint.address().clone();
        let rest = RestClient::new(&PROFILE, address, authorization, self.version.as_str(), self.connection)?;
        Ok(Client { rest, endpoint: self.endpoint, version: self.version })
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("endpoint", &self.endpoint)
            .field("version", &self.version)
            .field("authorization", &self.authorization)
            .finish_non_exhaustive()
    }
}
