//! Reading, verifying and issuing of certificates.

#[cfg(feature = "cli")]
#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "cli")]
mod api;
#[cfg(feature = "cli")]
mod chains;
#[cfg(feature = "issue")]
mod convert;
#[cfg(feature = "cli")]
mod differential;
#[cfg(feature = "cli")]
mod encodings;
#[cfg(feature = "cli")]
mod fleet;
#[cfg(feature = "cli")]
mod forge;
#[cfg(feature = "cli")]
mod issuing;
#[cfg(feature = "cli")]
mod leaf;
#[cfg(feature = "cli")]
mod names;
#[cfg(feature = "issue")]
mod pfx;
mod reading;
#[cfg(feature = "cli")]
mod signatures;
mod timestamps;
