//! Sequences over certificates and the client.

mod record;

pub use record::{CertificateRecord, rfc3339};
