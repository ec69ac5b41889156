//! The signature algorithms of certificates and requests.

use std::fmt;

use super::{
    HashAlgorithm::{
        self, Md2, Md4, Md5, Ripemd160, Sha0, Sha1, Sha3_224, Sha3_256, Sha3_384, Sha3_512, Sha224, Sha256, Sha384,
        Sha512, Sha512_224, Sha512_256,
    },
    der::{DerReader, Element},
    oid::{dotted_oid, oid_content_name},
};

/// The algorithm of a signature (RFC 5280 section 4.1.1.2).
///
/// [`Display`](fmt::Display) writes its usual name: `ecdsa-with-SHA256`, `sha256WithRSAEncryption`,
/// `RSASSA-PSS (SHA-256, MGF1 with SHA-256, salt of 32 bytes)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureAlgorithm {
    name: String,
    pub(super) scheme: Scheme,
    pub(super) hash: Option<HashAlgorithm>,
}

/// How a signature is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    RsaPkcs1,
    RsaPss(PssParameters),
    Ecdsa,
    Ed25519,
    /// An algorithm that is not verified here, or one with parameters that it does not have.
    Other,
}

/// The parameters of RSASSA-PSS other than its hash (RFC 4055 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PssParameters {
    /// The hash of the mask generation function MGF1.
    pub mgf_hash: HashAlgorithm,
    /// The length of the salt in bytes.
    pub salt_length: u32,
}

/// The algorithms by the dotted form of their object identifier (RFC 3279, RFC 4055, RFC 5758, RFC 8410, the OIW).
/// RSASSA-PSS is not among them: its parameters name its hash.
const ALGORITHMS: [(&str, &str, Scheme, Option<HashAlgorithm>); 38] = {
    use Scheme::{Ecdsa, Ed25519, Other, RsaPkcs1};
    [
        ("1.2.840.113549.1.1.2", "md2WithRSAEncryption", RsaPkcs1, Some(Md2)),
        ("1.2.840.113549.1.1.3", "md4WithRSAEncryption", RsaPkcs1, Some(Md4)),
        ("1.2.840.113549.1.1.4", "md5WithRSAEncryption", RsaPkcs1, Some(Md5)),
        ("1.2.840.113549.1.1.5", "sha1WithRSAEncryption", RsaPkcs1, Some(Sha1)),
        ("1.2.840.113549.1.1.11", "sha256WithRSAEncryption", RsaPkcs1, Some(Sha256)),
        ("1.2.840.113549.1.1.12", "sha384WithRSAEncryption", RsaPkcs1, Some(Sha384)),
        ("1.2.840.113549.1.1.13", "sha512WithRSAEncryption", RsaPkcs1, Some(Sha512)),
        ("1.2.840.113549.1.1.14", "sha224WithRSAEncryption", RsaPkcs1, Some(Sha224)),
        ("1.2.840.113549.1.1.15", "sha512-224WithRSAEncryption", RsaPkcs1, Some(Sha512_224)),
        ("1.2.840.113549.1.1.16", "sha512-256WithRSAEncryption", RsaPkcs1, Some(Sha512_256)),
        ("1.3.14.3.2.2", "md4WithRSA", RsaPkcs1, Some(Md4)),
        ("1.3.14.3.2.3", "md5WithRSA", RsaPkcs1, Some(Md5)),
        ("1.3.14.3.2.4", "md4WithRSAEncryption", RsaPkcs1, Some(Md4)),
        ("1.3.14.3.2.15", "shaWithRSASignature", RsaPkcs1, Some(Sha0)),
        ("1.3.14.3.2.29", "sha1WithRSASignature", RsaPkcs1, Some(Sha1)),
        ("1.3.36.3.3.1.2", "rsaSignatureWithRipemd160", RsaPkcs1, Some(Ripemd160)),
        ("2.16.840.1.101.3.4.3.13", "id-rsassa-pkcs1-v1_5-with-sha3-224", RsaPkcs1, Some(Sha3_224)),
        ("2.16.840.1.101.3.4.3.14", "id-rsassa-pkcs1-v1_5-with-sha3-256", RsaPkcs1, Some(Sha3_256)),
        ("2.16.840.1.101.3.4.3.15", "id-rsassa-pkcs1-v1_5-with-sha3-384", RsaPkcs1, Some(Sha3_384)),
        ("2.16.840.1.101.3.4.3.16", "id-rsassa-pkcs1-v1_5-with-sha3-512", RsaPkcs1, Some(Sha3_512)),
        ("1.2.840.10045.4.1", "ecdsa-with-SHA1", Ecdsa, Some(Sha1)),
        ("1.2.840.10045.4.3.1", "ecdsa-with-SHA224", Ecdsa, Some(Sha224)),
        ("1.2.840.10045.4.3.2", "ecdsa-with-SHA256", Ecdsa, Some(Sha256)),
        ("1.2.840.10045.4.3.3", "ecdsa-with-SHA384", Ecdsa, Some(Sha384)),
        ("1.2.840.10045.4.3.4", "ecdsa-with-SHA512", Ecdsa, Some(Sha512)),
        ("2.16.840.1.101.3.4.3.9", "ecdsa-with-SHA3-224", Ecdsa, Some(Sha3_224)),
        ("2.16.840.1.101.3.4.3.10", "ecdsa-with-SHA3-256", Ecdsa, Some(Sha3_256)),
        ("2.16.840.1.101.3.4.3.11", "ecdsa-with-SHA3-384", Ecdsa, Some(Sha3_384)),
        ("2.16.840.1.101.3.4.3.12", "ecdsa-with-SHA3-512", Ecdsa, Some(Sha3_512)),
        ("1.2.840.10040.4.3", "dsa-with-SHA1", Other, Some(Sha1)),
        ("1.3.14.3.2.13", "dsaWithSHA", Other, Some(Sha0)),
        ("1.3.14.3.2.27", "dsaWithSHA1", Other, Some(Sha1)),
        ("2.16.840.1.101.3.4.3.1", "dsa-with-SHA224", Other, Some(Sha224)),
        ("2.16.840.1.101.3.4.3.2", "dsa-with-SHA256", Other, Some(Sha256)),
        ("0.4.0.127.0.7.1.1.4.1.1", "ecdsa-plain-SHA1", Other, Some(Sha1)),
        ("1.2.156.10197.1.501", "SM2-with-SM3", Other, None),
        ("1.3.101.112", "Ed25519", Ed25519, None),
        ("1.3.101.113", "Ed448", Other, None),
    ]
};

const RSASSA_PSS: &str = "1.2.840.113549.1.1.10";
const MGF1: &str = "1.2.840.113549.1.1.8";

/// The ASN.1 NULL.
const NULL: &[u8] = &[0x05, 0x00];

impl SignatureAlgorithm {
    /// Reads an `AlgorithmIdentifier`. `None` if it does not decode.
    pub(super) fn from_der(der: &[u8]) -> Option<Self> {
        let mut parts = Element::only_tagged(der, 0x30)?.elements();
        let identifier = parts.tagged(0x06)?.content;
        let parameters = parts.rest();
        if !parameters.is_empty() {
            Element::only(parameters)?;
        }
        let dotted = dotted_oid(identifier);
        if dotted == RSASSA_PSS {
            return Some(Self::pss_from_der(parameters));
        }
        let known = ALGORITHMS.iter().find(|(oid, ..)| *oid == dotted);
        let Some(&(_, name, scheme, hash)) = known else {
            return Some(Self { name: oid_content_name(identifier), scheme: Scheme::Other, hash: None });
        };
        // RSA has NULL, which may be absent (RFC 4055 section 5). ECDSA has none, but some tools write NULL.
        let expected = match scheme {
            Scheme::Ed25519 => parameters.is_empty(),
            Scheme::Other => true,
            _ => parameters.is_empty() || parameters == NULL,
        };
        let name = if expected { name.to_owned() } else { format!("{name} (with parameters it does not have)") };
        Some(Self { name, scheme: if expected { scheme } else { Scheme::Other }, hash })
    }

    fn pss_from_der(parameters: &[u8]) -> Self {
        let Some((hash, pss)) = read_pss_parameters(parameters) else {
            let name = "RSASSA-PSS (with parameters that are not known)".to_owned();
            return Self { name, scheme: Scheme::Other, hash: pss_hash(parameters) };
        };
        let name = format!("RSASSA-PSS ({hash}, MGF1 with {}, salt of {} bytes)", pss.mgf_hash, pss.salt_length);
        Self { name, scheme: Scheme::RsaPss(pss), hash: Some(hash) }
    }

    /// Returns the hash of the message, if the algorithm has one and it is known.
    #[must_use]
    pub fn hash(&self) -> Option<HashAlgorithm> {
        self.hash
    }

    /// Returns the parameters of RSASSA-PSS other than its hash.
    #[must_use]
    pub fn pss(&self) -> Option<PssParameters> {
        match self.scheme {
            Scheme::RsaPss(parameters) => Some(parameters),
            _ => None,
        }
    }

    /// Returns whether the hash is [weak](HashAlgorithm::is_weak), so that signatures can be forged.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.hash.is_some_and(HashAlgorithm::is_weak)
    }
}

/// Reads `RSASSA-PSS-params` (RFC 4055 section 3.1). `None` if they are malformed or of another kind.
pub(super) fn read_pss_parameters(der: &[u8]) -> Option<(HashAlgorithm, PssParameters)> {
    let mut parts = Element::only_tagged(der, 0x30)?.elements();
    let hash = match parts.optional(0xa0)? {
        Some(tagged) => read_hash(tagged.content)?,
        None => Sha1,
    };
    let mgf_hash = match parts.optional(0xa1)? {
        Some(tagged) => {
            let mut function = Element::only_tagged(tagged.content, 0x30)?.elements();
            let identifier = function.tagged(0x06)?.content;
            if dotted_oid(identifier) != MGF1 {
                return None;
            }
            read_hash(function.rest())?
        }
        None => Sha1,
    };
    let salt_length = match parts.optional(0xa2)? {
        Some(tagged) => read_small_number(tagged.content)?,
        None => 20,
    };
    // The trailer field has one defined value, 1.
    let trailer = match parts.optional(0xa3)? {
        Some(tagged) => read_small_number(tagged.content)?,
        None => 1,
    };
    (trailer == 1 && parts.is_empty()).then_some((hash, PssParameters { mgf_hash, salt_length }))
}

/// Reads only the hash, of parameters whose rest is not understood.
fn pss_hash(der: &[u8]) -> Option<HashAlgorithm> {
    let mut parts: DerReader<'_> = Element::only_tagged(der, 0x30)?.elements();
    read_hash(parts.tagged(0xa0)?.content)
}

fn read_hash(der: &[u8]) -> Option<HashAlgorithm> {
    let mut parts = Element::only_tagged(der, 0x30)?.elements();
    let dotted = dotted_oid(parts.tagged(0x06)?.content);
    if !parts.is_empty() && parts.rest() != NULL {
        return None;
    }
    HashAlgorithm::from_oid(&dotted)
}

fn read_small_number(der: &[u8]) -> Option<u32> {
    let content = Element::only_tagged(der, 0x02)?.content;
    if content.first().is_none_or(|first| first & 0x80 != 0) {
        return None;
    }
    let digits = &content[content.iter().take_while(|&&octet| octet == 0).count()..];
    (digits.len() <= 4).then(|| digits.iter().fold(0, |number, &octet| number << 8 | u32::from(octet)))
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
