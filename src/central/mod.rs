//! A client of the IoT Central REST API.
//!
//! A [`Client`] connects to one application, at its [`Endpoint`], with an [`Authorization`]. It keeps within the
//! service's rate limit, retries failed calls ([`RetryPolicy`]), and never sends its token to another host. The
//! resources are [`Devices`], [`DeviceGroups`], [`EnrollmentGroups`] and [`DeploymentManifests`]. A failed call returns
//! an [`Error`], which tells where it failed and what to do.
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
//! The API is described at <https://learn.microsoft.com/rest/api/iotcentral/>, versions 2022-07-31 and
//! 2022-10-31-preview.

mod client;
mod commands;
mod deployment_manifests;
mod device_groups;
mod devices;
mod endpoint;
mod enrollment_groups;
mod filter;
mod id;

pub use client::{Client, ClientBuilder, ENTRA_SCOPE};
pub use commands::{CommandPath, CommandPathError, DeviceCommand, NewCommand};
pub use deployment_manifests::{
    DeploymentManifest, DeploymentManifestUpdate, DeploymentManifests, NewDeploymentManifest,
};
pub use device_groups::{DeviceGroup, DeviceGroupUpdate, DeviceGroups, NewDeviceGroup};
pub use devices::{
    ClientCertificate, ClientCertificates, Device, DeviceAttestation, DeviceAttestationUpdate, DeviceCredentials,
    DeviceUpdate, Devices, NewDevice, NewDeviceAttestation,
};
pub use endpoint::{ApiVersion, ApiVersionError, Endpoint, EndpointError};
pub use enrollment_groups::{
    Attestation, DeviceType, EnrollmentGroup, EnrollmentGroupUpdate, EnrollmentGroups, NewAttestation,
    NewEnrollmentGroup, SigningCertificate, VerificationCode,
};
pub use filter::{Boolean, Condition, DeviceQuery, Field, Filter, OrderBy, QueryError, Text, Top};
pub use id::{
    CentralDeviceId, CertificateEntry, DeploymentManifestId, DeviceGroupId, EnrollmentGroupId, IdError,
    MAX_DEVICE_GROUP_ID, MAX_ENROLLMENT_GROUP_ID,
};

pub use crate::certificate::Possession;
pub use crate::transport::{
    AddressError, AnswerError, AnswerProblem, Authorization, AuthorizationError, BuildError, Change, Clock, Error,
    Etag, Listing, NetworkError, NetworkFailure, Operation, RetryPolicy, Secret, ServiceError, SymmetricKeys,
    TokenCredential,
};
/// What this client is built with and fails with.
#[cfg(feature = "entra")]
pub use crate::transport::{EntraCredential, EntraCredentialBuilder};
