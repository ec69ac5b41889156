//! Random bytes and their text forms.

use crate::certificate::hex::hexadecimal as to_hexadecimal;

/// The system's random number generator failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator failed")]
pub(super) struct RandomError;

/// Returns random bytes from the system's generator.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(bytes)
}

/// Returns `N` random bytes as upper-case hexadecimal digits.
pub(super) fn hexadecimal<const N: usize>() -> Result<String, RandomError> {
    Ok(to_hexadecimal(&bytes::<N>()?))
}

/// Returns a random UUID (RFC 9562 section 5.4).
pub(super) fn uuid() -> Result<String, RandomError> {
    Ok(to_uuid(u128::from_be_bytes(bytes()?)))
}

/// Returns the UUID that is made of random bits.
pub(super) fn to_uuid(random: u128) -> String {
    let id = random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let digits = format!("{id:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}
