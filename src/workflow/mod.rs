//! Sequences over certificates and the service clients.
//!
//! [`provision`] takes an enrollment group from nothing to *verified* and issues its devices' certificates. [`rollover`] takes
//! it from one certificate authority to the next, and [`retire`] removes the old one. All three work at each [`Service`]: an
//! IoT Central application or an instance of the Device Provisioning Service.
//!
//! [`import_devices`] creates the devices of a list in an application, and [`register_manifest`] registers the devices of a
//! manifest. Both do many at once, write the outcome of each to a results file, and resume a run that was interrupted.
//!
//! Every function reports to an observer, which may be `&mut |_| ()`.

mod authority;
mod bulk;
mod central_state;
mod central_target;
mod create;
mod csv_rows;
mod dps_devices;
mod dps_group;
mod dps_instance;
mod dps_references;
mod dps_state;
mod dps_target;
mod enrollment;
mod enrollment_state;
mod entries;
mod entry_policy;
mod error;
mod fleet;
mod group_entries;
mod import;
mod issue;
mod manifest;
pub mod migrate;
mod operational;
mod provision;
mod record;
mod register;
mod registrar;
mod registration;
mod repeated_ids;
mod results;
mod retire;
mod rollover;
mod rollover_error;
mod service;
mod step;
mod trust_anchor;

pub use authority::AuthoritySource;
pub use bulk::RunStop;
pub use create::CreatedDevices;
pub use csv_rows::CsvError;
#[cfg(feature = "cli")]
pub(crate) use csv_rows::{CsvRow, CsvRows};
pub use dps_instance::DpsInstance;
pub use enrollment_state::{read_device_state, read_enrollment_state};
pub use entries::EntryState;
pub use error::{CreateError, ProvisionError};
pub use fleet::{FleetDevices, FleetRequest, FleetSummary};
pub use group_entries::read_entries;
#[cfg(feature = "cli")]
pub(crate) use import::IMPORT_RESULT_COLUMNS;
pub use import::{ImportError, ImportReport, ImportRequest, ImportRow, import_devices};
pub use manifest::ManifestError;
pub use operational::{OperationalFiles, OperationalFilesError};
pub use provision::{ProvisionReport, ProvisionRequest, provision};
#[cfg(feature = "cli")]
pub(crate) use record::lossy_path;
pub use record::{CertificateRecord, ProvisionedDevice};
pub use register::{DEFAULT_CONCURRENCY, ManifestRegistration, RegisterError, RegistrationReport, register_manifest};
pub use registrar::Registrar;
pub use registration::RefusedDevice;
#[cfg(feature = "cli")]
pub(crate) use repeated_ids::{IdCollector, RepeatedIds};
pub use results::ResultsError;
pub use retire::{RetireReport, RetireRequest, retire};
pub use rollover::{RolloverReport, RolloverRequest, rollover};
pub use rollover_error::RolloverError;
pub use service::{GroupId, GroupIdError, Service};
pub use step::{Outcome, RowFailure, Step, StepReport, WorkflowEvent};
