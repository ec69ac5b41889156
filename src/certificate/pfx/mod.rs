//! PFX files (PKCS#12, RFC 7292).

mod archive;
mod identity;
#[cfg(feature = "issue")]
mod writer;

use self::{archive::Archive, identity::Identity};
use super::{Certificate, ReadError, pbe::Password};
#[cfg(feature = "issue")]
use super::{KeyError, PrivateKey};

#[cfg(feature = "issue")]
pub use writer::{PfxEncryption, write};

/// The password of PFX files where none is given: what the `create_test_cert.js` script of Azure IoT Central always uses.
pub const DEFAULT_PASSWORD: &str = "1234";

/// Reads the certificates of a PFX file: the one that belongs to its private key first, the others in the file's order.
///
/// The first is the certificate whose public key is that of the private key. If there are several, such as a renewed one
/// beside the old one, it is the one with the `localKeyId` of the key, and otherwise the first of them in the file. A file
/// without a private key gives its certificates in its order. A certificate that is in the file twice is returned once.
///
/// The file may be BER or DER, base64 of it, and have line ends, text, or NUL or FF padding after its end. It may be
/// encrypted with triple DES, RC2, DES or AES in CBC mode; the integrity check may be HMAC or PBMAC1 (RFC 9579) with SHA-1
/// or SHA-2, or be absent.
///
/// With a password, only that one is tried; an empty one both as PKCS#12's empty password and as none at all, since
/// programs disagree on which of them is the empty password. With `None`, [`DEFAULT_PASSWORD`] and the empty password are
/// tried.
///
/// # Errors
/// [`PfxError`]: [`Password`](PfxError::Password) or [`PasswordNeeded`](PfxError::PasswordNeeded) if no password opens it,
/// [`Unsupported`](PfxError::Unsupported) with the name of an algorithm, [`Ambiguous`](PfxError::Ambiguous) if several
/// keys have certificates, [`NoMatch`](PfxError::NoMatch) if there is a key and none of the certificates is for it.
pub fn read<'p>(bytes: &[u8], password: impl Into<Option<&'p str>>) -> Result<Vec<Certificate>, PfxError> {
    Ok(open(bytes, password.into())?.certificates)
}

/// Reads every certificate of a PFX file in the file's order, whichever private key it belongs to.
///
/// For what looks at each certificate by itself: a file with several keys is not ambiguous then. Otherwise as [`read`].
///
/// # Errors
/// [`PfxError`], as [`read`], but for what concerns private keys.
pub fn read_in_file_order<'p>(
    bytes: &[u8],
    password: impl Into<Option<&'p str>>,
) -> Result<Vec<Certificate>, PfxError> {
    let certificates = identity::certificates(open_archive(bytes, password.into())?.certificates)?;
    Ok(certificates.into_iter().map(|(certificate, _)| certificate).collect())
}

/// Reads the private key of a PFX file and its certificates, those in the order of [`read`].
///
/// # Errors
/// As [`read`]; [`PfxError::NoKey`] and [`PfxError::Key`] when there is no key, or none that can be used.
#[cfg(feature = "issue")]
pub fn read_identity<'p>(
    bytes: &[u8],
    password: impl Into<Option<&'p str>>,
) -> Result<(PrivateKey, Vec<Certificate>), PfxError> {
    let Identity { key, certificates } = open(bytes, password.into())?;
    Ok((PrivateKey::read(&key.ok_or(PfxError::NoKey)?, None)?, certificates))
}

fn open(bytes: &[u8], password: Option<&str>) -> Result<Identity, PfxError> {
    Identity::of(open_archive(bytes, password)?)
}

fn open_archive(bytes: &[u8], password: Option<&str>) -> Result<Archive, PfxError> {
    let empty = || [Password::new(""), Password::absent()];
    let passwords = match password {
        None => [Password::new(DEFAULT_PASSWORD)].into_iter().chain(empty()).collect(),
        Some("") => Vec::from(empty()),
        Some(password) => vec![Password::new(password)],
    };
    Archive::open(bytes, &passwords).map_err(|error| match error {
        PfxError::Password if password.is_none() => PfxError::PasswordNeeded,
        other => other,
    })
}

/// Why a PFX file cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PfxError {
    /// The password does not open it.
    #[error("the password does not open the PFX file")]
    Password,
    /// No password was given, and neither [`DEFAULT_PASSWORD`] nor the empty password opens it.
    #[error(
        "the password does not open the PFX file: none was given, and neither {DEFAULT_PASSWORD} nor the empty one opens it"
    )]
    PasswordNeeded,
    /// It does not decode; holds what does not.
    #[error("the PFX file is damaged: {0}")]
    Damaged(String),
    /// It uses an algorithm or a variant of the format that is not supported; holds its name.
    #[error("the PFX file uses {0}, which is not supported")]
    Unsupported(String),
    /// It asks for so much work that it can only be meant to keep the reader busy.
    #[error("the PFX file asks for {iterations} iterations of key derivation, more than the limit of {limit}")]
    Iterations {
        /// The iterations that it asks for.
        iterations: u64,
        /// The most that are accepted.
        limit: u64,
    },
    /// It holds several private keys with a certificate for each; describes them by subject, friendly name and thumbprint.
    #[error("the PFX file holds {} private keys that have a certificate: {}", .0.len(), .0.join("; "))]
    Ambiguous(Vec<String>),
    /// It holds a private key and certificates, and the key belongs to none of them.
    #[error("none of the certificates in the PFX file belongs to its private key")]
    NoMatch,
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
