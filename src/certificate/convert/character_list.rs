//! Reading of C headers in which PEM is a list of characters.

use zeroize::Zeroizing;

/// Returns the text of a header with its lists of characters joined, or `None` if it has none that is PEM. The readers of PEM
/// understand string literals, but not such lists, and would leave them out.
pub(super) fn joined(header: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    const BEGIN: &[u8] = b"'-','-','-','-','-','B','E','G','I','N',";
    if !header.windows(BEGIN.len()).any(|window| window == BEGIN) {
        return None;
    }
    // The text is shorter than the header.
    let mut text = Zeroizing::new(Vec::with_capacity(header.len()));
    let mut rest = header;
    loop {
        rest = match rest {
            [] => return Some(text),
            [b'\'', b'\\', b'n', b'\'', b',', after @ ..] => {
                text.push(b'\n');
                after
            }
            [b'\'', character, b'\'', b',', after @ ..] | [character, after @ ..] => {
                text.push(*character);
                after
            }
        };
    }
}
