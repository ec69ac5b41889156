//! Key algorithms and private keys: PKCS#8, PKCS#1 and SEC1, plain or as encrypted PKCS#8, wiped when dropped.

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    encoding::{AsBigEndian, AsDer, EcPrivateKeyBin},
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_SHA256,
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256, PublicKeyData,
    SignatureAlgorithm, SigningKey,
};
use zeroize::{Zeroize, Zeroizing};

use super::{
    Certificate, ReadError,
    pem::pem_block,
    read::{PEM_BEGIN, contains, part_pem_lines, pem_items, plain_text},
};

/// The kind of key to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256.
    #[default]
    EcP256,
    /// ECDSA on NIST P-384.
    EcP384,
    /// RSA of 2048 bits.
    Rsa2048,
    /// RSA of 3072 bits.
    Rsa3072,
    /// RSA of 4096 bits.
    Rsa4096,
}

impl KeyAlgorithm {
    /// All of them, the default first.
    pub const ALL: [Self; 5] = [Self::EcP256, Self::EcP384, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    /// The name on the command line, such as `ec-p256`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EcP256 => "ec-p256",
            Self::EcP384 => "ec-p384",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KeyAlgorithm {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| KeyError::Unsupported(name.to_owned()))
    }
}

/// A private key, which signs. Its memory is wiped when it is dropped, and `Debug` shows only what kind it is.
///
/// It serves as the signing key of rcgen.
pub struct PrivateKey(Kind);

enum Kind {
    Ec(EcdsaKeyPair, &'static SignatureAlgorithm),
    Rsa(RsaKeyPair),
}

/// The curves that are read: the ones the Device Provisioning Service takes.
const CURVES: [(&EcdsaSigningAlgorithm, &SignatureAlgorithm); 3] = [
    (&ECDSA_P256_SHA256_ASN1_SIGNING, &PKCS_ECDSA_P256_SHA256),
    (&ECDSA_P384_SHA384_ASN1_SIGNING, &PKCS_ECDSA_P384_SHA384),
    (&ECDSA_P521_SHA512_ASN1_SIGNING, &PKCS_ECDSA_P521_SHA512),
];

impl PrivateKey {
    /// Makes a new random key.
    ///
    /// # Errors
    /// [`KeyError::Generation`] when the random source or the cryptographic library fails.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        let ec = |curve: usize| {
            let (signing, signature) = CURVES[curve];
            EcdsaKeyPair::generate(signing).map(|pair| Kind::Ec(pair, signature))
        };
        let rsa = |size| RsaKeyPair::generate(size).map(Kind::Rsa);
        match algorithm {
            KeyAlgorithm::EcP256 => ec(0),
            KeyAlgorithm::EcP384 => ec(1),
            KeyAlgorithm::Rsa2048 => rsa(KeySize::Rsa2048),
            KeyAlgorithm::Rsa3072 => rsa(KeySize::Rsa3072),
            KeyAlgorithm::Rsa4096 => rsa(KeySize::Rsa4096),
        }
        .map(Self)
        .map_err(|_| KeyError::Generation)
    }

    /// Reads a private key from a file: PKCS#8 (RFC 5958), PKCS#1 (RFC 8017) or SEC1 (RFC 5915), in PEM or DER, or
    /// encrypted PKCS#8 with its password. PEM may have anything around it; the first key counts.
    ///
    /// # Errors
    /// [`KeyError`] tells what was found instead, and never holds a part of the key.
    pub fn read(bytes: &[u8], password: Option<&str>) -> Result<Self, KeyError> {
        let text = plain_text(bytes);
        if !contains(&text, PEM_BEGIN) {
            return match text.first() {
                Some(0x30) => Self::from_der(&text, password),
                Some(_) => Err(KeyError::NoKey("neither PEM nor DER".to_owned())),
                None => Err(KeyError::NoKey("nothing, the file is empty".to_owned())),
            };
        }
        if contains(&text, b"Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::TraditionalEncryption);
        }
        if let Some(encrypted) = encrypted_pem(&text) {
            return Self::decrypt(&encrypted?, password);
        }
        let mut found = Vec::new();
        for item in pem_items(&text).map_err(|error: ReadError| KeyError::NoKey(error.to_string()))? {
            use rustls_pemfile::Item;
            match item {
                Item::Pkcs8Key(mut key) => {
                    let read = Self::from_der(key.secret_pkcs8_der(), None);
                    key.zeroize();
                    return read;
                }
                Item::Pkcs1Key(mut key) => {
                    let read = Self::from_der(key.secret_pkcs1_der(), None);
                    key.zeroize();
                    return read;
                }
                Item::Sec1Key(mut key) => {
                    let read = Self::from_der(key.secret_sec1_der(), None);
                    key.zeroize();
                    return read;
                }
                Item::X509Certificate(_) => found.push("a certificate"),
                Item::Csr(_) => found.push("a certificate request"),
                Item::SubjectPublicKeyInfo(_) => found.push("a public key"),
                _ => found.push("something else"),
            }
        }
        let found = if found.is_empty() { "no section that is known".to_owned() } else { found.join(", ") };
        Err(KeyError::NoKey(format!("PEM with {found}")))
    }

    fn from_der(der: &[u8], password: Option<&str>) -> Result<Self, KeyError> {
        if EncryptedPrivateKeyInfoRef::try_from(der).is_ok() {
            return Self::decrypt(der, password);
        }
        for (signing, signature) in CURVES {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(signing, der) {
                return Ok(Self(Kind::Ec(pair, signature)));
            }
        }
        let pkcs8 = PrivateKeyInfoRef::try_from(der);
        let rsa = if pkcs8.is_ok() { RsaKeyPair::from_pkcs8(der) } else { RsaKeyPair::from_der(der) };
        rsa.map(|pair| Self(Kind::Rsa(pair))).map_err(|rejected| match pkcs8 {
            Ok(info) => KeyError::Unsupported(algorithm_name(&info)),
            // The reason is a word such as "TooSmall", never a part of the key.
            Err(_) => KeyError::Rejected(rejected.to_string()),
        })
    }

    fn decrypt(der: &[u8], password: Option<&str>) -> Result<Self, KeyError> {
        let password = password.ok_or(KeyError::PasswordNeeded)?;
        let info = EncryptedPrivateKeyInfoRef::try_from(der)
            .map_err(|error| KeyError::Rejected(format!("its encryption cannot be read: {error}")))?;
        let plain = info.decrypt(password).map_err(|_| KeyError::WrongPassword)?;
        // Damaged padding and a wrong password are hard to tell apart; what decrypts to no key had a wrong one.
        if PrivateKeyInfoRef::try_from(plain.as_bytes()).is_err() {
            return Err(KeyError::WrongPassword);
        }
        Self::from_der(plain.as_bytes(), None)
    }

    /// The key as PKCS#8 in DER, unencrypted.
    ///
    /// # Errors
    /// [`KeyError::Generation`] when the cryptographic library cannot encode it.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match &self.0 {
            Kind::Ec(pair, signature) if *signature == &PKCS_ECDSA_P256_SHA256 => {
                pair.private_key().as_be_bytes().map(|scalar: EcPrivateKeyBin<'_>| p256_pkcs8(pair, scalar.as_ref()))
            }
            Kind::Ec(pair, _) => pair.to_pkcs8v1().map(|der| Zeroizing::new(der.as_ref().to_vec())),
            Kind::Rsa(pair) => pair.as_der().map(|der| Zeroizing::new(der.as_ref().to_vec())),
        }
        .map_err(|_| KeyError::Generation)
    }

    /// The key as PKCS#8 in PEM, unencrypted.
    ///
    /// # Errors
    /// As [`to_pkcs8_der`](Self::to_pkcs8_der).
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        Ok(Zeroizing::new(pem_block("PRIVATE KEY", &self.to_pkcs8_der()?)))
    }

    /// Whether it is the key of this certificate, however the certificate encodes an EC point.
    #[must_use]
    pub fn belongs_to(&self, certificate: &Certificate) -> bool {
        self.subject_public_key_info() == *certificate.uncompressed_public_key()
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        match &self.0 {
            Kind::Ec(pair, _) => pair.public_key().as_ref(),
            Kind::Rsa(pair) => pair.public_key().as_ref(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match &self.0 {
            Kind::Ec(_, signature) => signature,
            Kind::Rsa(_) => &PKCS_RSA_SHA256,
        }
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let random = SystemRandom::new();
        match &self.0 {
            Kind::Ec(pair, _) => pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()),
            Kind::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map(|()| signature)
            }
        }
        .map_err(|_| rcgen::Error::RingUnspecified)
    }
}

/// The PKCS#8 (RFC 5958) of a P-256 key, which is the same for every key but for the scalar and the point.
///
/// AWS-LC's own export computes the point a second time: a tenth of what making the key and signing its certificate
/// takes together.
fn p256_pkcs8(pair: &EcdsaKeyPair, scalar: &[u8]) -> Zeroizing<Vec<u8>> {
    const BEFORE_SCALAR: &[u8] =
        b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\
          \x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20";
    const BEFORE_POINT: &[u8] = b"\xa1\x44\x03\x42\x00";
    Zeroizing::new([BEFORE_SCALAR, scalar, BEFORE_POINT, pair.public_key().as_ref()].concat())
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Ec(..) => "PrivateKey(EC)",
            Kind::Rsa(_) => "PrivateKey(RSA)",
        })
    }
}

/// The DER of the first encrypted section: the PEM reader passes those over.
fn encrypted_pem(text: &[u8]) -> Option<Result<Zeroizing<Vec<u8>>, KeyError>> {
    let text = part_pem_lines(text);
    let (_, body) = text.split_once("-----BEGIN ENCRYPTED PRIVATE KEY-----")?;
    let damaged = |reason: &str| KeyError::NoKey(format!("a damaged encrypted key: {reason}"));
    let Some((body, _)) = body.split_once("-----END ENCRYPTED PRIVATE KEY-----") else {
        return Some(Err(damaged("its end line is missing")));
    };
    let compact: String = body.split_whitespace().collect();
    Some(BASE64_STANDARD.decode(compact).map(Zeroizing::new).map_err(|_| damaged("it is not base64")))
}

fn algorithm_name(info: &PrivateKeyInfoRef<'_>) -> String {
    let curve = info.algorithm.parameters_oid().ok().map(|oid| format!(" {oid}")).unwrap_or_default();
    match info.algorithm.oid.to_string().as_str() {
        "1.3.101.112" => "Ed25519".to_owned(),
        "1.3.101.113" => "Ed448".to_owned(),
        "1.2.840.10045.2.1" => format!("EC on the curve{curve}"),
        "1.2.840.113549.1.1.1" => "RSA of fewer than 2048 bits or more than 8192".to_owned(),
        other => other.to_owned(),
    }
}

/// Why there is no private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no private key in what was given; says what there is.
    #[error("there is no private key in it: it holds {0}")]
    NoKey(String),
    /// The key is encrypted and no password was given.
    #[error("the private key is encrypted: give its password")]
    PasswordNeeded,
    /// The password does not open the key.
    #[error("the password does not open the private key, or its encryption is not a supported one")]
    WrongPassword,
    /// The key is encrypted in the way before PKCS#8.
    #[error(
        "the private key has the encryption of old PEM files (Proc-Type: 4,ENCRYPTED), which is weak and not read: \
         rewrite it with `openssl pkcs8 -topk8 -in OLD -out NEW`"
    )]
    TraditionalEncryption,
    /// A kind of key that the service would not accept.
    #[error("keys of the kind {0} are not supported: RSA of 2048 bits or more, and EC on P-256, P-384 or P-521 are")]
    Unsupported(String),
    /// A key that does not decode or fails its own checks.
    #[error("the private key is not usable: {0}")]
    Rejected(String),
    /// The cryptographic library failed.
    #[error("the cryptographic library failed to make or encode a key")]
    Generation,
}
