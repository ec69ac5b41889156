//! Reading and writing of DER elements (X.690): tag, length, content.
//!
//! Lengths may take more octets than DER allows, as in OpenSSL and x509-parser. Indefinite lengths are refused.

#[cfg(feature = "pfx")]
use x509_parser::oid_registry::Oid;

/// An element of DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    /// The identifier octet: class, form and number.
    pub(super) tag: u8,
    /// The content octets.
    pub(super) content: &'a [u8],
    /// The whole element, its header included.
    pub(super) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads bytes that are one element. `None` if they are malformed or others follow.
    pub(super) fn only(bytes: &'a [u8]) -> Option<Self> {
        let mut elements = DerReader::new(bytes);
        elements.next_element().filter(|_| elements.is_empty())
    }

    /// Reads bytes that are one element with that tag, as [`only`](Self::only) does.
    pub(super) fn only_tagged(bytes: &'a [u8], tag: u8) -> Option<Self> {
        Self::only(bytes).filter(|element| element.tag == tag)
    }

    /// Returns a reader of the elements in the content.
    pub(super) fn elements(self) -> DerReader<'a> {
        DerReader::new(self.content)
    }
}

/// A reader of consecutive elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct DerReader<'a>(&'a [u8]);

impl<'a> DerReader<'a> {
    /// Creates a reader at the first element of a content.
    pub(super) fn new(content: &'a [u8]) -> Self {
        Self(content)
    }

    /// Returns the bytes that are left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Returns whether no element is left.
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Takes the next element. `None` at the end, or if the element is malformed.
    pub(super) fn next_element(&mut self) -> Option<Element<'a>> {
        // Tag numbers from 31 take further octets; X.509 has none.
        let tag = *self.0.first().filter(|&&tag| tag & 0x1f != 0x1f)?;
        let (whole, content, rest) = der_element(self.0)?;
        self.0 = rest;
        Some(Element { tag, content, whole })
    }

    /// Takes the next element if it has that tag.
    pub(super) fn tagged(&mut self, tag: u8) -> Option<Element<'a>> {
        let mut rest = *self;
        let element = rest.next_element().filter(|element| element.tag == tag)?;
        *self = rest;
        Some(element)
    }

    /// Takes the next element if it has that tag. `Some(None)` if it has another tag, `None` if it is malformed.
    #[expect(clippy::option_option, reason = "malformed and absent are different answers")]
    pub(super) fn optional(&mut self, tag: u8) -> Option<Option<Element<'a>>> {
        if self.0.first() == Some(&tag) { self.tagged(tag).map(Some) } else { Some(None) }
    }

    /// Takes all elements. `None` if one is malformed.
    pub(super) fn all(mut self) -> Option<Vec<Element<'a>>> {
        let mut all = Vec::new();
        while !self.is_empty() {
            all.push(self.next_element()?);
        }
        Some(all)
    }

    /// Returns the tag of the next element.
    #[cfg(feature = "pfx")]
    pub(super) fn tag(self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Takes the next element, with its header.
    pub(super) fn element(&mut self) -> Option<&'a [u8]> {
        self.next_element().map(|element| element.whole)
    }

    /// Takes the content of the next element, if it has that tag.
    pub(super) fn content(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.tagged(tag).map(|element| element.content)
    }

    /// Takes the next element if it has that tag, and returns a reader of its content.
    pub(super) fn inside(&mut self, tag: u8) -> Option<Self> {
        self.content(tag).map(Self)
    }

    /// Takes the next element as a number, if it is an INTEGER from 0 to 2⁶⁴ - 1.
    #[cfg(feature = "pfx")]
    pub(super) fn number(&mut self) -> Option<u64> {
        let content = self.content(0x02).filter(|content| content.first().is_some_and(|first| first & 0x80 == 0))?;
        content.iter().try_fold(0_u64, |number, &octet| Some(number.checked_mul(256)? | u64::from(octet)))
    }

    /// Takes the next element in dotted form, if it is an OBJECT IDENTIFIER.
    #[cfg(feature = "pfx")]
    pub(super) fn oid(&mut self) -> Option<String> {
        self.content(0x06).map(|content| Oid::new(content.into()).to_id_string())
    }
}

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
/// The tag `[0]` of a constructed element.
pub(super) const CONTEXT_0: u8 = 0xa0;
/// The tag `[1]` of a constructed element.
#[cfg(feature = "issue")]
pub(super) const CONTEXT_1: u8 = 0xa1;
/// The tag `[3]` of a constructed element.
#[cfg(feature = "issue")]
pub(super) const CONTEXT_3: u8 = 0xa3;

/// Returns the first element of the bytes with its header, its content, and the bytes after it.
///
/// The length must be definite, but need not be in its shortest form.
pub(super) fn der_element(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (header, length) = der_header(bytes)?;
    let end = header.checked_add(length)?;
    Some((bytes.get(..end)?, bytes.get(header..end)?, bytes.get(end..)?))
}

/// Returns the length of the header of the first element, and the length that it states for the content.
pub(super) fn der_header(bytes: &[u8]) -> Option<(usize, usize)> {
    let (&tag, &first) = (bytes.first()?, bytes.get(1)?);
    if tag & 0x1f == 0x1f {
        return None;
    }
    match first {
        0..0x80 => Some((2, usize::from(first))),
        // The indefinite length of BER.
        0x80 => None,
        _ => {
            let octets = bytes.get(2..2 + usize::from(first & 0x7f))?;
            let length = octets.iter().try_fold(0_usize, |length, &octet| {
                length.checked_mul(0x100).map(|length| length | usize::from(octet))
            })?;
            Some((2 + octets.len(), length))
        }
    }
}

/// Encodes a SEQUENCE of the parts.
#[cfg(feature = "issue")]
pub(super) fn der_sequence(parts: &[&[u8]]) -> Vec<u8> {
    der_frame(SEQUENCE, parts)
}

/// Encodes an element with that tag and the concatenated parts as its content.
#[cfg(feature = "issue")]
pub(super) fn der_frame(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut der = Vec::with_capacity(length + 10);
    push_header(&mut der, tag, length);
    for part in parts {
        der.extend_from_slice(part);
    }
    der
}

/// Appends a tag and a length.
pub(super) fn push_header(der: &mut Vec<u8>, tag: u8, length: usize) {
    der.push(tag);
    let octets = length.to_be_bytes();
    let octets = &octets[octets.iter().take_while(|&&octet| octet == 0).count()..];
    match length {
        0 => der.push(0),
        1..0x80 => der.extend_from_slice(octets),
        _ => {
            #[expect(clippy::cast_possible_truncation, reason = "a length has at most eight octets")]
            der.push(0x80 | octets.len() as u8);
            der.extend_from_slice(octets);
        }
    }
}
