//! Writing PFX files.

use p12_keystore::{
    EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKeyChain, error::Error as P12Error,
};

use super::PfxError;
use crate::certificate::{Certificate, KeyError, PrivateKey};

/// How a PFX file is encrypted.
#[cfg(feature = "issue")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PfxEncryption {
    /// PBES2 with AES-256 and HMAC-SHA-256: what OpenSSL 3 makes by itself.
    #[default]
    Aes256,
    /// PKCS#12 PBE with triple DES and HMAC-SHA-1: what Windows Server 2016 and macOS still need. It is weak.
    TripleDes,
}

/// The rounds of key derivation, the number that Java and OpenSSL's documentation name as enough to be of use.
#[cfg(feature = "issue")]
const ITERATIONS: u32 = 10_000;

/// Writes a key, its certificate and the certificates above it as a PFX file.
///
/// # Errors
/// [`PfxError::Write`] when the parts cannot be encoded.
#[cfg(feature = "issue")]
pub fn write<'a>(
    key: &PrivateKey,
    chain: impl IntoIterator<Item = &'a Certificate>,
    password: &str,
    encryption: PfxEncryption,
) -> Result<Vec<u8>, PfxError> {
    let failed = |error: P12Error| PfxError::Write(error.to_string());
    let encode_key = |error: KeyError| PfxError::Write(error.to_string());
    let key = p12_keystore::PrivateKey::from_der(&key.to_pkcs8_der().map_err(encode_key)?).map_err(failed)?;
    let certificates = chain
        .into_iter()
        .map(|certificate| p12_keystore::Certificate::from_der(certificate.der()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let alias = certificates.first().map(|leaf| leaf.subject().to_owned()).unwrap_or_default();
    let mut store = KeyStore::new();
    // The local key id ties the key to its certificate; any value does that is the same on both.
    store.add_entry(&alias, KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new("1", key, certificates)));
    let (encryption, mac) = match encryption {
        PfxEncryption::Aes256 => (EncryptionAlgorithm::PbeWithHmacSha256AndAes256, MacAlgorithm::HmacSha256),
        PfxEncryption::TripleDes => (EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc, MacAlgorithm::HmacSha1),
    };
    store
        .writer(password)
        .encryption_algorithm(encryption)
        .encryption_iterations(ITERATIONS)
        .mac_algorithm(mac)
        .mac_iterations(ITERATIONS)
        .write()
        .map_err(failed)
}
