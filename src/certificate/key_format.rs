//! Encodings of private keys: PKCS#8, encrypted or not, PKCS#1 and SEC1, in DER and PEM.

use std::{fmt, str::FromStr};

use zeroize::Zeroizing;

use super::{
    KeyError, PrivateKey,
    der::{BIT_STRING, CONTEXT_0, CONTEXT_1, DerReader, INTEGER, OCTET_STRING, SEQUENCE, der_frame, der_sequence},
    pbe::{self, Encryption, Password},
    pem::pem_block,
};

/// The number of iterations of key derivation for an encrypted key: what OWASP recommends for PBKDF2 with SHA-256. OpenSSL
/// reads any number.
const ITERATIONS: u32 = 600_000;

/// The structure of an encoded private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum KeyFormat {
    /// PKCS#8 (RFC 5958), for keys of every kind.
    #[default]
    Pkcs8,
    /// PKCS#1 (RFC 8017 appendix A.1.2), for RSA keys.
    Pkcs1,
    /// SEC1 (RFC 5915), for EC keys.
    Sec1,
}

impl KeyFormat {
    /// All structures, the default first.
    pub const ALL: [Self; 3] = [Self::Pkcs8, Self::Pkcs1, Self::Sec1];

    /// Returns the name on the command line, such as `pkcs8`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pkcs8 => "pkcs8",
            Self::Pkcs1 => "pkcs1",
            Self::Sec1 => "sec1",
        }
    }

    /// Returns the name of the standard.
    fn title(self) -> &'static str {
        match self {
            Self::Pkcs8 => "PKCS#8",
            Self::Pkcs1 => "PKCS#1",
            Self::Sec1 => "SEC1",
        }
    }

    /// Returns the PEM label of unencrypted keys.
    fn label(self) -> &'static str {
        match self {
            Self::Pkcs8 => "PRIVATE KEY",
            Self::Pkcs1 => "RSA PRIVATE KEY",
            Self::Sec1 => "EC PRIVATE KEY",
        }
    }
}

impl fmt::Display for KeyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

impl FromStr for KeyFormat {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| KeyError::Unsupported(name.to_owned()))
    }
}

/// How a private key is encoded: its structure, and the password if it is encrypted.
///
/// ```
/// use iot_enroll::certificate::{KeyAlgorithm, KeyEncoding, KeyFormat, PrivateKey};
///
/// let key = PrivateKey::generate(KeyAlgorithm::EcP256)?;
/// let pem = key.encode_pem(KeyEncoding::new().format(KeyFormat::Sec1))?;
/// assert!(pem.starts_with("-----BEGIN EC PRIVATE KEY-----"));
/// # Ok::<(), iot_enroll::certificate::KeyError>(())
/// ```
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct KeyEncoding<'a> {
    format: KeyFormat,
    password: Option<&'a str>,
}

impl<'a> KeyEncoding<'a> {
    /// Creates the encoding of unencrypted PKCS#8.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the structure.
    #[must_use]
    pub fn format(mut self, format: KeyFormat) -> Self {
        self.format = format;
        self
    }

    /// Sets the password that encrypts the key. Only PKCS#8 can be encrypted.
    #[must_use]
    pub fn password(mut self, password: impl Into<Option<&'a str>>) -> Self {
        self.password = password.into();
        self
    }

    fn label(self) -> &'static str {
        if self.password.is_some() { "ENCRYPTED PRIVATE KEY" } else { self.format.label() }
    }
}

impl fmt::Debug for KeyEncoding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyEncoding").field("format", &self.format).finish_non_exhaustive()
    }
}

impl PrivateKey {
    /// Encodes the key in DER.
    ///
    /// # Errors
    /// Returns [`KeyError::Format`] if keys of this kind do not have that structure, [`KeyError::EncryptedFormat`] if another
    /// structure than PKCS#8 has a password, and [`KeyError::Generation`] if the cryptographic library fails.
    pub fn encode_der(&self, encoding: KeyEncoding<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let plain = self.to_pkcs8_der()?;
        match (encoding.format, encoding.password) {
            (KeyFormat::Pkcs8, None) => Ok(plain),
            (KeyFormat::Pkcs8, Some(password)) => encrypted(&plain, password),
            (format, Some(_)) => Err(KeyError::EncryptedFormat(format.title())),
            (format, None) => {
                let parts = Pkcs8::read(&plain).ok_or(KeyError::Generation)?;
                match (format, parts.curve) {
                    (KeyFormat::Sec1, Some(curve)) => {
                        parts.sec1(curve, self.public_key_bits()).ok_or(KeyError::Generation)
                    }
                    (KeyFormat::Pkcs1, None) => Ok(Zeroizing::new(parts.key.to_vec())),
                    (_, curve) => {
                        let kind = if curve.is_some() { "EC" } else { "RSA" };
                        Err(KeyError::Format { kind, format: format.title() })
                    }
                }
            }
        }
    }

    /// Encodes the key in PEM.
    ///
    /// # Errors
    /// Returns the errors of [`encode_der`](Self::encode_der).
    pub fn encode_pem(&self, encoding: KeyEncoding<'_>) -> Result<Zeroizing<String>, KeyError> {
        Ok(Zeroizing::new(pem_block(encoding.label(), &self.encode_der(encoding)?)))
    }
}

/// Encrypts PKCS#8 with PBES2, AES-256 and HMAC-SHA-256 (RFC 5958 section 3).
fn encrypted(plain: &[u8], password: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (algorithm, encrypted) = pbe::encrypt(Encryption::Aes256, plain, &Password::new(password), ITERATIONS)
        .map_err(|_| KeyError::Generation)?;
    Ok(Zeroizing::new(der_sequence(&[&algorithm, &der_frame(OCTET_STRING, &[&encrypted])])))
}

/// The parts of a PKCS#8 structure that [`PrivateKey::to_pkcs8_der`] wrote.
struct Pkcs8<'a> {
    /// The object identifier of the curve, with tag and length. `None` for RSA.
    curve: Option<&'a [u8]>,
    /// The key: PKCS#1, or SEC1 without the curve.
    key: &'a [u8],
}

impl<'a> Pkcs8<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        const EC: &str = "1.2.840.10045.2.1";
        let mut info = DerReader::new(der).inside(SEQUENCE)?;
        info.content(INTEGER)?;
        let mut algorithm = info.inside(SEQUENCE)?;
        let curve = if algorithm.oid()? == EC { Some(algorithm.element()?) } else { None };
        Some(Self { curve, key: info.content(OCTET_STRING)? })
    }

    /// Returns the structure of SEC1, which names the curve itself.
    fn sec1(&self, curve: &[u8], point: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut members = DerReader::new(self.key).inside(SEQUENCE)?;
        let (version, scalar) = (members.element()?, members.element()?);
        let curve = der_frame(CONTEXT_0, &[curve]);
        // A bit string begins with the number of unused bits.
        let point = der_frame(CONTEXT_1, &[&der_frame(BIT_STRING, &[&[0], point])]);
        Some(Zeroizing::new(der_sequence(&[version, scalar, &curve, &point])))
    }
}
