//! X.509 enrollment and certificates for Azure IoT Central and the Device Provisioning Service.
//!
//! | module | what it is for | feature |
//! | --- | --- | --- |
//! | [`certificate`] | reads certificates, prints and compares thumbprints | always |
//! | `certificate::chain` | verifies chains and proofs of possession | `verify` |
//! | `certificate::pfx` | reads PFX files | `pfx` |
//! | `certificate::CertificateAuthority` | issues root, intermediate, device, server and verification certificates | `issue` |
//! | `central` | the IoT Central REST API as a client | `client` |
//! | `central::EntraCredential` | sign-in with Microsoft Entra | `entra` |
//! | `dps::device` | registering devices at the Device Provisioning Service, and why it failed | `client` |
//! | `dps::service` | the enrollments of an instance of the Device Provisioning Service | `client` |
//! | `arm` | finding an instance through Azure Resource Manager, and its CA certificates and keys | `client` |
//! | `workflow` | the enrollment of a group from end to end, and the way to its next root | `client` |
//! | `emulator` | IoT Central and its Device Provisioning Service on a loopback port, for tests and for trying things out | `emulator` |
//!
//! The default feature `cli` is all of these and the program `iot-enroll`. The feature `serde` serializes names, IDs and
//! thumbprints. A program that only needs a thumbprint takes the crate with `default-features = false`, and compiles no
//! cryptographic library in C:
//!
//! ```
//! use iot_enroll::certificate::Certificate;
//!
//! # // An absolute path, since examples are compiled into one program, elsewhere. If that fails, each is compiled into its own.
//! # let bytes = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/authorities/ec-sec1_cert.pem"));
//! let certificate = Certificate::read(bytes)?;
//! println!("{}", certificate.sha1_thumbprint());
//! # Ok::<(), iot_enroll::certificate::ReadError>(())
//! ```

pub mod certificate;

#[cfg(feature = "client")]
pub mod arm;
#[cfg(feature = "client")]
pub mod central;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "client")]
pub mod dps;
#[cfg(feature = "emulator")]
pub mod emulator;
#[cfg(feature = "client")]
pub mod transport;
#[cfg(feature = "client")]
pub mod workflow;

/// Compiles the examples of the documentation with the tests.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../docs/library.md")]
struct LibraryPage;
