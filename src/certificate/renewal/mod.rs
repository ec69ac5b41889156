//! Renewal of certificates and of their files.
//!
//! A renewed certificate has the subject, the extensions and the issuer of the old one. Serial number, validity and
//! signature are new. The key stays the same, unless a new one is requested.
//!
//! A [`Renewer`] renews the files of one set, those of all sets in a directory, or a fleet with its manifest. The files of
//! a set are replaced together, as [`files`](super::files) describes: certificate, full chain and PFX file, and the key if
//! it is new. If the process is killed, the next operation on the set finishes the replacement or starts again with the
//! old set.
//!
//! ```
//! use iot_enroll::certificate::{
//!     CertificateAuthority, CommonName, IssueOptions,
//!     renewal::{Renewed, RenewalOptions, RenewalThreshold, Renewer},
//! };
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let root = CertificateAuthority::new_root(&CommonName::new("Lab Root")?, &IssueOptions::new())?;
//! let files = root.save(dir)?;
//! let options = RenewalOptions::new().threshold(RenewalThreshold::Percent(33));
//! // A new certificate is not due.
//! assert!(matches!(Renewer::new(options).renew_set(&files)?, Renewed::NotDue(_)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod certificate;
mod directory;
mod error;
mod fleet;
mod issuers;
mod options;
mod report;
mod set;
mod threshold;

pub use self::{
    certificate::RenewedCertificate,
    error::RenewalError,
    fleet::FleetPart,
    options::RenewalOptions,
    report::{RenewalControl, RenewalFailure, RenewalReport},
    set::{NotDue, Renewed, RenewedSet, Renewer, set_of_file},
    threshold::RenewalThreshold,
};
