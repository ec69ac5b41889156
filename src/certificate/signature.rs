//! Signatures of certificates and requests.

use x509_parser::oid_registry::{OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, Oid};

use super::PublicKeyAlgorithm;

/// x509-parser leaves P-521 out; aws-lc-rs has it.
pub(super) fn p521_verification(
    key: &PublicKeyAlgorithm,
    algorithm: &Oid<'_>,
) -> Option<&'static dyn aws_lc_rs::signature::VerificationAlgorithm> {
    use aws_lc_rs::signature::{ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1, ECDSA_P521_SHA512_ASN1};
    if *key != PublicKeyAlgorithm::EcP521 {
        return None;
    }
    if *algorithm == OID_SIG_ECDSA_WITH_SHA512 {
        Some(&ECDSA_P521_SHA512_ASN1)
    } else if *algorithm == OID_SIG_ECDSA_WITH_SHA384 {
        Some(&ECDSA_P521_SHA384_ASN1)
    } else if *algorithm == OID_SIG_ECDSA_WITH_SHA256 {
        Some(&ECDSA_P521_SHA256_ASN1)
    } else {
        None
    }
}

/// Why a signature does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Another key made it, or the certificate was changed afterwards.
    #[error("the signature was not made by the issuer's key")]
    Wrong,
    /// The algorithm, by name, is not supported.
    #[error("the signature algorithm {0} is not supported")]
    Unsupported(String),
}
