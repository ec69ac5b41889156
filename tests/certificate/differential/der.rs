//! A writer of DER, and of what is not quite DER.

pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|&byte| byte == 0).collect();
    match length[..] {
        [] => out.push(0),
        [short] if short < 0x80 => out.push(short),
        _ => {
            out.push(0x80 | u8::try_from(length.len()).expect("eight bytes at most"));
            out.extend(&length);
        }
    }
    out.extend(content);
    out
}

/// As [`tlv`], with one length byte more than DER allows.
pub(super) fn long_tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a short content").to_be_bytes();
    [&[tag, 0x83, 0, length[0], length[1]], content].concat()
}

pub(super) fn seq<T: AsRef<[u8]>>(parts: &[T]) -> Vec<u8> {
    tlv(0x30, &join(parts))
}

pub(super) fn set<T: AsRef<[u8]>>(parts: &[T]) -> Vec<u8> {
    let mut parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
    parts.sort_unstable();
    tlv(0x31, &join(&parts))
}

pub(super) fn join<T: AsRef<[u8]>>(parts: &[T]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.as_ref().iter().copied()).collect()
}

/// A context-specific tag: constructed around its content.
pub(super) fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xa0 | number, content)
}

/// A context-specific tag: primitive.
pub(super) fn implicit(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0x80 | number, content)
}

pub(super) fn int(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let mut content: Vec<u8> = bytes.into_iter().skip_while(|&byte| byte == 0).collect();
    if content.first().is_none_or(|&first| first & 0x80 != 0) {
        content.insert(0, 0);
    }
    tlv(0x02, &content)
}

pub(super) fn boolean(value: bool) -> Vec<u8> {
    tlv(0x01, &[if value { 0xff } else { 0 }])
}

pub(super) fn null() -> Vec<u8> {
    tlv(0x05, &[])
}

pub(super) fn octets(content: &[u8]) -> Vec<u8> {
    tlv(0x04, content)
}

pub(super) fn bits(unused: u8, content: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[unused], content].concat())
}

/// A named bit list: the bits by number, trailing zeros left out as DER asks.
pub(super) fn flags(numbers: &[u8]) -> Vec<u8> {
    let Some(&last) = numbers.iter().max() else { return bits(0, &[]) };
    let mut content = vec![0; usize::from(last / 8) + 1];
    for number in numbers {
        content[usize::from(number / 8)] |= 0x80 >> (number % 8);
    }
    bits(7 - last % 8, &content)
}

pub(super) fn oid(text: &str) -> Vec<u8> {
    let arcs: Vec<u64> = text.split('.').map(|arc| arc.parse().expect("a number")).collect();
    let mut content = Vec::new();
    for arc in std::iter::once(arcs[0] * 40 + arcs[1]).chain(arcs[2..].iter().copied()) {
        let mut groups = vec![u8::try_from(arc & 0x7f).expect("seven bits")];
        let mut rest = arc >> 7;
        while rest > 0 {
            groups.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
            rest >>= 7;
        }
        content.extend(groups.iter().rev());
    }
    tlv(0x06, &content)
}

pub(super) const UTF8: u8 = 0x0c;
pub(super) const PRINTABLE: u8 = 0x13;
pub(super) const TELETEX: u8 = 0x14;
pub(super) const IA5: u8 = 0x16;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const UNIVERSAL: u8 = 0x1c;
pub(super) const BMP: u8 = 0x1e;

/// A text in one of the string types; Teletex as Latin-1, which is what is written there.
pub(super) fn string(tag: u8, text: &str) -> Vec<u8> {
    let content: Vec<u8> = match tag {
        BMP => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        UNIVERSAL => text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(),
        TELETEX => text.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect(),
        _ => text.as_bytes().to_vec(),
    };
    tlv(tag, &content)
}
