//! Kinds of public keys.

use std::fmt;

use x509_parser::{
    asn1_rs::Tag,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
        OID_PKCS1_RSASSAPSS,
    },
    prelude::FromDer,
    public_key::RSAPublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::oid::oid_name;

/// The shortest RSA keys that the services accept, in bits.
pub(super) const MIN_RSA_BITS: usize = 2048;

/// The longest RSA keys that AWS-LC supports, in bits.
#[cfg(feature = "verify")]
pub(super) const MAX_RSA_BITS: usize = 8192;

/// The kind of a public key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PublicKeyAlgorithm {
    /// ECDSA on NIST P-256.
    EcP256,
    /// ECDSA on NIST P-384.
    EcP384,
    /// ECDSA on NIST P-521.
    EcP521,
    /// RSA.
    Rsa {
        /// The length of the modulus in bits.
        bits: usize,
    },
    /// Any other kind, by name or object identifier.
    Other(String),
}

impl fmt::Display for PublicKeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcP256 => f.write_str("EC P-256"),
            Self::EcP384 => f.write_str("EC P-384"),
            Self::EcP521 => f.write_str("EC P-521"),
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

impl PublicKeyAlgorithm {
    /// Returns whether IoT Central and the Device Provisioning Service accept keys of this kind: RSA of 2048 bits or more,
    /// and EC on P-256, P-384 or P-521.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        match self {
            Self::EcP256 | Self::EcP384 | Self::EcP521 => true,
            Self::Rsa { bits } => *bits >= MIN_RSA_BITS,
            Self::Other(_) => false,
        }
    }

    pub(super) fn of(key: &SubjectPublicKeyInfo<'_>) -> Self {
        let algorithm = &key.algorithm.algorithm;
        if *algorithm == OID_PKCS1_RSAENCRYPTION {
            return match rsa_bits(key) {
                Some(bits) => Self::Rsa { bits },
                None => Self::Other("RSA with a malformed key".to_owned()),
            };
        }
        if *algorithm == OID_PKCS1_RSASSAPSS {
            let bits = rsa_bits(key).map(|bits| format!(" {bits}")).unwrap_or_default();
            return Self::Other(format!("RSASSA-PSS{bits}"));
        }
        if *algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
            let id = algorithm.to_id_string();
            return Self::Other(key_algorithm_name(&id).map_or_else(|| oid_name(algorithm), str::to_owned));
        }
        let Some(parameters) = &key.algorithm.parameters else {
            return Self::Other("EC without parameters, which name the curve".to_owned());
        };
        // `as_oid` does not check the tag.
        match parameters.tag().assert_eq(Tag::Oid).map_err(|_| ()).and_then(|()| parameters.as_oid().map_err(|_| ())) {
            Ok(curve) if curve == OID_EC_P256 => Self::EcP256,
            Ok(curve) if curve == OID_NIST_EC_P384 => Self::EcP384,
            Ok(curve) if curve == OID_NIST_EC_P521 => Self::EcP521,
            Ok(curve) => Self::Other(format!("EC {}", curve_name(&curve.to_id_string()))),
            // An EcpkParameters that is a sequence (RFC 3279 section 2.3.5).
            Err(()) if parameters.header.is_constructed() => Self::Other("EC with explicit parameters".to_owned()),
            Err(()) => Self::Other("EC with a curve that is not named".to_owned()),
        }
    }
}

fn rsa_bits(key: &SubjectPublicKeyInfo<'_>) -> Option<usize> {
    let (_, rsa) = RSAPublicKey::from_der(&key.subject_public_key.data).ok()?;
    Some(bit_length(rsa.modulus))
}

/// Returns the length in bits of an unsigned number, such as an RSA modulus.
pub(super) fn bit_length(number: &[u8]) -> usize {
    let digits = without_leading_zeros(number);
    digits.len() * 8 - digits.first().map_or(0, |first| first.leading_zeros() as usize)
}

/// Returns the octets of a number without leading zeros, which ASN.1 INTEGERs have to be positive.
pub(super) fn without_leading_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|&&octet| octet == 0).count()..]
}

/// Returns the name of a key algorithm that x509-parser's registry lacks or names otherwise.
pub(super) fn key_algorithm_name(oid: &str) -> Option<&'static str> {
    ALGORITHMS.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name)
}

/// Key algorithms by object identifier (RFC 8410, RFC 3279, FIPS 203 and 204).
const ALGORITHMS: [(&str, &str); 10] = [
    ("1.3.101.110", "X25519"),
    ("1.3.101.111", "X448"),
    ("1.3.101.112", "Ed25519"),
    ("1.3.101.113", "Ed448"),
    ("1.2.840.10040.4.1", "DSA"),
    ("1.2.840.10046.2.1", "Diffie-Hellman"),
    ("1.3.132.1.12", "ECDH"),
    ("2.16.840.1.101.3.4.3.17", "ML-DSA-44"),
    ("2.16.840.1.101.3.4.3.18", "ML-DSA-65"),
    ("2.16.840.1.101.3.4.3.19", "ML-DSA-87"),
];

/// Returns the name of a curve, or its object identifier if it is unknown.
pub(super) fn curve_name(oid: &str) -> &str {
    CURVES.iter().find(|(known, _)| *known == oid).map_or(oid, |(_, name)| name)
}

/// The names of curves as in OpenSSL (RFC 5639, SEC 2, ANSI X9.62), except the NIST curves that services accept.
const CURVES: [(&str, &str); 29] = [
    ("1.3.36.3.3.2.8.1.1.1", "brainpoolP160r1"),
    ("1.3.36.3.3.2.8.1.1.2", "brainpoolP160t1"),
    ("1.3.36.3.3.2.8.1.1.3", "brainpoolP192r1"),
    ("1.3.36.3.3.2.8.1.1.4", "brainpoolP192t1"),
    ("1.3.36.3.3.2.8.1.1.5", "brainpoolP224r1"),
    ("1.3.36.3.3.2.8.1.1.6", "brainpoolP224t1"),
    ("1.3.36.3.3.2.8.1.1.7", "brainpoolP256r1"),
    ("1.3.36.3.3.2.8.1.1.8", "brainpoolP256t1"),
    ("1.3.36.3.3.2.8.1.1.9", "brainpoolP320r1"),
    ("1.3.36.3.3.2.8.1.1.10", "brainpoolP320t1"),
    ("1.3.36.3.3.2.8.1.1.11", "brainpoolP384r1"),
    ("1.3.36.3.3.2.8.1.1.12", "brainpoolP384t1"),
    ("1.3.36.3.3.2.8.1.1.13", "brainpoolP512r1"),
    ("1.3.36.3.3.2.8.1.1.14", "brainpoolP512t1"),
    ("1.2.840.10045.3.1.1", "prime192v1"),
    ("1.2.840.10045.3.1.2", "prime192v2"),
    ("1.2.840.10045.3.1.3", "prime192v3"),
    ("1.2.840.10045.3.1.4", "prime239v1"),
    ("1.3.132.0.8", "secp160r1"),
    ("1.3.132.0.9", "secp160k1"),
    ("1.3.132.0.10", "secp256k1"),
    ("1.3.132.0.30", "secp160r2"),
    ("1.3.132.0.31", "secp192k1"),
    ("1.3.132.0.32", "secp224k1"),
    ("1.3.132.0.33", "secp224r1"),
    ("1.3.132.0.16", "sect283k1"),
    ("1.3.132.0.17", "sect283r1"),
    ("1.3.132.0.38", "sect571k1"),
    ("1.2.156.10197.1.301", "SM2"),
];
