//! Sequences over certificates and the client.
//!
//! [`provision`] takes an enrollment group from nothing to *verified* and issues its devices' certificates. [`rollover`] takes
//! it from one authority to another, and [`retire`] removes the old one.

mod create;
mod enrollment_state;
mod fleet;
mod provision;
mod record;
mod register;
mod rollover;
mod step;

pub use create::CreatedDevices;
pub use enrollment_state::{read_device_state, read_enrollment_state};
pub use fleet::{FleetDevices, FleetRequest, FleetSummary};
pub use provision::{AuthoritySource, ProvisionError, ProvisionReport, ProvisionRequest, ProvisionedDevice, provision};
pub use record::CertificateRecord;
pub(crate) use record::lossy_path;
pub use register::RefusedDevice;
pub use rollover::{EntryState, RetireReport, RolloverError, RolloverReport, RolloverRequest, retire, rollover};
pub use step::{Outcome, Step, StepReport, WorkflowEvent};
