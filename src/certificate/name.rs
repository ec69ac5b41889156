//! Distinguished names (RFC 5280 section 4.1.2.4) and their comparison (RFC 5280 section 7.1).

use std::{borrow::Cow, fmt};

use super::{
    der::{DerReader, Element},
    hex::hexadecimal,
    identifier::is_unprintable,
    oid::{dotted_oid, oid_content_name},
};

/// A distinguished name (RFC 5280 section 4.1.2.4).
///
/// [`Display`](fmt::Display) writes it in the order of the certificate, with the escapes of RFC 4514 section 2.4:
/// `C=DE, O=Contoso\, Ltd., CN=Root`. Compare names with [`matches`](Self::matches), never by their text. Two names are
/// equal (`==`) if their DER is equal.
#[derive(Clone)]
pub struct Name {
    der: Vec<u8>,
    text: String,
    common_name: Option<String>,
    /// Each relative distinguished name in a form with equal octets if the names match.
    canonical: Vec<Vec<u8>>,
}

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const EMAIL_ADDRESS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01];

/// The well-known short names of RFC 4514 section 3, and that of the mail address.
const SHORT_NAMES: [(&[u8], &str); 8] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], "DC"),
    (EMAIL_ADDRESS, "Email"),
];

impl Name {
    /// Reads a name from its DER. `None` if it is not a sequence of sets of attributes.
    pub(super) fn from_der(der: &[u8]) -> Option<Self> {
        let mut names = Element::only_tagged(der, 0x30)?.elements();
        let mut name = Self { der: der.to_vec(), text: String::new(), common_name: None, canonical: Vec::new() };
        while !names.is_empty() {
            let mut attributes = names.tagged(0x31)?.elements();
            let mut canonical = Vec::new();
            let mut separator = ", ";
            while !attributes.is_empty() {
                let attribute = Attribute::read(&mut attributes)?;
                if !name.text.is_empty() {
                    name.text.push_str(separator);
                }
                separator = " + ";
                attribute.push_text(&mut name.text);
                if attribute.oid == COMMON_NAME {
                    name.common_name = attribute.value.text().map(Cow::into_owned);
                }
                canonical.push(attribute.canonical());
            }
            // The attributes of one relative distinguished name are a set, without order.
            canonical.sort_unstable();
            name.canonical.push(canonical.concat());
        }
        Some(name)
    }

    /// Returns the name in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the last common name, in any string type of `DirectoryString`. `None` if there is none, or if it does not
    /// decode.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// Returns whether the name has no attributes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.canonical.is_empty()
    }

    /// Returns whether two names are the same (RFC 5280 section 7.1).
    ///
    /// Relative distinguished names are compared one by one. If one has several attributes, their order does not matter.
    /// Attributes match if their types are equal and their values match. String values match if their texts do, whichever
    /// string types encode them. `TeletexString` is read as Latin-1, as in OpenSSL.
    ///
    /// The string preparation of RFC 4518 is implemented in part: case is folded, invisible and control characters are
    /// removed, and white space is compressed and trimmed. Unicode is not normalized: the two encodings of `é` differ.
    /// Values of other types, and values that do not decode, match only equal octets.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.der == other.der || self.canonical == other.canonical
    }

    /// Returns whether this name is in the subtree below `base`: it begins with the same relative distinguished names.
    #[cfg(feature = "verify")]
    pub(super) fn is_within(&self, base: &Self) -> bool {
        self.canonical.starts_with(&base.canonical)
    }

    /// Returns the values of the mail addresses (`emailAddress` of PKCS#9). `None` is one that does not decode.
    #[cfg(feature = "verify")]
    pub(super) fn email_addresses(&self) -> Vec<Option<String>> {
        let Some(sequence) = Element::only_tagged(&self.der, 0x30) else { return Vec::new() };
        let mut found = Vec::new();
        for set in sequence.elements().all().unwrap_or_default() {
            let mut attributes = set.elements();
            while let Some(attribute) = Attribute::read(&mut attributes) {
                if attribute.oid == EMAIL_ADDRESS {
                    found.push(attribute.value.text().map(Cow::into_owned));
                }
            }
        }
        found
    }
}

/// An attribute: a type and a value.
struct Attribute<'a> {
    oid: &'a [u8],
    value: Value<'a>,
}

impl<'a> Attribute<'a> {
    fn read(attributes: &mut DerReader<'a>) -> Option<Self> {
        let mut parts = attributes.tagged(0x30)?.elements();
        let attribute = Self { oid: parts.tagged(0x06)?.content, value: Value(parts.next_element()?) };
        parts.is_empty().then_some(attribute)
    }

    fn push_text(&self, text: &mut String) {
        let short = SHORT_NAMES.iter().find(|(oid, _)| *oid == self.oid);
        let name = short.map_or_else(|| oid_content_name(self.oid), |(_, name)| (*name).to_owned());
        // Values of unknown types are written in hexadecimal (RFC 4514 section 2.4).
        let value = self.value.text().filter(|_| name != dotted_oid(self.oid));
        text.push_str(&name);
        text.push('=');
        match value {
            Some(value) => push_escaped(text, &value),
            None => text.extend(["#", &hexadecimal(self.value.0.whole)]),
        }
    }

    fn canonical(&self) -> Vec<u8> {
        let (kind, value) = match self.value.decode() {
            Some(value) => (b's', Cow::Owned(prepare(&value).into_bytes())),
            None => (b'o', Cow::Borrowed(self.value.0.whole)),
        };
        let mut canonical = Vec::with_capacity(self.oid.len() + value.len() + 17);
        // The lengths make the concatenation unambiguous.
        canonical.extend_from_slice(&(self.oid.len() as u64).to_be_bytes());
        canonical.extend_from_slice(self.oid);
        canonical.push(kind);
        canonical.extend_from_slice(&(value.len() as u64).to_be_bytes());
        canonical.extend_from_slice(&value);
        canonical
    }
}

/// The value of an attribute.
struct Value<'a>(Element<'a>);

impl<'a> Value<'a> {
    /// Decodes a value of a string type that is valid for that type.
    fn decode(&self) -> Option<Cow<'a, str>> {
        let content = self.0.content;
        match self.0.tag {
            // UTF8String
            0x0c => std::str::from_utf8(content).ok().map(Cow::Borrowed),
            // NumericString, PrintableString, IA5String, VisibleString. All of ASCII is accepted: `@` in a PrintableString is
            // common.
            0x12 | 0x13 | 0x16 | 0x1a => {
                content.is_ascii().then(|| std::str::from_utf8(content).ok().map(Cow::Borrowed)).flatten()
            }
            // TeletexString, in practice Latin-1.
            0x14 => Some(content.iter().copied().map(char::from).collect()),
            // UniversalString
            0x1c => {
                let (characters, rest) = content.as_chunks::<4>();
                let text: Option<String> =
                    characters.iter().map(|octets| char::from_u32(u32::from_be_bytes(*octets))).collect();
                text.filter(|_| rest.is_empty()).map(Cow::Owned)
            }
            // BMPString. By its definition it has no surrogates, but they are accepted.
            0x1e => {
                let (units, rest) = content.as_chunks::<2>();
                let text = char::decode_utf16(units.iter().map(|octets| u16::from_be_bytes(*octets)));
                text.collect::<Result<String, _>>().ok().filter(|_| rest.is_empty()).map(Cow::Owned)
            }
            _ => None,
        }
    }

    /// Returns the text for display, including UTF-8 in a type that allows only ASCII.
    fn text(&self) -> Option<Cow<'a, str>> {
        let shown = || match self.0.tag {
            0x12 | 0x13 | 0x16 | 0x1a | 0x19 | 0x1b => std::str::from_utf8(self.0.content).ok().map(Cow::Borrowed),
            _ => None,
        };
        self.decode().or_else(shown)
    }
}

/// Prepares a text for comparison. [`Name::matches`] documents which parts of RFC 4518 section 2 are implemented.
fn prepare(text: &str) -> String {
    let folded: String =
        text.chars().filter(|&character| !is_ignored(character)).flat_map(char::to_lowercase).collect();
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns whether RFC 4518 section 2.2 removes a character. White space is mapped to a space instead.
fn is_ignored(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{8}'
            | '\u{e}'..='\u{1f}'
            | '\u{7f}'..='\u{84}'
            | '\u{86}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{1806}'
            | '\u{180b}'..='\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2063}'
            | '\u{206a}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffc}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0001}'
            | '\u{e0020}'..='\u{e007f}'
    )
}

/// Appends a text with hexadecimal octets in place of characters that affect a terminal or a log: control characters, line
/// ends, and characters that change the direction of text.
pub(super) fn push_printable(printable: &mut String, text: &str) {
    for character in text.chars() {
        if is_unprintable(character) {
            push_octets(printable, character);
        } else {
            printable.push(character);
        }
    }
}

/// Appends a character as the octets of its UTF-8: `\1B` (RFC 4514 section 2.4).
fn push_octets(escaped: &mut String, character: char) {
    for octet in character.encode_utf8(&mut [0; 4]).bytes() {
        escaped.extend(["\\", &hexadecimal(&[octet])]);
    }
}

/// Appends a text with the escapes of RFC 4514 section 2.4.
fn push_escaped(escaped: &mut String, text: &str) {
    let last = text.chars().count().saturating_sub(1);
    for (at, character) in text.chars().enumerate() {
        match character {
            _ if is_unprintable(character) => push_octets(escaped, character),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => escaped.extend(['\\', character]),
            ' ' if at == 0 || at == last => escaped.push_str("\\ "),
            '#' if at == 0 => escaped.push_str("\\#"),
            _ => escaped.push(character),
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Name {}

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
