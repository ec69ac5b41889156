//! Fingerprints of symmetric keys: a plan without keys can tell that a key changed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{certificate::hex::hexadecimal, transport::SymmetricKeys};

/// How many bytes of the hash are kept: enough to notice every change, and too few to be of use as a key.
const LENGTH: usize = 8;

/// The fingerprint of a pair of symmetric keys: a part of the SHA-256 hash of the ID of the plan and both keys.
///
/// The ID is random, so fingerprints of two plans cannot be compared. The keys that the services generate are random and cannot
/// be found from it. A key that a person made up could be guessed: a plan is readable by its owner only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyFingerprint(String);

impl KeyFingerprint {
    /// Returns the fingerprint of a pair of keys in the plan with this ID.
    #[must_use]
    pub fn new(plan_id: &str, keys: &SymmetricKeys) -> Self {
        let mut hash = Sha256::new();
        for text in [plan_id, keys.primary_key.expose().trim(), keys.secondary_key.expose().trim()] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        Self(hexadecimal(&hash.finalize()[..LENGTH]))
    }

    /// Returns the fingerprint as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
