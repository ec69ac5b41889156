//! The IoT Central REST API as a client.
//!
//! A [`Client`] speaks to one application, at its [`Endpoint`], with an [`Authorization`]. It keeps to the service's rate,
//! tries again what can be tried again ([`RetryPolicy`]), and never sends its token to another host. Each resource is one
//! file with its model and its calls: [`Devices`], [`DeviceGroups`], [`EnrollmentGroups`], [`DeploymentManifests`].
//! Failures are an [`Error`] that says which world failed and what to do.
//!
//! ```no_run
//! use iot_enroll::central::{Authorization, Client, Endpoint};
//!
//! # async fn example(token: String) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder(Endpoint::from_subdomain("contoso")?)
//!     .authorization(Authorization::parse(token)?)
//!     .build()?;
//! let group = client.enrollment_groups().get(&"myx509eg".parse()?).await?;
//! println!("{}: {}", group.display_name, group.attestation.kind());
//! # Ok(())
//! # }
//! ```
//!
//! The API is described at <https://learn.microsoft.com/rest/api/iotcentral/>, versions 2022-07-31 and 2022-10-31-preview.

mod authorization;
mod change;
mod client;
mod clock;
mod deployment_manifests;
mod device_groups;
mod devices;
mod endpoint;
mod enrollment_groups;
#[cfg(feature = "entra")]
mod entra;
#[cfg(feature = "entra")]
mod entra_certificate;
mod error;
mod filter;
mod id;
mod page;
mod rate;
mod retry;

pub use authorization::{Authorization, AuthorizationError, TokenCredential};
pub use change::Change;
pub use client::{BuildError, Client, ClientBuilder};
pub(crate) use client::{MAX_ANSWER, body, http_builder};
pub use clock::Clock;
pub(crate) use clock::SystemClock;
pub use deployment_manifests::{
    DeploymentManifest, DeploymentManifestUpdate, DeploymentManifests, NewDeploymentManifest,
};
pub use device_groups::{DeviceGroup, DeviceGroupUpdate, DeviceGroups, NewDeviceGroup};
pub use devices::{
    ClientCertificate, ClientCertificates, Device, DeviceAttestation, DeviceAttestationUpdate, DeviceCredentials,
    DeviceUpdate, Devices, NewDevice, NewDeviceAttestation,
};
pub(crate) use endpoint::is_loopback;
pub use endpoint::{ApiVersion, ApiVersionError, Endpoint, EndpointError};
pub use enrollment_groups::{
    Attestation, DeviceType, EnrollmentGroup, EnrollmentGroupUpdate, EnrollmentGroups, NewAttestation,
    NewEnrollmentGroup, SigningCertificate, SymmetricKeys, VerificationCode,
};
#[cfg(feature = "entra")]
pub use entra::{EntraCredential, EntraCredentialBuilder};
pub use error::{AnswerError, AnswerProblem, Error, NetworkError, NetworkFailure, Operation, ServiceError};
pub(crate) use error::{Tries, certificate_out_of_time, chain, is_tls, sanitise, without_values};
pub use filter::{Boolean, Condition, DeviceQuery, Field, Filter, OrderBy, QueryError, Text, Top};
pub use id::{
    CertificateEntry, DeploymentManifestId, DeviceGroupId, DeviceId, EnrollmentGroupId, Etag, IdError,
    MAX_DEVICE_GROUP_ID, MAX_ENROLLMENT_GROUP_ID,
};
pub use page::Listing;
pub(crate) use rate::Rate;
pub use retry::RetryPolicy;
pub(crate) use retry::{Attempts, Met, Repeat, parse_retry_after};
/// For the secrets in this module's types.
pub use secrecy::{ExposeSecret, SecretString};
