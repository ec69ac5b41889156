//! Upper-case hexadecimal.

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
