//! Registration at the Device Provisioning Service, as a device does it, and the diagnosis of failures.
//!
//! A [`RegistrationClient`] connects to one provisioning service, at its [`ProvisioningEndpoint`] and with one
//! [`IdScope`]. It registers any number of devices, each with its own [`Credential`]: a certificate with its chain and
//! key, or a symmetric key. A failed registration returns a [`RegistrationError`], which includes what was observed on
//! the way. [`diagnose`] finds its [`Cause`] from the error, the certificates and, if known, the service's
//! [`EnrollmentState`]. It sends nothing.
//!
//! ```no_run
//! use iot_enroll::{
//!     certificate::{Certificate, PrivateKey},
//!     dps::device::{DeviceCertificate, IdScope, RegistrationClient},
//! };
//!
//! # async fn example(pem: &[u8], key: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//! let client = RegistrationClient::builder("0ne00A1B2C3".parse()?).build()?;
//! let credential = DeviceCertificate::new(Certificate::read_all(pem)?, &PrivateKey::read(key, None)?)?.into();
//! let assignment = client.register(&"sensor-1".parse()?, &credential, None).await?;
//! println!("{} is {} at {}", assignment.registration_id, assignment.device_id, assignment.assigned_hub);
//! # Ok(())
//! # }
//! ```
//!
//! The API is described at <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration>, version
//! 2021-06-01. Version 2026-11-01 adds operational certificates: a device sends an [`OperationalRequest`] when it registers,
//! and is issued a certificate for the hub that is valid for some weeks
//! ([`RegistrationClient::register_for_certificate`]).

mod admission;
mod assignment;
mod cause;
mod client;
mod credential;
mod diagnosis;
mod endpoint;
mod error;
mod id_scope;
mod operational;
mod symmetric_key;
mod tls;

pub use crate::transport::{
    AnswerProblem, ApiVersion, ApiVersionError, BuildError, Clock, NetworkFailure, RetryPolicy, Secret,
};
pub use admission::{DeviceState, EnrolledCertificate, EnrollmentState, GroupAttestation, GroupState, OwnAttestation};
pub use assignment::Assignment;
pub use cause::Cause;
pub use client::{API_VERSION, ISSUING_API_VERSION, RegistrationClient, RegistrationClientBuilder};
pub use credential::{Credential, CredentialError, DeviceCertificate};
pub use diagnosis::{Attempt, DiagnosedError, Diagnosis, diagnose, objections};
pub use endpoint::{ProvisioningEndpoint, ProvisioningEndpointError};
pub use error::{Distrust, Observations, Refusal, RegistrationError, RegistrationErrorKind};
pub use id_scope::{IdScope, IdScopeError, MAX_ID_SCOPE};
pub use operational::{IssuedCertificateError, OperationalRequest, OperationalRequestError};
pub(crate) use symmetric_key::derive_key;
pub use symmetric_key::{SymmetricKey, SymmetricKeyError, derive_device_key};
