//! A client of the service API of the Device Provisioning Service.
//!
//! A [`Client`] connects to one instance, at its [`Endpoint`], with an [`Authorization`]. It manages [`EnrollmentGroups`],
//! [`IndividualEnrollments`] and [`Registrations`]. Like the client of IoT Central, it keeps within the service's rate
//! limit, retries failed calls ([`RetryPolicy`]), and never sends its token to another host.
//!
//! ```no_run
//! use iot_enroll::dps::service::{
//!     Authorization, CaReferences, Client, ConnectionString, Endpoint, NewEnrollmentGroup,
//! };
//!
//! # async fn example(text: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let connection: ConnectionString = text.parse()?;
//! let client = Client::builder(connection.host().parse()?)
//!     .authorization(Authorization::from_connection_string(&connection))
//!     .build()?;
//! let root = CaReferences::primary("root-2026".parse()?);
//! client.enrollment_groups().create(&"myx509eg".parse()?, &NewEnrollmentGroup::new(root)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The API is described at <https://learn.microsoft.com/rest/api/iot-dps/service/>, version 2021-10-01.

mod attestation;
mod bulk;
mod client;
mod endpoint;
mod enrollment_groups;
mod id;
mod individual_enrollments;
mod query;
mod record;
mod registrations;
mod settings;
mod update;

pub use attestation::{
    Attestation, CaReferences, CertificateInfo, EnrolledCertificates, NewAttestation, NewCertificates,
};
pub use bulk::{BulkError, MAX_BULK};
pub use client::{API_VERSION, Client, ClientBuilder, ENTRA_SCOPE};
pub use endpoint::{Endpoint, EndpointError};
pub use enrollment_groups::{EnrollmentGroup, EnrollmentGroupUpdate, EnrollmentGroups, NewEnrollmentGroup};
pub use id::{EnrollmentGroupId, MAX_ID, RegistrationId};
pub use individual_enrollments::{
    IndividualEnrollment, IndividualEnrollmentUpdate, IndividualEnrollments, NewIndividualEnrollment,
};
pub use query::Query;
pub use registrations::{RegistrationState, RegistrationStatus, Registrations};
pub use settings::{AllocationPolicy, CustomAllocation, EnrollmentSettings, InitialTwin, ReprovisionPolicy};

pub use super::DpsCertificateName;
/// What this client is built with.
#[cfg(feature = "entra")]
pub use crate::transport::{EntraCredential, EntraCredentialBuilder};
pub use crate::{
    certificate::NameError,
    transport::{
        AddressError, AnswerError, AnswerProblem, ApiVersion, ApiVersionError, Authorization, AuthorizationError,
        BuildError, Change, Clock, ConnectionString, ConnectionStringError, Error, Etag, Listing, NetworkError,
        NetworkFailure, Operation, RetryPolicy, Secret, ServiceError, SharedAccessKey, SharedAccessKeyError,
        SymmetricKeys, TokenCredential,
    },
};
