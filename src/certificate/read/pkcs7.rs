//! The certificates of PKCS#7 and CMS signed data (RFC 2315 section 9.1, RFC 5652 section 5.1).
//!
//! Here the structure is only a container of certificates, as `openssl crl2pkcs7` and Windows certificate services write
//! it. Its signatures are not checked: no trust follows from the container of a certificate.

use zeroize::Zeroizing;

use crate::certificate::{
    ber,
    der::{CONTEXT_0, DerReader, INTEGER, OBJECT_IDENTIFIER, SEQUENCE, SET},
};

/// Returns the DER of every certificate in signed data, in the order of the file. The order has no meaning: it is a set.
///
/// # Errors
/// Returns a description of the damage.
pub(super) fn certificates(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    if let Some(certificates) = walk(bytes) {
        return Ok(certificates);
    }
    // Microsoft and Java tools write BER (RFC 5652 section 2).
    let der: Zeroizing<Vec<u8>> = ber::to_der(bytes).map_err(|error| error.to_string())?.der;
    walk(&der).ok_or_else(|| "its structure is not that of signed data".to_owned())
}

fn walk(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut info = DerReader::new(bytes).inside(SEQUENCE)?;
    info.content(OBJECT_IDENTIFIER)?;
    let mut data = info.inside(CONTEXT_0)?.inside(SEQUENCE)?;
    data.content(INTEGER)?;
    data.content(SET)?;
    data.content(SEQUENCE)?;
    let Some(mut members) = data.inside(CONTEXT_0) else {
        return Some(Vec::new());
    };
    let mut certificates = Vec::new();
    while !members.is_empty() {
        let member = members.element()?;
        // The other choices are attribute certificates and other formats (RFC 5652 section 10.2.2).
        if member.starts_with(&[SEQUENCE]) {
            certificates.push(member.to_vec());
        }
    }
    Some(certificates)
}
