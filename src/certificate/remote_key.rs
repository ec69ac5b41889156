//! Private keys that sign outside of this process, such as in a token.

use rcgen::SignatureAlgorithm;

use super::KeyError;

/// A private key that never leaves the place where it signs.
pub(super) trait RemoteKey: Send + Sync {
    /// Signs a message, with ECDSA or PKCS#1 v1.5. The signature was verified with the public key.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// Returns the public key: a point, or the DER of an `RSAPublicKey`.
    fn public_key_bits(&self) -> &[u8];

    /// Returns the algorithm of the signatures.
    fn algorithm(&self) -> &'static SignatureAlgorithm;

    /// Returns the URI of the key, without a secret.
    fn uri(&self) -> &str;
}
