//! Kinds of public keys.

use std::fmt;

use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
        OID_SIG_ED25519,
    },
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::oid::oid_name;

/// What kind of public key a certificate holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublicKeyAlgorithm {
    /// ECDSA on NIST P-256.
    EcP256,
    /// ECDSA on NIST P-384.
    EcP384,
    /// ECDSA on NIST P-521.
    EcP521,
    /// RSA with a modulus of so many bits.
    Rsa {
        /// The length of the modulus in bits.
        bits: usize,
    },
    /// Anything else, by name or object identifier. The Device Provisioning Service takes RSA of 2048 bits or more and
    /// the NIST curves.
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
    pub(super) fn of(key: &SubjectPublicKeyInfo<'_>) -> Self {
        let algorithm = &key.algorithm.algorithm;
        if *algorithm == OID_PKCS1_RSAENCRYPTION
            && let Ok(PublicKey::RSA(rsa)) = key.parsed()
        {
            // Leading zeros do not count: the modulus is an ASN.1 INTEGER.
            let modulus: Vec<u8> = rsa.modulus.iter().copied().skip_while(|&byte| byte == 0).collect();
            let unused = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
            return Self::Rsa { bits: modulus.len() * 8 - unused };
        }
        let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
        match curve {
            Some(curve) if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY => {
                if curve == OID_EC_P256 {
                    Self::EcP256
                } else if curve == OID_NIST_EC_P384 {
                    Self::EcP384
                } else if curve == OID_NIST_EC_P521 {
                    Self::EcP521
                } else {
                    Self::Other(format!("EC {}", oid_name(&curve)))
                }
            }
            _ if *algorithm == OID_SIG_ED25519 => Self::Other("Ed25519".to_owned()),
            _ => Self::Other(oid_name(algorithm)),
        }
    }
}
