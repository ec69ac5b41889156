//! Random bytes and the forms they are given out in.

use std::fmt::Write;

use aws_lc_rs::error::Unspecified;

/// Random bytes from the system's generator.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N], Unspecified> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(bytes)
}

/// Twice as many hexadecimal digits, upper case.
pub(super) fn hexadecimal<const N: usize>() -> Result<String, Unspecified> {
    Ok(bytes::<N>()?.iter().fold(String::with_capacity(N * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02X}");
        text
    }))
}

/// A random UUID (RFC 9562 section 5.4).
pub(super) fn uuid() -> Result<String, Unspecified> {
    let random = u128::from_be_bytes(bytes()?);
    let id = random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let digits = format!("{id:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    Ok(parts.join("-"))
}
