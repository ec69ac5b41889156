//! A client of Azure Resource Manager for instances of the Device Provisioning Service.
//!
//! A [`Client`] finds an instance by name, and reads it: its ID scope, its addresses and its linked hubs
//! ([`ProvisioningService`]). An [`Instance`] gives access to its CA certificates ([`Certificates`]) and its shared access
//! policies. Enrollments belong to another API: see [`dps::service`](crate::dps::service).
//!
//! ```no_run
//! use iot_enroll::arm::{Authorization, Client, Endpoint, InstanceQuery};
//!
//! # async fn example(token: String) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder(Endpoint::default()).authorization(Authorization::parse(token)?).build()?;
//! let service = client.find(&InstanceQuery::new("contoso-dps".parse()?)).await?;
//! println!("{}: {}", service.id, service.id_scope);
//! let certificates: Vec<_> = client.instance(&service.id).certificates().list().try_collect().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The API is described at <https://learn.microsoft.com/rest/api/iot-dps/>, version 2022-12-12.

mod certificates;
mod client;
mod endpoint;
mod find;
mod id;
mod instance;
mod policies;

pub use certificates::{Certificates, DpsCertificate, VerificationCode};
pub use client::{API_VERSION, Client, ClientBuilder, ENTRA_SCOPE};
pub use endpoint::{Endpoint, EndpointError};
pub use find::{FindError, InstanceQuery};
pub use id::{InstanceId, InstanceIdError, InstanceName, ResourceGroupName, SubscriptionId};
pub use instance::{Instance, LinkedHub, ProvisioningService};
pub use policies::{AccessRight, SharedAccessPolicy};

/// What this client is built with.
#[cfg(feature = "entra")]
pub use crate::transport::{EntraCredential, EntraCredentialBuilder};
pub use crate::{
    certificate::{NameError, Possession},
    dps::DpsCertificateName,
    transport::{
        AddressError, AnswerError, AnswerProblem, ApiVersion, ApiVersionError, Authorization, AuthorizationError,
        BuildError, Clock, Error, Etag, Listing, NetworkError, NetworkFailure, Operation, RetryPolicy, Secret,
        ServiceError, TokenCredential,
    },
};
