//! Certificates as they come: PEM, DER, base64 of either, PFX, recognised and read into one [`Certificate`].

use std::{borrow::Cow, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate,
    error::X509Error,
    extensions::ParsedExtension,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
        OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519, OidRegistry,
    },
    prelude::FromDer,
    public_key::PublicKey,
    x509::{SubjectPublicKeyInfo, X509Name, X509Version},
};
use zeroize::Zeroizing;

use super::Thumbprint;

/// An X.509 certificate: its DER and what was read from it.
///
/// Two certificates are equal when their DER is.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    version: u32,
    subject: Name,
    issuer: Name,
    serial_number: Vec<u8>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    public_key: Vec<u8>,
    public_key_algorithm: PublicKeyAlgorithm,
    signature_algorithm: String,
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
    allows_client_authentication: bool,
    subject_key_identifier: Option<Vec<u8>>,
    authority_key_identifier: Option<Vec<u8>>,
    unknown_critical_extension: Option<String>,
}

/// A distinguished name (RFC 5280 section 4.1.2.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    der: Vec<u8>,
    text: String,
    common_name: Option<String>,
}

/// The basic constraints extension (RFC 5280 section 4.2.1.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasicConstraints {
    /// Whether the subject is an authority.
    pub authority: bool,
    /// How many further authorities may follow it in a chain; any number when absent.
    pub path_length: Option<u32>,
}

/// The part of the key usage extension (RFC 5280 section 4.2.1.3) that enrollment depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUsage {
    /// `keyCertSign`: the key may sign certificates.
    pub certificate_signing: bool,
    /// `digitalSignature`: the key may sign a TLS handshake.
    pub digital_signature: bool,
}

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

impl Certificate {
    /// Reads the first certificate of a file in any [encoding](Self::read_all).
    ///
    /// # Errors
    /// [`ReadError`] when there is none, saying what was found instead.
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        Self::read_all(bytes).map(|mut all| all.swap_remove(0))
    }

    /// Reads every certificate of a file: PEM, DER, or base64 of either.
    ///
    /// PEM is read for what it is whatever surrounds it: other text before, between and after, CRLF, a byte-order mark,
    /// UTF-16 as Windows shells write it. The order of the file is kept, and there is at least one certificate.
    ///
    /// # Errors
    /// [`ReadError`], which says what was found. A PFX file is [`ReadError::Pfx`]: it needs a password and is read by
    /// `pfx::read` of the feature `pfx`.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>, ReadError> {
        let bytes = plain_text(bytes);
        if contains(&bytes, PEM_BEGIN) {
            return Self::all_from_pem(&bytes);
        }
        if bytes.first() == Some(&DER_SEQUENCE) {
            return Self::one_from_der(&bytes);
        }
        let compact: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        if compact.is_empty() {
            return Err(ReadError::Empty);
        }
        let decoded = BASE64_STANDARD.decode(&compact).map_err(|_| ReadError::Unrecognised)?;
        let decoded = plain_text(&decoded);
        if contains(&decoded, PEM_BEGIN) {
            Self::all_from_pem(&decoded)
        } else if decoded.first() == Some(&DER_SEQUENCE) {
            Self::one_from_der(&decoded)
        } else {
            // Many a word is base64 by chance.
            Err(ReadError::Unrecognised)
        }
    }

    /// Reads a certificate from exactly its DER.
    ///
    /// # Errors
    /// [`ReadError::Certificate`] when the bytes are not one certificate and nothing else.
    pub fn from_der(der: &[u8]) -> Result<Self, ReadError> {
        let (rest, parsed) =
            X509Certificate::from_der(der).map_err(|error| ReadError::Certificate(error.to_string()))?;
        if !rest.is_empty() {
            return Err(ReadError::Certificate(format!("{} bytes follow its end", rest.len())));
        }
        Self::from_parsed(der, &parsed).map_err(|error| ReadError::Certificate(error.to_string()))
    }

    fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, ReadError> {
        let mut found = Vec::new();
        let certificates = pem_items(text)?
            .iter()
            .filter_map(|item| match item {
                rustls_pemfile::Item::X509Certificate(der) => Some(Self::from_der(der)),
                other => {
                    found.push(pem_label(other));
                    None
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        if certificates.is_empty() { Err(ReadError::NoCertificate(found.join(", "))) } else { Ok(certificates) }
    }

    fn one_from_der(bytes: &[u8]) -> Result<Vec<Self>, ReadError> {
        if is_pfx(bytes) {
            return Err(ReadError::Pfx);
        }
        // DER ends by itself. A line end or a word after it is what editors and scripts append; other bytes are damage.
        let (rest, _) = X509Certificate::from_der(bytes).map_err(|error| ReadError::Certificate(error.to_string()))?;
        let end = if rest.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
            bytes.len() - rest.len()
        } else {
            bytes.len()
        };
        Ok(vec![Self::from_der(&bytes[..end])?])
    }

    fn from_parsed(der: &[u8], parsed: &X509Certificate<'_>) -> Result<Self, X509Error> {
        let mut certificate = Self {
            der: der.to_vec(),
            version: match parsed.version() {
                X509Version(version) => version + 1,
            },
            subject: Name::from_parsed(parsed.subject()),
            issuer: Name::from_parsed(parsed.issuer()),
            serial_number: parsed.raw_serial().to_vec(),
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            public_key: parsed.public_key().raw.to_vec(),
            public_key_algorithm: PublicKeyAlgorithm::of(parsed.public_key()),
            signature_algorithm: oid_name(&parsed.signature_algorithm.algorithm),
            basic_constraints: None,
            key_usage: None,
            allows_client_authentication: true,
            subject_key_identifier: None,
            authority_key_identifier: None,
            unknown_critical_extension: None,
        };
        // Also refuses an extension that occurs twice (RFC 5280 section 4.2).
        parsed.extensions_map()?;
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) => {
                    certificate.basic_constraints = Some(BasicConstraints {
                        authority: constraints.ca,
                        path_length: constraints.path_len_constraint,
                    });
                }
                ParsedExtension::KeyUsage(usage) => {
                    certificate.key_usage = Some(KeyUsage {
                        certificate_signing: usage.key_cert_sign(),
                        digital_signature: usage.digital_signature(),
                    });
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    certificate.allows_client_authentication = usage.client_auth || usage.any;
                }
                ParsedExtension::SubjectKeyIdentifier(id) => certificate.subject_key_identifier = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    certificate.authority_key_identifier = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                ParsedExtension::ParseError { error } => return Err(error.clone().into()),
                ParsedExtension::UnsupportedExtension { .. } | ParsedExtension::Unparsed if extension.critical => {
                    certificate.unknown_critical_extension = Some(oid_name(&extension.oid));
                }
                _ => {}
            }
        }
        Ok(certificate)
    }

    /// The certificate in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate in PEM, ending in a line end (RFC 7468 section 5).
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem_block("CERTIFICATE", &self.der)
    }

    /// Base64 of the whole PEM, header lines included, on one line: what the service's `certificate` fields carry.
    #[must_use]
    pub fn to_base64_pem(&self) -> String {
        BASE64_STANDARD.encode(self.to_pem())
    }

    /// The SHA-1 thumbprint, which the services print and compare.
    #[must_use]
    pub fn sha1_thumbprint(&self) -> Thumbprint {
        Thumbprint::sha1(&self.der)
    }

    /// The SHA-256 thumbprint.
    #[must_use]
    pub fn sha256_thumbprint(&self) -> Thumbprint {
        Thumbprint::sha256(&self.der)
    }

    /// The version: 3, or 1 for certificates without extensions.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The subject.
    #[must_use]
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// The issuer.
    #[must_use]
    pub fn issuer(&self) -> &Name {
        &self.issuer
    }

    /// Whether subject and issuer are the same name.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject.matches(&self.issuer)
    }

    /// The serial number in upper-case hexadecimal, an even number of digits.
    #[must_use]
    pub fn serial_number(&self) -> String {
        hexadecimal(&self.serial_number)
    }

    /// The first moment at which the certificate is valid.
    #[must_use]
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// The last moment at which the certificate is valid.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The public key, as the DER of its `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// What kind of key it is.
    #[must_use]
    pub fn public_key_algorithm(&self) -> &PublicKeyAlgorithm {
        &self.public_key_algorithm
    }

    /// The algorithm the issuer signed with, by its registered name.
    #[must_use]
    pub fn signature_algorithm(&self) -> &str {
        &self.signature_algorithm
    }

    /// The basic constraints, where the certificate has them.
    #[must_use]
    pub fn basic_constraints(&self) -> Option<BasicConstraints> {
        self.basic_constraints
    }

    /// The key usage, where the certificate limits it.
    #[must_use]
    pub fn key_usage(&self) -> Option<KeyUsage> {
        self.key_usage
    }

    /// Whether the extended key usage is absent, or names `clientAuth` or any usage.
    #[must_use]
    pub fn allows_client_authentication(&self) -> bool {
        self.allows_client_authentication
    }

    /// The subject key identifier, where the certificate has one.
    #[must_use]
    pub fn subject_key_identifier(&self) -> Option<&[u8]> {
        self.subject_key_identifier.as_deref()
    }

    /// The key identifier of the issuer, where the certificate names one.
    #[must_use]
    pub fn authority_key_identifier(&self) -> Option<&[u8]> {
        self.authority_key_identifier.as_deref()
    }

    /// A critical extension that is not known here, by name or object identifier. A chain over such a certificate must
    /// be refused (RFC 5280 section 4.2).
    #[must_use]
    pub fn unknown_critical_extension(&self) -> Option<&str> {
        self.unknown_critical_extension.as_deref()
    }

    /// Checks that this certificate's signature was made by the issuer's key. Looks at nothing else.
    ///
    /// # Errors
    /// [`SignatureError::Wrong`] when another key made it, [`SignatureError::Unsupported`] when the algorithm is not one
    /// of RSA, RSA-PSS or ECDSA with SHA-2.
    pub fn verify_signature(&self, issuer: &Self) -> Result<(), SignatureError> {
        let unreadable = |_| SignatureError::Unsupported(self.signature_algorithm.clone());
        let (_, parsed) = X509Certificate::from_der(&self.der).map_err(unreadable)?;
        let (_, key) = SubjectPublicKeyInfo::from_der(&issuer.public_key).map_err(unreadable)?;
        let outcome = match p521_verification(&issuer.public_key_algorithm, &parsed.signature_algorithm.algorithm) {
            Some(algorithm) => aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, &key.subject_public_key.data)
                .verify(parsed.tbs_certificate.as_ref(), &parsed.signature_value.data)
                .map_err(|_| X509Error::SignatureVerificationError),
            None => parsed.verify_signature(Some(&key)),
        };
        outcome.map_err(|error| match error {
            X509Error::SignatureUnsupportedAlgorithm => SignatureError::Unsupported(self.signature_algorithm.clone()),
            _ => SignatureError::Wrong,
        })
    }
}

/// x509-parser leaves P-521 out; aws-lc-rs has it.
pub(super) fn p521_verification(
    key: &PublicKeyAlgorithm,
    algorithm: &x509_parser::oid_registry::Oid<'_>,
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

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject.text)
            .field("sha1_thumbprint", &self.sha1_thumbprint())
            .finish_non_exhaustive()
    }
}

impl Name {
    pub(super) fn from_parsed(name: &X509Name<'_>) -> Self {
        Self {
            der: name.as_raw().to_vec(),
            text: name.to_string(),
            common_name: name.iter_common_name().last().and_then(|cn| cn.as_str().ok()).map(str::to_owned),
        }
    }

    /// The name as DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The last common name in it, where there is one.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// Whether it is the same name, disregarding how its text is encoded, its case and repeated white space (RFC 5280
    /// section 7.1).
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        let folded = |text: &str| text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
        self.der == other.der || folded(&self.text) == folded(&other.text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
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

pub(super) fn oid_name(oid: &x509_parser::oid_registry::Oid<'_>) -> String {
    let registry = OidRegistry::default().with_crypto().with_x509();
    registry.get(oid).map_or_else(|| oid.to_id_string(), |entry| entry.sn().to_owned())
}

/// Why no certificate could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// PEM without a certificate in it; holds the labels of what there was.
    #[error("it is PEM without a certificate{}", if .0.is_empty() { String::new() } else { format!(": it holds {}", .0) })]
    NoCertificate(String),
    /// PEM that is damaged.
    #[error("its PEM is damaged: {0}")]
    Pem(String),
    /// Neither PEM, DER, base64 nor PFX.
    #[error("it is neither PEM, DER, base64 of either, nor PFX")]
    Unrecognised,
    /// A certificate that cannot be decoded.
    #[error("it does not decode as an X.509 certificate: {0}")]
    Certificate(String),
    /// A PFX file where none is read.
    #[error("it is a PFX (PKCS#12) file, which takes a password to read")]
    Pfx,
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

pub(super) const PEM_BEGIN: &[u8] = b"-----BEGIN ";
const DER_SEQUENCE: u8 = 0x30;

/// Whether the bytes begin as a PFX does: a sequence whose first member is the version, 3 (RFC 7292 section 4). A
/// certificate's first member is a sequence.
pub(super) fn is_pfx(bytes: &[u8]) -> bool {
    let header = match bytes.get(1) {
        Some(length) if length & 0x80 == 0 || *length == 0x80 => 2,
        Some(length) => 2 + usize::from(length & 0x7f),
        None => return false,
    };
    bytes[0] == DER_SEQUENCE && bytes.get(header..header + 3) == Some(&[0x02, 0x01, 0x03])
}

/// The sections of a PEM text. The one place that knows which reader is in use.
pub(super) fn pem_items(text: &[u8]) -> Result<Vec<rustls_pemfile::Item>, ReadError> {
    let text = part_pem_lines(text);
    rustls_pemfile::read_all(&mut text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| ReadError::Pem(error.to_string()))
}

/// The width of PEM lines (RFC 7468 section 2).
const COLUMNS: usize = 64;

/// One PEM section.
pub(super) fn pem_block(label: &str, der: &[u8]) -> String {
    let mut pem = Vec::with_capacity(der.len() / 48 * 65 + 128);
    push_pem(&mut pem, label, der);
    // Labels and base64 are ASCII.
    String::from_utf8(pem).unwrap_or_default()
}

/// Appends one PEM section.
pub(super) fn push_pem(pem: &mut Vec<u8>, label: &str, der: &[u8]) {
    for part in ["-----BEGIN ", label, "-----\n"] {
        pem.extend_from_slice(part.as_bytes());
    }
    // All of it is encoded at once, as far behind its place as there will be line ends, and the lines moved forward.
    let (length, start) = (der.len().div_ceil(3) * 4, pem.len());
    let lines = length.div_ceil(COLUMNS);
    pem.resize(start + lines + length, 0);
    // The buffer has the size that is needed.
    let _ = BASE64_STANDARD.encode_slice(der, &mut pem[start + lines..]);
    for line in 0..lines {
        let from = start + lines + line * COLUMNS;
        let to = start + line * (COLUMNS + 1);
        let width = COLUMNS.min(pem.len() - from);
        pem.copy_within(from..from + width, to);
        pem[to + width] = b'\n';
    }
    for part in ["-----END ", label, "-----\n"] {
        pem.extend_from_slice(part.as_bytes());
    }
}

fn pem_label(item: &rustls_pemfile::Item) -> &'static str {
    use rustls_pemfile::Item;
    match item {
        Item::X509Certificate(_) => "a certificate",
        Item::Pkcs1Key(_) | Item::Pkcs8Key(_) | Item::Sec1Key(_) => "a private key",
        Item::SubjectPublicKeyInfo(_) => "a public key",
        Item::Csr(_) => "a certificate request",
        Item::Crl(_) => "a revocation list",
        _ => "something else",
    }
}

/// Puts every boundary on a line of its own, without white space around it: scripts glue words to boundaries, editors
/// indent them.
///
/// The text may hold a private key, so it is wiped afterwards; the capacity keeps it from moving while it grows.
pub(super) fn part_pem_lines(text: &[u8]) -> Zeroizing<String> {
    let text = String::from_utf8_lossy(text);
    let mut parted = Zeroizing::new(String::with_capacity(text.len() + text.len() / 4 + 64));
    for line in text.split(['\n', '\r']) {
        let mut line = line.trim();
        while let Some(start) = line.find("-----BEGIN ").or_else(|| line.find("-----END ")) {
            let end = line[start + 5..].find("-----").map_or(line.len(), |end| start + 5 + end + 5);
            parted.extend([&line[..start], "\n", &line[start..end], "\n"]);
            line = &line[end..];
        }
        parted.extend([line, "\n"]);
    }
    parted
}

/// The text without a byte-order mark and in UTF-8, as far as it is text; the same bytes otherwise.
pub(super) fn plain_text(bytes: &[u8]) -> Cow<'_, [u8]> {
    let from_utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = rest.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>().into_bytes()
    };
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => Cow::Borrowed(rest),
        [0xff, 0xfe, rest @ ..] => Cow::Owned(from_utf16(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(from_utf16(rest, u16::from_be_bytes)),
        _ => Cow::Borrowed(bytes),
    }
}

pub(super) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len() * 2);
    push_hexadecimal(&mut text, bytes);
    // Digits are ASCII.
    String::from_utf8(text).unwrap_or_default()
}

/// Appends the bytes in upper-case hexadecimal.
pub(super) fn push_hexadecimal(text: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let start = text.len();
    text.resize(start + bytes.len() * 2, 0);
    for (pair, byte) in text[start..].chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[byte >> 4, byte & 0xf].map(|digit| DIGITS[usize::from(digit)]));
    }
}
