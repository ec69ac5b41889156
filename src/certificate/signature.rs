//! Signatures of certificates and requests: their algorithms, and the one function that verifies them.

use std::fmt;

use aws_lc_rs::{
    digest::{self, Digest},
    rsa::{RsaParameters, RsaPssSaltLength},
    signature::{self, EcdsaVerificationAlgorithm, ParsedPublicKey, VerificationAlgorithm},
};

use super::{
    PublicKeyAlgorithm,
    der::{DerReader, Element},
    oid::{dotted_oid, oid_content_name},
    public_key::curve_name,
};

/// The algorithm of a signature (RFC 5280 section 4.1.1.2).
///
/// [`Display`](fmt::Display) writes it as people know it: `ecdsa-with-SHA256`, `sha256WithRSAEncryption`,
/// `RSASSA-PSS (SHA-256, MGF1 with SHA-256, salt of 32 bytes)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureAlgorithm {
    name: String,
    scheme: Scheme,
    hash: Option<HashAlgorithm>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    RsaPkcs1,
    RsaPss(PssParameters),
    Ecdsa,
    Ed25519,
    /// Nothing here verifies it: another algorithm, or one with parameters that it does not have.
    Other,
}

/// The parameters of RSASSA-PSS beside its hash (RFC 4055 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PssParameters {
    /// The hash of the mask generation function MGF1.
    pub mgf_hash: HashAlgorithm,
    /// The length of the salt in bytes.
    pub salt_length: u32,
}

/// A hash function that a signature algorithm names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "they are their names")]
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

use HashAlgorithm::{
    Md2, Md4, Md5, Ripemd160, Sha0, Sha1, Sha3_224, Sha3_256, Sha3_384, Sha3_512, Sha224, Sha256, Sha384, Sha512,
    Sha512_224, Sha512_256,
};

/// The algorithms by the dotted form of their identifier (RFC 3279, RFC 4055, RFC 5758, RFC 8410, the OIW). RSASSA-PSS is
/// apart: its parameters say what it is.
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

const HASHES: [(&str, HashAlgorithm); 14] = [
    ("1.2.840.113549.2.2", Md2),
    ("1.2.840.113549.2.4", Md4),
    ("1.2.840.113549.2.5", Md5),
    ("1.3.14.3.2.26", Sha1),
    ("2.16.840.1.101.3.4.2.1", Sha256),
    ("2.16.840.1.101.3.4.2.2", Sha384),
    ("2.16.840.1.101.3.4.2.3", Sha512),
    ("2.16.840.1.101.3.4.2.4", Sha224),
    ("2.16.840.1.101.3.4.2.5", Sha512_224),
    ("2.16.840.1.101.3.4.2.6", Sha512_256),
    ("2.16.840.1.101.3.4.2.7", Sha3_224),
    ("2.16.840.1.101.3.4.2.8", Sha3_256),
    ("2.16.840.1.101.3.4.2.9", Sha3_384),
    ("2.16.840.1.101.3.4.2.10", Sha3_512),
];

/// The ASN.1 NULL.
const NULL: &[u8] = &[0x05, 0x00];

impl SignatureAlgorithm {
    /// Reads an `AlgorithmIdentifier`. `None` if it is not one.
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
        // RSA has NULL, which may be absent (RFC 4055 section 5); ECDSA has none, and some write NULL.
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

    /// The hash of the message, if the algorithm has one and it is known.
    #[must_use]
    pub fn hash(&self) -> Option<HashAlgorithm> {
        self.hash
    }

    /// The further parameters of RSASSA-PSS.
    #[must_use]
    pub fn pss(&self) -> Option<PssParameters> {
        match self.scheme {
            Scheme::RsaPss(parameters) => Some(parameters),
            _ => None,
        }
    }

    /// Whether its hash is broken, so that a signature proves nothing: MD2, MD4, MD5, RIPEMD-160, SHA-0 or SHA-1.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.hash.is_some_and(HashAlgorithm::is_weak)
    }

    /// Checks that the key made this signature of the message. `key_info` is the DER of its `SubjectPublicKeyInfo`.
    ///
    /// A weak hash is not refused here: chains refuse it.
    ///
    /// # Errors
    /// [`SignatureError`] tells whether the signature is wrong, or the algorithm or the key cannot be used.
    pub(super) fn verify(&self, key_info: &[u8], message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let key = KeyInfo::read(key_info).ok_or(SignatureError::UnusableKey)?;
        match self.scheme {
            Scheme::RsaPkcs1 if key.algorithm == RSA_ENCRYPTION => self.verify_rsa(None, &key, message, signature),
            Scheme::RsaPss(pss) if key.algorithm == RSA_ENCRYPTION => {
                self.verify_rsa(Some(pss), &key, message, signature)
            }
            Scheme::RsaPss(pss) if key.algorithm == RSASSA_PSS_KEY => {
                if !key.allows_pss(self.hash, pss) {
                    return Err(SignatureError::KeyRestricted(self.to_string()));
                }
                self.verify_rsa(Some(pss), &key, message, signature)
            }
            Scheme::RsaPkcs1 if key.algorithm == RSASSA_PSS_KEY => Err(SignatureError::KeyRestricted(self.to_string())),
            Scheme::Ecdsa if key.algorithm == EC_PUBLIC_KEY => self.verify_ecdsa(&key, message, signature),
            Scheme::Ed25519 if key.algorithm == ED25519 => verify_with(&signature::ED25519, &key, message, signature),
            Scheme::Other => Err(self.unsupported()),
            // A key of one kind cannot have made a signature of another.
            _ => Err(SignatureError::Wrong),
        }
    }

    fn verify_rsa(
        &self,
        pss: Option<PssParameters>,
        key: &KeyInfo<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let bits = RsaParameters::public_modulus_len(key.bits).map_err(|_| SignatureError::UnusableKey)?;
        if bits > MAX_RSA_BITS {
            return Err(SignatureError::KeyTooLong(rsa(bits)));
        }
        let short = bits < MIN_RSA_BITS;
        if bits < MIN_CHECKED_RSA_BITS {
            return Err(SignatureError::KeyTooShort(rsa(bits)));
        }
        let parameters = match (pss, self.hash) {
            (None, Some(Sha1)) if short => Some(signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY),
            (None, Some(Sha256)) if short => Some(signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
            (None, Some(Sha512)) if short => Some(signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
            // The signature cannot be checked, and would not count.
            _ if short => return Err(SignatureError::KeyTooShort(rsa(bits))),
            (None, Some(Sha1)) => Some(signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY),
            (None, Some(Sha256)) => Some(signature::RSA_PKCS1_2048_8192_SHA256),
            (None, Some(Sha384)) => Some(signature::RSA_PKCS1_2048_8192_SHA384),
            (None, Some(Sha512)) => Some(signature::RSA_PKCS1_2048_8192_SHA512),
            (Some(pss), hash) if Some(pss.mgf_hash) == hash => {
                let parameters = match hash {
                    Some(Sha256) => Some(signature::RSA_PSS_2048_8192_SHA256),
                    Some(Sha384) => Some(signature::RSA_PSS_2048_8192_SHA384),
                    Some(Sha512) => Some(signature::RSA_PSS_2048_8192_SHA512),
                    _ => None,
                };
                // No key is so long that its salt would not fit.
                let salt = u16::try_from(pss.salt_length).map_err(|_| SignatureError::Wrong)?;
                parameters.map(|parameters| parameters.with_pss_salt_length(RsaPssSaltLength::Custom(salt)))
            }
            // aws-lc-rs has no other hash of the mask generation function.
            _ => None,
        };
        let parameters = parameters.ok_or_else(|| self.unsupported())?;
        parameters.verify_sig(key.bits, message, signature).map_err(|_| SignatureError::Wrong)?;
        if short { Err(SignatureError::KeyTooShort(rsa(bits))) } else { Ok(()) }
    }

    /// aws-lc-rs names no algorithm for some pairs of curve and hash. ECDSA takes the leftmost bits of the hash, as many as
    /// the order of the curve has, as a number (FIPS 186-5 section 6.4.2): a shorter hash is the same number with zeros in
    /// front, and of a longer one the rest does not count.
    fn verify_ecdsa(&self, key: &KeyInfo<'_>, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let hash: &'static digest::Algorithm = match self.hash {
            Some(Sha1) => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Some(Sha224) => &digest::SHA224,
            Some(Sha256) => &digest::SHA256,
            Some(Sha384) => &digest::SHA384,
            Some(Sha512) => &digest::SHA512,
            _ => return Err(self.unsupported()),
        };
        let curve = key.parameters.filter(|curve| curve.tag == 0x06).map(|curve| curve.content);
        let Some((_, algorithm, curve_hash)) = CURVES.iter().find(|(oid, ..)| Some(*oid) == curve) else {
            let curve = curve.map_or_else(
                || "a curve with explicit parameters".to_owned(),
                |oid| curve_name(&dotted_oid(oid)).to_owned(),
            );
            return Err(SignatureError::Unsupported(format!("{self} on {curve}")));
        };
        if ParsedPublicKey::new(*algorithm, key.bits).is_err() {
            return Err(SignatureError::UnusableKey);
        }
        let message_hash = digest::digest(hash, message);
        let message_hash = message_hash.as_ref();
        let mut fitted = vec![0; curve_hash.output_len.saturating_sub(message_hash.len())];
        fitted.extend_from_slice(&message_hash[..message_hash.len().min(curve_hash.output_len)]);
        Digest::import_less_safe(&fitted, curve_hash)
            .and_then(|digest| algorithm.verify_digest_sig(key.bits, &digest, signature))
            .map_err(|_| SignatureError::Wrong)
    }

    fn unsupported(&self) -> SignatureError {
        SignatureError::Unsupported(self.to_string())
    }
}

/// The sizes of RSA keys whose signatures count. aws-lc-rs has the same limits.
const MIN_RSA_BITS: u32 = 2048;
const MAX_RSA_BITS: u32 = 8192;

/// The shortest RSA keys with which signatures can be checked, to tell a wrong signer from a key that is too short.
const MIN_CHECKED_RSA_BITS: u32 = 1024;

/// The content octets of the identifiers of keys (RFC 3279 section 2.3, RFC 4055 section 1.2, RFC 8410 section 3).
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const RSASSA_PSS_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The curves by their identifier's content octets, each with the algorithm of aws-lc-rs whose hash is as long as the order
/// of the curve (P-521: the longest there is).
type Curve = (&'static [u8], &'static EcdsaVerificationAlgorithm, &'static digest::Algorithm);
static CURVES: [Curve; 4] = [
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], &signature::ECDSA_P256_SHA256_ASN1, &digest::SHA256),
    (&[0x2b, 0x81, 0x04, 0x00, 0x22], &signature::ECDSA_P384_SHA384_ASN1, &digest::SHA384),
    (&[0x2b, 0x81, 0x04, 0x00, 0x23], &signature::ECDSA_P521_SHA512_ASN1, &digest::SHA512),
    (&[0x2b, 0x81, 0x04, 0x00, 0x0a], &signature::ECDSA_P256K1_SHA256_ASN1, &digest::SHA256),
];

/// A `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7).
struct KeyInfo<'a> {
    /// The content octets of the identifier.
    algorithm: &'a [u8],
    parameters: Option<Element<'a>>,
    bits: &'a [u8],
}

impl<'a> KeyInfo<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let mut parts = Element::only_tagged(der, 0x30)?.elements();
        let mut algorithm = parts.tagged(0x30)?.elements();
        let (&unused, bits) = parts.tagged(0x03)?.content.split_first()?;
        let key = Self {
            algorithm: algorithm.tagged(0x06)?.content,
            parameters: if algorithm.is_empty() { None } else { Some(algorithm.next_element()?) },
            bits,
        };
        (unused == 0 && algorithm.is_empty() && parts.is_empty()).then_some(key)
    }

    /// Whether an RSASSA-PSS key may make signatures with these parameters: the same hashes, and a salt that is no shorter
    /// (RFC 4055 section 3.3).
    fn allows_pss(&self, hash: Option<HashAlgorithm>, used: PssParameters) -> bool {
        let Some(parameters) = self.parameters else { return true };
        read_pss_parameters(parameters.whole).is_some_and(|(key_hash, pss)| {
            Some(key_hash) == hash && pss.mgf_hash == used.mgf_hash && used.salt_length >= pss.salt_length
        })
    }
}

fn verify_with(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &KeyInfo<'_>,
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    algorithm.verify_sig(key.bits, message, signature).map_err(|_| SignatureError::Wrong)
}

fn rsa(bits: u32) -> PublicKeyAlgorithm {
    PublicKeyAlgorithm::Rsa { bits: bits as usize }
}

/// Reads `RSASSA-PSS-params` (RFC 4055 section 3.1). `None` if they are malformed or of another kind.
fn read_pss_parameters(der: &[u8]) -> Option<(HashAlgorithm, PssParameters)> {
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
    // The trailer field, 1, has one meaning.
    let trailer = match parts.optional(0xa3)? {
        Some(tagged) => read_small_number(tagged.content)?,
        None => 1,
    };
    (trailer == 1 && parts.is_empty()).then_some((hash, PssParameters { mgf_hash, salt_length }))
}

/// The hash alone, of parameters that are otherwise not known.
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
    HASHES.iter().find(|(oid, _)| *oid == dotted).map(|(_, hash)| *hash)
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

impl HashAlgorithm {
    /// Whether collisions can be made, or soon could.
    #[must_use]
    pub fn is_weak(self) -> bool {
        matches!(self, Md2 | Md4 | Md5 | Ripemd160 | Sha0 | Sha1)
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Md2 => "MD2",
            Md4 => "MD4",
            Md5 => "MD5",
            Ripemd160 => "RIPEMD-160",
            Sha0 => "SHA-0",
            Sha1 => "SHA-1",
            Sha224 => "SHA-224",
            Sha256 => "SHA-256",
            Sha384 => "SHA-384",
            Sha512 => "SHA-512",
            Sha512_224 => "SHA-512/224",
            Sha512_256 => "SHA-512/256",
            Sha3_224 => "SHA3-224",
            Sha3_256 => "SHA3-256",
            Sha3_384 => "SHA3-384",
            Sha3_512 => "SHA3-512",
        })
    }
}

/// Why a signature does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Another key made it, or what is signed was changed afterwards.
    #[error("the signature was not made by the issuer's key")]
    Wrong,
    /// The algorithm, by name, is not supported.
    #[error("the signature algorithm {0} is not supported")]
    Unsupported(String),
    /// The certificate names another algorithm outside its signed part than inside (RFC 5280 section 4.1.1.2).
    #[error("the signature algorithm is {outer} outside the signed part and {inner} inside")]
    AlgorithmMismatch {
        /// The algorithm named beside the signature.
        outer: String,
        /// The algorithm named in the signed part.
        inner: String,
    },
    /// The key is too short for its signatures to count.
    #[error("the issuer's key, {0}, is too short")]
    KeyTooShort(PublicKeyAlgorithm),
    /// The key is longer than the cryptographic library takes.
    #[error("the issuer's key, {0}, is too long to be supported")]
    KeyTooLong(PublicKeyAlgorithm),
    /// The key is restricted to other algorithms than the one named.
    #[error("the issuer's key may not make signatures with {0}")]
    KeyRestricted(String),
    /// The key cannot be read: its encoding is malformed, or it is not on its curve.
    #[error("the issuer's public key is malformed")]
    UnusableKey,
}
