//! PKCS#7 as a container of certificates (RFC 2315 section 9.1, RFC 5652 section 5.1), without content and signatures.

use super::{Bundle, ConvertError};
use crate::certificate::{
    Certificate,
    der::{CONTEXT_0, SET, der_frame, der_sequence},
    pem::pem_block,
};

/// `pkcs7-signedData` and `pkcs7-data`, with tag and length (RFC 2315 section 14).
const SIGNED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
const VERSION_1: &[u8] = b"\x02\x01\x01";

impl Bundle {
    /// Returns the certificates as a certs-only PKCS#7 in DER, the content of a `.p7b` file.
    ///
    /// # Errors
    /// Returns [`ConvertError::KeyNotHeld`] if there is a private key, and [`ConvertError::NoCertificate`] if there is only that.
    pub fn to_pkcs7_der(&self) -> Result<Vec<u8>, ConvertError> {
        self.check_no_key("PKCS#7")?;
        // In the order of the chain, as OpenSSL writes them, and not sorted as DER demands for sets: some readers take the
        // first certificate for the leaf, and no signature covers them.
        let certificates: Vec<_> = self.certificates().iter().map(Certificate::der).collect();
        let empty_set = der_frame(SET, &[]);
        let certificates = der_frame(CONTEXT_0, &certificates);
        let data = der_sequence(&[VERSION_1, &empty_set, &der_sequence(&[DATA]), &certificates, &empty_set]);
        Ok(der_sequence(&[SIGNED_DATA, &der_frame(CONTEXT_0, &[&data])]))
    }

    /// Returns the certificates as a certs-only PKCS#7 in PEM.
    ///
    /// # Errors
    /// Returns the errors of [`to_pkcs7_der`](Self::to_pkcs7_der).
    pub fn to_pkcs7_pem(&self) -> Result<String, ConvertError> {
        Ok(pem_block("PKCS7", &self.to_pkcs7_der()?))
    }
}
