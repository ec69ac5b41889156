//! Conversion of BER to DER (X.690). PFX and PKCS#7 are often BER, and the parsers accept only DER.
//!
//! Only headers change: indefinite and long-form lengths become minimal ones, and strings in pieces are joined. The content
//! of primitive elements does not change, so the bytes in an OCTET STRING (a certificate, the data under a MAC) are kept.
//! DER is returned byte for byte.

use zeroize::Zeroizing;

use super::der::{CONTEXT_0, OCTET_STRING, SEQUENCE, push_header};

/// The first element of the input, in DER.
#[derive(Debug)]
pub(super) struct Normalised {
    /// The element in DER. It may hold a private key, so it is wiped when dropped.
    pub(super) der: Zeroizing<Vec<u8>>,
    /// The length of the element in the input. [`is_padding`] checks the bytes after it.
    pub(super) consumed: usize,
}

/// The reason why bytes are not BER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BerError {
    #[error("it ends too early, at byte {0}")]
    Truncated(usize),
    #[error("the length at byte {0} is not a length")]
    Length(usize),
    #[error("the element at byte {0} leaves the one around it")]
    Overrun(usize),
    #[error("the string at byte {0} is made of something other than strings")]
    String(usize),
    #[error("its elements are nested more than {MAX_DEPTH} deep")]
    Depth,
}

/// The deepest nesting of elements. PFX and PKCS#7 need about ten levels, and every level uses stack.
const MAX_DEPTH: usize = 48;

const CONSTRUCTED: u8 = 0x20;
/// The path to the certificates of PKCS#7 signed data: `ContentInfo`, its content, `SignedData`, `certificates`.
const CERTIFICATES_OF_SIGNED_DATA: [u8; 4] = [SEQUENCE, CONTEXT_0, SEQUENCE, CONTEXT_0];
/// The beginning of every content type of PKCS#7 (1.2.840.113549.1.7), without its last arc.
const PKCS7_OID: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07";

/// Converts the first element of the bytes to DER, in linear time.
///
/// Two places need more than the tags: the pieces of an `encryptedContent [0] IMPLICIT OCTET STRING` (RFC 5652 section 6.1)
/// are joined, and the certificates of PKCS#7 signed data are not changed unless they have an indefinite length, because
/// their signatures and thumbprints depend on the bytes.
///
/// # Errors
/// Returns a [`BerError`] if the bytes do not begin with a complete BER element.
pub(super) fn to_der(bytes: &[u8]) -> Result<Normalised, BerError> {
    let mut rewriter = Rewriter { bytes, output: Vec::new(), path: Vec::new() };
    let (consumed, length) = rewriter.element(0, bytes.len(), false)?;
    let mut der = Zeroizing::new(Vec::with_capacity(length));
    for part in rewriter.output {
        match part {
            Part::Header(tag, length) => {
                // `push_header` writes the last octet of a tag that has several.
                let (&last, others) = tag.split_last().ok_or(BerError::Truncated(0))?;
                der.extend_from_slice(others);
                push_header(&mut der, last, length);
            }
            Part::Joined(tag, length) => push_header(&mut der, tag, length),
            Part::Content(start, end) => der.extend_from_slice(&bytes[start..end]),
        }
    }
    Ok(Normalised { der, consumed })
}

/// Returns whether the bytes after an element are harmless additions of editors, scripts and block devices: line ends,
/// text, NUL and FF padding.
pub(super) fn is_padding(rest: &[u8]) -> bool {
    rest.iter().all(|&byte| matches!(byte, 0 | 0xff) || byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}

enum Part<'a> {
    /// The tag octets and the length of the content.
    Header(&'a [u8], usize),
    /// The tag octet and the length of a joined string.
    Joined(u8, usize),
    /// A range of the input.
    Content(usize, usize),
}

struct Rewriter<'a> {
    bytes: &'a [u8],
    output: Vec<Part<'a>>,
    /// The first tag octets of the elements that contain the current one.
    path: Vec<u8>,
}

/// The header of an element.
struct Header<'a> {
    tag: &'a [u8],
    /// Where the content begins.
    start: usize,
    /// Where it ends, unless its length is indefinite.
    end: Option<usize>,
}

impl<'a> Rewriter<'a> {
    /// Adds the element at `start` to the output. Returns where it ends in the input, and its length in DER.
    fn element(&mut self, start: usize, limit: usize, encrypted_content: bool) -> Result<(usize, usize), BerError> {
        let header = self.header(start, limit)?;
        let first = header.tag[0];
        if first & CONSTRUCTED == 0 {
            let end = header.end.ok_or(BerError::Length(start))?;
            let length = encoded_length(header.tag.len(), end - header.start);
            if length == end - start {
                self.copy(start, end);
            } else {
                self.output.push(Part::Header(header.tag, end - header.start));
                self.copy(header.start, end);
            }
            return Ok((end, length));
        }
        if is_string(first) {
            return self.join(first & !CONSTRUCTED, &header, limit);
        }
        if first == CONTEXT_0 && encrypted_content {
            return self.join(CONTEXT_0 & !CONSTRUCTED, &header, limit);
        }
        if self.path == CERTIFICATES_OF_SIGNED_DATA
            && let Some(end) = header.end
            && !self.has_indefinite_length(header.start, end)
        {
            self.copy(start, end);
            return Ok((end, end - start));
        }
        self.enter(first)?;
        let place = self.output.len();
        self.output.push(Part::Header(header.tag, 0));
        let (mut position, mut length) = (header.start, 0);
        let mut members = Members::default();
        while !self.at_end(&header, &mut position, limit)? {
            let encrypted_content = first == SEQUENCE && members.announce_encrypted_content();
            let (end, written) = self.element(position, header.end.unwrap_or(limit), encrypted_content)?;
            members.add(&self.bytes[position..end]);
            position = end;
            length += written;
        }
        self.output[place] = Part::Header(header.tag, length);
        self.path.pop();
        Ok((position, encoded_length(header.tag.len(), length)))
    }

    /// Adds a string in pieces as one string with that tag.
    fn join(&mut self, tag: u8, header: &Header<'a>, limit: usize) -> Result<(usize, usize), BerError> {
        let place = self.output.len();
        self.output.push(Part::Joined(tag, 0));
        let (end, length) = self.pieces(tag, header, limit)?;
        self.output[place] = Part::Joined(tag, length);
        Ok((end, encoded_length(1, length)))
    }

    /// Adds the content of the pieces. They are OCTET STRINGs (X.690 section 8.23.3), or, from some encoders, have the tag of
    /// the string. They may be in pieces themselves.
    fn pieces(&mut self, tag: u8, header: &Header<'a>, limit: usize) -> Result<(usize, usize), BerError> {
        self.enter(tag)?;
        let inner_limit = header.end.unwrap_or(limit);
        let (mut position, mut length) = (header.start, 0);
        while !self.at_end(header, &mut position, limit)? {
            let inner = self.header(position, inner_limit)?;
            let (end, written) = match (inner.tag, inner.end) {
                (&[piece], _) if piece & !CONSTRUCTED != OCTET_STRING && piece & !CONSTRUCTED != tag => {
                    return Err(BerError::String(position));
                }
                (&[piece], _) if piece & CONSTRUCTED != 0 => self.pieces(tag, &inner, inner_limit)?,
                (&[_], Some(end)) => {
                    self.copy(inner.start, end);
                    (end, end - inner.start)
                }
                _ => return Err(BerError::String(position)),
            };
            position = end;
            length += written;
        }
        self.path.pop();
        Ok((position, length))
    }

    /// Adds a range of the input, and merges it with an adjacent previous range.
    fn copy(&mut self, start: usize, end: usize) {
        match self.output.last_mut() {
            Some(Part::Content(_, last)) if *last == start => *last = end,
            _ => self.output.push(Part::Content(start, end)),
        }
    }

    fn enter(&mut self, tag: u8) -> Result<(), BerError> {
        self.path.push(tag);
        if self.path.len() > MAX_DEPTH { Err(BerError::Depth) } else { Ok(()) }
    }

    /// Returns whether the content of a constructed element ends here. Skips the two zero octets that end an indefinite one.
    fn at_end(&self, header: &Header<'_>, position: &mut usize, limit: usize) -> Result<bool, BerError> {
        match (header.end, self.bytes[..limit].get(*position..*position + 2)) {
            (Some(end), _) => Ok(*position == end),
            (None, Some([0, 0])) => {
                *position += 2;
                Ok(true)
            }
            (None, Some(_)) => Ok(false),
            (None, None) => Err(self.cut_off(limit, *position)),
        }
    }

    /// Reads the header at `start` of an element that must end by `limit`.
    fn header(&self, start: usize, limit: usize) -> Result<Header<'a>, BerError> {
        let mut position = start;
        let mut next = || {
            let octet = self.bytes[..limit].get(position).copied().ok_or_else(|| self.cut_off(limit, start))?;
            position += 1;
            Ok(octet)
        };
        let mut tag_length = 1;
        if next()? & 0x1f == 0x1f {
            tag_length += 1;
            while next()? & 0x80 != 0 {
                tag_length += 1;
            }
        }
        let length = match next()? {
            short @ ..0x80 => Some(usize::from(short)),
            0x80 => None,
            0xff => return Err(BerError::Length(start)),
            long => {
                let mut length = 0_usize;
                for _ in 0..long & 0x7f {
                    let shifted = length.checked_mul(256).ok_or_else(|| self.cut_off(limit, start))?;
                    length = shifted | usize::from(next()?);
                }
                Some(length)
            }
        };
        let end = match length.map(|length| position.checked_add(length)) {
            Some(end) => Some(end.filter(|&end| end <= limit).ok_or_else(|| self.cut_off(limit, start))?),
            None => None,
        };
        Ok(Header { tag: &self.bytes[start..start + tag_length], start: position, end })
    }

    /// Returns the error for an element at `start` that does not end by `limit`.
    fn cut_off(&self, limit: usize, start: usize) -> BerError {
        if limit == self.bytes.len() { BerError::Truncated(limit) } else { BerError::Overrun(start) }
    }

    /// Returns whether an element up to `end` has an indefinite length. Malformed content has none: its parser reports it.
    fn has_indefinite_length(&self, mut start: usize, end: usize) -> bool {
        // Enters constructed elements and skips primitive ones. Their ends do not matter, so this needs no stack.
        while start < end {
            match self.header(start, end) {
                Ok(Header { end: None, .. }) => return true,
                Ok(Header { tag, start: content, .. }) if tag[0] & CONSTRUCTED != 0 => start = content,
                Ok(Header { end: Some(after), .. }) => start = after,
                Err(_) => return false,
            }
        }
        false
    }
}

/// The members of a sequence so far. An object identifier of PKCS#7 and an algorithm precede an `encryptedContent`.
#[derive(Default)]
struct Members {
    count: usize,
    match_so_far: bool,
}

impl Members {
    fn add(&mut self, member: &[u8]) {
        self.match_so_far = match self.count {
            0 => member.starts_with(PKCS7_OID),
            1 => self.match_so_far && member.first() == Some(&SEQUENCE),
            _ => false,
        };
        self.count += 1;
    }

    fn announce_encrypted_content(&self) -> bool {
        self.count == 2 && self.match_so_far
    }
}

/// Returns whether a tag is that of an OCTET STRING or a character string in pieces. BIT STRINGs are not included: they
/// occur only in certificates, whose bytes are signed.
fn is_string(tag: u8) -> bool {
    // OCTET STRING, UTF8String, NumericString to IA5String, and GraphicString to BMPString.
    matches!(tag, 0x24 | 0x2c | 0x32..=0x36 | 0x39..=0x3c | 0x3e)
}

/// Returns the length of an element in DER.
fn encoded_length(tag_length: usize, length: usize) -> usize {
    let octets = match length {
        ..0x80 => 0,
        _ => (usize::BITS - length.leading_zeros()).div_ceil(8) as usize,
    };
    tag_length + 1 + octets + length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(bytes: &[u8]) -> Vec<u8> {
        to_der(bytes).expect("BER").der.to_vec()
    }

    #[test]
    fn der_comes_back_byte_for_byte() {
        let long = [&[0x30, 0x82, 0x01, 0x04, 0x04, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        let high_tag: &[u8] = &[0x30, 0x06, 0xbf, 0x81, 0x01, 0x02, 0x05, 0x00];
        // The boolean is not DER, but only framing is rewritten.
        for bytes in [&[0x30, 0x00][..], &[0x30, 0x03, 0x01, 0x01, 0x01], &[0x04, 0x02, 0x24, 0x80], &long, high_tag] {
            assert_eq!(der(bytes), bytes);
        }
    }

    #[test]
    fn lengths_become_minimal_and_strings_whole() {
        let ber = [
            0x30, 0x80, // a sequence of indefinite length
            0x02, 0x84, 0, 0, 0, 1, 3, // an integer with four octets of length
            0x24, 0x80, 0x04, 0x01, 0xaa, 0x24, 0x03, 0x04, 0x01, 0xbb, 0x04, 0x81, 0x01, 0xcc, 0,
            0, // pieces in pieces
            0x3e, 0x06, 0x04, 0x02, 0, 0x41, 0x1e, 0x00, // a BMPString of both kinds of pieces
            0, 0, b'\n', 0xff,
        ];
        let normalised = to_der(&ber).expect("BER");
        assert_eq!(*normalised.der, [0x30, 0x0c, 0x02, 0x01, 0x03, 0x04, 0x03, 0xaa, 0xbb, 0xcc, 0x1e, 0x02, 0, 0x41]);
        assert_eq!(normalised.consumed, ber.len() - 2);
        assert!(is_padding(&ber[normalised.consumed..]));
        assert!(!is_padding(&[0x0a, 0x80]));
    }

    #[test]
    fn encrypted_content_is_joined_and_other_context_tags_are_not() {
        let oid = [PKCS7_OID, &[0x01]].concat();
        let info =
            [&[0x30, 0x80][..], &oid, &[0x30, 0x00, 0xa0, 0x80, 0x04, 0x01, 1, 0x04, 0x01, 2, 0, 0, 0, 0]].concat();
        assert_eq!(der(&info), [&[0x30, 0x11][..], &oid, &[0x30, 0x00, 0x80, 0x02, 1, 2]].concat());
        let content = [&[0x30, 0x80][..], &oid, &[0xa0, 0x80, 0x04, 0x01, 1, 0, 0, 0, 0]].concat();
        assert_eq!(der(&content), [&[0x30, 0x10][..], &oid, &[0xa0, 0x03, 0x04, 0x01, 1]].concat());
    }

    #[test]
    fn certificates_of_signed_data_keep_their_bytes() {
        // A certificate with a long-form length in it, as if it were signed like that, and one of indefinite length.
        let odd = [0x30, 0x04, 0x02, 0x81, 0x01, 5];
        let indefinite = [0x30, 0x80, 0x02, 0x81, 0x01, 6, 0, 0];
        let ber = [&[0x30, 0x80, 0xa0, 0x80, 0x30, 0x80, 0xa0, 0x80][..], &odd, &indefinite, &[0; 8]].concat();
        let wanted =
            [&[0x30, 0x11, 0xa0, 0x0f, 0x30, 0x0d, 0xa0, 0x0b][..], &odd, &[0x30, 0x03, 0x02, 0x01, 6]].concat();
        assert_eq!(der(&ber), wanted);
    }

    #[test]
    fn damage_is_an_error() {
        let is = |bytes: &[u8]| to_der(bytes).map(|_| ()).expect_err("an error");
        assert_eq!(is(&[]), BerError::Truncated(0));
        assert_eq!(is(&[0x30, 0x80, 0x05, 0x00]), BerError::Truncated(4));
        assert_eq!(is(&[0x30, 0x03, 0x02, 0x02, 0x01]), BerError::Truncated(5));
        assert_eq!(is(&[0x30, 0x03, 0x02, 0x02, 0x01, 0x00]), BerError::Overrun(2));
        assert_eq!(is(&[0x02, 0x80, 0x00, 0x00]), BerError::Length(0));
        assert_eq!(is(&[0x02, 0xff, 0x00, 0x00]), BerError::Length(0));
        assert_eq!(is(&[0x04, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0]), BerError::Truncated(11));
        assert_eq!(is(&[0x24, 0x03, 0x02, 0x01, 0x00]), BerError::String(2));
        assert_eq!(is(&[[0x30, 0x80]; 100].concat()), BerError::Depth);
        assert_eq!(is(&[[0x24, 0x80]; 100].concat()), BerError::Depth);
    }
}
