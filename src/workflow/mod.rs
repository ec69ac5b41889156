//! Sequences over certificates and the client.
//!
//! [`provision`] takes an enrollment group from nothing to *verified* and makes its devices' certificates.

mod provision;
mod record;

pub use provision::{
    AuthoritySource, Outcome, ProvisionError, ProvisionEvent, ProvisionReport, ProvisionRequest, ProvisionedDevice,
    Step, StepReport, provision,
};
pub use record::{CertificateRecord, rfc3339};
