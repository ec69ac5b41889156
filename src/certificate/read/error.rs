//! Why no certificate could be read.

/// The reason why a certificate could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The input is empty or holds only white space.
    #[error("it is empty")]
    Empty,
    /// The input has no certificate; holds a list of what it has.
    #[error("it holds no certificate{}", if .0.is_empty() { String::new() } else { format!(", only {}", .0) })]
    NoCertificate(String),
    /// The PEM is damaged.
    #[error("its PEM is damaged: {0}")]
    Pem(String),
    /// The input is neither PEM, DER, base64, PKCS#7 nor PFX.
    #[error("it is neither PEM, DER, base64 of either, PKCS#7, nor PFX")]
    Unrecognised,
    /// A certificate does not decode.
    #[error("it does not decode as an X.509 certificate: {0}")]
    Certificate(String),
    /// The PKCS#7 does not decode.
    #[error("its PKCS#7 is damaged: {0}")]
    Pkcs7(String),
    /// The input is a PFX file, which needs a password.
    #[error("it is a PFX (PKCS#12) file, which takes a password to read")]
    Pfx,
}
