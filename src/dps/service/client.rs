//! The client of an instance, and its builder.

use std::num::NonZeroU32;

use serde::Deserialize;

use super::endpoint::Endpoint;
use crate::transport::{ApiVersion, ErrorDetails, Refused, RestClient, ServiceProfile, client_builder};

/// The scope of Microsoft Entra tokens for the service API in the public cloud.
pub const ENTRA_SCOPE: &str = "https://azure-devices-provisioning.net/.default";

/// The default version of the API: the newest stable one that every instance is known to have. Later ones add nothing that
/// enrollments with X.509 certificates or symmetric keys need.
pub const API_VERSION: ApiVersion = ApiVersion::from_static("2021-10-01");

static PROFILE: ServiceProfile = ServiceProfile {
    name: "a Device Provisioning Service instance",
    short_name: "instance",
    role: "Device Provisioning Service Data Contributor",
    base_path: &[],
    // The limit of an instance is 1,000 operations per minute.
    rate: NonZeroU32::new(16).unwrap(),
    parse_error,
    remedy,
};

/// Reads the body of an error.
fn parse_error(text: &str) -> ErrorDetails {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        error_code: Option<i64>,
        tracking_id: Option<String>,
        message: Option<String>,
    }
    serde_json::from_str(text).map_or_else(
        |_| ErrorDetails::default(),
        |Body { error_code, tracking_id, message }| ErrorDetails {
            code: error_code.map(|code| code.to_string()),
            message,
            request_id: tracking_id,
        },
    )
}

fn remedy(refused: Refused) -> Option<&'static str> {
    match (refused.status, refused.shared_access) {
        (401, true) => Some(
            "Check the shared access key, its policy and the clock of this machine. If local authentication is off for the \
             instance (disableLocalAuth), no key is accepted: sign in with Microsoft Entra",
        ),
        (401, false) => Some(
            "Check that the token is for https://azure-devices-provisioning.net and has not expired: a token for Resource \
             Manager is not accepted here",
        ),
        (403, true) => Some("Use a shared access policy with the right that this needs, such as EnrollmentWrite"),
        (403, false) => Some(
            "Assign the role Device Provisioning Service Data Contributor (or Data Reader, to read) on the instance: the \
             roles Owner and Contributor do not include access to enrollments",
        ),
        _ => None,
    }
}

/// A client of the service API of one instance of the Device Provisioning Service.
///
/// Clones are cheap and share connections, token and rate limit.
///
/// ```
/// use iot_enroll::dps::service::{Authorization, Client, ConnectionString};
///
/// let text = "HostName=contoso.azure-devices-provisioning.net;SharedAccessKeyName=ops;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==";
/// let connection: ConnectionString = text.parse()?;
/// let client = Client::builder(connection.host().parse()?)
///     .authorization(Authorization::from_connection_string(&connection))
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
    /// Starts building a client of the instance at this address.
    pub fn builder(endpoint: Endpoint) -> ClientBuilder {
        ClientBuilder::new(endpoint, API_VERSION)
    }

    /// Returns the instance's address.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the version of the API that calls use.
    #[must_use]
    pub fn api_version(&self) -> &ApiVersion {
        &self.version
    }

    pub(crate) fn rest(&self) -> &RestClient {
        &self.rest
    }
}

client_builder! {
    profile: &PROFILE,
    version: ApiVersion, ApiVersion::text,
    authorization_doc: "Sets the token, key or credential. Required.",
    version_doc: "Sets the version of the API. Default: [`API_VERSION`].",
    rate_doc: "Sets the most requests per second that all clones send, retries included. Default: 16, because the service allows an instance 1,000 per minute.",
    shared: "instance",
}
