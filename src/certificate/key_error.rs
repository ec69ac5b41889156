//! Why a private key could not be read, made, encoded or used.

#[cfg(feature = "pkcs11")]
use super::pkcs11::TokenError;

/// The reason why there is no private key, or it could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The input has no private key; says what it has.
    #[error("there is no private key in it: {0}")]
    NoKey(String),
    /// The input is a PFX file.
    #[error("it is a PFX (PKCS#12) file, which takes a password to read")]
    Pfx,
    /// The key is encrypted and no password was given.
    #[error("the private key is encrypted: give its password")]
    PasswordNeeded,
    /// The password does not decrypt the key.
    #[error("the password does not open the private key")]
    WrongPassword,
    /// The key is encrypted with an unsupported algorithm; holds its name.
    #[error("the private key is encrypted with {0}, which is not supported")]
    Encryption(String),
    /// The key is in the format of OpenSSH.
    #[error("the private key is in the OpenSSH format, which is not supported")]
    OpenSsh,
    /// The services do not accept keys of this kind; holds the kind.
    #[error("keys of the kind {0} are not supported: use RSA of 2048 to 8192 bits, or EC on P-256, P-384 or P-521")]
    Unsupported(String),
    /// The key does not decode; holds which part.
    #[error("the private key is damaged: {0}")]
    Damaged(String),
    /// The key decodes, but its numbers are inconsistent.
    #[error("the private key is not usable: {0}")]
    Rejected(String),
    /// Keys of this kind do not have that structure.
    #[error("an {kind} key has no {format} form")]
    Format {
        /// The kind of the key: `EC` or `RSA`.
        kind: &'static str,
        /// The structure: `SEC1` or `PKCS#1`.
        format: &'static str,
    },
    /// Keys in this structure cannot be encrypted; holds its name.
    #[error("a private key in {0} cannot be encrypted: only PKCS#8 can")]
    EncryptedFormat(&'static str),
    /// The cryptographic library failed.
    #[error("the cryptographic library failed to make or encode a key")]
    Generation,
    /// The cryptographic library failed to sign.
    #[error("the cryptographic library failed to sign")]
    Signing,
    /// The key is in a PKCS#11 token, and cannot be read from there.
    #[error("the private key is in a PKCS#11 token and cannot be read from it")]
    InToken,
    /// The token of the key failed.
    #[cfg(feature = "pkcs11")]
    #[error(transparent)]
    Token(Box<TokenError>),
}

#[cfg(feature = "pkcs11")]
impl From<TokenError> for KeyError {
    fn from(error: TokenError) -> Self {
        Self::Token(Box::new(error))
    }
}
