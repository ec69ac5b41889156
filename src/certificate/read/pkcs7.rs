//! The certificates of PKCS#7 and CMS signed data (RFC 2315 section 9.1, RFC 5652 section 5.1).
//!
//! Here the structure is only a container of certificates, as `openssl crl2pkcs7` and Windows certificate services write
//! it. Its signatures are not checked: no trust follows from the container of a certificate.

use zeroize::Zeroizing;

use crate::certificate::{
    ber,
    der::{CONTEXT_0, DerReader, INTEGER, OBJECT_IDENTIFIER, SEQUENCE, SET},
};

/// What signed data contains.
#[derive(Default)]
pub(super) struct SignedData {
    /// The DER of every certificate, in the order of the file. The order has no meaning: it is a set.
    pub(super) certificates: Vec<Vec<u8>>,
    /// What it contains besides X.509 certificates.
    pub(super) others: Vec<&'static str>,
}

/// Reads signed data.
///
/// # Errors
/// Returns a description of the damage.
pub(super) fn read(bytes: &[u8]) -> Result<SignedData, String> {
    if let Some(data) = walk(bytes) {
        return Ok(data);
    }
    // Microsoft and Java tools write BER (RFC 5652 section 2).
    let der: Zeroizing<Vec<u8>> = ber::to_der(bytes).map_err(|error| error.to_string())?.der;
    walk(&der).ok_or_else(|| "its structure is not that of signed data".to_owned())
}

fn walk(bytes: &[u8]) -> Option<SignedData> {
    let mut info = DerReader::new(bytes).inside(SEQUENCE)?;
    info.content(OBJECT_IDENTIFIER)?;
    let mut data = info.inside(CONTEXT_0)?.inside(SEQUENCE)?;
    data.content(INTEGER)?;
    data.content(SET)?;
    let mut content = data.inside(SEQUENCE)?;
    let mut found = SignedData::default();
    content.element();
    if !content.is_empty() {
        found.others.push("signed content");
    }
    if let Some(mut members) = data.inside(CONTEXT_0) {
        while !members.is_empty() {
            let member = members.element()?;
            // The other choices are attribute certificates and other formats (RFC 5652 section 10.2.2).
            if member.starts_with(&[SEQUENCE]) {
                found.certificates.push(member.to_vec());
            } else {
                found.others.push("attribute certificates");
            }
        }
    }
    if data.content(REVOCATION_LISTS).is_some_and(|lists| !lists.is_empty()) {
        found.others.push("revocation lists");
    }
    if data.content(SET).is_some_and(|signers| !signers.is_empty()) {
        found.others.push("signatures");
    }
    found.others.dedup();
    Some(found)
}

/// `[1] IMPLICIT` of the revocation lists.
const REVOCATION_LISTS: u8 = 0xa1;
