//! The thumbprint of a certificate: a hash of its DER encoding.

use std::{fmt, str::FromStr};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The SHA-1 or SHA-256 hash of a certificate's DER encoding.
///
/// IoT Central and the Device Provisioning Service print it as upper-case hexadecimal without separators, and so does
/// [`Display`](fmt::Display). [`FromStr`] reads every usual spelling: lower or upper case, and bytes parted by colons,
/// spaces or hyphens, as `openssl x509 -fingerprint`, browsers and the Windows certificate dialog write them.
///
/// ```
/// use iot_enroll::certificate::Thumbprint;
///
/// let shown: Thumbprint = "64:45:43:46:77:86:b6:0c:14:df:e6:b7:c9:68:a1:99:0c:f6:3e:ac".parse()?;
/// assert_eq!(shown.to_string(), "644543467786B60C14DFE6B7C968A1990CF63EAC");
/// # Ok::<(), iot_enroll::certificate::ThumbprintError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Thumbprint {
    /// SHA-1, 20 bytes: what the services compare and print.
    Sha1([u8; 20]),
    /// SHA-256, 32 bytes.
    Sha256([u8; 32]),
}

impl Thumbprint {
    /// The SHA-1 thumbprint of a certificate in DER.
    #[must_use]
    pub fn sha1(der: &[u8]) -> Self {
        Self::Sha1(Sha1::digest(der).into())
    }

    /// The SHA-256 thumbprint of a certificate in DER.
    #[must_use]
    pub fn sha256(der: &[u8]) -> Self {
        Self::Sha256(Sha256::digest(der).into())
    }

    /// The bytes of the hash: 20 or 32.
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
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02X}"))
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
        let mut nibbles = Vec::with_capacity(64);
        for (index, character) in text.chars().enumerate() {
            match character.to_digit(16) {
                #[expect(clippy::cast_possible_truncation, reason = "a hexadecimal digit is below 16")]
                Some(digit) => nibbles.push(digit as u8),
                // U+200E stands in front of a thumbprint copied out of the Windows certificate dialog.
                None if matches!(character, ':' | '-' | '\u{200e}' | '\u{feff}') || character.is_whitespace() => {}
                None => return Err(ThumbprintError::Character { character, position: index + 1 }),
            }
        }
        let bytes: Vec<u8> =
            nibbles.chunks(2).map(|pair| pair.iter().fold(0, |byte, nibble| byte << 4 | nibble)).collect();
        match nibbles.len() {
            40 => bytes.try_into().map(Self::Sha1),
            64 => bytes.try_into().map(Self::Sha256),
            _ => Err(bytes),
        }
        .map_err(|_| ThumbprintError::Length(nibbles.len()))
    }
}

/// Why a text is not a thumbprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ThumbprintError {
    /// A character that is neither a hexadecimal digit nor a separator.
    #[error("a thumbprint is made of hexadecimal digits, found {character:?} at position {position}")]
    Character {
        /// The character found.
        character: char,
        /// Where, counted in characters from 1.
        position: usize,
    },
    /// Neither 40 digits (SHA-1) nor 64 (SHA-256).
    #[error("a thumbprint has 40 hexadecimal digits (SHA-1) or 64 (SHA-256), found {0}")]
    Length(usize),
}
