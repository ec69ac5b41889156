//! The client of an application, and its builder.

use std::num::NonZeroU32;

use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::endpoint::{ApiVersion, Endpoint};
use crate::transport::{Call, Error, ErrorDetails, RestClient, ServiceProfile, client_builder};

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
        ClientBuilder::new(endpoint, ApiVersion::default())
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

client_builder! {
    profile: &PROFILE,
    version: ApiVersion, |version: &ApiVersion| version.as_str(),
    authorization_doc: "Sets the token or credential. Required.",
    version_doc: "Sets the version of the API. Default: `2022-07-31`.",
    rate_doc: "Sets the most requests per second that all clones send, retries included. Default: 20, the service's limit for an application.",
    shared: "application",
}
