//! The kinds of objects, recognised by the structure of their DER or by their PEM label.

use std::{borrow::Cow, fmt};

use crate::certificate::der::{
    BIT_STRING, CONTEXT_0, DerReader, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, der_element, der_header,
};

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The kind of an object in a certificate or key file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentKind {
    /// An X.509 certificate.
    Certificate,
    /// A certificate signing request (PKCS#10).
    CertificateRequest,
    /// A private key (PKCS#8, PKCS#1 or SEC1).
    PrivateKey,
    /// An encrypted private key.
    EncryptedPrivateKey,
    /// A public key.
    PublicKey,
    /// A certificate revocation list.
    RevocationList,
    /// Signed data (PKCS#7 or CMS), a container of certificates.
    Pkcs7,
    /// A PFX (PKCS#12) file.
    Pfx,
    /// Another kind, with a description.
    Other(Cow<'static, str>),
}

impl ContentKind {
    /// Returns whether it is a private key, or a PFX file, which usually holds one.
    #[must_use]
    pub fn holds_private_key(&self) -> bool {
        matches!(self, Self::PrivateKey | Self::EncryptedPrivateKey | Self::Pfx)
    }

    /// Returns the kind for a PEM label. Case, spaces and punctuation are ignored, since tools differ in all of them.
    pub(super) fn of_label(label: &str) -> Option<Self> {
        let name: String = label.chars().filter(char::is_ascii_alphanumeric).collect();
        Some(match name.to_ascii_uppercase().as_str() {
            // RFC 7468 section 5.1; OpenSSL writes the second and third.
            "CERTIFICATE" | "X509CERTIFICATE" | "TRUSTEDCERTIFICATE" => Self::Certificate,
            // RFC 7468 section 7; Microsoft's tools write the second.
            "CERTIFICATEREQUEST" | "NEWCERTIFICATEREQUEST" => Self::CertificateRequest,
            // RFC 7468 sections 8 and 9; OpenSSL, Netscape and Java tools write the others.
            "PKCS7" | "CMS" | "PKCS7SIGNEDDATA" | "CERTIFICATECHAIN" => Self::Pkcs7,
            "PKCS12" | "PFX" | "P12" => Self::Pfx,
            "X509CRL" | "CRL" => Self::RevocationList,
            "ENCRYPTEDPRIVATEKEY" => Self::EncryptedPrivateKey,
            name if name.ends_with("PRIVATEKEY") => Self::PrivateKey,
            name if name.ends_with("PUBLICKEY") => Self::PublicKey,
            _ => return None,
        })
    }

    /// Returns the kind of a DER element by its structure. `None` if no kind has that structure.
    pub(super) fn of_der(der: &[u8]) -> Option<Self> {
        let mut outer = DerReader::new(der).inside(SEQUENCE)?;
        let (first, content, _) = der_element(outer.element()?)?;
        let (second, third) = (outer.element(), outer.element());
        let is = |element: Option<&[u8]>, tag| element.and_then(<[u8]>::first) == Some(&tag);
        match *first.first()? {
            // A PFX is a version, 3, and what it applies to (RFC 7292 section 4).
            INTEGER if content == [3] && (second.is_none() || is(second, SEQUENCE)) => Some(Self::Pfx),
            // PKCS#8: a version, an algorithm, the key (RFC 5958 section 2).
            INTEGER if is(second, SEQUENCE) && is(third, OCTET_STRING) => Some(Self::PrivateKey),
            // SEC1: a version, the key (RFC 5915 section 3).
            INTEGER if is(second, OCTET_STRING) => Some(Self::PrivateKey),
            // The numbers of a public key, or a version and those of a private one (RFC 8017 appendix A.1).
            INTEGER if is(second, INTEGER) && third.is_none() => Some(Self::PublicKey),
            INTEGER if is(second, INTEGER) && is(third, INTEGER) => Some(Self::PrivateKey),
            OBJECT_IDENTIFIER => of_content_type(content),
            SEQUENCE if is(second, OCTET_STRING) && third.is_none() && names_algorithm(content) => {
                Some(Self::EncryptedPrivateKey)
            }
            SEQUENCE if is(second, BIT_STRING) && third.is_none() && names_algorithm(content) => Some(Self::PublicKey),
            SEQUENCE if is(second, SEQUENCE) && is(third, BIT_STRING) => of_signed(content),
            _ => None,
        }
    }

    /// Returns the kind of bytes by their beginning. They may be truncated, or BER of indefinite length.
    pub(super) fn of_beginning(bytes: &[u8]) -> Option<Self> {
        if bytes.first() != Some(&SEQUENCE) {
            return None;
        }
        let content = match der_header(bytes) {
            Some((header, _)) => bytes.get(header..)?,
            None if bytes.get(1) == Some(&0x80) => bytes.get(2..)?,
            None => return None,
        };
        match content {
            [INTEGER, 1, 3, SEQUENCE, ..] | [INTEGER, 1, 3] => Some(Self::Pfx),
            [INTEGER, 1, 0 | 1, SEQUENCE | OCTET_STRING | INTEGER, ..] => Some(Self::PrivateKey),
            [OBJECT_IDENTIFIER, ..] => of_content_type(DerReader::new(content).content(OBJECT_IDENTIFIER)?),
            [SEQUENCE, ..] => {
                let (header, _) = der_header(content)?;
                match content.get(header..)? {
                    [INTEGER, 1, 0, SEQUENCE, ..] => Some(Self::CertificateRequest),
                    // An explicit version, or the serial number of version 1.
                    [CONTEXT_0, 3, INTEGER, 1, ..] | [INTEGER, ..] => Some(Self::Certificate),
                    [OBJECT_IDENTIFIER, ..] => Some(Self::EncryptedPrivateKey),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

impl fmt::Display for ContentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "a certificate",
            Self::CertificateRequest => "a certificate request",
            Self::PrivateKey => "a private key",
            Self::EncryptedPrivateKey => "an encrypted private key",
            Self::PublicKey => "a public key",
            Self::RevocationList => "a revocation list",
            Self::Pkcs7 => "PKCS#7 signed data",
            Self::Pfx => "a PFX (PKCS#12) file",
            Self::Other(what) => what,
        })
    }
}

/// Returns whether the content of a sequence begins like that of an `AlgorithmIdentifier`.
fn names_algorithm(content: &[u8]) -> bool {
    DerReader::new(content).content(OBJECT_IDENTIFIER).is_some()
}

/// Returns the kind of a `ContentInfo` (RFC 5652 section 3) by its type.
fn of_content_type(identifier: &[u8]) -> Option<ContentKind> {
    // 1.2.840.113549.1.7 (RFC 2315 section 14).
    let (last, arcs) = identifier.split_last()?;
    if arcs != [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07] {
        return None;
    }
    Some(match last {
        2 => ContentKind::Pkcs7,
        1 => ContentKind::Other("PKCS#7 data that is not signed".into()),
        3 => ContentKind::Other("PKCS#7 enveloped data".into()),
        4 => ContentKind::Other("PKCS#7 signed and enveloped data".into()),
        5 => ContentKind::Other("PKCS#7 digested data".into()),
        6 => ContentKind::Other("PKCS#7 encrypted data".into()),
        _ => return None,
    })
}

/// Returns the kind of a signed object: a certificate, a request or a revocation list (RFC 5280 sections 4.1 and 5.1, RFC 2986
/// section 4).
fn of_signed(content: &[u8]) -> Option<ContentKind> {
    let mut members = DerReader::new(content);
    let first = *members.element()?.first()?;
    let mut tags = [0; 4];
    for tag in &mut tags {
        *tag = members.element().and_then(|member| member.first().copied()).unwrap_or_default();
    }
    match (first, tags) {
        (CONTEXT_0, [INTEGER, SEQUENCE, ..]) | (INTEGER, [SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE]) => {
            Some(ContentKind::Certificate)
        }
        (INTEGER, [SEQUENCE, SEQUENCE, UTC_TIME | GENERALIZED_TIME, _])
        | (SEQUENCE, [SEQUENCE, UTC_TIME | GENERALIZED_TIME, ..]) => Some(ContentKind::RevocationList),
        // The attributes are often omitted, and some tools write another tag.
        (INTEGER, [SEQUENCE, SEQUENCE, _, _]) => Some(ContentKind::CertificateRequest),
        _ => None,
    }
}
