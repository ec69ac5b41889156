//! Key algorithms and private keys: PKCS#8, PKCS#1 and SEC1, plain or as encrypted PKCS#8, wiped when dropped.

use std::{fmt, str::FromStr};

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
    Certificate, ber,
    der::{CONTEXT_0, DerReader, INTEGER, OCTET_STRING, SEQUENCE, der_frame, der_sequence},
    key_encryption,
    pem::pem_block,
    read::{ContentKind, decode, list_kinds},
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

    /// Reads a private key from a file in any encoding that [`Certificate::read_all`] takes: PKCS#8 (RFC 5958), PKCS#1
    /// (RFC 8017) or SEC1 (RFC 5915), plain or, with its password, encrypted as PKCS#8 or as traditional PEM
    /// (`Proc-Type: 4,ENCRYPTED`, RFC 1421). Without a password the empty one is tried. There may be anything beside it; the first key counts.
    ///
    /// # Errors
    /// [`KeyError`] tells what was found instead, and never holds a part of the key. A PFX file is [`KeyError::Pfx`]: its
    /// key is read by `pfx::read_identity`.
    pub fn read(bytes: &[u8], password: Option<&str>) -> Result<Self, KeyError> {
        let items = decode(bytes).map_err(|error| KeyError::NoKey(error.to_string()))?;
        let Some(item) = items.iter().find(|item| item.kind.holds_private_key()) else {
            return Err(KeyError::NoKey(format!("it holds {}", list_kinds(&items))));
        };
        let der = match (&item.der, item.label.as_deref()) {
            // Its content is not DER.
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

    /// Reads what a password decrypted. Nothing else tells a wrong password for sure from a right one.
    #[expect(clippy::needless_pass_by_value, reason = "it is wiped here")]
    fn from_decrypted(der: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        match Self::from_der(&der) {
            Err(KeyError::Damaged(_)) => Err(KeyError::WrongPassword),
            other => other,
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        // Some programs write BER.
        let normalised = ber::to_der(der).map_err(|error| KeyError::Damaged(error.to_string()))?.der;
        let damaged = || KeyError::Damaged("it does not decode as PKCS#8, PKCS#1 or SEC1".to_owned());
        Outline::of(&normalised).ok_or_else(damaged)?.read(&normalised).map(Self)
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

    /// Whether it is the key of this certificate, however the certificate encodes its public key.
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

/// The parts of a private key that tell its kind.
enum Outline<'a> {
    Pkcs8 {
        /// The object identifier of the algorithm in dotted form.
        algorithm: String,
        /// What its parameters are, of EC the curve.
        parameters: Parameters,
        key: &'a [u8],
        /// The public key of version 2.
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
    /// The object identifier of the curve in dotted form.
    Curve(String),
    /// The numbers that make a curve, or what is not for EC.
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
                // RFC 8017 appendix A.1.2; further primes are in a sequence. DSA has p, q, g, y and x.
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

    /// Reads the key whose outline this is.
    fn read(self, der: &[u8]) -> Result<Kind, KeyError> {
        match self {
            Self::Pkcs1 { modulus, primes } => rsa(RsaKeyPair::from_der(der), modulus, primes),
            Self::Sec1 => ec(der, Parameters::Absent, der),
            Self::Dsa => Err(KeyError::Unsupported("DSA".to_owned())),
            Self::Pkcs8 { algorithm, key, .. } if algorithm == RSA => match Outline::of(key) {
                // The algorithm's parameters are not looked at: they should be NULL and are often absent.
                Some(Outline::Pkcs1 { modulus, primes }) => rsa(RsaKeyPair::from_der(key), modulus, primes),
                _ => Err(KeyError::Damaged("the RSA key in its PKCS#8 does not decode".to_owned())),
            },
            Self::Pkcs8 { algorithm, parameters, key, public_key } if algorithm == EC => {
                let kind = ec(der, parameters, key)?;
                match (&kind, public_key) {
                    (Kind::Ec(pair, _), Some(point))
                        if point.first() == Some(&UNCOMPRESSED) && point != pair.public_key().as_ref() =>
                    {
                        Err(KeyError::Rejected("the public key beside it is another's".to_owned()))
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
        let zeros = modulus.iter().take_while(|&&octet| octet == 0).count();
        let modulus = &modulus[zeros..];
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
        if !(2048..=8192).contains(&bits) {
            KeyError::Unsupported(format!("RSA of {bits} bits"))
        } else if primes > 2 {
            KeyError::Unsupported(format!("RSA of {primes} primes"))
        } else {
            KeyError::Rejected("the numbers of the RSA key do not belong together".to_owned())
        }
    })
}

/// Reads an EC key from its PKCS#8 or SEC1. `sec1` is the SEC1 in it, `parameters` those around it.
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
    // Some programs drop the leading zeros of the scalar, or keep one too many (RFC 5915 section 3).
    let zeros = scalar.iter().take_while(|&&octet| octet == 0).count();
    let scalar = &scalar[zeros..];
    let padding = [0; 66].get(..length - scalar.len().min(length)).unwrap_or_default().to_vec();
    let scalar = Zeroizing::new(der_frame(OCTET_STRING, &[&padding, scalar]));
    let parameters = der_frame(CONTEXT_0, &[parameters]);
    let point = point.map(|point| der_frame(CONTEXT_1, &[point])).unwrap_or_default();
    let plain = Zeroizing::new(der_sequence(&[&[INTEGER, 1, 1], &scalar, &parameters, &point]));
    read(&plain).ok_or_else(|| KeyError::Rejected("the numbers of the EC key do not belong together".to_owned()))
}

/// The tag `[1]` of a constructed element.
const CONTEXT_1: u8 = 0xa1;

fn damaged_ec() -> KeyError {
    KeyError::Damaged("the EC key in it does not decode".to_owned())
}

/// Names the algorithms of keys that are not read.
fn algorithm_name(oid: &str) -> String {
    match oid {
        "1.3.101.110" => "X25519",
        "1.3.101.111" => "X448",
        "1.3.101.112" => "Ed25519",
        "1.3.101.113" => "Ed448",
        "1.2.840.10040.4.1" => "DSA",
        "1.2.840.10046.2.1" | "1.2.840.113549.1.3.1" => "Diffie-Hellman",
        "1.2.840.113549.1.1.7" => "RSAES-OAEP",
        "1.2.840.113549.1.1.10" => "RSASSA-PSS",
        "2.16.840.1.101.3.4.3.17" => "ML-DSA-44",
        "2.16.840.1.101.3.4.3.18" => "ML-DSA-65",
        "2.16.840.1.101.3.4.3.19" => "ML-DSA-87",
        other => other,
    }
    .to_owned()
}

/// Names the curves of keys that are not read.
fn curve_name(oid: &str) -> &str {
    match oid {
        "1.2.840.10045.3.1.1" => "P-192",
        "1.3.132.0.33" => "P-224",
        "1.3.132.0.10" => "secp256k1",
        "1.3.36.3.3.2.8.1.1.1" => "brainpoolP160r1",
        "1.3.36.3.3.2.8.1.1.3" => "brainpoolP192r1",
        "1.3.36.3.3.2.8.1.1.5" => "brainpoolP224r1",
        "1.3.36.3.3.2.8.1.1.7" => "brainpoolP256r1",
        "1.3.36.3.3.2.8.1.1.8" => "brainpoolP256t1",
        "1.3.36.3.3.2.8.1.1.9" => "brainpoolP320r1",
        "1.3.36.3.3.2.8.1.1.11" => "brainpoolP384r1",
        "1.3.36.3.3.2.8.1.1.13" => "brainpoolP512r1",
        "1.2.156.10197.1.301" => "SM2",
        other => other,
    }
}

/// Why there is no private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no private key in what was given; says what there is.
    #[error("there is no private key in it: {0}")]
    NoKey(String),
    /// A PFX file where none is read.
    #[error("it is a PFX (PKCS#12) file, which takes a password to read")]
    Pfx,
    /// The key is encrypted and no password was given.
    #[error("the private key is encrypted: give its password")]
    PasswordNeeded,
    /// The password does not open the key.
    #[error("the password does not open the private key")]
    WrongPassword,
    /// The key is encrypted with an algorithm, by name, that is not supported.
    #[error("the private key is encrypted with {0}, which is not supported")]
    Encryption(String),
    /// The key is in the format of OpenSSH.
    #[error("the private key is in the format of OpenSSH, which is not supported")]
    OpenSsh,
    /// A kind of key that the services would not accept.
    #[error("keys of the kind {0} are not supported: RSA of 2048 to 8192 bits, and EC on P-256, P-384 or P-521 are")]
    Unsupported(String),
    /// A key that does not decode.
    #[error("the private key is damaged: {0}")]
    Damaged(String),
    /// A key that fails its own checks.
    #[error("the private key is not usable: {0}")]
    Rejected(String),
    /// The cryptographic library failed.
    #[error("the cryptographic library failed to make or encode a key")]
    Generation,
}
