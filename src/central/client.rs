//! The client: how it is built, and how it sends one call.

use std::{fmt, num::NonZeroU32};

use serde::Deserialize;

use super::endpoint::{ApiVersion, Endpoint};
use crate::transport::{
    Authorization, BuildError, ConnectionOptions, ErrorDetails, RestClient, ServiceProfile, connection_setters,
};

static PROFILE: ServiceProfile = ServiceProfile {
    name: "an IoT Central application",
    short_name: "application",
    role: "App Administrator",
    base_path: &["api"],
    // The limit for one application, over all its tokens.
    rate: NonZeroU32::new(20).unwrap(),
    parse_error,
};

/// Reads an error in the service's form.
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
/// Clones are cheap and share everything: connections, token, and the rate limit.
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
    /// Begins a client for the application at this address.
    pub fn builder(endpoint: Endpoint) -> ClientBuilder {
        ClientBuilder {
            endpoint,
            version: ApiVersion::default(),
            authorization: None,
            connection: ConnectionOptions::default(),
        }
    }

    /// The application's address.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The version of the API that calls name.
    #[must_use]
    pub fn api_version(&self) -> ApiVersion {
        self.version
    }

    /// A client whose calls name another version of the API. It shares everything else with this one, the rate limit
    /// above all.
    #[must_use]
    pub fn with_api_version(&self, version: ApiVersion) -> Self {
        Self { rest: self.rest.with_api_version(version.as_str()), endpoint: self.endpoint.clone(), version }
    }

    pub(crate) fn rest(&self) -> &RestClient {
        &self.rest
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
    /// What requests prove their right with. Needed.
    pub fn authorization(mut self, authorization: Authorization) -> Self {
        self.authorization = Some(authorization);
        self
    }

    /// The version of the API; `2022-07-31` by default.
    pub fn api_version(mut self, version: ApiVersion) -> Self {
        self.version = version;
        self
    }

    connection_setters!();

    /// How many requests a second go out at most, over all clones and with repetitions; 20 by default, which is the
    /// service's limit for one application. They are evenly spaced. While the service refuses requests nevertheless
    /// (429), since others use the application too, fewer go out: half as many at each refusal, then slowly more again.
    pub fn rate(mut self, per_second: NonZeroU32) -> Self {
        self.connection.rate = Some(per_second);
        self
    }

    /// Builds the client. Nothing is sent.
    ///
    /// # Errors
    /// [`BuildError`] when no token was given, it has expired, or TLS cannot be set up here.
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
