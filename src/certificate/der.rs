//! The frames of DER (X.690): tag, length, content.

/// The first element of the bytes whole, its content, and what follows it.
pub(super) fn der_element(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let first = *bytes.get(1)?;
    let (header, length) = if first < 0x80 {
        (2, usize::from(first))
    } else {
        let octets = bytes.get(2..2 + usize::from(first & 0x7f))?;
        let length = octets
            .iter()
            .try_fold(0_usize, |length, &octet| length.checked_mul(256).map(|shifted| shifted | usize::from(octet)))?;
        (2 + octets.len(), length)
    };
    let element = bytes.get(..header.checked_add(length)?)?;
    Some((element, &element[header..], &bytes[element.len()..]))
}

pub(super) fn der_sequence(parts: &[&[u8]]) -> Vec<u8> {
    der_frame(0x30, parts)
}

/// An element of that tag with these parts as its content.
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
