//! Names of object identifiers.

use x509_parser::oid_registry::{Oid, OidRegistry};

/// Returns the registered name of an object identifier, or its dotted form.
pub(super) fn oid_name(oid: &Oid<'_>) -> String {
    let registry = OidRegistry::default().with_crypto().with_x509();
    registry.get(oid).map_or_else(|| oid.to_id_string(), |entry| entry.sn().to_owned())
}
