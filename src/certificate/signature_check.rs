//! Verification of signatures with AWS-LC.

use aws_lc_rs::{
    digest::{self, Digest},
    rsa::{RsaParameters, RsaPssSaltLength},
    signature::{self, EcdsaVerificationAlgorithm, ParsedPublicKey, VerificationAlgorithm},
};

use super::{
    HashAlgorithm::{self, Sha1, Sha224, Sha256, Sha384, Sha512},
    PssParameters, PublicKeyAlgorithm, SignatureAlgorithm,
    der::Element,
    oid::dotted_oid,
    public_key::{MAX_RSA_BITS, MIN_RSA_BITS, curve_name},
    signature::{Scheme, read_pss_parameters},
};

impl SignatureAlgorithm {
    /// Verifies a signature. `key_info` is the DER of the key's `SubjectPublicKeyInfo`.
    ///
    /// A weak hash is accepted here; chains refuse it.
    ///
    /// # Errors
    /// Returns [`SignatureError::Wrong`] if another key made the signature, and another error if the algorithm or the key
    /// cannot be used.
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
        let bits = RsaParameters::public_modulus_len(key.bits).map_err(|_| SignatureError::UnusableKey)? as usize;
        if bits > MAX_RSA_BITS {
            return Err(SignatureError::KeyTooLong(PublicKeyAlgorithm::Rsa { bits }));
        }
        let short = bits < MIN_RSA_BITS;
        if bits < MIN_CHECKED_RSA_BITS {
            return Err(SignatureError::KeyTooShort(PublicKeyAlgorithm::Rsa { bits }));
        }
        let parameters = match (pss, self.hash) {
            (None, Some(Sha1)) if short => Some(signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY),
            (None, Some(Sha256)) if short => Some(signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
            (None, Some(Sha512)) if short => Some(signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
            // AWS-LC does not check such signatures, and they would not be trusted.
            _ if short => return Err(SignatureError::KeyTooShort(PublicKeyAlgorithm::Rsa { bits })),
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
        if short { Err(SignatureError::KeyTooShort(PublicKeyAlgorithm::Rsa { bits })) } else { Ok(()) }
    }

    /// Verifies an ECDSA signature with any hash on any supported curve.
    ///
    /// aws-lc-rs has no algorithm for some pairs of curve and hash. ECDSA interprets the leftmost bits of the hash, as many
    /// as the order of the curve has, as a number (FIPS 186-5 section 6.4.2). So a shorter hash is padded with zeros in
    /// front, and a longer one is truncated.
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

/// The length of the shortest RSA keys whose signatures are checked, to distinguish a wrong signer from a short key.
const MIN_CHECKED_RSA_BITS: usize = 1024;

/// The content octets of the object identifiers of keys (RFC 3279 section 2.3, RFC 4055 section 1.2, RFC 8410 section 3).
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const RSASSA_PSS_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// A curve: the content octets of its object identifier, and the algorithm of aws-lc-rs whose hash is as long as the order
/// of the curve (P-521: the longest available hash).
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

    /// Returns whether an RSASSA-PSS key may make signatures with these parameters: the same hashes, and a salt that is not
    /// shorter (RFC 4055 section 3.3).
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

/// The reason why a signature is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Another key made the signature, or the signed data was changed.
    #[error("the signature was not made by the issuer's key")]
    Wrong,
    /// The algorithm is not supported; holds its name.
    #[error("the signature algorithm {0} is not supported")]
    Unsupported(String),
    /// The algorithms outside and inside the signed part of the certificate differ (RFC 5280 section 4.1.1.2).
    #[error("the signature algorithm is {outer} outside the signed part and {inner} inside")]
    AlgorithmMismatch {
        /// The algorithm named beside the signature.
        outer: String,
        /// The algorithm named in the signed part.
        inner: String,
    },
    /// The key is too short to trust its signatures.
    #[error("the issuer's key, {0}, is too short")]
    KeyTooShort(PublicKeyAlgorithm),
    /// The key is longer than the cryptographic library supports.
    #[error("the issuer's key, {0}, is too long: it is not supported")]
    KeyTooLong(PublicKeyAlgorithm),
    /// The key is restricted to other algorithms; holds the name of the one that was used.
    #[error("the issuer's key may not make signatures with {0}")]
    KeyRestricted(String),
    /// The public key is malformed, or not a point on its curve.
    #[error("the issuer's public key is malformed")]
    UnusableKey,
}
