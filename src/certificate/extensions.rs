//! The extensions of certificates (RFC 5280 section 4.2).
//!
//! Each extension is read separately. A malformed or repeated extension does not make a certificate unreadable: it is
//! [recorded](super::Certificate::malformed_extensions), and no chain with the certificate is valid.

use std::{fmt, net::IpAddr};

use x509_parser::{
    extensions::{ParsedExtension, X509Extension},
    prelude::FromDer,
};

use super::{
    Name,
    der::{DerReader, Element},
    hex::hexadecimal,
    name::push_printable,
    oid::{dotted_oid, oid_content_name},
};

/// An extension of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extension {
    /// The object identifier in dotted form.
    pub oid: String,
    /// The registered name, or the object identifier if there is none.
    pub name: String,
    /// Whether readers that do not process the extension must refuse the certificate.
    pub critical: bool,
}

/// An extension that is malformed or occurs more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MalformedExtension {
    /// The object identifier in dotted form, empty if it cannot be read.
    pub oid: String,
    /// The registered name, or the object identifier if there is none.
    pub name: String,
    /// Whether the extension is marked critical.
    pub critical: bool,
    /// The reason, such as `it does not decode`.
    pub reason: String,
}

/// The basic constraints extension (RFC 5280 section 4.2.1.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasicConstraints {
    /// Whether the subject is a CA.
    pub authority: bool,
    /// How many further CA certificates may follow in a chain. `None` if there is no limit.
    pub path_length: Option<u32>,
}

/// The key usage extension (RFC 5280 section 4.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyUsage {
    /// `keyCertSign`: the key may sign certificates.
    pub certificate_signing: bool,
    /// `digitalSignature`: the key may sign a TLS handshake.
    pub digital_signature: bool,
    /// The first two octets of the bit string. The first bit is the highest.
    bits: u16,
}

/// The names of the bits of the key usage extension, starting with bit 0.
const KEY_USAGES: [&str; 9] = [
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
    "encipherOnly",
    "decipherOnly",
];

impl KeyUsage {
    /// Returns the names of the allowed usages in RFC 5280, such as `digitalSignature`, in the order of their bits.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        KEY_USAGES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.bits & (0x8000 >> bit) != 0)
            .map(|(_, name)| name)
    }
}

/// The names of extended key usages (RFC 5280 section 4.2.1.12, and others that OpenSSL names).
const EXTENDED_KEY_USAGES: [(&str, &str); 18] = [
    ("1.3.6.1.5.5.7.3.1", "serverAuth"),
    ("1.3.6.1.5.5.7.3.2", "clientAuth"),
    ("1.3.6.1.5.5.7.3.3", "codeSigning"),
    ("1.3.6.1.5.5.7.3.4", "emailProtection"),
    ("1.3.6.1.5.5.7.3.5", "ipsecEndSystem"),
    ("1.3.6.1.5.5.7.3.6", "ipsecTunnel"),
    ("1.3.6.1.5.5.7.3.7", "ipsecUser"),
    ("1.3.6.1.5.5.7.3.8", "timeStamping"),
    ("1.3.6.1.5.5.7.3.9", "OCSPSigning"),
    ("1.3.6.1.5.5.7.3.13", "eapOverPPP"),
    ("1.3.6.1.5.5.7.3.14", "eapOverLAN"),
    ("1.3.6.1.5.5.7.3.17", "ipsecIKE"),
    ("1.3.6.1.5.5.7.3.21", "secureShellClient"),
    ("1.3.6.1.5.2.3.4", "pkInitClientAuth"),
    ("1.3.6.1.5.2.3.5", "pkInitKDC"),
    ("1.3.6.1.4.1.311.20.2.2", "msSmartcardLogin"),
    ("1.3.6.1.4.1.311.10.3.4", "msEFS"),
    ("2.5.29.37.0", "anyExtendedKeyUsage"),
];

/// Returns the name of an extended key usage, such as `clientAuth`, or its object identifier if it is unknown.
pub(super) fn extended_key_usage_name(oid: &str) -> &str {
    EXTENDED_KEY_USAGES.iter().find(|(known, _)| *known == oid).map_or(oid, |(_, name)| name)
}

/// The authority key identifier extension (RFC 5280 section 4.2.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthorityKeyIdentifier {
    /// The subject key identifier of the issuer.
    pub key_identifier: Option<Vec<u8>>,
    /// The names of the issuer of the issuer's certificate.
    pub issuer: Option<Vec<GeneralName>>,
    /// The serial number of the issuer's certificate, as the content octets of an INTEGER.
    pub serial_number: Option<Vec<u8>>,
}

/// A general name (RFC 5280 section 4.2.1.6), used in subject alternative names and name constraints.
///
/// [`Display`](fmt::Display) writes it as OpenSSL does: `DNS:example.com`, `IP:192.0.2.1`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GeneralName {
    /// A name of another type, which its object identifier defines.
    Other {
        /// The object identifier of the type in dotted form.
        type_id: String,
        /// The value in DER.
        value: Vec<u8>,
    },
    /// A mail address.
    Email(String),
    /// A DNS name.
    Dns(String),
    /// An X.400 address, which is not decoded.
    X400Address,
    /// A distinguished name.
    Directory(Name),
    /// An EDI party name, which is not decoded.
    EdiParty,
    /// A URI.
    Uri(String),
    /// The octets of an IP address: 4 or 16. In name constraints they include a mask: 8 or 32.
    IpAddress(Vec<u8>),
    /// A registered object identifier in dotted form.
    RegisteredId(String),
}

/// The name constraints extension (RFC 5280 section 4.2.1.10).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NameConstraints {
    /// The subtrees that must contain the names of their form.
    pub permitted: Vec<GeneralSubtree>,
    /// The subtrees that must not contain any name.
    pub excluded: Vec<GeneralSubtree>,
}

/// A subtree of names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GeneralSubtree {
    /// The name at its root.
    pub base: GeneralName,
    /// Whether it has a minimum other than 0, or a maximum. RFC 5280 allows neither.
    pub has_distances: bool,
}

/// The extensions of one certificate.
#[derive(Debug, Clone, Default)]
pub(super) struct Extensions {
    pub(super) all: Vec<Extension>,
    pub(super) malformed: Vec<MalformedExtension>,
    pub(super) basic_constraints: Option<BasicConstraints>,
    pub(super) key_usage: Option<KeyUsage>,
    /// The usages in dotted form. Empty if the extension is malformed, so that it allows nothing.
    pub(super) extended_key_usage: Option<Vec<String>>,
    pub(super) subject_alternative_names: Option<Vec<GeneralName>>,
    pub(super) subject_key_identifier: Option<Vec<u8>>,
    pub(super) authority_key_identifier: Option<AuthorityKeyIdentifier>,
    pub(super) name_constraints: Option<NameConstraints>,
    /// The names of the critical extensions that path validation does not process.
    pub(super) unprocessed_critical: Vec<String>,
}

/// Content octets of `id-ce` (2.5.29).
const ID_CE: [u8; 2] = [0x55, 0x1d];

const MALFORMED: &str = "it does not decode";

impl Extensions {
    /// Reads a sequence of extensions, the content of the explicit tag `[3]`.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut extensions = Self::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        let Some(list) = Element::only_tagged(bytes, 0x30) else {
            extensions.malformed.push(MalformedExtension::unnamed("the list of extensions does not decode"));
            return extensions;
        };
        let mut list = list.elements();
        if list.is_empty() {
            extensions.malformed.push(MalformedExtension::unnamed("the list of extensions is empty"));
        }
        while !list.is_empty() {
            let Some(element) = list.next_element() else {
                extensions.malformed.push(MalformedExtension::unnamed("the list of extensions does not decode"));
                break;
            };
            match Raw::read(element) {
                Some(raw) => {
                    let first = !seen.contains(&raw.oid);
                    seen.push(raw.oid);
                    extensions.add(&raw, first);
                }
                None => extensions.malformed.push(MalformedExtension::of_element(element)),
            }
        }
        extensions
    }

    fn add(&mut self, raw: &Raw<'_>, first: bool) {
        let (oid, name) = (dotted_oid(raw.oid), oid_content_name(raw.oid));
        self.all.push(Extension { oid: oid.clone(), name: name.clone(), critical: raw.critical });
        // No standard defines which of two extensions counts. The first is reported, and chains are refused.
        let decoded = if first { self.decode(raw) } else { Err("it occurs more than once") };
        match decoded {
            Err(reason) => {
                let reason = reason.to_owned();
                self.malformed.push(MalformedExtension { oid, name, critical: raw.critical, reason });
            }
            Ok(()) if raw.critical && !raw.is_processed() => self.unprocessed_critical.push(name),
            Ok(()) => {}
        }
    }

    fn decode(&mut self, raw: &Raw<'_>) -> Result<(), &'static str> {
        let value = raw.value;
        match raw.id_ce() {
            Some(14) => {
                let identifier = Element::only_tagged(value, 0x04).ok_or(MALFORMED)?;
                self.subject_key_identifier = Some(identifier.content.to_vec());
                raw.must_not_be_critical()?;
            }
            Some(15) => self.key_usage = Some(read_key_usage(value)?),
            Some(17) => self.subject_alternative_names = Some(read_general_names(value)?),
            Some(19) => self.basic_constraints = Some(read_basic_constraints(value)?),
            Some(30) => self.name_constraints = Some(read_name_constraints(value)?),
            Some(35) => {
                self.authority_key_identifier = Some(read_authority_key_identifier(value).ok_or(MALFORMED)?);
                raw.must_not_be_critical()?;
            }
            Some(37) => {
                // A malformed extension allows nothing.
                self.extended_key_usage = Some(Vec::new());
                self.extended_key_usage = Some(read_extended_key_usage(value)?);
            }
            // x509-parser ignores data after the known parts of a distribution point.
            Some(31) if !are_distribution_points(value) => return Err(MALFORMED),
            // Other extensions only have to decode.
            _ => match raw.parsed() {
                Some(ParsedExtension::UnsupportedExtension { .. } | ParsedExtension::Unparsed) => {}
                Some(ParsedExtension::ParseError { .. }) | None => return Err(MALFORMED),
                Some(_) => drop(Element::only(value).ok_or(MALFORMED)?),
            },
        }
        Ok(())
    }
}

impl MalformedExtension {
    fn unnamed(reason: &str) -> Self {
        Self { oid: String::new(), name: "extensions".to_owned(), critical: false, reason: reason.to_owned() }
    }

    /// Returns the readable parts of an extension whose structure is malformed.
    fn of_element(element: Element<'_>) -> Self {
        let oid = element.elements().tagged(0x06).map(|oid| oid.content);
        Self {
            oid: oid.map(dotted_oid).unwrap_or_default(),
            name: oid.map_or_else(|| "an extension".to_owned(), oid_content_name),
            critical: false,
            reason: MALFORMED.to_owned(),
        }
    }
}

/// An extension whose value is not decoded yet.
struct Raw<'a> {
    whole: &'a [u8],
    /// The content octets of the object identifier.
    oid: &'a [u8],
    critical: bool,
    value: &'a [u8],
}

impl<'a> Raw<'a> {
    fn read(element: Element<'a>) -> Option<Self> {
        let mut parts = (element.tag == 0x30).then(|| element.elements())?;
        let oid = parts.tagged(0x06)?.content;
        let critical = match parts.optional(0x01)? {
            // Some tools write TRUE as in BER, or FALSE, which DER omits.
            Some(critical) => *critical.content.first().filter(|_| critical.content.len() == 1)? != 0,
            None => false,
        };
        let value = parts.tagged(0x04)?.content;
        parts.is_empty().then_some(Self { whole: element.whole, oid, critical, value })
    }

    /// Returns the last arc of an extension of RFC 5280 section 4.2.1.
    fn id_ce(&self) -> Option<u8> {
        match self.oid.strip_prefix(&ID_CE)? {
            [arc] => Some(*arc),
            _ => None,
        }
    }

    fn parsed(&self) -> Option<ParsedExtension<'a>> {
        X509Extension::from_der(self.whole).ok().map(|(_, extension)| extension.parsed_extension().clone())
    }

    /// Checks a rule of RFC 5280 sections 4.2.1.1 and 4.2.1.2: "Conforming CAs MUST mark this extension as non-critical".
    fn must_not_be_critical(&self) -> Result<(), &'static str> {
        if self.critical { Err("it is marked critical, which RFC 5280 forbids") } else { Ok(()) }
    }

    /// Returns whether path validation processes the extension.
    fn is_processed(&self) -> bool {
        match self.id_ce() {
            // Key usage, subject alternative name, basic constraints, name constraints, extended key usage. Revocation
            // (31) is not checked, so the place of revocation lists does not matter. Policies, their mapping and
            // `anyPolicy` (32, 33, 54) invalidate a path only if an explicit policy is required (RFC 5280 section 6.1.3
            // (f)), which only policy constraints do.
            Some(15 | 17 | 19 | 30 | 37 | 31 | 32 | 33 | 54) => true,
            Some(36) => matches!(
                self.parsed(),
                Some(ParsedExtension::PolicyConstraints(constraints)) if constraints.require_explicit_policy.is_none()
            ),
            _ => false,
        }
    }
}

fn read_key_usage(value: &[u8]) -> Result<KeyUsage, &'static str> {
    let content = Element::only_tagged(value, 0x03).ok_or(MALFORMED)?.content;
    let (&unused, bits) = content.split_first().ok_or(MALFORMED)?;
    if unused > 7 || (bits.is_empty() && unused != 0) {
        return Err(MALFORMED);
    }
    if bits.iter().all(|&octet| octet == 0) {
        return Err("it allows no usage at all");
    }
    // Bit 0 is the first octet's highest.
    Ok(KeyUsage {
        digital_signature: bits[0] & 0x80 != 0,
        certificate_signing: bits[0] & 0x04 != 0,
        bits: u16::from(bits[0]) << 8 | u16::from(bits.get(1).copied().unwrap_or_default()),
    })
}

fn read_basic_constraints(value: &[u8]) -> Result<BasicConstraints, &'static str> {
    let read = || {
        let mut parts = Element::only_tagged(value, 0x30)?.elements();
        let authority = match parts.optional(0x01)? {
            Some(authority) => *authority.content.first().filter(|_| authority.content.len() == 1)? != 0,
            None => false,
        };
        let path_length = parts.optional(0x02)?;
        parts.is_empty().then_some((authority, path_length))
    };
    let (authority, path_length) = read().ok_or(MALFORMED)?;
    let path_length = path_length.map(|number| {
        let (first, rest) = number.content.split_first().ok_or(MALFORMED)?;
        if first & 0x80 != 0 {
            return Err("its path length is negative");
        }
        let digits = if *first == 0 { rest } else { number.content };
        let number = digits.iter().try_fold(0_u32, |number, &octet| {
            number.checked_mul(0x100).and_then(|number| number.checked_add(u32::from(octet)))
        });
        number.ok_or("its path length is too large")
    });
    Ok(BasicConstraints { authority, path_length: path_length.transpose()? })
}

fn read_extended_key_usage(value: &[u8]) -> Result<Vec<String>, &'static str> {
    let usages = Element::only_tagged(value, 0x30).and_then(|list| list.elements().all()).ok_or(MALFORMED)?;
    if usages.is_empty() {
        return Err("it allows no usage at all");
    }
    usages.iter().map(|usage| if usage.tag == 0x06 { Ok(dotted_oid(usage.content)) } else { Err(MALFORMED) }).collect()
}

fn read_authority_key_identifier(value: &[u8]) -> Option<AuthorityKeyIdentifier> {
    let mut parts = Element::only_tagged(value, 0x30)?.elements();
    let key_identifier = parts.optional(0x80)?.map(|identifier| identifier.content.to_vec());
    let issuer = parts.optional(0xa1)?;
    let serial_number = parts.optional(0x82)?.map(|serial| serial.content.to_vec());
    let issuer = match issuer {
        Some(names) => Some(general_names(names.elements()).ok()?),
        None => None,
    };
    parts.is_empty().then_some(AuthorityKeyIdentifier { key_identifier, issuer, serial_number })
}

/// Returns whether a value is a sequence of sequences with the optional parts `[0]`, `[1]` and `[2]` (RFC 5280 section 4.2.1.13).
fn are_distribution_points(value: &[u8]) -> bool {
    let has_parts = |point: &Element<'_>| {
        let mut parts = point.elements();
        let known = [0xa0, 0x81, 0xa2].into_iter().all(|tag| parts.optional(tag).is_some());
        point.tag == 0x30 && known && parts.is_empty()
    };
    let points = Element::only_tagged(value, 0x30).and_then(|list| list.elements().all());
    points.is_some_and(|points| points.iter().all(has_parts))
}

fn read_general_names(value: &[u8]) -> Result<Vec<GeneralName>, &'static str> {
    general_names(Element::only_tagged(value, 0x30).ok_or(MALFORMED)?.elements())
}

fn general_names(list: DerReader<'_>) -> Result<Vec<GeneralName>, &'static str> {
    if list.is_empty() {
        return Err("it holds no name");
    }
    list.all().ok_or(MALFORMED)?.into_iter().map(GeneralName::read).collect()
}

fn read_name_constraints(value: &[u8]) -> Result<NameConstraints, &'static str> {
    let mut parts = Element::only_tagged(value, 0x30).ok_or(MALFORMED)?.elements();
    let permitted = parts.optional(0xa0).ok_or(MALFORMED)?;
    let excluded = parts.optional(0xa1).ok_or(MALFORMED)?;
    if !parts.is_empty() {
        return Err(MALFORMED);
    }
    if permitted.is_none() && excluded.is_none() {
        return Err("it constrains nothing");
    }
    let subtrees = |list: Option<Element<'_>>| {
        let Some(list) = list else { return Ok(Vec::new()) };
        let list = list.elements().all().ok_or(MALFORMED)?;
        if list.is_empty() {
            return Err("it has a list of no subtrees");
        }
        list.into_iter().map(GeneralSubtree::read).collect::<Result<Vec<_>, _>>()
    };
    Ok(NameConstraints { permitted: subtrees(permitted)?, excluded: subtrees(excluded)? })
}

impl GeneralSubtree {
    fn read(element: Element<'_>) -> Result<Self, &'static str> {
        if element.tag != 0x30 {
            return Err(MALFORMED);
        }
        let mut parts = element.elements();
        let base = GeneralName::read(parts.next_element().ok_or(MALFORMED)?)?;
        let minimum = parts.optional(0x80).ok_or(MALFORMED)?;
        let maximum = parts.optional(0x81).ok_or(MALFORMED)?;
        if !parts.is_empty() {
            return Err(MALFORMED);
        }
        let has_minimum = minimum.is_some_and(|minimum| minimum.content.iter().any(|&octet| octet != 0));
        Ok(Self { base, has_distances: has_minimum || maximum.is_some() })
    }
}

impl GeneralName {
    fn read(element: Element<'_>) -> Result<Self, &'static str> {
        let content = element.content;
        // By its definition ASCII. UTF-8 is accepted, but matches no constraint.
        let text = || std::str::from_utf8(content).map(str::to_owned).map_err(|_| "it holds a name that is no text");
        match element.tag {
            0xa0 => {
                let mut parts = element.elements();
                let type_id = parts.tagged(0x06).ok_or(MALFORMED)?.content;
                let value = parts.tagged(0xa0).filter(|_| parts.is_empty()).ok_or(MALFORMED)?;
                Ok(Self::Other { type_id: dotted_oid(type_id), value: value.content.to_vec() })
            }
            0x81 => text().map(Self::Email),
            0x82 => text().map(Self::Dns),
            0xa3 => Ok(Self::X400Address),
            0xa4 => {
                Name::from_der(content).map(Self::Directory).ok_or("it holds a distinguished name that does not decode")
            }
            0xa5 => Ok(Self::EdiParty),
            0x86 => text().map(Self::Uri),
            0x87 => Ok(Self::IpAddress(content.to_vec())),
            0x88 => Ok(Self::RegisteredId(dotted_oid(content))),
            _ => Err(MALFORMED),
        }
    }
}

impl fmt::Display for GeneralName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other { type_id, .. } => write!(f, "otherName:{type_id}"),
            Self::Email(address) => write!(f, "email:{}", printable(address)),
            Self::Dns(name) => write!(f, "DNS:{}", printable(name)),
            Self::X400Address => f.write_str("X400Name"),
            Self::Directory(name) => write!(f, "DirName:{name}"),
            Self::EdiParty => f.write_str("EdiPartyName"),
            Self::Uri(uri) => write!(f, "URI:{}", printable(uri)),
            Self::IpAddress(octets) => f.write_str("IP:").and_then(|()| match octets.len() {
                8 | 32 => {
                    let (address, mask) = octets.split_at(octets.len() / 2);
                    write_address(f, address)?;
                    f.write_str("/")?;
                    write_address(f, mask)
                }
                _ => write_address(f, octets),
            }),
            Self::RegisteredId(oid) => write!(f, "RID:{oid}"),
        }
    }
}

fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    push_printable(&mut printable, text);
    printable
}

fn write_address(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    let address: Option<IpAddr> = match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    };
    match address {
        Some(address) => write!(f, "{address}"),
        None => write!(f, "#{}", hexadecimal(octets)),
    }
}
