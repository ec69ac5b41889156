//! X.509 certificates.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::Range,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use time::{Date, Month, PrimitiveDateTime, Time, UtcOffset};
use x509_parser::{prelude::FromDer, x509::SubjectPublicKeyInfo};

#[cfg(feature = "verify")]
use super::SignatureError;
use super::{
    AuthorityKeyIdentifier, BasicConstraints, Extension, GeneralName, KeyUsage, MalformedExtension, Name,
    NameConstraints, PublicKeyAlgorithm, ReadError, SignatureAlgorithm, Thumbprint, Timestamp, Validity,
    der::{DerReader, Element},
    extensions::{Extensions, extended_key_usage_name},
    hex::hexadecimal,
    pem::pem_block,
};

/// An X.509 certificate.
///
/// Certificates are equal if their DER is equal. [`Display`](fmt::Display) writes the subject, or the serial number of a
/// certificate without one.
///
/// ```
/// use iot_enroll::certificate::Certificate;
///
/// # let bytes = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/authorities/ec-sec1_cert.pem"));
/// let certificate = Certificate::read(bytes)?;
/// assert_eq!(certificate.to_string(), "CN=EC SEC1");
/// println!("{} expires on {}", certificate.sha1_thumbprint(), certificate.not_after());
/// # Ok::<(), iot_enroll::certificate::ReadError>(())
/// ```
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    /// Where the signed part is in the DER.
    #[cfg_attr(not(feature = "verify"), expect(dead_code, reason = "signatures are checked with `verify`"))]
    signed: Range<usize>,
    /// Where the signature is in the DER. `None` if it is not a whole number of octets.
    #[cfg_attr(not(feature = "verify"), expect(dead_code, reason = "signatures are checked with `verify`"))]
    signature: Option<Range<usize>>,
    version: u32,
    subject: Name,
    issuer: Name,
    serial_number: Vec<u8>,
    validity: Validity,
    public_key: Vec<u8>,
    public_key_algorithm: PublicKeyAlgorithm,
    signature_algorithm: SignatureAlgorithm,
    /// The algorithm in the signed part, if it differs from `signature_algorithm`.
    #[cfg_attr(not(feature = "verify"), expect(dead_code, reason = "signatures are checked with `verify`"))]
    inner_algorithm: Option<SignatureAlgorithm>,
    extensions: Extensions,
}

impl Certificate {
    /// Reads a certificate from exactly its DER.
    ///
    /// Each extension is read separately: a malformed one is [recorded](Self::malformed_extensions), and the others are
    /// read.
    ///
    /// # Errors
    /// Returns [`ReadError::Certificate`] if the bytes are not exactly one certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, ReadError> {
        let malformed = |part: &str| ReadError::Certificate(format!("{part} is malformed"));
        let frame = || malformed("its structure");
        let mut outer = DerReader::new(der);
        let certificate = outer.tagged(0x30).ok_or_else(frame)?;
        if !outer.is_empty() {
            return Err(ReadError::Certificate(format!("{} bytes follow its end", outer.rest().len())));
        }
        let mut outer = certificate.elements();
        let signed = outer.tagged(0x30).ok_or_else(frame)?;
        let algorithm = outer.tagged(0x30).ok_or_else(frame)?;
        let signature = outer.tagged(0x03).filter(|_| outer.is_empty()).ok_or_else(frame)?;
        // A bit string begins with the number of unused bits, which is zero in signatures.
        let signature = signature.content.strip_prefix(&[0]);

        let mut parts = signed.elements();
        let version = match parts.optional(0xa0).ok_or_else(frame)? {
            Some(tagged) => read_version(tagged.content).ok_or_else(|| malformed("its version"))?,
            None => 1,
        };
        let serial_number = parts.tagged(0x02).ok_or_else(|| malformed("its serial number"))?.content;
        let inner_algorithm = parts.tagged(0x30).ok_or_else(frame)?;
        let mut name = |which: &str| {
            parts.tagged(0x30).and_then(|name| Name::from_der(name.whole)).ok_or_else(|| malformed(which))
        };
        let issuer = name("its issuer")?;
        let validity = parts.tagged(0x30).and_then(read_validity).ok_or_else(|| malformed("its validity"))?;
        let subject = parts.tagged(0x30).and_then(|name| Name::from_der(name.whole));
        let subject = subject.ok_or_else(|| malformed("its subject"))?;
        let public_key = parts.tagged(0x30).ok_or_else(|| malformed("its public key"))?.whole;
        let (_, key_info) = SubjectPublicKeyInfo::from_der(public_key).map_err(|_| malformed("its public key"))?;
        // The unique identifiers of issuer and subject, which are not used. By definition they are primitive.
        for tag in [0x81, 0xa1, 0x82, 0xa2] {
            parts.optional(tag).ok_or_else(frame)?;
        }
        let extensions = parts.optional(0xa3).ok_or_else(frame)?;
        if !parts.is_empty() {
            return Err(frame());
        }
        let read_algorithm = |algorithm: Element<'_>| {
            SignatureAlgorithm::from_der(algorithm.whole).ok_or_else(|| malformed("its signature algorithm"))
        };
        let range = |part: &[u8]| {
            let start = part.as_ptr() as usize - der.as_ptr() as usize;
            start..start + part.len()
        };
        Ok(Self {
            signed: range(signed.whole),
            signature: signature.map(range),
            version,
            subject,
            issuer,
            serial_number: serial_number.to_vec(),
            validity,
            public_key: public_key.to_vec(),
            public_key_algorithm: PublicKeyAlgorithm::of(&key_info),
            signature_algorithm: read_algorithm(algorithm)?,
            inner_algorithm: if algorithm.whole == inner_algorithm.whole {
                None
            } else {
                Some(read_algorithm(inner_algorithm)?)
            },
            extensions: extensions.map(|tagged| Extensions::read(tagged.content)).unwrap_or_default(),
            der: der.to_vec(),
        })
    }

    /// Returns the certificate in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the certificate in PEM, with a line end after the last line (RFC 7468 section 5).
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem_block("CERTIFICATE", &self.der)
    }

    /// Returns the base64 of the whole PEM, including its header lines, on one line, as the `certificate` fields of the
    /// services have it.
    #[must_use]
    pub fn to_base64_pem(&self) -> String {
        BASE64_STANDARD.encode(self.to_pem())
    }

    /// Returns the SHA-1 thumbprint, which the services print and compare.
    #[must_use]
    pub fn sha1_thumbprint(&self) -> Thumbprint {
        Thumbprint::sha1(&self.der)
    }

    /// Returns the SHA-256 thumbprint.
    #[must_use]
    pub fn sha256_thumbprint(&self) -> Thumbprint {
        Thumbprint::sha256(&self.der)
    }

    /// Returns the version: 3, or 1 for certificates without extensions.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns the subject.
    #[must_use]
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// Returns the issuer.
    #[must_use]
    pub fn issuer(&self) -> &Name {
        &self.issuer
    }

    /// Returns whether subject and issuer are the same name.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject.matches(&self.issuer)
    }

    /// Returns whether the certificate is self-issued and signed by its own key, even a key that is too short to be trusted.
    #[cfg(feature = "verify")]
    pub(crate) fn is_self_signed(&self) -> bool {
        self.is_self_issued() && matches!(self.verify_signature(self), Ok(()) | Err(SignatureError::KeyTooShort(_)))
    }

    /// Returns whether the authority key identifier matches an issuer. Parts that either of them lacks are not compared
    /// (RFC 5280 section 4.2.1.1).
    #[cfg(feature = "verify")]
    pub(super) fn names_key_of(&self, issuer: &Self) -> bool {
        let Some(named) = &self.extensions.authority_key_identifier else { return true };
        let same_key = match (&named.key_identifier, issuer.subject_key_identifier()) {
            (Some(named), Some(identifier)) => named == identifier,
            _ => true,
        };
        let same_serial = named.serial_number.as_ref().is_none_or(|serial| *serial == issuer.serial_number);
        let mut directory_names = named.issuer.iter().flatten().filter_map(|name| match name {
            GeneralName::Directory(name) => Some(name),
            _ => None,
        });
        // As in OpenSSL, only the first directory name is compared.
        let same_issuer = directory_names.next().is_none_or(|name| name.matches(issuer.issuer()));
        same_key && same_serial && same_issuer
    }

    /// Returns the serial number in upper-case hexadecimal, with an even number of digits.
    #[must_use]
    pub fn serial_number(&self) -> String {
        hexadecimal(&self.serial_number)
    }

    /// Returns the validity period.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Returns the first moment at which the certificate is valid.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.validity.not_before
    }

    /// Returns the last moment at which the certificate is valid.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.validity.not_after
    }

    /// Returns whether the certificate has expired by the clock of the system.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.is_expired_at(Timestamp::now())
    }

    /// Returns whether the certificate has expired at that time. A certificate that is not valid yet has not expired: use
    /// [`Validity::contains`] to check both ends.
    #[must_use]
    pub fn is_expired_at(&self, time: Timestamp) -> bool {
        time > self.validity.not_after
    }

    /// Returns the public key as the DER of its `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Returns the kind of the public key.
    #[must_use]
    pub fn public_key_algorithm(&self) -> &PublicKeyAlgorithm {
        &self.public_key_algorithm
    }

    /// Returns the algorithm of the signature.
    #[must_use]
    pub fn signature_algorithm(&self) -> &SignatureAlgorithm {
        &self.signature_algorithm
    }

    /// Returns all extensions in the order of the certificate, except those whose structure is malformed.
    #[must_use]
    pub fn extensions(&self) -> &[Extension] {
        &self.extensions.all
    }

    /// Returns the extensions that are malformed or occur more than once. No chain with such a certificate is valid.
    #[must_use]
    pub fn malformed_extensions(&self) -> &[MalformedExtension] {
        &self.extensions.malformed
    }

    /// Returns the basic constraints, if the certificate has any.
    #[must_use]
    pub fn basic_constraints(&self) -> Option<BasicConstraints> {
        self.extensions.basic_constraints
    }

    /// Returns the key usage, if the certificate restricts it.
    #[must_use]
    pub fn key_usage(&self) -> Option<KeyUsage> {
        self.extensions.key_usage
    }

    /// Returns the extended key usage (EKU) as dotted object identifiers, if the certificate restricts it.
    #[must_use]
    pub fn extended_key_usage(&self) -> Option<&[String]> {
        self.extensions.extended_key_usage.as_deref()
    }

    /// Returns the extended key usage (EKU) by name, such as `clientAuth`. Unknown usages are object identifiers.
    #[must_use]
    pub fn extended_key_usage_names(&self) -> Option<Vec<&str>> {
        Some(self.extended_key_usage()?.iter().map(|oid| extended_key_usage_name(oid)).collect())
    }

    /// Returns whether the extended key usage is absent, or includes `clientAuth` or `anyExtendedKeyUsage`.
    #[must_use]
    pub fn allows_client_authentication(&self) -> bool {
        self.allows_usage(CLIENT_AUTHENTICATION)
    }

    /// Returns whether the extended key usage is absent, or includes `serverAuth` or `anyExtendedKeyUsage`.
    #[must_use]
    pub fn allows_server_authentication(&self) -> bool {
        self.allows_usage(SERVER_AUTHENTICATION)
    }

    fn allows_usage(&self, wanted: &str) -> bool {
        self.extended_key_usage()
            .is_none_or(|usages| usages.iter().any(|usage| [wanted, ANY_EXTENDED_KEY_USAGE].contains(&usage.as_str())))
    }

    /// Returns the subject alternative names (SAN), if the certificate has the extension.
    #[must_use]
    pub fn subject_alternative_names(&self) -> Option<&[GeneralName]> {
        self.extensions.subject_alternative_names.as_deref()
    }

    /// Returns the name constraints, if the certificate has any.
    #[must_use]
    pub fn name_constraints(&self) -> Option<&NameConstraints> {
        self.extensions.name_constraints.as_ref()
    }

    /// Returns the subject key identifier, if the certificate has one.
    #[must_use]
    pub fn subject_key_identifier(&self) -> Option<&[u8]> {
        self.extensions.subject_key_identifier.as_deref()
    }

    /// Returns the key identifier of the issuer, if the certificate has one.
    #[must_use]
    pub fn authority_key_identifier(&self) -> Option<&[u8]> {
        self.extensions.authority_key_identifier.as_ref()?.key_identifier.as_deref()
    }

    /// Returns the whole authority key identifier extension, if the certificate has it.
    #[must_use]
    pub fn authority_key_identifier_extension(&self) -> Option<&AuthorityKeyIdentifier> {
        self.extensions.authority_key_identifier.as_ref()
    }

    /// Returns whether the certificate has any extensions, including malformed ones.
    #[cfg(feature = "verify")]
    pub(super) fn has_extensions(&self) -> bool {
        !self.extensions.all.is_empty() || !self.extensions.malformed.is_empty()
    }

    /// Returns a critical extension that path validation does not process, by name or object identifier. No chain with such
    /// a certificate is valid (RFC 5280 section 4.2).
    #[must_use]
    pub fn unknown_critical_extension(&self) -> Option<&str> {
        self.extensions.unprocessed_critical.first().map(String::as_str)
    }

    /// Verifies that the key of `issuer` made the signature of this certificate, and nothing else.
    ///
    /// A signature with a [weak](SignatureAlgorithm::is_weak) hash is valid here, but not in a [chain](super::chain).
    ///
    /// # Errors
    /// Returns [`SignatureError::Wrong`] if another key made the signature, and another error if the algorithm or the key
    /// is not supported. Supported are RSA, RSA-PSS, ECDSA and Ed25519.
    #[cfg(feature = "verify")]
    pub fn verify_signature(&self, issuer: &Self) -> Result<(), SignatureError> {
        if let Some(inner) = &self.inner_algorithm {
            return Err(SignatureError::AlgorithmMismatch {
                outer: self.signature_algorithm.to_string(),
                inner: inner.to_string(),
            });
        }
        let signature = self.signature.clone().ok_or(SignatureError::Wrong)?;
        self.signature_algorithm.verify(&issuer.public_key, &self.der[self.signed.clone()], &self.der[signature])
    }
}

pub(super) const SERVER_AUTHENTICATION: &str = "1.3.6.1.5.5.7.3.1";
pub(super) const CLIENT_AUTHENTICATION: &str = "1.3.6.1.5.5.7.3.2";
const ANY_EXTENDED_KEY_USAGE: &str = "2.5.29.37.0";

fn read_version(der: &[u8]) -> Option<u32> {
    match Element::only_tagged(der, 0x02)?.content {
        [number] if number & 0x80 == 0 => Some(u32::from(*number) + 1),
        _ => None,
    }
}

fn read_validity(validity: Element<'_>) -> Option<Validity> {
    let mut times = validity.elements();
    let (not_before, not_after) = (read_time(times.next_element()?)?, read_time(times.next_element()?)?);
    times.is_empty().then_some(Validity { not_before, not_after })
}

/// Reads a time in the form of RFC 5280 section 4.1.2.5, and in forms that other tools write: without minutes or seconds, with
/// fractions of a second, and with an offset from UTC. Local time, which has no offset, does not denote one moment.
fn read_time(element: Element<'_>) -> Option<Timestamp> {
    let text = std::str::from_utf8(element.content).ok().filter(|text| text.is_ascii())?;
    let (year, rest) = match element.tag {
        // UTCTime covers 1950 to 2049.
        0x17 => {
            let (year, rest) = read_digits(text, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        0x18 => read_digits(text, 4)?,
        _ => return None,
    };
    let (month, rest) = read_digits(rest, 2)?;
    let (day, rest) = read_digits(rest, 2)?;
    let (hour, rest) = read_digits(rest, 2)?;
    let (minute, rest) = read_digits(rest, 2).unwrap_or((0, rest));
    let (second, rest) = read_digits(rest, 2).unwrap_or((0, rest));
    let rest = match rest.strip_prefix(['.', ',']).filter(|_| element.tag == 0x18) {
        Some(fraction) => {
            let rest = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
            if rest.len() == fraction.len() {
                return None;
            }
            rest
        }
        None => rest,
    };
    let offset = if rest == "Z" {
        UtcOffset::UTC
    } else {
        let sign = if rest.starts_with('-') { -1 } else { 1 };
        let (hours, rest) = read_digits(rest.strip_prefix(['+', '-'])?, 2)?;
        let (minutes, rest) = read_digits(rest, 2)?;
        // As OpenSSL has it: no offset is longer than half a day.
        if !rest.is_empty() || hours > 12 || minutes > 59 {
            return None;
        }
        UtcOffset::from_whole_seconds(sign * (hours * 3600 + minutes * 60)).ok()?
    };
    let small = |number: i32| u8::try_from(number).ok();
    let date = Date::from_calendar_date(year, Month::try_from(small(month)?).ok()?, small(day)?).ok()?;
    let time = Time::from_hms(small(hour)?, small(minute)?, small(second)?).ok()?;
    Timestamp::from_date_time(PrimitiveDateTime::new(date, time).assume_offset(offset))
}

fn read_digits(text: &str, count: usize) -> Option<(i32, &str)> {
    let digits = text.get(..count).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?;
    Some((digits.parse().ok()?, &text[count..]))
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

/// Serializes as base64 of the DER encoding.
#[cfg(feature = "serde")]
impl serde::Serialize for Certificate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(self.der()))
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Certificate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let der = BASE64_STANDARD.decode(&*text).map_err(|_| D::Error::custom("expected a certificate in base64"))?;
        Self::from_der(&der).map_err(D::Error::custom)
    }
}

/// One certificate is a list of one, for functions that take several certificates.
impl AsRef<[Certificate]> for Certificate {
    fn as_ref(&self) -> &[Certificate] {
        std::slice::from_ref(self)
    }
}

impl Hash for Certificate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.der.hash(state);
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subject.is_empty() {
            return write!(f, "the certificate with the serial number {}", self.serial_number());
        }
        fmt::Display::fmt(&self.subject, f)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject)
            .field("sha1_thumbprint", &self.sha1_thumbprint())
            .finish_non_exhaustive()
    }
}
