//! Pairs of symmetric keys.

use serde::Deserialize;

use super::secret::Secret;

/// The two symmetric keys of a group or device, in base64.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SymmetricKeys {
    /// The primary key.
    pub primary_key: Secret,
    /// The secondary key.
    pub secondary_key: Secret,
}
