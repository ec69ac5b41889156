//! Conversion of public keys to the encoding that every reader supports: EC points uncompressed, RSA with its `NULL`.
//!
//! RFC 5480 section 2.2 requires readers to support only uncompressed points, and not every TLS stack supports others.

use std::borrow::Cow;

use num_bigint::BigUint;
use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
    },
    prelude::FromDer,
    x509::SubjectPublicKeyInfo,
};

use super::{
    Certificate,
    der::{der_element, der_frame, der_sequence},
};

/// The parameters of a curve `y² = x³ - 3x + b` over the integers modulo a prime that is 3 modulo 4 (FIPS 186-5, SP
/// 800-186 section 3.2.1).
struct Curve {
    /// The length of a coordinate in octets.
    length: usize,
    /// The prime in hexadecimal.
    prime: &'static str,
    /// The coefficient `b` in hexadecimal.
    b: &'static str,
}

const P256: Curve = Curve {
    length: 32,
    prime: "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
    b: "5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b",
};

const P384: Curve = Curve {
    length: 48,
    prime: "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff",
    b: "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aef",
};

const P521: Curve = Curve {
    length: 66,
    prime: "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
            ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    b: "0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e1\
        56193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00",
};

/// The DER of `NULL`.
const NULL: &[u8] = &[0x05, 0x00];

/// A point in compressed or hybrid form.
struct Point<'a> {
    x: &'a [u8],
    /// The other coordinate, in hybrid form.
    y: Option<&'a [u8]>,
    /// Whether the other coordinate is odd.
    odd: bool,
}

/// Returns a `SubjectPublicKeyInfo` with its EC point uncompressed, or with the `NULL` parameters of RSA, which RFC 3279
/// section 2.3.1 requires and some tools omit. Keys of other kinds and on other curves are returned unchanged. `None` if the
/// point is not on its curve.
pub(super) fn uncompressed(key_info: &[u8]) -> Option<Cow<'_, [u8]>> {
    let unchanged = Some(Cow::Borrowed(key_info));
    let Ok((_, parsed)) = SubjectPublicKeyInfo::from_der(key_info) else { return unchanged };
    let (_, content, _) = der_element(key_info)?;
    let (algorithm, identifier, bits) = der_element(content)?;
    if parsed.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION && parsed.algorithm.parameters.is_none() {
        return Some(Cow::Owned(der_sequence(&[&der_sequence(&[identifier, NULL]), bits])));
    }
    if parsed.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return unchanged;
    }
    let named = parsed.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let curve = match named {
        Some(oid) if oid == OID_EC_P256 => P256,
        Some(oid) if oid == OID_NIST_EC_P384 => P384,
        Some(oid) if oid == OID_NIST_EC_P521 => P521,
        _ => return unchanged,
    };
    let Some(point) = curve.other_form(&parsed.subject_public_key.data) else { return unchanged };
    let point = curve.uncompressed(&point)?;
    // A bit string begins with the number of unused bits, none.
    Some(Cow::Owned(der_sequence(&[algorithm, &der_frame(0x03, &[&[0], &point])])))
}

impl Curve {
    /// Reads a point in compressed or hybrid form (SEC 1 section 2.3.3). `None` if the octets are neither.
    fn other_form<'a>(&self, point: &'a [u8]) -> Option<Point<'a>> {
        let (&form, coordinates) = point.split_first()?;
        let is_hybrid = match form {
            0x02 | 0x03 => false,
            0x06 | 0x07 => true,
            _ => return None,
        };
        let (x, y) = coordinates.split_at_checked(self.length)?;
        let length = if is_hybrid { self.length } else { 0 };
        (y.len() == length).then_some(Point { x, y: is_hybrid.then_some(y), odd: form & 1 == 1 })
    }

    /// Returns a point in uncompressed form (SEC 1 section 2.3.4). `None` if it is not on the curve.
    fn uncompressed(&self, point: &Point<'_>) -> Option<Vec<u8>> {
        let y = self.y(point.x, point.odd)?;
        point.y.is_none_or(|given| *given == *y).then(|| [&[0x04], point.x, &y].concat())
    }

    fn y(&self, x: &[u8], odd: bool) -> Option<Vec<u8>> {
        let number = |hex: &str| BigUint::parse_bytes(hex.as_bytes(), 16);
        let (prime, b) = (number(self.prime)?, number(self.b)?);
        let x = BigUint::from_bytes_be(x);
        if x >= prime {
            return None;
        }
        // Subtraction without going below zero.
        let three_x = (&x * 3_u32) % &prime;
        let square = (x.modpow(&BigUint::from(3_u32), &prime) + &prime - three_x + b) % &prime;
        let mut y = square.modpow(&((&prime + 1_u32) / 4_u32), &prime);
        if (&y * &y) % &prime != square {
            return None;
        }
        if y.bit(0) != odd {
            y = prime - y;
        }
        let digits = y.to_bytes_be();
        let mut octets = vec![0; self.length.checked_sub(digits.len())?];
        octets.extend_from_slice(&digits);
        Some(octets)
    }
}

impl Certificate {
    /// Returns the public key as the DER of its `SubjectPublicKeyInfo`, with an EC point on a NIST curve in uncompressed form
    /// and the `NULL` parameters of RSA. Certificates of the same key return the same bytes, whichever encoding they use.
    #[must_use]
    pub fn uncompressed_public_key(&self) -> Cow<'_, [u8]> {
        uncompressed(self.public_key()).unwrap_or(Cow::Borrowed(self.public_key()))
    }
}
