//! The resources of a DPS instance: their members, rules and JSON, without requests.

mod attestation;
mod ca_certificate;
mod enrollment;
mod instance;
mod twin;

pub(crate) use attestation::Attestation;
pub(crate) use ca_certificate::CaCertificate;
pub(crate) use enrollment::{
    ENROLLMENT_ID_RULE, Enrollment, EnrollmentBody, Kind, ReprovisionPolicy, ServiceVersion, invalid_id,
    is_enrollment_id,
};
pub(crate) use instance::{Instance, MAX_CERTIFICATES};
