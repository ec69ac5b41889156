//! Key algorithms and private keys.

use std::{fmt, str::FromStr, sync::OnceLock};

use aws_lc_rs::{
    encoding::{AsBigEndian, AsDer, EcPrivateKeyBin},
    error::KeyRejected,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_SHA256,
    },
};
use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256, PublicKeyData,
    SignatureAlgorithm, SigningKey,
};
use zeroize::Zeroizing;

use super::{
    Certificate, KeyError, PublicKeyAlgorithm, ber,
    der::{CONTEXT_0, CONTEXT_1, DerReader, INTEGER, OCTET_STRING, SEQUENCE, der_frame, der_sequence},
    key_encryption,
    pem::pem_block,
    public_key::{MAX_RSA_BITS, MIN_RSA_BITS, bit_length, curve_name, key_algorithm_name, without_leading_zeros},
    read::{ContentKind, Item, decode, list_kinds},
    remote_key::RemoteKey,
};

/// The kind of a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256.
    #[default]
    EcP256,
    /// ECDSA on NIST P-384.
    EcP384,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
}

impl KeyAlgorithm {
    /// All kinds, the default first.
    pub const ALL: [Self; 5] = [Self::EcP256, Self::EcP384, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    /// Returns the name on the command line, such as `ec-p256`.
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

/// A private key, in memory or in a PKCS#11 token. Memory is wiped when it is dropped, and `Debug` shows only its kind.
pub struct PrivateKey(Kind);

enum Kind {
    Ec(EcdsaKeyPair, &'static SignatureAlgorithm),
    Rsa(RsaKeyPair),
    #[cfg_attr(not(feature = "pkcs11"), expect(dead_code, reason = "only tokens are such places so far"))]
    Remote(Box<dyn RemoteKey>),
}

/// The supported curves: those that the Device Provisioning Service accepts.
const CURVES: [(&EcdsaSigningAlgorithm, &SignatureAlgorithm); 3] = [
    (&ECDSA_P256_SHA256_ASN1_SIGNING, &PKCS_ECDSA_P256_SHA256),
    (&ECDSA_P384_SHA384_ASN1_SIGNING, &PKCS_ECDSA_P384_SHA384),
    (&ECDSA_P521_SHA512_ASN1_SIGNING, &PKCS_ECDSA_P521_SHA512),
];

impl PrivateKey {
    /// Generates a random key.
    ///
    /// # Errors
    /// Returns [`KeyError::Generation`] if the cryptographic library fails.
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

    /// Reads the first private key of a file in any encoding that [`Certificate::read_all`] accepts.
    ///
    /// The key is PKCS#8 (RFC 5958), PKCS#1 (RFC 8017) or SEC1 (RFC 5915). It may be encrypted as PKCS#8 or as traditional
    /// PEM (`Proc-Type: 4,ENCRYPTED`, RFC 1421). Without a password, the empty one is tried. Other objects in the file are
    /// ignored.
    ///
    /// # Errors
    /// Returns a [`KeyError`] that says what was found instead. It never holds a part of the key. A PFX file is
    /// [`KeyError::Pfx`]: read it with [`pfx::read_identity`](super::pfx::read_identity).
    pub fn read(bytes: &[u8], password: Option<&str>) -> Result<Self, KeyError> {
        let items = decode(bytes).map_err(|error| KeyError::NoKey(error.to_string()))?;
        let Some(item) = items.iter().find(|item| item.kind.holds_private_key()) else {
            return Err(KeyError::NoKey(format!("it holds {}", list_kinds(&items))));
        };
        Self::from_item(item, password)
    }

    /// Reads the private key of one item of a file, as [`read`](Self::read) does.
    pub(super) fn from_item(item: &Item, password: Option<&str>) -> Result<Self, KeyError> {
        let der = match (&item.der, item.label.as_deref()) {
            // The content of this section is not DER.
            (_, Some("OPENSSH PRIVATE KEY")) => return Err(KeyError::OpenSsh),
            (Ok(der), _) => der,
            (Err(damage), _) => return Err(KeyError::Damaged(damage.reason().to_owned())),
        };
        let open = |password: &str| match &item.encryption {
            Some(encryption) => Self::from_decrypted(key_encryption::decrypt_pem(encryption, der, password)?),
            None => Self::from_decrypted(key_encryption::decrypt_pkcs8(der, password)?),
        };
        match (&item.kind, password) {
            (ContentKind::Pfx, _) => Err(KeyError::Pfx),
            (kind, _) if item.encryption.is_none() && *kind != ContentKind::EncryptedPrivateKey => Self::from_der(der),
            (_, Some(password)) => open(password),
            (_, None) => open("").map_err(|error| match error {
                KeyError::WrongPassword => KeyError::PasswordNeeded,
                other => other,
            }),
        }
    }

    /// Reads a decrypted key. If it does not decode, the password was wrong: the padding alone does not prove it right.
    #[expect(clippy::needless_pass_by_value, reason = "it is wiped here")]
    fn from_decrypted(der: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        match Self::from_der(&der) {
            Err(KeyError::Damaged(_)) => Err(KeyError::WrongPassword),
            other => other,
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        // Some tools write BER.
        let normalised = ber::to_der(der).map_err(|error| KeyError::Damaged(error.to_string()))?.der;
        let damaged = || KeyError::Damaged("it does not decode as PKCS#8, PKCS#1 or SEC1".to_owned());
        Outline::of(&normalised).ok_or_else(damaged)?.read(&normalised).map(Self)
    }

    /// Wraps a key that signs elsewhere.
    #[cfg(feature = "pkcs11")]
    pub(super) fn remote(key: impl RemoteKey + 'static) -> Self {
        Self(Kind::Remote(Box::new(key)))
    }

    /// Returns the PKCS#11 URI of a key in a token, without a PIN. `None` for a key in memory.
    ///
    /// A key in a token cannot be written to a file.
    #[must_use]
    pub fn token_uri(&self) -> Option<&str> {
        match &self.0 {
            Kind::Remote(key) => Some(key.uri()),
            _ => None,
        }
    }

    /// Returns the key as unencrypted PKCS#8 in DER.
    ///
    /// # Errors
    /// Returns [`KeyError::InToken`] if the key is in a token, [`KeyError::Generation`] if the cryptographic library cannot
    /// encode it.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match &self.0 {
            Kind::Ec(pair, signature) if *signature == &PKCS_ECDSA_P256_SHA256 => {
                pair.private_key().as_be_bytes().map(|scalar: EcPrivateKeyBin<'_>| p256_pkcs8(pair, scalar.as_ref()))
            }
            Kind::Ec(pair, _) => pair.to_pkcs8v1().map(|der| Zeroizing::new(der.as_ref().to_vec())),
            Kind::Rsa(pair) => pair.as_der().map(|der| Zeroizing::new(der.as_ref().to_vec())),
            Kind::Remote(_) => return Err(KeyError::InToken),
        }
        .map_err(|_| KeyError::Generation)
    }

    /// Returns the key as unencrypted PKCS#8 in PEM.
    ///
    /// # Errors
    /// Returns the errors of [`to_pkcs8_der`](Self::to_pkcs8_der).
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        Ok(Zeroizing::new(pem_block("PRIVATE KEY", &self.to_pkcs8_der()?)))
    }

    /// Returns whether this is the key of a certificate, whichever way the certificate encodes its public key.
    #[must_use]
    pub fn belongs_to(&self, certificate: &Certificate) -> bool {
        self.public_key() == *certificate.uncompressed_public_key()
    }

    /// Returns the public key as the DER of its `SubjectPublicKeyInfo`, with an EC point uncompressed.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        RcgenKey::new(self).subject_public_key_info()
    }

    /// Returns the public key: a point, or the DER of an `RSAPublicKey`.
    pub(super) fn public_key_bits(&self) -> &[u8] {
        match &self.0 {
            Kind::Ec(pair, _) => pair.public_key().as_ref(),
            Kind::Rsa(pair) => pair.public_key().as_ref(),
            Kind::Remote(key) => key.public_key_bits(),
        }
    }

    /// Returns the algorithm of the signatures that [`sign`](Self::sign) makes.
    pub(crate) fn algorithm(&self) -> &'static SignatureAlgorithm {
        match &self.0 {
            Kind::Ec(_, signature) => signature,
            Kind::Rsa(_) => &PKCS_RSA_SHA256,
            Kind::Remote(key) => key.algorithm(),
        }
    }

    /// Returns the algorithm of the signatures that [`sign`](Self::sign) makes, as the DER of its `AlgorithmIdentifier`
    /// (RFC 5758 section 3.2, RFC 4055 section 5).
    pub(super) fn signature_algorithm_der(&self) -> &'static [u8] {
        let algorithm = self.algorithm();
        if algorithm == &PKCS_ECDSA_P256_SHA256 {
            b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"
        } else if algorithm == &PKCS_ECDSA_P384_SHA384 {
            b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03"
        } else if algorithm == &PKCS_ECDSA_P521_SHA512 {
            b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04"
        } else {
            b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"
        }
    }

    /// Generates a key of the same kind and size as a public key. `None` if such keys are not supported.
    pub(super) fn generate_like(algorithm: &PublicKeyAlgorithm) -> Result<Option<Self>, KeyError> {
        let algorithm = match algorithm {
            PublicKeyAlgorithm::EcP256 => KeyAlgorithm::EcP256,
            PublicKeyAlgorithm::EcP384 => KeyAlgorithm::EcP384,
            PublicKeyAlgorithm::EcP521 => {
                let (signing, signature) = CURVES[2];
                let pair = EcdsaKeyPair::generate(signing).map_err(|_| KeyError::Generation)?;
                return Ok(Some(Self(Kind::Ec(pair, signature))));
            }
            PublicKeyAlgorithm::Rsa { bits: 2048 } => KeyAlgorithm::Rsa2048,
            PublicKeyAlgorithm::Rsa { bits: 3072 } => KeyAlgorithm::Rsa3072,
            PublicKeyAlgorithm::Rsa { bits: 4096 } => KeyAlgorithm::Rsa4096,
            _ => return Ok(None),
        };
        Self::generate(algorithm).map(Some)
    }

    /// Signs a message, with ECDSA or PKCS#1 v1.5.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.0 {
            Kind::Ec(pair, _) => pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()),
            Kind::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map(|()| signature)
            }
            Kind::Remote(key) => return key.sign(message),
        }
        .map_err(|_| KeyError::Signing)
    }
}

/// A private key as the signing key of rcgen. A type of its own keeps the traits of rcgen out of the public API.
///
/// An error of rcgen does not say why a token did not sign, so the reason is kept here.
pub(super) struct RcgenKey<'a> {
    key: &'a PrivateKey,
    failure: OnceLock<KeyError>,
}

impl<'a> RcgenKey<'a> {
    pub(super) fn new(key: &'a PrivateKey) -> Self {
        Self { key, failure: OnceLock::new() }
    }

    /// Returns why the key did not sign, if that is why rcgen failed.
    pub(super) fn failure(&self) -> Option<KeyError> {
        self.failure.get().cloned()
    }
}

impl PublicKeyData for RcgenKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.public_key_bits()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.key.algorithm()
    }
}

impl SigningKey for RcgenKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(message).map_err(|error| {
            let _ = self.failure.set(error);
            rcgen::Error::RemoteKeyError
        })
    }
}

/// Encodes a P-256 key as PKCS#8 (RFC 5958), which differs between keys only in the scalar and the point.
///
/// The export of AWS-LC computes the point again, which takes a tenth of the time for generating the key and signing its
/// certificate.
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
            Kind::Remote(_) => "PrivateKey(in a token)",
        })
    }
}

/// The structure of an encoded private key.
enum Outline<'a> {
    Pkcs8 {
        /// The object identifier of the algorithm in dotted form.
        algorithm: String,
        /// Its parameters: the curve of an EC key.
        parameters: Parameters,
        key: &'a [u8],
        /// The public key, in version 2.
        public_key: Option<&'a [u8]>,
    },
    Pkcs1 {
        modulus: &'a [u8],
        primes: usize,
    },
    Sec1,
    Dsa,
}

/// The parameters of an EC key (RFC 5480 section 2.1.1).
enum Parameters {
    /// The object identifier of a curve, in dotted form.
    Curve(String),
    /// Explicit parameters of a curve, or parameters of another algorithm.
    Other,
    Absent,
}

impl Parameters {
    fn of(mut reader: DerReader<'_>) -> Self {
        if reader.is_empty() { Self::Absent } else { reader.oid().map_or(Self::Other, Self::Curve) }
    }
}

const RSA: &str = "1.2.840.113549.1.1.1";
const EC: &str = "1.2.840.10045.2.1";

impl<'a> Outline<'a> {
    fn of(der: &'a [u8]) -> Option<Self> {
        let mut members = DerReader::new(der).inside(SEQUENCE)?;
        members.content(INTEGER)?;
        match members.tag()? {
            SEQUENCE => {
                let mut algorithm = members.inside(SEQUENCE)?;
                let (oid, parameters) = (algorithm.oid()?, Parameters::of(algorithm));
                let key = members.content(OCTET_STRING)?;
                let mut public_key = None;
                while let Some(tag) = members.tag() {
                    let content = members.content(tag)?;
                    if tag == PUBLIC_KEY_V2 {
                        // The first octet of a BIT STRING counts unused bits.
                        public_key = content.get(1..);
                    }
                }
                Some(Self::Pkcs8 { algorithm: oid, parameters, key, public_key })
            }
            OCTET_STRING => {
                members.content(OCTET_STRING)?;
                Some(Self::Sec1)
            }
            INTEGER => {
                let modulus = members.content(INTEGER)?;
                let mut integers = 1;
                while members.content(INTEGER).is_some() {
                    integers += 1;
                }
                // RFC 8017 appendix A.1.2; further primes are in a sequence. DSA keys have p, q, g, y and x.
                match (integers, members.tag()) {
                    (8, None) => Some(Self::Pkcs1 { modulus, primes: 2 }),
                    (8, Some(SEQUENCE)) => {
                        let mut others = members.inside(SEQUENCE)?;
                        let mut primes = 2;
                        while others.element().is_some() {
                            primes += 1;
                        }
                        Some(Self::Pkcs1 { modulus, primes })
                    }
                    (5, None) => Some(Self::Dsa),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Reads the key of this structure.
    fn read(self, der: &[u8]) -> Result<Kind, KeyError> {
        match self {
            Self::Pkcs1 { modulus, primes } => rsa(RsaKeyPair::from_der(der), modulus, primes),
            Self::Sec1 => ec(der, Parameters::Absent, der),
            Self::Dsa => Err(KeyError::Unsupported("DSA".to_owned())),
            Self::Pkcs8 { algorithm, key, .. } if algorithm == RSA => match Outline::of(key) {
                // The parameters are not checked: they should be NULL and are often absent.
                Some(Outline::Pkcs1 { modulus, primes }) => rsa(RsaKeyPair::from_der(key), modulus, primes),
                _ => Err(KeyError::Damaged("the RSA key in its PKCS#8 does not decode".to_owned())),
            },
            Self::Pkcs8 { algorithm, parameters, key, public_key } if algorithm == EC => {
                let kind = ec(der, parameters, key)?;
                match (&kind, public_key) {
                    (Kind::Ec(pair, _), Some(point))
                        if point.first() == Some(&UNCOMPRESSED) && point != pair.public_key().as_ref() =>
                    {
                        Err(KeyError::Rejected("the public key stored with it belongs to another key".to_owned()))
                    }
                    _ => Ok(kind),
                }
            }
            Self::Pkcs8 { algorithm, .. } => Err(KeyError::Unsupported(algorithm_name(&algorithm))),
        }
    }
}

/// The tag of the public key in PKCS#8 version 2 (RFC 5958 section 2).
const PUBLIC_KEY_V2: u8 = 0x81;
/// The first octet of a point with both coordinates (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 0x04;

fn rsa(read: Result<RsaKeyPair, KeyRejected>, modulus: &[u8], primes: usize) -> Result<Kind, KeyError> {
    read.map(Kind::Rsa).map_err(|_| {
        let bits = bit_length(modulus);
        if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
            KeyError::Unsupported(format!("RSA of {bits} bits"))
        } else if primes > 2 {
            KeyError::Unsupported(format!("RSA of {primes} primes"))
        } else {
            KeyError::Rejected("the numbers of the RSA key are inconsistent".to_owned())
        }
    })
}

/// Reads an EC key from PKCS#8 or SEC1. `sec1` is the SEC1 inside, `parameters` are those outside of it.
fn ec(der: &[u8], parameters: Parameters, sec1: &[u8]) -> Result<Kind, KeyError> {
    let read = |der: &[u8]| {
        CURVES.into_iter().find_map(|(signing, signature)| {
            EcdsaKeyPair::from_private_key_der(signing, der).ok().map(|pair| Kind::Ec(pair, signature))
        })
    };
    if let Some(kind) = read(der) {
        return Ok(kind);
    }
    let mut members = DerReader::new(sec1).inside(SEQUENCE).ok_or_else(damaged_ec)?;
    members.content(INTEGER).ok_or_else(damaged_ec)?;
    let scalar = members.content(OCTET_STRING).ok_or_else(damaged_ec)?;
    let (mut inner, mut point) = (Parameters::Absent, None);
    while let Some(tag) = members.tag() {
        let content = members.content(tag).ok_or_else(damaged_ec)?;
        match tag {
            CONTEXT_0 => inner = Parameters::of(DerReader::new(content)),
            CONTEXT_1 => point = Some(content),
            _ => {}
        }
    }
    let curve = match (parameters, inner) {
        (Parameters::Curve(curve), _) | (Parameters::Absent, Parameters::Curve(curve)) => curve,
        (Parameters::Absent, Parameters::Absent) => {
            return Err(KeyError::Unsupported("EC without a named curve".to_owned()));
        }
        _ => return Err(KeyError::Unsupported("EC with explicit parameters".to_owned())),
    };
    let (length, parameters): (_, &[u8]) = match curve.as_str() {
        "1.2.840.10045.3.1.7" => (32, b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"),
        "1.3.132.0.34" => (48, b"\x06\x05\x2b\x81\x04\x00\x22"),
        "1.3.132.0.35" => (66, b"\x06\x05\x2b\x81\x04\x00\x23"),
        other => return Err(KeyError::Unsupported(format!("EC on the curve {}", curve_name(other)))),
    };
    // Some tools drop the leading zeros of the scalar, or keep one too many (RFC 5915 section 3).
    let scalar = without_leading_zeros(scalar);
    let padding = [0; 66].get(..length - scalar.len().min(length)).unwrap_or_default().to_vec();
    let scalar = Zeroizing::new(der_frame(OCTET_STRING, &[&padding, scalar]));
    let parameters = der_frame(CONTEXT_0, &[parameters]);
    let point = point.map(|point| der_frame(CONTEXT_1, &[point])).unwrap_or_default();
    let plain = Zeroizing::new(der_sequence(&[&[INTEGER, 1, 1], &scalar, &parameters, &point]));
    read(&plain).ok_or_else(|| KeyError::Rejected("the numbers of the EC key are inconsistent".to_owned()))
}

fn damaged_ec() -> KeyError {
    KeyError::Damaged("the EC key in it does not decode".to_owned())
}

/// Returns the name of the algorithm of an unsupported key.
fn algorithm_name(oid: &str) -> String {
    match oid {
        "1.2.840.113549.1.3.1" => "Diffie-Hellman",
        "1.2.840.113549.1.1.7" => "RSAES-OAEP",
        "1.2.840.113549.1.1.10" => "RSASSA-PSS",
        other => key_algorithm_name(other).unwrap_or(other),
    }
    .to_owned()
}
