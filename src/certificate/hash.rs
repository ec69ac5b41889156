//! Hash functions that signatures, PFX files and encrypted keys name.

use std::fmt;

/// A hash function that a signature algorithm names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant is the name of its hash")]
pub enum HashAlgorithm {
    Md2,
    Md4,
    Md5,
    Ripemd160,
    Sha0,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha512_224,
    Sha512_256,
    Sha3_224,
    Sha3_256,
    Sha3_384,
    Sha3_512,
}

/// The hashes by the dotted form of their object identifier (RFC 8017 appendix B.1, NIST's CSOR).
const IDENTIFIERS: [(&str, HashAlgorithm); 14] = [
    ("1.2.840.113549.2.2", HashAlgorithm::Md2),
    ("1.2.840.113549.2.4", HashAlgorithm::Md4),
    ("1.2.840.113549.2.5", HashAlgorithm::Md5),
    ("1.3.14.3.2.26", HashAlgorithm::Sha1),
    ("2.16.840.1.101.3.4.2.1", HashAlgorithm::Sha256),
    ("2.16.840.1.101.3.4.2.2", HashAlgorithm::Sha384),
    ("2.16.840.1.101.3.4.2.3", HashAlgorithm::Sha512),
    ("2.16.840.1.101.3.4.2.4", HashAlgorithm::Sha224),
    ("2.16.840.1.101.3.4.2.5", HashAlgorithm::Sha512_224),
    ("2.16.840.1.101.3.4.2.6", HashAlgorithm::Sha512_256),
    ("2.16.840.1.101.3.4.2.7", HashAlgorithm::Sha3_224),
    ("2.16.840.1.101.3.4.2.8", HashAlgorithm::Sha3_256),
    ("2.16.840.1.101.3.4.2.9", HashAlgorithm::Sha3_384),
    ("2.16.840.1.101.3.4.2.10", HashAlgorithm::Sha3_512),
];

impl HashAlgorithm {
    /// Returns the hash with that object identifier, in dotted form.
    pub(super) fn from_oid(oid: &str) -> Option<Self> {
        IDENTIFIERS.iter().find(|(known, _)| *known == oid).map(|(_, hash)| *hash)
    }

    /// Returns whether the hash is not collision resistant: MD2, MD4, MD5, RIPEMD-160, SHA-0 or SHA-1.
    #[must_use]
    pub fn is_weak(self) -> bool {
        matches!(self, Self::Md2 | Self::Md4 | Self::Md5 | Self::Ripemd160 | Self::Sha0 | Self::Sha1)
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Md2 => "MD2",
            Self::Md4 => "MD4",
            Self::Md5 => "MD5",
            Self::Ripemd160 => "RIPEMD-160",
            Self::Sha0 => "SHA-0",
            Self::Sha1 => "SHA-1",
            Self::Sha224 => "SHA-224",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
            Self::Sha512_224 => "SHA-512/224",
            Self::Sha512_256 => "SHA-512/256",
            Self::Sha3_224 => "SHA3-224",
            Self::Sha3_256 => "SHA3-256",
            Self::Sha3_384 => "SHA3-384",
            Self::Sha3_512 => "SHA3-512",
        })
    }
}
