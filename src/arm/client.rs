//! The client of Resource Manager, and its builder.

use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::Value;

use super::endpoint::Endpoint;
use crate::transport::{ApiVersion, ErrorDetails, Refused, RestClient, ServiceProfile, client_builder};

/// The scope of Microsoft Entra tokens for Resource Manager in the public cloud. For others, see
/// [`Endpoint::entra_scope`].
pub const ENTRA_SCOPE: &str = "https://management.azure.com/.default";

/// The default version of the API for the Device Provisioning Service. It has today's form of requests and is known to
/// more clouds than later versions, which add nothing that this client uses.
pub const API_VERSION: ApiVersion = ApiVersion::from_static("2022-12-12");

static PROFILE: ServiceProfile = ServiceProfile {
    name: "Azure Resource Manager",
    short_name: "subscription",
    role: "Contributor",
    base_path: &[],
    // The limit of the provider is not published. Resource Manager lets a subscription write 10 times per second in the
    // long run, and read more often.
    rate: NonZeroU32::new(10).unwrap(),
    parse_error,
    remedy,
};

/// Reads the body of an error: the envelope of Resource Manager, or the form of the provider.
fn parse_error(text: &str) -> ErrorDetails {
    #[derive(Deserialize)]
    struct Body {
        error: Option<Details>,
        #[serde(flatten)]
        flat: Details,
    }
    #[derive(Deserialize)]
    struct Details {
        code: Option<Value>,
        message: Option<String>,
    }
    let Ok(Body { error, flat }) = serde_json::from_str(text) else { return ErrorDetails::default() };
    let Details { code, message } = error.unwrap_or(flat);
    let code = code.and_then(|code| match code {
        Value::String(code) => Some(code),
        Value::Number(code) => Some(code.to_string()),
        _ => None,
    });
    ErrorDetails { code, message, request_id: None }
}

fn remedy(refused: Refused) -> Option<&'static str> {
    match refused.status {
        401 => Some(
            "Check that the token is a bearer token for Resource Manager and has not expired: a token or key for \
             enrollments is not accepted here",
        ),
        403 => Some("Assign a role on the instance: Contributor, or Reader to read"),
        404 => Some("Check the names of subscription, resource group and resource, and that the sign-in can see them"),
        _ => None,
    }
}

/// A client of Azure Resource Manager.
///
/// Clones are cheap and share connections, token and rate limit.
///
/// ```
/// use iot_enroll::arm::{Authorization, Client, Endpoint};
///
/// let client = Client::builder(Endpoint::default()).authorization(Authorization::parse("Bearer eyJ0")?).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Client {
    rest: RestClient,
    endpoint: Endpoint,
    version: ApiVersion,
}

impl Client {
    /// Starts building a client of the Resource Manager at this address.
    pub fn builder(endpoint: Endpoint) -> ClientBuilder {
        ClientBuilder::new(endpoint, API_VERSION)
    }

    /// Returns the address.
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
    authorization_doc: "Sets the bearer token or credential. Required.",
    version_doc: "Sets the version of the API for the Device Provisioning Service. Default: [`API_VERSION`].",
    rate_doc: "Sets the most requests per second that all clones send, retries included. Default: 10.",
    shared: "subscription",
}
