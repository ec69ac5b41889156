//! Thumbprints of certificates.

use std::{fmt, str::FromStr};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::hex;

/// The SHA-1 or SHA-256 hash of a certificate's DER encoding.
///
/// IoT Central and the Device Provisioning Service print thumbprints as upper-case hexadecimal without separators, and so
/// does [`Display`](fmt::Display). [`FromStr`] also accepts lower case and bytes separated by colons, spaces or hyphens, as
/// `openssl x509 -fingerprint`, browsers and the Windows certificate dialog write them. Comparison with a text accepts the
/// same spellings.
///
/// ```
/// use iot_enroll::certificate::Thumbprint;
///
/// let shown: Thumbprint = "64:45:43:46:77:86:b6:0c:14:df:e6:b7:c9:68:a1:99:0c:f6:3e:ac".parse()?;
/// assert_eq!(shown.to_string(), "644543467786B60C14DFE6B7C968A1990CF63EAC");
/// assert_eq!(format!("{shown:x}"), "644543467786b60c14dfe6b7c968a1990cf63eac");
/// assert_eq!(shown, *"64-45-43-46-77-86-B6-0C-14-DF-E6-B7-C9-68-A1-99-0C-F6-3E-AC");
/// # Ok::<(), iot_enroll::certificate::ThumbprintError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Thumbprint {
    /// SHA-1, 20 bytes: the services compare and print these.
    Sha1([u8; 20]),
    /// SHA-256, 32 bytes.
    Sha256([u8; 32]),
}

impl Thumbprint {
    /// Returns the SHA-1 thumbprint of a certificate in DER.
    #[must_use]
    pub fn sha1(der: &[u8]) -> Self {
        Self::Sha1(Sha1::digest(der).into())
    }

    /// Returns the SHA-256 thumbprint of a certificate in DER.
    #[must_use]
    pub fn sha256(der: &[u8]) -> Self {
        Self::Sha256(Sha256::digest(der).into())
    }

    /// Returns the bytes of the hash: 20 or 32.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha1(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        }
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::UpperHex::fmt(self, f)
    }
}

impl fmt::UpperHex for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::hexadecimal(self.as_bytes()))
    }
}

impl fmt::LowerHex for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::hexadecimal(self.as_bytes()).to_ascii_lowercase())
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Sha1(_) => "Sha1",
            Self::Sha256(_) => "Sha256",
        };
        write!(f, "{name}({self})")
    }
}

impl FromStr for Thumbprint {
    type Err = ThumbprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut digits = Vec::with_capacity(64);
        for (index, character) in text.chars().enumerate() {
            match hex::digit(character) {
                Some(digit) => digits.push(digit),
                // The Windows certificate dialog puts U+200E in front of a copied thumbprint.
                None if matches!(character, ':' | '-' | '\u{200e}' | '\u{feff}') || character.is_whitespace() => {}
                None => return Err(ThumbprintError::Character { character, position: index + 1 }),
            }
        }
        let bytes = hex::join_digits(&digits).unwrap_or_default();
        match digits.len() {
            40 => bytes.try_into().map(Self::Sha1),
            64 => bytes.try_into().map(Self::Sha256),
            _ => Err(bytes),
        }
        .map_err(|_| ThumbprintError::Length(digits.len()))
    }
}

impl TryFrom<&str> for Thumbprint {
    type Error = ThumbprintError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl AsRef<[u8]> for Thumbprint {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq<str> for Thumbprint {
    fn eq(&self, text: &str) -> bool {
        text.parse() == Ok(*self)
    }
}

impl PartialEq<&str> for Thumbprint {
    fn eq(&self, text: &&str) -> bool {
        *self == **text
    }
}

#[cfg(feature = "serde")]
super::serde_text::impl_serde_as_text!(Thumbprint);

/// The reason why a text is not a thumbprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ThumbprintError {
    /// A character is neither a hexadecimal digit nor a separator.
    #[error("a thumbprint is made of hexadecimal digits, found {character:?} at position {position}")]
    Character {
        /// The character found.
        character: char,
        /// Its position in characters, counted from 1.
        position: usize,
    },
    /// The number of digits is neither 40 (SHA-1) nor 64 (SHA-256).
    #[error("a thumbprint has 40 hexadecimal digits (SHA-1) or 64 (SHA-256), found {0}")]
    Length(usize),
}
