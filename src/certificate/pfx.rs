//! PFX files (PKCS#12, RFC 7292).

#[cfg(feature = "issue")]
use p12_keystore::{EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKeyChain};
use p12_keystore::{Pkcs12Archive, error::Error as P12Error};

use super::{Certificate, ReadError};
#[cfg(feature = "issue")]
use super::{KeyError, PrivateKey};

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

/// Reads the certificates of a PFX file: the one that belongs to its key first, the others in the file's order.
///
/// # Errors
/// [`PfxError::Password`] when the password does not open it, [`PfxError`] otherwise when it is damaged or holds no
/// certificate.
pub fn read(bytes: &[u8], password: &str) -> Result<Vec<Certificate>, PfxError> {
    certificates(&open(bytes, password)?)
}

/// Reads the private key of a PFX file and its certificates, those in the order of [`read`].
///
/// # Errors
/// As [`read`]; [`PfxError::NoKey`] and [`PfxError::Key`] when there is no key, or none that can be used.
#[cfg(feature = "issue")]
pub fn read_identity(bytes: &[u8], password: &str) -> Result<(PrivateKey, Vec<Certificate>), PfxError> {
    let archive = open(bytes, password)?;
    let key = archive.keys.first().ok_or(PfxError::NoKey)?;
    Ok((PrivateKey::read(key.key.as_der(), None)?, certificates(&archive)?))
}

fn open(bytes: &[u8], password: &str) -> Result<Pkcs12Archive, PfxError> {
    Pkcs12Archive::from_pkcs12(bytes, password).map_err(|error| match error {
        P12Error::MacError(_) | P12Error::UnpadError | P12Error::Pkcs5Error(_) => PfxError::Password,
        other => PfxError::Damaged(other.to_string()),
    })
}

fn certificates(archive: &Pkcs12Archive) -> Result<Vec<Certificate>, PfxError> {
    let is_leaf = |id: &Option<Vec<u8>>| {
        id.is_some() && archive.keys.iter().any(|key| key.local_key_id.as_ref().map(|key| &key.0) == id.as_ref())
    };
    let (leaves, others): (Vec<_>, Vec<_>) = archive.certs.iter().partition(|bag| is_leaf(&bag.local_key_id));
    let certificates = leaves
        .into_iter()
        .chain(others)
        .map(|bag| Certificate::from_der(bag.cert.as_der()))
        .collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() { Err(PfxError::NoCertificate) } else { Ok(certificates) }
}

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

/// Why a PFX file cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PfxError {
    /// The password does not open it.
    #[error("the password does not open the PFX file")]
    Password,
    /// It does not decode, or uses what is not supported.
    #[error("the PFX file is damaged or of a kind that is not supported: {0}")]
    Damaged(String),
    /// It holds no certificate.
    #[error("the PFX file holds no certificate")]
    NoCertificate,
    /// A certificate in it cannot be read.
    #[error("a certificate in the PFX file cannot be read: {0}")]
    Certificate(#[from] ReadError),
    /// It holds no private key.
    #[cfg(feature = "issue")]
    #[error("the PFX file holds no private key")]
    NoKey,
    /// The private key in it cannot be used.
    #[cfg(feature = "issue")]
    #[error("the private key in the PFX file cannot be used: {0}")]
    Key(#[from] KeyError),
    /// It could not be written.
    #[error("the PFX file could not be made: {0}")]
    Write(String),
}
