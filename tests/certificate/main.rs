//! Reading, checking and making certificates.

#[cfg(feature = "cli")]
#[path = "../support/mod.rs"]
mod support;

mod differential;
#[cfg(feature = "cli")]
mod fleet;
#[cfg(feature = "cli")]
mod issuing;
mod reading;
