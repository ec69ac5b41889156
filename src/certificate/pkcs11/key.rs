//! Signatures by private keys in tokens.

use std::sync::Arc;

use aws_lc_rs::{
    digest::{self, digest},
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
    },
};
use cryptoki::{mechanism::Mechanism, object::ObjectHandle};
use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256, SignatureAlgorithm,
};

use super::{error::TokenError, token::OpenToken};
use crate::certificate::{
    KeyError,
    der::{INTEGER, der_frame, der_sequence},
    public_key::without_leading_zeros,
    remote_key::RemoteKey,
};

/// A private key in a token, with its public key.
pub(super) struct TokenKey {
    pub(super) token: Arc<OpenToken>,
    pub(super) handle: ObjectHandle,
    pub(super) scheme: Scheme,
    /// A point, or an `RSAPublicKey`. Parsed once, since it verifies each signature.
    pub(super) public_key: ParsedPublicKey,
    /// The label and ID of the key, for messages.
    pub(super) name: String,
    pub(super) uri: String,
}

/// How keys of a kind sign.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    P256,
    P384,
    P521,
    Rsa,
}

/// The object identifiers of curves in DER, as `CKA_EC_PARAMS` has them.
pub(super) const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
pub(super) const P384: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";
const P521: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x23";

/// The DER of a `DigestInfo` before a SHA-256 hash (RFC 8017 section 9.2, note 1).
const SHA256_DIGEST_INFO: &[u8] = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";

impl Scheme {
    /// Returns how EC keys sign on the curve of these parameters.
    pub(super) fn of_curve(parameters: &[u8]) -> Option<Self> {
        match parameters {
            P256 => Some(Self::P256),
            P384 => Some(Self::P384),
            P521 => Some(Self::P521),
            _ => None,
        }
    }

    /// Checks that a token has one of the mechanisms; otherwise returns their names.
    pub(super) fn check(self, token: &OpenToken) -> Result<(), &'static str> {
        let (of_hash, of_message) = self.mechanisms();
        let has = |mechanism: Mechanism<'_>| token.mechanisms.contains(&mechanism.mechanism_type());
        if has(of_hash) || has(of_message) { Ok(()) } else { Err(self.mechanism_names()) }
    }

    /// Returns the mechanism that takes a hash, and the one that takes the message. The first is preferred, because less has
    /// to go to the token.
    fn mechanisms(self) -> (Mechanism<'static>, Mechanism<'static>) {
        match self {
            Self::P256 => (Mechanism::Ecdsa, Mechanism::EcdsaSha256),
            Self::P384 => (Mechanism::Ecdsa, Mechanism::EcdsaSha384),
            Self::P521 => (Mechanism::Ecdsa, Mechanism::EcdsaSha512),
            Self::Rsa => (Mechanism::RsaPkcs, Mechanism::Sha256RsaPkcs),
        }
    }

    fn mechanism_names(self) -> &'static str {
        match self {
            Self::P256 => "CKM_ECDSA or CKM_ECDSA_SHA256",
            Self::P384 => "CKM_ECDSA or CKM_ECDSA_SHA384",
            Self::P521 => "CKM_ECDSA or CKM_ECDSA_SHA512",
            Self::Rsa => "CKM_RSA_PKCS or CKM_SHA256_RSA_PKCS",
        }
    }

    fn algorithm(self) -> &'static SignatureAlgorithm {
        match self {
            Self::P256 => &PKCS_ECDSA_P256_SHA256,
            Self::P384 => &PKCS_ECDSA_P384_SHA384,
            Self::P521 => &PKCS_ECDSA_P521_SHA512,
            Self::Rsa => &PKCS_RSA_SHA256,
        }
    }

    /// Reads a public key. `None` if it is malformed.
    pub(super) fn read_public_key(self, bits: &[u8]) -> Option<ParsedPublicKey> {
        let verification: &'static dyn VerificationAlgorithm = match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::P384 => &ECDSA_P384_SHA384_ASN1,
            Self::P521 => &ECDSA_P521_SHA512_ASN1,
            Self::Rsa => &RSA_PKCS1_2048_8192_SHA256,
        };
        ParsedPublicKey::new(verification, bits).ok()
    }

    /// Returns the input of the mechanism that takes a hash.
    fn hashed(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256 => digest(&digest::SHA256, message).as_ref().to_vec(),
            Self::P384 => digest(&digest::SHA384, message).as_ref().to_vec(),
            Self::P521 => digest(&digest::SHA512, message).as_ref().to_vec(),
            Self::Rsa => [SHA256_DIGEST_INFO, digest(&digest::SHA256, message).as_ref()].concat(),
        }
    }

    /// Returns a signature of a token in the encoding of certificates. `None` if its length is wrong.
    fn encode(self, signature: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Self::P256 => ecdsa_signature(&signature, 32),
            Self::P384 => ecdsa_signature(&signature, 48),
            Self::P521 => ecdsa_signature(&signature, 66),
            Self::Rsa => Some(signature),
        }
    }
}

impl TokenKey {
    /// Signs a message, and verifies the signature with the public key.
    fn sign_verified(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let (of_hash, of_message) = self.scheme.mechanisms();
        let signature = if self.token.mechanisms.contains(&of_hash.mechanism_type()) {
            self.call(&of_hash, &self.scheme.hashed(message))
        } else {
            self.call(&of_message, message)
        }?;
        let verifies = |signature: &Vec<u8>| self.public_key.verify_sig(message, signature).is_ok();
        let (token, key) = (&self.token.label, &self.name);
        self.scheme
            .encode(signature)
            .filter(verifies)
            .ok_or_else(|| TokenError::WrongSignature { token: token.clone(), key: key.clone() })
    }

    fn call(&self, mechanism: &Mechanism<'_>, data: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.token.with_session("sign", |session| session.sign(mechanism, self.handle, data))
    }
}

impl RemoteKey for TokenKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        Ok(self.sign_verified(message)?)
    }

    fn public_key_bits(&self) -> &[u8] {
        self.public_key.as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.scheme.algorithm()
    }

    fn uri(&self) -> &str {
        &self.uri
    }
}

/// Encodes an ECDSA signature, two numbers of the length of a coordinate (PKCS#11 3.1 section 6.3.1), in DER (RFC 3279 section
/// 2.2.3). `None` if it has another length.
fn ecdsa_signature(numbers: &[u8], length: usize) -> Option<Vec<u8>> {
    if numbers.len() != 2 * length {
        return None;
    }
    let (r, s) = numbers.split_at(length);
    Some(der_sequence(&[&unsigned_integer(r), &unsigned_integer(s)]))
}

/// Encodes an unsigned number as an INTEGER.
pub(super) fn unsigned_integer(number: &[u8]) -> Vec<u8> {
    let number = without_leading_zeros(number);
    let sign: &[u8] = if number.first().is_none_or(|first| first & 0x80 != 0) { &[0] } else { &[] };
    der_frame(INTEGER, &[sign, number])
}
