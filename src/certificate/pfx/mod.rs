//! PFX files (PKCS#12, RFC 7292).

mod archive;
mod error;
mod identity;
#[cfg(feature = "issue")]
mod java;
#[cfg(feature = "issue")]
mod writer;

use self::{archive::Archive, identity::Identity};
#[cfg(feature = "issue")]
use super::PrivateKey;
use super::{Certificate, pbe::Password};

pub use error::{DEFAULT_PASSWORD, PfxError};
#[cfg(feature = "issue")]
pub use writer::{PfxEncryption, write, write_truststore};

/// Reads the certificates of a PFX file: the certificate of its private key first, the others in the order of the file.
///
/// The certificate of the private key is the one with the same public key. If there are several, such as an old and a
/// renewed one, it is the one with the `localKeyId` of the key, otherwise the first. The certificates of a file without a
/// private key are returned in its order. A certificate that the file has twice is returned once.
///
/// The file may be BER, DER, or the base64 of either, and be followed by line ends, text, or NUL or FF padding. It may be
/// encrypted with triple DES, RC2, DES or AES in CBC mode. The integrity check may be HMAC or PBMAC1 (RFC 9579) with SHA-1
/// or SHA-2, or be absent.
///
/// If a password is given, only that one is tried. An empty one is tried both as the empty password of PKCS#12 and as no
/// password, since programs disagree about the empty password. With `None`, [`DEFAULT_PASSWORD`] and the empty password
/// are tried.
///
/// # Errors
/// Returns [`PfxError::Password`] or [`PfxError::PasswordNeeded`] if no password opens the file,
/// [`PfxError::Unsupported`] with the name of an algorithm, [`PfxError::Ambiguous`] if several keys have certificates, and
/// [`PfxError::NoMatch`] if no certificate belongs to the key.
pub fn read<'p>(bytes: &[u8], password: impl Into<Option<&'p str>>) -> Result<Vec<Certificate>, PfxError> {
    Ok(open(bytes, password.into())?.certificates)
}

/// Reads every certificate of a PFX file in the order of the file, whichever private key it belongs to.
///
/// This is for tools that treat each certificate separately: a file with several private keys is accepted. Otherwise it
/// works as [`read`] does.
///
/// # Errors
/// Returns the errors of [`read`], except those about private keys.
pub fn read_in_file_order<'p>(
    bytes: &[u8],
    password: impl Into<Option<&'p str>>,
) -> Result<Vec<Certificate>, PfxError> {
    let certificates = identity::certificates(open_archive(bytes, password.into())?.certificates)?;
    Ok(certificates.into_iter().map(|(certificate, _)| certificate).collect())
}

/// Reads the private key of a PFX file and its certificates, in the order of [`read`].
///
/// # Errors
/// Returns the errors of [`read`], [`PfxError::NoKey`] if there is no private key, and [`PfxError::Key`] if it cannot be
/// used.
#[cfg(feature = "issue")]
pub fn read_identity<'p>(
    bytes: &[u8],
    password: impl Into<Option<&'p str>>,
) -> Result<(PrivateKey, Vec<Certificate>), PfxError> {
    let Identity { key, certificates, .. } = open(bytes, password.into())?;
    Ok((PrivateKey::read(&key.ok_or(PfxError::NoKey)?, None)?, certificates))
}

/// Everything in a PFX file.
#[cfg(feature = "issue")]
pub(super) struct Contents {
    /// The private key that has a certificate.
    pub(super) key: Option<PrivateKey>,
    /// The certificates, in the order of [`read`].
    pub(super) certificates: Vec<Certificate>,
    /// What else is in the file.
    pub(super) others: Vec<&'static str>,
}

/// Reads a PFX file with or without a private key.
#[cfg(feature = "issue")]
pub(super) fn read_contents(bytes: &[u8], password: Option<&str>) -> Result<Contents, PfxError> {
    let Identity { key, certificates, others } = open(bytes, password)?;
    let key = key.map(|key| PrivateKey::read(&key, None)).transpose()?;
    Ok(Contents { key, certificates, others })
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
