//! Hexadecimal text.

/// Returns the bytes in upper-case hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
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

/// Returns the value of a hexadecimal digit.
pub(super) fn digit(character: char) -> Option<u8> {
    character.to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Joins the values of hexadecimal digits to bytes. `None` if their number is odd.
pub(super) fn join_digits(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
